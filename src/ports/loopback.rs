//! Which ports of the host's loopback a sandbox may reach: `--host-loopback`, `--host-ports`. Pure.
//!
//! Invariant: the ranges of a set are in order and neither overlap nor touch, so that two sets with
//! the same ports are equal, and read the same.

use super::parse::{PortError, ports_and_proto};
use super::types::{Port, PortRange, Proto};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The word for all ports.
const ALL: &str = "all";

/// Ports of both protocols: one at least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortSet {
    tcp: Vec<PortRange>,
    udp: Vec<PortRange>,
}

/// How far the host's loopback is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostLoopback {
    /// Every port, and echo.
    All,
    /// These.
    Ports(PortSet),
}

impl PortSet {
    fn of(&self, proto: Proto) -> &[PortRange] {
        match proto {
            Proto::Tcp => &self.tcp,
            Proto::Udp => &self.udp,
        }
    }

    /// Whether the port is one of them.
    pub fn holds(&self, proto: Proto, port: Port) -> bool {
        let ranges = self.of(proto);
        let after = ranges.partition_point(|range| range.first() <= port);
        let range = after.checked_sub(1).and_then(|at| ranges.get(at));
        range.is_some_and(|range| port <= range.last())
    }

    /// The ports of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let both = |proto| merge([self.of(proto), other.of(proto)].concat());
        Self {
            tcp: both(Proto::Tcp),
            udp: both(Proto::Udp),
        }
    }
}

/// In order, with those that overlap or touch joined.
fn merge(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let joined = merged.last().and_then(|last| last.joined(range));
        match (merged.last_mut(), joined) {
            (Some(last), Some(joined)) => *last = joined,
            (_, _) => merged.push(range),
        }
    }
    merged
}

impl FromStr for PortSet {
    type Err = PortError;
    /// `5432,8000-8010,53/udp`: TCP unless it says otherwise, as in `--publish`.
    fn from_str(text: &str) -> Result<Self, PortError> {
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        for part in text.split(',') {
            let (range, proto) = ports_and_proto(part).map_err(|error| match error {
                PortError::Proto(word) => PortError::OpenedProto(word),
                other => other,
            })?;
            match proto {
                Proto::Tcp => tcp.push(range),
                Proto::Udp => udp.push(range),
            }
        }
        Ok(Self {
            tcp: merge(tcp),
            udp: merge(udp),
        })
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tcp = self.tcp.iter().map(PortRange::to_string);
        let udp = self.udp.iter().map(|range| format!("{range}/udp"));
        f.write_str(&tcp.chain(udp).collect::<Vec<_>>().join(","))
    }
}

impl TryFrom<String> for PortSet {
    type Error = PortError;
    fn try_from(text: String) -> Result<Self, PortError> {
        text.parse()
    }
}

impl From<PortSet> for String {
    fn from(ports: PortSet) -> Self {
        ports.to_string()
    }
}

impl HostLoopback {
    /// What `--host-loopback` and `--host-ports` say together; `None`: neither was given. Ports
    /// alone open as well.
    pub fn wish(open: bool, ports: impl IntoIterator<Item = PortSet>) -> Option<Self> {
        let union = |all: PortSet, more: PortSet| all.union(&more);
        match ports.into_iter().reduce(union) {
            Some(ports) => Some(Self::Ports(ports)),
            None => open.then_some(Self::All),
        }
    }

    /// Whether a port may be reached.
    pub fn holds(&self, proto: Proto, port: Port) -> bool {
        match self {
            Self::All => true,
            Self::Ports(ports) => ports.holds(proto, port),
        }
    }

    /// What either opens.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Ports(ours), Self::Ports(theirs)) => Self::Ports(ours.union(theirs)),
        }
    }
}

impl fmt::Display for HostLoopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str(ALL),
            Self::Ports(ports) => ports.fmt(f),
        }
    }
}

impl TryFrom<String> for HostLoopback {
    type Error = PortError;
    fn try_from(text: String) -> Result<Self, PortError> {
        match text.as_str() {
            ALL => Ok(Self::All),
            ports => ports.parse().map(Self::Ports),
        }
    }
}

