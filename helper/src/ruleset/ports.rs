//! The ruleset of the rootlessport drop-in: what a container answers to a client in whose name a socket of
//! ours asked comes back to that socket, instead of leaving for the client.
//!
//! One table for each process, owned by the netlink socket that made it: it goes with that socket, whoever
//! closes it, and nobody else changes it. Two places:
//!
//! * On the other side of the container's bridge ([`ports_by_bridge`]): an answer comes in by the bridge, and
//!   a look-up finds the socket that it is for.
//! * Inside the container's network namespace ([`ports_inside`]): an answer is born there, and what it is to
//!   be found by is the conversation that it belongs to (connection tracking), which began with a packet from
//!   an address that nobody has here.
//!
//! Both mark it; a policy rule leads what is marked to the namespace's own sockets.
//!
//! Sources: nft(8) "SOCKET EXPRESSION", "CT", "FIB"; linux/netfilter/nf_tables.h.

use super::Families;
use super::expression::{NFTA_EXPR_DATA, Writer};
use super::model::{
    Base, Chain, ChainKind, Clause, Elements, Family, Hook, Priority, Rule, Ruleset, Set, SetId,
    TableFamily,
};
use super::nat::{FIB_TYPE, LOCAL};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_bindings::nftables::{CmpOps, CtKeys};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{finalize_nested_header, push_header, push_nested_header};
use std::fmt::{self, Display};
use std::net::IpAddr;

/// Marks what is for a socket in a client's name. No bit of it is one that netavark or CNI's portmap marks
/// with (0x2000).
pub const PORT_MARK: u32 = 0x4d4f;

/// The register used.
const FIRST: u32 = 1;
/// NFTA_SOCKET_KEY, NFTA_SOCKET_DREG, NFT_SOCKET_TRANSPARENT; linux/netfilter/nf_tables.h.
const SOCKET_KEY: u16 = 1;
const SOCKET_DREG: u16 = 2;
const TRANSPARENT: u32 = 0;
/// NFTA_FIB_F_SADDR.
const FIB_SOURCE: u32 = 1;
/// IP_CT_DIR_REPLY.
const ANSWER: u8 = 1;

/// Matches and statements about a container's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// From an address in a set.
    From(Family, SetId),
    /// For a socket that has an address of somebody else's.
    ForTransparent,
    /// An answer within a conversation with the mark.
    AnswersMarked,
    /// Its source is no address of this netns.
    StrangeSource,
    /// Its conversation gets the mark.
    MarkConversation,
}

impl Answer {
    /// Makes sense with IPv6 only.
    pub fn is_ipv6(self) -> bool {
        match self {
            Self::From(family, _) => family == Family::V6,
            Self::ForTransparent
            | Self::AnswersMarked
            | Self::StrangeSource
            | Self::MarkConversation => false,
        }
    }
}

/// The table of `process`, on the other side of the bridge: answers come from these addresses.
pub fn ports_by_bridge(process: u32, targets: &[IpAddr], families: Families) -> Ruleset {
    let set = |id, elements| Set { id, elements };
    let prefixes = targets.iter().map(|target| IpNet::from(*target));
    let (mut v4, mut v6): (Vec<Ipv4Net>, Vec<Ipv6Net>) = (Vec::new(), Vec::new());
    for prefix in prefixes {
        match prefix {
            IpNet::V4(net) => v4.push(net),
            IpNet::V6(net) => v6.push(net),
        }
    }
    let rule = |family, id| -> Rule {
        vec![
            Clause::Answer(Answer::From(family, id)),
            Clause::Answer(Answer::ForTransparent),
            Clause::SetMark(PORT_MARK),
        ]
    };
    let ruleset = Ruleset {
        table: TableFamily::Ports(process),
        sets: vec![
            set(
                SetId::Subnets4,
                Elements::Prefixes4(Ipv4Net::aggregate(&v4)),
            ),
            set(
                SetId::Subnets6,
                Elements::Prefixes6(Ipv6Net::aggregate(&v6)),
            ),
        ],
        maps: Vec::new(),
        chains: vec![chain(
            ("prerouting", Hook::Prerouting, ChainKind::Filter),
            vec![
                rule(Family::V4, SetId::Subnets4),
                rule(Family::V6, SetId::Subnets6),
            ],
        )],
    };
    ruleset.for_families(families)
}

