//! Container → world.

use super::flow::{Flow, FlowKey, Own, RouterSide};
use super::replies;
use super::transmit::{Segmentation, Way, transmit};
use super::{FLOW_BUFFER, State, Udp, about, enlarge};
use crate::relay::event_loop::{Interest, Key, Owner, Token};
use crate::relay::offender;
use crate::relay::rules::Refusal;
use crate::relay::rush;
use crate::relay::wire::icmp::Notice;
use crate::relay::wire::ip::Packet;
use crate::relay::wire::udp as wire_udp;
use crate::relay::worker::Context;
use crate::sys::udp::{self, Batch, Datagram, Received, Report};
use mossnet_helper::ruleset::WHOLE_MARK;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// Batches taken from a listener before others get their turn.
const LISTENER_ROUNDS: usize = 16;

impl Udp {
    /// Reads a listener until it is empty, or has had its turn.
    pub(super) fn drain(&mut self, v6: bool, cx: &mut Context<'_>) {
        let listener = if v6 {
            self.listeners.v6.as_ref()
        } else {
            Some(&self.listeners.v4)
        };
        let Some(listener) = listener else { return };
        for _ in 0..LISTENER_ROUNDS {
            let reads = &mut self.state.reads[usize::from(v6)];
            reads.begun += 1;
            let read = reads.begun;
            match self.batch.receive(listener.as_fd()) {
                Ok(count) => {
                    self.state.take_batch(&self.batch, count, cx);
                    if count == self.batch.slots() {
                        continue;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::debug!(%error, "UDP listener not read");
                    return;
                }
            }
            self.state.reads[usize::from(v6)].emptied = read;
            return;
        }
    }

    /// Reads a flow's own socket, unless older datagrams of it may wait in the listener.
    pub(super) fn router_ready(&mut self, id: Key, cx: &mut Context<'_>) {
        if !self.state.is_next_in_order(id) {
            let v6 = self.state.flows.get(id).is_some_and(Flow::v6);
            self.drain(v6, cx);
            if !self.state.is_next_in_order(id) {
                // The event lasts, and comes again.
                return;
            }
        }
        let Some(flow) = self.state.flows.get(id) else {
            return;
        };
        let RouterSide::Own(own) = &flow.router else {
            return;
        };
        let client = flow.key.client.ip();
        let messages = match self.batch.receive(own.socket.as_fd()) {
            Ok(messages) => messages,
            Err(error) => {
                tracing::trace!(%error, "UDP flow not read");
                return;
            }
        };
        let mut divisible = false;
        let taken = self.batch.iter();
        let datagrams: Vec<_> = taken
            .inspect(|received| divisible |= is_divisible(received))
            .map(|received| datagram(&received))
            .collect();
        let late = messages >= rush::LATE;
        cx.rushes.heard(client, count(&datagrams), late, cx.now);
        self.state.send_out(id, &datagrams, divisible, cx);
    }

    /// Carries a datagram that came by the gate because few hops were left to it: traceroute.
    pub fn low_ttl_datagram(&mut self, packet: &Packet<'_>, cx: &mut Context<'_>) {
        if !packet.is_fragment() {
            return self.state.probe(packet, cx);
        }
        let Some(whole) = self.state.fragments.add(packet, cx.now) else {
            return;
        };
        if let Ok(packet) = Packet::parse(&whole.bytes) {
            self.state.probe(&packet, cx);
        }
    }
}

/// A run of datagrams of one flow.
#[derive(Clone, Copy)]
struct Begun {
    key: FlowKey,
    /// Of the first one: for the flow, when it is new.
    ttl: Option<u8>,
    /// A router may take one of them apart.
    divisible: bool,
}

impl State {
    /// Sorts a listener's batch by flow and sends it on.
    fn take_batch(&mut self, batch: &Batch, messages: usize, cx: &mut Context<'_>) {
        let mut run: Vec<Datagram<'_>> = Vec::new();
        let mut current: Option<Begun> = None;
        let late = messages >= rush::LATE;
        for received in batch.iter() {
            let Some(key) = key(&received) else { continue };
            if current.is_none_or(|current| current.key != key) {
                let begun = Begun {
                    key,
                    ttl: received.ttl,
                    divisible: false,
                };
                if let Some(before) = current.replace(begun) {
                    (cx.rushes).heard(before.key.client.ip(), count(&run), late, cx.now);
                    self.forward(before, &run, cx);
                }
                run.clear();
            }
            if let Some(current) = &mut current {
                current.divisible |= is_divisible(&received);
            }
            run.push(datagram(&received));
        }
        if let Some(current) = current {
            (cx.rushes).heard(current.key.client.ip(), count(&run), late, cx.now);
            self.forward(current, &run, cx);
        }
    }

