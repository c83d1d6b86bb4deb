//! TCP towards a container as far as a framed flow needs it: sequence numbers, windows, what a segment
//! means. No descriptor and no clock.
//!
//! Invariant: what is acknowledged was in order, and was passed on or is kept; what was sent is kept until it
//! is acknowledged. Whatever else TCP knows (segments out of order, urgent data, closed windows) is
//! [`Received::Odd`]: the kernel's business, to which all that it needs is known ([`Connection::state`]).
//!
//! The end of the container's data is acknowledged together with our own end only. Until then the container
//! repeats it, so that a kernel that takes the flow over hears it.
//!
//! Sources: RFC 9293 §3.4 and §3.10.7, RFC 7323 (timestamps, window scale), RFC 6528 (initial numbers).

use super::frame::Head;
use crate::relay::endpoints::Place;
use crate::relay::pending::FourTuple;
use crate::relay::wire::tcp::{Flags, Segment, SynOptions};
use crate::sys::tcp_repair;

/// Our window, bytes: what a container may send without having heard of us. As much as it does send by itself at
/// first (ten segments, RFC 6928), so that whoever has filled it is about to send more.
pub const WINDOW: u32 = 14_592;
/// By how many bits our window is scaled, here and after a kernel has taken over.
pub const WINDOW_SCALE: u8 = 7;
/// Bytes not acknowledged from which on the container gets no chance to send more before the kernel has
/// taken over.
pub const BULK_FROM: u32 = WINDOW / 2;

/// Bytes of the timestamps in every segment.
const TIMESTAMPS_LEN: u16 = 12;
/// The window with which a kernel takes over: what its receive buffer has room for at first (`tcp_rmem`).
pub const KERNEL_WINDOW: u32 = 65_535;
/// Capacity kept for the next bytes in flight.
const KEPT: usize = 256;

/// What a container offers in its SYN, or in its answer to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Initial sequence number.
    pub isn: u32,
    /// Window, which no scale applies to.
    pub window: u16,
    /// Most bytes of a segment.
    pub mss: u16,
    /// Scale of its windows from then on; none where it knows of no scale.
    pub scale: Option<u8>,
    /// Selective acknowledgements.
    pub sack: bool,
    /// Its clock.
    pub timestamp: u32,
}

impl Offer {
    /// What a segment has at least (RFC 9293 §3.7.1: 536; Linux sends less where it must).
    const LEAST_MSS: u16 = 88;

    /// That of a segment with SYN; `None` where it has no timestamps, or its options are broken.
    pub fn of(segment: &Segment<'_>) -> Option<Self> {
        let options = SynOptions::parse(segment.options())?;
        Some(Self {
            isn: segment.sequence(),
            window: segment.window(),
            // RFC 9293 §3.7.1.
            mss: options.mss.unwrap_or(536).max(Self::LEAST_MSS),
            // RFC 7323 §2.3.
            scale: options.window_scale.map(|scale| scale.min(14)),
            sack: options.sack,
            timestamp: options.timestamp?,
        })
    }
}

/// What a segment brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<'a> {
    /// What was due: maybe data, maybe the end of it, maybe neither.
    Due {
        /// New bytes.
        data: &'a [u8],
        /// The container sends no more.
        end: bool,
    },
    /// What came before, once more: to be acknowledged.
    Repeated,
    /// The connection is over.
    Reset,
    /// Something that the kernel must deal with.
    Odd,
    /// Not worth an answer.
    Nothing,
}

/// Who has begun a connection, as long as the handshake lasts; then neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The container has; we have answered.
    Answered,
    /// We have.
    Asked,
    Established,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    ends: FourTuple,
    place: Place,
    offer: Offer,
    /// First number that the container has not acknowledged.
    unacknowledged: u32,
    /// The number that comes next.
    next: u32,
    /// Data from `unacknowledged` on.
    in_flight: Vec<u8>,
    peer_window: u32,
    /// The number that comes next from the container.
    received: u32,
    /// What it was told last.
    acknowledged: u32,
    phase: Phase,
    /// We have sent our end.
    ended: bool,
    /// The container has.
    peer_ended: bool,
}

impl Connection {
    /// Answers a SYN; `isn`: ours.
    pub fn answering(ends: FourTuple, place: Place, offer: Offer, isn: u32) -> Self {
        Self {
            ends,
            place,
            offer,
            unacknowledged: isn,
            next: isn.wrapping_add(1),
            in_flight: Vec::new(),
            peer_window: offer.window.into(),
            received: offer.isn.wrapping_add(1),
            acknowledged: offer.isn.wrapping_add(1),
            phase: Phase::Answered,
            ended: false,
            peer_ended: false,
        }
    }

