//! Bulk flows move to a [bulk worker](crate::relay::bulk) before they are in the way of small ones for long.

use super::Tcp;
use super::flow::{Flow, Side};
use crate::relay::bulk::{BulkWorkers, Moved, Stay};
use crate::relay::event_loop::Key;
use crate::relay::worker::Context;
use std::sync::Weak;

/// A flow moves when its turn has been over so many times: after 1 to 4 MiB. Moving takes some 10 µs and a wake-up, so
/// what is over soon stays.
const TURNS_BEFORE: u8 = 16;

/// Where a flow is.
#[derive(Debug)]
pub enum Whereabouts {
    /// With this worker.
    Here(Key),
    /// With a bulk worker, as long as it lives.
    Elsewhere(Weak<Stay>),
}

impl Tcp {
    /// From now on flows move to `bulk`, if there are any.
    pub fn giving_to(mut self, bulk: BulkWorkers) -> Self {
        self.bulk = bulk;
        self
    }

    /// A flow's turn is over, with work left. `true` where somebody else goes on with it.
    pub(super) fn move_away(&mut self, key: Key, cx: &mut Context<'_>) -> bool {
        let is_long = |flow: &mut Flow| flow.turn_over() >= TURNS_BEFORE && flow.is_bulk();
        if self.bulk.is_empty() || !self.flows.get_mut(key).is_some_and(is_long) {
            return false;
        }
        let Some(mut flow) = self.flows.remove(key) else {
            return false;
        };
        for side in [Side::Router, Side::Host] {
            if let Err(error) = cx.poller.remove(flow.socket(side)) {
                tracing::debug!(%error, "socket not taken out of the epoll set");
            }
        }
        flow.leave(&mut self.scratch.pipes);
        let ends = super::ends(&flow.socket(Side::Router));
        match self.bulk.give(flow) {
            Ok(stay) => {
                tracing::debug!(flow.id = key.slot, "flow moved to a bulk worker");
                if let (Some(framed), Some(ends)) = (&mut self.framed, ends) {
                    framed.moved(ends, key, &stay);
                }
            }
            Err(flow) => {
                self.take_up(flow, cx);
            }
        }
        true
    }

    /// Goes on with a flow that another worker had.
    pub fn take_in(&mut self, moved: Moved, cx: &mut Context<'_>) {
        let Moved { flow, stay } = moved;
        // Who had it may not have heard of the newest rules yet.
        if super::is_refused(&flow, cx.rules) {
            self.scratch.pipes.come(flow.pipes());
            return self.end(flow, cx);
        }
        let key = self.take_up(flow, cx);
        if self.flows.get(key).is_some() {
            self.stays.insert(key, stay);
        }
    }

    fn take_up(&mut self, flow: Flow, cx: &mut Context<'_>) -> Key {
        self.scratch.pipes.come(flow.pipes());
        self.enter(flow, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::snapshot::{NetworkView, Snapshot};
    use crate::relay::budget::FdBudget;
    use crate::relay::event_loop::{Batch, Poller};
    use crate::relay::gate::GateSender;
    use crate::relay::publish::alone;
    use crate::relay::publish::listener::Counters;
    use crate::relay::rules::{Rules, RulesReader, SharedRules};
    use crate::relay::socket_pool::SocketPool;
    use crate::relay::tcp::direction::Early;
    use crate::relay::tcp::flow::{DESCRIPTORS, Passage};
    use crate::relay::worker::Shared;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::sync::Arc;
    use std::thread::{self, JoinHandle};
    use std::time::{Duration, Instant};

    const MANY: usize = 24 << 20;
    const FEW: usize = 256 << 10;

    /// A worker with one flow, and bulk workers that run: `sender ═ router side → flow → host side ═ receiver`.
    struct World {
        sender: TcpStream,
        receiver: TcpStream,
        tcp: Tcp,
        poller: Poller,
        shared: Shared,
        rules: Arc<SharedRules>,
        reader: RulesReader,
        gate: GateSender,
        counters: Arc<Counters>,
    }

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let outer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (inner, _) = listener.accept().unwrap();
        inner.set_nonblocking(true).unwrap();
        for patience in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            patience(&outer, Some(Duration::from_secs(10))).unwrap();
        }
        (outer, inner)
    }

