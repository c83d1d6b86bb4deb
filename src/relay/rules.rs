//! What may leave, compiled from the daemon's snapshot for fast lookups.
//!
//! On the path: every first packet of a flow is judged here before anything is done for it.
//!
//! Invariant: nothing that a container sends reaches another network, our own link to the router
//! netns, or a destination that is not one host; nor the host's loopback, but by the address that
//! stands for it and as far as it is open to the sender. The nftables rules say the same, apart from
//! that; this is the second lock, on the side where the sockets are.
//!
//! Sources: RFC 6890 (special addresses), RFC 4291 §2.5.5 (IPv4 in IPv6).

use super::host_loopback::{Asked, Openings};
use super::publish::table::Table;
use crate::network::host_loopback::loopback_behind;
use crate::network::snapshot::Snapshot;
use ipnet::IpNet;
use nix::sys::eventfd::EventFd;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Why a packet does not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its source is in none of our networks: forged, or of a network just removed.
    UnknownSource,
    /// Its network is internal.
    Internal,
    /// It is for one of our networks: the router netns delivers those, or isolates them.
    OwnNetwork,
    /// The host's loopback, also in the guise of IPv4-mapped or IPv4-compatible IPv6.
    Loopback,
    /// The host's loopback by the address that stands for it, and it is not open.
    HostClosed,
    /// The link between router netns and relay (169.254.77.0/24), or an IPv6 link.
    Link,
    /// No destination (0.0.0.0/8, ::). Linux takes 0.0.0.0 for the loopback.
    Unspecified,
    /// More than one destination.
    Multicast,
    /// Its protocol is not carried for anybody.
    Withheld,
}

impl Refusal {
    /// For logs.
    pub fn reason(self) -> &'static str {
        match self {
            Self::UnknownSource => "unknown_source",
            Self::Internal => "internal_network",
            Self::OwnNetwork => "other_network",
            Self::Loopback => "host_loopback",
            Self::HostClosed => "host_loopback_closed",
            Self::Link => "link",
            Self::Unspecified => "unspecified",
            Self::Multicast => "multicast",
            Self::Withheld => "withheld",
        }
    }
}

/// One network's part of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Network {
    internal: bool,
}

/// First and last address of a prefix, and its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Range<A> {
    first: A,
    last: A,
    network: usize,
}

/// An immutable, compiled snapshot.
#[derive(Debug, Default)]
pub struct Rules {
    snapshot: Arc<Snapshot>,
    networks: Vec<Network>,
    /// Sorted; prefixes of one router never overlap.
    v4: Vec<Range<Ipv4Addr>>,
    v6: Vec<Range<Ipv6Addr>>,
    /// What of the host's loopback is open.
    openings: Openings,
    /// Addresses that stand for others.
    stand_ins: HashMap<IpAddr, IpAddr>,
    /// What may come in.
    publishes: Arc<Table>,
}

impl Rules {
    /// Compiles.
    pub fn new(snapshot: Snapshot) -> Self {
        let mut rules = Self::default();
        for (network, view) in snapshot.networks.iter().enumerate() {
            rules.networks.push(Network {
                internal: view.internal,
            });
            for subnet in &view.subnets {
                match subnet {
                    IpNet::V4(subnet) => rules.v4.push(Range {
                        first: subnet.network(),
                        last: subnet.broadcast(),
                        network,
                    }),
                    IpNet::V6(subnet) => rules.v6.push(Range {
                        first: subnet.network(),
                        last: subnet.broadcast(),
                        network,
                    }),
                }
            }
        }
        rules.openings = Openings::new(&snapshot.host_loopback);
        let stand_ins = snapshot.stand_ins.iter();
        rules.stand_ins = stand_ins.map(|s| (s.address, s.leads_to)).collect();
        rules.v4.sort_unstable();
        rules.v6.sort_unstable();
        rules.snapshot = Arc::new(snapshot);
        rules
    }

    /// The same rules with these published ports.
    #[must_use]
    pub fn publishing(self, publishes: Arc<Table>) -> Self {
        Self { publishes, ..self }
    }

    /// Published ports.
    pub fn publishes(&self) -> &Arc<Table> {
        &self.publishes
    }

