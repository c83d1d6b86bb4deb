//! ICMP relay: echo requests of containers, asked again from the host's ping sockets.
//!
//! On the path: container → bridge → `up0` ═ `up1` → gate → **icmp** → ping socket → world, and
//! back as packets injected through the gate. The kernel picks the id of a ping socket; each flow
//! (client, destination, id) has one, so that the container's own id is put back. TTL and DSCP
//! pass both ways, ICMP errors come back as such: traceroute -I shows the real hops.
//!
//! Invariants: only echo leaves; flows are bounded and end after [`IDLE`]; where the host's
//! `net.ipv4.ping_group_range` excludes us, the container is told at once.
//!
//! System calls: socket, setsockopt, connect, sendmmsg, recvmmsg, recvmsg (error queue), close,
//! epoll_ctl.
//!
//! Sources: RFC 792, RFC 4443, RFC 5508 (ICMP through NAT), icmp(7).

use super::event_loop::{Interest, Key, Owner, Readiness, Token};
use super::exit;
use super::flows::{Flows, Limits};
use super::host_loopback::Asked;
use super::offender;
use super::rules::Rules;
use super::wire::fragments::{Reassembly, split};
use super::wire::icmp::{Echo, Family, Message, Notice};
use super::wire::ip::{Addresses, Header, Packet};
use super::worker::Context;
use crate::sys::udp::{self, Batch, Datagram, ErrorQueue, Origin, Received, Report};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// RFC 5508 REQ-1 asks for a minute of silence at least where state is scarce; ours is renewed by
/// each request, and ping gives up on an answer after ten seconds.
pub const IDLE: Duration = Duration::from_secs(30);

/// Flows of one worker: each is a process that pings, or one address of a sweep.
pub const LIMITS: Limits = Limits {
    per_client: 1024,
    total: 4096,
};

/// Messages taken by one system call.
const SLOTS: usize = 8;
/// The longest message.
const SLOT_LEN: usize = 65_536;
/// Bytes kept of a message that an error is about.
const QUOTED: usize = 1232;
/// Errors taken from a socket before others get their turn.
const ERROR_ROUNDS: usize = 64;
/// How often idle flows are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// What every IPv6 path carries (RFC 8200 §5).
const MIN_MTU: usize = 1280;

/// Who asks whom, under which id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct EchoKey {
    client: IpAddr,
    destination: IpAddr,
    id: u16,
}

struct EchoFlow {
    key: EchoKey,
    /// Connected to the destination, or to what that stands for.
    host: OwnedFd,
    /// The longest packet seen of the client, so that the way back carries as much.
    mtu: usize,
    /// The socket sends no fragments.
    indivisible: bool,
    /// Of the last request.
    sequence: u16,
}

/// A request, whole.
struct Request<'a> {
    packet: Packet<'a>,
    /// Length of its longest fragment.
    mtu: usize,
    /// The container does not want it fragmented.
    indivisible: bool,
}

/// The echo flows of one worker.
pub struct Icmp {
    flows: Flows<EchoKey, EchoFlow>,
    batch: Batch,
    errors: ErrorQueue,
    fragments: Reassembly,
    /// Counts the packets that routers may fragment.
    identification: u32,
    swept: Instant,
    /// It was told already that ping sockets are not permitted.
    complained: bool,
}

impl Icmp {
    /// No flows yet.
    pub fn new(now: Instant) -> Self {
        Self {
            flows: Flows::new(LIMITS),
            batch: Batch::new(SLOTS, SLOT_LEN),
            errors: ErrorQueue::new(QUOTED),
            fragments: Reassembly::new(),
            identification: 0,
            swept: now,
            complained: false,
        }
    }

    /// How many flows there are.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Passes an echo request on. `packet`: any ICMP or ICMPv6 packet that left the router netns,
    /// fragments included; what is no echo request is dropped.
    pub fn echo_request(&mut self, packet: &Packet<'_>, cx: &mut Context<'_>) {
        if !packet.is_fragment() {
            let indivisible = match packet {
                Packet::V4(packet) => packet.dont_fragment(),
                Packet::V6(_) => true,
            };
            let request = Request {
                packet: *packet,
                mtu: packet.bytes().len(),
                indivisible,
            };
            return self.request(&request, cx);
        }
        let Some(whole) = self.fragments.add(packet, cx.now) else {
            return;
        };
        if let Ok(packet) = Packet::parse(&whole.bytes) {
            let request = Request {
                packet,
                mtu: whole.largest,
                indivisible: false,
            };
            self.request(&request, cx);
        }
    }

    /// Handles an event of a ping socket.
    pub fn ready(&mut self, token: Token, readiness: Readiness, cx: &mut Context<'_>) {
        if readiness.error() {
            self.report_errors(token.key, cx);
        }
        if readiness.readable() {
            self.pass_replies(token.key, cx);
        }
    }

