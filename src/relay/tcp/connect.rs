//! Host-side connects under way, each for a SYN that waits at the gate.
//!
//! On the path: gate → **connect** → [`Pending`] and the SYN's second passage; or a refusal back.
//!
//! Invariant: while an attempt lives, [`DESCRIPTORS`] are taken from the budget; they pass to the
//! pending table with the socket, or are given back.

use super::flow::{DESCRIPTORS, reset_on_close};
use super::framed::FramedFlows;
use super::host_side::{Fresh, HostSockets, settle_in};
use super::refusal::Answer;
use crate::relay::event_loop::{Interest, Key, Owner, Readiness, Token};
use crate::relay::host_loopback::{Asked, is_own_peer};
use crate::relay::offender;
use crate::relay::pending::{Connected, FourTuple, Pending, Syn};
use crate::relay::rules::Refusal;
use crate::relay::slots::Slots;
use crate::relay::wire::ip::Packet;
use crate::relay::wire::{ethernet, reset, tcp};
use crate::relay::worker::Context;
use crate::sys::packet::VNET_HEADER_LEN;
use crate::sys::udp::{ErrorQueue, QueuedError};
use socket2::{SockAddr, SockRef};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// What a SYN asks for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    tuple: FourTuple,
    isn: u32,
    /// Where the connection leads, be it called otherwise in the container.
    peer: SocketAddr,
}

/// One attempt.
#[derive(Debug)]
struct Attempt {
    host: OwnedFd,
    wanted: Wanted,
    /// As read at the gate, virtio-net header included.
    frame: Box<[u8]>,
}

/// One worker's attempts.
pub struct Connects {
    attempts: Slots<Attempt>,
    pending: Arc<Pending>,
    sockets: HostSockets,
    errors: ErrorQueue,
}

impl Connects {
    /// None yet.
    pub fn new(pending: Arc<Pending>) -> Self {
        Self {
            attempts: Slots::new(),
            pending,
            sockets: HostSockets::new(),
            // Of what an error quotes nothing is needed.
            errors: ErrorQueue::new(128),
        }
    }

    /// A SYN without ACK has come to the gate in `frame` (virtio-net header first).
    pub fn first_syn(
        &mut self,
        frame: &[u8],
        packet: &Packet<'_>,
        segment: &tcp::Segment<'_>,
        framed: Option<&mut FramedFlows>,
        cx: &mut Context<'_>,
    ) {
        let tuple = FourTuple::of(packet, segment);
        let asked = Asked::Tcp(tuple.destination.port());
        let admitted = (cx.rules).admit(tuple.client.ip(), tuple.destination.ip(), asked);
        let peer = match admitted {
            Ok(address) => SocketAddr::new(address, tuple.destination.port()),
            Err(refusal) => return deny(refusal, tuple, packet, cx),
        };
        let isn = segment.sequence();
        match self.pending.syn(tuple, isn, cx.now) {
            Syn::Connecting | Syn::TooMany => return,
            Syn::PassOn => return cx.gate.reinject(frame),
            Syn::New { abandoned } => {
                if let Some(host) = abandoned {
                    abandon(&host, cx);
                }
            }
        }
        if !cx.budget.take(DESCRIPTORS, cx.now) {
            self.pending.forget(tuple, isn);
            return refuse(packet, Answer::Reset, cx);
        }
        let wanted = Wanted { tuple, isn, peer };
        let host = self.sockets.take(peer, packet.ttl(), cx.rules);
        let started = host.and_then(|host| self.start(host, wanted, frame, framed, cx));
        if let Err(error) = started {
            cx.budget.release(DESCRIPTORS);
            self.pending.forget(tuple, isn);
            tracing::debug!(flow.destination = %tuple.destination, %error, "connect not begun");
            refuse(packet, Answer::to(&error, None), cx);
        }
    }