    /// A datagram read by the gate.
    fn probe(&mut self, packet: &Packet<'_>, cx: &mut Context<'_>) {
        let Ok(probe) = wire_udp::Datagram::of(packet) else {
            return;
        };
        let key = FlowKey {
            client: SocketAddr::new(packet.source(), probe.source_port()),
            destination: SocketAddr::new(packet.destination(), probe.destination_port()),
        };
        let datagram = Datagram {
            data: probe.payload(),
            segment: None,
            tos: packet.tos(),
            ttl: Some(packet.ttl()),
        };
        let begun = Begun {
            key,
            ttl: None,
            divisible: matches!(packet, Packet::V4(packet) if !packet.dont_fragment()),
        };
        self.forward(begun, &[datagram], cx);
    }

    /// Sends datagrams of one flow, which need not exist yet.
    fn forward(&mut self, begun: Begun, datagrams: &[Datagram<'_>], cx: &mut Context<'_>) {
        let Begun {
            key,
            ttl,
            divisible,
        } = begun;
        let known = self.flows.find(&key);
        if let Some(id) = known.or_else(|| self.admit(key, ttl, datagrams, cx)) {
            self.send_out(id, datagrams, divisible, cx);
        }
    }

    /// Makes a flow, or tells the container why there is none.
    fn admit(
        &mut self,
        key: FlowKey,
        ttl: Option<u8>,
        datagrams: &[Datagram<'_>],
        cx: &mut Context<'_>,
    ) -> Option<Key> {
        if key.destination.port() == 0 || key.client.port() == 0 {
            return None;
        }
        let peer = match key.admitted(cx.rules) {
            Ok(peer) => peer,
            Err(refusal) => {
                deny(key, refusal, datagrams, cx);
                return None;
            }
        };
        self.make_room(key.client.ip(), cx);
        let opened = self
            .open_within_budget(key, peer, ttl, cx)
            .or_else(|error| {
                if !ran_out(&error) {
                    return Err(error);
                }
                // Descriptors or ports of the host: at the cost of whoever has most of them.
                let victim = self.flows.oldest_of_largest().ok_or(error)?;
                self.evict(victim, cx);
                self.open_within_budget(key, peer, ttl, cx)
            });
        opened
            .inspect_err(|error| {
                tracing::debug!(flow.client = %key.client, flow.destination = %key.destination, %error, "UDP flow not opened");
                if let Some(notice) = Notice::of(error) {
                    for datagram in datagrams {
                        notify(key, datagram, notice, cx);
                    }
                }
            })
            .ok()
    }

    fn open_within_budget(
        &mut self,
        key: FlowKey,
        peer: SocketAddr,
        ttl: Option<u8>,
        cx: &mut Context<'_>,
    ) -> io::Result<Key> {
        // The second one is for a reply socket.
        if !cx.budget.take(2, cx.now) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.open(key, peer, ttl, cx)
            .inspect_err(|_| cx.budget.release(2))
    }

    /// Opens the sockets of a flow, for which two descriptors were taken from the budget.
    fn open(
        &mut self,
        key: FlowKey,
        peer: SocketAddr,
        ttl: Option<u8>,
        cx: &mut Context<'_>,
    ) -> io::Result<Key> {
        let flow = Flow::open(key, peer, ttl, cx.rules)?;
        let mut made = false;
        self.replies.enter(key.destination, || {
            made = true;
            replies::unconnected(cx.pool, key.destination)
        })?;
        let (id, _) = self.flows.insert(key, key.client.ip(), flow, cx.now);
        let flow = self.flows.get(id).ok_or(io::ErrorKind::NotFound)?;
        let token = Token::new(Owner::UdpHost, id);
        if let Err(error) = cx.poller.add(flow.host.as_fd(), token, Interest::READ) {
            self.flows.remove(id);
            self.replies.leave(key.destination, false);
            return Err(error);
        }
        if !made {
            cx.budget.release(1);
        }
        Ok(id)
    }

    /// Sends datagrams of a flow from its host side.
    fn send_out(
        &mut self,
        id: Key,
        datagrams: &[Datagram<'_>],
        divisible: bool,
        cx: &mut Context<'_>,
    ) {
        self.flows.touch(id, cx.now);
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        if divisible {
            flow.let_fragment();
        }
        if flow.has_backlog() {
            flow.keep(datagrams);
        } else {
            let left = send(flow, datagrams, cx);
            if !left.is_empty() {
                flow.keep(&left);
                watch(flow, id, cx);
            }
        }
        if flow.count_outward(count(datagrams)) {
            self.promote(id, cx);
        }
    }

    /// Sends what waited for room.
    pub(super) fn flush(&mut self, id: Key, cx: &mut Context<'_>) {
        let Some(flow) = self.flows.get_mut(id).filter(|flow| flow.has_backlog()) else {
            return;
        };
        flow.flush(|flow, batch| send(flow, batch, cx));
        if !flow.has_backlog() {
            watch(flow, id, cx);
        }
    }

    /// Gives a flow a router-side socket of its own, where its destination has few of them yet.
    pub(super) fn promote(&mut self, id: Key, cx: &mut Context<'_>) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let destination = flow.key.destination;
        let made = if !self.replies.admits_own(destination) {
            Err(io::Error::other("others have enough of them"))
        } else if cx.budget.take(1, cx.now) {
            own_socket(flow, id, cx).inspect_err(|_| cx.budget.release(1))
        } else {
            Err(io::ErrorKind::QuotaExceeded.into())
        };
        flow.router = match made {
            Ok(socket) => {
                self.replies.count_own(destination);
                RouterSide::Own(Own {
                    socket,
                    segmentation: Segmentation::UNTRIED,
                    since: self.reads[usize::from(flow.v6())].begun,
                })
            }
            Err(error) => {
                tracing::debug!(flow.client = %flow.key.client, flow.destination = %flow.key.destination, %error, "UDP flow stays with the listener");
                RouterSide::Declined
            }
        };
    }

    /// No datagram older than those in a flow's own socket waits in the listener.
    fn is_next_in_order(&self, id: Key) -> bool {
        let Some(flow) = self.flows.get(id) else {
            return false;
        };
        match &flow.router {
            RouterSide::Own(own) => self.reads[usize::from(flow.v6())].emptied > own.since,
            RouterSide::Shared | RouterSide::Declined => false,
        }
    }
}

/// The failure is one that another flow's end may mend.
fn ran_out(error: &io::Error) -> bool {
    // EAGAIN: no free port.
    let errno = [
        libc::EAGAIN,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::ENOMEM,
    ];
    error.kind() == io::ErrorKind::QuotaExceeded
        || error
            .raw_os_error()
            .is_some_and(|error| errno.contains(&error))
}

/// How many datagrams a batch holds.
pub(super) fn count(datagrams: &[Datagram<'_>]) -> usize {
    datagrams.iter().map(Datagram::segments).sum()
}

fn own_socket(flow: &Flow, id: Key, cx: &mut Context<'_>) -> io::Result<OwnedFd> {
    let socket = replies::connected(cx.pool, flow.key)?;
    for report in [Report::Tos, Report::Segments] {
        udp::enable(socket.as_fd(), flow.v6(), report)?;
    }
    for heavy in [socket.as_fd(), flow.host.as_fd()] {
        enlarge(heavy, FLOW_BUFFER);
    }
    let token = Token::new(Owner::UdpRouter, id);
    let interest = if flow.has_backlog() {
        Interest::NONE
    } else {
        Interest::READ
    };
    cx.poller.add(socket.as_fd(), token, interest)?;
    Ok(socket)
}

/// What found no room.
fn send<'a>(
    flow: &mut Flow,
    datagrams: &[Datagram<'a>],
    cx: &mut Context<'_>,
) -> Vec<Datagram<'a>> {
    let (key, v6) = (flow.key, flow.v6());
    let way = Way::connected(flow.host.as_fd(), v6).joining_when_late(datagrams);
    transmit(way, datagrams, &mut flow.segmentation, |datagram, error| {
        tracing::trace!(flow.client = %key.client, flow.destination = %key.destination, %error, "datagram not sent");
        if let Some(notice) = Notice::of(error) {
            notify(key, datagram, notice, cx);
        }
    })
}

/// Waits for what the flow can use: room in the host side while something waits for it; then its
/// own router side is not read, so that the container's datagrams wait there.
fn watch(flow: &Flow, id: Key, cx: &mut Context<'_>) {
    let (host, router) = if flow.has_backlog() {
        (Interest::READ.and(Interest::WRITE), Interest::NONE)
    } else {
        (Interest::READ, Interest::READ)
    };
    let mut result = cx
        .poller
        .modify(flow.host.as_fd(), Token::new(Owner::UdpHost, id), host);
    if let RouterSide::Own(own) = &flow.router {
        let token = Token::new(Owner::UdpRouter, id);
        result = result.and(cx.poller.modify(own.socket.as_fd(), token, router));
    }
    if let Err(error) = result {
        tracing::warn!(%error, "UDP flow not watched");
    }
}

/// The rules do not let a new flow out.
fn deny(key: FlowKey, refusal: Refusal, datagrams: &[Datagram<'_>], cx: &mut Context<'_>) {
    let reason = refusal.reason();
    tracing::debug!(flow.client = %key.client, flow.destination = %key.destination, reason, "UDP flow denied");
    for datagram in datagrams {
        about(key, datagram.data, datagram.ttl, |packet| {
            offender::refuse(refusal, packet, cx);
        });
    }
}

/// Tells the container that a datagram of its was not delivered.
fn notify(key: FlowKey, datagram: &Datagram<'_>, notice: Notice, cx: &mut Context<'_>) {
    about(key, datagram.data, datagram.ttl, |packet| {
        cx.gate.notify(notice, packet)
    });
}

fn key(received: &Received<'_>) -> Option<FlowKey> {
    // Without flow label and scope, which are no part of who talks to whom.
    let plain = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
    Some(FlowKey {
        client: plain(received.source?),
        destination: plain(received.original_destination?),
    })
}

/// Bytes that every path carries in one packet (`net.ipv4.route.min_pmtu` is 552).
const ALWAYS_FITS: usize = 512;

/// Whether a router may take it apart: IPv4 without DF, IPv6 that its sender fragmented already.
fn is_divisible(received: &Received<'_>) -> bool {
    let length = received.segment.map_or(received.data.len(), usize::from);
    let allowed = match received.source {
        Some(SocketAddr::V6(_)) => received.in_fragments,
        Some(SocketAddr::V4(_)) | None => received.mark != Some(WHOLE_MARK),
    };
    allowed && length > ALWAYS_FITS
}

fn datagram<'a>(received: &Received<'a>) -> Datagram<'a> {
    Datagram {
        data: received.data,
        segment: received.segment,
        tos: received.tos,
        ttl: None,
    }
}
