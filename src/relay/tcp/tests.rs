//! Flows over real loopback connections: `client ═ router side → flow → host side ═ server`.

use super::direction::Scratch;
use super::flow::{Flow, Outcome, Side, reset_on_close};
use super::*;
use crate::relay::event_loop::Batch;
use socket2::SockRef;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

/// A flow with a socket at either end, pumped by its own epoll set.
struct World {
    client: TcpStream,
    server: TcpStream,
    flow: Option<Flow>,
    poller: Poller,
    scratch: Scratch,
}

const ROUTER: Token = Token::new(Owner::TcpRouter, Key::fixed(0));
const HOST: Token = Token::new(Owner::TcpHost, Key::fixed(0));

fn connection() -> (TcpStream, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let outer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (inner, _) = listener.accept().unwrap();
    inner.set_nonblocking(true).unwrap();
    SockRef::from(&inner).set_out_of_band_inline(true).unwrap();
    outer
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    (outer, inner.into())
}

impl World {
    fn new() -> Self {
        let (client, router) = connection();
        let (server, host) = connection();
        let poller = Poller::new().unwrap();
        poller
            .add(router.as_fd(), ROUTER, Interest::STREAM_EDGE)
            .unwrap();
        poller
            .add(host.as_fd(), HOST, Interest::STREAM_EDGE)
            .unwrap();
        Self {
            client,
            server,
            flow: Some(Flow::new(router, host)),
            poller,
            scratch: Scratch::new(),
        }
    }

    /// One round of what a worker does; `false` when the flow is over.
    fn round(&mut self, patience: Duration) -> bool {
        let mut batch = Batch::with_capacity(8);
        let Some(flow) = &mut self.flow else {
            return false;
        };
        self.poller.wait(&mut batch, Some(patience)).unwrap();
        let now = Instant::now();
        let mut outcome = Outcome::Wait;
        for (token, readiness) in batch.iter() {
            let side = if token == ROUTER {
                Side::Router
            } else {
                Side::Host
            };
            outcome = flow.ready(side, readiness, &mut self.scratch, now);
            if outcome == Outcome::Over {
                break;
            }
        }
        while outcome == Outcome::TurnOver {
            outcome = flow.pump(&mut self.scratch, now);
        }
        if outcome != Outcome::Over && flow.is_dying() {
            outcome = flow.pump(&mut self.scratch, now);
        }
        if outcome == Outcome::Over
            && let Some(flow) = self.flow.take()
        {
            flow.close(&mut self.scratch.pipes);
        }
        self.flow.is_some()
    }

    /// Until nothing has happened for a while.
    fn settle(&mut self) {
        for _ in 0..200 {
            let before = Instant::now();
            let patience = Duration::from_millis(20);
            if !self.round(patience) || before.elapsed() >= patience {
                return;
            }
        }
    }
}

fn read_all(stream: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let error = stream.read_to_end(&mut bytes).err();
    (bytes, error.map(|error| error.kind()))
}

#[test]
fn a_flow_is_small() {
    assert!(size_of::<Flow>() <= 160, "{}", size_of::<Flow>());
}

#[test]
fn bytes_pass_both_ways() {
    let mut world = World::new();
    world.client.write_all(b"request").unwrap();
    world.settle();
    let mut buffer = [0; 32];
    assert_eq!(world.server.read(&mut buffer).unwrap(), 7);
    world.server.write_all(b"answer").unwrap();
    world.settle();
    assert_eq!(world.client.read(&mut buffer).unwrap(), 6);
    assert!(world.flow.is_some());
}

#[test]
fn what_was_read_before_it_began_comes_first() {
    for sent in [0, 3] {
        let mut world = World::new();
        let flow = world.flow.take().unwrap();
        let first: &[u8] = b"early";
        world.flow = Some(flow.begun(Early {
            length: first.len(),
            unsent: first[sent..].into(),
        }));
        // Here the host side is what was read, the router side who gets it.
        world.server.write_all(b" and late").unwrap();
        world.server.shutdown(Shutdown::Write).unwrap();
        world.settle();
        let expected = [&first[sent..], b" and late"].concat();
        assert_eq!(read_all(&mut world.client), (expected, None));
    }
}

