//! Connections that are made, used once, and kept.

use super::{Measured, Order, exchange, values};

/// Says `held` when as many as ordered are open, and keeps them until the process is ended.
pub fn hold(order: &Order) -> Measured {
    let mut streams = Vec::with_capacity(order.number);
    for number in 0..order.number {
        let opened = exchange::open(order.address, number);
        let asked = opened.and_then(|mut stream| exchange::ask(&mut stream).map(|()| stream));
        let stream =
            asked.map_err(|why| format!("connection {} of {}: {why}", number + 1, order.number))?;
        streams.push(stream);
    }
    println!("held");
    std::thread::sleep(order.duration);
    Ok(values([("held", streams.len() as f64)]))
}