    /// What it was compiled from.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Whether a packet may leave for the world, and to which address: the one that it bears, unless
    /// that stands for another one.
    pub fn admit(
        &self,
        source: IpAddr,
        destination: IpAddr,
        asked: Asked,
    ) -> Result<IpAddr, Refusal> {
        let network = self.network_of(source).ok_or(Refusal::UnknownSource)?;
        if network.internal {
            return Err(Refusal::Internal);
        }
        if asked.is_among(self.snapshot.withheld) {
            return Err(Refusal::Withheld);
        }
        if let Some(other) = self.stand_ins.get(&destination) {
            return Ok(*other);
        }
        if let Some(loopback) = loopback_behind(destination) {
            let open = self.openings.admit(source, asked);
            return open.then_some(loopback).ok_or(Refusal::HostClosed);
        }
        forbidden(destination).map_or(Ok(()), Err)?;
        if self.network_of(destination).is_some() {
            return Err(Refusal::OwnNetwork);
        }
        Ok(destination)
    }

    /// Whether `other` lets exactly the same leave; names, resolvers and published ports aside.
    pub fn admits_as(&self, other: &Self) -> bool {
        (&self.networks, &self.v4, &self.v6) == (&other.networks, &other.v4, &other.v6)
            && self.openings == other.openings
            && self.stand_ins == other.stand_ins
            && self.snapshot.withheld == other.snapshot.withheld
    }

    /// Where packets to `destination` arrive under another address, if they do.
    pub fn behind(&self, destination: IpAddr) -> Option<IpAddr> {
        let stand_in = self.stand_ins.get(&destination).copied();
        stand_in.or_else(|| loopback_behind(destination))
    }

    /// Whether an address lies in one of our networks.
    pub fn is_ours(&self, address: IpAddr) -> bool {
        self.network_of(address).is_some()
    }

    fn network_of(&self, address: IpAddr) -> Option<&Network> {
        let index = match address {
            IpAddr::V4(address) => find(&self.v4, address),
            IpAddr::V6(address) => find(&self.v6, address),
        };
        self.networks.get(index?)
    }
}

/// The range that holds `address`, by its network.
fn find<A: Ord + Copy>(ranges: &[Range<A>], address: A) -> Option<usize> {
    let after = ranges.partition_point(|range| range.first <= address);
    let range = ranges.get(after.checked_sub(1)?)?;
    (address <= range.last).then_some(range.network)
}

/// Destinations that no network may reach.
fn forbidden(destination: IpAddr) -> Option<Refusal> {
    match destination {
        IpAddr::V4(destination) => forbidden_v4(destination),
        IpAddr::V6(destination) => forbidden_v6(destination),
    }
}

fn forbidden_v4(destination: Ipv4Addr) -> Option<Refusal> {
    match destination.octets() {
        [0, ..] => Some(Refusal::Unspecified),
        [127, ..] => Some(Refusal::Loopback),
        [169, 254, 77, _] => Some(Refusal::Link),
        [224..=239, ..] | [255, 255, 255, 255] => Some(Refusal::Multicast),
        _ => None,
    }
}

fn forbidden_v6(destination: Ipv6Addr) -> Option<Refusal> {
    match destination.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(Refusal::Unspecified),
        // ::1, IPv4-compatible and IPv4-mapped: a socket would send them as IPv4.
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] => Some(Refusal::Loopback),
        [0xfe80..=0xfebf, ..] => Some(Refusal::Link),
        [0xff00..=0xffff, ..] => Some(Refusal::Multicast),
        _ => None,
    }
}

/// The current rules, shared by all threads.
#[derive(Debug, Default)]
pub struct SharedRules {
    current: RwLock<Arc<Rules>>,
    version: AtomicU64,
    /// Of the threads that sleep until there is something to do.
    sleepers: Mutex<Vec<Arc<EventFd>>>,
}

impl SharedRules {
    /// Takes up new rules.
    pub fn replace(&self, rules: Rules) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        self.version.fetch_add(1, Ordering::Release);
        let sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        for sleeper in sleepers.iter() {
            // EAGAIN: its count is full, so it is awake.
            let _ = sleeper.write(1);
        }
    }

    /// Lets `sleeper` become readable with every change.
    pub fn wake(&self, sleeper: Arc<EventFd>) {
        self.sleepers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sleeper);
    }

    /// The current ones.
    pub fn load(&self) -> Arc<Rules> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A thread's own reference to the current rules; looks for new ones without a lock.
#[derive(Debug)]
pub struct RulesReader {
    shared: Arc<SharedRules>,
    version: u64,
    rules: Arc<Rules>,
}

