//! Requests and answers as they travel: one datagram each on a socket of kind SOCK_SEQPACKET, so that
//! the kernel keeps their bounds.
//!
//! Layout: version (1 byte), verb (1 byte), fields in the order of `request`. Numbers are big-endian;
//! names and lists start with their length in one byte; an address with 4 or 6, a prefix ends with its
//! length. Whoever sends one byte too many or too few is refused.
//!
//! Invariant: decoding allocates no more than the datagram is long, and what it yields encodes to the
//! same bytes (the fuzz target holds it to that).

mod reply;

use crate::request::{
    Bind, Bridge, MAX_PREFIXES, MAX_PUBLISHED, Made, Protocol, Publish, Request, Uplink, Veth,
};
use ipnet::IpNet;
use mossnet_netlink::{IfName, MacAddr};
use std::net::{IpAddr, SocketAddr};

/// Longest datagram, bytes: 128 socket addresses are 2,432.
pub const MAX_DATAGRAM: usize = 4096;

/// Of this layout.
const VERSION: u8 = 1;

/// What was received is no request (or answer) of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends too early.
    #[error("truncated")]
    Truncated,
    /// Something follows its end.
    #[error("trailing bytes")]
    Trailing,
    /// Of another version of this program.
    #[error("version {0}, not {VERSION}")]
    Version(u8),
    /// A number that means nothing at its place.
    #[error("unknown {what} {value}")]
    Unknown {
        /// Verb, family, protocol.
        what: &'static str,
        /// The number.
        value: u8,
    },
    /// A name, an address or a list that is not allowed.
    #[error("bad {0}")]
    Bad(&'static str),
}

type Result<T> = std::result::Result<T, Malformed>;

mod verb {
    pub const QUERY: u8 = 0;
    pub const VETH: u8 = 1;
    pub const BRIDGE: u8 = 2;
    pub const UPLINK: u8 = 3;
    pub const PUBLISH: u8 = 4;
    pub const BIND: u8 = 5;
    pub const RELEASE: u8 = 6;
    pub const GC: u8 = 7;
}

impl Request {
    /// As a datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Query => out.byte(verb::QUERY),
            Self::Veth(veth) => {
                out.byte(verb::VETH);
                out.name(&veth.first);
                out.name(&veth.second);
                out.short(veth.mtu);
            }
            Self::Bridge(bridge) => {
                out.byte(verb::BRIDGE);
                out.name(&bridge.bridge);
                out.name(&bridge.inside);
                out.list(&bridge.addresses, Writer::prefix);
            }
            Self::Uplink(uplink) => {
                out.byte(verb::UPLINK);
                out.name(&uplink.inside);
                out.short(uplink.mtu);
                out.list(&uplink.subnets, Writer::prefix);
            }
            Self::Publish(publish) => {
                out.byte(verb::PUBLISH);
                out.made(&publish.uplink);
                out.list(&publish.targets, Writer::socket_address);
            }
            Self::Bind(bind) => {
                out.byte(verb::BIND);
                out.protocol(bind.protocol);
                out.socket_address(&bind.address);
            }
            Self::Release(made) => {
                out.byte(verb::RELEASE);
                out.made(made);
            }
            Self::Gc => out.byte(verb::GC),
        }
        out.bytes
    }

    /// From a datagram.
    pub fn decode(datagram: &[u8]) -> Result<Self> {
        let mut input = Reader::new(datagram)?;
        let request = match input.byte()? {
            verb::QUERY => Self::Query,
            verb::VETH => Self::Veth(Veth {
                first: input.name()?,
                second: input.name()?,
                mtu: input.mtu()?,
            }),
            verb::BRIDGE => Self::Bridge(Bridge {
                bridge: input.name()?,
                inside: input.name()?,
                addresses: input.list(MAX_PREFIXES, Reader::host_address)?,
            }),
            verb::UPLINK => {
                let (inside, mtu) = (input.name()?, input.mtu()?);
                let subnets = input.list(MAX_PREFIXES, Reader::subnet)?;
                if subnets.is_empty() {
                    return Err(Malformed::Bad("subnets"));
                }
                Self::Uplink(Uplink {
                    inside,
                    mtu,
                    subnets,
                })
            }
            verb::PUBLISH => Self::Publish(Publish {
                uplink: input.made()?,
                targets: input.list(MAX_PUBLISHED, Reader::target)?,
            }),
            verb::BIND => Self::Bind(Bind {
                protocol: input.protocol()?,
                address: input.target()?,
            }),
            verb::RELEASE => Self::Release(input.made()?),
            verb::GC => Self::Gc,
            value => {
                let what = "verb";
                return Err(Malformed::Unknown { what, value });
            }
        };
        input.end(request)
    }
}

