//! Load generator for UDP, and its server.
//!
//! *Flood*: as many datagrams as one end can send, whatever becomes of them; the other counts.
//! *Paced*: singly made ones at 100 Mbit/s, of which nobody ought to lose any.
//! *Segments*: a flood from a sender that hands 45 datagrams over as one (UDP_SEGMENT), to a receiver
//! that takes them so (UDP_GRO), as QUIC does.
//! *Echo*: a window of datagrams is under way, each answer lets the next one go; what has not come
//! back after a pause is lost. Both ends take and send in batches, with the buffers that a socket has
//! by default.
//!
//! A datagram begins with a word that says what it is for, and the number of the run.

use super::{Measured, Order, values};
use mossnet::sys::udp::{Batch, Datagram, Path, Report, enable, send};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Where the server listens.
pub const PORT: u16 = 7200;
/// The same with UDP_GRO.
const SEGMENTS_PORT: u16 = 7201;

/// Datagrams of one system call.
const BATCH: usize = 32;
/// Datagrams handed over as one.
const SEGMENTS: usize = 45;
/// Datagrams under way in an echo.
const WINDOW: usize = 64;
/// What is not back by then is lost.
const PATIENCE: Duration = Duration::from_millis(50);

/// Bits per second of what is paced.
const PACE: u64 = 100_000_000;

const COUNT: u32 = 1;
const ECHO: u32 = 2;
const REPORT: u32 = 3;
/// Asks for a flood: duration in nanoseconds, bytes of a datagram.
const FLOOD: u32 = 4;

/// Bytes of a report: purpose, run, how many came or went, and in how many nanoseconds.
const HEAD: usize = 24;

/// Serves until the process ends.
pub fn serve() {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("bind");
    std::thread::spawn(move || serve_on(&socket, Batch::new(BATCH, 2048)));
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, SEGMENTS_PORT)).expect("bind");
    enable(socket.as_fd(), true, Report::Segments).expect("UDP_GRO");
    std::thread::spawn(move || serve_on(&socket, Batch::new(BATCH, 1 << 16)));
}

fn serve_on(socket: &UdpSocket, mut batch: Batch) -> ! {
    let mut tally = Tally::default();
    loop {
        readable(socket, PollTimeout::NONE);
        while let Ok(count) = batch.receive(socket.as_fd()) {
            answer(socket, &batch, &mut tally);
            if count < batch.slots() {
                break;
            }
        }
    }
}

/// What came of the newest run.
#[derive(Default)]
struct Tally {
    run: u32,
    count: u64,
    times: Option<(Instant, Instant)>,
}

impl Tally {
    fn count(&mut self, run: u32, count: u64, now: Instant) {
        if self.run != run {
            *self = Self {
                run,
                ..Self::default()
            };
        }
        self.count += count;
        let first = self.times.map_or(now, |(first, _)| first);
        self.times = Some((first, now));
    }

    fn report(&self, run: u32) -> [u8; HEAD] {
        let (count, took) = match self.times {
            Some((first, last)) if self.run == run => (self.count, last - first),
            _ => (0, Duration::ZERO),
        };
        let took = u64::try_from(took.as_nanos()).expect("a short run");
        let mut bytes = [0; HEAD];
        bytes[..8].copy_from_slice(&head(REPORT, run));
        bytes[8..16].copy_from_slice(&count.to_be_bytes());
        bytes[16..].copy_from_slice(&took.to_be_bytes());
        bytes
    }
}

fn answer(socket: &UdpSocket, batch: &Batch, tally: &mut Tally) {
    let now = Instant::now();
    let mut echoes: Vec<Datagram<'_>> = Vec::with_capacity(BATCH);
    let mut to = None;
    for received in batch.iter() {
        let (Some((purpose, run)), Some(source)) = (parse(received.data), received.source) else {
            continue;
        };
        match purpose {
            COUNT => {
                let segment = received.segment.map_or(received.data.len(), usize::from);
                let count = received.data.len().div_ceil(segment.max(1));
                tally.count(run, count as u64, now);
            }
            FLOOD => {
                if let Some((duration, bytes)) = numbers(received.data) {
                    let data = filled(COUNT, run, (bytes as usize).clamp(HEAD, 1472));
                    let begin = Instant::now();
                    let sent = pour(
                        socket,
                        Some(source),
                        Datagram::plain(&data),
                        Duration::from_nanos(duration),
                    );
                    *tally = Tally {
                        run,
                        count: sent,
                        times: Some((begin, Instant::now())),
                    };
                }
            }
            REPORT => {
                let _ = socket.send_to(&tally.report(run), source);
            }
            _ => {
                if to.replace(source).is_some_and(|before| before != source) {
                    give(socket, Some(source), &std::mem::take(&mut echoes));
                }
                echoes.push(Datagram::plain(received.data));
            }
        }
    }
    give(socket, to, &echoes);
}

