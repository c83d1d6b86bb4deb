//! The syntax of a file of grants: strict TOML, in which an unknown key, a setting without the verb that
//! it is for, and a value out of range are errors.

use super::{Quota, is_grantable};
use crate::accounts::Accounts;
use crate::caller::Caller;
use crate::request::{PortRange, Protocol, Verb};
use ipnet::IpNet;
use mossnet_netlink::IfName;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU16;

/// Most grants of all files.
pub const MAX_GRANTS: usize = 1000;

/// What is wrong in a file of grants.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML, or not of this shape. The error tells line and column.
    #[error("{file}: {source}")]
    Syntax {
        /// Which file.
        file: String,
        /// Where and what.
        source: toml::de::Error,
    },
    /// A grant that makes no sense.
    #[error("{file}: grant {number}: {fault}")]
    Grant {
        /// Which file.
        file: String,
        /// Which of its grants, from 1.
        number: usize,
        /// What.
        fault: Fault,
    },
    /// More than [`MAX_GRANTS`].
    #[error("{file}: more than {MAX_GRANTS} grants")]
    TooMany {
        /// The file with the first one too many.
        file: String,
    },
}

/// What is wrong with one grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// To nobody, or to two.
    #[error("wants either 'user' or 'group'")]
    Holder,
    /// It grants nothing.
    #[error("'verbs' is empty")]
    NoVerbs,
    /// The list is for a verb that is not granted.
    #[error("'{list}' without the verb '{verb}'")]
    Idle {
        /// Which list.
        list: &'static str,
        /// Which verb.
        verb: &'static str,
    },
    /// The verb wants this list.
    #[error("the verb '{verb}' wants '{list}'")]
    Empty {
        /// Which verb.
        verb: &'static str,
        /// Which list.
        list: &'static str,
    },
    /// Loopback, link-local, multicast, everything, or host bits.
    #[error(
        "'{0}' cannot be granted: wants a network without host bits that is neither everything nor loopback, link-local or multicast"
    )]
    Prefix(IpNet),
    /// Not of the form `80/tcp` or `8000-8010/udp`.
    #[error("port '{0}' is not of the form 80/tcp or 8000-8010/udp")]
    Port(String),
    /// Not a name of an interface.
    #[error("bridge '{0}' is no name of an interface")]
    Bridge(String),
    /// Twice in one grant.
    #[error("bridge '{0}' stands there twice")]
    Twice(IfName),
    /// Zero, or more than anybody needs.
    #[error("quota '{name}' must be 1 to {most}")]
    Quota {
        /// Which.
        name: &'static str,
        /// Largest.
        most: u32,
    },
}

/// Whose a grant is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A user's.
    User(u32),
    /// Everybody's in a group.
    Group(u32),
    /// Nobody's: a name that the machine does not know.
    Unknown {
        /// "user" or "group".
        kind: &'static str,
        /// The name.
        name: String,
    },
}