    fn containers_in(subnet: &str) -> Rules {
        let network = NetworkView {
            name: "net".into(),
            bridge: "lo".parse().unwrap(),
            subnets: vec![subnet.parse().unwrap()],
            gateways: Vec::new(),
            internal: false,
            dns: Vec::new(),
            names: Vec::new(),
        };
        Rules::new(Snapshot {
            networks: vec![network],
            ..Snapshot::default()
        })
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i % 251) as u8).collect()
    }

    impl World {
        fn new() -> Self {
            let rules = Arc::new(SharedRules::default());
            rules.replace(containers_in("127.0.0.0/8"));
            let budget = FdBudget::new(1000);
            let pool = SocketPool::default();
            let mut shared = alone::shared(budget, pool, &rules, Duration::ZERO);
            shared.bulk = BulkWorkers::new(2).unwrap();
            for worker in shared.bulk.workers(&shared).unwrap() {
                // Until the test process ends.
                thread::spawn(|| worker.run());
            }
            let poller = Poller::new().unwrap();
            let tcp = Tcp::new([None, None], Arc::clone(&shared.pending), &poller);
            let ((sender, router), (receiver, host)) = (connection(), connection());
            let mut world = Self {
                sender,
                receiver,
                tcp: tcp.unwrap().giving_to(shared.bulk.clone()),
                poller,
                shared,
                reader: RulesReader::new(Arc::clone(&rules)),
                rules,
                gate: GateSender::nowhere(),
                counters: Arc::default(),
            };
            assert!(world.shared.budget.take(DESCRIPTORS, Instant::now()));
            let passage = Passage {
                counters: Arc::clone(&world.counters),
                reservation: None,
            };
            world.act(|tcp, cx| {
                tcp.adopt(router.into(), host.into(), Early::default(), passage, cx)
            });
            world
        }

        fn act(&mut self, act: impl FnOnce(&mut Tcp, &mut Context<'_>)) {
            let (rules, gate) = (self.reader.get(), &mut self.gate);
            let mut cx = self
                .shared
                .context(&self.poller, rules, gate, Instant::now());
            act(&mut self.tcp, &mut cx);
        }

        fn round(&mut self) {
            let mut batch = Batch::with_capacity(8);
            let patience = Some(Duration::from_millis(1));
            self.poller.wait(&mut batch, patience).unwrap();
            for (token, readiness) in batch.iter() {
                self.act(|tcp, cx| tcp.ready(token, readiness, cx));
            }
            self.act(|tcp, cx| tcp.resume(batch.is_empty(), cx));
        }

        fn rounds_until(&mut self, done: impl Fn(&Self) -> bool) {
            let end = Instant::now() + Duration::from_secs(20);
            while !done(self) {
                assert!(Instant::now() < end, "not done in time");
                self.round();
            }
        }

        /// Sends, and ends where `and_end`.
        fn send(&self, bytes: Vec<u8>, and_end: bool) -> JoinHandle<()> {
            let mut sender = self.sender.try_clone().unwrap();
            thread::spawn(move || {
                sender.write_all(&bytes).unwrap();
                if and_end {
                    sender.shutdown(Shutdown::Write).unwrap();
                }
            })
        }

        /// Reads so many bytes, or what there is until the end.
        fn receive(&self, length: usize) -> JoinHandle<Vec<u8>> {
            let receiver = self.receiver.try_clone().unwrap();
            thread::spawn(move || {
                let mut bytes = Vec::new();
                receiver
                    .take(length as u64)
                    .read_to_end(&mut bytes)
                    .unwrap();
                bytes
            })
        }

        fn is_with_the_worker(&self) -> bool {
            !self.tcp.flows.is_empty()
        }

        fn is_over(&self) -> bool {
            self.shared.budget.taken() == 0
        }

        /// With a stream under way that has moved.
        fn moved() -> Self {
            let mut world = Self::new();
            // Where the sender gets little time, no turn is over before its work.
            for _ in 0..20 {
                let (sent, received) = (world.send(pattern(MANY), false), world.receive(MANY));
                world.rounds_until(|_| received.is_finished());
                sent.join().unwrap();
                assert!(received.join().unwrap() == pattern(MANY), "altered");
                if !world.is_with_the_worker() {
                    break;
                }
            }
            assert!(!world.is_with_the_worker());
            assert_eq!(world.tcp.scratch.pipes.lent(), 0);
            world
        }
    }

    #[test]
    fn a_stream_goes_on_with_a_bulk_worker() {
        let mut world = World::moved();
        // It answers, too.
        world.receiver.write_all(b"answer").unwrap();
        let mut answer = [0; 6];
        world.sender.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
        let (sent, received) = (world.send(pattern(FEW), true), world.receive(usize::MAX));
        assert!(received.join().unwrap() == pattern(FEW), "altered");
        sent.join().unwrap();
        assert!(!world.is_over(), "half closed");
        world.receiver.shutdown(Shutdown::Write).unwrap();
        assert_eq!(world.sender.read(&mut answer).unwrap(), 0);
        world.rounds_until(World::is_over);
        let carried = world.counters.read();
        assert_eq!(carried.bytes_out as usize % MANY, FEW);
        assert_eq!(carried.bytes_in, 6);
    }

    #[test]
    fn what_is_over_soon_stays() {
        let mut world = World::new();
        let (sent, received) = (world.send(pattern(FEW), false), world.receive(FEW));
        world.rounds_until(|_| received.is_finished());
        sent.join().unwrap();
        assert!(received.join().unwrap() == pattern(FEW), "altered");
        assert!(world.is_with_the_worker());
    }

    #[test]
    fn a_reset_is_passed_on() {
        let world = World::moved();
        let World {
            sender, receiver, ..
        } = &world;
        socket2::SockRef::from(sender)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        let (mut receiver, World { sender, shared, .. }) = (receiver.try_clone().unwrap(), world);
        drop(sender);
        let end = receiver.read(&mut [0]).unwrap_err();
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
        let patience = Instant::now() + Duration::from_secs(10);
        while shared.budget.taken() > 0 && Instant::now() < patience {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(shared.budget.taken(), 0);
    }

    #[test]
    fn who_reads_nothing_holds_up_the_sender_and_loses_nothing() {
        let mut world = World::new();
        let sent = world.send(pattern(MANY), true);
        let end = Instant::now() + Duration::from_millis(300);
        world.rounds_until(|_| Instant::now() > end);
        assert!(!sent.is_finished());
        let received = world.receive(usize::MAX);
        world.rounds_until(|_| received.is_finished());
        sent.join().unwrap();
        assert!(received.join().unwrap() == pattern(MANY), "altered");
    }

    #[test]
    fn new_rules_end_it_there() {
        let mut world = World::moved();
        world.rules.replace(containers_in("10.0.0.0/8"));
        let end = world.receiver.read(&mut [0]).unwrap_err();
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
        world.rounds_until(World::is_over);
    }

    #[test]
    fn who_gives_it_may_not_have_heard_of_new_rules() {
        let mut world = World::new();
        world.rules.replace(containers_in("10.0.0.0/8"));
        // The bulk workers have, before it comes.
        thread::sleep(Duration::from_millis(100));
        let mut sender = world.sender.try_clone().unwrap();
        let sent = thread::spawn(move || while sender.write(&[0; 1 << 16]).is_ok() {});
        let received = {
            let mut receiver = world.receiver.try_clone().unwrap();
            thread::spawn(move || while receiver.read(&mut [0; 1 << 16]).is_ok_and(|n| n > 0) {})
        };
        world.rounds_until(|_| sent.is_finished() && received.is_finished());
        assert!(world.is_over());
    }

    #[test]
    fn streams_are_spread_and_counted() {
        let bulk = BulkWorkers::new(2).unwrap();
        let flow = || {
            let ((_, router), (_, host)) = (connection(), connection());
            Flow::new(router.into(), host.into())
        };
        let stays: Vec<_> = (0..4).map(|_| bulk.give(flow()).unwrap()).collect();
        assert_eq!(bulk.loads(), [2, 2]);
        drop(stays);
        assert_eq!(bulk.loads(), [2, 2], "they lie in the inboxes");
        assert!(BulkWorkers::default().give(flow()).is_err());
    }
}
