//! Framed flows: TCP connections whose container side the relay speaks itself, frame by frame.
//!
//! On the path: container → its port on the bridge → tap (a ring that sees the frame; `guard` drops it there) →
//! **here** → host-side socket; and back as a frame to that port.
//!
//! Two kernel sockets joined by a relay pass TCP four times. For short messages and short connections that is
//! nearly all of the cost, and two of the four passes are between two ends on one machine, which lose nothing and
//! reorder nothing. So a connection begins without a socket in the router netns. As long as segments are due when
//! they come and little is under way, [`Connection`] is all of TCP that is needed. What is anything else goes to
//! the kernel for good ([`settle`](FramedFlows::settle)): bulk transfers, which it moves by splice; a peer that
//! does not read; a segment lost; a half-closed connection; one that rests.
//!
//! The frames are known by their timestamps: ours bear a fixed value, which the container echoes. When the kernel
//! has taken over, its clock goes on from there. What was sent before that comes to the tap all the same, and is
//! sent on to the kernel by way of `up0` (`late`).
//!
//! Invariant: a flow has [`DESCRIPTORS`] of the budget, the second for the socket that it may get.
//!
//! Sources: RFC 9293, RFC 7323, tcp(7) (TCP_REPAIR), packet(7).

pub mod asked;
mod care;
pub mod connection;
pub mod frame;
mod inward;
mod join;
mod outward;
pub mod wanted;

use super::flow::{DESCRIPTORS, Passage, reset_on_close};
use crate::relay::endpoints::Place;
use crate::relay::event_loop::{Interest, Key, Owner, Token};
use crate::relay::pending::FourTuple;
use crate::relay::slots::Slots;
use crate::relay::tcp::moving::Whereabouts;
use crate::relay::wire::ethernet::Frame;
use crate::relay::wire::ip::Packet;
use crate::relay::wire::tcp::Segment;
use crate::relay::worker::Context;
use crate::sys::packet::{VNET_HEADER_LEN, checksum_is_known};
use asked::{Question, Unanswered};
use care::Resetting;
use connection::{BULK_FROM, Connection, Offer, Received};
use frame::FrameSender;
use mossnet_helper::framed::{FRAMED_MASK, FRAMED_TIMESTAMP};
use outward::Delay;
use socket2::SockRef;
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;
use std::io;
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Most bytes read of a host side at once; one that has more is about to send in bulk.
const READ_LEN: usize = 16 * 1024;
/// Most bytes under way to a container.
const FLIGHT_LEN: usize = 32 * 1024;
/// How long an acknowledgement waits for data to go with, at most. The kernel waits 40 ms.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(5);
/// It does not wait when nothing happens for so long: who writes twice before it reads, and does not say TCP_NODELAY, waits for
/// it (RFC 1122 §4.2.3.4). Where a lot happens, the answer is on its way, and one frame is spared.
const QUIET_AFTER: Duration = Duration::from_millis(1);
/// A container acknowledges within microseconds, and its timers are no shorter than this.
const STALE_AFTER: Duration = Duration::from_millis(200);
/// A container that does not hear our answer to its SYN is answered again, for so long.
const GREET_FOR: Duration = Duration::from_secs(10);
/// A flow that rests is the kernel's, which asks whether its container still lives.
const IDLE_AFTER: Duration = Duration::from_secs(60);
/// How long a host side has for taking what came before a reset.
const RESET_WITHIN: Duration = Duration::from_secs(60);

/// A flow.
#[derive(Debug)]
struct Framed {
    connection: Connection,
    host: OwnedFd,
    /// Received bytes that the host side did not take yet.
    held: Vec<u8>,
    /// When its container was last heard of.
    heard: Instant,
    /// Stands in `owed`.
    owes: bool,
    /// Stands in `unsure`.
    watched: bool,
    /// Stands in `leaving`.
    leaves: bool,
    /// The host side was reset, which the container hears when it has all that came before.
    broken: bool,
    /// The host side had an event that could not be handled before the container had answered.
    early_event: bool,
    /// As long as a container is asked.
    asked: Option<Box<Question>>,
    /// Of a published port.
    passage: Option<Box<Passage>>,
    delay: Delay,
}