impl Holder {
    pub(super) fn is(&self, caller: &Caller) -> bool {
        match self {
            Self::User(uid) => *uid == caller.uid,
            Self::Group(gid) => caller.gids.contains(gid),
            Self::Unknown { .. } => false,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "uid {uid}"),
            Self::Group(gid) => write!(f, "gid {gid}"),
            Self::Unknown { kind, name } => write!(f, "{kind} '{name}', which is unknown here"),
        }
    }
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Which file, and which grant of it, from 1.
    pub place: (String, usize),
    /// Whose.
    pub holder: Holder,
    /// For what.
    pub verbs: BTreeSet<Verb>,
    /// Bridges, and the addresses there.
    pub bridges: BTreeMap<IfName, Vec<IpNet>>,
    /// Subnets of uplinks.
    pub subnets: Vec<IpNet>,
    /// Ports.
    pub ports: Vec<PortRange>,
    /// Quotas.
    pub quota: Quota,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    grant: Vec<Raw>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    user: Option<Id>,
    group: Option<Id>,
    verbs: BTreeSet<Verb>,
    #[serde(default)]
    bridges: Vec<RawBridge>,
    #[serde(default)]
    subnets: Vec<IpNet>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    quota: RawQuota,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u32),
    Name(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBridge {
    name: String,
    #[serde(default)]
    addresses: Vec<IpNet>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct RawQuota {
    interfaces: u32,
    ports: u32,
    published_ports: u32,
    requests_per_minute: u32,
}

impl Default for RawQuota {
    fn default() -> Self {
        Self {
            interfaces: 8,
            ports: 8,
            published_ports: 256,
            requests_per_minute: 120,
        }
    }
}

/// The grants of one file.
pub fn parse(file: &str, text: &str, accounts: &Accounts) -> Result<Vec<Grant>, PolicyError> {
    let name = || file.to_owned();
    let parsed: File = toml::from_str(text).map_err(|source| PolicyError::Syntax {
        file: name(),
        source,
    })?;
    let numbered = (1..).zip(parsed.grant);
    let grants = numbered.map(|(number, raw)| {
        let place = (name(), number);
        check(place, raw, accounts).map_err(|fault| PolicyError::Grant {
            file: name(),
            number,
            fault,
        })
    });
    grants.collect()
}

fn check(place: (String, usize), raw: Raw, accounts: &Accounts) -> Result<Grant, Fault> {
    let holder = match (raw.user, raw.group) {
        (Some(Id::Number(uid)), None) => Holder::User(uid),
        (None, Some(Id::Number(gid))) => Holder::Group(gid),
        (Some(Id::Name(name)), None) => known("user", name, |n| accounts.uid(n), Holder::User),
        (None, Some(Id::Name(name))) => known("group", name, |n| accounts.gid(n), Holder::Group),
        (Some(_), Some(_)) | (None, None) => return Err(Fault::Holder),
    };
    if raw.verbs.is_empty() {
        return Err(Fault::NoVerbs);
    }
    for (verb, word, list, empty) in [
        (Verb::Bridge, "bridge", "bridges", raw.bridges.is_empty()),
        (Verb::Uplink, "uplink", "subnets", raw.subnets.is_empty()),
        (Verb::Bind, "bind", "ports", raw.ports.is_empty()),
    ] {
        match (raw.verbs.contains(&verb), empty) {
            (true, true) => return Err(Fault::Empty { verb: word, list }),
            (false, false) => return Err(Fault::Idle { list, verb: word }),
            (true, false) | (false, true) => {}
        }
    }
    Ok(Grant {
        place,
        holder,
        verbs: raw.verbs,
        bridges: bridges(raw.bridges)?,
        subnets: prefixes(raw.subnets)?,
        ports: raw
            .ports
            .iter()
            .map(|text| port(text))
            .collect::<Result<_, _>>()?,
        quota: quota(&raw.quota)?,
    })
}

fn known(
    kind: &'static str,
    name: String,
    look_up: impl Fn(&str) -> Option<u32>,
    holder: fn(u32) -> Holder,
) -> Holder {
    match look_up(&name) {
        Some(id) => holder(id),
        None => Holder::Unknown { kind, name },
    }
}

fn bridges(raw: Vec<RawBridge>) -> Result<BTreeMap<IfName, Vec<IpNet>>, Fault> {
    let mut bridges = BTreeMap::new();
    for bridge in raw {
        let name = IfName::try_from(bridge.name.clone());
        let name = name.map_err(|_| Fault::Bridge(bridge.name))?;
        let addresses = prefixes(bridge.addresses)?;
        if bridges.insert(name.clone(), addresses).is_some() {
            return Err(Fault::Twice(name));
        }
    }
    Ok(bridges)
}

fn prefixes(raw: Vec<IpNet>) -> Result<Vec<IpNet>, Fault> {
    match raw.iter().find(|prefix| !is_grantable(prefix)) {
        Some(prefix) => Err(Fault::Prefix(*prefix)),
        None => Ok(raw),
    }
}

/// `80/tcp`, `8000-8010/udp`.
fn port(text: &str) -> Result<PortRange, Fault> {
    let wrong = || Fault::Port(text.to_owned());
    let (ports, protocol) = text.split_once('/').ok_or_else(wrong)?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(wrong()),
    };
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse::<NonZeroU16>().ok()).flatten();
        number.ok_or_else(wrong)
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(wrong());
    }
    Ok(PortRange {
        protocol,
        first,
        last,
    })
}

fn quota(raw: &RawQuota) -> Result<Quota, Fault> {
    for (name, value, most) in [
        ("interfaces", raw.interfaces, 1024),
        ("ports", raw.ports, 1024),
        ("published-ports", raw.published_ports, 4096),
        ("requests-per-minute", raw.requests_per_minute, 60_000),
    ] {
        if value == 0 || value > most {
            return Err(Fault::Quota { name, most });
        }
    }
    Ok(Quota {
        interfaces: raw.interfaces,
        ports: raw.ports,
        published: raw.published_ports,
        requests_per_minute: raw.requests_per_minute,
    })
}
