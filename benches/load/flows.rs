//! UDP flows to one destination, made one after the other and kept: each has a source port of its own,
//! and is asked before the next one is made.

use super::{Measured, Order, datagrams};
use std::collections::BTreeMap;
use std::time::Instant;

/// Flows of which the rate is told.
const PART: usize = 1000;

/// One echo each.
pub fn short(order: &Order) -> Measured {
    make(order, 1)
}

/// Ten, so that what a relay does for flows that last is in it.
pub fn long(order: &Order) -> Measured {
    make(order, 10)
}

/// Flows per second of each thousand, `thousand01` and on, and per cent of echoes lost.
fn make(order: &Order, echoes: usize) -> Measured {
    let mut told = BTreeMap::new();
    let mut kept = Vec::with_capacity(order.number);
    let (end, mut lost) = (Instant::now() + order.duration, 0);
    for part in 1..=order.number / PART {
        let begin = Instant::now();
        for _ in 0..PART {
            let socket = datagrams::flow(order.address)
                .map_err(|why| format!("flow {}: {why}", kept.len() + 1))?;
            let answered = (0..echoes).filter(|_| datagrams::echo_on(&socket));
            lost += echoes - answered.count();
            kept.push(socket);
            if Instant::now() > end {
                return Err(format!("stalled: {} flows, {lost} echoes lost", kept.len()));
            }
        }
        let rate = PART as f64 / begin.elapsed().as_secs_f64();
        told.insert(format!("thousand{part:02}"), rate);
        // For whoever looks at the processor time meanwhile.
        println!("made {part}");
    }
    let asked = (kept.len() * echoes).max(1);
    told.insert("lost".to_owned(), lost as f64 * 100.0 / asked as f64);
    Ok(told)
}
