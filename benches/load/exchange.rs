//! Requests and connections: 64 bytes asked, 64 bytes answered.
//!
//! Both ends are one thread, so that what differs between contenders is the path alone. A single
//! connection is asked by blocking calls, many by epoll(7). Eight ports spread the connections: no
//! contender runs out of 4-tuples before it is out of breath.

use super::{Measured, Order, PATIENCE, connect, datagrams, listener, values};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const MESSAGE: [u8; 64] = [b'm'; 64];
const FIRST_PORT: u16 = 7100;
const PORTS: u16 = 8;
/// Events of one epoll_wait.
const EVENTS: usize = 256;

/// Answers until the process ends.
pub fn serve() {
    let listeners: Vec<_> = (0..PORTS).map(|i| listener(FIRST_PORT + i)).collect();
    for listener in &listeners {
        listener.set_nonblocking(true).expect("non-blocking");
    }
    std::thread::spawn(move || serve_on(&listeners));
}

/// A key below [`PORTS`] is a listener's.
fn serve_on(listeners: &[TcpListener]) {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll");
    let readable = |key: u64| EpollEvent::new(EpollFlags::EPOLLIN, key);
    for (key, listener) in (0..).zip(listeners) {
        epoll.add(listener, readable(key)).expect("epoll");
    }
    let mut streams: HashMap<u64, TcpStream> = HashMap::new();
    let mut next = u64::from(PORTS);
    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE).unwrap_or(0);
        for event in &events[..count] {
            let key = event.data();
            if key >= u64::from(PORTS) {
                if streams.get_mut(&key).is_some_and(|stream| !answer(stream)) {
                    streams.remove(&key);
                }
                continue;
            }
            while let Ok((stream, _)) = listeners[key as usize].accept() {
                let ready =
                    stream.set_nonblocking(true).is_ok() && stream.set_nodelay(true).is_ok();
                if ready && epoll.add(&stream, readable(next)).is_ok() {
                    streams.insert(next, stream);
                    next += 1;
                }
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

/// Requests on persistent connections: rate per second, latencies in microseconds.
pub fn requests(order: &Order) -> Measured {
    match order.number {
        1 => one_asking(order),
        _ => many(order, usize::MAX),
    }
}

/// Connect, ask, close.
pub fn connections(order: &Order) -> Measured {
    match order.number {
        1 => one_connecting(order),
        _ => many(order, 1),
    }
}

/// How long each exchange took.
struct Latencies {
    begin: Instant,
    each: Vec<Duration>,
    failed: usize,
}

impl Latencies {
    fn start() -> Self {
        Self {
            begin: Instant::now(),
            each: Vec::with_capacity(1 << 20),
            failed: 0,
        }
    }

    fn result(mut self) -> Measured {
        let took = self.begin.elapsed().as_secs_f64();
        let done = self.each.len();
        if done == 0 || self.failed * 100 > done {
            return Err(format!("{} of {} failed", self.failed, done + self.failed));
        }
        self.each.sort_unstable();
        let at = |part: f64| self.each[((done - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
        Ok(values([
            ("rate", done as f64 / took),
            ("done", done as f64),
            ("p50", at(0.5)),
            ("p99", at(0.99)),
        ]))
    }
}

/// One exchange on a fresh or a used connection.
pub fn ask(stream: &mut TcpStream) -> Result<(), String> {
    let mut buffer = [0; 64];
    stream
        .write_all(&MESSAGE)
        .map_err(|e| format!("ask: {e}"))?;
    let answered = stream.read_exact(&mut buffer);
    answered.map_err(|e| format!("no answer: {e}"))
}

/// A connection to the exchange server; `number` chooses the port.
pub fn open(address: IpAddr, number: usize) -> Result<TcpStream, String> {
    connect(address, port(number))
}

fn port(number: usize) -> u16 {
    FIRST_PORT + (number % usize::from(PORTS)) as u16
}

fn one_asking(order: &Order) -> Measured {
    let mut stream = open(order.address, 0)?;
    let mut latencies = Latencies::start();
    let end = Instant::now() + order.duration;
    let mut begin = Instant::now();
    while begin < end {
        ask(&mut stream)?;
        let now = Instant::now();
        latencies.each.push(now - begin);
        begin = now;
    }
    latencies.result()
}

/// Datagrams there and back, one at a time: the same.
pub fn echoes(order: &Order) -> Measured {
    let socket = datagrams::flow(order.address)?;
    let mut latencies = Latencies::start();
    let end = Instant::now() + order.duration;
    let mut begin = Instant::now();
    while begin < end {
        let answered = datagrams::echo_on(&socket);
        let now = Instant::now();
        if answered {
            latencies.each.push(now - begin);
        } else {
            latencies.failed += 1;
        }
        begin = now;
    }
    latencies.result()
}

fn one_connecting(order: &Order) -> Measured {
    let mut latencies = Latencies::start();
    let end = Instant::now() + order.duration;
    let mut begin = Instant::now();
    let mut number = 0;
    while begin < end {
        ask(&mut open(order.address, number)?)?;
        let now = Instant::now();
        latencies.each.push(now - begin);
        (begin, number) = (now, number + 1);
    }
    latencies.result()
}

/// A connection of many.
struct Slot {
    stream: TcpStream,
    connecting: bool,
    received: usize,
    since: Instant,
}

impl Slot {
    fn open(epoll: &Epoll, address: IpAddr, number: usize, key: u64) -> Result<Self, String> {
        let remote = SocketAddr::from((address, port(number)));
        let failed = |error: std::io::Error| format!("connection {number}: {error}");
        let domain = Domain::for_address(remote);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        socket.set_tcp_nodelay(true).map_err(failed)?;
        // In progress, or failed: the first event tells, and the first write.
        let _ = socket.connect(&remote.into());
        // Edges: one call serves connecting and reading.
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        let added = epoll.add(&socket, EpollEvent::new(interest, key));
        added.map_err(|errno| failed(errno.into()))?;
        Ok(Self {
            stream: socket.into(),
            connecting: true,
            received: 0,
            since: Instant::now(),
        })
    }

    /// Goes on; true when an answer is whole.
    fn step(&mut self) -> Result<bool, std::io::Error> {
        if self.connecting {
            match self.stream.write_all(&MESSAGE) {
                Ok(()) => self.connecting = false,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            return Ok(false);
        }
        let mut buffer = [0; 64];
        match self.stream.read(&mut buffer[self.received..]) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.received += count;
                Ok(self.received == 64)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn ask_again(&mut self) -> bool {
        self.received = 0;
        self.since = Instant::now();
        self.stream.write_all(&MESSAGE).is_ok()
    }
}

/// Keeps connections busy, with `per_connection` requests each.
fn many(order: &Order, per_connection: usize) -> Measured {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll");
    let mut opened = order.number;
    let mut latencies = Latencies::start();
    let mut slots = Vec::with_capacity(order.number);
    for number in 0..order.number {
        slots.push(Slot::open(&epoll, order.address, number, number as u64)?);
    }
    let mut events = [EpollEvent::empty(); EVENTS];
    let end = Instant::now() + order.duration;
    while Instant::now() < end {
        let patience = EpollTimeout::try_from(PATIENCE).expect("short");
        let count = epoll.wait(&mut events, patience).unwrap_or(0);
        if count == 0 {
            return Err(format!("nothing moved for {PATIENCE:?}"));
        }
        for event in &events[..count] {
            let key = event.data();
            let slot = &mut slots[key as usize];
            let over = match slot.step() {
                Ok(false) => false,
                Ok(true) => {
                    latencies.each.push(slot.since.elapsed());
                    per_connection == 1 || !slot.ask_again()
                }
                Err(_) => {
                    latencies.failed += 1;
                    true
                }
            };
            if over {
                *slot = Slot::open(&epoll, order.address, opened, key)?;
                opened += 1;
            }
        }
    }
    latencies.result()
}
