//! DNS: questions that no cache can answer, a window of them under way.
//!
//! The server answers every question with one address; the name is new each time.

use super::{Measured, Order, values};
use std::net::{Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

/// Questions under way.
const WINDOW: usize = 32;
/// What is not answered by then is lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// Bytes of a header (RFC 1035 §4.1.1).
const HEADER: usize = 12;

/// Answers on port 53 until the process ends; where that is taken, nobody asks.
pub fn serve() {
    let Ok(socket) = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 53)) else {
        return;
    };
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = answer(&buffer[..length]) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
}

/// The question with one A record.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut at = HEADER;
    while *query.get(at)? != 0 {
        at += usize::from(query[at]) + 1;
    }
    let question = query.get(HEADER..at + 5)?;
    let mut answer = query[..2].to_vec();
    // A response, recursion available; one question, one answer.
    answer.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend(question);
    // The name at offset 12; A, IN, a minute, four bytes.
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 10]);
    Some(answer)
}

fn question(number: usize, run: u32) -> Vec<u8> {
    let mut query = (number as u16).to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in [&format!("q{number}-{run}"), "bench", "example"] {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// Asks the resolver: answers per second, and per cent lost.
pub fn ask(order: &Order) -> Measured {
    let failed = |error: std::io::Error| format!("ask: {error}");
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
    socket.connect((order.address, 53)).map_err(failed)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let run = std::process::id();
    let (mut asked, mut answered, mut refused, mut lost) = (0, 0, 0, 0);
    let begin = Instant::now();
    let mut buffer = [0; 512];
    while begin.elapsed() < order.duration {
        while asked - answered - refused - lost < WINDOW {
            socket.send(&question(asked, run)).map_err(failed)?;
            asked += 1;
        }
        match socket.recv(&mut buffer) {
            // The response code is the low half of the fourth byte.
            Ok(length) if length > HEADER && buffer[3] & 15 == 0 => answered += 1,
            Ok(_) => refused += 1,
            Err(_) => lost = asked - answered - refused,
        }
    }
    let took = begin.elapsed().as_secs_f64();
    if answered == 0 {
        return Err(format!("{asked} asked, none answered, {refused} refused"));
    }
    let bad = (lost + refused) as f64 * 100.0 / asked as f64;
    Ok(values([("rate", answered as f64 / took), ("lost", bad)]))
}
