//! A framed flow's connection, told segments that a container makes up.
//!
//! Two bytes say what comes next: our data, an acknowledgement, or a segment of so many bytes. The numbers of every other
//! segment count from those that are due, so that they get beyond the first check.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mossnet::relay::endpoints::Place;
use mossnet::relay::pending::FourTuple;
use mossnet::relay::tcp::framed::connection::{Connection, Offer, Received, WINDOW};
use mossnet::relay::wire::tcp::{HEADER_LEN, Segment};

const OURS: u32 = u32::MAX - 2;

fn begin(asks: bool, syn: &Segment<'_>) -> Option<Connection> {
    let ends = FourTuple {
        client: "10.0.0.2:1000".parse().expect("an address"),
        destination: "192.0.2.1:80".parse().expect("an address"),
    };
    let place = Place {
        port: 7,
        mac: [2, 0, 0, 0, 0, 1],
    };
    Some(match asks {
        true => Connection::asking(ends, place, OURS),
        false => Connection::answering(ends, place, Offer::of(syn)?, OURS),
    })
}

/// Has the numbers of a segment count from these.
fn place_at(bytes: &mut [u8], sequence: u32, acknowledgement: u32) {
    for (at, from) in [(4, sequence), (8, acknowledgement)] {
        let Some(number) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) else {
            return;
        };
        *number = u32::from_be_bytes(*number).wrapping_add(from).to_be_bytes();
    }
}

fn check(connection: &Connection, sent: usize) {
    let state = connection.state(&[], 1);
    assert!(state.unacknowledged.len() <= sent);
    assert!(connection.owed() <= WINDOW + 2);
    assert!(connection.again().data.len() == state.unacknowledged.len());
    assert!(!connection.is_over() || connection.is_acknowledged());
    // A kernel that cuts frames into segments divides by it.
    assert!(connection.segment_len() > 0);
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, mut input)) = input.split_first() else {
        return;
    };
    let mut take = |length: usize| {
        let (now, later) = input.split_at_checked(length)?;
        input = later;
        Some(now)
    };
    let Some(Ok(syn)) = take(HEADER_LEN + 20).map(Segment::parse) else {
        return;
    };
    let Some(mut connection) = begin(first & 1 == 1, &syn) else {
        return;
    };
    let mut sent = 0;
    while let Some(&[what, length]) = take(2) {
        let length = usize::from(length);
        match what {
            0..32 if connection.is_established() && !connection.has_ended() => {
                let length = length.min(connection.room());
                let _ = connection.send(&[7; 255][..length], what == 0);
                sent += length;
            }
            32..64 => drop(connection.acknowledge()),
            _ => {
                let Some(bytes) = take(length) else {
                    return;
                };
                let mut bytes = bytes.to_vec();
                let head = connection.farewell();
                if what & 1 == 1 {
                    place_at(&mut bytes, head.acknowledgement, head.sequence);
                }
                let Ok(segment) = Segment::parse(&bytes) else {
                    continue;
                };
                let offered = segment.payload().len();
                if let Received::Due { data, .. } = connection.receive(&segment) {
                    assert!(data.is_empty() || data.len() == offered);
                }
            }
        }
        check(&connection, sent);
    }
});
