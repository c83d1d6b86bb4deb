//! Published ports: mossnet beside native, `pasta -t` and podman's rootlessport, in one run.
//!
//! Job: `cargo bench --bench publish`, as root or as any user. One client, in the netns of another
//! host, asks the same server in every contender's container; rounds are interleaved, so that a noisy
//! minute hits everybody; the table shows medians and their ratio to native, and a line for each goal
//! says whether it was reached. Invariants: every contender has a host netns of its own and the same
//! cable to the client; every container has reno inside, the rest of the machine keeps its own
//! congestion control (named in the output).
//!
//! * `contender`: who they are. `hosts`: cables and namespaces.
//! * The load generator is `benches/load`.
//!
//! `MOSSNET_BENCH_ROUNDS` (5), `MOSSNET_BENCH_SECONDS` (1) for each measurement,
//! `MOSSNET_BENCH_ONLY=native,mossnet` for some contenders, `MOSSNET_BENCH_ROWS=UDP,connections` for
//! some rows, `MOSSNET_BENCH_OTHER_BUILD=PATH` for another mossnet beside this one,
//! `MOSSNET_BENCH_OUTSIDE=reno` for another congestion control of hosts and client,
//! `MOSSNET_BENCH_JSON=FILE`.

// A benchmark that panics is a benchmark that failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, unused_imports)]
#[path = "../../tests/world/mod.rs"]
mod world;

#[allow(dead_code)] // Not every benchmark wants everything.
#[path = "../report/mod.rs"]
mod report;

#[allow(dead_code)]
#[path = "../load/mod.rs"]
mod load;

mod contender;
mod goals;
mod hosts;

use contender::Contender;
use report::{Results, number};
use std::process::ExitCode;
use std::time::Duration;
use world::{World, enter};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("load") => return load::client(&args[2..]),
        Some("serve") => load::serve(),
        _ => {}
    }
    let rounds = number("MOSSNET_BENCH_ROUNDS", 5);
    let duration = number("MOSSNET_BENCH_SECONDS", 1);
    let deadline = Duration::from_secs(60 + rounds * (duration + 3) * 100);
    let builder = World::builder().tun().deadline(deadline.as_secs());
    let text = enter::enter_live(deadline, "publish", enter::Powers::User, || {
        builder.run_here(|world| measure(world, rounds, duration));
    });
    report::keep(&text, "publish");
    ExitCode::SUCCESS
}

fn measure(world: &World, rounds: u64, duration: u64) {
    let list = |name| std::env::var(name).unwrap_or_default();
    let mut contenders = contender::all(world, &list("MOSSNET_BENCH_ONLY"));
    let rows = list("MOSSNET_BENCH_ROWS");
    let mut results = Results::default();
    for round in 1..=rounds {
        println!("round {round} of {rounds}");
        for measure in measures(&rows) {
            for contender in &mut contenders {
                measure_one(contender, &measure, duration, &mut results);
            }
        }
        // Who comes first measures lower in some rows.
        contenders.rotate_left(1);
    }
    print!("{}", results.table());
    goals::tell(&results);
    let outside = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    let conditions = serde_json::json!({
        "congestion_control_outside": outside.unwrap_or_default().trim(),
        "congestion_control_inside": "reno",
        "rounds": rounds,
        "seconds": duration,
        "client_mtu": 1500,
    });
    println!("{}{}", report::MARK, results.json(&conditions));
}

/// Row, flags of iperf3.
pub const STREAMS: [(&str, &str); 4] = [
    ("TCP in, 1 stream", ""),
    ("TCP out, 1 stream", "-R"),
    ("TCP in, 4 streams", "-P 4"),
    ("TCP out, 4 streams", "-P 4 -R"),
];

/// Row, kind of load, how many at once.
pub const EXCHANGES: [(&str, &str, u32); 4] = [
    ("requests, 1 connection", "requests", 1),
    ("requests, 32 connections", "requests", 32),
    ("connections, 1 at once", "connections", 1),
    ("connections, 32 at once", "connections", 32),
];

/// The load of which everybody carries the same; what counts is what is lost.
pub const PACED: &str = "paced-out";

/// 64 datagrams under way; each answer lets the next one go.
pub const ECHO: &str = "echo";

/// Row, row of its loss, kind of load, bytes.
pub const DATAGRAMS: [(&str, &str, &str, u32); 5] = [
    (
        "UDP in, 100 Mbit/s",
        "UDP in, 100 Mbit/s, lost",
        PACED,
        1400,
    ),
    (
        "UDP in, 64 bytes",
        "UDP in, 64 bytes, lost",
        "flood-out",
        64,
    ),
    (
        "UDP in, 1,400 bytes",
        "UDP in, 1,400 bytes, lost",
        "flood-out",
        1400,
    ),
    ("UDP echo, 64 bytes", "UDP echo, 64 bytes, lost", ECHO, 64),
    (
        "UDP echo, 1,400 bytes",
        "UDP echo, 1,400 bytes, lost",
        ECHO,
        1400,
    ),
];

/// What a contender is asked for at a time.
enum Measure {
    Stream(&'static str, &'static str),
    Exchange(&'static str, &'static str, u32),
    Datagrams(&'static str, &'static str, &'static str, u32),
}

/// Those of the rows that begin with a part of `wanted`; all for none.
fn measures(wanted: &str) -> Vec<Measure> {
    let streams = STREAMS.map(|(row, flags)| (row, Measure::Stream(row, flags)));
    let exchanges = EXCHANGES.map(|(row, kind, count)| (row, Measure::Exchange(row, kind, count)));
    let datagrams =
        DATAGRAMS.map(|(row, lost, kind, bytes)| (row, Measure::Datagrams(row, lost, kind, bytes)));
    let all = streams.into_iter().chain(exchanges).chain(datagrams);
    let begins =
        |row: &str| wanted.is_empty() || wanted.split(',').any(|part| row.starts_with(part));
    all.filter(|(row, _)| begins(row))
        .map(|(_, measure)| measure)
        .collect()
}

fn measure_one(contender: &mut Contender, measure: &Measure, duration: u64, results: &mut Results) {
    let name = contender.name;
    match *measure {
        Measure::Stream(row, flags) => {
            results.add(row, "Gbit/s", name, contender.iperf3(duration, flags));
        }
        Measure::Exchange(row, kind, count) => {
            results.add(row, "1/s", name, contender.load(kind, count, duration));
        }
        Measure::Datagrams(row, lost, kind, bytes) => {
            let (rate, loss) = contender.datagrams(kind, bytes, duration).unzip();
            results.add(row, "1/s", name, rate);
            results.add(lost, "%", name, loss);
        }
    }
}
