//! First light: mossnet beside native veth, pasta and slirp4netns, in one run.
//!
//! Job: `cargo bench --bench first_light`, as root or as any user. All contenders talk to the same
//! server over the same veth; rounds are interleaved, so that a noisy minute hits everybody; the
//! table shows medians and their ratio to native. Invariant: every contender has reno inside, the
//! rest of the machine keeps its own congestion control (named in the output).
//!
//! `MOSSNET_BENCH_ROUNDS` (5), `MOSSNET_BENCH_SECONDS` (2) for each measurement,
//! `MOSSNET_BENCH_ONLY=native,mossnet` for some contenders, `MOSSNET_BENCH_OUTSIDE=reno` for another
//! congestion control of host and server, `MOSSNET_BENCH_JSON=FILE`.

// A benchmark that panics is a benchmark that failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, unused_imports)]
#[path = "../../tests/world/mod.rs"]
mod world;

#[allow(dead_code)] // Not every benchmark wants everything.
#[path = "../report/mod.rs"]
mod report;

mod contender;
mod load;

use contender::Contender;
use report::{Results, number};
use std::time::Duration;
use world::{World, enter, seconds};

/// Where the load generator is sent.
const TARGET: &str = "198.18.0.2";

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "load") {
        load::client(&args[2..]);
        return;
    }
    let rounds = number("MOSSNET_BENCH_ROUNDS", 5);
    let duration = number("MOSSNET_BENCH_SECONDS", 2);
    let deadline = Duration::from_secs(60 + rounds * (duration + 3) * 40);
    let builder = World::builder().tun().deadline(deadline.as_secs());
    let text = enter::enter_live(deadline, "first_light", || {
        builder.run_here(|world| measure(world, rounds, duration));
    });
    report::keep(&text, "first_light");
}

fn measure(world: &World, rounds: u64, duration: u64) {
    load::serve("server");
    let _iperf = world
        .server(["iperf3", "-s"])
        .timeout(seconds(86_400))
        .start();
    let only = std::env::var("MOSSNET_BENCH_ONLY").unwrap_or_default();
    let mut contenders = contender::all(world, &only);
    let mut results = Results::default();
    for round in 1..=rounds {
        for contender in &mut contenders {
            println!("round {round} of {rounds}: {}", contender.name);
            measure_one(contender, duration, &mut results);
        }
    }
    print!("{}", results.table());
    let outside = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    let conditions = serde_json::json!({
        "congestion_control_outside": outside.unwrap_or_default().trim(),
        "congestion_control_inside": "reno",
        "rounds": rounds,
        "seconds": duration,
    });
    println!("{}{}", report::MARK, results.json(&conditions));
}

fn measure_one(contender: &mut Contender, duration: u64, results: &mut Results) {
    for (metric, direction) in [("TCP out, 1 stream", ""), ("TCP in, 1 stream", "-R")] {
        results.add(
            metric,
            "Gbit/s",
            contender.name,
            contender.iperf3(duration, direction),
        );
    }
    for (metric, kind, count) in [
        ("requests, 1 connection", "requests", 1),
        ("requests, 32 connections", "requests", 32),
        ("connections, 1 at once", "connections", 1),
        ("connections, 32 at once", "connections", 32),
    ] {
        results.add(
            metric,
            "1/s",
            contender.name,
            contender.load(kind, count, duration),
        );
    }
}
