//! One line for each frame, in tcpdump's short form. Invariant: pure, and no byte of a frame reaches the line
//! but as a number.

use crate::sys::capture::Frame;
use crate::wire::ethernet::{self, EtherType};
use crate::wire::icmp::Message;
use crate::wire::ip::{Packet, Protocol};
use crate::wire::tcp::Segment;
use crate::wire::udp::Datagram;
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};

/// `HH:MM:SS.nnnnnnnnn` (UTC), interface, direction, what it is.
pub fn line(out: &mut Vec<u8>, name: &str, frame: &Frame<'_>, inward: bool) {
    let (second, minute) = (frame.seconds % 60, frame.seconds / 60);
    let (minute, hour) = (minute % 60, minute / 60 % 24);
    let nanoseconds = frame.nanoseconds;
    let direction = if inward { "In " } else { "Out" };
    let mut line =
        format!("{hour:02}:{minute:02}:{second:02}.{nanoseconds:09} {name} {direction} ");
    if let Some([_, tci]) = frame.tag {
        let _ = write!(line, "vlan {} ", tci & 0x0fff);
    }
    // Writing to a string cannot fail; so everywhere here.
    let _ = what(&mut line, &whole(frame), frame.length);
    line.push('\n');
    out.extend_from_slice(line.as_bytes());
}

/// As long as the frame was: what was cut off is zeros, which are in no header that was not cut.
fn whole<'a>(frame: &Frame<'a>) -> Cow<'a, [u8]> {
    if frame.bytes.len() >= frame.length {
        return Cow::Borrowed(frame.bytes);
    }
    let mut bytes = frame.bytes.to_vec();
    bytes.resize(frame.length, 0);
    Cow::Owned(bytes)
}

fn what(out: &mut String, bytes: &[u8], length: usize) -> fmt::Result {
    let Ok(frame) = ethernet::Frame::parse(bytes) else {
        return write!(out, "{length} bytes, no Ethernet frame");
    };
    match (frame.ethertype(), Packet::parse(frame.payload())) {
        (EtherType::Ipv4 | EtherType::Ipv6, Ok(packet)) => ip(out, &packet),
        (EtherType::Arp, _) => arp(out, frame.payload()),
        (kind, _) => write!(
            out,
            "ethertype 0x{:04x}, length {}",
            u16::from(kind),
            frame.payload().len()
        ),
    }
}

fn ip(out: &mut String, packet: &Packet<'_>) -> fmt::Result {
    let family = if packet.source().is_ipv6() {
        "IP6"
    } else {
        "IP"
    };
    let (source, destination) = (packet.source(), packet.destination());
    let tcp = Segment::of(packet).map(|s| [s.source_port(), s.destination_port()]);
    let udp = Datagram::of(packet).map(|d| [d.source_port(), d.destination_port()]);
    match tcp.or(udp) {
        Ok([from, to]) => write!(out, "{family} {source}.{from} > {destination}.{to}: ")?,
        Err(_) => write!(out, "{family} {source} > {destination}: ")?,
    }
    upper_layer(out, packet)?;
    if packet.is_fragment() {
        out.push_str(", fragment");
    }
    Ok(())
}

fn upper_layer(out: &mut String, packet: &Packet<'_>) -> fmt::Result {
    let length = packet.payload().len();
    if let Ok(segment) = Segment::of(packet) {
        tcp(out, &segment)
    } else if let Ok(datagram) = Datagram::of(packet) {
        write!(out, "UDP, length {}", datagram.payload().len())
    } else if let Ok(message) = Message::of(packet) {
        icmp(out, packet.source(), &message)?;
        write!(out, ", length {length}")
    } else {
        match packet.protocol() {
            Protocol::Tcp => write!(out, "TCP, length {length}"),
            // A fragment's datagram is longer than what is there.
            Protocol::Udp => write!(out, "UDP, length {}", length.saturating_sub(8)),
            Protocol::Icmp => write!(out, "ICMP, length {length}"),
            Protocol::Icmpv6 => write!(out, "ICMP6, length {length}"),
            Protocol::Other(number) => write!(out, "ip-proto-{number}, length {length}"),
        }
    }
}

