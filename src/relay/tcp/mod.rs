//! TCP: joins the router netns's kernel TCP, which talks to the container, with the host's, which
//! talks to the world.
//!
//! On the path: gate → [`connect`] (host side first) → the SYN goes back into the router netns →
//! listener → **here** (a flow of two sockets) → [`flow`] → [`direction`] (copy or splice).
//!
//! Connections that come in by published ports arrive joined already, from [`super::publish`].
//!
//! Invariant: a flow is begun only when the world has accepted it; it owns two descriptors, taken
//! from the budget before the first one was opened, and a pipe only while bytes are in it.
//!
//! Traps, measured: a listener must be bound to the loopback address, not the wildcard (`socket
//! wildcard` in nft); congestion control comes from the host (bbr costs a third on a veth pair), so
//! the router side's is set to reno, and inherited from the listener as are the other options.

pub mod connect;
pub mod direction;
pub mod flow;
pub mod framed;
pub mod host_side;
pub mod moving;
pub mod pacing;
pub mod pipe_pool;
pub mod refusal;

#[cfg(test)]
mod tests;

use super::bulk::{BulkWorkers, Stay};
use super::event_loop::{Interest, Key, Owner, Poller, Readiness, Token};
use super::host_loopback::Asked;
use super::pending::{Connected, FourTuple, Pending};
use super::rules::Rules;
use super::slots::Slots;
use super::wire::ip::Packet;
use super::wire::tcp::Segment;
use super::worker::Context;
use crate::sys;
use connect::Connects;
use direction::{Early, Scratch, Turn};
use flow::{DESCRIPTORS, Flow, Outcome, Passage, Side, reset_on_close};
use framed::FramedFlows;
use socket2::{SockAddr, SockRef};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections accepted at once, so that flows get their turn.
const ACCEPT_BATCH: usize = 64;

/// How often dying flows are looked after.
const DYING_INTERVAL: Duration = Duration::from_millis(5);

/// After an event of a flow that is not bulk, bulk ones take shorter turns for this long.
const SMALL_IS_ABOUT: Duration = Duration::from_millis(10);

/// Idle pipes are closed after this long without a bulk transfer.
const PIPES_IDLE: Duration = Duration::from_secs(30);

/// What a round has brought of TCP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// A bulk transfer has gone on.
    pub bulk: bool,
    /// A flow that is none, or that is about to be one, had something to do.
    pub small: bool,
}

/// One worker's TCP.
pub struct Tcp {
    /// IPv4, IPv6.
    listeners: [Option<OwnedFd>; 2],
    pending: Arc<Pending>,
    connects: Connects,
    /// Where the kernel has what they take.
    framed: Option<FramedFlows>,
    flows: Slots<Flow>,
    scratch: Scratch,
    /// Flows whose turn was over with work left.
    queue: VecDeque<Key>,
    dying: Vec<Key>,
    last_bulk: Option<Instant>,
    /// See [`Tcp::moved`].
    moved_bulk: bool,
    /// When a flow that is not bulk last had something to do.
    last_small: Option<Instant>,
    /// Where bulk flows go.
    bulk: BulkWorkers,
    /// Of flows that have come from another worker.
    stays: HashMap<Key, Arc<Stay>>,
}

impl Tcp {
    /// Serves the listeners (IPv4, IPv6).
    pub fn new(
        listeners: [Option<OwnedFd>; 2],
        pending: Arc<Pending>,
        poller: &Poller,
    ) -> io::Result<Self> {
        for (slot, listener) in (0..).zip(&listeners) {
            if let Some(listener) = listener {
                let token = Token::new(Owner::TcpListener, Key::fixed(slot));
                poller.add(listener.as_fd(), token, Interest::READ)?;
            }
        }
        Ok(Self {
            listeners,
            connects: Connects::new(Arc::clone(&pending)),
            framed: None,
            pending,
            flows: Slots::new(),
            scratch: Scratch::new(),
            queue: VecDeque::new(),
            dying: Vec::new(),
            last_bulk: None,
            moved_bulk: false,
            last_small: None,
            bulk: BulkWorkers::default(),
            stays: HashMap::new(),
        })
    }

    /// From now on it speaks with containers itself, where that is better.
    pub fn speak(&mut self, framed: FramedFlows) {
        self.framed = Some(framed);
    }

