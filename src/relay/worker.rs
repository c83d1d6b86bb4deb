//! One worker: an epoll loop over its own listeners, its own gate and its own flows.
//!
//! On the path: [`event_loop`](super::event_loop) → **worker** → gate | tcp | udp | icmp | publish.
//!
//! Invariant: a worker never blocks but in epoll_wait, and handles UDP listeners before UDP flow
//! sockets, so that datagrams which were there before a flow got its own socket stay in order.

use super::budget::FdBudget;
use super::bulk::BulkWorkers;
use super::busy_poll::BusyPoll;
use super::endpoints::Endpoints;
use super::event_loop::{Batch, Interest, Key, Owner, Poller, Readiness, Token};
use super::flows::Limits;
use super::gate::{Arrival, Gate, GateSender, UplinkMacs, classify};
use super::icmp::Icmp;
use super::pending::Pending;
use super::publish::Publish;
use super::publish::conversations::Conversations;
use super::router_side::WorkerSockets;
use super::router_side::rings::Rings;
use super::rules::{Rules, RulesReader, SharedRules};
use super::rush::Rushes;
use super::socket_pool::SocketPool;
use super::tcp::Tcp;
use super::tcp::framed::frame::FrameSender;
use super::tcp::framed::{self, FramedFlows};
use super::ticks::Ticks;
use super::udp::{Listeners, Udp};
use super::wire::icmp::Notice;
use super::wire::reset::reset;
use crate::sys::packet::FrameRing;
use nix::sys::eventfd::EventFd;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Events taken at once.
pub(super) const BATCH: usize = 256;

/// Batches of frames taken off the tap at once: more than the events of a round can bring answers to, and not all
/// that a container may flood it with.
const TAP_BATCHES: usize = 8;

/// More frames than a queue of `rmem_default` bytes holds, for a socket that could not be silenced.
const MOST_QUEUED: usize = 1024;

/// What every part of a worker may use while it handles an event.
pub struct Context<'a> {
    /// To register descriptors.
    pub poller: &'a Poller,
    /// What may leave.
    pub rules: &'a Rules,
    /// Sends packets into the router netns as if from the world.
    pub gate: &'a mut GateSender,
    /// Transparent sockets of the router netns.
    pub pool: &'a SocketPool,
    /// The same of a container's own netns, for targets without a bridge.
    pub inside: Option<&'a SocketPool>,
    /// Descriptors left; whoever makes a flow takes from it, and gives back when it closes them.
    pub budget: &'a FdBudget,
    /// Who sends faster than we read.
    pub rushes: &'a Rushes,
    /// Where containers are.
    pub endpoints: &'a Endpoints,
    /// Of this round of the loop.
    pub now: Instant,
}

/// What all workers share.
#[derive(Clone)]
pub struct Shared {
    /// What may leave.
    pub rules: Arc<SharedRules>,
    /// Connections asked for.
    pub pending: Arc<Pending>,
    /// Descriptors left.
    pub budget: Arc<FdBudget>,
    /// Transparent sockets of the router netns.
    pub pool: SocketPool,
    /// UDP flows of one worker.
    pub udp: Limits,
    /// Ethernet addresses of `up0` and `up1`.
    pub macs: UplinkMacs,
    /// UDP conversations in clients' names.
    pub conversations: Conversations,
    /// TCP connections, as containers know them that are asked for one.
    pub connections: Conversations,
    /// Who sends faster than workers read.
    pub rushes: Arc<Rushes>,
    /// Where containers are.
    pub endpoints: Arc<Endpoints>,
    /// Where bulk flows go that are in the way of others.
    pub bulk: BulkWorkers,
    /// How many workers there are.
    pub workers: usize,
    /// How long each looks for events before it sleeps.
    pub busy_poll: Duration,
}

impl Shared {
    /// What of it the parts of a worker use while they handle an event.
    pub fn context<'a>(
        &'a self,
        poller: &'a Poller,
        rules: &'a Rules,
        gate: &'a mut GateSender,
        now: Instant,
    ) -> Context<'a> {
        Context {
            poller,
            rules,
            gate,
            pool: &self.pool,
            inside: None,
            budget: &self.budget,
            rushes: &self.rushes,
            endpoints: &self.endpoints,
            now,
        }
    }
}

/// One worker, not yet running.
pub struct Worker {
    poller: Poller,
    busy_poll: BusyPoll,
    rules: RulesReader,
    gate: Gate,
    /// Where framed flows come to.
    tap: Option<Gate>,
    sender: GateSender,
    shared: Shared,
    tcp: Tcp,
    udp: Udp,
    icmp: Icmp,
    publish: Publish,
    /// Readable when there are new rules, or the rings have come.
    wake: Arc<EventFd>,
    rings: Receiver<Rings>,
    number: usize,
}

