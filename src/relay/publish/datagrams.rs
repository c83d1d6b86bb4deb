//! UDP by published ports: each client is a flow with a socket of its own towards the container.
//!
//! On the path: client → the port's socket → **here** → the flow's socket → container, and back the
//! same way. The flow's socket is connected, so tproxy leads the container's answers to it, and
//! those of nobody else; they leave from the address that the client asked. A port's socket is read
//! by one worker only, so that datagrams of a client stay in order.
//!
//! Invariants: a datagram of the container reaches only the client whose conversation it belongs
//! to; no two flows have the same addresses towards a container; flows are bounded per client and
//! in all, and end after a time without datagrams (RFC 4787 §4.3), with their port, or when it leads
//! elsewhere. What finds no room is lost, as it would be in a full queue.
//!
//! Sources: RFC 4787 REQ-5, REQ-6, REQ-8, udp(7), ip(7).

use super::conversations::{Conversations, Reservation};
use super::listener::{Bound, plain};
use super::table::{Published, Table, Target};
use super::towards;
use crate::relay::event_loop::{Interest, Key, Owner, Token};
use crate::relay::flows::{Flows, Limits};
use crate::relay::rush;
use crate::relay::udp::transmit::{Segmentation, Way, transmit};
use crate::relay::worker::Context;
use crate::sys::udp::{self, Batch, Came, Datagram, ErrorQueue, Path, Received, Report};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Messages taken by one system call.
const SLOTS: usize = 32;
/// The longest datagram, and the most that UDP_GRO puts together.
const SLOT_LEN: usize = 65_536;
/// Batches taken from one socket before others get their turn.
const ROUNDS: usize = 8;
/// Datagrams that came singly and go to the container together: through the bridge as one packet,
/// and one by one into the container's socket. No more than were read at once, so that the burst is
/// no longer than it would be anyhow.
const JOINED: usize = SLOTS;
/// RFC 4787 REQ-5: at least two minutes.
const IDLE: Duration = Duration::from_secs(120);
/// After one question and its answer on a well-known port (REQ-5 b).
const IDLE_ONE_SHOT: Duration = Duration::from_secs(10);
/// How often idle flows are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Who talks to which port, and by which of the host's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FlowKey {
    bound: Bound,
    /// With the scope of a link-local address.
    client: SocketAddr,
    asked: IpAddr,
}

struct Flow {
    key: FlowKey,
    published: Arc<Published>,
    container: SocketAddr,
    router: OwnedFd,
    /// Of a flow in its client's name.
    _reservation: Option<Reservation>,
    inward: Segmentation,
    outward: Segmentation,
    asked: u64,
    answered: u64,
}

impl Flow {
    fn idle_limit(&self) -> Duration {
        idle_limit(self.container.port(), self.asked, self.answered)
    }
}

/// How long a flow to `port` may be idle after so many datagrams.
fn idle_limit(port: u16, asked: u64, answered: u64) -> Duration {
    if port < 1024 && asked == 1 && answered >= 1 {
        IDLE_ONE_SHOT
    } else {
        IDLE
    }
}

/// One worker's flows.
pub struct Datagrams {
    batch: Batch,
    errors: ErrorQueue,
    state: State,
}

/// Everything but the buffer, so that a batch can be handled while it is borrowed.
struct State {
    flows: Flows<FlowKey, Flow>,
    conversations: Conversations,
    swept: Instant,
}

impl Datagrams {
    /// No flow yet.
    pub fn new(limits: Limits, conversations: Conversations, now: Instant) -> Self {
        Self {
            batch: Batch::new(SLOTS, SLOT_LEN),
            // What they are about is of no interest.
            errors: ErrorQueue::new(0),
            state: State {
                flows: Flows::new(limits),
                conversations,
                swept: now,
            },
        }
    }

    /// How datagrams have come since this was asked last.
    pub fn came(&mut self) -> Came {
        self.batch.came()
    }

    /// Reads what clients sent to a published port.
    pub fn listener_ready(&mut self, published: &Arc<Published>, cx: &mut Context<'_>) {
        for _ in 0..ROUNDS {
            match self.batch.receive(published.listener().socket()) {
                Ok(count) => {
                    self.state.take_batch(published, &self.batch, cx);
                    if count < self.batch.slots() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(publish.listener = %published.listener().bound(), %error, "published UDP port not read");
                    return;
                }
            }
        }
    }

