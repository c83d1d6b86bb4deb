//! Bookkeeping of segments: which bridge of a network an endpoint goes to, and what is where.
//!
//! A bridge has room for 1,023 ports (BR_MAX_PORTS, net/bridge/br_private.h), but a broadcast must
//! also fit into the queue of received frames of one processor (net.core.netdev_max_backlog, 1,000,
//! which is not ours to raise): else it is lost to some, and the answers to it are lost too. So a
//! network with more endpoints is a *segment*, a chain of bridges: the one that the daemon knows
//! (`br-X`), then overflow bridges `o1-X`, `o2-X` …, each joined to the one before by a trunk, a veth
//! pair `tN-X` (there) and `uN-X` (on `oN-X`). In a chain a broadcast passes at most two bridges at a
//! time. Neither the ruleset (`br-*`, `ve-*`) nor the daemon sees all this.
//!
//! Invariant: counts are at least what the kernel has. An endpoint whose sandbox is gone may still be
//! counted; [`Segments::retain`] corrects that.

use super::BRIDGE_PREFIX;
use super::rush::Inside;
use crate::names::{IfName, MacAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Endpoints on one bridge: twice as many fit into the queue, with room for answers.
pub const MOST_ENDPOINTS: usize = 450;
/// Overflow bridges of one segment: as many as one digit numbers.
pub const MOST_OVERFLOWS: u8 = 35;

/// The number of an overflow bridge, from 1; `None`: the main bridge.
pub type Place = Option<u8>;

/// A network's bridges.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// As [`crate::request::BridgeSpec`] has it.
    pub mtu: u32,
    /// MAC address of the main bridge.
    pub mac: Option<MacAddr>,
    /// Endpoints reach each other.
    pub icc: bool,
    /// VLAN of everything.
    pub vlan: Option<u16>,
    /// Endpoints on the main bridge.
    main: usize,
    /// Endpoints on each overflow bridge.
    overflows: BTreeMap<u8, usize>,
    /// Whose addresses were seen where.
    seen: Seen,
}

/// Which MAC address each address had last, and on which bridge: neighbours may remember it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    last: BTreeMap<IpAddr, (MacAddr, Place)>,
    /// Too many to remember: unknown ones may have been seen.
    forgot: bool,
}

/// Addresses remembered of one segment.
const MOST_SEEN: usize = 1 << 17;

impl Seen {
    fn moves(&mut self, endpoint: &Endpoint) -> bool {
        let mut moves = false;
        for address in &endpoint.addresses {
            let now = (endpoint.mac, endpoint.place);
            let before = self.last.insert(*address, now);
            moves |= before.map_or(self.forgot, |before| before != now);
        }
        if self.last.len() > MOST_SEEN {
            self.last.clear();
            self.forgot = true;
        }
        moves
    }
}

/// An endpoint that was attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The main bridge.
    pub bridge: IfName,
    /// Which bridge of the segment.
    pub place: Place,
    /// Of the router side.
    pub index: u32,
    /// Of the sandbox's side.
    pub mac: MacAddr,
    /// What it may send from.
    pub addresses: Vec<IpAddr>,
    /// The link through which what it sends is led.
    pub turnaround: Option<IfName>,
    /// The other end.
    pub inside: Inside,
}

/// All segments with their endpoints.
#[derive(Debug, Default)]
pub struct Segments {
    segments: BTreeMap<IfName, Segment>,
    endpoints: BTreeMap<IfName, Endpoint>,
    /// Grows with whatever changes which endpoint is where.
    version: u64,
}

impl Segment {
    /// Numbers of the overflow bridges that exist.
    pub fn overflows(&self) -> impl Iterator<Item = u8> {
        self.overflows.keys().copied()
    }

    /// Where the next endpoint goes; an overflow bridge that does not exist yet is to be made. `None`:
    /// all is full.
    pub fn vacancy(&self) -> Option<Place> {
        if self.main < MOST_ENDPOINTS {
            return Some(None);
        }
        (1..=MOST_OVERFLOWS)
            .find(|n| {
                self.overflows
                    .get(n)
                    .is_none_or(|count| *count < MOST_ENDPOINTS)
            })
            .map(Some)
    }

    /// Whether this bridge of the segment exists.
    pub fn has(&self, place: Place) -> bool {
        place.is_none_or(|n| self.overflows.contains_key(&n))
    }

    fn count(&mut self, place: Place) -> &mut usize {
        match place {
            None => &mut self.main,
            Some(n) => self.overflows.entry(n).or_default(),
        }
    }
}

impl Segments {
    /// The segment of a main bridge.
    pub fn get(&self, bridge: &IfName) -> Option<&Segment> {
        self.segments.get(bridge)
    }

