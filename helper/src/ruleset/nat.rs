//! Address translation: maps that say which port leads where, and the clauses that look them up.
//!
//! For rulesets outside the router netns, where the kernel alone translates (the netavark drop-in).
//! Invariant: as everywhere here, the number of rules does not depend on how many ports are mapped.
//! Sources: nft(8) "NAT STATEMENTS", linux/netfilter/nf_tables.h, linux/netfilter/nf_nat.h.

use super::elements::padded;
use super::encode::HOST_ORDER;
use super::expression::Writer;
use super::model::{Family, SetId};
use netlink_bindings::nftables::{
    CmpOps, CtKeys, MetaKeys, PayloadBase, PushSetAttrs, PushSetelemListAttrs, SetFlags,
};
use std::fmt::{self, Display};
use std::net::IpAddr;

/// The registers: 16 bytes each, and in 4-byte steps from [`WORDS`] on.
const FIRST: u32 = 1;
const SECOND: u32 = 2;
/// NFT_REG32_00, the first four bytes of [`FIRST`].
const WORDS: u32 = 8;

/// RTN_LOCAL, as `fib … type` gives it.
pub(super) const LOCAL: u32 = libc::RTN_LOCAL as u32;
/// NFTA_FIB_F_DADDR and NFT_FIB_RESULT_ADDRTYPE, linux/netfilter/nf_tables.h.
const FIB_DESTINATION: u32 = 1 << 1;
pub(super) const FIB_TYPE: u32 = 3;
/// IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h.
const TRANSLATED: u32 = 1 << 5;
/// NFT_NAT_SNAT and NFT_NAT_DNAT.
const SOURCE: u32 = 0;
const DESTINATION: u32 = 1;
/// NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PROTO_SPECIFIED.
const MAP_ADDRESS: u32 = 1;
const MAP_PORT: u32 = 1 << 1;

/// A map, or a set of several values together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// Which.
    pub id: MapId,
    /// Key and value; keys differ.
    pub entries: Vec<(Vec<Part>, Vec<Part>)>,
}

/// The maps there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapId {
    /// Each bridge with itself, and with nothing: traffic that leaves as it came, or came from nowhere.
    Loops,
    /// Address, protocol and port of the host: address and port of a container.
    PortsAt(Family),
    /// The same for ports of every address.
    Ports(Family),
    /// Bridges whose traffic bears a certain address outside.
    Sources(Family),
}

/// Part of a key or value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Name of an interface.
    Interface(String),
    /// Address, of the family of the map.
    Address(IpAddr),
    /// Number of a transport protocol.
    Protocol(u8),
    /// Port.
    Port(u16),
}

/// Matches and statements of address translation. Those of one family break off by themselves for
/// packets of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// Addressed to this host.
    ToThisHost,
    /// Leaves by the bridge it came from.
    LeavesAsItCame,
    /// Comes from this host's loopback.
    FromLoopback,
    /// Its destination has been translated.
    Translated,
    /// Translate the destination by [`MapId::PortsAt`].
    PortAt(Family),
    /// Translate the destination by [`MapId::Ports`].
    Port(Family),
    /// Translate the source by [`MapId::Sources`].
    Source(Family),
}

impl MapId {
    /// Name in the kernel.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loops => "loops",
            Self::PortsAt(Family::V4) => "ports_at4",
            Self::PortsAt(Family::V6) => "ports_at6",
            Self::Ports(Family::V4) => "ports4",
            Self::Ports(Family::V6) => "ports6",
            Self::Sources(Family::V4) => "sources4",
            Self::Sources(Family::V6) => "sources6",
        }
    }

    /// Holds IPv6 addresses.
    pub fn is_ipv6(self) -> bool {
        match self {
            Self::Loops => false,
            Self::PortsAt(family) | Self::Ports(family) | Self::Sources(family) => {
                family == Family::V6
            }
        }
    }

    /// Types of key and value.
    fn types(self) -> (Vec<PartType>, Vec<PartType>) {
        use PartType::{Interface, Port, Protocol};
        let address = PartType::Address;
        match self {
            Self::Loops => (vec![Interface, Interface], Vec::new()),
            Self::PortsAt(family) => (
                vec![address(family), Protocol, Port],
                vec![address(family), Port],
            ),
            Self::Ports(family) => (vec![Protocol, Port], vec![address(family), Port]),
            Self::Sources(family) => (vec![Interface], vec![address(family)]),
        }
    }
}

/// nft(8)'s types, with its numbers.
#[derive(Debug, Clone, Copy)]
enum PartType {
    Interface,
    Address(Family),
    Protocol,
    Port,
}