fn connected(order: &Order, port: u16) -> Result<UdpSocket, String> {
    let any: IpAddr = match order.address {
        IpAddr::V4(_) => [0, 0, 0, 0].into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).map_err(|error| format!("bind: {error}"))?;
    let connected = socket.connect((order.address, port));
    connected.map_err(|error| format!("connect: {error}"))?;
    Ok(socket)
}

/// Sends for `duration`; how many datagrams.
fn pour(
    socket: &UdpSocket,
    to: Option<SocketAddr>,
    datagram: Datagram<'_>,
    duration: Duration,
) -> u64 {
    let batch = [datagram; BATCH];
    // As many bytes at once, at most, as the buffer of a socket takes anyway.
    let batch = &batch[..if datagram.segment.is_some() { 2 } else { BATCH }];
    let end = Instant::now() + duration;
    let mut sent = 0;
    while Instant::now() < end {
        sent += give(socket, to, batch) * datagram.segments() as u64;
    }
    sent
}

/// What the other end counted: number, nanoseconds.
fn report(socket: &UdpSocket, run: u32) -> Result<(u64, u64), String> {
    // What waits in queues arrives, then the report is true.
    std::thread::sleep(Duration::from_millis(200));
    for _ in 0..20 {
        let _ = socket.send(&head(REPORT, run));
        let end = Instant::now() + Duration::from_millis(200);
        while Instant::now() < end {
            let _ = socket.set_read_timeout(Some(Duration::from_millis(50)));
            let mut report = [0; HEAD];
            if socket.recv(&mut report).is_ok_and(|length| length == HEAD)
                && parse(&report) == Some((REPORT, run))
            {
                return numbers(&report).ok_or("a short report".to_owned());
            }
        }
    }
    Err("no report of what arrived".to_owned())
}

fn outcome(sent: u64, arrived: u64, nanoseconds: u64, bytes: usize) -> Measured {
    if arrived == 0 {
        return Err(format!("none of {sent} datagrams arrived"));
    }
    let rate = arrived as f64 * 1e9 / nanoseconds.max(1) as f64;
    Ok(values([
        ("rate", rate),
        ("gbit", rate * bytes as f64 * 8.0 / 1e9),
        (
            "lost",
            sent.saturating_sub(arrived) as f64 * 100.0 / sent.max(1) as f64,
        ),
        ("bytes", arrived as f64 * bytes as f64),
    ]))
}

/// Datagrams of `number` bytes to the server.
pub fn flood_out(order: &Order) -> Measured {
    let socket = connected(order, PORT)?;
    let run = std::process::id();
    let sent = pour(
        &socket,
        None,
        Datagram::plain(&filled(COUNT, run, order.number)),
        order.duration,
    );
    let (arrived, took) = report(&socket, run)?;
    outcome(sent, arrived, took, order.number)
}

