use super::*;
use crate::api::network_types::{
    ConfigFrom, ContainerInfo, IpamConfig, IpamInfo, LeaseInfo, LinkInfo,
};
use crate::api::types::EndpointInfo;
use crate::cli::ports::tests::port;
use crate::cli::sandboxes::tests::sandbox;
use mossnet_helper::SandboxId;
use proptest::prelude::*;
use std::collections::BTreeMap;

pub(crate) fn network(
    byte: u8,
    name: &str,
    driver: &str,
    prefixes: &[(&str, &str)],
) -> NetworkInfo {
    let config = prefixes.iter().map(|(subnet, gateway)| IpamConfig {
        subnet: subnet.parse().unwrap(),
        ip_range: None,
        gateway: gateway.parse().unwrap(),
        auxiliary_addresses: BTreeMap::new(),
    });
    NetworkInfo {
        name: name.to_owned(),
        id: SandboxId::from([byte; 32]),
        created: "2026-01-01T00:00:00Z".to_owned(),
        scope: "local".to_owned(),
        driver: driver.to_owned(),
        enable_ipv4: true,
        enable_ipv6: prefixes.iter().any(|(subnet, _)| subnet.contains(':')),
        ipam: IpamInfo {
            driver: "default".to_owned(),
            options: BTreeMap::new(),
            config: config.collect(),
        },
        internal: false,
        attachable: false,
        ingress: false,
        config_from: ConfigFrom::default(),
        config_only: false,
        containers: BTreeMap::new(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        bridge: Some(format!("br-{byte:02x}")),
        uplink: Uplink::Relay,
        mtu: Some(1500),
        dns_enabled: name != "bridge",
        dns: Vec::new(),
        leases: Vec::new(),
    }
}

fn endpoint(network: &str, ifname: &str, addresses: &[&str], aliases: &[&str]) -> EndpointInfo {
    EndpointInfo {
        network: network.to_owned(),
        endpoint_id: SandboxId::from([9; 32]),
        ifname: ifname.to_owned(),
        router_ifname: "ve-090909090909".to_owned(),
        mac_address: "02:42:0a:59:00:02".parse().unwrap(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        gateways: Vec::new(),
        aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
        gw_priority: 0,
        rate_in: None,
        rate_out: None,
        dns_names: Vec::new(),
    }
}

fn member(byte: u8, name: &str, endpoints: Vec<EndpointInfo>) -> SandboxInfo {
    let mut made = sandbox(byte, name, &["sh"]);
    made.networks = endpoints.iter().map(|e| e.network.clone()).collect();
    made.endpoints = endpoints;
    made
}

fn without(byte: u8, name: &str, mode: &str) -> SandboxInfo {
    let mut made = member(byte, name, Vec::new());
    made.network_mode = mode.to_owned();
    made
}

/// Three networks, and one sandbox of every kind.
pub(crate) fn example() -> (Vec<NetworkInfo>, Vec<SandboxInfo>) {
    let bridge = network(1, "bridge", "bridge", &[("10.89.0.0/24", "10.89.0.1")]);
    let prefixes = [
        ("192.168.0.0/16", "192.168.0.1"),
        ("fd00:5::/64", "fd00:5::1"),
    ];
    let mut mynet = network(2, "mynet", "bridge", &prefixes);
    mynet.labels.insert("env".to_owned(), "lab".to_owned());
    let mut vault = network(3, "vault", "bridge", &[("10.9.0.0/24", "10.9.0.1")]);
    vault.internal = true;
    vault.leases.push(LeaseInfo {
        name: "old".to_owned(),
        addresses: vec!["10.9.0.2".parse().unwrap()],
        granted: "2026-01-01T00:00:00Z".to_owned(),
    });
    let db = vec![
        endpoint(
            "mynet",
            "eth0",
            &["192.168.0.3/16", "fd00:5::3/64"],
            &["store", "pg"],
        ),
        endpoint("vault", "eth1", &["10.9.0.3/24"], &[]),
    ];
    let web = vec![
        endpoint("bridge", "eth0", &["10.89.0.2/24"], &[]),
        endpoint("mynet", "eth1", &["192.168.0.2/16", "fd00:5::2/64"], &[]),
    ];
    let mut web = member(0xab, "web", web);
    web.links = vec![LinkInfo {
        name: "db".to_owned(),
        alias: Some("sql".to_owned()),
    }];
    web.ports = vec![port("*", "8080", "80"), port("::1", "8443-8444", "443-444")];
    let mut old = member(0xac, "old", Vec::new());
    old.state = SandboxState::Exited;
    old.networks = vec!["vault".to_owned()];
    let db = member(0xad, "db", db);
    let sandboxes = vec![
        web,
        db,
        old,
        without(0xae, "alone", "none"),
        without(0xaf, "mon", "host"),
        without(0xb0, "side", "container:web"),
    ];
    let mut networks = vec![bridge, mynet, vault];
    for network in &mut networks {
        network.containers = containers(&network.name, &sandboxes);
    }
    (networks, sandboxes)
}

fn containers(network: &str, sandboxes: &[SandboxInfo]) -> BTreeMap<SandboxId, ContainerInfo> {
    let mut found = BTreeMap::new();
    for sandbox in sandboxes {
        let Some(endpoint) = sandbox.endpoints.iter().find(|e| e.network == network) else {
            continue;
        };
        let address = |ipv6: bool| {
            let mut addresses = endpoint.addresses.iter();
            let found = addresses.find(|a| a.addr().is_ipv6() == ipv6);
            found.map(ToString::to_string).unwrap_or_default()
        };
        let info = ContainerInfo {
            name: sandbox.name.clone(),
            endpoint_id: endpoint.endpoint_id.clone(),
            mac_address: endpoint.mac_address,
            ipv4_address: address(false),
            ipv6_address: address(true),
        };
        // By name, so that a template prints them in the order of the names.
        let byte = sandbox.name.bytes().next().unwrap_or_default();
        found.insert(SandboxId::from([byte; 32]), info);
    }
    found
}

fn drawn(format: GraphFormat) -> String {
    let (networks, sandboxes) = example();
    draw(&networks, &sandboxes, format)
}

/// `MOSSNET_BLESS=1 cargo test graph` writes them anew, for you to look at.
fn golden(format: GraphFormat, name: &str, expected: &str) {
    let text = drawn(format);
    if std::env::var_os("MOSSNET_BLESS").is_some() {
        let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/graph");
        std::fs::write(place.join(name), &text).unwrap();
        return;
    }
    assert_eq!(text, expected);
}

#[test]
fn the_text_is_a_tree() {
    golden(GraphFormat::Text, "golden.txt", include_str!("golden.txt"));
}

#[test]
fn the_dot_is_for_graphviz() {
    golden(GraphFormat::Dot, "golden.dot", include_str!("golden.dot"));
}

#[test]
fn the_mermaid_is_for_markdown() {
    golden(
        GraphFormat::Mermaid,
        "golden.mmd",
        include_str!("golden.mmd"),
    );
}

#[test]
fn the_svg_is_for_browsers() {
    golden(GraphFormat::Svg, "golden.svg", include_str!("golden.svg"));
}

#[test]
fn nothing_is_a_picture_too() {
    assert_eq!(draw(&[], &[], GraphFormat::Text), "");
    assert!(draw(&[], &[], GraphFormat::Svg).ends_with("</svg>\n"));
}

proptest! {
    /// Whatever the daemon tells, in whatever order, is drawn, the same each time.
    #[test]
    fn the_order_does_not_matter(
        names in proptest::collection::btree_set(".{1,12}", 1..6),
        joins in proptest::collection::vec((0usize..6, 0usize..3), 0..12),
        rotation in 0usize..6,
    ) {
        let networks: Vec<NetworkInfo> = ["bridge", "a", "<&\">"]
            .iter()
            .zip(1..)
            .map(|(name, byte)| network(byte, name, "bridge", &[("10.0.0.0/8", "10.0.0.1")]))
            .collect();
        let mut sandboxes: Vec<SandboxInfo> = names
            .iter()
            .zip(1..)
            .map(|(name, byte)| member(byte, name, Vec::new()))
            .collect();
        let count = sandboxes.len();
        for (sandbox, network) in joins {
            let name = &networks[network].name;
            let sandbox = &mut sandboxes[sandbox % count];
            if !sandbox.networks.contains(name) {
                sandbox.networks.push(name.clone());
                sandbox.endpoints.push(endpoint(name, "eth0", &["10.0.0.2/8"], &[]));
            }
        }
        let formats = [GraphFormat::Text, GraphFormat::Dot, GraphFormat::Mermaid, GraphFormat::Svg];
        let first = formats.map(|format| draw(&networks, &sandboxes, format));
        sandboxes.rotate_left(rotation % count);
        let second = formats.map(|format| draw(&networks, &sandboxes, format));
        prop_assert_eq!(&first, &second);
        prop_assert!(!first[3].contains("<&"));
    }
}
