//! The echo relay: ids, fragments and errors, without a socket.

use super::*;
use crate::relay::wire::ip::Protocol;

fn flow(destination: &str, client: &str) -> EchoFlow {
    let key = EchoKey {
        client: client.parse().unwrap(),
        destination: destination.parse().unwrap(),
        id: 77,
    };
    let host = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
    EchoFlow {
        key,
        host,
        mtu: MIN_MTU,
        indivisible: false,
        sequence: 5,
    }
}

fn received(data: &[u8]) -> Received<'_> {
    Received {
        data,
        source: None,
        original_destination: None,
        local: None,
        ttl: Some(55),
        tos: 8,
        mark: None,
        in_fragments: false,
        segment: None,
        truncated: false,
    }
}

fn flows() -> [EchoFlow; 2] {
    [
        flow("192.0.2.1", "10.89.0.2"),
        flow("2001:db8::1", "fd00::2"),
    ]
}

#[test]
fn replies_get_the_containers_id_back() {
    for flow in flows() {
        let way = Addresses::new(flow.key.destination, flow.key.client).unwrap();
        let echo = Echo {
            id: 4242,
            sequence: 9,
            data: b"payload",
        };
        let message = echo.emit_reply(way);
        let packets = reply(&flow, &received(&message), 1);
        assert_eq!(packets.len(), 1);
        let packet = Packet::parse(&packets[0]).unwrap();
        assert_eq!(
            (packet.addresses(), packet.ttl(), packet.tos()),
            (way, 55, 8)
        );
        let message = Message::of(&packet).unwrap();
        assert_eq!(message.echo_reply(), Some(Echo { id: 77, ..echo }));
        assert!(message.verify_checksum(way));
        assert!(reply(&flow, &received(&echo.emit_request(way)), 1).is_empty());
    }
}

#[test]
fn long_ipv6_replies_are_fragmented_as_the_requests_were() {
    let [_, mut flow] = flows();
    flow.mtu = 1500;
    let way = Addresses::new(flow.key.destination, flow.key.client).unwrap();
    let data = vec![3; 4000];
    let message = Echo {
        id: 1,
        sequence: 1,
        data: &data,
    }
    .emit_reply(way);
    let packets = reply(&flow, &received(&message), 1);
    assert!(packets.len() == 3 && packets.iter().all(|packet| packet.len() <= 1500));
}

#[test]
fn errors_are_about_the_containers_own_request() {
    for flow in flows() {
        let way = Addresses::new(flow.key.client, flow.key.destination).unwrap();
        let sent = Echo {
            id: 4242,
            sequence: 9,
            data: b"xy",
        };
        let message = sent.emit_request(way);
        for (quoted, expected) in [
            (&message[..], Echo { id: 77, ..sent }),
            (
                &message[..8],
                Echo {
                    id: 77,
                    sequence: 9,
                    data: &[],
                },
            ),
            (
                &[][..],
                Echo {
                    id: 77,
                    sequence: 5,
                    data: &[],
                },
            ),
        ] {
            let bytes = rebuild(&flow, quoted).unwrap();
            let packet = Packet::parse(&bytes).unwrap();
            assert_eq!(packet.addresses(), way);
            assert_eq!(Message::of(&packet).unwrap().echo_request(), Some(expected));
            assert!(matches!(
                packet.protocol(),
                Protocol::Icmp | Protocol::Icmpv6
            ));
        }
    }
}
