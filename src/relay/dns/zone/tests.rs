//! What a network's name service says, case by case.

use super::*;
use crate::network::snapshot::{NameRecord, ResolverView};
use crate::ports::HostLoopback;

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn name(name: &str, texts: &[&str]) -> NameRecord {
    NameRecord {
        name: name.into(),
        addresses: addresses(texts),
    }
}

fn network(index: u8, name: &str, internal: bool, names: Vec<NameRecord>) -> NetworkView {
    NetworkView {
        name: name.into(),
        bridge: format!("br-{index:012x}").parse().unwrap(),
        subnets: vec![
            format!("10.89.{index}.0/24").parse().unwrap(),
            format!("fd00:89:{index}::/64").parse().unwrap(),
        ],
        gateways: vec![
            format!("10.89.{index}.1").parse().unwrap(),
            format!("fd00:89:{index}::1").parse().unwrap(),
        ],
        internal,
        dns: Vec::new(),
        names,
    }
}

fn host(sources: &[&str], others: &[&str]) -> HostLoopbackView {
    HostLoopbackView {
        sandbox: "x".into(),
        open: HostLoopback::All,
        sources: addresses(sources),
        others: addresses(others),
    }
}

fn world() -> Zones {
    let mynet = vec![
        name("web", &["10.89.1.2", "fd00:89:1::2"]),
        name("www", &["10.89.1.2", "fd00:89:1::2"]),
        name("db", &["10.89.1.3"]),
        name("pool", &["10.89.1.4", "10.89.1.5", "10.89.1.6"]),
        name("twin", &["10.89.1.5", "fd00:89:1::5"]),
        name("host.docker.internal", &["10.89.1.66"]),
    ];
    let inner = vec![name("safe", &["10.89.2.2"]), name("twin", &["10.89.2.5"])];
    let mut own_dns = network(3, "own", false, vec![name("a", &["10.89.3.2"])]);
    own_dns.dns = vec!["192.0.2.53".parse().unwrap()];
    Zones::new(&Snapshot {
        generation: 1,
        networks: vec![
            network(0, "bridge", false, Vec::new()),
            network(1, "mynet", false, mynet),
            network(2, "inner", true, inner),
            own_dns,
        ],
        resolver: ResolverView {
            nameservers: vec!["127.0.0.53".parse().unwrap()],
            search: vec!["Corp.Example.".into()],
        },
        multihomed: vec![
            addresses(&["10.89.0.7", "10.89.1.7", "fd00:89:1::7"]),
            addresses(&["10.89.2.8", "10.89.1.8", "10.89.3.8"]),
        ],
        publishes: Vec::new(),
        host_loopback: vec![
            host(&["10.89.1.20", "fd00:89:1::20"], &["10.89.2.20"]),
            host(&["10.89.0.20"], &[]),
        ],
        own_resolvers: vec![OwnResolvers {
            clients: addresses(&["10.89.1.30"]),
            servers: addresses(&["192.0.2.99"]),
        }],
        ..Snapshot::default()
    })
}

#[test]
fn a_client_may_have_resolvers_of_its_own() {
    let of = |client: &str| {
        let gateway = "10.89.1.1".parse().unwrap();
        let view = world().find(gateway, client.parse().unwrap()).unwrap();
        view.resolvers.map(|servers| servers.to_vec())
    };
    assert_eq!(of("10.89.1.30"), Some(addresses(&["192.0.2.99"])));
    assert_eq!(of("10.89.1.31"), None);
}

fn ask(network: u8, name: &str, kind: RecordType) -> Verdict {
    ask_as(network, &format!("10.89.{network}.9"), name, kind)
}

fn ask_as(network: u8, client: &str, name: &str, kind: RecordType) -> Verdict {
    let gateway = format!("10.89.{network}.1").parse().unwrap();
    let view = world().find(gateway, client.parse().unwrap()).unwrap();
    view.decide(name, kind)
}

fn a(address: &str) -> RData {
    RData::A(A(address.parse().unwrap()))
}

#[test]
fn a_client_sees_the_network_whose_gateway_it_asked_and_only_from_within() {
    let zones = world();
    let find = |gateway: &str, client: &str| {
        zones
            .find(gateway.parse().unwrap(), client.parse().unwrap())
            .map(|view| view.zone.bridge.clone())
    };
    assert_eq!(
        find("10.89.1.1", "10.89.1.9").unwrap().as_str(),
        "br-000000000001"
    );
    assert_eq!(
        find("fd00:89:2::1", "fd00:89:2::9").unwrap().as_str(),
        "br-000000000002"
    );
    assert_eq!(find("10.89.1.1", "10.89.2.9"), None);
    assert_eq!(find("10.89.1.2", "10.89.1.9"), None);
    assert_eq!(find("127.0.0.1", "127.0.0.1"), None);
}

