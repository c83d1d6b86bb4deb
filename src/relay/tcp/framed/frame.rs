//! The frames that framed flows send: Ethernet, IP, TCP with timestamps, in one buffer, to one port.
//!
//! Checksums of TCP are left to whoever needs them, as everywhere on a veth pair; data of several segments goes
//! in one frame (GSO).
//!
//! Sources: packet(7), linux/virtio_net.h, RFC 7323.

use super::connection::{Offer, WINDOW_SCALE};
use crate::relay::endpoints::Place;
use crate::relay::pending::FourTuple;
use crate::relay::wire::checksum::Checksum;
use crate::relay::wire::ethernet::{self, EtherType};
use crate::relay::wire::ip::{Addresses, DEFAULT_TTL, Protocol};
use crate::relay::wire::tcp::{self, Flags};
use crate::relay::wire::{ipv4, ipv6};
use crate::sys::packet::{self, Gso, vnet_header};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Bytes of the options of a segment: two of nothing, timestamps.
const TIMESTAMPS_LEN: usize = 12;
/// We take whatever fits an IP packet; the container's own link sets its limit.
const MSS: u16 = 65_475;
/// Of one with SYN: segment size, maybe selective acknowledgements, timestamps, maybe window scale.
const GREETING_LEN: usize = 20;

/// A segment to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// `client` is whom it is for.
    pub ends: FourTuple,
    /// Where that is.
    pub place: Place,
    /// Control bits.
    pub flags: Flags,
    /// Of the first byte.
    pub sequence: u32,
    /// What is acknowledged.
    pub acknowledgement: u32,
    /// As in the header.
    pub window: u16,
    /// The other's clock.
    pub echo: u32,
    /// What an answer to a SYN must agree to.
    pub offer: Offer,
    /// Data of more bytes goes as several segments.
    pub segment_len: u16,
    /// The data.
    pub data: &'a [u8],
}

/// Sends frames of one worker's flows.
#[derive(Debug)]
pub struct FrameSender {
    socket: Arc<OwnedFd>,
    mac: [u8; 6],
    timestamp: u32,
    frame: Vec<u8>,
}

impl FrameSender {
    /// `socket`: AF_PACKET. Frames come from `mac`, and bear `timestamp`.
    pub fn new(socket: Arc<OwnedFd>, mac: [u8; 6], timestamp: u32) -> Self {
        Self {
            socket,
            mac,
            timestamp,
            frame: Vec::new(),
        }
    }

    /// What marks the worker's flows.
    pub fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// Sends one. ENXIO or ENODEV where the port is gone.
    pub fn send(&mut self, head: &Head<'_>) -> io::Result<()> {
        self.send_at(self.timestamp, head)
    }

    /// The same with another timestamp.
    pub fn send_at(&mut self, timestamp: u32, head: &Head<'_>) -> io::Result<()> {
        self.compose(timestamp, head)?;
        packet::send_on(self.socket.as_fd(), head.place.port, &self.frame)
    }

    fn compose(&mut self, timestamp: u32, head: &Head<'_>) -> io::Result<()> {
        let FourTuple {
            client,
            destination,
        } = head.ends;
        let addresses = Addresses::new(destination.ip(), client.ip());
        let addresses = addresses.ok_or(io::ErrorKind::InvalidInput)?;
        let syn = head.flags.contains(Flags::SYN);
        let options = if syn { GREETING_LEN } else { TIMESTAMPS_LEN };
        let length = tcp::HEADER_LEN + options + head.data.len();
        self.frame.clear();
        self.begin(head, addresses, length)?;
        let checksum = !Checksum::pseudo(addresses, Protocol::Tcp, length as u32).finish();
        let fields = [
            destination.port().to_be_bytes(),
            client.port().to_be_bytes(),
        ];
        self.frame.extend(fields.as_flattened());
        self.frame.extend(head.sequence.to_be_bytes());
        let first = head.flags == Flags::SYN;
        let acknowledgement = if first { 0 } else { head.acknowledgement };
        self.frame.extend(acknowledgement.to_be_bytes());
        let offset = ((tcp::HEADER_LEN + options) / 4) as u8;
        self.frame.extend([offset << 4, head.flags.0]);
        self.frame.extend(head.window.to_be_bytes());
        self.frame.extend(checksum.to_be_bytes());
        self.frame.extend([0, 0]);
        if syn {
            self.greeting_options(timestamp, head);
        } else {
            self.frame.extend([1, 1, 8, 10]);
            self.frame.extend(timestamp.to_be_bytes());
            self.frame.extend(head.echo.to_be_bytes());
        }
        self.frame.extend_from_slice(head.data);
        Ok(())
    }

