//! `--uplink kernel` beside a rootful bridge with masquerade, and beside our own relay, in one run.
//!
//! Job: `cargo bench --bench uplink`, as root: `mossnet-helper` is installed in the world with real file
//! capabilities (`cargo build --release --workspace` makes it). A container of each contender asks the
//! same server, in the netns of another host; rounds are interleaved, so that a noisy minute hits
//! everybody; the table shows medians and ratios to the rootful bridge, and a line for each goal says
//! whether it was reached. Invariants: the rootful bridge is in a host netns of its own, with nothing but
//! what it needs; every contender has the same kind of cable to the server, and reno at both ends; client
//! and server have a processor each.
//!
//! * `contender`: who they are. The load generator is `benches/load`.
//!
//! `MOSSNET_BENCH_ROUNDS` (21), `MOSSNET_BENCH_SECONDS` (0.5) for each measurement,
//! `MOSSNET_BENCH_ROWS=requests,TCP` for some rows, `MOSSNET_BENCH_JSON=FILE`.

// A benchmark that panics is a benchmark that failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, unused_imports)]
#[path = "../../tests/world/mod.rs"]
mod world;

#[allow(dead_code)] // Not every benchmark wants everything.
#[path = "../report/mod.rs"]
mod report;

#[allow(dead_code, unused_imports)]
#[path = "../load/mod.rs"]
mod load;

mod contender;

use contender::{Contender, KERNEL, ROOTFUL};
use report::{Results, number};
use std::process::ExitCode;
use std::time::Duration;
use world::{Powers, World, enter};

/// Row, unit, kind of load, how many at once.
const ROWS: [(&str, &str, &str, usize); 8] = [
    ("TCP out, 1 stream", "Gbit/s", "stream-out", 1),
    ("TCP out, 4 streams", "Gbit/s", "stream-out", 4),
    ("TCP in, 1 stream", "Gbit/s", "stream-in", 1),
    ("TCP in, 4 streams", "Gbit/s", "stream-in", 4),
    ("requests, 1 connection", "1/s", "requests", 1),
    ("requests, 32 connections", "1/s", "requests", 32),
    ("connections, 1 at once", "1/s", "connections", 1),
    ("connections, 32 at once", "1/s", "connections", 32),
];

/// Issue 6: of the rootful bridge's rates.
const GOAL: f64 = 0.97;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("load") => return load::client(&args[2..]),
        Some("serve") => load::serve(),
        _ => {}
    }
    if !nix::unistd::geteuid().is_root() {
        println!("it takes root to play the administrator: nothing is measured");
        return ExitCode::SUCCESS;
    }
    // Rates of one second differ as much as those of half: many short rounds tell more.
    let rounds = number("MOSSNET_BENCH_ROUNDS", 21);
    let duration: f64 = number("MOSSNET_BENCH_SECONDS", 0.5);
    let deadline = Duration::from_secs(60 + rounds * (duration.ceil() as u64 + 2) * 40);
    let builder = World::builder().privileged().deadline(deadline.as_secs());
    let text = enter::enter_live(deadline, "uplink", Powers::Root, || {
        builder.run_here(|world| measure(world, rounds, duration));
    });
    report::keep(&text, "uplink");
    ExitCode::SUCCESS
}

fn measure(world: &World, rounds: u64, duration: f64) {
    let rows = std::env::var("MOSSNET_BENCH_ROWS").unwrap_or_default();
    let wanted = |row: &str| rows.is_empty() || rows.split(',').any(|part| row.starts_with(part));
    let contenders = contender::all(world);
    let mut results = Results::default();
    for round in 1..=rounds {
        println!("round {round} of {rounds}");
        for (row, unit, kind, count) in ROWS.into_iter().filter(|(row, ..)| wanted(row)) {
            // Another one is the first each time.
            for turn in 0..contenders.len() {
                let at = (turn + round as usize - 1) % contenders.len();
                let contender: &Contender = &contenders[at];
                results.add(
                    row,
                    unit,
                    contender.name,
                    contender.load(kind, count, duration),
                );
            }
        }
    }
    print!("{}", results.table());
    for (row, ..) in ROWS.into_iter().filter(|(row, ..)| wanted(row)) {
        let ratio = results.ratio(row, KERNEL, ROOTFUL).unwrap_or(0.0);
        let word = if ratio >= GOAL { "reached" } else { "missed" };
        println!("goal {GOAL} of the rootful bridge, {row}: {ratio:.3}, {word}");
    }
    let conditions = serde_json::json!({
        "congestion_control_inside": "reno", "rounds": rounds, "seconds": duration, "mtu": 1500,
    });
    println!("{}{}", report::MARK, results.json(&conditions));
}