#[test]
fn names_are_answered_bare_and_with_the_networks_name() {
    assert_eq!(
        ask(1, "web", RecordType::A),
        Verdict::Records(vec![a("10.89.1.2")])
    );
    assert_eq!(
        ask(1, "web.mynet", RecordType::A),
        Verdict::Records(vec![a("10.89.1.2")])
    );
    assert_eq!(
        ask(1, "www", RecordType::AAAA),
        Verdict::Records(vec![RData::AAAA(AAAA("fd00:89:1::2".parse().unwrap()))])
    );
    assert!(matches!(ask(1, "web", RecordType::ANY), Verdict::Records(all) if all.len() == 2));
}

#[test]
fn a_name_without_the_type_is_nodata_not_nxdomain() {
    assert_eq!(ask(1, "db", RecordType::AAAA), Verdict::NoData);
    assert_eq!(ask(1, "web", RecordType::MX), Verdict::NoData);
    assert_eq!(ask(1, "web", RecordType::HTTPS), Verdict::NoData);
}

#[test]
fn several_addresses_take_turns() {
    let gateway = "10.89.1.1".parse().unwrap();
    let view = world().find(gateway, "10.89.1.9".parse().unwrap()).unwrap();
    let first = || match view.decide("pool", RecordType::A) {
        Verdict::Records(records) => {
            assert_eq!(records.len(), 3);
            records[0].clone()
        }
        other => panic!("{other:?}"),
    };
    let mut firsts = Vec::new();
    for _ in 0..4 {
        firsts.push(first());
        // As getaddrinfo(3) does, and somebody else in between: neither disturbs the turns.
        view.decide("pool", RecordType::AAAA);
        view.decide("web", RecordType::A);
    }
    assert_eq!(
        firsts,
        [
            a("10.89.1.4"),
            a("10.89.1.5"),
            a("10.89.1.6"),
            a("10.89.1.4")
        ]
    );
}

#[test]
fn a_multihomed_client_hears_all_its_networks_at_each_gateway() {
    // On the default bridge and `mynet`: whichever it asks, over either family.
    for (network, client) in [(0, "10.89.0.7"), (1, "10.89.1.7")] {
        let ask = |name, kind| ask_as(network, client, name, kind);
        let web = Verdict::Records(vec![a("10.89.1.2")]);
        assert_eq!(ask("web", RecordType::A), web);
        assert_eq!(ask("web.mynet", RecordType::A), web);
        assert_eq!(ask("db", RecordType::AAAA), Verdict::NoData);
        assert!(matches!(
            ask("2.1.89.10.in-addr.arpa", RecordType::PTR),
            Verdict::Records(_)
        ));
        // Names of `mynet` that do not exist stay inside also by way of the default bridge.
        assert_eq!(ask("nosuch", RecordType::A), Verdict::NoSuchName);
        assert_eq!(ask("db.corp.example", RecordType::AAAA), Verdict::NoData);
        // Networks that it is not on are none of its business.
        assert_eq!(ask("safe", RecordType::A), Verdict::NoSuchName);
        let foreign = ask("2.2.89.10.in-addr.arpa", RecordType::PTR);
        assert_eq!(foreign, Verdict::NoSuchName);
    }
    let v6 = world()
        .find(
            "fd00:89:1::1".parse().unwrap(),
            "fd00:89:1::7".parse().unwrap(),
        )
        .unwrap();
    assert!(matches!(
        v6.decide("web", RecordType::AAAA),
        Verdict::Records(_)
    ));
    // Its neighbour on the default bridge has one network only, and it may not ask strange gateways.
    assert_eq!(ask(0, "web.mynet", RecordType::A), Verdict::Forward);
    let elsewhere = world().find("10.89.2.1".parse().unwrap(), "10.89.1.7".parse().unwrap());
    assert!(elsewhere.is_none());
}

