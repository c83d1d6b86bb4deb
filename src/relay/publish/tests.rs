//! Flows of a published UDP port over the loopback interface, by a clock that the test moves:
//! `client ═ port → flow ═ container`.

use super::conversations::Conversations;
use super::datagrams::Datagrams;
use super::listener::Listener;
use super::table::{Published, Table};
use crate::network::snapshot::{NetworkView, PublishView, Snapshot};
use crate::ports::{PublishSpec, SourceAddress};
use crate::relay::budget::FdBudget;
use crate::relay::endpoints::Endpoints;
use crate::relay::event_loop::{Batch, Poller};
use crate::relay::flows::Limits;
use crate::relay::gate::GateSender;
use crate::relay::rules::Rules;
use crate::relay::rush::Rushes;
use crate::relay::socket_pool::{SocketKind, SocketPool};
use crate::relay::worker::Context;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct World {
    container: UdpSocket,
    client: UdpSocket,
    published: Arc<Published>,
    datagrams: Datagrams,
    poller: Poller,
    gate: GateSender,
    pool: SocketPool,
    budget: FdBudget,
    rushes: Rushes,
    endpoints: Endpoints,
    rules: Rules,
    now: Instant,
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let patience = Some(Duration::from_secs(10));
    socket.set_read_timeout(patience).unwrap();
    socket
}

/// Sockets that are not transparent, which takes a capability; a client on loopback needs none.
fn stocked() -> SocketPool {
    use socket2::{Domain, Protocol, Socket, Type};
    let kind = Type::DGRAM.nonblocking();
    let socket = || Socket::new(Domain::IPV4, kind, Some(Protocol::UDP)).unwrap();
    let pool = SocketPool::default();
    pool.stock(SocketKind::UdpV4, (0..9).map(|_| socket().into()));
    pool
}

/// A port that leads to `container`, which is on a network whose bridge is the loopback interface.
fn published(port: UdpSocket, container: u16) -> Arc<Published> {
    let host = port.local_addr().unwrap();
    port.set_nonblocking(true).unwrap();
    let spec: PublishSpec = format!("{host}:{container}/udp").parse().unwrap();
    let snapshot = Snapshot {
        networks: vec![NetworkView {
            name: "net".into(),
            bridge: "lo".parse().unwrap(),
            subnets: vec!["127.0.0.0/8".parse().unwrap()],
            gateways: vec![Ipv4Addr::LOCALHOST.into()],
            internal: false,
            dns: Vec::new(),
            names: Vec::new(),
        }],
        publishes: vec![PublishView {
            sandbox: "box".into(),
            publish: spec.fixed(SourceAddress::Keep).unwrap(),
            targets: vec![Ipv4Addr::LOCALHOST.into()],
            inside: false,
            either_family: false,
        }],
        ..Snapshot::default()
    };
    let listener = Arc::new(Listener::new(port.into()).unwrap());
    let listeners = [(listener.bound(), listener)].into();
    let (table, missing) = Table::build(&snapshot, &listeners, &Arc::default());
    assert_eq!(missing, []);
    Arc::clone(table.iter().next().unwrap())
}

impl World {
    fn new() -> Self {
        let (container, client, port) = (socket(), socket(), socket());
        client.connect(port.local_addr().unwrap()).unwrap();
        let now = Instant::now();
        let limits = Limits {
            per_client: 9,
            total: 9,
        };
        Self {
            published: published(port, container.local_addr().unwrap().port()),
            container,
            client,
            datagrams: Datagrams::new(limits, Conversations::default(), now),
            poller: Poller::new().unwrap(),
            gate: GateSender::nowhere(),
            pool: stocked(),
            budget: FdBudget::new(1000),
            rushes: Rushes::new(None, now),
            endpoints: Endpoints::default(),
            rules: Rules::default(),
            now,
        }
    }

    fn act(&mut self, act: impl FnOnce(&mut Datagrams, &Arc<Published>, &mut Context<'_>)) {
        let mut cx = Context {
            poller: &self.poller,
            rules: &self.rules,
            gate: &mut self.gate,
            pool: &self.pool,
            inside: None,
            budget: &self.budget,
            rushes: &self.rushes,
            endpoints: &self.endpoints,
            now: self.now,
        };
        act(&mut self.datagrams, &self.published, &mut cx);
    }

    /// The client asks: whom the container takes it for.
    fn ask(&mut self) -> SocketAddr {
        self.client.send(b"?").unwrap();
        self.act(|datagrams, published, cx| datagrams.listener_ready(published, cx));
        self.container.recv_from(&mut [0; 9]).unwrap().1
    }

    /// The container says something to the client that it knows by this address.
    fn answer(&mut self, to: SocketAddr) {
        self.container.send_to(b"!", to).unwrap();
        let mut batch = Batch::with_capacity(8);
        self.poller.wait(&mut batch, Some(Duration::ZERO)).unwrap();
        for (token, _) in batch.iter() {
            self.act(|datagrams, _, cx| datagrams.flow_ready(token.key, cx));
        }
        self.client.recv(&mut [0; 9]).unwrap();
    }

    /// Lets seconds pass: whether the flow is still there.
    fn lasts(&mut self, seconds: u64) -> bool {
        self.now += Duration::from_secs(seconds);
        self.act(|datagrams, _, cx| datagrams.tick(cx));
        self.budget.taken() == 1
    }
}

#[test]
fn a_flow_lasts_two_minutes_after_its_last_datagram_either_way() {
    let mut world = World::new();
    let shown = world.ask();
    assert!(world.lasts(119), "a question");
    // The container's datagrams keep it, too (RFC 4787 REQ-6).
    world.answer(shown);
    assert!(world.lasts(119), "an answer");
    assert_eq!(world.ask(), shown, "the same flow");
    assert!(world.lasts(119), "another question");
    assert!(!world.lasts(1));
    // A new one is begun by whoever asks again.
    world.ask();
    assert!(world.lasts(119));
    assert_eq!(world.published.listener().counters.read().accepted, 2);
}