/// A datagram being written.
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn new() -> Self {
        Self {
            bytes: vec![VERSION],
        }
    }

    fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    fn short(&mut self, value: u16) {
        self.bytes.extend(value.to_be_bytes());
    }

    fn word(&mut self, value: u32) {
        self.bytes.extend(value.to_be_bytes());
    }

    /// Names have at most 15 bytes.
    fn name(&mut self, name: &IfName) {
        self.byte(name.as_str().len() as u8);
        self.bytes.extend(name.as_str().as_bytes());
    }

    fn mac(&mut self, mac: MacAddr) {
        self.bytes.extend(mac.octets());
    }

    fn made(&mut self, made: &Made) {
        self.word(made.index);
        self.name(&made.name);
    }

    fn protocol(&mut self, protocol: Protocol) {
        self.byte(match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        });
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.byte(4);
                self.bytes.extend(address.octets());
            }
            IpAddr::V6(address) => {
                self.byte(6);
                self.bytes.extend(address.octets());
            }
        }
    }

    fn prefix(&mut self, prefix: &IpNet) {
        self.address(prefix.addr());
        self.byte(prefix.prefix_len());
    }

    fn socket_address(&mut self, address: &SocketAddr) {
        self.address(address.ip());
        self.short(address.port());
    }

    /// Of what is above the bounds of `request` only 255 are written: the reader refuses it anyway.
    fn list<T>(&mut self, items: &[T], each: impl Fn(&mut Self, &T)) {
        let items = items.get(..255).unwrap_or(items);
        self.byte(items.len() as u8);
        for item in items {
            each(self, item);
        }
    }
}

/// A datagram being read.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(datagram: &'a [u8]) -> Result<Self> {
        let mut reader = Self { rest: datagram };
        match reader.byte()? {
            VERSION => Ok(reader),
            other => Err(Malformed::Version(other)),
        }
    }

    fn end<T>(self, value: T) -> Result<T> {
        if self.rest.is_empty() {
            Ok(value)
        } else {
            Err(Malformed::Trailing)
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn short(&mut self) -> Result<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn word(&mut self) -> Result<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn name(&mut self) -> Result<IfName> {
        let length = usize::from(self.byte()?);
        let (head, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Malformed::Truncated)?;
        self.rest = rest;
        let text = std::str::from_utf8(head).ok();
        text.and_then(|text| text.parse().ok())
            .ok_or(Malformed::Bad("name"))
    }

    fn mac(&mut self) -> Result<MacAddr> {
        MacAddr::try_from(self.take::<6>()?).map_err(|_| Malformed::Bad("MAC address"))
    }

    /// IPv6 wants 1,280 bytes (RFC 8200 section 5).
    fn mtu(&mut self) -> Result<u16> {
        match self.short()? {
            mtu @ 1280.. => Ok(mtu),
            _ => Err(Malformed::Bad("MTU")),
        }
    }

    fn made(&mut self) -> Result<Made> {
        let index = self.word()?;
        if index == 0 || index > i32::MAX as u32 {
            return Err(Malformed::Bad("interface index"));
        }
        let name = self.name()?;
        Ok(Made { index, name })
    }

    fn protocol(&mut self) -> Result<Protocol> {
        match self.byte()? {
            6 => Ok(Protocol::Tcp),
            17 => Ok(Protocol::Udp),
            value => Err(Malformed::Unknown {
                what: "protocol",
                value,
            }),
        }
    }

    fn address(&mut self) -> Result<IpAddr> {
        match self.byte()? {
            4 => Ok(IpAddr::from(self.take::<4>()?)),
            6 => Ok(IpAddr::from(self.take::<16>()?)),
            value => Err(Malformed::Unknown {
                what: "address family",
                value,
            }),
        }
    }

    fn prefix(&mut self) -> Result<IpNet> {
        let address = self.address()?;
        IpNet::new(address, self.byte()?).map_err(|_| Malformed::Bad("prefix length"))
    }

    /// Without host bits.
    fn subnet(&mut self) -> Result<IpNet> {
        let prefix = self.prefix()?;
        if prefix.trunc() == prefix {
            Ok(prefix)
        } else {
            Err(Malformed::Bad("subnet: it has host bits"))
        }
    }

    /// /32 or /128.
    fn host_address(&mut self) -> Result<IpNet> {
        let prefix = self.prefix()?;
        if prefix.prefix_len() == prefix.max_prefix_len() {
            Ok(prefix)
        } else {
            Err(Malformed::Bad("address: it has a prefix length"))
        }
    }

    /// An address with a port that is not 0.
    fn target(&mut self) -> Result<SocketAddr> {
        let address = self.address()?;
        match self.short()? {
            0 => Err(Malformed::Bad("port")),
            port => Ok(SocketAddr::new(address, port)),
        }
    }

    fn list<T>(&mut self, most: usize, each: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let length = usize::from(self.byte()?);
        if length > most {
            return Err(Malformed::Bad("list: it is too long"));
        }
        (0..length).map(|_| each(self)).collect()
    }
}

#[cfg(test)]
mod tests;