impl RulesReader {
    /// Starts with the current ones.
    pub fn new(shared: Arc<SharedRules>) -> Self {
        // The version first: rules that come in between are loaded twice rather than missed.
        let version = shared.version.load(Ordering::Acquire);
        let rules = shared.load();
        Self {
            shared,
            version,
            rules,
        }
    }

    /// Takes up newer rules, if there are any. Whether they admit other flows than the ones before.
    pub fn refresh(&mut self) -> bool {
        let version = self.shared.version.load(Ordering::Acquire);
        if version == self.version {
            return false;
        }
        let before = std::mem::replace(&mut self.rules, self.shared.load());
        self.version = version;
        !self.rules.admits_as(&before)
    }

    /// As of the last refresh.
    pub fn get(&self) -> &Arc<Rules> {
        &self.rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::host_loopback::{HOST_V4, HOST_V6};
    use crate::network::snapshot::{HostLoopbackView, NetworkView, StandIn};

    fn network(name: &str, subnets: &[&str], internal: bool) -> NetworkView {
        NetworkView {
            name: name.to_owned(),
            bridge: format!("br-{name}").parse().unwrap(),
            subnets: subnets.iter().map(|net| net.parse().unwrap()).collect(),
            gateways: Vec::new(),
            internal,
            dns: Vec::new(),
            names: Vec::new(),
        }
    }

    fn rules() -> Rules {
        Rules::new(Snapshot {
            networks: vec![
                network("b", &["10.89.1.0/24", "fd00:1::/64"], false),
                network("a", &["10.89.0.0/24"], false),
                network("closed", &["10.89.7.0/24", "fd00:7::/64"], true),
            ],
            ..Snapshot::default()
        })
    }

    fn admit(source: &str, destination: &str) -> Result<(), Refusal> {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let admitted = rules().admit(source, destination, Asked::Tcp(80))?;
        assert_eq!(admitted, destination);
        Ok(())
    }

    #[test]
    fn the_world_is_open() {
        for destination in [
            "192.0.2.1",
            "10.89.2.1",
            "169.254.169.254",
            "10.88.255.255",
            "240.0.0.1",
        ] {
            assert_eq!(admit("10.89.0.2", destination), Ok(()), "{destination}");
        }
        assert_eq!(admit("10.89.1.255", "1.1.1.1"), Ok(()));
        for destination in ["2001:db8::1", "fd00:2::1", "64:ff9b::7f00:1", "::2:0:0:1"] {
            assert_eq!(admit("fd00:1::2", destination), Ok(()), "{destination}");
        }
    }

    #[test]
    fn the_rest_is_closed() {
        for (destination, refusal) in [
            ("127.0.0.1", Refusal::Loopback),
            ("127.255.255.255", Refusal::Loopback),
            ("0.0.0.0", Refusal::Unspecified),
            ("0.1.2.3", Refusal::Unspecified),
            ("169.254.77.1", Refusal::Link),
            ("224.0.0.1", Refusal::Multicast),
            ("239.255.255.250", Refusal::Multicast),
            ("255.255.255.255", Refusal::Multicast),
            ("10.89.1.9", Refusal::OwnNetwork),
            ("10.89.0.9", Refusal::OwnNetwork),
            ("10.89.7.9", Refusal::OwnNetwork),
        ] {
            assert_eq!(
                admit("10.89.0.2", destination),
                Err(refusal),
                "{destination}"
            );
        }
        for (destination, refusal) in [
            ("::", Refusal::Unspecified),
            ("::1", Refusal::Loopback),
            ("::127.0.0.1", Refusal::Loopback),
            ("::ffff:127.0.0.1", Refusal::Loopback),
            ("::ffff:192.0.2.1", Refusal::Loopback),
            ("fe80::77", Refusal::Link),
            ("febf::1", Refusal::Link),
            ("ff02::1", Refusal::Multicast),
            ("fd00:7::1", Refusal::OwnNetwork),
        ] {
            assert_eq!(
                admit("fd00:1::2", destination),
                Err(refusal),
                "{destination}"
            );
        }
    }

    #[test]
    fn sources_must_be_ours() {
        for source in [
            "10.89.2.0",
            "10.88.255.255",
            "192.0.2.1",
            "fd00:2::1",
            "::1",
            "127.0.0.1",
        ] {
            assert_eq!(admit(source, "192.0.2.9"), Err(Refusal::UnknownSource));
        }
        assert_eq!(admit("10.89.7.2", "192.0.2.9"), Err(Refusal::Internal));
    }

    #[test]
    fn the_host_is_open_to_who_is_listed() {
        let mut snapshot = (**rules().snapshot()).clone();
        let closed = Rules::new(snapshot.clone());
        let sources = ["10.89.0.2", "fd00:1::2", "10.89.7.2"];
        snapshot.host_loopback = vec![HostLoopbackView {
            sandbox: "web".to_owned(),
            open: "80".to_owned().try_into().unwrap(),
            sources: sources.map(|source| source.parse().unwrap()).into(),
            others: Vec::new(),
        }];
        let rules = Rules::new(snapshot);
        assert!(!rules.admits_as(&closed) && rules.admits_as(&rules));
        let (v4, v6) = (IpAddr::V4(HOST_V4), IpAddr::V6(HOST_V6));
        let admit = |rules: &Rules, source: &str, host, port| {
            rules.admit(source.parse().unwrap(), host, Asked::Tcp(port))
        };
        assert_eq!(
            admit(&rules, "10.89.0.2", v4, 80),
            Ok([127, 0, 0, 1].into())
        );
        assert_eq!(
            admit(&rules, "fd00:1::2", v6, 80),
            Ok("::1".parse().unwrap())
        );
        let refused = Err(Refusal::HostClosed);
        assert_eq!(admit(&rules, "10.89.0.2", v4, 81), refused);
        assert_eq!(admit(&rules, "10.89.0.3", v4, 80), refused);
        assert_eq!(admit(&closed, "10.89.0.2", v4, 80), refused);
        // What the second lock says, whatever it was told.
        assert_eq!(admit(&rules, "10.89.7.2", v4, 80), Err(Refusal::Internal));
        let stranger = Err(Refusal::UnknownSource);
        assert_eq!(admit(&rules, "192.0.2.1", v4, 80), stranger);
        let loopback = [127, 0, 0, 1].into();
        let by_name_only = admit(&rules, "10.89.0.2", loopback, 80);
        assert_eq!(by_name_only, Err(Refusal::Loopback));
    }

    #[test]
    fn stand_ins_lead_elsewhere_for_everybody_of_ours() {
        let mut snapshot = (**rules().snapshot()).clone();
        let before = Rules::new(snapshot.clone());
        snapshot.stand_ins = [("10.89.0.1", "127.0.0.1"), ("169.254.1.2", "203.0.113.2")]
            .map(|(address, leads_to)| StandIn {
                address: address.parse().unwrap(),
                leads_to: leads_to.parse().unwrap(),
            })
            .into();
        let rules = Rules::new(snapshot.clone());
        assert!(!rules.admits_as(&before));
        let admit = |source: &str, destination: &str| {
            let asked = Asked::Udp(9);
            rules.admit(source.parse().unwrap(), destination.parse().unwrap(), asked)
        };
        let loopback = "127.0.0.1".parse().unwrap();
        assert_eq!(admit("10.89.0.2", "10.89.0.1"), Ok(loopback));
        let host = "203.0.113.2".parse().unwrap();
        assert_eq!(admit("10.89.0.2", "169.254.1.2"), Ok(host));
        assert_eq!(admit("10.89.0.2", "127.0.0.1"), Err(Refusal::Loopback));
        assert_eq!(admit("10.0.0.1", "10.89.0.1"), Err(Refusal::UnknownSource));
        assert_eq!(rules.behind("10.89.0.1".parse().unwrap()), Some(loopback));
        assert_eq!(rules.behind(host), None);
        snapshot.withheld.udp = true;
        let silent = Rules::new(snapshot);
        assert!(!silent.admits_as(&rules));
        let from = "10.89.0.2".parse().unwrap();
        let refused = Err(Refusal::Withheld);
        assert_eq!(silent.admit(from, host, Asked::Udp(9)), refused);
        assert_eq!(silent.admit(from, host, Asked::Tcp(9)), Ok(host));
    }

    #[test]
    fn readers_see_new_rules_after_a_refresh() {
        let shared = Arc::new(SharedRules::default());
        let mut reader = RulesReader::new(Arc::clone(&shared));
        shared.replace(rules());
        let source = "10.89.0.2".parse().unwrap();
        assert!(!reader.get().is_ours(source));
        assert!(reader.refresh());
        assert!(reader.get().is_ours(source));
        shared.replace(rules());
        assert!(!reader.refresh(), "nothing else is admitted");
    }
}