impl From<HostLoopback> for String {
    fn from(open: HostLoopback) -> Self {
        open.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(text: &str) -> PortSet {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn lists_are_put_in_order_and_joined() {
        for (text, shown) in [
            ("5432,6379", "5432,6379"),
            ("6379/tcp,5432", "5432,6379"),
            ("53/udp,53", "53,53/udp"),
            ("8000-8010,8005-8020,8021", "8000-8021"),
            ("1-65535,7", "1-65535"),
            ("65535,65534", "65534-65535"),
            ("9/UDP,7/udp", "7/udp,9/udp"),
        ] {
            assert_eq!(set(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn wrong_lists_are_refused() {
        for (text, part) in [
            ("", "'' is not a port"),
            ("80,", "'' is not a port"),
            ("0", "'0' is not a port"),
            ("65536", "'65536' is not a port"),
            ("80 ", "'80 ' is not a port"),
            ("+80", "'+80' is not a port"),
            ("90-80", "runs backwards"),
            ("80/sctp", "'sctp'"),
            ("8080:80", "'8080:80' is not a port"),
        ] {
            let error = text.parse::<PortSet>().unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert!(!error.hint().is_empty());
        }
    }

    #[test]
    fn ports_alone_open_and_make_it_narrow() {
        let wish = |open, ports: &[&str]| {
            let wish = HostLoopback::wish(open, ports.iter().map(|text| set(text)));
            wish.map(|wish| wish.to_string())
        };
        assert_eq!(wish(false, &[]), None);
        assert_eq!(wish(true, &[]).as_deref(), Some("all"));
        assert_eq!(wish(true, &["80"]).as_deref(), Some("80"));
        assert_eq!(wish(false, &["80", "53/udp"]).as_deref(), Some("80,53/udp"));
        let all = HostLoopback::All;
        let some = HostLoopback::Ports(set("80"));
        assert_eq!(some.union(&all), all);
        let text = serde_json::to_string(&[all, some.clone()]).unwrap();
        assert_eq!(text, r#"["all","80"]"#);
        let read: Vec<HostLoopback> = serde_json::from_str(&text).unwrap();
        assert_eq!(read[1], some);
        assert!(serde_json::from_str::<HostLoopback>(r#""some""#).is_err());
    }

    fn lists() -> impl Strategy<Value = Vec<(u16, u16, bool)>> {
        // Small numbers, so that ranges meet; and the last ports.
        let port = prop_oneof![1..30u16, 65_520..=65_535u16];
        prop::collection::vec((port.clone(), port, any::<bool>()), 1..8)
    }

    fn text_of(list: &[(u16, u16, bool)]) -> String {
        let part = |(a, b, udp): &(u16, u16, bool)| {
            let proto = if *udp { "/udp" } else { "" };
            format!("{}-{}{proto}", a.min(b), a.max(b))
        };
        list.iter().map(part).collect::<Vec<_>>().join(",")
    }

    proptest! {
        /// Against a look at every range of the list.
        #[test]
        fn a_set_holds_what_its_list_says(ours in lists(), theirs in lists()) {
            let (one, other) = (set(&text_of(&ours)), set(&text_of(&theirs)));
            let both = one.union(&other);
            prop_assert_eq!(&set(&both.to_string()), &both);
            prop_assert_eq!(&other.union(&one), &both);
            let listed = |list: &[(u16, u16, bool)], udp, port| {
                list.iter().any(|(a, b, of)| *of == udp && (*a.min(b)..=*a.max(b)).contains(&port))
            };
            for port in (1..32).chain(65_518..=65_535) {
                for (proto, udp) in [(Proto::Tcp, false), (Proto::Udp, true)] {
                    let number = Port::new(port).unwrap();
                    prop_assert_eq!(one.holds(proto, number), listed(&ours, udp, port));
                    let either = listed(&ours, udp, port) || listed(&theirs, udp, port);
                    prop_assert_eq!(both.holds(proto, number), either);
                }
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9,/a-z -]{0,20}") {
            if let Ok(ports) = text.parse::<PortSet>() {
                prop_assert_eq!(set(&ports.to_string()), ports);
            }
        }
    }
}