    /// Ends idle flows. To be called at least every second while there are flows.
    pub fn tick(&mut self, cx: &mut Context<'_>) {
        if cx.now.saturating_duration_since(self.swept) < SWEEP_INTERVAL {
            return;
        }
        self.swept = cx.now;
        self.fragments.expire(cx.now);
        for idle in self.flows.sweep(cx.now, |_| IDLE) {
            self.close(idle, cx);
        }
    }

    /// Ends flows that the rules no longer admit. To be called when there are new rules.
    pub fn recheck(&mut self, cx: &mut Context<'_>) {
        let ids: Vec<Key> = self.flows.ids().collect();
        for id in ids {
            let Some(key) = self.flows.get(id).map(|flow| flow.key) else {
                continue;
            };
            let admitted = cx.rules.admit(key.client, key.destination, Asked::Echo);
            if admitted.is_err() {
                self.close(id, cx);
            }
        }
    }

    fn close(&mut self, id: Key, cx: &Context<'_>) {
        if self.flows.remove(id).is_some() {
            cx.budget.release(1);
        }
    }

    fn request(&mut self, request: &Request<'_>, cx: &mut Context<'_>) {
        let packet = &request.packet;
        let Ok(message) = Message::of(packet) else {
            return;
        };
        let Some(echo) = message.echo_request() else {
            return;
        };
        let key = EchoKey {
            client: packet.source(),
            destination: packet.destination(),
            id: echo.id,
        };
        let known = self.flows.find(&key);
        let Some(id) = known.or_else(|| self.admit(key, request, cx)) else {
            return;
        };
        self.flows.touch(id, cx.now);
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        flow.mtu = flow.mtu.max(request.mtu);
        flow.sequence = echo.sequence;
        flow.divide(request);
        let datagram = Datagram {
            data: packet.payload(),
            segment: None,
            tos: packet.tos(),
            ttl: Some(packet.ttl()),
        };
        if let Some(error) = send(flow, datagram)
            && let Some(notice) = Notice::of(&error)
        {
            cx.gate.notify(notice, packet);
        }
    }

    fn admit(&mut self, key: EchoKey, request: &Request<'_>, cx: &mut Context<'_>) -> Option<Key> {
        let packet = &request.packet;
        let peer = match cx.rules.admit(key.client, key.destination, Asked::Echo) {
            Ok(peer) => peer,
            Err(refusal) => {
                tracing::debug!(flow.client = %key.client, flow.destination = %key.destination, reason = refusal.reason(), "echo flow denied");
                offender::refuse(refusal, packet, cx);
                return None;
            }
        };
        while let Some(victim) = self.flows.victim(key.client) {
            self.close(victim, cx);
        }
        if !cx.budget.take(1, cx.now) {
            // Somebody's oldest goes; where there is none, the request is lost.
            let victim = self.flows.oldest_of_largest()?;
            self.close(victim, cx);
            if !cx.budget.take(1, cx.now) {
                return None;
            }
        }
        match self.open(key, peer, cx) {
            Ok(id) => Some(id),
            Err(error) => {
                cx.budget.release(1);
                self.complain(&error);
                if let Some(notice) = Notice::of(&error) {
                    cx.gate.notify(notice, packet);
                }
                None
            }
        }
    }

    fn open(&mut self, key: EchoKey, peer: IpAddr, cx: &mut Context<'_>) -> io::Result<Key> {
        let host = ping_socket(peer, cx.rules)?;
        let flow = EchoFlow {
            key,
            host,
            mtu: MIN_MTU,
            indivisible: false,
            sequence: 0,
        };
        let (id, _) = self.flows.insert(key, key.client, flow, cx.now);
        let flow = self.flows.get(id).ok_or(io::ErrorKind::NotFound)?;
        let token = Token::new(Owner::IcmpHost, id);
        cx.poller
            .add(flow.host.as_fd(), token, Interest::READ)
            .inspect_err(|_| {
                self.flows.remove(id);
            })?;
        Ok(id)
    }

    fn complain(&mut self, error: &io::Error) {
        let forbidden = error.kind() == io::ErrorKind::PermissionDenied;
        if forbidden && !self.complained {
            self.complained = true;
            tracing::warn!(
                "the host permits us no ping sockets: containers cannot ping; as root: sysctl -w net.ipv4.ping_group_range='0 2147483647'"
            );
        } else {
            tracing::debug!(%error, "echo flow not opened");
        }
    }

