//! Load generator and its server: 64 bytes asked, 64 bytes answered.
//!
//! Both are one thread on poll(2), so that what differs between contenders is the path alone.
//! Eight ports spread the connections: no contender runs out of 4-tuples before it is out of breath.

use crate::world::servers::listener;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const MESSAGE: [u8; 64] = [b'm'; 64];
const FIRST_PORT: u16 = 7100;
const PORTS: u16 = 8;

/// Answers in netns `netns` until the process ends.
pub fn serve(netns: &str) {
    let listeners: Vec<TcpListener> = (0..PORTS)
        .map(|i| listener(netns, FIRST_PORT + i))
        .collect();
    for listener in &listeners {
        listener.set_nonblocking(true).expect("non-blocking");
    }
    std::thread::spawn(move || serve_on(&listeners));
}

fn serve_on(listeners: &[TcpListener]) {
    let mut streams: Vec<TcpStream> = Vec::new();
    loop {
        let fds = listeners
            .iter()
            .map(AsFd::as_fd)
            .chain(streams.iter().map(AsFd::as_fd));
        let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::NONE).expect("poll");
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let (ready_listeners, ready_streams) = ready.split_at(listeners.len());
        let mut index = 0;
        streams.retain_mut(|stream| {
            index += 1;
            !ready_streams[index - 1] || answer(stream)
        });
        for (listener, _) in listeners
            .iter()
            .zip(ready_listeners)
            .filter(|(_, ready)| **ready)
        {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).expect("non-blocking");
                stream.set_nodelay(true).expect("no delay");
                streams.push(stream);
            }
        }
    }
}

/// Answers one request; false when the connection is over.
fn answer(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 64];
    match stream.read(&mut buffer) {
        Ok(0) => false,
        Ok(count) => stream.write_all(&buffer[..count]).is_ok(),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// `load KIND ADDRESS COUNT SECONDS`: prints a rate per second.
pub fn client(args: &[String]) {
    let [kind, address, count, duration] = args else {
        panic!("load KIND ADDRESS COUNT SECONDS");
    };
    let address: IpAddr = address.parse().expect("an address");
    let count: usize = count.parse().expect("a number");
    let duration = Duration::from_secs(duration.parse().expect("seconds"));
    let begin = Instant::now();
    let (done, failed) = match (kind.as_str(), count) {
        ("requests", 1) => (one_asking(address, duration), 0),
        ("requests", count) => many(address, duration, count, usize::MAX),
        ("connections", 1) => (one_connecting(address, duration), 0),
        ("connections", count) => many(address, duration, count, 1),
        (kind, _) => panic!("unknown load {kind}"),
    };
    let rate = done as f64 / begin.elapsed().as_secs_f64();
    assert!(
        failed * 100 <= done,
        "{failed} of {done} connections failed"
    );
    println!("{rate}");
}

fn connect(address: IpAddr, port: u16) -> TcpStream {
    let stream = TcpStream::connect((address, FIRST_PORT + port % PORTS)).expect("connect");
    stream.set_nodelay(true).expect("no delay");
    stream
}

fn ask(stream: &mut TcpStream) {
    let mut buffer = [0; 64];
    stream.write_all(&MESSAGE).expect("ask");
    stream.read_exact(&mut buffer).expect("an answer");
}

fn one_asking(address: IpAddr, duration: Duration) -> usize {
    let mut stream = connect(address, 0);
    let end = Instant::now() + duration;
    let mut done = 0;
    while Instant::now() < end {
        ask(&mut stream);
        done += 1;
    }
    done
}

fn one_connecting(address: IpAddr, duration: Duration) -> usize {
    let end = Instant::now() + duration;
    let mut done = 0;
    while Instant::now() < end {
        let port = u16::try_from(done % usize::from(PORTS)).expect("small");
        ask(&mut connect(address, port));
        done += 1;
    }
    done
}

/// A connection of many.
struct Slot {
    stream: TcpStream,
    connecting: bool,
    received: usize,
    asked: usize,
}

impl Slot {
    fn open(address: IpAddr, number: usize) -> Self {
        let port = FIRST_PORT + u16::try_from(number % usize::from(PORTS)).expect("small");
        let domain = Domain::for_address(SocketAddr::from((address, port)));
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).expect("socket");
        socket.set_nonblocking(true).expect("non-blocking");
        socket.set_tcp_nodelay(true).expect("no delay");
        // In progress, or failed: poll tells, and the first write.
        let _ = socket.connect(&SocketAddr::from((address, port)).into());
        Self {
            stream: socket.into(),
            connecting: true,
            received: 0,
            asked: 0,
        }
    }

    /// Goes on; tells how many answers came, or that it failed.
    fn step(&mut self) -> Result<usize, std::io::Error> {
        if self.connecting {
            self.stream.write_all(&MESSAGE)?;
            self.connecting = false;
            self.asked = 1;
            return Ok(0);
        }
        let mut buffer = [0; 64];
        match self.stream.read(&mut buffer[..64 - self.received]) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.received += count;
                let whole = self.received == 64;
                if whole {
                    self.received = 0;
                }
                Ok(usize::from(whole))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// Keeps `count` connections busy, `per_connection` requests each; answers and failures.
fn many(
    address: IpAddr,
    duration: Duration,
    count: usize,
    per_connection: usize,
) -> (usize, usize) {
    let mut opened = count;
    let mut slots: Vec<Slot> = (0..count).map(|i| Slot::open(address, i)).collect();
    let end = Instant::now() + duration;
    let (mut done, mut failed) = (0, 0);
    while Instant::now() < end {
        let wanted = |slot: &Slot| match slot.connecting {
            true => PollFlags::POLLOUT,
            false => PollFlags::POLLIN,
        };
        let fds = slots
            .iter()
            .map(|slot| PollFd::new(slot.stream.as_fd(), wanted(slot)));
        let mut fds: Vec<_> = fds.collect();
        poll(&mut fds, PollTimeout::from(100_u16)).expect("poll");
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        for (slot, _) in slots.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            let over = match slot.step() {
                Ok(answers) => {
                    done += answers;
                    let over = answers == 1 && slot.asked >= per_connection;
                    let again = answers == 1 && !over;
                    slot.asked += usize::from(again);
                    over || again && slot.stream.write_all(&MESSAGE).is_err()
                }
                Err(_) => {
                    failed += 1;
                    true
                }
            };
            if over {
                *slot = Slot::open(address, opened);
                opened += 1;
            }
        }
    }
    (done, failed)
}
