//! What rules are made of, one register long at most where something is compared.

use crate::attribute::{nest, put, put_text};
use ipnet::IpNet;
use std::net::IpAddr;

/// A register of 16 bytes.
const REGISTER: u32 = libc::NFT_REG_1 as u32;
/// The second register of 4 bytes, and the fifth: after an address that a map has put into the first.
const AFTER_V4: u32 = 9;
const AFTER_V6: u32 = 12;

/// Keys of `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// Name of the link by which a packet came.
    Input,
    /// Name of the link by which it leaves.
    Output,
    /// Kind of frame: ETH_P_*.
    Protocol,
    /// NFPROTO_IPV4 or NFPROTO_IPV6.
    Family,
    /// Transport protocol.
    Transport,
}

/// Where bytes of a packet are counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Ethernet.
    Link,
    /// IP or ARP.
    Network,
    /// TCP, UDP, ICMPv6.
    Transport,
}

/// How to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    /// The same.
    Equal,
    /// Not the same.
    Different,
}

/// One step of a rule; where a comparison fails, the rule ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Load a property of the packet.
    Meta(Meta),
    /// Load bytes of the packet: offset and length.
    Payload(Header, u32, u32),
    /// The packet has a fragment header (IPv6): load 1 or 0.
    Fragment,
    /// Keep these bits.
    Mask(Vec<u8>),
    /// Compare what was loaded.
    Compare(Is, Vec<u8>),
    /// Load the state of the connection, a bit mask.
    State,
    /// Load the status of the connection, a bit mask.
    Status,
    /// Load the kind of the destination address (RTN_*).
    DestinationKind,
    /// Load the mark of the socket that would get the packet; none: the rule ends.
    SocketMark,
    /// Replace what was loaded by what a map has for it; nothing: the rule ends.
    Map {
        /// Its name.
        name: &'static str,
        /// Its number in this transaction.
        id: u32,
    },
    /// Send the packet to the address and port that were loaded, of this family.
    Translate {
        /// IPv6 rather than IPv4.
        ipv6: bool,
    },
    /// Give the packet the address of the link by which it leaves.
    Masquerade,
    /// The end: the packet goes on.
    Accept,
    /// The end: the packet is dropped.
    Drop,
}

impl Expression {
    /// As attributes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        const NAME: u16 = 1;
        const DATA: u16 = 2;
        put_text(out, NAME, self.name());
        nest(out, DATA, |out| self.encode_data(out));
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta(_) => "meta",
            Self::Payload(..) => "payload",
            Self::Fragment => "exthdr",
            Self::Mask(_) => "bitwise",
            Self::Compare(..) => "cmp",
            Self::State | Self::Status => "ct",
            Self::DestinationKind => "fib",
            Self::SocketMark => "socket",
            Self::Map { .. } => "lookup",
            Self::Translate { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Accept | Self::Drop => "immediate",
        }
    }

    fn encode_data(&self, out: &mut Vec<u8>) {
        let number = |out: &mut Vec<u8>, kind, value: u32| put(out, kind, &value.to_be_bytes());
        let value =
            |out: &mut Vec<u8>, kind, bytes: &[u8]| nest(out, kind, |out| put(out, 1, bytes));
        let numbers = |out: &mut Vec<u8>, all: &[(u16, u32)]| {
            for (kind, value) in all {
                number(out, *kind, *value);
            }
        };
        match self {
            Self::Meta(key) => numbers(out, &[(1, REGISTER), (2, key.number())]),
            Self::Payload(header, offset, length) => numbers(
                out,
                &[
                    (1, REGISTER),
                    (2, header.number()),
                    (3, *offset),
                    (4, *length),
                ],
            ),
            Self::Fragment => {
                number(out, 1, REGISTER);
                put(out, 2, &[libc::IPPROTO_FRAGMENT as u8]);
                // Offset, length, and NFT_EXTHDR_F_PRESENT.
                numbers(out, &[(3, 0), (4, 1), (5, 1)]);
            }
            Self::Mask(mask) => {
                numbers(out, &[(1, REGISTER), (2, REGISTER), (3, mask.len() as u32)]);
                value(out, 4, mask);
                value(out, 5, &vec![0; mask.len()]);
            }
            Self::Compare(is, bytes) => {
                let is = match is {
                    Is::Equal => 0,
                    Is::Different => 1,
                };
                numbers(out, &[(1, REGISTER), (2, is)]);
                value(out, 3, bytes);
            }
            // NFT_CT_STATE and NFT_CT_STATUS.
            Self::State => numbers(out, &[(1, REGISTER), (2, 0)]),
            Self::Status => numbers(out, &[(1, REGISTER), (2, 2)]),
            // NFT_FIB_RESULT_ADDRTYPE of the destination (NFTA_FIB_F_DADDR).
            Self::DestinationKind => numbers(out, &[(1, REGISTER), (2, 3), (3, 2)]),
            // NFT_SOCKET_MARK.
            Self::SocketMark => numbers(out, &[(1, 1), (2, REGISTER)]),
            Self::Map { name, id } => {
                put_text(out, 1, name);
                numbers(out, &[(2, REGISTER), (3, REGISTER), (4, *id)]);
            }
            Self::Translate { ipv6 } => {
                const DNAT: u32 = 1;
                let (family, port) = match ipv6 {
                    false => (libc::NFPROTO_IPV4, AFTER_V4),
                    true => (libc::NFPROTO_IPV6, AFTER_V6),
                };
                numbers(
                    out,
                    &[(1, DNAT), (2, family as u32), (3, REGISTER), (5, port)],
                );
            }
            Self::Masquerade => {}
            Self::Accept => verdict(out, libc::NF_ACCEPT),
            Self::Drop => verdict(out, libc::NF_DROP),
        }
    }
}