impl Worker {
    /// Takes its sockets of the router netns. It is the `number`th, from 0.
    pub fn new(number: usize, sockets: WorkerSockets, shared: &Shared) -> io::Result<Self> {
        let poller = Poller::new()?;
        let now = Instant::now();
        let rules = RulesReader::new(Arc::clone(&shared.rules));
        let gate = Gate::queued(Arc::clone(&sockets.gate));
        let token = Token::new(Owner::Gate, Key::fixed(0));
        poller.add(gate.socket(), token, Interest::READ)?;
        let wake = sockets.coming.wake;
        let token = Token::new(Owner::Wake, Key::fixed(0));
        poller.add(wake.as_fd(), token, Interest::READ)?;
        shared.rules.wake(Arc::clone(&wake));
        let mut sender = GateSender::new(sockets.gate, shared.macs);
        let tcp = Tcp::new(sockets.tcp, Arc::clone(&shared.pending), &poller)?
            .giving_to(shared.bulk.clone());
        let mut cx = shared.context(&poller, rules.get(), &mut sender, now);
        let (v4, v6) = sockets.udp;
        let udp = Udp::new(Listeners { v4, v6 }, shared.udp, &mut cx)?;
        Ok(Self {
            poller,
            busy_poll: BusyPoll::new(shared.busy_poll),
            rules,
            gate,
            tap: None,
            sender,
            shared: shared.clone(),
            tcp,
            udp,
            icmp: Icmp::new(now),
            publish: Publish::new(number, shared, now),
            wake,
            rings: sockets.coming.rings,
            number,
        })
    }

    /// Serves until epoll or the gate fails, which they never should.
    pub fn run(mut self) -> io::Error {
        let mut batch = Batch::with_capacity(BATCH);
        let mut ticks = Ticks::from(Instant::now());
        loop {
            let now = Instant::now();
            let patience = ticks.wait(now, self.tcp.patience(now));
            if let Err(error) = self.busy_poll.wait(&self.poller, &mut batch, patience) {
                return error;
            }
            let now = Instant::now();
            self.take_up_rules(now);
            if let Err(error) = self.round(&batch, now, &mut ticks) {
                return error;
            }
            if ticks.is_due(now) {
                self.tick(now);
            }
        }
    }

    /// Handles one batch of events.
    fn round(&mut self, batch: &Batch, now: Instant, ticks: &mut Ticks) -> io::Result<()> {
        let urgent = |token: &Token| token.owner == Owner::UdpListener;
        for (token, readiness) in batch.iter().filter(|(token, _)| urgent(token)) {
            ticks.event(now);
            self.dispatch(token, readiness, now)?;
        }
        for (token, readiness) in batch.iter().filter(|(token, _)| !urgent(token)) {
            ticks.event(now);
            self.dispatch(token, readiness, now)?;
        }
        let (parts, mut cx) = self.split(now);
        parts.tcp.resume(batch.is_empty(), &mut cx);
        for one in parts.tcp.take_unanswered() {
            parts.publish.unanswered(one, parts.tcp, &mut cx);
        }
        let came = self.udp.came() | self.publish.came();
        self.busy_poll.brought(self.tcp.moved(now), came);
        Ok(())
    }

    fn dispatch(&mut self, token: Token, readiness: Readiness, now: Instant) -> io::Result<()> {
        let (parts, mut cx) = self.split(now);
        match token.owner {
            Owner::Gate => {
                parts.gate_ready(&mut cx)?;
            }
            Owner::Tap => parts.tap_ready(&mut cx)?,
            Owner::TcpListener
            | Owner::TcpConnect
            | Owner::TcpRouter
            | Owner::TcpHost
            | Owner::TcpFramed => {
                parts.tcp.ready(token, readiness, &mut cx);
            }
            Owner::UdpListener | Owner::UdpHost | Owner::UdpRouter => {
                parts.udp.ready(token, readiness, &mut cx);
            }
            Owner::IcmpHost => parts.icmp.ready(token, readiness, &mut cx),
            Owner::Wake => {
                // Reset before the rules are looked at, so that no change is slept through.
                let _ = parts.wake.read();
                self.take_up_rules(now);
                self.take_up_rings(now)?;
            }
            Owner::PublishListener
            | Owner::PublishConnect
            | Owner::PublishClient
            | Owner::PublishUdp => parts.publish.ready(token, parts.tcp, &mut cx),
        }
        Ok(())
    }

