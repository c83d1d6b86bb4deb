//! The rules, in the order in which packets meet them. The same for every set of networks, but for
//! the part that external uplinks need: it brings connection tracking, so it is there only when used.

use super::model::{Base, Chain, ChainKind, Clause, Family, Hook, Priority, Protocol, Rule, SetId};
use ipnet::Ipv6Net;
use std::net::Ipv6Addr;

/// Marks what is for a transparent socket of the relay.
pub const RELAY_MARK: u32 = 1;
/// The same, for IPv4 datagrams that no router may fragment: the relay reads the mark.
pub const WHOLE_MARK: u32 = 0x101;
/// Marks what leaves by pasta.
pub const PASTA_MARK: u32 = 2;
/// Marks what leaves by slirp4netns.
pub const SLIRP_MARK: u32 = 3;

/// Marks what leaves by the link to the host's network.
pub const KERNEL_MARK: u32 = 4;

/// The tap device that pasta makes in the router netns.
pub const PASTA_TAP: &str = "pasta0";
/// The tap device that slirp4netns makes in the router netns.
pub const SLIRP_TAP: &str = "slirp0";
/// The router's end of the link to the host's network.
pub const KERNEL_LINK: &str = "kern0";

/// By what traffic leaves besides the relay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ways {
    /// A tap device, to whose address it is translated.
    pub tap: bool,
    /// The link to the host's network. Nothing is translated on it, and so nothing tracked.
    pub kernel: bool,
}

/// Destination unreachable, in ICMP and ICMPv6.
const UNREACHABLE4: u8 = 3;
const UNREACHABLE6: u8 = 1;

const BRIDGES: &str = "br-";
const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// fe80::/10 and ff00::/8.
pub fn link_local() -> Vec<Ipv6Net> {
    let prefix =
        |first: u16, length| Ipv6Net::new(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), length).ok();
    [prefix(0xfe80, 10), prefix(0xff00, 8)]
        .into_iter()
        .flatten()
        .collect()
}

fn subnets(family: Family) -> Clause {
    match family {
        Family::V4 => Clause::Daddr(family, SetId::Subnets4),
        Family::V6 => Clause::Daddr(family, SetId::Subnets6),
    }
}

fn gateways(family: Family) -> Clause {
    match family {
        Family::V4 => Clause::IifDaddr(family, SetId::Gateways4),
        Family::V6 => Clause::IifDaddr(family, SetId::Gateways6),
    }
}

fn link_local_destination() -> Clause {
    Clause::Daddr(Family::V6, SetId::LinkLocal)
}

fn base(hook: Hook, priority: Priority) -> Base {
    Base {
        kind: ChainKind::Filter,
        hook,
        priority,
        drop: false,
    }
}

/// All chains, with those that other ways than the relay need.
pub fn chains(ways: Ways) -> Vec<Chain> {
    let routed = ways.tap;
    let mut chains = Vec::new();
    if routed {
        chains.push(leave_by("by_pasta", PASTA_MARK));
        chains.push(leave_by("by_slirp", SLIRP_MARK));
    }
    chains.push(raw_prerouting(routed));
    chains.push(prerouting(ways));
    chains.push(input(ways));
    chains.push(forward(ways));
    if routed {
        chains.push(raw_output());
        chains.push(postrouting());
    }
    chains
}

/// Nothing that the relay's end of the uplink pair receives is for this host's own stack.
fn raw_prerouting(routed: bool) -> Chain {
    let mut rules = vec![vec![Clause::Iif("up1"), Clause::Drop]];
    if routed {
        rules.push(vec![Clause::IifNotIn(SetId::Tracked), Clause::Untracked]);
    }
    Chain {
        name: "raw_prerouting".into(),
        base: Some(base(Hook::Prerouting, Priority::Raw)),
        devices: Vec::new(),
        rules,
    }
}

fn raw_output() -> Chain {
    let rules = vec![vec![Clause::Untracked]];
    Chain {
        name: "raw_output".into(),
        base: Some(base(Hook::Output, Priority::Raw)),
        devices: Vec::new(),
        rules,
    }
}