    /// A SYN without ACK has come to the gate in `frame` (virtio-net header first).
    pub fn first_syn(
        &mut self,
        frame: &[u8],
        packet: &Packet<'_>,
        segment: &Segment<'_>,
        cx: &mut Context<'_>,
    ) {
        self.last_small = Some(cx.now);
        if let Some(framed) = &mut self.framed
            && framed.first_syn(FourTuple::of(packet, segment), segment, cx)
        {
            return;
        }
        let framed = self.framed.as_mut();
        self.connects.first_syn(frame, packet, segment, framed, cx);
    }

    /// Handles an event of one of its descriptors.
    pub fn ready(&mut self, token: Token, readiness: Readiness, cx: &mut Context<'_>) {
        match token.owner {
            Owner::TcpListener => self.accept(token.key, cx),
            Owner::TcpConnect => {
                self.last_small = Some(cx.now);
                let framed = self.framed.as_mut();
                self.connects.ready(token.key, readiness, framed, cx);
            }
            Owner::TcpFramed => {
                self.last_small = Some(cx.now);
                if let Some(framed) = &mut self.framed {
                    framed.host_ready(token.key, readiness, cx);
                }
            }
            Owner::TcpRouter => self.flow_ready(token.key, Side::Router, readiness, cx),
            Owner::TcpHost => self.flow_ready(token.key, Side::Host, readiness, cx),
            Owner::Gate
            | Owner::UdpListener
            | Owner::UdpHost
            | Owner::UdpRouter
            | Owner::IcmpHost
            | Owner::Wake
            | Owner::PublishListener
            | Owner::PublishConnect
            | Owner::PublishClient
            | Owner::PublishUdp
            | Owner::Tap => {}
        }
    }

    /// What the round that began at `now` has brought.
    pub fn moved(&mut self, now: Instant) -> Moved {
        Moved {
            bulk: std::mem::take(&mut self.moved_bulk),
            small: self.last_small == Some(now),
        }
    }

    /// How long the worker may wait for events.
    pub fn patience(&self, now: Instant) -> Option<Duration> {
        if !self.queue.is_empty() {
            return Some(Duration::ZERO);
        }
        let dying = (!self.dying.is_empty()).then_some(DYING_INTERVAL);
        let framed = self.framed.as_ref();
        let framed = framed.and_then(|framed| framed.patience(now));
        dying.into_iter().chain(framed).min()
    }

    /// Goes on with flows that wait for no event; once a round of the loop. `quiet`: it has brought no event.
    pub fn resume(&mut self, quiet: bool, cx: &mut Context<'_>) {
        if let Some(framed) = &mut self.framed {
            for over in framed.settle(quiet, cx) {
                self.take_over(over, cx);
            }
        }
        let recently = |last: Instant| cx.now.saturating_duration_since(last) < SMALL_IS_ABOUT;
        self.scratch.turn = match self.last_small {
            Some(last) if recently(last) => Turn::SHORT,
            Some(_) | None => Turn::LONG,
        };
        for _ in 0..self.queue.len() {
            let Some(key) = self.queue.pop_front() else {
                break;
            };
            if let Some(flow) = self.flows.get_mut(key) {
                flow.queued = false;
            }
            self.pump(key, cx);
        }
        for key in std::mem::take(&mut self.dying) {
            if let Some(flow) = self.flows.get_mut(key) {
                flow.watched = false;
            }
            self.pump(key, cx);
        }
        self.connects.prepare();
    }

    /// Once a second or so.
    pub fn tick(&mut self, cx: &mut Context<'_>) {
        self.connects.tick(cx);
        if let Some(framed) = &mut self.framed {
            framed.tick(cx);
            framed.forget_late(|key| self.flows.get(key).is_some());
        }
        if self
            .last_bulk
            .is_some_and(|last| cx.now.duration_since(last) >= PIPES_IDLE)
        {
            self.scratch.pipes.shrink();
            self.last_bulk = None;
        }
    }

    /// Resets flows that the rules no longer admit. To be called when there are new rules.
    pub fn recheck(&mut self, cx: &mut Context<'_>) {
        if let Some(framed) = &mut self.framed {
            framed.recheck(cx);
        }
        let over: Vec<Key> = self
            .flows
            .iter()
            .filter(|(_, flow)| is_refused(flow, cx.rules))
            .map(|(key, _)| key)
            .collect();
        for key in over {
            self.close(key, cx);
        }
    }