    /// Uses the rings, if they have come.
    fn take_up_rings(&mut self, now: Instant) -> io::Result<()> {
        let Ok(rings) = self.rings.try_recv() else {
            return Ok(());
        };
        if let Some((socket, ring)) = rings.gate {
            // What came before is nowhere else.
            for _ in 0..MOST_QUEUED {
                let (parts, mut cx) = self.split(now);
                if !parts.gate_ready(&mut cx)? {
                    break;
                }
            }
            self.poller.remove(self.gate.socket())?;
            let socket = Arc::new(socket);
            self.gate = Gate::new(Arc::clone(&socket), ring);
            let token = Token::new(Owner::Gate, Key::fixed(0));
            self.poller.add(self.gate.socket(), token, Interest::READ)?;
            self.sender.send_by(socket);
        }
        if let Some(tap) = rings.tap {
            let (tap, framed) = tapped(tap, &self.shared, self.number, &self.poller)?;
            self.tap = Some(tap);
            self.tcp.speak(framed);
        }
        drop(rings.done);
        Ok(())
    }

    /// Follows the newest rules.
    fn take_up_rules(&mut self, now: Instant) {
        if self.rules.refresh() {
            self.recheck(now);
        }
        let (parts, mut cx) = self.split(now);
        parts.publish.follow(&mut cx);
    }

    fn tick(&mut self, now: Instant) {
        let (parts, mut cx) = self.split(now);
        parts.tcp.tick(&mut cx);
        parts.udp.tick(&mut cx);
        parts.icmp.tick(&mut cx);
        parts.publish.tick(&mut cx);
        cx.rushes.tick(now);
    }

    /// Ends what new rules do not admit.
    fn recheck(&mut self, now: Instant) {
        let (parts, mut cx) = self.split(now);
        parts.tcp.recheck(&mut cx);
        parts.udp.recheck(&mut cx);
        parts.icmp.recheck(&mut cx);
    }

    fn split(&mut self, now: Instant) -> (Parts<'_>, Context<'_>) {
        let parts = Parts {
            gate: &mut self.gate,
            tap: self.tap.as_mut(),
            tcp: &mut self.tcp,
            udp: &mut self.udp,
            icmp: &mut self.icmp,
            publish: &mut self.publish,
            wake: &self.wake,
        };
        let (rules, sender) = (self.rules.get(), &mut self.sender);
        (parts, self.shared.context(&self.poller, rules, sender, now))
    }
}

/// The tap of the `number`th worker, and who handles what comes to it.
fn tapped(
    (socket, ring): (OwnedFd, FrameRing),
    shared: &Shared,
    number: usize,
    poller: &Poller,
) -> io::Result<(Gate, FramedFlows)> {
    let socket = Arc::new(socket);
    let token = Token::new(Owner::Tap, Key::fixed(0));
    poller.add(socket.as_fd(), token, Interest::READ)?;
    let sender = FrameSender::new(
        Arc::clone(&socket),
        shared.macs.up0,
        framed::timestamp(number),
    );
    let flows = FramedFlows::new(sender, Instant::now());
    Ok((Gate::new(socket, ring), flows))
}

/// What handles events.
struct Parts<'a> {
    gate: &'a mut Gate,
    tap: Option<&'a mut Gate>,
    tcp: &'a mut Tcp,
    udp: &'a mut Udp,
    icmp: &'a mut Icmp,
    publish: &'a mut Publish,
    wake: &'a EventFd,
}

impl Parts<'_> {
    fn tap_ready(self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(tap) = self.tap else {
            return Ok(());
        };
        // As a rule all of it, or else the answers to a round of questions would be overtaken by the next round's.
        for _ in 0..TAP_BATCHES {
            let mut frames = tap.receive_with_interface()?.peekable();
            if frames.peek().is_none() {
                break;
            }
            for (port, frame) in frames {
                self.tcp.frame(port, frame, cx);
            }
            tap.done();
        }
        Ok(())
    }

    /// Handles a batch of frames. False, where there was none.
    fn gate_ready(self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut came = false;
        for frame in self.gate.receive()? {
            came = true;
            let Some((packet, arrival)) = classify(frame) else {
                continue;
            };
            match arrival {
                Arrival::FirstSyn(segment) => self.tcp.first_syn(frame, &packet, &segment, cx),
                Arrival::StraySegment => {
                    if let Ok(Some(reset)) = reset(&packet) {
                        cx.gate.inject(&reset);
                    }
                }
                Arrival::Udp => self.udp.low_ttl_datagram(&packet, cx),
                Arrival::EchoRequest => self.icmp.echo_request(&packet, cx),
                Arrival::UnknownProtocol => {
                    if cx.rules.is_ours(packet.source()) {
                        cx.gate.notify(Notice::ProtocolUnreachable, &packet);
                    }
                }
                Arrival::Ignored => {}
            }
        }
        self.gate.done();
        Ok(came)
    }
}