/// What is to leave by an external uplink gets its mark; what is for the router or refused does not.
fn leave_by(name: &'static str, mark: u32) -> Chain {
    let mut rules = stays_here();
    rules.push(vec![Clause::SetMark(mark), Clause::Accept]);
    Chain {
        name: name.into(),
        base: None,
        devices: Vec::new(),
        rules,
    }
}

/// To the router itself, or not to be routed at all.
fn stays_here() -> Vec<Rule> {
    let mut rules = vec![
        vec![Clause::NotForHost, Clause::Accept],
        vec![link_local_destination(), Clause::Accept],
    ];
    rules.extend(BOTH.map(|family| vec![gateways(family), Clause::Accept]));
    rules.extend(BOTH.map(|family| vec![subnets(family), Clause::Accept]));
    rules
}

fn prerouting(ways: Ways) -> Chain {
    let mut rules = Vec::new();
    if ways.kernel {
        rules.extend(leave_by_kernel());
    }
    if ways.tap {
        rules.push(vec![Clause::IifIn(SetId::Pasta), Clause::Goto("by_pasta")]);
        rules.push(vec![Clause::IifIn(SetId::Slirp), Clause::Goto("by_slirp")]);
    }
    // Stateless: local delivery finds the socket of the flow. A lookup here would race with its
    // birth.
    rules.push(vec![
        Clause::IifStarts(BRIDGES),
        Clause::TcpOpens(false),
        Clause::SetMark(RELAY_MARK),
        Clause::Accept,
    ]);
    // A SYN that the gate has let pass.
    rules.extend(BOTH.map(|family| {
        vec![
            Clause::Iif("up0"),
            Clause::TcpOpens(true),
            Clause::Tproxy(family),
            Clause::SetMark(RELAY_MARK),
            Clause::Accept,
        ]
    }));
    // A segment that came before the kernel had taken its framed flow over; the relay sends it on.
    rules.push(vec![
        Clause::Framed,
        Clause::L4(Protocol::Tcp),
        Clause::Iif("up0"),
        Clause::SetMark(RELAY_MARK),
        Clause::Accept,
    ]);
    rules.push(vec![Clause::IifStartsNot(BRIDGES), Clause::Accept]);
    let (here, elsewhere) = split_stays_here();
    rules.extend(here);
    rules.push(vec![Clause::IifIn(SetId::Closed), Clause::Drop]);
    rules.extend(elsewhere);
    // What a container answers instead of a service: for the socket that it is about.
    rules.push(vec![
        Clause::Icmp(UNREACHABLE4, UNREACHABLE4),
        Clause::SetMark(RELAY_MARK),
        Clause::Accept,
    ]);
    rules.push(vec![
        Clause::Icmpv6(UNREACHABLE6, UNREACHABLE6),
        Clause::SetMark(RELAY_MARK),
        Clause::Accept,
    ]);
    rules.extend(datagrams());
    // Everything else (SYN, ICMP) is routed to up0.
    Chain {
        name: "prerouting".into(),
        base: Some(base(Hook::Prerouting, Priority::Mangle)),
        devices: Vec::new(),
        rules,
    }
}

/// To the relay, but for those of a traceroute.
fn datagrams() -> Vec<Rule> {
    // Traceroute: on to the gate.
    let mut rules: Vec<Rule> = BOTH
        .map(|family| {
            vec![
                Clause::L4(Protocol::Udp),
                Clause::HopsBelow(family, 32),
                Clause::Accept,
            ]
        })
        .into();
    rules.push(vec![
        Clause::L4(Protocol::Udp),
        Clause::DontFragment,
        Clause::Tproxy(Family::V4),
        Clause::SetMark(WHOLE_MARK),
        Clause::Accept,
    ]);
    rules.extend(BOTH.map(|family| {
        vec![
            Clause::L4(Protocol::Udp),
            Clause::Tproxy(family),
            Clause::SetMark(RELAY_MARK),
            Clause::Accept,
        ]
    }));
    rules
}