    /// Reads what a container answered.
    pub fn flow_ready(&mut self, id: Key, cx: &mut Context<'_>) {
        let Some(flow) = self.state.flows.get(id) else {
            return;
        };
        let container = flow.container.ip();
        match self.batch.receive(flow.router.as_fd()) {
            Ok(messages) => {
                let datagrams: Vec<_> = self.batch.iter().map(|got| datagram(&got)).collect();
                let (all, late) = (count(&datagrams) as usize, messages >= rush::LATE);
                cx.rushes.heard(container, all, late, cx.now);
                self.state.answer(id, &datagrams, cx);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.queued_error(id, cx),
            Err(error) => self.state.refused(id, &error, cx),
        }
    }

    /// Looks for errors that a send came across. Of a burst to nobody the last datagrams cause none
    /// (icmp_ratelimit in the container), and sendmmsg(2) keeps those about the first to itself.
    fn queued_error(&mut self, id: Key, cx: &mut Context<'_>) {
        let Some(flow) = self.state.flows.get(id) else {
            return;
        };
        match self.errors.next(flow.router.as_fd()) {
            // About its size: the container is there.
            Ok(Some(queued)) if queued.error.errno == libc::EMSGSIZE => {}
            Ok(Some(queued)) => {
                let error = io::Error::from_raw_os_error(queued.error.errno);
                self.state.refused(id, &error, cx);
            }
            Ok(None) | Err(_) => {}
        }
    }

    /// Ends idle flows.
    pub fn tick(&mut self, cx: &mut Context<'_>) {
        let state = &mut self.state;
        if cx.now.saturating_duration_since(state.swept) < SWEEP_INTERVAL {
            return;
        }
        state.swept = cx.now;
        for idle in state.flows.sweep(cx.now, Flow::idle_limit) {
            state.close(idle, cx);
        }
    }

    /// Ends flows whose port is gone or leads elsewhere.
    pub fn recheck(&mut self, table: &Table, cx: &mut Context<'_>) {
        let state = &mut self.state;
        let ids: Vec<Key> = state.flows.ids().collect();
        for id in ids {
            let stays = state.flows.get(id).is_some_and(|flow| {
                table
                    .get(&flow.key.bound)
                    .is_some_and(|now| Arc::ptr_eq(now, &flow.published))
            });
            if !stays {
                state.close(id, cx);
            }
        }
    }
}

impl State {
    /// Sorts a batch by client and sends it on.
    fn take_batch(&mut self, published: &Arc<Published>, batch: &Batch, cx: &mut Context<'_>) {
        let bound = published.listener().bound();
        let mut run: Vec<Datagram<'_>> = Vec::new();
        let mut current: Option<FlowKey> = None;
        for received in batch.iter() {
            let Some(key) = key(bound, &received) else {
                continue;
            };
            if current.is_none_or(|current| current != key) {
                if let Some(key) = current.replace(key) {
                    self.ask(published, key, &run, cx);
                }
                run.clear();
            }
            run.push(datagram(&received));
        }
        if let Some(key) = current {
            self.ask(published, key, &run, cx);
        }
    }