    /// What comes before TCP. `length`: bytes of header and data.
    fn begin(&mut self, head: &Head<'_>, addresses: Addresses, length: usize) -> io::Result<()> {
        let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let (ip_len, ethertype, gso) = match addresses {
            Addresses::V4 { .. } => (ipv4::HEADER_LEN, EtherType::Ipv4, Gso::TcpV4),
            Addresses::V6 { .. } => (ipv6::HEADER_LEN, EtherType::Ipv6, Gso::TcpV6),
        };
        let start = (ethernet::HEADER_LEN + ip_len) as u16;
        let several = head.data.len() > usize::from(head.segment_len);
        let header_len = start + (length - head.data.len()) as u16;
        let several = several.then_some((gso, head.segment_len, header_len));
        self.frame.extend(vnet_header(start, 16, several));
        let header = ethernet::Header {
            destination: head.place.mac,
            source: self.mac,
            ethertype,
        };
        self.frame.extend(header.emit());
        let at = self.frame.len();
        match addresses {
            Addresses::V4 {
                source,
                destination,
            } => {
                let total = u16::try_from(ip_len + length).map_err(too_long)?;
                self.frame.extend([0x45, 0]);
                self.frame.extend(total.to_be_bytes());
                // No identification, not to be fragmented.
                self.frame.extend([0, 0, 0x40, 0]);
                self.frame
                    .extend([DEFAULT_TTL, Protocol::Tcp.number(), 0, 0]);
                self.frame.extend(source.octets());
                self.frame.extend(destination.octets());
                let header = self.frame.get(at..).unwrap_or_default();
                let sum = Checksum::new().bytes(header).finish();
                if let Some(place) = self.frame.get_mut(at + 10..at + 12) {
                    place.copy_from_slice(&sum.to_be_bytes());
                }
            }
            Addresses::V6 {
                source,
                destination,
            } => {
                let length = u16::try_from(length).map_err(too_long)?;
                self.frame.extend([0x60, 0, 0, 0]);
                self.frame.extend(length.to_be_bytes());
                self.frame.extend([Protocol::Tcp.number(), DEFAULT_TTL]);
                self.frame.extend(source.octets());
                self.frame.extend(destination.octets());
            }
        }
        Ok(())
    }