#[test]
fn the_network_asked_answers_first_and_the_others_fill_in() {
    // `twin` has IPv4 on 2 and both on 1.
    let ask = |network, kind| {
        let client = format!("10.89.{network}.8");
        ask_as(network, &client, "twin", kind)
    };
    let v6 = Verdict::Records(vec![RData::AAAA(AAAA("fd00:89:1::5".parse().unwrap()))]);
    assert_eq!(
        ask(2, RecordType::A),
        Verdict::Records(vec![a("10.89.2.5")])
    );
    assert_eq!(
        ask(1, RecordType::A),
        Verdict::Records(vec![a("10.89.1.5")])
    );
    assert_eq!(ask(2, RecordType::AAAA), v6);
    // Neither has it first: in the order of its endpoints.
    assert_eq!(
        ask(3, RecordType::A),
        Verdict::Records(vec![a("10.89.2.5")])
    );
    assert_eq!(ask(3, RecordType::MX), Verdict::NoData);
}

#[test]
fn a_multihomed_client_forwards_through_external_gateways_only() {
    let ask = |network, name| {
        let client = format!("10.89.{network}.8");
        ask_as(network, &client, name, RecordType::A)
    };
    assert_eq!(ask(2, "example.com"), Verdict::NoSuchName);
    assert_eq!(ask(1, "example.com"), Verdict::Forward);
    assert_eq!(ask(1, "safe"), Verdict::Records(vec![a("10.89.2.2")]));
    assert_eq!(ask(1, "gone.inner"), Verdict::NoSuchName);
}

#[test]
fn networks_do_not_see_each_others_names() {
    assert_eq!(ask(0, "web", RecordType::A), Verdict::Forward);
    assert_eq!(ask(3, "web", RecordType::A), Verdict::NoSuchName);
    assert_eq!(
        ask(3, "2.1.89.10.in-addr.arpa", RecordType::PTR),
        Verdict::NoSuchName
    );
}

#[test]
fn addresses_lead_back_to_the_first_name() {
    let web = RData::PTR(PTR(Name::from_ascii("web.").unwrap()));
    let v4 = "2.1.89.10.in-addr.arpa";
    assert_eq!(
        ask(1, v4, RecordType::PTR),
        Verdict::Records(vec![web.clone()])
    );
    assert_eq!(ask(1, v4, RecordType::A), Verdict::NoData);
    let v6 = format!("2.{}1.0.0.0.9.8.0.0.0.0.d.f.ip6.arpa", "0.".repeat(19));
    assert_eq!(ask(1, &v6, RecordType::PTR), Verdict::Records(vec![web]));
    assert_eq!(
        ask(1, "99.1.89.10.in-addr.arpa", RecordType::PTR),
        Verdict::NoSuchName
    );
    assert_eq!(
        ask(0, "99.1.89.10.in-addr.arpa", RecordType::PTR),
        Verdict::NoSuchName
    );
    assert_eq!(
        ask(1, "8.8.8.8.in-addr.arpa", RecordType::PTR),
        Verdict::Forward
    );
    assert_eq!(
        ask(1, "89.10.in-addr.arpa", RecordType::SOA),
        Verdict::Forward
    );
}

#[test]
fn internal_networks_never_forward() {
    assert_eq!(
        ask(2, "safe", RecordType::A),
        Verdict::Records(vec![a("10.89.2.2")])
    );
    for kind in [RecordType::A, RecordType::TXT, RecordType::NS] {
        assert_eq!(ask(2, "example.com", kind), Verdict::NoSuchName);
    }
    assert_eq!(
        ask(2, "8.8.8.8.in-addr.arpa", RecordType::PTR),
        Verdict::NoSuchName
    );
}

#[test]
fn single_labels_and_strayed_names_stay_inside() {
    assert_eq!(ask(1, "nosuch", RecordType::A), Verdict::NoSuchName);
    // One that has left, by its long name, and domains of the world below a top-level one that
    // reads like the network.
    assert_eq!(ask(1, "gone.mynet", RecordType::A), Verdict::NoSuchName);
    assert_eq!(ask(1, "www.shop.mynet", RecordType::A), Verdict::Forward);
    assert_eq!(ask(1, "shop.mynet", RecordType::MX), Verdict::Forward);
    assert_eq!(ask(0, "x.bridge", RecordType::A), Verdict::Forward);
    assert_eq!(ask(1, "com", RecordType::NS), Verdict::Forward);
    assert_eq!(ask(1, "", RecordType::NS), Verdict::Forward);
    assert_eq!(ask(1, "db.corp.example", RecordType::AAAA), Verdict::NoData);
    assert_eq!(ask(1, "db.corp.example", RecordType::A), Verdict::Forward);
    assert_eq!(
        ask(1, "other.corp.example", RecordType::AAAA),
        Verdict::Forward
    );
    // No name service on the default network: as on the host itself.
    assert_eq!(ask(0, "nosuch", RecordType::A), Verdict::Forward);
}