    /// Sends datagrams of one client to the container.
    fn ask(
        &mut self,
        published: &Arc<Published>,
        key: FlowKey,
        datagrams: &[Datagram<'_>],
        cx: &mut Context<'_>,
    ) {
        let counters = &published.listener().counters;
        let id = match self.flows.find(&key) {
            Some(id) => id,
            None => match self.open(published, key, cx) {
                Ok(id) => {
                    counters.accept();
                    id
                }
                Err(error) => {
                    tracing::debug!(publish.listener = %key.bound, client.addr = %key.client, %error, "published UDP flow not opened");
                    counters.refuse();
                    return;
                }
            },
        };
        self.flows.touch(id, cx.now);
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        flow.asked = flow.asked.saturating_add(count(datagrams));
        counters.carry(bytes(datagrams), 0);
        let way = Way::connected(flow.router.as_fd(), flow.container.is_ipv6()).joining(JOINED);
        let _ = transmit(way, datagrams, &mut flow.inward, |_, error| {
            tracing::trace!(client.addr = %key.client, %error, "datagram not delivered");
        });
    }

    fn open(
        &mut self,
        published: &Arc<Published>,
        key: FlowKey,
        cx: &mut Context<'_>,
    ) -> io::Result<Key> {
        while let Some(victim) = self.flows.victim(key.client.ip()) {
            self.close(victim, cx);
        }
        if !cx.budget.take(1, cx.now) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.open_within_budget(published, key, cx)
            .inspect_err(|_| cx.budget.release(1))
    }

    fn open_within_budget(
        &mut self,
        published: &Arc<Published>,
        key: FlowKey,
        cx: &mut Context<'_>,
    ) -> io::Result<Key> {
        let client = plain(key.client);
        let target = target(published, client.ip()).ok_or(io::ErrorKind::NotFound)?;
        let container = target.address;
        let reservation = self.conversations.reserve((client, container));
        let free = reservation.is_some();
        let way = towards::Begin {
            free,
            data_follows: true,
            connections: None,
        };
        let towards = towards::open(published, &target, client, key.asked, cx, way)?;
        for report in [Report::Errors, Report::Tos, Report::Segments] {
            udp::enable(towards.socket.as_fd(), container.is_ipv6(), report)?;
        }
        let flow = Flow {
            key,
            published: Arc::clone(published),
            container,
            router: towards.socket,
            _reservation: reservation.filter(|_| towards.as_client),
            inward: Segmentation::UNTRIED,
            outward: Segmentation::UNTRIED,
            asked: 0,
            answered: 0,
        };
        let (id, _) = self.flows.insert(key, client.ip(), flow, cx.now);
        let flow = self.flows.get(id).ok_or(io::ErrorKind::NotFound)?;
        let token = Token::new(Owner::PublishUdp, id);
        let added = cx.poller.add(flow.router.as_fd(), token, Interest::READ);
        if let Err(error) = added {
            self.flows.remove(id);
            return Err(error);
        }
        Ok(id)
    }

    /// Nobody listens there, or nobody is there; the next datagram tries again.
    fn refused(&mut self, id: Key, error: &io::Error, cx: &Context<'_>) {
        if let Some(flow) = self.flows.get(id) {
            tracing::debug!(client.addr = %flow.key.client, %error, "published UDP flow refused");
            let listener = flow.published.listener();
            listener.counters.refuse();
            if error.kind() == io::ErrorKind::ConnectionRefused {
                listener.note_refusal(flow.container.is_ipv6());
            }
            self.close(id, cx);
        }
    }

    /// Sends a container's datagrams to the client, from the address that it asked.
    fn answer(&mut self, id: Key, datagrams: &[Datagram<'_>], cx: &mut Context<'_>) {
        self.flows.touch(id, cx.now);
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        flow.answered = flow.answered.saturating_add(count(datagrams));
        let listener = flow.published.listener();
        listener.counters.carry(0, bytes(datagrams));
        let FlowKey { client, asked, .. } = flow.key;
        let way = Way {
            socket: listener.socket(),
            path: Path {
                destination: Some(client),
                source: Some(asked),
                v6: client.is_ipv6(),
            },
            joined: 1,
        };
        let _ = transmit(way, datagrams, &mut flow.outward, |_, error| {
            tracing::trace!(client.addr = %client, %error, "answer not sent");
        });
    }

    fn close(&mut self, id: Key, cx: &Context<'_>) {
        if self.flows.remove(id).is_some() {
            cx.budget.release(1);
        }
    }
}

/// By the client's own family; not by the one that has just refused, where there is another.
fn target(published: &Published, client: IpAddr) -> Option<Target<'_>> {
    let target = published.target(client)?;
    let v6 = target.way.v6;
    let refused = published.listener().was_refused(v6);
    let other = refused.then(|| published.other_target(v6)).flatten();
    other.or(Some(target))
}

fn key(bound: Bound, received: &Received<'_>) -> Option<FlowKey> {
    let client = match received.source? {
        // IPv4 in IPv6 clothes is IPv4; a link-local address needs its scope.
        client if client.ip().to_canonical().is_ipv4() => plain(client),
        client => client,
    };
    // Source port 0 cannot be answered.
    (client.port() != 0).then_some(FlowKey {
        bound,
        client,
        asked: received.local?,
    })
}

fn datagram<'a>(received: &Received<'a>) -> Datagram<'a> {
    Datagram {
        data: received.data,
        segment: received.segment,
        tos: received.tos,
        ttl: None,
    }
}

fn count(datagrams: &[Datagram<'_>]) -> u64 {
    datagrams
        .iter()
        .map(|datagram| datagram.segments() as u64)
        .sum()
}

fn bytes(datagrams: &[Datagram<'_>]) -> u64 {
    datagrams
        .iter()
        .map(|datagram| datagram.data.len() as u64)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_last_two_minutes_and_single_questions_ten_seconds() {
        assert_eq!(idle_limit(53, 1, 1), IDLE_ONE_SHOT);
        for (port, asked, answered) in [(53, 1, 0), (53, 2, 1), (27_015, 1, 1)] {
            assert_eq!(idle_limit(port, asked, answered), IDLE);
        }
    }

    #[test]
    fn a_conversation_is_had_once_and_free_afterwards() {
        let conversations = Conversations::default();
        let client = "198.51.100.7:5000".parse().unwrap();
        let (one, other) = ("10.89.0.2:53", "10.89.0.3:53");
        let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
        let held = conversations.reserve((client, one)).unwrap();
        assert!(conversations.reserve((client, one)).is_none());
        assert!(conversations.reserve((client, other)).is_some());
        drop(held);
        assert!(conversations.reserve((client, one)).is_some());
    }
}