/// The table of `process`, inside the container's netns.
pub fn ports_inside(process: u32) -> Ruleset {
    let rules = vec![
        vec![
            Clause::Answer(Answer::AnswersMarked),
            Clause::SetMark(PORT_MARK),
            Clause::Accept,
        ],
        vec![
            Clause::Answer(Answer::StrangeSource),
            Clause::Answer(Answer::MarkConversation),
        ],
    ];
    Ruleset {
        table: TableFamily::Ports(process),
        sets: Vec::new(),
        maps: Vec::new(),
        chains: vec![chain(("output", Hook::Output, ChainKind::Route), rules)],
    }
}

fn chain((name, hook, kind): (&'static str, Hook, ChainKind), rules: Vec<Rule>) -> Chain {
    Chain {
        name: name.into(),
        base: Some(Base {
            kind,
            hook,
            priority: Priority::Mangle,
            drop: false,
        }),
        devices: Vec::new(),
        rules,
    }
}

impl Writer<'_> {
    pub(super) fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::From(family, set) => {
                self.family(family);
                self.load_saddr(family, FIRST);
                self.look_up(set, false);
            }
            Answer::ForTransparent => {
                self.load_transparent();
                self.compare(CmpOps::Eq, &[1]);
            }
            Answer::AnswersMarked => {
                self.load_ct(CtKeys::Direction);
                self.compare(CmpOps::Eq, &[ANSWER]);
                self.load_ct(CtKeys::Mark);
                self.compare(CmpOps::Eq, &PORT_MARK.to_ne_bytes());
            }
            Answer::StrangeSource => {
                self.element(|expression| {
                    expression
                        .nested_data_fib()
                        .push_dreg(FIRST)
                        .push_result(FIB_TYPE)
                        .push_flags(FIB_SOURCE)
                        .end_nested();
                });
                self.compare(CmpOps::Neq, &LOCAL.to_ne_bytes());
            }
            Answer::MarkConversation => {
                self.immediate(FIRST, &PORT_MARK.to_ne_bytes());
                self.element(|expression| {
                    expression
                        .nested_data_ct()
                        .push_key(CtKeys::Mark as u32)
                        .push_sreg(FIRST)
                        .end_nested();
                });
            }
        }
    }

    /// `netlink_bindings` 0.3 does not know this expression.
    fn load_transparent(&mut self) {
        self.element(|expression| {
            let mut expression = expression.push_name(c"socket");
            let bytes = expression.as_vec_mut();
            let data = push_nested_header(bytes, NFTA_EXPR_DATA);
            for (attribute, value) in [(SOCKET_KEY, TRANSPARENT), (SOCKET_DREG, FIRST)] {
                push_header(bytes, attribute, 4);
                bytes.extend_from_slice(&value.to_be_bytes());
            }
            finalize_nested_header(bytes, data);
            expression.end_nested().end_nested();
        });
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(Family::V4, set) => write!(f, "ip saddr @{}", set.name()),
            Self::From(Family::V6, set) => write!(f, "ip6 saddr @{}", set.name()),
            Self::ForTransparent => f.write_str("socket transparent 1"),
            Self::AnswersMarked => write!(f, "ct direction reply ct mark {PORT_MARK:#010x}"),
            Self::StrangeSource => f.write_str("fib saddr type != local"),
            Self::MarkConversation => write!(f, "ct mark set {PORT_MARK:#010x}"),
        }
    }
}