    fn accept(&mut self, key: Key, cx: &mut Context<'_>) {
        for _ in 0..ACCEPT_BATCH {
            let Some(Some(listener)) = self.listeners.get(key.slot as usize) else {
                return;
            };
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            match SockRef::from(listener).accept4(flags) {
                Ok((socket, client)) => {
                    self.accepted(socket.into(), &client, cx);
                    // An accept4(2) that finds nobody makes a socket and a file in vain. Whoever waits all the
                    // same is told of again.
                    if !self.pending.any_ready() {
                        return;
                    }
                }
                Err(error) => match error.raw_os_error() {
                    // Gone before we came.
                    Some(libc::ECONNABORTED | libc::EINTR) => {}
                    Some(libc::EAGAIN) => return,
                    _ => {
                        tracing::warn!(%error, "connection not accepted");
                        return;
                    }
                },
            }
        }
    }

    fn accepted(&mut self, router: OwnedFd, client: &SockAddr, cx: &mut Context<'_>) {
        let arrival = arrival(&router, client);
        let connected = arrival.and_then(|(tuple, isn)| self.pending.accept(tuple, isn, cx.now));
        let (Some((tuple, _)), Some(connected)) = (arrival, connected) else {
            // Nobody asked for it, or its host side was given up meanwhile.
            return reset_on_close(&router);
        };
        let Connected { host, was_reset } = connected;
        if was_reset && is_empty(&host) {
            cx.budget.release(DESCRIPTORS);
            return reset_on_close(&router);
        }
        let key = self.begin(Flow::new(router, host), cx);
        tracing::debug!(
            flow.id = key.slot,
            flow.client = %tuple.client,
            flow.destination = %tuple.destination,
            "flow begun"
        );
    }

    /// Takes over a published port's connection, for which descriptors were taken from the budget:
    /// `host` leads to the client, of which `early` was read, `router` to the container.
    pub fn adopt(
        &mut self,
        router: OwnedFd,
        host: OwnedFd,
        early: Early,
        passage: Passage,
        cx: &mut Context<'_>,
    ) {
        let flow = Flow::new(router, host)
            .passing(Box::new(passage))
            .begun(early);
        self.begin(flow, cx);
    }

    /// What a client has sent before its flow begins; see [`Scratch::first_bytes`].
    pub fn first_bytes(&mut self, host: &OwnedFd) -> io::Result<&[u8]> {
        self.scratch.first_bytes(host)
    }

    fn begin(&mut self, flow: Flow, cx: &mut Context<'_>) -> Key {
        self.last_small = Some(cx.now);
        self.enter(flow, cx)
    }

    fn enter(&mut self, flow: Flow, cx: &mut Context<'_>) -> Key {
        let key = self.flows.insert(flow);
        let Some(flow) = self.flows.get(key) else {
            return key;
        };
        for side in [Side::Router, Side::Host] {
            let token = Token::new(owner(side), key);
            if let Err(error) = cx
                .poller
                .add(flow.socket(side), token, Interest::STREAM_READ_EDGE)
            {
                tracing::warn!(%error, "flow not watched");
                self.close(key, cx);
                return key;
            }
        }
        if flow.holds() {
            self.pump(key, cx);
        }
        key
    }

    fn pump(&mut self, key: Key, cx: &mut Context<'_>) {
        if let Some(flow) = self.flows.get_mut(key) {
            let outcome = flow.pump(&mut self.scratch, cx.now);
            self.settle(key, outcome, cx);
        }
    }

    fn flow_ready(&mut self, key: Key, side: Side, readiness: Readiness, cx: &mut Context<'_>) {
        if let Some(flow) = self.flows.get_mut(key) {
            match flow.is_bulk() {
                true => self.moved_bulk = true,
                false => self.last_small = Some(cx.now),
            }
            let outcome = flow.ready(side, readiness, &mut self.scratch, cx.now);
            self.settle(key, outcome, cx);
        }
    }

