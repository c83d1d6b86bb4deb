//! Bulk TCP: as many bytes as the path takes, counted where they arrive.
//!
//! A connection begins with eight bytes, the duration in nanoseconds. Who receives counts what comes
//! in that time; going out, the server sends its count back while the rest still
//! comes, so that a path with much in its queues, or none at all, is told from one that is stuck. The
//! client ends every connection by RST: nobody has to drain anything. A thread serves each stream.

use super::{Measured, Order, connect, listener, values};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Takes what comes.
const SINK: u16 = 7110;
/// Sends all it can.
const SOURCE: u16 = 7111;
/// Bytes of one call, as iperf3 has it.
const CHUNK: usize = 128 << 10;
/// How long a call may block before the clock is looked at.
const TICK: Duration = Duration::from_millis(20);

/// Bytes that arrived, and the time they took.
type Received = Result<(u64, Duration), String>;

/// Serves until the process ends.
pub fn serve() {
    for (port, serve) in [(SINK, sink as fn(TcpStream)), (SOURCE, source)] {
        let listener = listener(port);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve(stream));
            }
        });
    }
}

fn duration(stream: &mut TcpStream) -> Option<Duration> {
    let mut head = [0; 8];
    stream.read_exact(&mut head).ok()?;
    Some(Duration::from_nanos(u64::from_be_bytes(head)))
}

fn sink(mut stream: TcpStream) {
    let Some(duration) = duration(&mut stream) else {
        return;
    };
    let (count, took) = receive(&mut stream, duration);
    let mut report = [0; 16];
    report[..8].copy_from_slice(&count.to_be_bytes());
    report[8..].copy_from_slice(&(took.as_nanos() as u64).to_be_bytes());
    let _ = stream.write_all(&report);
    // Until the client is content.
    let mut buffer = vec![0; CHUNK];
    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

/// Bytes that came within `duration`, and the time they took.
fn receive(stream: &mut TcpStream, duration: Duration) -> (u64, Duration) {
    let mut buffer = vec![0; CHUNK];
    let begin = Instant::now();
    let mut count = 0;
    let _ = stream.set_read_timeout(Some(TICK));
    while begin.elapsed() < duration {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(more) => count += more as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    (count, begin.elapsed())
}

fn source(mut stream: TcpStream) {
    let Some(duration) = duration(&mut stream) else {
        return;
    };
    let buffer = vec![b'm'; CHUNK];
    // The client resets it when it has counted enough.
    let end = Instant::now() + duration + Duration::from_secs(5);
    let _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
    while Instant::now() < end && stream.write(&buffer).is_ok() {}
}

/// Out of the container: Gbit/s, and bytes.
pub fn out(order: &Order) -> Measured {
    streams(order, SINK, |stream, duration| {
        let buffer = vec![b'm'; CHUNK];
        let end = Instant::now() + duration;
        let _ = stream.set_write_timeout(Some(TICK));
        while Instant::now() < end {
            match stream.write(&buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("send: {error}")),
            }
        }
        let mut report = [0; 16];
        let told = stream.read_exact(&mut report);
        told.map_err(|error| format!("stalled, no report of what arrived: {error}"))?;
        let number = |at: usize| {
            let bytes = report[at..at + 8].try_into().expect("eight bytes");
            u64::from_be_bytes(bytes)
        };
        Ok((number(0), Duration::from_nanos(number(8))))
    })
}

/// Into the container.
pub fn inward(order: &Order) -> Measured {
    streams(order, SOURCE, |stream, duration| {
        Ok(receive(stream, duration))
    })
}

fn streams(order: &Order, port: u16, run: fn(&mut TcpStream, Duration) -> Received) -> Measured {
    let one = |_| {
        let (address, duration) = (order.address, order.duration);
        std::thread::spawn(move || {
            let mut stream = connect(address, port)?;
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            let head = (duration.as_nanos() as u64).to_be_bytes();
            let begun = stream.write_all(&head);
            begun.map_err(|error| format!("send: {error}"))?;
            run(&mut stream, duration)
        })
    };
    let threads: Vec<_> = (0..order.number).map(one).collect();
    let (mut bytes, mut rate) = (0, 0.0);
    for thread in threads {
        let (count, took) = thread.join().map_err(|_| "a stream panicked")??;
        bytes += count;
        rate += count as f64 * 8.0 / took.as_secs_f64().max(1e-3) / 1e9;
    }
    if bytes == 0 {
        return Err("stalled: not one byte arrived".to_owned());
    }
    Ok(values([("rate", rate), ("bytes", bytes as f64)]))
}