/// A flow that a kernel socket goes on with.
#[derive(Debug)]
pub struct HandedOver {
    /// Container and peer.
    pub ends: FourTuple,
    /// Of the router netns.
    pub router: OwnedFd,
    /// Of the host's.
    pub host: OwnedFd,
    /// Read of the host side, not sent yet.
    pub unsent: Box<[u8]>,
    /// The host side was reset, of which the socket does not tell a second time.
    pub broken: bool,
    /// Of a published port.
    pub passage: Option<Box<Passage>>,
}

/// On its way to the kernel.
#[derive(Debug)]
struct Leaving {
    key: Key,
    unsent: Box<[u8]>,
}

/// One worker's framed flows.
#[derive(Debug)]
pub struct FramedFlows {
    flows: Slots<Framed>,
    by_ends: HashMap<FourTuple, Key>,
    sender: FrameSender,
    buffer: Box<[u8]>,
    /// Flows with something to acknowledge, and since when; oldest first.
    owed: VecDeque<(Instant, Key)>,
    /// Flows with something that the container has not acknowledged, and since when; oldest first.
    unsure: VecDeque<(Instant, Key, u32)>,
    leaving: Vec<Leaving>,
    /// Connections that the kernel has taken over, as long as they last: until a container has heard the kernel's clock,
    /// which takes as long as it drops what is sent to it, it echoes ours.
    late: HashMap<FourTuple, Whereabouts>,
    resetting: Vec<Resetting>,
    /// Whose containers refuse, or do not answer.
    unanswered: Vec<Unanswered>,
    /// Containers that have not answered, and until when the kernel asks them at once.
    silent: HashMap<IpAddr, Instant>,
    /// For initial sequence numbers.
    secret: RandomState,
    epoch: Instant,
}

impl FramedFlows {
    /// None yet.
    pub fn new(sender: FrameSender, now: Instant) -> Self {
        Self {
            flows: Slots::new(),
            by_ends: HashMap::new(),
            sender,
            buffer: vec![0; READ_LEN].into_boxed_slice(),
            owed: VecDeque::new(),
            unsure: VecDeque::new(),
            leaving: Vec::new(),
            late: HashMap::new(),
            resetting: Vec::new(),
            unanswered: Vec::new(),
            silent: HashMap::new(),
            secret: RandomState::new(),
            epoch: now,
        }
    }

    /// A connection whose host side is there, asked for by `syn` (a frame, virtio-net header first). Gives the
    /// socket back where the kernel must speak with the container.
    pub fn begin(
        &mut self,
        ends: FourTuple,
        host: OwnedFd,
        syn: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), OwnedFd> {
        let place = cx.endpoints.find(ends.client.ip());
        let (Some(place), Some(offer)) = (place, offer_of(syn)) else {
            return Err(host);
        };
        let isn = self.initial_number(ends, cx.now);
        let connection = Connection::answering(ends, place, offer, isn);
        let flow = Framed::new(connection, host, cx.now);
        let key = self.enter(flow, cx).map_err(|flow| flow.host)?;
        tracing::debug!(
            flow.id = key.slot,
            flow.client = %ends.client,
            flow.destination = %ends.destination,
            "framed flow begun"
        );
        Ok(())
    }