    fn pass_replies(&mut self, id: Key, cx: &mut Context<'_>) {
        let Some(flow) = self.flows.get(id) else {
            return;
        };
        let received = self.batch.receive(flow.host.as_fd()).or_else(|error| {
            // An ICMP error is also reported once by whatever call comes next.
            if error.kind() == io::ErrorKind::WouldBlock {
                return Err(error);
            }
            self.batch.receive(flow.host.as_fd())
        });
        if received.is_err() {
            return;
        }
        for received in self.batch.iter() {
            self.identification = self.identification.wrapping_add(1);
            for packet in reply(flow, &received, self.identification) {
                cx.gate.inject(&packet);
            }
        }
        self.flows.touch(id, cx.now);
    }

    fn report_errors(&mut self, id: Key, cx: &mut Context<'_>) {
        let Some(flow) = self.flows.get(id) else {
            return;
        };
        let mut reported = None;
        for _ in 0..ERROR_ROUNDS {
            match self.errors.next(flow.host.as_fd()) {
                Ok(Some(queued)) => {
                    // A request that was too long was tried twice.
                    let again = reported.replace(queued.error) == Some(queued.error);
                    if again && queued.error.origin == Origin::Local {
                        continue;
                    }
                    let Some(bytes) = rebuild(flow, queued.data) else {
                        continue;
                    };
                    if let Ok(packet) = Packet::parse(&bytes) {
                        offender::tell(&queued.error, &packet, cx);
                    }
                }
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }
}

impl EchoFlow {
    /// Lets the host fragment what the container would have fragmented, and nothing else.
    fn divide(&mut self, request: &Request<'_>) {
        if self.indivisible == request.indivisible {
            return;
        }
        let v6 = self.key.destination.is_ipv6();
        match udp::fragment(self.host.as_fd(), v6, !request.indivisible) {
            Ok(()) => self.indivisible = request.indivisible,
            Err(error) => tracing::debug!(%error, "path MTU discovery stays as it is"),
        }
    }
}

fn family(destination: IpAddr) -> Family {
    if destination.is_ipv6() {
        Family::V6
    } else {
        Family::V4
    }
}

fn ping_socket(destination: IpAddr, rules: &Rules) -> io::Result<OwnedFd> {
    let v6 = destination.is_ipv6();
    let (domain, protocol) = if v6 {
        (Domain::IPV6, Protocol::ICMPV6)
    } else {
        (Domain::IPV4, Protocol::ICMPV4)
    };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(protocol))?;
    for report in [Report::Errors, Report::Ttl, Report::Tos] {
        udp::enable(socket.as_fd(), v6, report)?;
    }
    exit::choose(&socket, destination, rules)?;
    socket.connect(&SockAddr::from(SocketAddr::new(destination, 0)))?;
    Ok(socket.into())
}

/// Sends one request; why it could not be sent.
fn send(flow: &EchoFlow, datagram: Datagram<'_>) -> Option<io::Error> {
    let attempt = || {
        let v6 = flow.key.destination.is_ipv6();
        {
            let path = udp::Path {
                v6,
                ..udp::Path::default()
            };
            udp::send(flow.host.as_fd(), path, &[datagram]).err()
        }
    };
    // The first failure may be an ICMP error about an earlier request.
    attempt().and_then(|_| attempt())
}

/// A reply as the container expects it, in as many packets as it takes.
fn reply(flow: &EchoFlow, received: &Received<'_>, identification: u32) -> Vec<Vec<u8>> {
    let EchoKey {
        client,
        destination,
        id,
    } = flow.key;
    let family = family(destination);
    let message = Message::parse(family, received.data);
    let echo = message.ok().and_then(|message| message.echo_reply());
    let (Some(echo), Some(addresses)) = (echo, Addresses::new(destination, client)) else {
        return Vec::new();
    };
    let mut header = Header::new(addresses, family.protocol());
    header.tos = received.tos;
    header.ttl = received.ttl.unwrap_or(header.ttl);
    header.identification = Some(identification as u16);
    let message = Echo { id, ..echo }.emit_reply(addresses);
    split(&header, &message, flow.mtu, identification).unwrap_or_default()
}

/// A request as the container sent it, or as much of it as `quoted`.
fn rebuild(flow: &EchoFlow, quoted: &[u8]) -> Option<Vec<u8>> {
    let EchoKey {
        client,
        destination,
        id,
    } = flow.key;
    let family = family(destination);
    let addresses = Addresses::new(client, destination)?;
    let message = Message::parse(family, quoted).ok();
    let echo = match message.and_then(|message| message.echo_request()) {
        Some(echo) => Echo { id, ..echo },
        // Our own kernel quotes nothing.
        None => Echo {
            id,
            sequence: flow.sequence,
            data: &[],
        },
    };
    let mut header = Header::new(addresses, family.protocol());
    // Whoever reports an error has seen the last hop of it.
    header.ttl = 1;
    header.emit(&echo.emit_request(addresses)).ok()
}

#[cfg(test)]
mod tests;
