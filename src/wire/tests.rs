//! Properties of the views and builders: arbitrary bytes never panic, what is emitted parses to
//! what was meant, checksums agree with a naive sum.

use super::checksum::Checksum;
use super::icmp::{Echo, Message, Notice};
use super::ip::{Addresses, Header, Packet, Protocol};
use super::tcp::{Control, Flags, Segment, SynOptions};
use super::udp::{Datagram, Ports};
use super::{WireError, ethernet, ipv6, reset};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn addresses() -> impl Strategy<Value = Addresses> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(source, destination)| Addresses::V4 {
        source: source.into(),
        destination: destination.into(),
    });
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(source, destination)| Addresses::V6 {
        source: source.into(),
        destination: destination.into(),
    });
    prop_oneof![v4, v6]
}

/// Unicast, so that errors may be sent about them.
fn hosts() -> impl Strategy<Value = Addresses> {
    prop_oneof![
        Just(Addresses::V4 {
            source: Ipv4Addr::new(10, 89, 0, 2),
            destination: Ipv4Addr::new(192, 0, 2, 1),
        }),
        Just(Addresses::V6 {
            source: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
            destination: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        }),
    ]
}

fn naive_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Calls everything that can be called on arbitrary bytes.
fn exercise(bytes: &[u8]) {
    if let Ok(frame) = ethernet::Frame::parse(bytes) {
        let _ = (frame.source(), frame.destination(), frame.ethertype());
    }
    let Ok(packet) = Packet::parse(bytes) else {
        return;
    };
    let _ = (
        packet.addresses(),
        packet.ttl(),
        packet.tos(),
        packet.protocol(),
    );
    let _ = (packet.is_fragment(), packet.has_transport_header());
    assert!(packet.bytes().len() <= bytes.len());
    assert!(packet.payload().len() <= packet.bytes().len());
    if let Packet::V4(packet) = packet {
        let _ = (
            packet.options(),
            packet.identification(),
            packet.verify_checksum(),
        );
    }
    if let Ok(segment) = Segment::of(&packet) {
        let _ = (
            segment.sequence_length(),
            segment.options(),
            segment.window(),
        );
        let _ = (segment.timestamps(), segment.is_intact(&packet));
        let _ = SynOptions::parse(segment.options());
        if let Ok(Some(answer)) = reset::reset(&packet) {
            assert_eq!(
                Packet::parse(&answer).unwrap().destination(),
                packet.source()
            );
        }
    }
    if let Ok(datagram) = Datagram::of(&packet) {
        let _ = (
            datagram.payload(),
            datagram.verify_checksum(packet.addresses()),
        );
    }
    if let Ok(message) = Message::of(&packet) {
        let _ = (
            message.echo_request(),
            message.echo_reply(),
            message.rest(),
            message.code(),
        );
        let _ = message.verify_checksum(packet.addresses());
    }
    if let Some(error) = Notice::HostUnreachable.about(&packet, packet.destination()) {
        let error = Packet::parse(&error).unwrap();
        assert!(Notice::TimeExceeded.about(&error, error.source()).is_none());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        exercise(&bytes);
    }

    #[test]
    fn damaged_packets_never_panic(
        addresses in addresses(),
        protocol in prop_oneof![Just(0u8), Just(1), Just(6), Just(17), Just(43), Just(44),
            Just(51), Just(58), Just(60), any::<u8>()],
        payload in prop::collection::vec(any::<u8>(), 0..120),
        at in 0usize..160,
        value in any::<u8>(),
        cut in 0usize..200,
    ) {
        let mut bytes = Header::new(addresses, protocol.into()).emit(&payload).unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        exercise(&bytes[..cut.min(bytes.len())]);
        exercise(&bytes);
    }

    #[test]
    fn checksums_agree_with_a_naive_sum(
        parts in prop::collection::vec(prop::collection::vec(any::<u16>(), 0..9), 0..5),
        tail in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let mut sum = Checksum::new();
        let mut whole = Vec::new();
        for part in &parts {
            let part: Vec<u8> = part.iter().flat_map(|word| word.to_be_bytes()).collect();
            sum = sum.bytes(&part);
            whole.extend(part);
        }
        whole.extend(&tail);
        prop_assert_eq!(sum.bytes(&tail).finish(), naive_sum(&whole));
    }

    #[test]
    fn udp_round_trips(
        addresses in addresses(),
        ports in any::<(u16, u16)>(),
        ttl in any::<u8>(),
        tos in any::<u8>(),
        id in any::<Option<u16>>(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let ports = Ports { source: ports.0, destination: ports.1 };
        let header = Header { addresses, protocol: Protocol::Udp, ttl, tos, identification: id };
        let mut bytes = header.emit(&ports.emit(addresses, &payload).unwrap()).unwrap();
        bytes.extend([0; 7]); // ethernet padding
        let packet = Packet::parse(&bytes).unwrap();
        prop_assert_eq!(packet.addresses(), addresses);
        prop_assert_eq!((packet.ttl(), packet.tos()), (ttl, tos));
        prop_assert!(!packet.is_fragment());
        if let Packet::V4(packet) = packet {
            prop_assert!(packet.verify_checksum());
            prop_assert_eq!(packet.dont_fragment(), id.is_none());
        }
        let datagram = Datagram::of(&packet).unwrap();
        prop_assert_eq!(datagram.source_port(), ports.source);
        prop_assert_eq!(datagram.destination_port(), ports.destination);
        prop_assert_eq!(datagram.payload(), &payload[..]);
        prop_assert!(datagram.verify_checksum(addresses));
    }

    #[test]
    fn echo_round_trips(
        addresses in addresses(),
        id in any::<u16>(),
        sequence in any::<u16>(),
        data in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let echo = Echo { id, sequence, data: &data };
        let protocol = match addresses {
            Addresses::V4 { .. } => Protocol::Icmp,
            Addresses::V6 { .. } => Protocol::Icmpv6,
        };
        for (reply, message) in
            [(false, echo.emit_request(addresses)), (true, echo.emit_reply(addresses))]
        {
            let bytes = Header::new(addresses, protocol).emit(&message).unwrap();
            let packet = Packet::parse(&bytes).unwrap();
            let message = Message::of(&packet).unwrap();
            prop_assert!(message.verify_checksum(addresses));
            prop_assert!(!message.is_error());
            prop_assert_eq!(message.echo_reply().is_some(), reply);
            prop_assert_eq!(message.echo_reply().or(message.echo_request()), Some(echo));
        }
    }

    #[test]
    fn errors_quote_what_they_are_about(
        addresses in hosts(),
        length in 0usize..3000,
        mtu in 68u32..65536,
    ) {
        let ports = Ports { source: 1, destination: 2 };
        let payload = vec![7; length];
        let header = Header::new(addresses, Protocol::Udp);
        let bytes = header.emit(&ports.emit(addresses, &payload).unwrap()).unwrap();
        let offending = Packet::parse(&bytes).unwrap();
        let error = Notice::TooBig { mtu }.about(&offending, addresses.destination()).unwrap();
        let error = Packet::parse(&error).unwrap();
        prop_assert_eq!(error.addresses(), addresses.reversed());
        let message = Message::of(&error).unwrap();
        prop_assert!(message.is_error() && message.verify_checksum(error.addresses()));
        prop_assert_eq!(message.rest(), mtu);
        prop_assert!(bytes.starts_with(message.payload()));
        let most = if error.source().is_ipv4() { 576 } else { 1280 };
        prop_assert_eq!(error.bytes().len(), most.min(error.bytes().len()));
        prop_assert!(message.payload().len() == bytes.len() || error.bytes().len() == most);
    }

    #[test]
    fn resets_follow_rfc_9293(
        addresses in addresses(),
        sequence in any::<u32>(),
        acknowledgement in any::<u32>(),
        flags in any::<u8>(),
        data in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let flags = Flags(flags);
        let control = Control {
            source_port: 4000, destination_port: 80, sequence, acknowledgement, flags, window: 9,
        };
        let mut segment = control.emit(addresses).to_vec();
        segment.extend(&data);
        let bytes = Header::new(addresses, Protocol::Tcp).emit(&segment).unwrap();
        let answer = reset::reset(&Packet::parse(&bytes).unwrap()).unwrap();
        prop_assert_eq!(answer.is_none(), flags.contains(Flags::RST));
        let Some(answer) = answer else { return Ok(()) };
        let answer = Packet::parse(&answer).unwrap();
        prop_assert_eq!(answer.addresses(), addresses.reversed());
        let sum = Checksum::pseudo(answer.addresses(), Protocol::Tcp, 20);
        prop_assert_eq!(sum.bytes(answer.payload()).finish(), 0);
        let answer = Segment::of(&answer).unwrap();
        prop_assert_eq!((answer.source_port(), answer.destination_port()), (80, 4000));
        if flags.contains(Flags::ACK) {
            prop_assert_eq!(answer.flags(), Flags::RST);
            prop_assert_eq!(answer.sequence(), acknowledgement);
        } else {
            let length = data.len() as u32
                + u32::from(flags.contains(Flags::SYN)) + u32::from(flags.contains(Flags::FIN));
            prop_assert_eq!(answer.flags(), Flags::RST.with(Flags::ACK));
            prop_assert_eq!(answer.sequence(), 0);
            prop_assert_eq!(answer.acknowledgement(), sequence.wrapping_add(length));
        }
    }
}

const V6: Addresses = Addresses::V6 {
    source: Ipv6Addr::LOCALHOST,
    destination: Ipv6Addr::LOCALHOST,
};

#[test]
fn extension_headers_are_walked() {
    // Hop-by-hop (8 bytes), destination options (16 bytes), atomic fragment, UDP.
    let mut payload = vec![60, 0, 1, 4, 0, 0, 0, 0];
    payload.extend([44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    payload.extend([17, 0, 0, 0, 0, 0, 0, 9]);
    payload.extend(
        Ports {
            source: 5,
            destination: 6,
        }
        .emit(V6, b"hello")
        .unwrap(),
    );
    let bytes = Header::new(V6, 0.into()).emit(&payload).unwrap();
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.protocol(), Protocol::Udp);
    assert!(!packet.is_fragment());
    assert_eq!(Datagram::of(&packet).unwrap().payload(), b"hello");
}

#[test]
fn later_fragments_are_not_taken_for_headers() {
    let mut payload = vec![17, 0, 0x05, 0xa9, 0, 0, 0, 9];
    payload.extend([0xff; 40]);
    let bytes = Header::new(V6, 44.into()).emit(&payload).unwrap();
    let packet = Packet::parse(&bytes).unwrap();
    assert!(packet.is_fragment() && !packet.has_transport_header());
    assert_eq!(Datagram::of(&packet).unwrap_err(), WireError::Fragment);
    let Packet::V6(packet) = packet else {
        panic!("not IPv6")
    };
    assert_eq!(
        packet.fragment(),
        Some(ipv6::Fragment {
            offset: 0x5a8,
            more: true,
            identification: 9,
            next_header: 17
        })
    );
}

#[test]
fn endless_extension_headers_are_refused() {
    let payload = [0u8; 8].repeat(20);
    let bytes = Header::new(V6, 0.into()).emit(&payload).unwrap();
    assert_eq!(
        Packet::parse(&bytes).unwrap_err(),
        WireError::ExtensionHeaders
    );
}

#[test]
fn no_error_about_multicast_or_a_foreign_family() {
    let addresses = Addresses::V4 {
        source: Ipv4Addr::new(10, 0, 0, 1),
        destination: Ipv4Addr::new(224, 0, 0, 251),
    };
    let bytes = Header::new(addresses, Protocol::Udp).emit(&[0; 8]).unwrap();
    let packet = Packet::parse(&bytes).unwrap();
    let reporter = IpAddr::from([192, 0, 2, 1]);
    assert!(Notice::NoRoute.about(&packet, reporter).is_none());
    let bytes = Header::new(addresses.reversed(), Protocol::Udp)
        .emit(&[0; 8])
        .unwrap();
    let packet = Packet::parse(&bytes).unwrap();
    assert!(
        Notice::NoRoute
            .about(&packet, Ipv6Addr::LOCALHOST.into())
            .is_none()
    );
}

#[test]
fn ethernet_headers_round_trip_and_swap() {
    let header = ethernet::Header {
        destination: [2, 0, 0, 0, 0, 1],
        source: [2, 0, 0, 0, 0, 2],
        ethertype: ethernet::EtherType::Ipv6,
    };
    let mut bytes = header.emit().to_vec();
    bytes.push(9);
    let frame = ethernet::Frame::parse(&bytes).unwrap();
    assert_eq!(frame.payload(), [9]);
    let answer = ethernet::Header::answering(&frame);
    assert_eq!(
        (answer.destination, answer.source),
        (header.source, header.destination)
    );
    assert_eq!(
        ethernet::EtherType::from(0x88cc),
        ethernet::EtherType::Other(0x88cc)
    );
}

#[test]
fn a_known_syn_gets_a_known_reset() {
    let addresses = Addresses::new([10, 0, 0, 2].into(), [192, 0, 2, 9].into()).unwrap();
    let syn = Control {
        source_port: 40000,
        destination_port: 443,
        sequence: u32::MAX,
        acknowledgement: 0,
        flags: Flags::SYN,
        window: 64240,
    };
    let bytes = Header::new(addresses, Protocol::Tcp)
        .emit(&syn.emit(addresses))
        .unwrap();
    let packet = Packet::parse(&bytes).unwrap();
    assert!(Segment::of(&packet).unwrap().is_first_syn());
    let answer = reset::reset(&packet).unwrap().unwrap();
    let answer = Segment::of(&Packet::parse(&answer).unwrap())
        .unwrap()
        .acknowledgement();
    assert_eq!(answer, 0);
}
