//! Load generator for UDP, and its server.
//!
//! *Flood*: as many datagrams as the client can send, whatever becomes of them; the server counts.
//! *Paced*: the same, one by one at 100 Mbit/s, which nobody ought to lose any of.
//! *Echo*: a window of datagrams is under way, each answer lets the next one go; what has not come
//! back after a pause is lost. Both ends take and send in batches, singly made datagrams all of them
//! (no UDP_SEGMENT), with the buffers that a socket has by default.
//!
//! A datagram begins with a word that says what it is for, and the number of the run.

use mossnet::sys::udp::{Batch, Datagram, Path, send};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Where the server listens.
pub const PORT: u16 = 7200;

/// Datagrams of one system call.
const BATCH: usize = 32;
/// Datagrams under way in an echo.
const WINDOW: usize = 64;
/// What is not back by then is lost.
const PATIENCE: Duration = Duration::from_millis(50);

/// Bits per second of a paced flood.
const PACE: u64 = 100_000_000;

const COUNT: u32 = 1;
const ECHO: u32 = 2;
const REPORT: u32 = 3;

/// Bytes of a report: purpose, run, how many came, and in how many nanoseconds.
const HEAD: usize = 24;

/// Serves until the process ends.
pub fn serve() {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("bind");
    std::thread::spawn(move || {
        let mut batch = Batch::new(BATCH, 2048);
        let mut tally = Tally::default();
        loop {
            readable(&socket, PollTimeout::NONE);
            while let Ok(count) = batch.receive(socket.as_fd()) {
                answer(&socket, &batch, &mut tally);
                if count < batch.slots() {
                    break;
                }
            }
        }
    });
}

/// What came of the newest run.
#[derive(Default)]
struct Tally {
    run: u32,
    count: u64,
    times: Option<(Instant, Instant)>,
}

impl Tally {
    fn count(&mut self, run: u32, now: Instant) {
        if self.run != run {
            *self = Self {
                run,
                ..Self::default()
            };
        }
        self.count += 1;
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
            COUNT => tally.count(run, now),
            REPORT => {
                let _ = socket.send_to(&tally.report(run), source);
            }
            _ => {
                if to.replace(source).is_some_and(|before| before != source) {
                    give(socket, Some(source), &std::mem::take(&mut echoes));
                }
                echoes.push(plain(received.data));
            }
        }
    }
    give(socket, to, &echoes);
}

/// `udp KIND ADDRESS BYTES SECONDS`: prints a rate per second, and how many per cent were lost.
pub fn client(args: &[String]) {
    let [kind, address, bytes, duration] = args else {
        panic!("udp KIND ADDRESS BYTES SECONDS");
    };
    let address: IpAddr = address.parse().expect("an address");
    let bytes: usize = bytes.parse().expect("a number");
    let duration = Duration::from_secs(duration.parse().expect("seconds"));
    let any: SocketAddr = (Ipv6Addr::UNSPECIFIED, 0).into();
    let any = if address.is_ipv4() {
        SocketAddr::from(([0, 0, 0, 0], 0))
    } else {
        any
    };
    let socket = UdpSocket::bind(any).expect("bind");
    socket.connect((address, PORT)).expect("connect");
    let run = std::process::id();
    let (rate, sent, arrived) = match kind.as_str() {
        "flood" => flood(&socket, run, bytes, duration, None),
        "paced" => flood(&socket, run, bytes, duration, Some(PACE)),
        "echo" => echo(&socket, run, bytes, duration),
        kind => panic!("unknown load {kind}"),
    };
    assert!(arrived > 0, "none of {sent} datagrams arrived");
    let lost = sent.saturating_sub(arrived) as f64 * 100.0 / sent as f64;
    println!("{rate} {lost}");
}

/// `pace`: bits per second.
fn flood(
    socket: &UdpSocket,
    run: u32,
    bytes: usize,
    duration: Duration,
    pace: Option<u64>,
) -> (f64, u64, u64) {
    let data = filled(COUNT, run, bytes);
    let batch = [plain(&data); BATCH];
    let begin = Instant::now();
    let mut sent = 0;
    while begin.elapsed() < duration {
        let Some(pace) = pace else {
            sent += give(socket, None, &batch);
            continue;
        };
        let due = pace as f64 * begin.elapsed().as_secs_f64() / (8 * bytes) as f64;
        // After a pause for whatever reason it does not make up for it at once.
        for _ in 0..(due as u64).saturating_sub(sent).min(BATCH as u64) {
            give(socket, None, &batch[..1]);
            sent += 1;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    // What waits in queues arrives, then the report is true.
    std::thread::sleep(Duration::from_millis(200));
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a timeout");
    for _ in 0..20 {
        let _ = socket.send(&head(REPORT, run));
        let mut report = [0; HEAD];
        if socket.recv(&mut report).is_ok_and(|length| length == HEAD)
            && parse(&report) == Some((REPORT, run))
        {
            let number = |at: usize| {
                let bytes = report[at..at + 8].try_into().expect("eight bytes");
                u64::from_be_bytes(bytes)
            };
            let (count, took) = (number(8), number(16));
            return (count as f64 * 1e9 / took.max(1) as f64, sent, count);
        }
    }
    panic!("no report after {sent} datagrams");
}

fn echo(socket: &UdpSocket, run: u32, bytes: usize, duration: Duration) -> (f64, u64, u64) {
    let data = filled(ECHO, run, bytes);
    let mut batch = Batch::new(BATCH, 2048);
    let (begin, end) = (Instant::now(), Instant::now() + duration);
    let (mut sent, mut back, mut lost) = (0, 0, 0);
    while Instant::now() < end {
        let under_way = usize::try_from(sent - back - lost).expect("a window");
        let room = [plain(&data); BATCH];
        sent += give(socket, None, &room[..BATCH.min(WINDOW - under_way)]);
        if !readable(socket, PollTimeout::try_from(PATIENCE).expect("short")) {
            lost = sent - back;
        }
        if batch.receive(socket.as_fd()).is_ok() {
            let ours = batch.iter().filter(|got| got.data.len() == bytes);
            back += ours.count() as u64;
            // Late ones were given up before.
            lost = lost.min(sent - back.min(sent));
        }
    }
    let took = begin.elapsed().as_secs_f64();
    // What is under way at the end is not lost.
    (back as f64 / took, back + lost, back)
}

fn readable(socket: &UdpSocket, patience: PollTimeout) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, patience).expect("poll") > 0
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
                poll(&mut fds, PollTimeout::NONE).expect("poll");
            }
            Err(_) => rest = &rest[1..],
        }
    }
    datagrams.len() as u64
}

fn plain(data: &[u8]) -> Datagram<'_> {
    Datagram {
        data,
        segment: None,
        tos: 0,
        ttl: None,
    }
}

fn head(purpose: u32, run: u32) -> [u8; 8] {
    (u64::from(purpose) << 32 | u64::from(run)).to_be_bytes()
}

fn filled(purpose: u32, run: u32, bytes: usize) -> Vec<u8> {
    let mut data = vec![b'm'; bytes];
    data[..8].copy_from_slice(&head(purpose, run));
    data
}

fn parse(data: &[u8]) -> Option<(u32, u32)> {
    let word = u64::from_be_bytes(*data.first_chunk()?);
    Some(((word >> 32) as u32, word as u32))
}
