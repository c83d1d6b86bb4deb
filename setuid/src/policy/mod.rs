//! What the admin grants: `/etc/mossnet/grants.toml`, and `/etc/mossnet/grants.d/*.toml` after it.
//!
//! Invariant: where any of these files is at fault, nobody is granted anything. A caller has what all
//! grants to its uid and groups give together; of quotas the largest counts.

mod parse;

pub use parse::{Grant, Holder, MAX_GRANTS, PolicyError};

use crate::accounts::Accounts;
use crate::caller::Caller;
use crate::request::{PortRange, Protocol, Verb};
use crate::trusted::{Directory, Untrusted};
use ipnet::IpNet;
use mossnet_netlink::IfName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Where grants are.
const DIRECTORY: &str = "/etc/mossnet";
const FILE: &str = "grants.toml";
const MORE: &str = "grants.d";

/// Every grant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    grants: Vec<Grant>,
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file that others than root could have written, or that is not there.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// Its content.
    #[error(transparent)]
    Content(#[from] PolicyError),
}

impl Policy {
    /// The policy of the machine.
    pub fn load(accounts: &Accounts) -> Result<Self, LoadError> {
        let directory = Directory::open(DIRECTORY)?;
        let mut policy = Self::default();
        let (more, names) = directory.list(MORE, ".toml")?;
        match directory.read(FILE) {
            Ok(text) => policy.add(FILE, &text, accounts)?,
            // The directory alone is enough.
            Err(untrusted) if untrusted.is_absent() && !names.is_empty() => {}
            Err(untrusted) => return Err(untrusted.into()),
        }
        for (directory, name) in more.iter().flat_map(|d| names.iter().map(move |n| (d, n))) {
            let text = directory.read(name)?;
            policy.add(&format!("{MORE}/{name}"), &text, accounts)?;
        }
        Ok(policy)
    }

    /// Add the grants of one file.
    pub fn add(&mut self, file: &str, text: &str, accounts: &Accounts) -> Result<(), PolicyError> {
        let grants = parse::parse(file, text, accounts)?;
        self.grants.extend(grants);
        if self.grants.len() > MAX_GRANTS {
            return Err(PolicyError::TooMany {
                file: file.to_owned(),
            });
        }
        Ok(())
    }

    /// Those that are a caller's.
    pub fn grants_of<'a>(&'a self, caller: &'a Caller) -> impl Iterator<Item = &'a Grant> {
        self.grants.iter().filter(|grant| grant.holder.is(caller))
    }

    /// Grants to names that the machine does not know: they grant nothing.
    pub fn void(&self) -> impl Iterator<Item = &Grant> {
        let void = |grant: &&Grant| matches!(grant.holder, Holder::Unknown { .. });
        self.grants.iter().filter(void)
    }

    /// What a caller may do; `None`: nothing at all.
    pub fn rights(&self, caller: &Caller) -> Option<Rights> {
        let mut grants = self.grants_of(caller).peekable();
        grants.peek()?;
        let mut rights = Rights::default();
        for grant in grants {
            rights.verbs.extend(&grant.verbs);
            for (bridge, addresses) in &grant.bridges {
                let known = rights.bridges.entry(bridge.clone()).or_default();
                known.extend(addresses);
            }
            rights.subnets.extend(&grant.subnets);
            rights.ports.extend(&grant.ports);
            rights.quota = rights.quota.or_larger(grant.quota);
        }
        Some(rights)
    }
}

/// How much a caller may have at a time, and how often it may ask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Links.
    pub interfaces: u32,
    /// Bound low ports.
    pub ports: u32,
    /// Published ports.
    pub published: u32,
    /// Requests in a minute; as many at once, after a minute of silence.
    pub requests_per_minute: u32,
}

impl Quota {
    fn or_larger(self, other: Self) -> Self {
        Self {
            interfaces: self.interfaces.max(other.interfaces),
            ports: self.ports.max(other.ports),
            published: self.published.max(other.published),
            requests_per_minute: self.requests_per_minute.max(other.requests_per_minute),
        }
    }
}

/// What a caller may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// Verbs.
    pub verbs: BTreeSet<Verb>,
    /// Bridges, with the addresses that may be used there.
    pub bridges: BTreeMap<IfName, Vec<IpNet>>,
    /// Subnets of uplinks.
    pub subnets: Vec<IpNet>,
    /// Ports.
    pub ports: Vec<PortRange>,
    /// Quotas.
    pub quota: Quota,
}

impl Rights {
    /// Root's, who cleans up: no verb, and as often as it likes.
    pub fn of_root() -> Self {
        let quota = Quota {
            requests_per_minute: 60_000,
            ..Quota::default()
        };
        Self {
            quota,
            ..Self::default()
        }
    }

    /// The verb is granted.
    pub fn allow(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// The subnet is within a granted one.
    pub fn allow_subnet(&self, subnet: &IpNet) -> bool {
        self.subnets.iter().any(|granted| granted.contains(subnet))
    }

    /// The address may be used on the bridge; `None`: the bridge itself is not granted.
    pub fn allow_on_bridge(&self, bridge: &IfName, addresses: &[IpNet]) -> Option<bool> {
        let granted = self.bridges.get(bridge)?;
        let within = |address: &IpNet| granted.iter().any(|prefix| prefix.contains(address));
        Some(addresses.iter().all(within))
    }

    /// The port may be bound.
    pub fn allow_port(&self, protocol: Protocol, port: u16) -> bool {
        self.ports.iter().any(|range| {
            range.protocol == protocol && (range.first.get()..=range.last.get()).contains(&port)
        })
    }
}

/// Prefixes that may be granted: not everything, not what every machine uses for itself.
fn is_grantable(prefix: &IpNet) -> bool {
    let reserved = [
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/3",
        "::/8",
        "fe80::/10",
        "ff00::/8",
    ];
    let mut reserved = reserved
        .iter()
        .filter_map(|text| text.parse::<IpNet>().ok());
    let shortest = match prefix.addr() {
        IpAddr::V4(_) => 8,
        IpAddr::V6(_) => 16,
    };
    prefix.prefix_len() >= shortest
        && prefix.trunc() == *prefix
        && !reserved.any(|other| overlap(&other, prefix))
}

/// Some address is in both.
pub fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

#[cfg(test)]
mod tests;