/// Few rules, for each packet passes them: the table `local` is looked at before that of the mark, so
/// that what is for the router stays here; what is for other networks is refused as it is forwarded.
fn leave_by_kernel() -> [Rule; 2] {
    let from = Clause::IifIn(SetId::Kernel);
    [
        vec![from, link_local_destination(), Clause::Accept],
        vec![from, Clause::SetMark(KERNEL_MARK), Clause::Accept],
    ]
}

/// The same rules as [`stays_here`], those for other networks apart: closed networks come between.
fn split_stays_here() -> (Vec<Rule>, Vec<Rule>) {
    let mut here = stays_here();
    let elsewhere = here.split_off(here.len() - BOTH.len());
    (here, elsewhere)
}

/// Containers reach the router's own addresses on their own network only: the name server there
/// answers for that network.
fn input(ways: Ways) -> Chain {
    let mut rules = vec![
        vec![Clause::Mark(RELAY_MARK), Clause::Accept],
        vec![Clause::Mark(WHOLE_MARK), Clause::Accept],
        vec![Clause::Iif("lo"), Clause::Accept],
    ];
    rules.extend(BOTH.map(|family| vec![gateways(family), Clause::Accept]));
    let neighbours = Clause::L4(Protocol::Icmpv6);
    rules.push(vec![
        Clause::IifStarts(BRIDGES),
        neighbours,
        link_local_destination(),
        Clause::Accept,
    ]);
    if ways.tap {
        rules.push(vec![Clause::Iif(PASTA_TAP), neighbours, Clause::Accept]);
        rules.push(vec![Clause::Iif(SLIRP_TAP), neighbours, Clause::Accept]);
    }
    if ways.kernel {
        rules.push(vec![Clause::Iif(KERNEL_LINK), neighbours, Clause::Accept]);
    }
    // Another network's gateway is as far away as its containers.
    rules.extend(BOTH.map(refuse_other_networks));
    let base = Base {
        drop: true,
        ..base(Hook::Input, Priority::Filter)
    };
    Chain {
        name: "input".into(),
        base: Some(base),
        devices: Vec::new(),
        rules,
    }
}

fn refuse_other_networks(family: Family) -> Rule {
    vec![Clause::IifStarts(BRIDGES), subnets(family), Clause::Reject]
}

fn forward(ways: Ways) -> Chain {
    let mut rules = Vec::new();
    if ways.kernel {
        // What the host lets in: it keeps the world out.
        rules.push(vec![
            Clause::Iif(KERNEL_LINK),
            Clause::OifIn(SetId::Kernel),
            Clause::Accept,
        ]);
    }
    rules.extend(BOTH.map(refuse_other_networks));
    if ways.kernel {
        rules.push(vec![
            Clause::IifIn(SetId::Kernel),
            Clause::Oif(KERNEL_LINK),
            Clause::Accept,
        ]);
    }
    rules.push(vec![
        Clause::IifIn(SetId::Relay),
        Clause::Oif("up0"),
        Clause::Accept,
    ]);
    rules.push(vec![
        Clause::Iif("up0"),
        Clause::OifIn(SetId::Relay),
        Clause::Accept,
    ]);
    if ways.tap {
        for (bridges, tap) in [(SetId::Pasta, PASTA_TAP), (SetId::Slirp, SLIRP_TAP)] {
            rules.push(vec![
                Clause::IifIn(bridges),
                Clause::Oif(tap),
                Clause::Accept,
            ]);
            rules.push(vec![
                Clause::Iif(tap),
                Clause::OifIn(bridges),
                Clause::Reply,
                Clause::Accept,
            ]);
        }
    }
    let base = Base {
        drop: true,
        ..base(Hook::Forward, Priority::Filter)
    };
    Chain {
        name: "forward".into(),
        base: Some(base),
        devices: Vec::new(),
        rules,
    }
}

fn postrouting() -> Chain {
    let rules = [PASTA_TAP, SLIRP_TAP]
        .map(|tap| vec![Clause::Oif(tap), Clause::Masquerade])
        .into();
    let base = Base {
        kind: ChainKind::Nat,
        ..base(Hook::Postrouting, Priority::Srcnat)
    };
    Chain {
        name: "postrouting".into(),
        base: Some(base),
        devices: Vec::new(),
        rules,
    }
}