/// The same at 100 Mbit/s, one by one.
pub fn paced_out(order: &Order) -> Measured {
    let (socket, bytes) = (connected(order, PORT)?, order.number);
    let run = std::process::id();
    let data = filled(COUNT, run, bytes);
    let begin = Instant::now();
    let mut sent = 0;
    while begin.elapsed() < order.duration {
        let due = PACE as f64 * begin.elapsed().as_secs_f64() / (8 * bytes) as f64;
        // After a pause, for whatever reason, it does not make up for it at once.
        for _ in 0..(due as u64).saturating_sub(sent).min(BATCH as u64) {
            give(&socket, None, &[Datagram::plain(&data)]);
            sent += 1;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let (arrived, took) = report(&socket, run)?;
    outcome(sent, arrived, took, bytes)
}

/// A flood, 45 of them at once.
pub fn segments_out(order: &Order) -> Measured {
    let socket = connected(order, SEGMENTS_PORT)?;
    let run = std::process::id();
    // Each of the datagrams begins with its head.
    let data = filled(COUNT, run, order.number).repeat(SEGMENTS);
    let datagram = Datagram {
        segment: u16::try_from(order.number).ok(),
        ..Datagram::plain(&data)
    };
    let sent = pour(&socket, None, datagram, order.duration);
    let (arrived, took) = report(&socket, run)?;
    outcome(sent, arrived, took, order.number)
}

/// Datagrams of `number` bytes from the server.
pub fn flood_in(order: &Order) -> Measured {
    let socket = connected(order, PORT)?;
    let run = std::process::id();
    let mut request = filled(FLOOD, run, HEAD);
    request[8..16].copy_from_slice(&(order.duration.as_nanos() as u64).to_be_bytes());
    request[16..24].copy_from_slice(&(order.number as u64).to_be_bytes());
    socket
        .send(&request)
        .map_err(|error| format!("ask: {error}"))?;
    let mut batch = Batch::new(BATCH, 2048);
    let mut tally = Tally::default();
    let pause = PollTimeout::try_from(Duration::from_millis(500)).expect("short");
    let end = Instant::now() + order.duration + Duration::from_secs(1);
    while Instant::now() < end && readable(&socket, pause) {
        if batch.receive(socket.as_fd()).is_ok() {
            let ours = batch
                .iter()
                .filter(|got| parse(got.data) == Some((COUNT, run)));
            tally.count(run, ours.count() as u64, Instant::now());
        }
    }
    let (sent, _) = report(&socket, run)?;
    let took = tally
        .times
        .map_or(Duration::ZERO, |(first, last)| last - first);
    outcome(sent, tally.count, took.as_nanos() as u64, order.number)
}

/// Answers per second with a window of datagrams of `number` bytes under way.
pub fn echo(order: &Order) -> Measured {
    let (socket, bytes) = (connected(order, PORT)?, order.number);
    let data = filled(ECHO, std::process::id(), bytes);
    let mut batch = Batch::new(BATCH, 2048);
    let (begin, end) = (Instant::now(), Instant::now() + order.duration);
    let (mut sent, mut back, mut lost) = (0_u64, 0, 0);
    while Instant::now() < end {
        let under_way = usize::try_from(sent - back - lost).unwrap_or(WINDOW);
        let room = [Datagram::plain(&data); BATCH];
        sent += give(
            &socket,
            None,
            &room[..BATCH.min(WINDOW - under_way.min(WINDOW))],
        );
        if !readable(&socket, PollTimeout::try_from(PATIENCE).expect("short")) {
            lost = sent - back;
        }
        if batch.receive(socket.as_fd()).is_ok() {
            let ours = batch.iter().filter(|got| got.data.len() == bytes);
            back += ours.count() as u64;
            // Late ones were given up before.
            lost = lost.min(sent - back.min(sent));
        }
    }
    // What is under way at the end is not lost.
    outcome(back + lost, back, begin.elapsed().as_nanos() as u64, bytes)
}

/// One datagram to the server and back, from a socket of its own; false if it was lost.
pub fn one_echo(address: IpAddr) -> bool {
    flow(address).is_ok_and(|socket| echo_on(&socket))
}

/// A socket of its own towards the server.
pub fn flow(address: IpAddr) -> Result<UdpSocket, String> {
    let order = Order {
        address,
        number: 64,
        duration: Duration::ZERO,
    };
    let socket = connected(&order, PORT)?;
    let _ = socket.set_read_timeout(Some(PATIENCE));
    Ok(socket)
}

/// One datagram to the server and back; false if it was lost.
pub fn echo_on(socket: &UdpSocket) -> bool {
    let sent = socket.send(&filled(ECHO, std::process::id(), 64)).is_ok();
    sent && socket.recv(&mut [0; 64]).is_ok()
}

fn readable(socket: &UdpSocket, patience: PollTimeout) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, patience).is_ok_and(|count| count > 0)
}

/// Sends them all; what finds no room waits for it, what fails is lost.
fn give(socket: &UdpSocket, to: Option<SocketAddr>, datagrams: &[Datagram<'_>]) -> u64 {
    let path = Path {
        destination: to,
        source: None,
        v6: to.is_some_and(|to| to.is_ipv6()),
    };
    let mut rest = datagrams;
    while !rest.is_empty() {
        match send(socket.as_fd(), path, rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut fds, PollTimeout::from(100_u16));
            }
            Err(_) => rest = &rest[1..],
        }
    }
    datagrams.len() as u64
}

fn head(purpose: u32, run: u32) -> [u8; 8] {
    (u64::from(purpose) << 32 | u64::from(run)).to_be_bytes()
}

fn filled(purpose: u32, run: u32, bytes: usize) -> Vec<u8> {
    let mut data = vec![b'm'; bytes];
    data[..8].copy_from_slice(&head(purpose, run));
    data
}

/// The two numbers after the head.
fn numbers(data: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize| Some(u64::from_be_bytes(*data.get(at..)?.first_chunk()?));
    Some((number(8)?, number(16)?))
}

fn parse(data: &[u8]) -> Option<(u32, u32)> {
    let word = u64::from_be_bytes(*data.first_chunk()?);
    Some(((word >> 32) as u32, word as u32))
}
