//! Answers, as they travel.

use super::{Malformed, Reader, Result, Writer};
use crate::request::{Grants, Made, PortRange, Reply, Unavailable, UplinkMade, Used, Verb};
use std::num::NonZeroU16;

mod answer {
    pub const DENIED: u8 = 0;
    pub const UNAVAILABLE: u8 = 1;
    pub const DONE: u8 = 2;
    pub const GRANTS: u8 = 3;
    pub const VETH: u8 = 4;
    pub const BRIDGE: u8 = 5;
    pub const UPLINK: u8 = 6;
    pub const BOUND: u8 = 7;
}

/// By their numbers.
const REASONS: [Unavailable; 7] = [
    Unavailable::SubnetInUse,
    Unavailable::InUse,
    Unavailable::Forwarding4,
    Unavailable::Forwarding6,
    Unavailable::Absent,
    Unavailable::Kernel,
    Unavailable::Busy,
];

/// By their numbers.
const VERBS: [Verb; 4] = [Verb::Veth, Verb::Bridge, Verb::Uplink, Verb::Bind];

/// Lists in an answer are cut to this: an admin may grant more than fits.
const MOST: usize = 64;

impl Reply {
    /// As a datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Denied => out.byte(answer::DENIED),
            Self::Unavailable(reason) => {
                out.byte(answer::UNAVAILABLE);
                out.byte(number(&REASONS, reason));
            }
            Self::Done => out.byte(answer::DONE),
            Self::Bound => out.byte(answer::BOUND),
            Self::Grants(grants) => {
                out.byte(answer::GRANTS);
                write_grants(&mut out, grants);
            }
            Self::Veth { first, second } => {
                out.byte(answer::VETH);
                out.made(first);
                out.word(*second);
            }
            Self::Bridge { host, mac, mtu } => {
                out.byte(answer::BRIDGE);
                out.made(host);
                out.mac(*mac);
                out.short(*mtu);
            }
            Self::Uplink(made) => {
                out.byte(answer::UPLINK);
                out.made(&made.host);
                out.mac(made.host_mac);
                out.mac(made.router_mac);
            }
        }
        out.bytes
    }

    /// From a datagram.
    pub fn decode(datagram: &[u8]) -> Result<Self> {
        let mut input = Reader::new(datagram)?;
        let reply = match input.byte()? {
            answer::DENIED => Self::Denied,
            answer::UNAVAILABLE => Self::Unavailable(input.numbered("reason", &REASONS)?),
            answer::DONE => Self::Done,
            answer::BOUND => Self::Bound,
            answer::GRANTS => Self::Grants(input.grants()?),
            answer::VETH => Self::Veth {
                first: input.made()?,
                second: input.word()?,
            },
            answer::BRIDGE => Self::Bridge {
                host: input.made()?,
                mac: input.mac()?,
                mtu: input.short()?,
            },
            answer::UPLINK => Self::Uplink(UplinkMade {
                host: input.made()?,
                host_mac: input.mac()?,
                router_mac: input.mac()?,
            }),
            value => {
                let what = "answer";
                return Err(Malformed::Unknown { what, value });
            }
        };
        input.end(reply)
    }

    /// The made link, if it is about one.
    pub fn made(&self) -> Option<&Made> {
        match self {
            Self::Veth { first: made, .. } | Self::Bridge { host: made, .. } => Some(made),
            Self::Uplink(uplink) => Some(&uplink.host),
            Self::Grants(_) | Self::Bound | Self::Done | Self::Denied | Self::Unavailable(_) => {
                None
            }
        }
    }
}

/// The place of `value` in a list that has every one.
fn number<T: PartialEq>(all: &[T], value: &T) -> u8 {
    all.iter().position(|one| one == value).unwrap_or_default() as u8
}

fn cut<T>(list: &[T]) -> &[T] {
    list.get(..MOST).unwrap_or(list)
}

fn write_grants(out: &mut Writer, grants: &Grants) {
    out.list(&grants.verbs, |out, verb| out.byte(number(&VERBS, verb)));
    out.list(cut(&grants.bridges), Writer::name);
    out.list(cut(&grants.subnets), Writer::prefix);
    out.list(cut(&grants.ports), |out, range| {
        out.protocol(range.protocol);
        out.short(range.first.get());
        out.short(range.last.get());
    });
    for used in [grants.interfaces, grants.bound, grants.published] {
        out.word(used.most);
        out.word(used.now);
    }
    out.word(grants.requests_per_minute);
    out.byte(grants.forwards4.into());
    out.byte(grants.forwards6.into());
}

impl Reader<'_> {
    fn numbered<T: Copy>(&mut self, what: &'static str, all: &[T]) -> Result<T> {
        let value = self.byte()?;
        let found = all.get(usize::from(value)).copied();
        found.ok_or(Malformed::Unknown { what, value })
    }

    fn flag(&mut self) -> Result<bool> {
        self.numbered("flag", &[false, true])
    }

    fn used(&mut self) -> Result<Used> {
        Ok(Used {
            most: self.word()?,
            now: self.word()?,
        })
    }

    fn port(&mut self) -> Result<NonZeroU16> {
        NonZeroU16::new(self.short()?).ok_or(Malformed::Bad("port"))
    }

    fn port_range(&mut self) -> Result<PortRange> {
        let range = PortRange {
            protocol: self.protocol()?,
            first: self.port()?,
            last: self.port()?,
        };
        match range.first <= range.last {
            true => Ok(range),
            false => Err(Malformed::Bad("port range")),
        }
    }

    fn grants(&mut self) -> Result<Grants> {
        Ok(Grants {
            verbs: self.list(VERBS.len(), |input| input.numbered("verb", &VERBS))?,
            bridges: self.list(MOST, Self::name)?,
            subnets: self.list(MOST, Self::prefix)?,
            ports: self.list(MOST, Self::port_range)?,
            interfaces: self.used()?,
            bound: self.used()?,
            published: self.used()?,
            requests_per_minute: self.word()?,
            forwards4: self.flag()?,
            forwards6: self.flag()?,
        })
    }
}