    fn start(
        &mut self,
        host: Fresh,
        wanted: Wanted,
        frame: &[u8],
        framed: Option<&mut FramedFlows>,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        let Fresh { host, control } = host;
        match SockRef::from(&host).connect(&SockAddr::from(wanted.peer)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        // With a peer on this machine the two kernels have often shaken hands by now. A connect that has
        // failed by now says so by its event, like any other.
        if SockRef::from(&host).peer_addr().is_ok() {
            if is_own_peer(&host, wanted.peer) {
                reset_on_close(&host);
                return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
            }
            self.connected(Connected::new(host), wanted, frame, framed, cx);
            return Ok(());
        }
        if let Err(error) = control.give_back(&host) {
            tracing::debug!(%error, "the host's congestion control not given back");
        }
        let key = self.attempts.insert(Attempt {
            host,
            wanted,
            frame: frame.into(),
        });
        let Some(attempt) = self.attempts.get(key) else {
            return Ok(());
        };
        let token = Token::new(Owner::TcpConnect, key);
        let added = cx.poller.add(attempt.host.as_fd(), token, Interest::WRITE);
        if added.is_err() {
            self.attempts.remove(key);
        }
        added
    }

    /// A connect has come to an end.
    pub fn ready(
        &mut self,
        key: Key,
        readiness: Readiness,
        framed: Option<&mut FramedFlows>,
        cx: &mut Context<'_>,
    ) {
        let Some(attempt) = self.attempts.remove(key) else {
            return;
        };
        let outcome = if readiness.error() {
            SockRef::from(&attempt.host).take_error()
        } else {
            Ok(None)
        };
        let was_reset = match outcome {
            Ok(None) if is_own_peer(&attempt.host, attempt.wanted.peer) => {
                let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
                // Closed without a reset it would keep the port in TIME_WAIT.
                reset_on_close(&attempt.host);
                return self.failed(&attempt, &refused, cx);
            }
            Ok(None) => false,
            // A peer that refuses gives another error: this one accepted, and reset at once. The
            // container gets its connection, and then the reset.
            Ok(Some(error)) if is_reset(&error) => true,
            Ok(Some(error)) | Err(error) => return self.failed(&attempt, &error, cx),
        };
        let Attempt {
            host,
            wanted,
            frame,
        } = attempt;
        // Another worker may accept the flow; a failure would leave it with a stale token here.
        if let Err(error) = cx.poller.remove(host.as_fd()) {
            tracing::debug!(%error, "connected socket not taken out of the epoll set");
        }
        let connected = Connected {
            was_reset,
            ..Connected::new(host)
        };
        self.connected(connected, wanted, &frame, framed, cx);
    }

    fn connected(
        &mut self,
        connected: Connected,
        wanted: Wanted,
        frame: &[u8],
        framed: Option<&mut FramedFlows>,
        cx: &mut Context<'_>,
    ) {
        let mut connected = connected;
        if let Some(framed) = framed
            && !connected.was_reset
            && !(self.pending).abandoned(wanted.tuple, wanted.isn, cx.now)
        {
            match framed.begin(wanted.tuple, connected.host, frame, cx) {
                Ok(()) => return self.pending.forget(wanted.tuple, wanted.isn),
                Err(host) => connected = Connected::new(host),
            }
        }
        settle_in(&connected.host);
        match (self.pending).ready(wanted.tuple, wanted.isn, connected, cx.now) {
            Ok(()) => cx.gate.reinject(frame),
            Err(connected) => abandon(&connected.host, cx),
        }
    }

    fn failed(&mut self, attempt: &Attempt, error: &io::Error, cx: &mut Context<'_>) {
        let Wanted { tuple, isn, .. } = attempt.wanted;
        self.pending.forget(tuple, isn);
        cx.budget.release(DESCRIPTORS);
        let queued = self.queued_error(attempt);
        let answer = Answer::to(error, queued);
        tracing::debug!(
            flow.client = %tuple.client,
            flow.destination = %tuple.destination,
            %error,
            "connect failed"
        );
        if let Some(packet) = packet_of(&attempt.frame) {
            refuse(&packet, answer, cx);
        }
    }

    /// The newest ICMP error about the attempt.
    fn queued_error(&mut self, attempt: &Attempt) -> Option<QueuedError> {
        let mut newest = None;
        while let Ok(queued) = self.errors.next(attempt.host.as_fd()) {
            newest = queued.map(|queued| queued.error).or(newest);
        }
        newest
    }

    /// Makes ready for the next ones; when all else is done.
    pub fn prepare(&mut self) {
        self.sockets.make_ahead();
    }

    /// Drops attempts that nobody waits for any more.
    pub fn tick(&mut self, cx: &mut Context<'_>) {
        self.sockets.tick();
        let over: Vec<Key> = self
            .attempts
            .iter()
            .filter(|(_, Attempt { wanted, .. })| {
                (self.pending).abandoned(wanted.tuple, wanted.isn, cx.now)
            })
            .map(|(key, _)| key)
            .collect();
        for key in over {
            if let Some(attempt) = self.attempts.remove(key) {
                let Wanted { tuple, isn, .. } = attempt.wanted;
                self.pending.forget(tuple, isn);
                cx.budget.release(DESCRIPTORS);
            }
        }
        for host in self.pending.sweep(cx.now) {
            abandon(&host, cx);
        }
    }
}

/// The rules do not let it out.
fn deny(refusal: Refusal, tuple: FourTuple, packet: &Packet<'_>, cx: &mut Context<'_>) {
    tracing::debug!(
        flow.client = %tuple.client,
        flow.destination = %tuple.destination,
        reason = refusal.reason(),
        "flow denied"
    );
    offender::refuse(refusal, packet, cx);
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECONNRESET | libc::EPIPE))
}

/// Gives up a connected host side that nobody took: the peer sees a reset, as when a client dies.
fn abandon(host: &OwnedFd, cx: &Context<'_>) {
    reset_on_close(host);
    cx.budget.release(DESCRIPTORS);
}

fn refuse(packet: &Packet<'_>, answer: Answer, cx: &mut Context<'_>) {
    match answer {
        Answer::Silence => {}
        Answer::Reset => {
            if let Ok(Some(reset)) = reset::reset(packet) {
                cx.gate.inject(&reset);
            }
        }
        Answer::Reported(error) => offender::tell(&error, packet, cx),
        Answer::Notice(notice) => cx.gate.notify(notice, packet),
    }
}

/// The IP packet in a frame that was one before.
fn packet_of(frame: &[u8]) -> Option<Packet<'_>> {
    let frame = ethernet::Frame::parse(frame.get(VNET_HEADER_LEN..)?).ok()?;
    Packet::parse(frame.payload()).ok()
}