    fn settle(&mut self, key: Key, outcome: Outcome, cx: &mut Context<'_>) {
        if outcome != Outcome::Over && !self.watch_room(key, cx) {
            return self.close(key, cx);
        }
        match outcome {
            Outcome::Wait => {}
            Outcome::TurnOver => {
                self.last_bulk = Some(cx.now);
                if self.move_away(key, cx) {
                    return;
                }
                if let Some(flow) = self.flows.get_mut(key)
                    && !flow.queued
                {
                    flow.queued = true;
                    self.queue.push_back(key);
                }
            }
            Outcome::Dying => {
                if let Some(flow) = self.flows.get_mut(key)
                    && !flow.watched
                {
                    flow.watched = true;
                    self.dying.push(key);
                }
            }
            Outcome::Over => self.close(key, cx),
        }
    }

    /// Waits for room from now on where that is what a flow lacks. `false` where that cannot be.
    fn watch_room(&mut self, key: Key, cx: &Context<'_>) -> bool {
        let Some(flow) = self.flows.get_mut(key) else {
            return true;
        };
        while let Some(side) = flow.room_to_watch() {
            let token = Token::new(owner(side), key);
            let socket = flow.socket(side);
            if let Err(error) = cx.poller.modify(socket, token, Interest::STREAM_EDGE) {
                tracing::warn!(%error, "flow not watched");
                return false;
            }
        }
        true
    }

    fn close(&mut self, key: Key, cx: &Context<'_>) {
        if let Some(flow) = self.flows.remove(key) {
            self.stays.remove(&key);
            self.end(flow, cx);
            tracing::debug!(flow.id = key.slot, "flow over");
        }
    }

    /// Closes a flow that is in no slot.
    fn end(&mut self, flow: Flow, cx: &Context<'_>) {
        flow.close(&mut self.scratch.pipes);
        cx.budget.release(DESCRIPTORS);
    }
}

fn owner(side: Side) -> Owner {
    match side {
        Side::Router => Owner::TcpRouter,
        Side::Host => Owner::TcpHost,
    }
}

/// Whether the rules do not admit a flow that there is.
fn is_refused(flow: &Flow, rules: &Rules) -> bool {
    // Asked of the kernel: addresses would double the size of a flow.
    let Some(tuple) = ends(&flow.socket(Side::Router)) else {
        return false;
    };
    let (client, destination) = (tuple.client.ip(), tuple.destination);
    if flow.is_published() {
        // It came in by a published port, and stays when that is taken back. Here the peer is the container.
        return !rules.is_ours(client);
    }
    let asked = Asked::Tcp(destination.port());
    rules.admit(client, destination.ip(), asked).is_err()
}

/// Ends of an accepted connection. `None` where it is not connected any more.
fn ends(router: &BorrowedFd<'_>) -> Option<FourTuple> {
    let router = SockRef::from(router);
    four_tuple(&router.peer_addr().ok()?, &router.local_addr().ok()?)
}

fn four_tuple(client: &SockAddr, destination: &SockAddr) -> Option<FourTuple> {
    Some(FourTuple {
        client: client.as_socket()?,
        destination: destination.as_socket()?,
    })
}

/// Nothing came from a host side before it was reset.
fn is_empty(host: &OwnedFd) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    !SockRef::from(host)
        .peek(&mut byte)
        .is_ok_and(|count| count > 0)
}

/// What an accepted connection is, and the initial sequence number of its SYN; the SYN tells both. One
/// that was made from a SYN cookie has none.
fn arrival(router: &OwnedFd, client: &SockAddr) -> Option<(FourTuple, Option<u32>)> {
    let kept = sys::tcp::saved_syn(router.as_fd()).ok();
    let syn = kept.and_then(|syn| syn_of(syn.bytes()));
    if let Some((tuple, isn)) = syn {
        return Some((tuple, Some(isn)));
    }
    let destination = SockRef::from(router).local_addr().ok()?;
    Some((four_tuple(client, &destination)?, None))
}

/// Ends and initial sequence number of a SYN, from its headers, beginning with IP's; its data may be missing.
pub fn syn_of(headers: &[u8]) -> Option<(FourTuple, u32)> {
    let packet = Packet::parse(headers).ok()?;
    let segment = Segment::of(&packet).ok()?;
    Some((FourTuple::of(&packet, &segment), segment.sequence()))
}
