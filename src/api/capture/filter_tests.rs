//! The kernel itself runs the programs: over datagrams between two unix sockets, which are frames here.

use super::*;
use crate::wire::ethernet::{EtherType, Header};
use crate::wire::{Addresses, ip, udp};
use socket2::SockRef;
use std::os::unix::net::UnixDatagram;

const SNAPLEN: u32 = 200;

/// How many bytes of `frame` pass.
fn passes(filter: &Filter, frame: &[u8]) -> usize {
    let (near, far) = UnixDatagram::pair().unwrap();
    let program = filter.program(SNAPLEN);
    SockRef::from(&far).attach_filter(&program).unwrap();
    far.set_nonblocking(true).unwrap();
    near.send(frame).unwrap();
    let mut buffer = [0; 1024];
    match far.recv(&mut buffer) {
        Ok(length) => length,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            0
        }
    }
}

fn ethernet(ethertype: EtherType, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        destination: [2, 0, 0, 0, 0, 1],
        source: [2, 0, 0, 0, 0, 2],
        ethertype,
    };
    [header.emit().as_slice(), payload].concat()
}

fn packet(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let addresses = Addresses::new(from.parse().unwrap(), to.parse().unwrap()).unwrap();
    let packet = ip::Header::new(addresses, protocol.into()).emit(payload);
    let ethertype = match addresses {
        Addresses::V4 { .. } => EtherType::Ipv4,
        Addresses::V6 { .. } => EtherType::Ipv6,
    };
    ethernet(ethertype, &packet.unwrap())
}

fn with_ports(from: &str, to: &str, protocol: u8, ports: [u16; 2]) -> Vec<u8> {
    let [source, destination] = ports;
    let ports = udp::Ports {
        source,
        destination,
    };
    let addresses = Addresses::new(from.parse().unwrap(), to.parse().unwrap()).unwrap();
    let bytes = ports.emit(addresses, &[7; 40]).unwrap();
    packet(from, to, protocol, &bytes)
}

fn arp(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1];
    bytes.extend([2, 0, 0, 0, 0, 2]);
    bytes.extend(sender);
    bytes.extend([0; 6]);
    bytes.extend(target);
    ethernet(EtherType::Arp, &bytes)
}

fn hosts(hosts: &[&str]) -> Filter {
    Filter {
        hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        ..Filter::default()
    }
}

fn ports(ports: &[u16]) -> Filter {
    Filter {
        ports: ports.to_vec(),
        ..Filter::default()
    }
}

fn protocols(protocols: &[Protocol]) -> Filter {
    Filter {
        protocols: protocols.to_vec(),
        ..Filter::default()
    }
}

const A4: [&str; 2] = ["10.0.0.2", "192.0.2.1"];
const A6: [&str; 2] = ["fd00::2", "2001:db8::1"];

#[test]
fn nothing_asked_for_is_everything_as_long_as_wanted() {
    let all = Filter::default();
    assert_eq!(passes(&all, &[0; 300]), SNAPLEN as usize);
    assert_eq!(passes(&all, &[0; 20]), 20);
    let long = packet(A4[0], A4[1], 132, &[0; 400]);
    assert_eq!(passes(&hosts(&[A4[0]]), &long), SNAPLEN as usize);
}

#[test]
fn protocols_of_both_families() {
    let all = [
        (6, 6, Protocol::Tcp),
        (17, 17, Protocol::Udp),
        (1, 58, Protocol::Icmp),
    ];
    for (_, _, asked) in all {
        let filter = protocols(&[asked]);
        for (v4, v6, is) in all {
            let v4 = packet(A4[0], A4[1], v4, &[0; 40]);
            let v6 = packet(A6[0], A6[1], v6, &[0; 40]);
            assert_eq!(passes(&filter, &v4) > 0, is == asked, "{asked:?} {is:?}");
            assert_eq!(passes(&filter, &v6) > 0, is == asked, "{asked:?} {is:?}");
        }
        assert_eq!(passes(&filter, &arp([10, 0, 0, 2], [10, 0, 0, 1])), 0);
    }
    let two = protocols(&[Protocol::Tcp, Protocol::Icmp]);
    assert!(passes(&two, &packet(A6[0], A6[1], 58, &[0; 8])) > 0);
    assert_eq!(passes(&two, &packet(A6[0], A6[1], 17, &[0; 8])), 0);
}