#[test]
fn room_is_watched_once_somebody_lacks_it() {
    let mut world = World::new();
    let mut flow = world.flow.take().unwrap();
    assert_eq!(flow.room_to_watch(), None);
    world.server.set_nonblocking(true).unwrap();
    let block = vec![0; 1 << 20];
    let now = Instant::now();
    let mut watched = None;
    for _ in 0..1000 {
        let _ = world.server.write(&block);
        // Its turn may be over while the pipe still holds something: then nobody lacks room yet.
        flow.ready(Side::Host, Readiness::of_reading(), &mut world.scratch, now);
        watched = flow.room_to_watch();
        if watched.is_some() {
            break;
        }
    }
    assert!(flow.holds());
    assert_eq!(watched, Some(Side::Router));
    assert_eq!(flow.room_to_watch(), None);
    flow.close(&mut world.scratch.pipes);
}

#[test]
fn half_close_leaves_the_other_half_open() {
    let mut world = World::new();
    world.client.write_all(b"all of it").unwrap();
    world.client.shutdown(Shutdown::Write).unwrap();
    world.settle();
    assert_eq!(read_all(&mut world.server), (b"all of it".to_vec(), None));
    world.server.write_all(b"the answer").unwrap();
    world.settle();
    let mut buffer = [0; 32];
    assert_eq!(world.client.read(&mut buffer).unwrap(), 10);
    assert!(world.flow.is_some());
    world.server.shutdown(Shutdown::Write).unwrap();
    world.settle();
    assert_eq!(read_all(&mut world.client), (Vec::new(), None));
    assert!(world.flow.is_none(), "both ended");
}

#[test]
fn the_servers_half_close_works_too() {
    let mut world = World::new();
    world.server.write_all(b"banner").unwrap();
    world.server.shutdown(Shutdown::Write).unwrap();
    world.settle();
    assert_eq!(read_all(&mut world.client), (b"banner".to_vec(), None));
    world.client.write_all(b"upload").unwrap();
    drop(world.client.shutdown(Shutdown::Write));
    world.settle();
    assert_eq!(read_all(&mut world.server), (b"upload".to_vec(), None));
    assert!(world.flow.is_none());
}

#[test]
fn a_reset_is_passed_on_as_a_reset_behind_the_bytes() {
    for from_server in [true, false] {
        let mut world = World::new();
        let (sender, receiver) = if from_server {
            (&mut world.server, &mut world.client)
        } else {
            (&mut world.client, &mut world.server)
        };
        sender.write_all(b"last words").unwrap();
        let sender = sender.try_clone().unwrap();
        let mut receiver = receiver.try_clone().unwrap();
        world.settle();
        reset(sender, &mut world, from_server);
        world.settle();
        let (bytes, error) = read_all(&mut receiver);
        assert_eq!(bytes, b"last words");
        assert_eq!(error, Some(ErrorKind::ConnectionReset));
        assert!(world.flow.is_none());
    }
}

/// Closes both copies of a stream so that the last one sends RST.
fn reset(stream: TcpStream, world: &mut World, server: bool) {
    let (replacement, _) = connection();
    reset_on_close(&stream.into());
    let old = if server {
        std::mem::replace(&mut world.server, replacement)
    } else {
        std::mem::replace(&mut world.client, replacement)
    };
    reset_on_close(&old.into());
}

#[test]
fn a_reset_does_not_overtake_what_the_other_side_is_slow_to_take() {
    const LENGTH: usize = 300_000;
    let mut world = World::new();
    world.server.write_all(&vec![7; LENGTH]).unwrap();
    // Some of it is with the client, some in the router side, perhaps some still with the server.
    world.round(Duration::from_millis(50));
    let stream = world.server.try_clone().unwrap();
    reset(stream, &mut world, true);
    let mut client = world.client.try_clone().unwrap();
    let reader = std::thread::spawn(move || read_all(&mut client));
    while world.round(Duration::from_millis(5)) {}
    let (bytes, error) = reader.join().unwrap();
    assert_eq!(error, Some(ErrorKind::ConnectionReset));
    assert_eq!(bytes.len(), LENGTH);
}

