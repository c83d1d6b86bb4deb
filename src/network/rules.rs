//! What helper and relay are told of networks: bridges, ruleset entries, the relay's snapshot.
//!
//! Invariant: all three are functions of the model alone, so that telling them again after any
//! crash brings back the same kernel state.

use super::model::{Endpoint, Network, Sandbox};
use super::snapshot::{NameRecord, NetworkView, ResolverView, Snapshot};
use ipnet::IpNet;
use mossnet_helper::request::{BridgeSpec, NetworkRules};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The bridge of a network.
pub fn bridge_spec(network: &Network) -> BridgeSpec {
    let address = |s: &super::model::NetworkSubnet| {
        IpNet::new_assert(s.gateway, s.subnet.prefix().prefix_len())
    };
    BridgeSpec {
        name: network.bridge.clone(),
        mac: network.mac,
        mtu: network.mtu,
        addresses: network.subnets.iter().map(address).collect(),
    }
}

/// The network's entry in the ruleset.
pub fn network_rules(network: &Network) -> NetworkRules {
    NetworkRules {
        bridge: network.bridge.clone(),
        subnets: network.prefixes(),
        gateways: network.gateways(),
        internal: network.internal,
        uplink: network.uplink,
    }
}

/// The relay's view of `networks` and of the live ones among `sandboxes`; generation 0.
pub fn snapshot<'a>(
    networks: impl IntoIterator<Item = &'a Network>,
    sandboxes: impl IntoIterator<Item = &'a Sandbox> + Clone,
    resolver: &ResolverView,
) -> Snapshot {
    let view = |network: &Network| NetworkView {
        name: network.name.to_string(),
        bridge: network.bridge.clone(),
        subnets: network.prefixes(),
        gateways: network.gateways(),
        internal: network.internal,
        dns: network.dns.clone(),
        names: names_on(network, sandboxes.clone()),
    };
    Snapshot {
        generation: 0,
        networks: networks.into_iter().map(view).collect(),
        resolver: resolver.clone(),
        multihomed: Vec::new(),
        publishes: Vec::new(),
    }
}

/// Names, aliases, host names and short ids of the endpoints on a network; one that several
/// endpoints share (an alias) has all their addresses. Names of sandboxes come first, apart from
/// aliases that read the same: it is they that an address leads back to.
fn names_on<'a>(
    network: &Network,
    sandboxes: impl IntoIterator<Item = &'a Sandbox>,
) -> Vec<NameRecord> {
    if !network.serves_names() {
        return Vec::new();
    }
    let (mut first, mut others) = (Names::default(), Names::default());
    for sandbox in sandboxes.into_iter().filter(|s| s.is_live()) {
        let endpoints = sandbox.endpoints.iter().filter(|e| e.network == network.id);
        for endpoint in endpoints {
            add_name(&mut first, sandbox.name.as_str(), endpoint);
            let own = [sandbox.id.short(), sandbox.hostname.as_str()];
            let aliases = endpoint.aliases.iter().map(String::as_str);
            for name in own.into_iter().chain(aliases) {
                add_name(&mut others, name, endpoint);
            }
        }
    }
    let record = |(name, addresses)| NameRecord { name, addresses };
    first.into_iter().chain(others).map(record).collect()
}

type Names = BTreeMap<String, Vec<IpAddr>>;

fn add_name(names: &mut Names, name: &str, endpoint: &Endpoint) {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let addresses = names.entry(name).or_default();
    for address in endpoint.addresses.iter().map(IpNet::addr) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::model::samples;

    #[test]
    fn a_bridge_carries_its_gateways() {
        let network = samples::network("mynet", 0x11, "10.89.3.0/24");
        let spec = bridge_spec(&network);
        assert_eq!(spec.addresses, ["10.89.3.1/24".parse::<IpNet>().unwrap()]);
        assert_eq!(spec.name.as_str(), "br-111111111111");
        assert_eq!(network_rules(&network).gateways, network.gateways());
    }

    #[test]
    fn names_are_served_on_user_defined_networks_only() {
        let mine = samples::network("mynet", 0x11, "10.89.3.0/24");
        let default = samples::network("bridge", 0x22, "10.89.0.0/24");
        let mut web = samples::sandbox("Web", 0x33, &mine, "10.89.3.2/24");
        web.endpoints[0].aliases.push("www".into());
        let mut gone = samples::sandbox("gone", 0x44, &mine, "10.89.3.3/24");
        gone.exit(9, 0);
        let other = samples::sandbox("other", 0x55, &default, "10.89.0.2/24");
        let resolver = ResolverView::default();
        let sandboxes = [web, gone, other];
        let snapshot = snapshot([&mine, &default], &sandboxes, &resolver);
        let names: Vec<_> = snapshot.networks[0]
            .names
            .iter()
            .map(|n| n.name.as_str())
            .collect();
        assert_eq!(names, ["web", "333333333333", "www"]);
        assert!(snapshot.networks[1].names.is_empty());
    }
}