#[test]
fn hosts_at_either_end_and_in_arp() {
    let both = hosts(&["10.0.0.2", "2001:db8::1"]);
    for pass in [
        packet("10.0.0.2", "1.1.1.1", 132, b"x"),
        packet("1.1.1.1", "10.0.0.2", 132, b"x"),
        packet("fd00::9", "2001:db8::1", 132, b"x"),
        packet("2001:db8::1", "fd00::9", 132, b"x"),
        arp([10, 0, 0, 2], [10, 0, 0, 1]),
        arp([10, 0, 0, 1], [10, 0, 0, 2]),
    ] {
        assert!(passes(&both, &pass) > 0, "{pass:?}");
    }
    for stay in [
        packet("10.0.0.3", "1.1.1.1", 132, b"x"),
        packet("2001:db8::2", "fd00::9", 132, b"x"),
        packet("2001:db8:1::1", "fd00::9", 132, b"x"),
        arp([10, 0, 0, 3], [10, 0, 0, 1]),
        ethernet(EtherType::Other(0x88cc), &[0; 60]),
        b"short".to_vec(),
    ] {
        assert_eq!(passes(&both, &stay), 0, "{stay:?}");
    }
    let v6_only = hosts(&["2001:db8::1"]);
    assert_eq!(passes(&v6_only, &packet(A4[0], A4[1], 6, &[0; 40])), 0);
}

#[test]
fn ports_at_either_end_of_tcp_and_udp() {
    let filter = ports(&[53, 80]);
    for (from, to) in [(A4[0], A4[1]), (A6[0], A6[1])] {
        for protocol in [6, 17] {
            assert!(passes(&filter, &with_ports(from, to, protocol, [4000, 80])) > 0);
            assert!(passes(&filter, &with_ports(from, to, protocol, [53, 4000])) > 0);
            assert_eq!(
                passes(&filter, &with_ports(from, to, protocol, [4000, 81])),
                0
            );
        }
        // SCTP has ports there, too, but was not asked for.
        assert_eq!(passes(&filter, &with_ports(from, to, 132, [4000, 80])), 0);
    }
    let udp = Filter {
        protocols: vec![Protocol::Udp],
        ..filter
    };
    assert_eq!(passes(&udp, &with_ports(A4[0], A4[1], 6, [4000, 80])), 0);
    assert!(passes(&udp, &with_ports(A4[0], A4[1], 17, [4000, 80])) > 0);
}

#[test]
fn headers_of_other_lengths_and_fragments() {
    let filter = ports(&[80]);
    // An option of four bytes before the ports.
    let plain = with_ports(A4[0], A4[1], 17, [4000, 80]);
    let mut longer = plain.clone();
    longer[14] = 0x46;
    longer.splice(34..34, [1, 1, 1, 0]);
    assert!(passes(&filter, &longer) > 0);
    // The same bytes as a fragment but the first: no ports.
    let mut late = plain.clone();
    late[21] = 3;
    assert_eq!(passes(&filter, &late), 0);
    assert!(passes(&protocols(&[Protocol::Udp]), &late) > 0);
    // IPv6, with a fragment header: first and last.
    let plain = with_ports(A6[0], A6[1], 17, [4000, 80]);
    for (offset, passed) in [(1, true), (8, false)] {
        let mut fragment = plain.clone();
        fragment[20] = 44;
        fragment.splice(54..54, [17, 0, 0, offset, 0, 0, 0, 9]);
        assert_eq!(passes(&filter, &fragment) > 0, passed);
        assert!(passes(&protocols(&[Protocol::Udp]), &fragment) > 0);
        assert_eq!(passes(&protocols(&[Protocol::Tcp]), &fragment), 0);
    }
}

#[test]
fn the_kernel_takes_the_longest_program() {
    let filter = Filter {
        protocols: vec![Protocol::Tcp, Protocol::Udp],
        ports: (1..=MOST_VALUES as u16).collect(),
        hosts: (1..=MOST_VALUES as u128)
            .map(|host| IpAddr::from((0xfd00_u128 << 112 | host).to_be_bytes()))
            .collect(),
    };
    let to = format!("fd00::{:x}", MOST_VALUES);
    assert!(passes(&filter, &with_ports("fd01::1", &to, 6, [1000, 64])) > 0);
    assert_eq!(
        passes(&filter, &with_ports("fd01::1", &to, 6, [1000, 65])),
        0
    );
    assert_eq!(
        passes(&filter, &with_ports("fd01::1", "fd00::41", 6, [1000, 64])),
        0
    );
}