fn tcp(out: &mut String, segment: &Segment<'_>) -> fmt::Result {
    const LETTERS: [(u8, char); 8] = [
        (0x02, 'S'),
        (0x01, 'F'),
        (0x04, 'R'),
        (0x08, 'P'),
        (0x10, '.'),
        (0x20, 'U'),
        (0x40, 'E'),
        (0x80, 'W'),
    ];
    let set = |(bit, letter): (u8, char)| (segment.flags().0 & bit != 0).then_some(letter);
    let flags: String = LETTERS.into_iter().filter_map(set).collect();
    let length = segment.payload().len();
    let (sequence, window) = (segment.sequence(), segment.window());
    write!(out, "Flags [{flags}], seq {sequence}")?;
    if flags.contains('.') {
        write!(out, ", ack {}", segment.acknowledgement())?;
    }
    write!(out, ", win {window}, length {length}")
}

fn icmp(out: &mut String, source: IpAddr, message: &Message<'_>) -> fmt::Result {
    let name = if source.is_ipv6() { "ICMP6" } else { "ICMP" };
    if let Some(echo) = message.echo_request() {
        write!(
            out,
            "{name} echo request, id {}, seq {}",
            echo.id, echo.sequence
        )
    } else if let Some(echo) = message.echo_reply() {
        write!(
            out,
            "{name} echo reply, id {}, seq {}",
            echo.id, echo.sequence
        )
    } else {
        let (kind, code) = (message.kind(), message.code());
        match (source.is_ipv6(), kind, code) {
            (false, 3, 3) | (true, 1, 4) => write!(out, "{name} port unreachable"),
            (false, 3, 4) | (true, 2, _) => write!(out, "{name} packet too big"),
            (false, 3, _) | (true, 1, _) => write!(out, "{name} unreachable, code {code}"),
            (false, 11, _) | (true, 3, _) => write!(out, "{name} time exceeded"),
            (true, 133, _) => write!(out, "{name} router solicitation"),
            (true, 134, _) => write!(out, "{name} router advertisement"),
            (true, 135, _) => write!(out, "{name} neighbor solicitation"),
            (true, 136, _) => write!(out, "{name} neighbor advertisement"),
            _ => write!(out, "{name} type {kind}, code {code}"),
        }
    }
}