    /// Another one than before: endpoints may have come, gone or moved.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The same, made where it is missing.
    pub fn entry(&mut self, bridge: &IfName) -> &mut Segment {
        self.version += 1;
        self.segments.entry(bridge.clone()).or_default()
    }

    /// Forget a segment. Endpoints that are left are on no bridge.
    pub fn remove(&mut self, bridge: &IfName) {
        self.version += 1;
        self.segments.remove(bridge);
    }

    /// An overflow bridge exists, without endpoints.
    pub fn add_overflow(&mut self, bridge: &IfName, number: u8) {
        self.entry(bridge).count(Some(number));
    }

    /// An overflow bridge does not exist any more.
    pub fn remove_overflow(&mut self, bridge: &IfName, number: u8) {
        self.version += 1;
        if let Some(segment) = self.segments.get_mut(bridge) {
            segment.overflows.remove(&number);
        }
    }

    /// Overflow bridges at the end of the chain without endpoints, the last one first.
    pub fn empty_overflows(&self, bridge: &IfName) -> Vec<u8> {
        let segment = self.segments.get(bridge).into_iter();
        let last_first = segment.flat_map(|segment| segment.overflows.iter().rev());
        last_first
            .take_while(|(_, count)| **count == 0)
            .map(|(n, _)| *n)
            .collect()
    }

    /// Whether neighbours may know addresses of this endpoint, about to come, by another MAC address or
    /// on another bridge.
    pub fn moves(&mut self, endpoint: &Endpoint) -> bool {
        let segment = self.segments.get_mut(&endpoint.bridge);
        segment.is_some_and(|segment| segment.seen.moves(endpoint))
    }

    /// An endpoint was attached; the record that its name had before, of one that has vanished.
    pub fn insert(&mut self, name: IfName, endpoint: Endpoint) -> Option<Endpoint> {
        self.version += 1;
        let before = self.take(&name);
        if let Some(segment) = self.segments.get_mut(&endpoint.bridge) {
            *segment.count(endpoint.place) += 1;
        }
        self.endpoints.insert(name, endpoint);
        before
    }

    /// An endpoint is gone.
    pub fn take(&mut self, name: &IfName) -> Option<Endpoint> {
        let endpoint = self.endpoints.remove(name)?;
        self.version += 1;
        if let Some(segment) = self.segments.get_mut(&endpoint.bridge)
            && segment.has(endpoint.place)
        {
            let count = segment.count(endpoint.place);
            *count = count.saturating_sub(1);
        }
        Some(endpoint)
    }

    /// Take out every endpoint that is not among the `present` ones.
    pub fn retain(&mut self, present: &BTreeSet<&str>) -> Vec<Endpoint> {
        let names = self.endpoints.keys();
        let gone: Vec<IfName> = names
            .filter(|name| !present.contains(name.as_str()))
            .cloned()
            .collect();
        gone.iter().filter_map(|name| self.take(name)).collect()
    }

    /// All endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    /// The same with the names of their ports.
    pub fn named(&self) -> impl Iterator<Item = (&IfName, &Endpoint)> {
        self.endpoints.iter()
    }

    /// Names of all main bridges.
    pub fn bridges(&self) -> impl Iterator<Item = &IfName> {
        self.segments.keys()
    }
}

/// Names of an overflow bridge and of the ends of its trunk.
#[derive(Debug, PartialEq, Eq)]
pub struct OverflowNames {
    /// The overflow bridge.
    pub bridge: IfName,
    /// The end of the trunk on the bridge before.
    pub near_end: IfName,
    /// The end on the overflow bridge.
    pub far_end: IfName,
}

/// Names for overflow bridge `number` of the segment `main`; `None`: `main` is no name of ours.
pub fn overflow_names(main: &IfName, number: u8) -> Option<OverflowNames> {
    let rest = main.as_str().strip_prefix(BRIDGE_PREFIX)?;
    let digit = char::from_digit(number.into(), 36)?;
    let name = |kind: char| format!("{kind}{digit}-{rest}").parse::<IfName>().ok();
    Some(OverflowNames {
        bridge: name('o')?,
        near_end: name('t')?,
        far_end: name('u')?,
    })
}