impl PartType {
    fn number(self) -> u32 {
        match self {
            Self::Address(Family::V4) => 7,
            Self::Address(Family::V6) => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Interface => 41,
        }
    }

    /// Bytes, with what fills up a register.
    fn length(self) -> u32 {
        match self {
            Self::Interface | Self::Address(Family::V6) => 16,
            Self::Address(Family::V4) | Self::Protocol | Self::Port => 4,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Address(Family::V4) => "ipv4_addr",
            Self::Address(Family::V6) => "ipv6_addr",
            Self::Protocol => "inet_proto",
            Self::Port => "inet_service",
            Self::Interface => "ifname",
        }
    }
}

/// One type after another, as nft(8) numbers it; and the length together.
fn joined(types: &[PartType]) -> (u32, u32) {
    types.iter().fold((0, 0), |(number, length), part| {
        (number << 6 | part.number(), length + part.length())
    })
}

impl Part {
    fn append(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Interface(name) => bytes.extend(padded(name)),
            Self::Address(IpAddr::V4(address)) => bytes.extend(address.octets()),
            Self::Address(IpAddr::V6(address)) => bytes.extend(address.octets()),
            Self::Protocol(number) => bytes.extend([*number, 0, 0, 0]),
            Self::Port(port) => {
                bytes.extend(port.to_be_bytes());
                bytes.extend([0; 2]);
            }
        }
    }
}

fn bytes(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        part.append(&mut bytes);
    }
    bytes
}

impl Map {
    /// As attributes of a new set with this id.
    pub(super) fn describe(&self, attributes: &mut Vec<u8>, table: &str, id: u32) {
        let (key, value) = self.id.types();
        let ((key_type, key_length), (value_type, value_length)) = (joined(&key), joined(&value));
        let flags = if value.is_empty() {
            0
        } else {
            SetFlags::Map as u32
        };
        let set = PushSetAttrs::new(attributes)
            .push_table_bytes(table.as_bytes())
            .push_name_bytes(self.id.name().as_bytes())
            .push_flags(flags)
            .push_key_type(key_type)
            .push_key_len(key_length)
            .push_id(id)
            .push_userdata(match self.id {
                MapId::Sources(_) => &HOST_ORDER,
                MapId::Loops | MapId::PortsAt(_) | MapId::Ports(_) => &[],
            });
        let set = if value.is_empty() {
            set
        } else {
            set.push_data_type(value_type).push_data_len(value_length)
        };
        set.end_nested();
    }

    /// Some of its entries, as attributes of new elements.
    pub(super) fn fill(
        &self,
        attributes: &mut Vec<u8>,
        table: &str,
        id: u32,
        entries: &[(Vec<Part>, Vec<Part>)],
    ) {
        let mut list = PushSetelemListAttrs::new(attributes)
            .push_table_bytes(table.as_bytes())
            .push_set_bytes(self.id.name().as_bytes())
            .push_set_id(id)
            .nested_elements();
        for (key, value) in entries {
            let mut element = list
                .nested_elem()
                .nested_key()
                .push_value(&bytes(key))
                .end_nested();
            if !value.is_empty() {
                element = element.nested_data().push_value(&bytes(value)).end_nested();
            }
            list = element.end_nested();
        }
        list.end_nested().end_nested();
    }
}

impl Nat {
    /// Makes sense with IPv6 only.
    pub fn is_ipv6(self) -> bool {
        match self {
            Self::ToThisHost | Self::LeavesAsItCame | Self::FromLoopback | Self::Translated => {
                false
            }
            Self::PortAt(family) | Self::Port(family) | Self::Source(family) => {
                family == Family::V6
            }
        }
    }
}

