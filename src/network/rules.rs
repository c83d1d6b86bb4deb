//! What helper and relay are told of networks: bridges, ruleset entries, the relay's snapshot.
//!
//! Invariant: all three are functions of the model alone, so that telling them again after any
//! crash brings back the same kernel state.

use super::host_loopback;
use super::model::Network;
use super::publish::publish_views;
use super::sandbox::Sandbox;
use super::snapshot::{NameRecord, NetworkView, ResolverView, Snapshot};
use super::subnet::NetworkSubnet;
use ipnet::IpNet;
use mossnet_helper::SandboxId;
use mossnet_helper::request::{BridgeSpec, NetworkRules, UplinkKind};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// The bridge of a network.
pub fn bridge_spec(network: &Network) -> BridgeSpec {
    let address = |s: &NetworkSubnet| IpNet::new_assert(s.gateway, s.subnet.prefix().prefix_len());
    BridgeSpec {
        name: network.bridge.clone(),
        mac: network.mac,
        mtu: network.mtu,
        addresses: network.routed().map(address).collect(),
        icc: network.icc,
        vlan: network.vlan,
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
    let networks: Vec<&Network> = networks.into_iter().collect();
    let by_id: HashMap<&SandboxId, &Network> = networks.iter().map(|n| (&n.id, *n)).collect();
    // Most have nothing to do with it, and need no look at their addresses.
    let by_network = networks.iter().any(|n| n.host_loopback.is_some());
    let concerned = |sandbox: &&Sandbox| by_network || sandbox.host_loopback.is_some();
    let open = |sandbox| host_loopback::view(sandbox, |id| by_id.get(id).copied());
    let host_loopback = sandboxes.clone().into_iter().filter(concerned);
    let host_loopback = host_loopback.filter_map(open).collect();
    let relayed = |id: &SandboxId| by_id.get(id).is_none_or(|n| n.uplink == UplinkKind::Relay);
    let mut names = names_by_network(sandboxes.clone());
    let mut names_on = |network: &Network| match network.serves_names() {
        true => names.remove(&network.id).unwrap_or_default(),
        false => Names::default(),
    };
    let view = |network: &Network| NetworkView {
        name: network.name.to_string(),
        bridge: network.bridge.clone(),
        subnets: network.prefixes(),
        gateways: network.gateways(),
        internal: network.internal,
        dns: network.dns.clone(),
        names: names_on(network).records(),
    };
    Snapshot {
        generation: 0,
        networks: networks.into_iter().map(view).collect(),
        resolver: resolver.clone(),
        multihomed: (sandboxes.clone().into_iter())
            .filter_map(several_homes)
            .collect(),
        publishes: (sandboxes.into_iter())
            .flat_map(|sandbox| publish_views(sandbox, relayed))
            .collect(),
        host_loopback,
        ..Snapshot::default()
    }
}

/// All addresses of a live sandbox that is on more than one network.
fn several_homes(sandbox: &Sandbox) -> Option<Vec<IpAddr>> {
    if !sandbox.is_live() || sandbox.endpoints.len() < 2 {
        return None;
    }
    Some(sandbox.addresses().collect())
}

/// Names of one network, each with the addresses behind it. Names of sandboxes come first, apart
/// from aliases that read the same: it is they that an address leads back to.
#[derive(Default)]
struct Names {
    first: Vec<NameRecord>,
    others: Vec<NameRecord>,
}

impl Names {
    fn records(self) -> Vec<NameRecord> {
        let mut records = in_order(self.first);
        records.extend(in_order(self.others));
        records
    }
}

/// Sorted by name, each name once, with the addresses of all its records in the order of these.
fn in_order(mut records: Vec<NameRecord>) -> Vec<NameRecord> {
    records.sort_by(|a, b| a.name.cmp(&b.name));
    records.dedup_by(|next, kept| {
        let same = next.name == kept.name;
        if same {
            for address in next.addresses.drain(..) {
                if !kept.addresses.contains(&address) {
                    kept.addresses.push(address);
                }
            }
        }
        same
    });
    records
}

/// Names, aliases, host names and short ids of all endpoints, by network; a name that several
/// endpoints share (an alias) has all their addresses.
fn names_by_network<'a>(
    sandboxes: impl IntoIterator<Item = &'a Sandbox>,
) -> BTreeMap<&'a SandboxId, Names> {
    // Of few networks an ordered map finds one sooner than the hash of 64 digits is made.
    let mut found: BTreeMap<&SandboxId, Names> = BTreeMap::new();
    for sandbox in sandboxes.into_iter().filter(|s| s.is_live()) {
        for endpoint in sandbox.endpoints.iter().filter(|e| e.named) {
            let names = found.entry(&endpoint.network).or_default();
            for (index, name) in sandbox.names_at(endpoint).into_iter().enumerate() {
                let of = if index == 0 {
                    &mut names.first
                } else {
                    &mut names.others
                };
                let addresses = endpoint.addresses.iter().map(IpNet::addr).collect();
                of.push(NameRecord { name, addresses });
            }
        }
    }
    found
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
        assert!(snapshot.multihomed.is_empty());
    }

    #[test]
    fn a_sandbox_on_two_networks_has_on_each_its_address_there() {
        let first = samples::network("first", 0x11, "10.89.3.0/24");
        let mut second = samples::network("second", 0x22, "10.89.4.0/24");
        let mut web = samples::sandbox("web", 0x33, &first, "10.89.3.2/24");
        web.endpoints
            .push(samples::endpoint(0x77, &second, "10.89.4.2/24", 1));
        web.endpoints[1].aliases.push("only-here".into());
        let db = samples::sandbox("db", 0x44, &first, "10.89.3.3/24");
        let sandboxes = [web, db];
        let resolver = ResolverView::default();
        let seen = snapshot([&first, &second], &sandboxes, &resolver);
        let of = |n: usize, name: &str| {
            let found = seen.networks[n].names.iter().find(|have| have.name == name);
            found.map(|found| found.addresses.iter().map(IpAddr::to_string).collect())
        };
        assert_eq!(of(0, "web"), Some(vec!["10.89.3.2".to_owned()]));
        assert_eq!(of(1, "web"), Some(vec!["10.89.4.2".to_owned()]));
        assert_eq!(of(1, "only-here"), Some(vec!["10.89.4.2".to_owned()]));
        assert_eq!(of(0, "only-here"), None);
        assert_eq!(of(1, "db"), None);
        let homes: Vec<IpAddr> = ["10.89.3.2", "10.89.4.2"]
            .map(|a| a.parse().unwrap())
            .into();
        assert_eq!(seen.multihomed, [homes]);
        second.disable_dns = true;
        let quiet = snapshot([&first, &second], &sandboxes, &resolver);
        assert!(quiet.networks[1].names.is_empty());
    }

    #[test]
    fn the_snapshot_names_those_to_whom_the_host_is_open() {
        let network = samples::network("mynet", 0x11, "10.89.3.0/24");
        let mut web = samples::sandbox("web", 0x33, &network, "10.89.3.2/24");
        let db = samples::sandbox("db", 0x44, &network, "10.89.3.3/24");
        let seen =
            |sandboxes: &[Sandbox]| snapshot([&network], sandboxes, &ResolverView::default());
        let closed = seen(&[web.clone(), db.clone()]);
        assert!(closed.host_loopback.is_empty());
        // A relay of an earlier build reads it as long as nothing is open.
        let text = serde_json::to_string(&closed).unwrap();
        assert!(!text.contains("host_loopback"), "{text}");
        web.host_loopback = Some("80".to_owned().try_into().unwrap());
        let open = seen(&[web, db]).host_loopback;
        let names: Vec<_> = open.iter().map(|view| view.sandbox.as_str()).collect();
        assert_eq!(names, ["web"]);
    }

    #[test]
    fn a_name_that_several_have_has_all_their_addresses() {
        let network = samples::network("mynet", 0x11, "10.89.3.0/24");
        let mut sandboxes = Vec::new();
        for (number, name) in ["c", "a", "b"].into_iter().enumerate() {
            let id = 0x33 + u8::try_from(number).unwrap();
            let address = format!("10.89.3.{}/24", 9 - number);
            let mut sandbox = samples::sandbox(name, id, &network, &address);
            sandbox.endpoints[0]
                .aliases
                .extend(["All".into(), "b".into()]);
            sandboxes.push(sandbox);
        }
        let seen = snapshot([&network], &sandboxes, &ResolverView::default());
        let records = seen.networks[0].names.iter().map(|record| {
            let addresses: Vec<_> = record.addresses.iter().map(IpAddr::to_string).collect();
            format!("{} {}", record.name, addresses.join(" "))
        });
        assert_eq!(
            records.collect::<Vec<_>>(),
            [
                // By these an address is known.
                "a 10.89.3.8",
                "b 10.89.3.7",
                "c 10.89.3.9",
                "333333333333 10.89.3.9",
                "343434343434 10.89.3.8",
                "353535353535 10.89.3.7",
                "all 10.89.3.9 10.89.3.8 10.89.3.7",
                "b 10.89.3.9 10.89.3.8",
            ]
        );
    }

    #[test]
    fn a_bridge_without_ipv4_serves_none() {
        let mut network = samples::network("mynet", 0x11, "10.89.3.0/24");
        (network.inhibit_ipv4, network.icc, network.vlan) = (true, false, Some(7));
        let spec = bridge_spec(&network);
        assert!(spec.addresses.is_empty() && !spec.icc);
        assert_eq!(spec.vlan, Some(7));
        assert!(network_rules(&network).gateways.is_empty());
    }
}
