//! UDP relay: carries datagrams between containers and the world.
//!
//! On the path: container → tproxy → *listener*, for a flow's first datagrams, then the flow's own
//! connected socket → **udp** → host-side socket, connected → world. Back: host-side socket →
//! **udp** → the flow's own socket, or the destination's shared *reply socket* → container. What
//! goes wrong out there comes back as an ICMP error through the gate.
//!
//! Invariants: a flow (client, destination) owns one host-side socket; datagrams of a flow stay in
//! order, for which a listener is drained before sockets that took flows over from it; a flow
//! that cannot send never holds up another one; memory and descriptors are bounded per flow, per
//! client and in all.
//!
//! * `outward`: container → world. `inward`: world → container, and ICMP errors.
//! * `flow`: the state of one flow. `replies`: router-side sockets. `transmit`: sends a batch.
//!
//! System calls: recvmmsg, sendmmsg, recvmsg (error queue), socket, setsockopt, getsockopt, bind,
//! connect, close, epoll_ctl.
//!
//! Sources: RFC 768, RFC 4787 (NAT behaviour), RFC 8085 (UDP usage), udp(7), ip(7).

mod flow;
mod inward;
mod outward;
mod replies;
pub(super) mod transmit;

use super::budget::FdBudget;
use super::event_loop::{Interest, Key, Owner, Readiness, Token};
use super::flows::{Flows, Limits};
use super::wire::fragments::Reassembly;
use super::wire::ip::{Addresses, DEFAULT_TTL, Header, Packet, Protocol};
use super::wire::udp::Ports;
use super::worker::Context;
use crate::sys::udp::{self, Batch, Came, ErrorQueue, Report};
use flow::{Flow, FlowKey, RouterSide};
use replies::Replies;
use socket2::SockRef;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Messages taken by one system call.
const SLOTS: usize = 32;
/// The longest datagram, and the most that UDP_GRO puts together.
const SLOT_LEN: usize = 65_536;
/// Payload kept of a datagram that an ICMP error is about; an IPv6 error quotes no more.
const QUOTED: usize = 1232;
/// How often idle flows are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Evictions are told at most this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Receive buffer of a listener, bytes: first datagrams of all flows wait there.
const LISTENER_BUFFER: usize = 4 << 20;
/// Receive buffers of a promoted flow, bytes each.
const FLOW_BUFFER: usize = 1 << 20;

/// Transparent sockets to which tproxy leads what has no socket of its own.
#[derive(Debug)]
pub struct Listeners {
    /// On 127.0.0.1.
    pub v4: OwnedFd,
    /// On ::1; absent on a kernel without IPv6.
    pub v6: Option<OwnedFd>,
}

/// The UDP flows of one worker.
pub struct Udp {
    listeners: Listeners,
    batch: Batch,
    errors: ErrorQueue,
    state: State,
}

/// Everything but listeners and buffers, so that a batch can be handled while it is borrowed.
struct State {
    flows: Flows<FlowKey, Flow>,
    replies: Replies,
    /// Of each listener (IPv4, IPv6).
    reads: [Reads; 2],
    fragments: Reassembly,
    swept: Instant,
    complained: Option<Instant>,
}

/// Counts the reads of a listener, to tell whether it may still hold datagrams of a flow that has
/// got a socket of its own since.
#[derive(Debug, Clone, Copy, Default)]
struct Reads {
    /// Reads begun.
    begun: u64,
    /// The last one that left the listener empty.
    emptied: u64,
}

impl Udp {
    /// Takes up listeners that are bound and transparent already, and begins to watch them.
    pub fn new(listeners: Listeners, limits: Limits, cx: &mut Context<'_>) -> io::Result<Self> {
        let both = [Some(&listeners.v4), listeners.v6.as_ref()];
        for (slot, listener) in both.into_iter().enumerate() {
            let Some(listener) = listener else { continue };
            let v6 = slot == 1;
            for report in [
                Report::OriginalDestination,
                Report::Ttl,
                Report::Tos,
                Report::Segments,
            ] {
                udp::enable(listener.as_fd(), v6, report)?;
            }
            enlarge(listener.as_fd(), LISTENER_BUFFER);
            let token = Token::new(Owner::UdpListener, Key::fixed(slot as u32));
            cx.poller.add(listener.as_fd(), token, Interest::READ)?;
        }
        Ok(Self {
            listeners,
            batch: Batch::new(SLOTS, SLOT_LEN),
            errors: ErrorQueue::new(QUOTED),
            state: State {
                flows: Flows::new(limits),
                replies: Replies::default(),
                reads: [Reads::default(); 2],
                fragments: Reassembly::new(),
                swept: cx.now,
                complained: None,
            },
        })
    }

