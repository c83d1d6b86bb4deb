//! TCP segments (RFC 9293 §3.1).

use super::checksum::{Checksum, fill};
use super::ip::{self, Addresses, Protocol};
use super::{WireError, fixed};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// Control bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// To be passed on at once.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);

    /// All bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Bits of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A checked view of a segment.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Checks the data offset. `bytes`: the payload of an IP packet.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        const LAYER: &str = "TCP";
        let (header, _) = fixed::<HEADER_LEN>(LAYER, bytes)?;
        let header_len = usize::from(header[12] >> 4) * 4;
        if header_len < HEADER_LEN {
            return Err(WireError::Length {
                layer: LAYER,
                length: header_len,
            });
        }
        let (head, payload) = bytes
            .split_at_checked(header_len)
            .ok_or(WireError::Truncated {
                layer: LAYER,
                have: bytes.len(),
                need: header_len,
            })?;
        let options = head.get(HEADER_LEN..).unwrap_or_default();
        Ok(Self {
            header,
            options,
            payload,
        })
    }

    /// The segment in `packet`; an error where it carries something else, or a later fragment.
    pub fn of(packet: &ip::Packet<'a>) -> Result<Self, WireError> {
        Self::parse(packet.transport(Protocol::Tcp)?)
    }

    /// Port of the sender.
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// Port of the receiver.
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// Sequence number; in a SYN, the initial one.
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes([
            self.header[4],
            self.header[5],
            self.header[6],
            self.header[7],
        ])
    }

    /// Acknowledgement number; counts with [`Flags::ACK`] only.
    pub fn acknowledgement(&self) -> u32 {
        u32::from_be_bytes([
            self.header[8],
            self.header[9],
            self.header[10],
            self.header[11],
        ])
    }

    /// Control bits.
    pub fn flags(&self) -> Flags {
        Flags(self.header[13])
    }

    /// Asks for a new connection: SYN and none of FIN, RST, ACK.
    pub fn is_first_syn(&self) -> bool {
        self.flags().0 & 0x17 == Flags::SYN.0
    }

    /// Window, unscaled.
    pub fn window(&self) -> u16 {
        u16::from_be_bytes([self.header[14], self.header[15]])
    }

    /// Between the fixed header and the data.
    pub fn options(&self) -> &'a [u8] {
        self.options
    }

    /// The data.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Its clock and the one that it echoes, where they come first, as Linux puts them
    /// (RFC 7323, appendix A).
    pub fn timestamps(&self) -> Option<(u32, u32)> {
        let [1, 1, 8, 10, a, b, c, d, e, f, g, h] = *self.options.first_chunk()? else {
            return None;
        };
        Some((
            u32::from_be_bytes([a, b, c, d]),
            u32::from_be_bytes([e, f, g, h]),
        ))
    }

    /// Its checksum is right; `packet` is what it came in.
    pub fn is_intact(&self, packet: &ip::Packet<'_>) -> bool {
        let bytes = packet.payload();
        // Shorter than an IP packet.
        let length = bytes.len() as u32;
        let sum = Checksum::pseudo(packet.addresses(), Protocol::Tcp, length);
        sum.bytes(bytes).finish() == 0
    }

    /// SEG.LEN of RFC 9293: data, and one for each of SYN and FIN.
    pub fn sequence_length(&self) -> u32 {
        let controls = u32::from(self.flags().contains(Flags::SYN))
            + u32::from(self.flags().contains(Flags::FIN));
        // A payload is shorter than an IP packet.
        controls.wrapping_add(self.payload.len() as u32)
    }
}

/// What the options of a segment with SYN say (RFC 9293 §3.2, RFC 7323, RFC 2018).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SynOptions {
    /// Most bytes of a segment.
    pub mss: Option<u16>,
    /// By how many bits windows are shifted.
    pub window_scale: Option<u8>,
    /// Selective acknowledgements are understood.
    pub sack: bool,
    /// The sender's clock.
    pub timestamp: Option<u32>,
}

impl SynOptions {
    /// Reads them; unknown ones are passed over. `None` where one is longer than what is there, or has not the length
    /// of its kind.
    pub fn parse(mut options: &[u8]) -> Option<Self> {
        let mut found = Self::default();
        loop {
            options = match *options {
                [] | [0, ..] => return Some(found),
                [1, ref rest @ ..] => rest,
                [kind, length, ..] => {
                    let (option, rest) = options.split_at_checked(length.max(2).into())?;
                    match (kind, option) {
                        (2, [_, 4, a, b]) => found.mss = Some(u16::from_be_bytes([*a, *b])),
                        (3, [_, 3, shift]) => found.window_scale = Some(*shift),
                        (4, [_, 2]) => found.sack = true,
                        (8, [_, 10, a, b, c, d, ..]) => {
                            found.timestamp = Some(u32::from_be_bytes([*a, *b, *c, *d]));
                        }
                        (2 | 3 | 4 | 8, _) | (_, [_, 0 | 1]) => return None,
                        _ => {}
                    }
                    rest
                }
                [_] => return None,
            };
        }
    }
}

/// A segment without options or data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// Port of the sender.
    pub source_port: u16,
    /// Port of the receiver.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Control bits.
    pub flags: Flags,
    /// Window.
    pub window: u16,
}

impl Control {
    /// The segment with its checksum.
    pub fn emit(&self, addresses: Addresses) -> [u8; HEADER_LEN] {
        let mut segment = [0; HEADER_LEN];
        let fields = self.source_port.to_be_bytes().into_iter();
        let fields = fields
            .chain(self.destination_port.to_be_bytes())
            .chain(self.sequence.to_be_bytes())
            .chain(self.acknowledgement.to_be_bytes())
            .chain([(HEADER_LEN as u8 / 4) << 4, self.flags.0])
            .chain(self.window.to_be_bytes());
        for (to, from) in segment.iter_mut().zip(fields) {
            *to = from;
        }
        let pseudo = Checksum::pseudo(addresses, Protocol::Tcp, HEADER_LEN as u32);
        fill(&mut segment, 16, pseudo);
        segment
    }
}
