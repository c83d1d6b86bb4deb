//! Connections that are made, used once, and kept.

use super::{Measured, Order, exchange, values};
use std::net::{IpAddr, TcpStream};

/// Connections are made by so many threads: of tens of thousands, one after the other takes a minute.
const THREADS: usize = 8;

/// Says `held` when as many as ordered are open, and keeps them until the process is ended.
pub fn hold(order: &Order) -> Measured {
    let open = |from: usize| {
        let (address, all) = (order.address, order.number);
        std::thread::spawn(move || every(THREADS, from, address, all))
    };
    let threads: Vec<_> = (0..THREADS).map(open).collect();
    let mut streams = Vec::with_capacity(order.number);
    for thread in threads {
        streams.extend(thread.join().map_err(|_| "a thread panicked")??);
    }
    println!("held");
    std::thread::sleep(order.duration);
    Ok(values([("held", streams.len() as f64)]))
}

/// Every so many-th of `all` connections.
fn every(step: usize, from: usize, address: IpAddr, all: usize) -> Result<Vec<TcpStream>, String> {
    let one = |number: usize| {
        let opened = exchange::open(address, number);
        let asked = opened.and_then(|mut stream| exchange::ask(&mut stream).map(|()| stream));
        asked.map_err(|why| format!("connection {} of {all}: {why}", number + 1))
    };
    (from..all).step_by(step).map(one).collect()
}