    /// How datagrams have come since this was asked last.
    pub fn came(&mut self) -> Came {
        self.batch.came()
    }

    /// How many flows there are.
    pub fn flows(&self) -> usize {
        self.state.flows.len()
    }

    /// Handles an event of a descriptor that is ours.
    pub fn ready(&mut self, token: Token, readiness: Readiness, cx: &mut Context<'_>) {
        match token.owner {
            Owner::UdpListener => {
                self.drain(token.key.slot == 1, cx);
            }
            Owner::UdpHost => self.host_ready(token.key, readiness, cx),
            Owner::UdpRouter => self.router_ready(token.key, cx),
            Owner::Gate
            | Owner::TcpListener
            | Owner::TcpConnect
            | Owner::TcpRouter
            | Owner::TcpHost
            | Owner::IcmpHost
            | Owner::Wake
            | Owner::PublishListener
            | Owner::PublishConnect
            | Owner::PublishClient
            | Owner::PublishUdp
            | Owner::Tap
            | Owner::TcpFramed => {}
        }
    }

    /// Ends idle flows, and those that new rules forbid. To be called at least every second while
    /// there are flows.
    pub fn tick(&mut self, cx: &mut Context<'_>) {
        let state = &mut self.state;
        if cx.now.saturating_duration_since(state.swept) < SWEEP_INTERVAL {
            return;
        }
        state.swept = cx.now;
        state.fragments.expire(cx.now);
        for idle in state.flows.sweep(cx.now, Flow::idle_limit) {
            state.close(idle, cx.budget);
        }
    }

    /// Ends flows that the rules no longer admit. To be called when there are new rules.
    pub fn recheck(&mut self, cx: &mut Context<'_>) {
        let state = &mut self.state;
        let ids: Vec<Key> = state.flows.ids().collect();
        for id in ids {
            let Some(key) = state.flows.get(id).map(|flow| flow.key) else {
                continue;
            };
            if key.admitted(cx.rules).is_err() {
                state.close(id, cx.budget);
            }
        }
    }
}

impl State {
    /// Ends a flow; one that has ended already is none.
    fn close(&mut self, id: Key, budget: &FdBudget) {
        let Some(flow) = self.flows.remove(id) else {
            return;
        };
        let own = matches!(flow.router, RouterSide::Own(_));
        let last = self.replies.leave(flow.key.destination, own);
        drop(flow);
        budget.release(1 + usize::from(last) + usize::from(own));
    }

    /// Makes room for one more flow of a client, at its own cost or that of the largest one.
    fn make_room(&mut self, client: IpAddr, cx: &Context<'_>) {
        while let Some(victim) = self.flows.victim(client) {
            self.evict(victim, cx);
        }
    }

    fn evict(&mut self, victim: Key, cx: &Context<'_>) {
        let client = self.flows.get(victim).map(|flow| flow.key.client.ip());
        self.close(victim, cx.budget);
        let due = |last: Instant| cx.now.saturating_duration_since(last) >= COMPLAINT_INTERVAL;
        if self.complained.is_none_or(due) {
            self.complained = Some(cx.now);
            tracing::warn!(
                flow.client = ?client,
                flow.count = self.flows.len(),
                "UDP flows evicted: a client has too many, the least recently used goes first"
            );
        }
    }
}

/// Asks for a receive buffer; the kernel gives what net.core.rmem_max allows.
fn enlarge(socket: BorrowedFd<'_>, bytes: usize) {
    if let Err(error) = SockRef::from(&socket).set_recv_buffer_size(bytes) {
        tracing::debug!(%error, "receive buffer stays as it is");
    }
}

/// Shows `tell` a datagram as the container sent it, or as much of it as an ICMP error quotes.
fn about(key: FlowKey, data: &[u8], ttl: Option<u8>, tell: impl FnOnce(&Packet<'_>)) {
    let Some(addresses) = Addresses::new(key.client.ip(), key.destination.ip()) else {
        return;
    };
    let ports = Ports {
        source: key.client.port(),
        destination: key.destination.port(),
    };
    let data = data.get(..QUOTED).unwrap_or(data);
    let mut header = Header::new(addresses, Protocol::Udp);
    header.ttl = ttl.unwrap_or(DEFAULT_TTL);
    let bytes = ports
        .emit(addresses, data)
        .and_then(|datagram| header.emit(&datagram));
    let Ok(bytes) = bytes else { return };
    if let Ok(packet) = Packet::parse(&bytes) {
        tell(&packet);
    }
}
