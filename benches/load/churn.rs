//! Flows that come and go at a steady rate: connections with one exchange, and UDP flows with one echo.

use super::{Measured, Order, datagrams, exchange, values};
use std::time::{Duration, Instant};

/// One UDP flow to so many connections: the peers keep a UDP flow for minutes.
const PER_UDP_FLOW: usize = 10;

/// `number` connections per second.
pub fn churn(order: &Order) -> Measured {
    let pause = Duration::from_secs_f64(1.0 / order.number.max(1) as f64);
    let (begin, mut made, mut failed, mut udp, mut udp_lost) = (Instant::now(), 0, 0, 0, 0);
    while begin.elapsed() < order.duration {
        let opened = exchange::open(order.address, made);
        let asked = opened.and_then(|mut stream| exchange::ask(&mut stream));
        failed += usize::from(asked.is_err());
        if made % PER_UDP_FLOW == 0 {
            udp += 1;
            udp_lost += usize::from(!datagrams::one_echo(order.address));
        }
        made += 1;
        let due = pause * u32::try_from(made).unwrap_or(u32::MAX);
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    if failed * 100 > made {
        return Err(format!("{failed} of {made} connections failed"));
    }
    Ok(values([
        ("connections", made as f64),
        ("failed", failed as f64),
        ("udp", udp as f64),
        ("udp_lost", udp_lost as f64),
    ]))
}
