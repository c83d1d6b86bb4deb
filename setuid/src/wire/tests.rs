use super::*;
use crate::request::{Grants, PortRange, Reply, Unavailable, UplinkMade, Used, Verb};

fn name(text: &str) -> IfName {
    text.parse().expect("a name")
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts
        .iter()
        .map(|text| text.parse().expect("a prefix"))
        .collect()
}

fn made() -> Made {
    Made {
        index: 7,
        name: name("mnu000001"),
    }
}

fn requests() -> Vec<Request> {
    let socket = |text: &str| text.parse().expect("an address");
    vec![
        Request::Query,
        Request::Gc,
        Request::Release(made()),
        Request::Veth(Veth {
            first: name("a"),
            second: name("0123456789abcde"),
            mtu: 1500,
        }),
        Request::Bridge(Bridge {
            bridge: name("br0"),
            inside: name("eth0"),
            addresses: nets(&["192.168.7.9/32", "fd00::9/128"]),
        }),
        Request::Uplink(Uplink {
            inside: name("host0"),
            mtu: 65535,
            subnets: nets(&["10.89.0.0/24", "fd00:89::/64"]),
        }),
        Request::Publish(Publish {
            uplink: made(),
            targets: vec![socket("10.89.0.2:80"), socket("[fd00:89::2]:53")],
        }),
        Request::Bind(Bind {
            protocol: Protocol::Udp,
            address: socket("[::]:53"),
        }),
    ]
}

fn replies() -> Vec<Reply> {
    let mac = |last| MacAddr::try_from([2, 0, 0, 0, 0, last]).expect("a MAC address");
    let port = |port| std::num::NonZeroU16::new(port).expect("a port");
    vec![
        Reply::Denied,
        Reply::Unavailable(Unavailable::Busy),
        Reply::Done,
        Reply::Bound,
        Reply::Veth {
            first: made(),
            second: 9,
        },
        Reply::Bridge {
            host: made(),
            mac: mac(1),
            mtu: 9000,
        },
        Reply::Uplink(UplinkMade {
            host: made(),
            host_mac: mac(2),
            router_mac: mac(3),
        }),
        Reply::Grants(Grants {
            verbs: vec![Verb::Veth, Verb::Bridge, Verb::Uplink, Verb::Bind],
            bridges: vec![name("br0")],
            subnets: nets(&["10.89.0.0/16"]),
            ports: vec![PortRange {
                protocol: Protocol::Tcp,
                first: port(80),
                last: port(90),
            }],
            interfaces: Used { most: 4, now: 1 },
            bound: Used { most: 2, now: 0 },
            published: Used { most: 100, now: 50 },
            requests_per_minute: 60,
            forwards4: true,
            forwards6: false,
        }),
    ]
}

#[test]
fn requests_and_replies_come_back_as_they_were_sent() {
    for request in requests() {
        let datagram = request.encode();
        assert!(datagram.len() <= MAX_DATAGRAM);
        assert_eq!(Request::decode(&datagram), Ok(request));
    }
    for reply in replies() {
        assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }
}

#[test]
fn every_cut_and_every_surplus_is_refused() {
    for datagram in requests().iter().map(Request::encode) {
        for cut in 0..datagram.len() {
            assert!(
                Request::decode(&datagram[..cut]).is_err(),
                "{cut} of {datagram:?}"
            );
        }
        let longer = [&datagram[..], &[0]].concat();
        assert_eq!(Request::decode(&longer), Err(Malformed::Trailing));
    }
    for datagram in replies().iter().map(Reply::encode) {
        for cut in 0..datagram.len() {
            assert!(
                Reply::decode(&datagram[..cut]).is_err(),
                "{cut} of {datagram:?}"
            );
        }
    }
}

#[test]
fn what_means_nothing_is_refused() {
    let unknown = |what, value| Err(Malformed::Unknown { what, value });
    assert_eq!(Request::decode(&[2, 0]), Err(Malformed::Version(2)));
    assert_eq!(Request::decode(&[1, 99]), unknown("verb", 99));
    assert_eq!(Reply::decode(&[1, 99]).err(), unknown("answer", 99).err());
    assert_eq!(Request::decode(&[1, 5, 1]), unknown("protocol", 1));
    assert_eq!(Request::decode(&[1, 5, 6, 5]), unknown("address family", 5));
    let bad: [(&[u8], &str); 8] = [
        (&[1, 1, 1, b'/', 1, b'a', 5, 220], "name"),
        (&[1, 1, 1, b'a', 2, 0xc3, 0x28, 5, 220], "name"),
        (&[1, 1, 1, b'a', 1, b'b', 0, 68], "MTU"),
        (&[1, 6, 0, 0, 0, 0, 1, b'a'], "interface index"),
        (&[1, 5, 6, 4, 0, 0, 0, 0, 0, 0], "port"),
        (&[1, 3, 1, b'a', 5, 220, 0], "subnets"),
        (&[1, 3, 1, b'a', 5, 220, 65], "list: it is too long"),
        (
            &[1, 3, 1, b'a', 5, 220, 1, 4, 10, 0, 0, 1, 33],
            "prefix length",
        ),
    ];
    for (datagram, what) in bad {
        assert_eq!(
            Request::decode(datagram),
            Err(Malformed::Bad(what)),
            "{datagram:?}"
        );
    }
    let host_bits = [1, 3, 1, b'a', 5, 220, 1, 4, 10, 0, 0, 1, 8];
    assert!(matches!(
        Request::decode(&host_bits),
        Err(Malformed::Bad(_))
    ));
    let wide = [1, 2, 1, b'a', 1, b'b', 1, 4, 10, 0, 0, 0, 8];
    assert!(matches!(Request::decode(&wide), Err(Malformed::Bad(_))));
}