/// RFC 826, for Ethernet and IPv4.
fn arp(out: &mut String, bytes: &[u8]) -> fmt::Result {
    let address = |at: usize| {
        let octets: [u8; 4] = *bytes.get(at..)?.first_chunk()?;
        Some(Ipv4Addr::from(octets))
    };
    let operation = bytes.get(6..).and_then(|bytes| bytes.first_chunk());
    let operation = operation.map(|octets: &[u8; 2]| u16::from_be_bytes(*octets));
    match (operation, address(14), address(24)) {
        (Some(1), Some(sender), Some(target)) => {
            write!(out, "ARP, Request who-has {target} tell {sender}")
        }
        (Some(2), Some(sender), _) => {
            write!(out, "ARP, Reply {sender} is-at ")?;
            for (number, octet) in bytes.iter().skip(8).take(6).enumerate() {
                let colon = if number == 0 { "" } else { ":" };
                write!(out, "{colon}{octet:02x}")?;
            }
            Ok(())
        }
        _ => write!(out, "ARP, length {}", bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::{Control, Flags};
    use crate::wire::{Addresses, icmp, ip, udp};

    fn addresses(ipv6: bool) -> Addresses {
        let [from, to] = if ipv6 {
            ["fd00::2", "2001:db8::1"]
        } else {
            ["10.0.0.2", "192.0.2.1"]
        };
        Addresses::new(from.parse().unwrap(), to.parse().unwrap()).unwrap()
    }

    fn ethernet(ethertype: EtherType, payload: &[u8]) -> Vec<u8> {
        let header = ethernet::Header {
            destination: [2, 0, 0, 0, 0, 1],
            source: [2, 0, 0, 0, 0, 2],
            ethertype,
        };
        [header.emit().as_slice(), payload].concat()
    }

    fn packet(ipv6: bool, protocol: Protocol, payload: &[u8]) -> Vec<u8> {
        let packet = ip::Header::new(addresses(ipv6), protocol)
            .emit(payload)
            .unwrap();
        let kind = if ipv6 {
            EtherType::Ipv6
        } else {
            EtherType::Ipv4
        };
        ethernet(kind, &packet)
    }

    fn shown(bytes: &[u8], length: usize) -> String {
        let frame = Frame {
            seconds: 86_400 + 3_661,
            nanoseconds: 5_000,
            length,
            bytes,
            tag: None,
            outgoing: true,
        };
        let mut out = Vec::new();
        line(&mut out, "eth0", &frame, false);
        let out = String::from_utf8(out).unwrap();
        let rest = out.strip_prefix("01:01:01.000005000 eth0 Out ");
        rest.unwrap().trim_end().to_owned()
    }

    #[test]
    fn tcp_udp_and_icmp() {
        let syn = Control {
            source_port: 1000,
            destination_port: 80,
            sequence: 7,
            acknowledgement: 9,
            flags: Flags::SYN,
            window: 100,
        };
        let ack = Control {
            flags: Flags::ACK.with(Flags(0x08)),
            ..syn
        };
        for (control, expected) in [
            (syn, "Flags [S], seq 7, win 100, length 0"),
            (ack, "Flags [P.], seq 7, ack 9, win 100, length 0"),
        ] {
            let bytes = packet(false, Protocol::Tcp, &control.emit(addresses(false)));
            let line = format!("IP 10.0.0.2.1000 > 192.0.2.1.80: {expected}");
            assert_eq!(shown(&bytes, bytes.len()), line);
        }
        let ports = udp::Ports {
            source: 5353,
            destination: 53,
        };
        let datagram = ports.emit(addresses(true), b"hello").unwrap();
        let bytes = packet(true, Protocol::Udp, &datagram);
        let line = "IP6 fd00::2.5353 > 2001:db8::1.53: UDP, length 5";
        assert_eq!(shown(&bytes, bytes.len()), line);
        // What was cut off is still counted.
        assert_eq!(shown(&bytes[..62], bytes.len()), line);
        let echo = icmp::Echo {
            id: 1,
            sequence: 2,
            data: b"x",
        };
        let bytes = packet(false, Protocol::Icmp, &echo.emit_request(addresses(false)));
        let line = "IP 10.0.0.2 > 192.0.2.1: ICMP echo request, id 1, seq 2, length 9";
        assert_eq!(shown(&bytes, bytes.len()), line);
        let bytes = packet(false, Protocol::Other(132), b"sctp");
        let line = "IP 10.0.0.2 > 192.0.2.1: ip-proto-132, length 4";
        assert_eq!(shown(&bytes, bytes.len()), line);
    }

    #[test]
    fn arp_and_what_is_broken() {
        let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2];
        request.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
        let bytes = ethernet(EtherType::Arp, &request);
        let line = "ARP, Request who-has 10.0.0.1 tell 10.0.0.2";
        assert_eq!(shown(&bytes, bytes.len()), line);
        request[7] = 2;
        let bytes = ethernet(EtherType::Arp, &request);
        let line = "ARP, Reply 10.0.0.2 is-at 02:00:00:00:00:02";
        assert_eq!(shown(&bytes, bytes.len()), line);
        assert_eq!(shown(&bytes[..16], 16), "ARP, length 2");
        assert_eq!(shown(b"short", 5), "5 bytes, no Ethernet frame");
        let odd = ethernet(EtherType::Ipv4, b"\x45\0");
        assert_eq!(shown(&odd, odd.len()), "ethertype 0x0800, length 2");
    }
}
