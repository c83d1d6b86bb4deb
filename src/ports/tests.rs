use super::*;
use proptest::prelude::*;
use std::net::IpAddr;

fn spec(text: &str) -> PublishSpec {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn range(text: &str) -> PortRange {
    text.parse().unwrap()
}

fn only(address: &str) -> HostAddr {
    HostAddr::Only(address.parse().unwrap())
}

fn means(text: &str, addr: HostAddr, host: HostPorts, container: &str, proto: Proto) {
    let got = spec(text);
    let sides = (got.host_addr(), got.host_ports(), got.proto());
    assert_eq!(sides, (addr, host, proto), "{text}");
    assert_eq!(got.container_ports(), range(container), "{text}");
}

#[test]
fn dockers_forms_mean_what_they_mean_there() {
    use HostPorts::{Each, Free, OneOf};
    let any = HostAddr::Any;
    means("80", any, Free, "80", Proto::Tcp);
    means("8080:80", any, Each(range("8080")), "80", Proto::Tcp);
    means(":80", any, Free, "80", Proto::Tcp);
    means("0:80", any, Free, "80", Proto::Tcp);
    means("53:53/udp", any, Each(range("53")), "53", Proto::Udp);
    means("53:53/UDP", any, Each(range("53")), "53", Proto::Udp);
    means("80-82", any, Free, "80-82", Proto::Tcp);
    let ten = range("8000-8010");
    means("8000-8010:80-90", any, Each(ten), "80-90", Proto::Tcp);
    means("8000-8010:80", any, OneOf(ten), "80", Proto::Tcp);
}

#[test]
fn addresses_may_be_of_either_family() {
    use HostPorts::{Each, Free};
    let (v4, v6) = (only("127.0.0.1"), only("::1"));
    means(
        "127.0.0.1:8080:80",
        v4,
        Each(range("8080")),
        "80",
        Proto::Tcp,
    );
    means("127.0.0.1::80", v4, Free, "80", Proto::Tcp);
    means("[::1]:8080:80", v6, Each(range("8080")), "80", Proto::Tcp);
    means("[::]::80/udp", only("::"), Free, "80", Proto::Udp);
    let mapped = "[::ffff:192.0.2.1]:1:1";
    means(mapped, only("192.0.2.1"), Each(range("1")), "1", Proto::Tcp);
    let last = range("65535");
    means(
        "0.0.0.0:65535:65535",
        only("0.0.0.0"),
        Each(last),
        "65535",
        Proto::Tcp,
    );
}

#[test]
fn nonsense_is_named() {
    for (text, error) in [
        ("", PortError::NoContainerPort(String::new())),
        ("8080:", PortError::NoContainerPort("8080:".into())),
        ("/tcp", PortError::NoContainerPort("/tcp".into())),
        ("[::1]", PortError::NoContainerPort("[::1]".into())),
        ("http", PortError::Port("http".into())),
        ("+80", PortError::Port("+80".into())),
        ("80:0", PortError::Port("0".into())),
        ("65536:80", PortError::Port("65536".into())),
        ("80-:80", PortError::Port(String::new())),
        ("90-80:80-90", PortError::Backwards(90, 80)),
        ("80/sctp", PortError::Proto("sctp".into())),
        ("80/", PortError::Proto(String::new())),
        ("localhost:80:80", PortError::Address("localhost".into())),
        ("*:80:80", PortError::Address("*".into())),
        (":80:80", PortError::Address(String::new())),
        (
            "[127.0.0.1]:80:80",
            PortError::Address("[127.0.0.1]".into()),
        ),
        (
            "[fe80::1%eth0]:80:80",
            PortError::Address("[fe80::1%eth0]".into()),
        ),
        ("::1:80:80", PortError::Brackets("::1:80:80".into())),
        (
            "8000-8001:80-82",
            PortError::Lengths {
                host: range("8000-8001"),
                container: range("80-82"),
            },
        ),
    ] {
        assert_eq!(text.parse::<PublishSpec>(), Err(error.clone()), "{text}");
        assert!(!error.hint().is_empty() && !error.to_string().contains('\n'));
    }
}

#[test]
fn ranges_lead_pairwise_and_stay_within_ports() {
    let publish = spec("8000-8002:80-82").fixed(SourceAddress::Keep).unwrap();
    let port = |n| Port::new(n).unwrap();
    assert_eq!(publish.leads_to(port(8000)), Some(port(80)));
    assert_eq!(publish.leads_to(port(8002)), Some(port(82)));
    assert_eq!(publish.leads_to(port(8003)), None);
    assert_eq!(publish.leads_to(port(7999)), None);
    assert_eq!(publish.to_string(), "*:8000-8002->80-82/tcp");
    assert_eq!(spec("8000-8002:80").fixed(SourceAddress::Keep), None);
    let beyond = Publish::new(
        HostAddr::Any,
        range("1-10"),
        port(65_530),
        Proto::Tcp,
        SourceAddress::Keep,
    );
    assert_eq!(beyond, Err(PortError::Beyond(65_530, 10)));
    let json = r#"{"host_addr":"*","host_ports":"1-10","container_port":65530,"proto":"tcp"}"#;
    assert!(serde_json::from_str::<Publish>(json).is_err());
    let all = spec("1-65535:1-65535")
        .fixed(SourceAddress::Gateway)
        .unwrap();
    assert_eq!(all.host_ports().count(), 65_535);
    let json = serde_json::to_string(&all).unwrap();
    assert_eq!(serde_json::from_str::<Publish>(&json).unwrap(), all);
}

#[test]
fn addresses_collide_as_sockets_do() {
    for (a, b, collide) in [
        ("*", "127.0.0.1", true),
        ("*", "*", true),
        ("0.0.0.0", "127.0.0.1", true),
        ("0.0.0.0", "::", false),
        ("::", "::1", true),
        ("::", "127.0.0.1", false),
        ("127.0.0.1", "127.0.0.2", false),
        ("127.0.0.1", "127.0.0.1", true),
    ] {
        let (a, b): (HostAddr, HostAddr) = (a.parse().unwrap(), b.parse().unwrap());
        assert_eq!(
            (a.overlaps(b), b.overlaps(a)),
            (collide, collide),
            "{a} {b}"
        );
    }
}

fn address() -> impl Strategy<Value = HostAddr> {
    let addresses = [
        "0.0.0.0",
        "127.0.0.1",
        "192.0.2.1",
        "::",
        "::1",
        "2001:db8::1",
    ];
    prop_oneof![
        Just(HostAddr::Any),
        prop::sample::select(addresses.to_vec()).prop_map(only),
        any::<IpAddr>().prop_map(HostAddr::only),
    ]
}

prop_compose! {
    fn some_range()(first in 1u16.., length in 0u16..40) -> PortRange {
        let last = first.saturating_add(length);
        PortRange::new(Port::new(first).unwrap(), Port::new(last).unwrap()).unwrap()
    }
}

prop_compose! {
    fn claim()(
        host_addr in address(),
        udp in any::<bool>(),
        first in 1u16..60,
        length in 0u16..10,
    ) -> Claim {
        let port = |n| Port::new(n).unwrap();
        Claim {
            proto: if udp { Proto::Udp } else { Proto::Tcp },
            host_addr,
            host_ports: PortRange::new(port(first), port(first + length)).unwrap(),
        }
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(text in ".{0,40}") {
        let _ = text.parse::<PublishSpec>();
        let _ = PublishSpec::expose(&text);
    }

    #[test]
    fn what_is_written_is_read(address in address(), range in some_range(), udp in any::<bool>()) {
        let proto = if udp { Proto::Udp } else { Proto::Tcp };
        let text = match address {
            HostAddr::Any => format!("{range}:{range}/{proto}"),
            HostAddr::Only(_) => format!("{address}:{range}:{range}/{proto}"),
        };
        let spec = spec(&text);
        prop_assert_eq!(spec.host_addr(), address);
        prop_assert_eq!(spec.proto(), proto);
        let publish = spec.fixed(SourceAddress::Keep).unwrap();
        for (offset, (container, host)) in spec.expand().enumerate() {
            let host = host.unwrap();
            prop_assert_eq!(host.count(), 1);
            prop_assert_eq!(range.nth(offset as u16), Some(container));
            prop_assert_eq!(publish.leads_to(host.first()), Some(container));
        }
        prop_assert_eq!(spec.expand().count(), range.count());
        let json = serde_json::to_string(&publish).unwrap();
        prop_assert_eq!(serde_json::from_str::<Publish>(&json).unwrap(), publish);
    }

    #[test]
    fn claims_conflict_where_their_single_ports_do(a in claim(), b in claim()) {
        let singly = a.proto == b.proto
            && a.host_addr.overlaps(b.host_addr)
            && a.host_ports.iter().any(|port| b.host_ports.offset(port).is_some());
        prop_assert_eq!(a.conflicts(&b), singly);
        prop_assert_eq!(b.conflicts(&a), singly);
        prop_assert_eq!(conflict(&a, &[b], |claim| *claim).is_some(), singly);
    }
}