    /// Asks a container for a connection; `isn`: ours.
    pub fn asking(ends: FourTuple, place: Place, isn: u32) -> Self {
        let offer = Offer {
            isn: 0,
            window: 0,
            mss: Offer::LEAST_MSS,
            scale: Some(0),
            sack: true,
            timestamp: 0,
        };
        Self {
            phase: Phase::Asked,
            ..Self::answering(ends, place, offer, isn)
        }
    }

    /// Container and its peer.
    pub fn ends(&self) -> FourTuple {
        self.ends
    }

    /// Where the container is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The container's initial sequence number.
    pub fn peer_isn(&self) -> u32 {
        self.offer.isn
    }

    /// The handshake is over.
    pub fn is_established(&self) -> bool {
        self.phase == Phase::Established
    }

    /// Everything sent was acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        self.unacknowledged == self.next
    }

    /// First number that was not.
    pub fn unacknowledged(&self) -> u32 {
        self.unacknowledged
    }

    /// Our end was sent.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The container's end has come.
    pub fn peer_has_ended(&self) -> bool {
        self.peer_ended
    }

    /// Nothing is left to be said.
    pub fn is_over(&self) -> bool {
        self.ended && self.peer_ended && self.is_acknowledged()
    }

    /// Bytes that came and were not acknowledged.
    pub fn owed(&self) -> u32 {
        self.acknowledgement().wrapping_sub(self.acknowledged)
    }

    /// Bytes that the container takes now.
    pub fn room(&self) -> usize {
        let in_flight = self.next.wrapping_sub(self.unacknowledged);
        self.peer_window.saturating_sub(in_flight) as usize
    }

    /// Bytes sent that were not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Bytes of one segment.
    pub fn segment_len(&self) -> u16 {
        self.offer.mss - TIMESTAMPS_LEN
    }

    /// Takes up a segment of the container's, whose timestamps echo ours.
    pub fn receive<'a>(&mut self, segment: &Segment<'a>) -> Received<'a> {
        if self.phase == Phase::Asked {
            return self.receive_answer(segment);
        }
        let flags = segment.flags();
        let due = self.acknowledgement();
        let at = segment.sequence().wrapping_sub(due).cast_signed();
        if flags.contains(Flags::RST) {
            // From what we owe an acknowledgement for to the end of the window. RFC 5961 §3.2 is stricter, since
            // it does not know the sender.
            let owed = self.owed().cast_signed();
            return match (-owed..=WINDOW.cast_signed()).contains(&at) {
                true => Received::Reset,
                false => Received::Nothing,
            };
        }
        if flags.contains(Flags::SYN) || !flags.contains(Flags::ACK) {
            return Received::Nothing;
        }
        if !self.take_acknowledgement(segment) {
            return Received::Nothing;
        }
        let length = segment.sequence_length().cast_signed();
        match at {
            0 => {}
            // The end of it may be new: for the kernel to tell.
            1.. => return Received::Odd,
            _ if at.saturating_add(length) > 0 => return Received::Odd,
            _ if length == 0 && at < -1 => return Received::Nothing,
            _ => return Received::Repeated,
        }
        let data = segment.payload();
        let end = flags.contains(Flags::FIN);
        if self.peer_ended || self.owed() as usize + data.len() > WINDOW as usize {
            // It repeats its end: our own does not come soon. Or it does not mind our window.
            return if data.is_empty() && !end {
                Received::Due { data, end }
            } else {
                Received::Odd
            };
        }
        if let Some((clock, _)) = segment.timestamps() {
            self.offer.timestamp = clock;
        }
        self.received = self.received.wrapping_add(data.len() as u32);
        self.peer_ended = end;
        Received::Due { data, end }
    }

    /// RFC 9293 §3.10.7.3.
    fn receive_answer<'a>(&mut self, segment: &Segment<'a>) -> Received<'a> {
        let flags = segment.flags();
        if !flags.contains(Flags::ACK) || segment.acknowledgement() != self.next {
            return Received::Nothing;
        }
        if flags.contains(Flags::RST) {
            return Received::Reset;
        }
        let (true, Some(offer)) = (flags.contains(Flags::SYN), Offer::of(segment)) else {
            return Received::Nothing;
        };
        self.offer = offer;
        self.phase = Phase::Established;
        self.unacknowledged = self.next;
        self.peer_window = offer.window.into();
        self.received = offer.isn.wrapping_add(1);
        // So that an acknowledgement is owed.
        self.acknowledged = offer.isn;
        Received::Due {
            data: &[],
            end: false,
        }
    }

    /// `false`: of something that was never sent.
    fn take_acknowledgement(&mut self, segment: &Segment<'_>) -> bool {
        let sent = self.next.wrapping_sub(self.unacknowledged);
        let advance = segment.acknowledgement().wrapping_sub(self.unacknowledged);
        if advance > sent {
            // Overtaken by a later one, or out of nowhere.
            return advance.cast_signed() < 0 && self.is_established();
        }
        let mut bytes = advance as usize;
        if !self.is_established() {
            if advance == 0 {
                return false;
            }
            self.phase = Phase::Established;
            bytes -= 1;
        }
        if bytes >= self.in_flight.len() {
            self.in_flight.clear();
            self.in_flight.shrink_to(KEPT);
        } else {
            self.in_flight.drain(..bytes);
        }
        self.unacknowledged = segment.acknowledgement();
        let scale = self.offer.scale.unwrap_or(0);
        self.peer_window = u32::from(segment.window()) << scale;
        true
    }

    /// Our SYN, as long as the handshake lasts. May be said again.
    pub fn greeting(&self) -> Head<'_> {
        let flags = match self.phase {
            Phase::Asked => Flags::SYN,
            Phase::Answered | Phase::Established => Flags::SYN.with(Flags::ACK),
        };
        Head {
            flags,
            sequence: self.next.wrapping_sub(1),
            window: WINDOW as u16,
            ..self.head()
        }
    }

    /// Acknowledges what was received.
    pub fn acknowledge(&mut self) -> Head<'_> {
        self.acknowledged = self.acknowledgement();
        self.head()
    }

    /// Sends data, no more than there is [`room`](Self::room) for, and maybe our end after it.
    pub fn send<'a>(&mut self, data: &'a [u8], end: bool) -> Head<'a> {
        self.ended |= end;
        self.acknowledged = self.acknowledgement();
        self.in_flight.extend_from_slice(data);
        let mut flags = Flags::ACK;
        if !data.is_empty() {
            flags = flags.with(Flags::PSH);
        }
        if end {
            flags = flags.with(Flags::FIN);
        }
        let head = Head {
            flags,
            data,
            ..self.head()
        };
        let length = data.len() as u32 + u32::from(end);
        self.next = self.next.wrapping_add(length);
        head
    }

    /// What the kernel that takes over would say: the container learns of its clock and its window. Twice where something is in
    /// flight: it heeds neither what comes after a gap nor what is over.
    pub fn farewell(&self) -> impl Iterator<Item = Head<'_>> {
        let scale = self.offer.scale.map_or(0, |_| WINDOW_SCALE);
        let head = Head {
            window: (KERNEL_WINDOW >> scale).min(u16::MAX.into()) as u16,
            ..self.head()
        };
        let before = Head {
            sequence: self.unacknowledged,
            ..head
        };
        std::iter::once(head).chain((!self.is_acknowledged()).then_some(before))
    }

    /// What was not acknowledged, once more.
    pub fn again(&self) -> Head<'_> {
        let end = match self.ended {
            true => Flags::FIN,
            false => Flags::default(),
        };
        Head {
            flags: Flags::ACK.with(Flags::PSH).with(end),
            sequence: self.unacknowledged,
            data: &self.in_flight,
            ..self.head()
        }
    }

    /// Ends the connection at once.
    pub fn reset(&self) -> Head<'_> {
        let flags = match self.phase {
            Phase::Asked => Flags::RST,
            Phase::Answered | Phase::Established => Flags::RST.with(Flags::ACK),
        };
        Head {
            flags,
            ..self.head()
        }
    }

    /// All that a kernel needs to go on. `held`: the last bytes received, which nobody has taken.
    pub fn state<'a>(&'a self, held: &'a [u8], timestamp: u32) -> tcp_repair::Connection<'a> {
        // An end that was sent, the kernel sends again.
        let end_acknowledged = u32::from(self.ended && self.is_acknowledged());
        tcp_repair::Connection {
            local: self.ends.destination,
            peer: self.ends.client,
            send_from: self.unacknowledged.wrapping_sub(end_acknowledged),
            unacknowledged: &self.in_flight,
            receive_from: self.received.wrapping_sub(held.len() as u32),
            received: held,
            mss: self.offer.mss,
            send_scale: self.offer.scale.unwrap_or(0),
            receive_scale: self.offer.scale.map_or(0, |_| WINDOW_SCALE),
            sack: self.offer.sack,
            timestamp: Some(timestamp),
            peer_window: self.peer_window,
            window: KERNEL_WINDOW,
        }
    }

    fn acknowledgement(&self) -> u32 {
        let end = u32::from(self.ended && self.peer_ended);
        self.received.wrapping_add(end)
    }

    fn head<'a>(&self) -> Head<'a> {
        Head {
            ends: self.ends,
            place: self.place,
            flags: Flags::ACK,
            sequence: self.next,
            acknowledgement: self.acknowledgement(),
            window: (WINDOW >> self.offer.scale.map_or(0, |_| WINDOW_SCALE)) as u16,
            echo: self.offer.timestamp,
            offer: self.offer,
            segment_len: self.segment_len(),
            data: &[],
        }
    }
}

#[cfg(test)]
mod tests;