    fn greeting_options(&mut self, timestamp: u32, head: &Head<'_>) {
        self.frame.extend([2, 4]);
        self.frame.extend(MSS.to_be_bytes());
        self.frame
            .extend(if head.offer.sack { [4, 2] } else { [1, 1] });
        self.frame.extend([8, 10]);
        self.frame.extend(timestamp.to_be_bytes());
        self.frame.extend(head.echo.to_be_bytes());
        self.frame.extend(match head.offer.scale {
            Some(_) => [1, 3, 3, WINDOW_SCALE],
            None => [1; 4],
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::wire::ethernet::Frame;
    use crate::relay::wire::ip::Packet;
    use crate::relay::wire::tcp::{Segment, SynOptions};
    use crate::sys::packet::{VNET_HEADER_LEN, checksum_is_known};

    const PLACE: Place = Place {
        port: 7,
        mac: [2, 0, 0, 0, 0, 9],
    };
    const OFFER: Offer = Offer {
        isn: 1,
        window: 1000,
        mss: 1460,
        scale: Some(7),
        sack: true,
        timestamp: 55,
    };

    fn head<'a>(v6: bool, flags: Flags, data: &'a [u8]) -> Head<'a> {
        let ends = if v6 {
            ["[fd00::2]:1000", "[2001:db8::1]:443"]
        } else {
            ["10.0.0.2:1000", "192.0.2.1:443"]
        };
        let [client, destination] = ends.map(|end| end.parse().unwrap());
        Head {
            ends: FourTuple {
                client,
                destination,
            },
            place: PLACE,
            flags,
            sequence: 0xdead_beef,
            acknowledgement: 0x1234_5678,
            window: 114,
            echo: OFFER.timestamp,
            offer: OFFER,
            segment_len: 1448,
            data,
        }
    }

    fn composed(head: &Head<'_>) -> Vec<u8> {
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut sender = FrameSender::new(Arc::new(null.into()), [2, 0, 0, 0, 0, 1], 77);
        sender.compose(77, head).unwrap();
        sender.frame
    }

    /// As a kernel would that has to.
    fn with_checksum(frame: &mut [u8]) {
        let word = |frame: &[u8], at| u16::from_ne_bytes([frame[at], frame[at + 1]]);
        let start = VNET_HEADER_LEN + usize::from(word(frame, 6));
        let field = start + usize::from(word(frame, 8));
        let sum = Checksum::new().bytes(&frame[start..]).finish();
        frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }

    #[test]
    fn frames_say_what_their_heads_do() {
        for v6 in [false, true] {
            for data in [&b""[..], b"x", &[7; 1448]] {
                let head = head(v6, Flags::ACK.with(Flags::PSH), data);
                let mut frame = composed(&head);
                assert!(checksum_is_known(&frame));
                assert_eq!(frame[1], 0, "one segment");
                with_checksum(&mut frame);
                let ethernet = Frame::parse(&frame[VNET_HEADER_LEN..]).unwrap();
                assert_eq!(ethernet.destination(), PLACE.mac);
                let packet = Packet::parse(ethernet.payload()).unwrap();
                assert_eq!(packet.bytes().len(), ethernet.payload().len());
                assert_eq!(packet.source(), head.ends.destination.ip());
                assert_eq!(packet.destination(), head.ends.client.ip());
                let segment = Segment::of(&packet).unwrap();
                assert!(segment.is_intact(&packet));
                assert_eq!(
                    (segment.source_port(), segment.destination_port()),
                    (443, 1000)
                );
                assert_eq!(segment.sequence(), head.sequence);
                assert_eq!(segment.acknowledgement(), head.acknowledgement);
                assert_eq!((segment.flags(), segment.window()), (head.flags, 114));
                assert_eq!(segment.timestamps(), Some((77, 55)));
                assert_eq!(segment.payload(), data);
            }
        }
    }

    #[test]
    fn much_data_is_several_segments() {
        for (v6, kind, length) in [(false, 1, 66_u16), (true, 4, 86)] {
            let frame = composed(&head(v6, Flags::ACK, &[1; 1449]));
            assert_eq!(frame[1], kind);
            assert_eq!(frame[2..4], length.to_ne_bytes());
            assert_eq!(frame[4..6], 1448_u16.to_ne_bytes());
        }
        let too_much = [0; 66_000];
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut sender = FrameSender::new(Arc::new(null.into()), [0; 6], 0);
        for v6 in [false, true] {
            assert!(sender.compose(0, &head(v6, Flags::ACK, &too_much)).is_err());
        }
    }

    #[test]
    fn greetings_offer_what_was_offered() {
        let options = |offer, flags| {
            let frame = composed(&Head {
                offer,
                ..head(false, flags, b"")
            });
            let ethernet = Frame::parse(&frame[VNET_HEADER_LEN..]).unwrap();
            let packet = Packet::parse(ethernet.payload()).unwrap();
            let segment = Segment::of(&packet).unwrap();
            let acknowledges = segment.acknowledgement();
            (SynOptions::parse(segment.options()).unwrap(), acknowledges)
        };
        let all = SynOptions {
            mss: Some(MSS),
            window_scale: Some(WINDOW_SCALE),
            sack: true,
            timestamp: Some(77),
        };
        let answer = Flags::SYN.with(Flags::ACK);
        assert_eq!(options(OFFER, answer), (all, 0x1234_5678));
        assert_eq!(options(OFFER, Flags::SYN), (all, 0));
        let plain = Offer {
            scale: None,
            sack: false,
            ..OFFER
        };
        let least = SynOptions {
            window_scale: None,
            sack: false,
            ..all
        };
        assert_eq!(options(plain, answer).0, least);
    }
}
