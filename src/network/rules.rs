//! What helper and relay are told of networks: bridges, ruleset entries, the relay's snapshot.
//!
//! Invariant: all three are functions of the model alone, so that telling them again after any
//! crash brings back the same kernel state.

use super::model::{Network, Sandbox};
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
        icc: true,
        vlan: None,
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
        multihomed: sandboxes.into_iter().filter_map(several_homes).collect(),
    }
}

/// All addresses of a live sandbox that is on more than one network.
fn several_homes(sandbox: &Sandbox) -> Option<Vec<IpAddr>> {
    if !sandbox.is_live() || sandbox.endpoints.len() < 2 {
        return None;
    }
    let addresses = sandbox.endpoints.iter().flat_map(|e| &e.addresses);
    Some(addresses.map(IpNet::addr).collect())
}

/// Names, aliases, host names and short ids of the endpoints on a network; one that several
/// endpoints share (an alias) has all their addresses.
fn names_on<'a>(
    network: &Network,
    sandboxes: impl IntoIterator<Item = &'a Sandbox>,
) -> Vec<NameRecord> {
    if !network.serves_names() {
        return Vec::new();
    }
    let mut names: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for sandbox in sandboxes.into_iter().filter(|s| s.is_live()) {
        let endpoints = sandbox.endpoints.iter().filter(|e| e.network == network.id);
        for endpoint in endpoints {
            let own = [
                sandbox.name.as_str(),
                sandbox.id.short(),
                sandbox.hostname.as_str(),
            ];
            let aliases = endpoint.aliases.iter().map(String::as_str);
            for name in own.into_iter().chain(aliases) {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                let addresses = names.entry(name).or_default();
                for address in endpoint.addresses.iter().map(IpNet::addr) {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
            }
        }
    }
    let record = |(name, addresses)| NameRecord { name, addresses };
    names.into_iter().map(record).collect()
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
        assert_eq!(names, ["333333333333", "web", "www"]);
        assert!(snapshot.networks[1].names.is_empty());
    }
}