impl Writer<'_> {
    /// The expressions of one clause.
    pub(super) fn nat(&mut self, nat: Nat) {
        match nat {
            Nat::ToThisHost => {
                self.element(|expression| {
                    expression
                        .nested_data_fib()
                        .push_dreg(FIRST)
                        .push_result(FIB_TYPE)
                        .push_flags(FIB_DESTINATION)
                        .end_nested();
                });
                self.compare(CmpOps::Eq, &LOCAL.to_ne_bytes());
            }
            Nat::LeavesAsItCame => {
                self.load_meta(MetaKeys::Iifname);
                self.load_meta_into(MetaKeys::Oifname, SECOND);
                self.look_up_map(MapId::Loops, None);
            }
            Nat::FromLoopback => {
                self.family(Family::V4);
                self.load_saddr(Family::V4, FIRST);
                self.look_up_named(SetId::Loopback.name(), None, 0);
            }
            Nat::Translated => {
                self.load_ct(CtKeys::Status);
                self.mask(&TRANSLATED.to_ne_bytes());
                self.compare(CmpOps::Neq, &[0; 4]);
            }
            Nat::PortAt(family) => {
                self.family(family);
                self.load_daddr(family, FIRST);
                self.port(MapId::PortsAt(family), family, WORDS + words(family));
            }
            Nat::Port(family) => {
                self.port(MapId::Ports(family), family, WORDS);
            }
            Nat::Source(family) => {
                self.load_meta(MetaKeys::Iifname);
                self.look_up_map(MapId::Sources(family), Some(FIRST));
                self.translate(SOURCE, family, None);
            }
        }
    }

    /// Protocol and destination port into the registers from `register` on, then the look-up.
    fn port(&mut self, map: MapId, family: Family, register: u32) {
        self.load_meta_into(MetaKeys::L4Proto, register);
        self.load_payload(PayloadBase::TransportHeader, 2, 2, register + 1);
        self.look_up_map(map, Some(FIRST));
        self.translate(DESTINATION, family, Some(WORDS + words(family)));
    }

    /// Address in the first register, port in that one.
    fn translate(&mut self, kind: u32, family: Family, port: Option<u32>) {
        self.element(|expression| {
            let nat = expression
                .nested_data_nat()
                .push_type(kind)
                .push_family(u32::from(family.number()))
                .push_reg_addr_min(FIRST)
                .push_reg_addr_max(FIRST);
            match port {
                Some(port) => nat
                    .push_reg_proto_min(port)
                    .push_reg_proto_max(port)
                    .push_flags(MAP_ADDRESS | MAP_PORT)
                    .end_nested(),
                None => nat.push_flags(MAP_ADDRESS).end_nested(),
            };
        });
    }

    fn look_up_map(&mut self, map: MapId, value: Option<u32>) {
        self.look_up_named(map.name(), value, 0);
    }
}

/// 4-byte registers that an address fills.
fn words(family: Family) -> u32 {
    PartType::Address(family).length() / 4
}

impl Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, value) = self.id.types();
        let types = |types: &[PartType]| {
            let names: Vec<&str> = types.iter().map(|part| part.name()).collect();
            names.join(" . ")
        };
        let kind = if value.is_empty() { "set" } else { "map" };
        writeln!(f, "\t{kind} {} {{", self.id.name())?;
        let colon = if value.is_empty() { "" } else { " : " };
        writeln!(f, "\t\ttype {}{colon}{}", types(&key), types(&value))?;
        let entry =
            |(key, value): &(Vec<Part>, Vec<Part>)| format!("{}{colon}{}", text(key), text(value));
        let entries: Vec<String> = self.entries.iter().map(entry).collect();
        if !entries.is_empty() {
            writeln!(f, "\t\telements = {{ {} }}", entries.join(", "))?;
        }
        writeln!(f, "\t}}\n")
    }
}

fn text(parts: &[Part]) -> String {
    let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
    parts.join(" . ")
}

impl Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "\"{name}\""),
            Self::Address(address) => write!(f, "{address}"),
            Self::Protocol(number) => match i32::from(*number) {
                libc::IPPROTO_TCP => f.write_str("tcp"),
                libc::IPPROTO_UDP => f.write_str("udp"),
                libc::IPPROTO_SCTP => f.write_str("sctp"),
                other => write!(f, "{other}"),
            },
            Self::Port(port) => write!(f, "{port}"),
        }
    }
}

impl Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = |family: &Family| match family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        match self {
            Self::ToThisHost => f.write_str("fib daddr type local"),
            Self::LeavesAsItCame => f.write_str("iifname . oifname @loops"),
            Self::FromLoopback => f.write_str("ip saddr @loopback"),
            Self::Translated => f.write_str("ct status dnat"),
            Self::PortAt(family) => {
                let (ip, map) = (protocol(family), MapId::PortsAt(*family).name());
                write!(
                    f,
                    "dnat {ip} to {ip} daddr . meta l4proto . th dport map @{map}"
                )
            }
            Self::Port(family) => {
                let (ip, map) = (protocol(family), MapId::Ports(*family).name());
                write!(f, "dnat {ip} to meta l4proto . th dport map @{map}")
            }
            Self::Source(family) => {
                let (ip, map) = (protocol(family), MapId::Sources(*family).name());
                write!(f, "snat {ip} to iifname map @{map}")
            }
        }
    }
}
