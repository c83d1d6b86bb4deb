//! A ruleset in the words of nft(8): for tests and messages, never for a program to read.

use super::model::{
    Base, Chain, ChainKind, Clause, Elements, EtherType, Family, Hook, Own, Priority, Protocol,
    Ruleset, SYN_AND_ACK, Set, SetId, TIMESTAMP_HEAD, TIMESTAMP_KIND, TableFamily, option_head,
};
use crate::framed::{FRAMED_MASK, FRAMED_TIMESTAMP};
use crate::names::MacAddr;
use std::fmt::{self, Display, Write};

impl Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.table {
            TableFamily::Inet | TableFamily::Podman | TableFamily::Ports(_) => "inet",
            TableFamily::Bridge => "bridge",
            TableFamily::Netdev => "netdev",
        };
        writeln!(f, "table {family} {} {{", self.table.table())?;
        if self.table.is_owned() {
            writeln!(f, "\tflags owner\n")?;
        }
        for set in &self.sets {
            write!(f, "{set}")?;
        }
        for map in &self.maps {
            write!(f, "{map}")?;
        }
        for chain in &self.chains {
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tset {} {{", self.id.name())?;
        let (kind, interval) = match &self.elements {
            Elements::Interfaces(_) => ("ifname", false),
            Elements::Prefixes4(_) => ("ipv4_addr", true),
            Elements::Prefixes6(_) => ("ipv6_addr", true),
            Elements::Gateways4(_) => ("ifname . ipv4_addr", false),
            Elements::Gateways6(_) => ("ifname . ipv6_addr", false),
            Elements::Macs(_) => ("iface_index . ether_addr", false),
            Elements::Own4(_) => ("iface_index . ether_addr . ipv4_addr", false),
            Elements::Own6(_) => ("iface_index . ether_addr . ipv6_addr", false),
            Elements::Ports(_) => ("inet_service", false),
            Elements::At4(_) => ("ipv4_addr : ether_addr . iface_index", false),
            Elements::At6(_) => ("ipv6_addr : ether_addr . iface_index", false),
        };
        writeln!(f, "\t\ttype {kind}")?;
        if interval {
            writeln!(f, "\t\tflags interval")?;
        }
        let elements: Vec<String> = match &self.elements {
            Elements::Interfaces(names) => names.iter().map(|name| format!("\"{name}\"")).collect(),
            Elements::Prefixes4(nets) => nets.iter().map(ToString::to_string).collect(),
            Elements::Prefixes6(nets) => nets.iter().map(ToString::to_string).collect(),
            Elements::Gateways4(pairs) => pairs.iter().map(pair).collect(),
            Elements::Gateways6(pairs) => pairs.iter().map(pair).collect(),
            Elements::Macs(pairs) => pairs
                .iter()
                .map(|(index, mac)| format!("{index} . {mac}"))
                .collect(),
            Elements::Own4(claims) => claims.iter().map(claim).collect(),
            Elements::Own6(claims) => claims.iter().map(claim).collect(),
            Elements::Ports(ports) => ports.iter().map(ToString::to_string).collect(),
            Elements::At4(all) => all.iter().map(place).collect(),
            Elements::At6(all) => all.iter().map(place).collect(),
        };
        if !elements.is_empty() {
            writeln!(f, "\t\telements = {{ {} }}", elements.join(", "))?;
        }
        writeln!(f, "\t}}\n")
    }
}

fn pair<A: Display>((name, address): &(String, A)) -> String {
    format!("\"{name}\" . {address}")
}

fn claim<A: Display>((index, mac, address): &(u32, MacAddr, A)) -> String {
    format!("{index} . {mac} . {address}")
}

fn place<A: Display>((address, (mac, index)): (&A, &(MacAddr, u32))) -> String {
    format!("{address} : {mac} . {index}")
}

impl Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(base) = self.base {
            writeln!(f, "\t\t{base}")?;
            if !self.devices.is_empty() {
                writeln!(f, "\t\tdevices = {{ {} }}", self.devices.join(", "))?;
            }
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{}", rule_text(rule))?;
        }
        writeln!(f, "\t}}\n")
    }
}

/// One rule on one line.
pub fn rule_text(rule: &[Clause]) -> String {
    let mut text = String::new();
    for clause in rule {
        let separator = if text.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{clause}");
    }
    text
}

impl Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        };
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
            Hook::Ingress => "ingress",
        };
        let priority = match self.priority {
            Priority::Raw => "raw",
            Priority::Mangle => "mangle",
            Priority::Filter | Priority::BridgeFilter => "filter",
            Priority::Srcnat => "srcnat",
            // nft(8) has a word for it before routing only.
            Priority::Dstnat if self.hook == Hook::Output => "-100",
            Priority::Dstnat => "dstnat",
        };
        let policy = if self.drop { "drop" } else { "accept" };
        write!(
            f,
            "type {kind} hook {hook} priority {priority}; policy {policy};"
        )
    }
}