impl Meta {
    fn number(self) -> u32 {
        (match self {
            Self::Input => libc::NFT_META_IIFNAME,
            Self::Output => libc::NFT_META_OIFNAME,
            Self::Protocol => libc::NFT_META_PROTOCOL,
            Self::Family => libc::NFT_META_NFPROTO,
            Self::Transport => libc::NFT_META_L4PROTO,
        }) as u32
    }
}

impl Header {
    fn number(self) -> u32 {
        match self {
            Self::Link => 0,
            Self::Network => 1,
            Self::Transport => 2,
        }
    }
}

fn verdict(out: &mut Vec<u8>, code: i32) {
    const DREG: u16 = 1;
    const DATA: u16 = 2;
    const VERDICT: u16 = 2;
    const CODE: u16 = 1;
    put(out, DREG, &0u32.to_be_bytes());
    nest(out, DATA, |out| {
        nest(out, VERDICT, |out| put(out, CODE, &code.to_be_bytes()));
    });
}

/// The name of a link, whole.
pub fn link(meta: Meta, is: Is, name: &str) -> [Expression; 2] {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(libc::IFNAMSIZ, 0);
    [Expression::Meta(meta), Expression::Compare(is, bytes)]
}

/// The beginning of the name of a link.
pub fn link_begins(meta: Meta, is: Is, prefix: &str) -> [Expression; 2] {
    let bytes = prefix.as_bytes().to_vec();
    [Expression::Meta(meta), Expression::Compare(is, bytes)]
}

/// Family and an address field within a prefix.
pub fn within(prefix: &IpNet, field: [u32; 2]) -> Vec<Expression> {
    let (address, mask) = (octets(prefix.network()), octets(prefix.netmask()));
    let length = address.len() as u32;
    let [v4, v6] = field;
    let offset = if length == 4 { v4 } else { v6 };
    let mut rule = family(length == 16).to_vec();
    rule.push(Expression::Payload(Header::Network, offset, length));
    if prefix.prefix_len() < prefix.max_prefix_len() {
        rule.push(Expression::Mask(mask));
    }
    rule.push(Expression::Compare(Is::Equal, address));
    rule
}

/// Offsets of the source in both kinds of IP header.
pub const SOURCE: [u32; 2] = [12, 8];

/// Packets of IPv4, or of IPv6, of the inet table.
pub fn family(ipv6: bool) -> [Expression; 2] {
    let family = if ipv6 {
        libc::NFPROTO_IPV6
    } else {
        libc::NFPROTO_IPV4
    };
    let compare = Expression::Compare(Is::Equal, vec![family as u8]);
    [Expression::Meta(Meta::Family), compare]
}

/// One transport protocol.
pub fn transport(protocol: i32) -> [Expression; 2] {
    let compare = Expression::Compare(Is::Equal, vec![protocol as u8]);
    [Expression::Meta(Meta::Transport), compare]
}

/// Bytes in network order.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
