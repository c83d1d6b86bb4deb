//! What callers have: the quota record of one host namespace.
//!
//! Invariant: what is about to be made is charged first, so that nobody who is killed in between has
//! something that does not count; what the record has and the kernel has not is struck out before
//! anything is decided. Both hold because whoever looks at the record holds its lock (`store`).

mod store;
mod text;

pub use store::{Store, StoreError};
pub use text::Damaged;

use crate::policy::overlap;
use crate::request::{Made, Protocol};
use ipnet::IpNet;
use mossnet_netlink::{IfName, MacAddr};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Names and marks have six hexadecimal digits of it.
const MAX_ID: u32 = 0xff_ffff;
/// Marks of published sockets begin with these eight bits: "m".
const MARK: u32 = 0x6d00_0000;
/// Milliseconds; and a request counts as many, so that a caller with N a minute gains N each millisecond.
const MINUTE: u64 = 60_000;

/// Which kind of link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// Between two namespaces of the caller.
    Veth,
    /// A port of a host bridge.
    Bridge,
    /// An uplink.
    Uplink,
}

/// A link that was made for a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number, of which names are made.
    pub id: u32,
    /// Whose.
    pub uid: u32,
    /// Which kind.
    pub kind: LinkKind,
    /// Index of the end of which account is kept; 0: it is being made.
    pub index: u32,
    /// Its name.
    pub name: IfName,
    /// The number that the host has for the caller's namespace, the first one of a veth pair.
    pub namespace: i32,
    /// Address of the end in the host.
    pub host_mac: MacAddr,
    /// Address of the end in the caller's namespace.
    pub inside_mac: MacAddr,
    /// Subnets of an uplink, addresses of a bridge port.
    pub prefixes: Vec<IpNet>,
}

/// A socket of a caller that counts: a bound low port, or a published one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Its number, of which its mark is made.
    pub id: u32,
    /// Whose.
    pub uid: u32,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its port.
    pub port: u16,
    /// Its inode number; 0: it is being made.
    pub inode: u64,
    /// Where it leads, and by which uplink (its number), if it is published.
    pub published: Option<(u32, SocketAddr)>,
}

impl Socket {
    /// The mark that a published one bears.
    pub fn mark(&self) -> u32 {
        MARK | self.id
    }
}

/// How many requests a caller may still make at a time in milliseconds since the start of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// 60,000ths of a request.
    pub left: u64,
    /// When that was so.
    pub at: u64,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The number that is given next.
    pub next: u32,
    /// By uid.
    pub allowances: BTreeMap<u32, Allowance>,
    /// Links.
    pub links: Vec<Link>,
    /// Sockets.
    pub sockets: Vec<Socket>,
}

impl Record {
    /// A number that nothing in the record has.
    pub fn number(&mut self) -> u32 {
        loop {
            let id = self.next;
            self.next = if id >= MAX_ID { 0 } else { id + 1 };
            let links = self.links.iter().map(|link| link.id);
            let mut taken = links.chain(self.sockets.iter().map(|socket| socket.id));
            if !taken.any(|other| other == id) {
                return id;
            }
        }
    }

    /// Count one request of a caller; false: it asks too often.
    pub fn take_turn(&mut self, uid: u32, per_minute: u32, now: u64) -> bool {
        let full = u64::from(per_minute) * MINUTE;
        let allowance = self.allowances.entry(uid).or_insert(Allowance {
            left: full,
            at: now,
        });
        let waited = now.saturating_sub(allowance.at).min(MINUTE);
        let grown = allowance.left + u64::from(per_minute) * waited;
        allowance.at = now;
        allowance.left = grown.min(full);
        let may = allowance.left >= MINUTE;
        if may {
            allowance.left -= MINUTE;
        }
        // Who has been silent for a minute is as good as new.
        self.allowances
            .retain(|_, other| now.saturating_sub(other.at) < MINUTE);
        may
    }

    /// How many links a caller has.
    pub fn links_of(&self, uid: u32) -> u32 {
        self.links.iter().filter(|link| link.uid == uid).count() as u32
    }

    /// How many low ports a caller has.
    pub fn bound_by(&self, uid: u32) -> u32 {
        self.sockets_of(uid, |socket| socket.published.is_none())
    }

    /// How many published ports a caller has.
    pub fn published_by(&self, uid: u32) -> u32 {
        self.sockets_of(uid, |socket| socket.published.is_some())
    }

    fn sockets_of(&self, uid: u32, which: impl Fn(&Socket) -> bool) -> u32 {
        let own = self.sockets.iter().filter(|socket| socket.uid == uid);
        own.filter(|socket| which(socket)).count() as u32
    }

    /// The caller's link with this name and index.
    pub fn link_of(&self, uid: u32, made: &Made) -> Option<&Link> {
        let same =
            |link: &&Link| link.uid == uid && link.index == made.index && link.name == made.name;
        self.links.iter().find(same)
    }

    /// The caller's uplink of a namespace.
    pub fn uplink_of(&self, uid: u32, namespace: i32) -> Option<&Link> {
        let same = |link: &&Link| {
            link.uid == uid && link.kind == LinkKind::Uplink && link.namespace == namespace
        };
        self.links.iter().find(same)
    }

    /// The link, but for `except`, that has a prefix in common with these.
    pub fn overlapping(
        &self,
        kind: LinkKind,
        prefixes: &[IpNet],
        except: Option<u32>,
    ) -> Option<&Link> {
        let shares = |link: &&Link| {
            let mut pairs = link
                .prefixes
                .iter()
                .flat_map(|one| prefixes.iter().map(move |p| (one, p)));
            link.kind == kind
                && Some(link.id) != except
                && pairs.any(|(one, other)| overlap(one, other))
        };
        self.links.iter().find(shares)
    }

    /// Strike a link out, with the ports that lead by it.
    pub fn strike(&mut self, id: u32) {
        self.links.retain(|link| link.id != id);
        let by = |socket: &Socket| socket.published.is_some_and(|(uplink, _)| uplink == id);
        self.sockets.retain(|socket| !by(socket));
    }
}

#[cfg(test)]
mod tests;