impl Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iif(name) => write!(f, "iifname \"{name}\""),
            Self::IifStarts(name) => write!(f, "iifname \"{name}*\""),
            Self::IifStartsNot(name) => write!(f, "iifname != \"{name}*\""),
            Self::IifIn(set) => write!(f, "iifname @{}", set.name()),
            Self::IifNotIn(set) => write!(f, "iifname != @{}", set.name()),
            Self::Ether(kind) => write!(f, "ether type {kind}"),
            Self::Own(own) => write!(f, "iif . {own} @{}", own.set().name()),
            Self::ForeignMac => f.write_str("iif . ether saddr != @own_mac"),
            Self::Saddr(family, set) => write!(f, "{} saddr @{}", family.header(), set.name()),
            Self::NoSource(Family::V4) => f.write_str("arp saddr ip 0.0.0.0"),
            Self::NoSource(Family::V6) => f.write_str("ip6 saddr ::"),
            Self::Icmp(first, last) if first == last => write!(f, "icmp type {first}"),
            Self::Icmp(first, last) => write!(f, "icmp type {first}-{last}"),
            Self::Icmpv6(first, last) if first == last => write!(f, "icmpv6 type {first}"),
            Self::Icmpv6(first, last) => write!(f, "icmpv6 type {first}-{last}"),
            Self::Length(length) => write!(f, "ip6 length {length}"),
            Self::NeighbourOption(kind) => write!(f, "@th,192,16 {:#x}", option_head(*kind)),
            Self::UdpFrom(set) => write!(f, "udp sport @{}", set.name()),
            Self::Framed => write!(
                f,
                "@th,224,32 & {FRAMED_MASK:#x} == {FRAMED_TIMESTAMP:#x} @th,160,32 {TIMESTAMP_HEAD:#x}"
            ),
            Self::FramedAnswer => write!(
                f,
                "@th,256,32 & {FRAMED_MASK:#x} == {FRAMED_TIMESTAMP:#x} @th,208,16 {TIMESTAMP_KIND:#x} @th,104,8 {SYN_AND_ACK:#x}"
            ),
            Self::NotL4(protocol) => write!(f, "meta l4proto != {protocol}"),
            Self::Oif(name) => write!(f, "oifname \"{name}\""),
            Self::OifIn(set) => write!(f, "oifname @{}", set.name()),
            Self::L4(protocol) => write!(f, "meta l4proto {protocol}"),
            Self::TcpOpens(true) => f.write_str("tcp flags & (fin | syn | rst | ack) == syn"),
            Self::TcpOpens(false) => f.write_str("tcp flags & (fin | syn | rst | ack) != syn"),
            Self::NotForHost => f.write_str("meta pkttype != host"),
            Self::Daddr(family, set) => write!(f, "{} daddr @{}", family.header(), set.name()),
            Self::IifDaddr(family, set) => iif_daddr(f, *family, *set),
            Self::HopsBelow(Family::V4, hops) => write!(f, "ip ttl < {hops}"),
            Self::HopsBelow(Family::V6, hops) => write!(f, "ip6 hoplimit < {hops}"),
            Self::DontFragment => write!(f, "ip frag-off & 0x4000 != 0"),
            Self::Mark(mark) => write!(f, "meta mark {mark:#010x}"),
            Self::Reply => f.write_str("ct state established,related"),
            Self::SetMark(mark) => write!(f, "meta mark set {mark:#010x}"),
            Self::Tproxy(Family::V4) => f.write_str("tproxy ip to 127.0.0.1:7000"),
            Self::Tproxy(Family::V6) => f.write_str("tproxy ip6 to [::1]:7000"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Reject => f.write_str("reject with icmpx admin-prohibited"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Untracked => f.write_str("notrack"),
            Self::Nat(nat) => write!(f, "{nat}"),
            Self::Answer(answer) => write!(f, "{answer}"),
            Self::Fast(step) => write!(f, "{step}"),
        }
    }
}

fn iif_daddr(f: &mut fmt::Formatter<'_>, family: Family, set: SetId) -> fmt::Result {
    write!(f, "iifname . {} daddr @{}", family.header(), set.name())
}

impl Family {
    fn header(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

impl Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
            Self::Arp => "arp",
        })
    }
}

impl Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(family) => write!(f, "ether saddr . {} saddr", family.header()),
            Self::ArpSender => f.write_str("arp saddr ether . arp saddr ip"),
            Self::ArpMac => f.write_str("arp saddr ether"),
            Self::Target => f.write_str("ether saddr . @th,64,128"),
            Self::OptionMac => f.write_str("@th,208,48"),
            Self::Quoted(Family::V4) => f.write_str("ether saddr . @th,192,32"),
            Self::Quoted(Family::V6) => f.write_str("ether saddr . @th,256,128"),
        }
    }
}

impl Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Icmpv6 => "ipv6-icmp",
        })
    }
}