#[test]
fn special_names_are_answered_here() {
    assert_eq!(
        ask(0, "localhost", RecordType::A),
        Verdict::Records(vec![a("127.0.0.1")])
    );
    assert!(matches!(
        ask(0, "x.localhost", RecordType::AAAA),
        Verdict::Records(_)
    ));
    for name in [
        "host.docker.internal",
        "x.mossnet.internal",
        "mossnet.internal",
        "a.invalid",
    ] {
        assert_eq!(ask(0, name, RecordType::A), Verdict::NoSuchName, "{name}");
    }
    assert_eq!(ask(0, "notinvalid", RecordType::A), Verdict::Forward);
}

#[test]
fn a_networks_own_resolvers_replace_the_hosts() {
    let zones = world();
    let upstreams = |n: u8| {
        let gateway = format!("10.89.{n}.1").parse().unwrap();
        let client = format!("10.89.{n}.9").parse().unwrap();
        zones.find(gateway, client).unwrap().zone.upstreams.to_vec()
    };
    assert_eq!(upstreams(3), ["192.0.2.53".parse::<IpAddr>().unwrap()]);
    assert_eq!(upstreams(1), ["127.0.0.53".parse::<IpAddr>().unwrap()]);
}

#[test]
fn the_host_has_names_for_whoever_may_reach_it() {
    let v4 = Verdict::Records(vec![a("169.254.77.77")]);
    let v6 = "fd8d:5ead:b037::77".parse().unwrap();
    let v6 = Verdict::Records(vec![RData::AAAA(AAAA(v6))]);
    let ask = |network: u8, client: &str, name: &str, kind| ask_as(network, client, name, kind);
    for name in HOST_ALIASES {
        // An endpoint that calls itself so is not taken for it.
        assert_eq!(ask(1, "10.89.1.20", name, RecordType::A), v4);
        assert_eq!(ask(1, "10.89.1.20", name, RecordType::AAAA), v6);
        assert_eq!(ask(1, "10.89.1.20", name, RecordType::MX), Verdict::NoData);
        assert_eq!(
            ask(1, "10.89.1.20", name, RecordType::HTTPS),
            Verdict::NoData
        );
        // From an address of its that does not lead there, at the gateway of an internal network.
        assert_eq!(ask(2, "10.89.2.20", name, RecordType::A), v4);
        // Without IPv6, on the network without names.
        assert_eq!(ask(0, "10.89.0.20", name, RecordType::A), v4);
        assert_eq!(
            ask(0, "10.89.0.20", name, RecordType::AAAA),
            Verdict::NoData
        );
        for kind in [RecordType::A, RecordType::AAAA, RecordType::MX] {
            let strangers = [
                ask(0, "10.89.0.21", name, kind),
                ask(3, "10.89.3.9", name, kind),
            ];
            assert_eq!(
                strangers,
                [Verdict::NoSuchName, Verdict::NoSuchName],
                "{name}"
            );
            let searched = format!("{name}.some.domain");
            assert_eq!(ask(1, "10.89.1.20", &searched, kind), Verdict::NoSuchName);
        }
    }
    let outside = ask(0, "10.89.0.20", "host.docker.internals", RecordType::A);
    assert_eq!(outside, Verdict::Forward);
}

#[test]
fn the_hosts_addresses_lead_back_to_its_name() {
    let v4 = "77.77.254.169.in-addr.arpa";
    let v6 = "7.7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.3.0.b.d.a.e.5.d.8.d.f.ip6.arpa";
    let name = Name::from_ascii("host.mossnet.internal.").unwrap();
    let known = Verdict::Records(vec![RData::PTR(PTR(name))]);
    for reverse in [v4, v6] {
        assert_eq!(ask_as(1, "10.89.1.20", reverse, RecordType::PTR), known);
        assert_eq!(
            ask_as(1, "10.89.1.20", reverse, RecordType::A),
            Verdict::NoData
        );
        let stranger = ask_as(1, "10.89.1.21", reverse, RecordType::PTR);
        assert_eq!(stranger, Verdict::NoSuchName);
    }
    // Of IPv6 it has nothing.
    let stranger = ask_as(0, "10.89.0.20", v6, RecordType::PTR);
    assert_eq!(stranger, Verdict::NoSuchName);
}