    /// Sends our SYN. Gives the flow back where that cannot be.
    #[expect(
        clippy::result_large_err,
        reason = "of no consequence: it is one of two ways on"
    )]
    fn enter(&mut self, flow: Framed, cx: &Context<'_>) -> Result<Key, Framed> {
        let ends = flow.connection.ends();
        let since = flow.connection.unacknowledged();
        let key = self.flows.insert(flow);
        if let Err(error) = self.greet(key, cx)
            && let Some(flow) = self.flows.remove(key)
        {
            tracing::debug!(%error, "framed flow not begun");
            return Err(flow);
        }
        self.by_ends.insert(ends, key);
        self.unsure.push_back((cx.now, key, since));
        Ok(key)
    }

    /// First of all the SYN: while the container reads it, the rest is done.
    fn greet(&mut self, key: Key, cx: &Context<'_>) -> io::Result<()> {
        let Some(flow) = self.flows.get(key) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        self.sender.send(&flow.connection.greeting())?;
        let token = Token::new(Owner::TcpFramed, key);
        let interest = Interest::STREAM_READ_EDGE;
        let watched = cx.poller.add(flow.host.as_fd(), token, interest);
        if watched.is_err() {
            let _ = self.sender.send(&flow.connection.reset());
        }
        watched
    }

    /// A SYN has come to the gate: `true` where it is of a flow that there is, and was seen to. A new one
    /// between the same ports ends the old flow.
    pub fn first_syn(
        &mut self,
        ends: FourTuple,
        segment: &Segment<'_>,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(&key) = self.by_ends.get(&ends) else {
            return false;
        };
        let Some(flow) = self.flows.get(key) else {
            return false;
        };
        if flow.connection.peer_isn() == segment.sequence() {
            if !flow.connection.is_established() {
                let _ = self.sender.send(&flow.connection.greeting());
            }
            return true;
        }
        self.abort(key, cx);
        false
    }

    /// A frame has come to the tap by `port`, virtio-net header first.
    pub fn frame(&mut self, port: u32, frame: &[u8], cx: &mut Context<'_>) {
        let known = checksum_is_known(frame);
        let ethernet = frame.get(VNET_HEADER_LEN..).unwrap_or_default();
        let Ok(ethernet) = Frame::parse(ethernet) else {
            return;
        };
        let Ok(packet) = Packet::parse(ethernet.payload()) else {
            return;
        };
        let Ok(segment) = Segment::of(&packet) else {
            return;
        };
        if packet.is_fragment() || !known && !segment.is_intact(&packet) {
            return;
        }
        let ends = FourTuple::of(&packet, &segment);
        let Some(&key) = self.by_ends.get(&ends) else {
            return self.unknown(ends, (port, frame), &packet, &segment, cx);
        };
        let from = Place {
            port,
            mac: ethernet.source(),
        };
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        // Anybody can write another's address; the port is where it is.
        if flow.connection.place() == from {
            flow.heard = cx.now;
            self.segment(key, &segment, cx);
        }
    }

    /// Of no flow: of one that the kernel has taken over, or of one that is gone.
    fn unknown(
        &mut self,
        ends: FourTuple,
        (port, frame): (u32, &[u8]),
        packet: &Packet<'_>,
        segment: &Segment<'_>,
        cx: &mut Context<'_>,
    ) {
        if segment.timestamps().is_none() {
            // The answer to something of the kernel's own.
            return;
        }
        let place = cx.endpoints.find(ends.client.ip());
        if place.is_none_or(|place| place.port != port) {
            return;
        }
        if self.late.contains_key(&ends) {
            cx.gate.reinject(frame);
        } else if let Ok(Some(reset)) = crate::relay::wire::reset::reset(packet) {
            cx.gate.inject(&reset);
        }
    }

    fn segment(&mut self, key: Key, segment: &Segment<'_>, cx: &mut Context<'_>) {
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        let received = flow.connection.receive(segment);
        if flow.asked.is_some() {
            match received {
                Received::Due { .. } => self.answered(key, cx),
                Received::Reset => self.not_answered(key, true, cx),
                Received::Repeated | Received::Odd | Received::Nothing => {}
            }
            return;
        }
        match received {
            Received::Nothing => {}
            Received::Odd if flow.connection.has_ended() && flow.connection.peer_has_ended() => {
                // Nothing is left for a kernel to receive.
                let _ = self.sender.send(&flow.connection.acknowledge());
            }
            Received::Repeated => {
                let _ = self.sender.send(&flow.connection.acknowledge());
            }
            Received::Reset => self.reset_by_container(key, cx),
            Received::Odd => self.leave(key, &[], "odd segment"),
            Received::Due { data, end } => {
                if !flow.pass_outward(data) {
                    return self.pass_inward(key, true, cx);
                }
                // Who has ended sends no more of it.
                let much = !end && flow.connection.owed() >= BULK_FROM;
                if much || !flow.held.is_empty() {
                    return self.leave(key, &[], "bulk outward");
                }
                if !data.is_empty() && !flow.owes {
                    flow.owes = true;
                    self.owed.push_back((cx.now, key));
                }
                if end {
                    self.container_ended(key);
                }
                self.finish(key, cx);
            }
        }
    }

    /// The container's last byte has been passed on.
    fn container_ended(&mut self, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        if flow.connection.has_ended() {
            let _ = self.sender.send(&flow.connection.acknowledge());
        } else if !flow.leaves {
            // ENOTCONN: the connection is gone, which its next event will tell.
            let _ = SockRef::from(&flow.host).shutdown(Shutdown::Write);
        }
    }

    /// Closes a flow of which nothing is left, or whose container has all that came before the reset.
    fn finish(&mut self, key: Key, cx: &mut Context<'_>) {
        let Some(flow) = self.flows.get(key) else {
            return;
        };
        if flow.connection.is_over() {
            self.remove(key, cx);
        } else if flow.broken && !flow.leaves && flow.connection.is_acknowledged() {
            self.abort(key, cx);
        }
    }

    /// The container has reset its connection: so will the host side be, behind what came before.
    fn reset_by_container(&mut self, key: Key, cx: &mut Context<'_>) {
        if let Some(flow) = self.remove(key, cx) {
            let until = cx.now + RESET_WITHIN;
            let (host, held) = (flow.host, flow.held);
            let resetting = Resetting { host, held, until };
            self.resetting.extend(resetting.go_on(cx.now));
        }
    }

    /// Ends both sides at once.
    fn abort(&mut self, key: Key, cx: &mut Context<'_>) {
        if let Some(flow) = self.remove(key, cx) {
            let _ = self.sender.send(&flow.connection.reset());
            reset_on_close(&flow.host);
        }
    }

    fn remove(&mut self, key: Key, cx: &Context<'_>) -> Option<Framed> {
        let flow = self.flows.remove(key)?;
        self.by_ends.remove(&flow.connection.ends());
        cx.budget.release(DESCRIPTORS);
        tracing::debug!(flow.id = key.slot, "framed flow over");
        Some(flow)
    }

    /// To the kernel, as soon as what has come already is in. `unsent`: read of the host side.
    fn leave(&mut self, key: Key, unsent: &[u8], reason: &'static str) {
        if let Some(flow) = self.flows.get_mut(key)
            && !flow.leaves
        {
            tracing::debug!(flow.id = key.slot, reason, "framed flow leaves");
            flow.leaves = true;
            if let Some(passage) = &flow.passage {
                passage.counters.carry(unsent.len() as u64, 0);
            }
            let unsent = unsent.into();
            self.leaving.push(Leaving { key, unsent });
        }
    }

    /// RFC 6528: a clock of 4 µs, and a number that nobody else can know.
    fn initial_number(&self, ends: FourTuple, now: Instant) -> u32 {
        let clock = now.saturating_duration_since(self.epoch).as_micros() / 4;
        // Both modulo 2^32.
        (self.secret.hash_one(ends) as u32).wrapping_add(clock as u32)
    }
}

impl Framed {
    /// A flow whose SYN is about to be sent.
    fn new(connection: Connection, host: OwnedFd, now: Instant) -> Self {
        Self {
            connection,
            host,
            held: Vec::new(),
            heard: now,
            owes: false,
            watched: true,
            leaves: false,
            broken: false,
            early_event: false,
            asked: None,
            passage: None,
            delay: Delay::NothingSent,
        }
    }
}

/// What marks the flows of the `number`th worker.
pub fn timestamp(number: usize) -> u32 {
    // There are no more than four.
    FRAMED_TIMESTAMP | (number as u32 & !FRAMED_MASK)
}

/// What the SYN in a frame offers.
fn offer_of(frame: &[u8]) -> Option<Offer> {
    let ethernet = Frame::parse(frame.get(VNET_HEADER_LEN..)?).ok()?;
    let packet = Packet::parse(ethernet.payload()).ok()?;
    Offer::of(&Segment::of(&packet).ok()?)
}