/// The main bridge that a bridge of this name belongs to: itself, or the one that it extends.
pub fn main_bridge(name: &str) -> Option<IfName> {
    if name.starts_with(BRIDGE_PREFIX) {
        return name.parse().ok();
    }
    let (digit, rest) = name.strip_prefix('o')?.split_once('-')?;
    let one_digit = digit.len() == 1 && digit.chars().all(|digit| digit.is_digit(36));
    one_digit.then(|| format!("{BRIDGE_PREFIX}{rest}").parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::SandboxId;

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    fn endpoint(bridge: &IfName, place: Place) -> Endpoint {
        Endpoint {
            bridge: bridge.clone(),
            place,
            index: 1,
            mac: "02:00:00:00:00:01".parse().unwrap(),
            addresses: Vec::new(),
            turnaround: None,
            inside: Inside {
                sandbox: SandboxId::from([1; 32]),
                ifname: "eth0".parse().unwrap(),
            },
        }
    }

    #[test]
    fn names_lead_back_to_the_main_bridge_and_meet_no_prefix_of_ours() {
        for main in ["br-0123456789ab", "br-a", "br-a-b"].map(name) {
            for number in 1..=MOST_OVERFLOWS {
                let names = overflow_names(&main, number).unwrap();
                assert_eq!(main_bridge(names.bridge.as_str()), Some(main.clone()));
                for other in [&names.near_end, &names.far_end] {
                    assert_eq!(main_bridge(other.as_str()), None, "{other}");
                }
                for each in [&names.bridge, &names.near_end, &names.far_end] {
                    assert!(!each.as_str().starts_with("br-") && !each.as_str().starts_with("ve-"));
                }
            }
            assert_eq!(main_bridge(main.as_str()), Some(main));
        }
        for foreign in ["up0", "o-a", "o12-a", "lo", "pasta0"] {
            assert_eq!(main_bridge(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_full_bridge_overflows_and_gaps_are_filled() {
        let bridge = name("br-a");
        let mut all = Segments::default();
        all.entry(&bridge).icc = true;
        let ve = |n: usize| name(&format!("ve-{n}"));
        let total = MOST_ENDPOINTS * (1 + usize::from(MOST_OVERFLOWS));
        for n in 0..total {
            let place = all.get(&bridge).unwrap().vacancy().unwrap();
            assert_eq!(place.map_or(0, usize::from), n / MOST_ENDPOINTS);
            assert_eq!(all.insert(ve(n), endpoint(&bridge, place)), None);
        }
        assert_eq!(all.get(&bridge).unwrap().vacancy(), None);
        assert!(all.take(&ve(MOST_ENDPOINTS * 3)).is_some());
        assert_eq!(all.get(&bridge).unwrap().vacancy(), Some(Some(3)));
        assert!(all.take(&ve(5)).is_some());
        assert_eq!(all.get(&bridge).unwrap().vacancy(), Some(None));
        // What vanished unseen is counted until somebody looks.
        let names: Vec<String> = (0..MOST_ENDPOINTS).map(|n| ve(n).to_string()).collect();
        let gone = all.retain(&names.iter().map(String::as_str).collect());
        assert_eq!(gone.len(), total - MOST_ENDPOINTS - 1);
        assert_eq!(
            all.empty_overflows(&bridge),
            (1..=MOST_OVERFLOWS).rev().collect::<Vec<_>>()
        );
        all.insert(ve(total), endpoint(&bridge, Some(3)));
        let after = all.empty_overflows(&bridge);
        assert_eq!(after.last(), Some(&4), "the chain is not broken");
        all.remove_overflow(&bridge, MOST_OVERFLOWS);
        assert!(!all.get(&bridge).unwrap().has(Some(MOST_OVERFLOWS)));
    }

    #[test]
    fn only_what_moves_is_announced() {
        let bridge = name("br-a");
        let mut all = Segments::default();
        all.entry(&bridge);
        let mut one = endpoint(&bridge, None);
        one.addresses = vec!["10.0.0.2".parse().unwrap()];
        assert!(!all.moves(&one));
        assert!(!all.moves(&one));
        one.place = Some(1);
        assert!(all.moves(&one));
        one.mac = "02:00:00:00:00:02".parse().unwrap();
        assert!(all.moves(&one));
        for n in 0..=MOST_SEEN as u32 {
            let address = std::net::Ipv4Addr::from(0x0b00_0000 + n);
            one.addresses = vec![address.into()];
            all.moves(&one);
        }
        one.addresses = vec!["12.0.0.1".parse().unwrap()];
        assert!(all.moves(&one), "perhaps it was one of those forgotten");
    }

    #[test]
    fn a_name_that_comes_again_is_counted_once() {
        let bridge = name("br-a");
        let mut all = Segments::default();
        all.entry(&bridge);
        all.insert(name("ve-a"), endpoint(&bridge, None));
        assert!(all.insert(name("ve-a"), endpoint(&bridge, None)).is_some());
        assert_eq!(all.get(&bridge).unwrap().main, 1);
        all.remove(&bridge);
        assert!(all.take(&name("ve-a")).is_some());
        assert_eq!(all.get(&bridge), None);
    }
}
