//! The first byte: asks until the way out is there.

use super::{Measured, Order, exchange, values};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Says `first` when an exchange has succeeded.
pub fn first_byte(order: &Order) -> Measured {
    let end = Instant::now() + order.duration;
    loop {
        // A route that is not there yet is an error at once; a path that is not, a lost SYN.
        let address = SocketAddr::from((order.address, 7100));
        let patience = Duration::from_millis(100);
        let tried = std::net::TcpStream::connect_timeout(&address, patience);
        let answered = tried.is_ok_and(|mut stream| exchange::ask(&mut stream).is_ok());
        if answered {
            println!("first");
            return Ok(values([]));
        }
        if Instant::now() > end {
            return Err("no first byte".to_owned());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}
