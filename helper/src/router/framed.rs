//! Which endpoints the relay may exchange frames with, and where they are.
//!
//! Not those that are held to a rate: the tap at their port sees what they send before it has waited. Nor
//! those whose bridge is gone; nor where the guard is not there to drop what the tap has seen, or where the
//! fast path of a network with another uplink than the relay would lead it past the guard.

use super::Router;
use super::segment::{Endpoint, Segments};
use crate::framed::EndpointPlace;
use crate::names::IfName;
use crate::request::{NetworkRules, UplinkKind};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Bridges of networks that can have framed flows.
#[derive(Debug, Default)]
pub(super) struct FramedNetworks {
    bridges: BTreeSet<IfName>,
    version: u64,
}

impl FramedNetworks {
    /// From now on there are these networks.
    pub(super) fn set_networks(&mut self, networks: &[NetworkRules]) {
        let by_relay = |network: &&NetworkRules| match network.uplink {
            UplinkKind::Relay | UplinkKind::None => true,
            UplinkKind::Kernel | UplinkKind::Pasta | UplinkKind::Slirp => false,
        };
        let bridges = networks.iter().filter(by_relay);
        let bridges = bridges.map(|network| network.bridge.clone()).collect();
        if bridges != self.bridges {
            self.bridges = bridges;
            self.version += 1;
        }
    }
}

impl Router {
    /// Another one than before: [`Router::endpoint_places`] may say something else.
    pub fn endpoints_version(&self) -> u64 {
        // Both only grow.
        self.segments.version() + self.framed.version
    }

    /// All endpoints for framed flows.
    pub fn endpoint_places(&self) -> Vec<EndpointPlace> {
        match self.is_guarded() {
            true => places(&self.segments, &self.framed),
            false => Vec::new(),
        }
    }
}

fn places(segments: &Segments, networks: &FramedNetworks) -> Vec<EndpointPlace> {
    let on_a_bridge = |endpoint: &&Endpoint| {
        let segment = segments.get(&endpoint.bridge);
        networks.bridges.contains(&endpoint.bridge)
            && segment.is_some_and(|segment| segment.has(endpoint.place))
    };
    let all = segments.endpoints().filter(on_a_bridge);
    all.filter(|endpoint| endpoint.turnaround.is_none())
        .map(|endpoint| EndpointPlace {
            port: endpoint.index,
            mac: endpoint.mac,
            addresses: routed(&endpoint.addresses),
        })
        .collect()
}

fn routed(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let is_routed = |address: &&IpAddr| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    };
    addresses.iter().filter(is_routed).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::SandboxId;
    use crate::router::Inside;

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    fn endpoint(bridge: &str, index: u32, addresses: &[&str]) -> Endpoint {
        Endpoint {
            bridge: name(bridge),
            place: None,
            index,
            mac: "02:00:00:00:00:01".parse().unwrap(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            turnaround: None,
            inside: Inside {
                sandbox: SandboxId::from([1; 32]),
                ifname: name("eth0"),
            },
        }
    }

    fn networks() -> FramedNetworks {
        FramedNetworks {
            bridges: ["br-a", "br-b"].map(name).into(),
            version: 0,
        }
    }

    fn ports(segments: &Segments) -> Vec<u32> {
        places(segments, &networks())
            .iter()
            .map(|place| place.port)
            .collect()
    }

    #[test]
    fn those_on_a_bridge_that_nothing_delays() {
        let mut all = Segments::default();
        for bridge in ["br-a", "br-b"] {
            all.entry(&name(bridge));
        }
        let mut held = endpoint("br-a", 9, &["10.0.0.9"]);
        held.turnaround = Some(name("if-9"));
        all.insert(name("ve-9"), held);
        all.insert(name("ve-8"), endpoint("br-b", 8, &["10.1.0.8"]));
        let addresses = ["10.0.0.7", "fd00::7", "fe80::1"];
        all.insert(name("ve-7"), endpoint("br-a", 7, &addresses));
        assert_eq!(ports(&all), [7, 8]);
        let both = ["10.0.0.7", "fd00::7"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(places(&all, &networks())[0].addresses, both);

        let none = FramedNetworks::default();
        assert!(places(&all, &none).is_empty());

        let before = all.version();
        all.remove(&name("br-b"));
        assert_eq!(ports(&all), [7]);
        assert_ne!(all.version(), before);
        let before = all.version();
        assert!(all.take(&name("ve-7")).is_some());
        assert_ne!(all.version(), before);
        assert!(places(&all, &networks()).is_empty());
        let before = all.version();
        assert!(all.take(&name("ve-7")).is_none());
        assert_eq!(all.version(), before);
    }
}