#[test]
fn a_reset_after_a_half_close_is_noticed() {
    let mut world = World::new();
    world.server.shutdown(Shutdown::Write).unwrap();
    world.settle();
    assert_eq!(read_all(&mut world.client), (Vec::new(), None));
    let stream = world.server.try_clone().unwrap();
    reset(stream, &mut world, true);
    world.settle();
    assert!(world.flow.is_none());
    let error = (0..10).find_map(|_| world.client.write_all(b"x").err());
    assert!(error.is_some());
}

#[test]
fn a_closed_receiver_ends_the_flow() {
    let mut world = World::new();
    let (replacement, _) = connection();
    drop(std::mem::replace(&mut world.client, replacement));
    world.settle();
    assert_eq!(read_all(&mut world.server), (Vec::new(), None));
    world.server.write_all(b"too late").unwrap();
    world.settle();
    assert!(
        world.flow.is_none(),
        "the client's kernel has answered by RST"
    );
    let error = (0..10).find_map(|_| world.server.write_all(b"x").err());
    assert!(error.is_some());
}

#[test]
fn bulk_is_not_altered_and_pipes_come_back() {
    const LENGTH: usize = 32 << 20;
    let mut world = World::new();
    let mut client = world.client.try_clone().unwrap();
    let mut server = world.server.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let block: Vec<u8> = (0..LENGTH).map(|n| (n % 251) as u8).collect();
        client.write_all(&block).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    });
    let reader = std::thread::spawn(move || {
        let (bytes, error) = read_all(&mut server);
        assert_eq!(error, None);
        bytes
    });
    while !reader.is_finished() {
        world.round(Duration::from_millis(5));
    }
    writer.join().unwrap();
    let bytes = reader.join().unwrap();
    assert_eq!(bytes.len(), LENGTH);
    assert!((0..LENGTH).all(|n| bytes[n] == (n % 251) as u8));
    assert_eq!(world.scratch.pipes.lent(), 0);
}

#[test]
fn urgent_data_arrives_in_its_place() {
    let mut world = World::new();
    world.client.write_all(&vec![b'a'; 100_000]).unwrap();
    SockRef::from(&world.client).send_out_of_band(b"!").unwrap();
    world.client.write_all(&vec![b'b'; 100_000]).unwrap();
    world.client.shutdown(Shutdown::Write).unwrap();
    let mut server = world.server.try_clone().unwrap();
    let reader = std::thread::spawn(move || read_all(&mut server).0);
    while !reader.is_finished() {
        world.round(Duration::from_millis(5));
    }
    let bytes = reader.join().unwrap();
    assert_eq!(bytes.len(), 200_001);
    assert_eq!(bytes[100_000], b'!');
}

#[test]
fn who_does_not_read_holds_up_the_sender() {
    let mut world = World::new();
    world.client.set_nonblocking(true).unwrap();
    let block = vec![0; 1 << 20];
    let mut sent = 0;
    // No flow buffers more than its sockets and a pipe do.
    for _ in 0..200 {
        match world.client.write(&block) {
            Ok(length) => sent += length,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        world.round(Duration::from_millis(1));
    }
    assert!(sent < 100 << 20, "{sent}");
    assert!(world.flow.is_some());
}

#[test]
fn sequence_numbers_are_read_from_saved_headers() {
    let mut syn = vec![
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 192, 0, 2, 1,
    ];
    syn.extend([
        4, 0, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0,
    ]);
    let (tuple, isn) = syn_of(&syn).unwrap();
    assert_eq!(isn, 0x0102_0304);
    let ends = [tuple.client, tuple.destination].map(|end| end.to_string());
    assert_eq!(ends, ["10.0.0.2:1024", "192.0.2.1:80"]);
    assert_eq!(syn_of(&syn[..30]), None);
    assert_eq!(syn_of(&[]), None);
}
