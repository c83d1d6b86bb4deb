//! Attach: how long it takes to put one container on an existing network and to take it off again,
//! mossnet beside Debian's netavark, in one run.
//!
//! Job: `cargo bench --bench attach`, as root or as any user. Each value is a process call to its
//! exit, as its callers make it: podman calls netavark, a script or a runtime calls mossnet. Rounds
//! are interleaved; the table shows medians and their ratio to netavark. Like is compared with like:
//! `network connect` and `disconnect` with netavark for a network namespace that is there, `netns
//! create` and `rm` with netavark together with `ip netns add` and `delete`, and the drop-in for netavark with
//! netavark itself. Invariant: every network
//! has one container on it before and throughout, so that no contender makes or removes bridge,
//! chains or processes while it is measured.
//! A thousand published ports, added and removed, have a column of their own, and a goal in milliseconds.
//!
//! `MOSSNET_BENCH_ROUNDS` (50), `MOSSNET_BENCH_ONLY=netavark` for one of the two,
//! `MOSSNET_BENCH_JSON=FILE`.

// A benchmark that panics is a benchmark that failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, unused_imports)]
#[path = "../../tests/world/mod.rs"]
mod world;

#[allow(dead_code)] // Not every benchmark wants everything.
#[path = "../report/mod.rs"]
mod report;

mod caller;
mod mossnet;
mod netavark;

use report::{Results, number};
use std::time::Duration;
use world::{World, enter};

/// What an attach may take at most, as a part of what netavark takes.
const GOAL: f64 = 0.2;
const SET_UP: &str = "set-up";
const TEARDOWN: &str = "teardown";

/// What 1,000 ports may take until all are ready, milliseconds: the first time, and usually.
const PORTS_GOAL: f64 = 100.0;
const FIRST: &str = "set-up, the first one";

/// Somebody who puts a container on a network and takes it off.
trait Contender {
    /// As shown in the table.
    fn name(&self) -> &'static str;
    /// Puts it on; the time that took.
    fn set_up(&mut self) -> Duration;
    /// Takes it off; the time that took.
    fn tear_down(&mut self) -> Duration;
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "caller") {
        caller::serve();
        return;
    }
    let rounds = number("MOSSNET_BENCH_ROUNDS", 50);
    let deadline = Duration::from_secs(120 + rounds * 5);
    let builder = World::builder().deadline(deadline.as_secs());
    let text = enter::enter_live(deadline, "attach", enter::Powers::User, || {
        builder.run_here(|world| measure(world, rounds));
    });
    report::keep(&text, "attach");
}

fn measure(world: &World, rounds: u64) {
    let mut contenders: Vec<Box<dyn Contender>> = Vec::new();
    let only = std::env::var("MOSSNET_BENCH_ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split(',').any(|part| name.starts_with(part));
    if wanted("netavark") {
        contenders.extend(netavark::all(world));
    }
    if wanted("mossnet") {
        contenders.extend(mossnet::all(world));
    }
    let mut results = Results::default();
    // The first round warms caches, and is not counted with the others.
    for round in 0..=rounds {
        for contender in &mut contenders {
            let (up, down) = (contender.set_up(), contender.tear_down());
            let milliseconds = |time: Duration| Some(time.as_secs_f64() * 1e3);
            if round == 0 {
                results.add(FIRST, "ms", contender.name(), milliseconds(up));
            } else {
                results.add(SET_UP, "ms", contender.name(), milliseconds(up));
                results.add(TEARDOWN, "ms", contender.name(), milliseconds(down));
            }
        }
        if round % 10 == 0 {
            println!("round {round} of {rounds}");
        }
    }
    print!("{}", results.table());
    verdict(&results);
    let conditions = serde_json::json!({
        "rounds": rounds,
        "goal": GOAL,
        "netavark": netavark::version(),
    });
    println!("{}{}", report::MARK, results.json(&conditions));
    if wanted("mossnet") {
        mossnet::clean_up(world);
    }
}

/// One line for each kind of attach: is it as fast as it shall be?
fn verdict(results: &Results) {
    for (contender, peer, goal) in [
        (mossnet::NETNS, netavark::WITH_NETNS, GOAL),
        (mossnet::CONNECT, netavark::USUAL, GOAL),
        (netavark::DROP_IN, netavark::USUAL, netavark::DROP_IN_GOAL),
    ] {
        for metric in [SET_UP, TEARDOWN] {
            let Some(ratio) = results.ratio(metric, contender, peer) else {
                println!("{contender}, {metric}: not compared, one of the two is missing");
                continue;
            };
            let word = if ratio <= goal { "reached" } else { "MISSED" };
            println!("{contender}, {metric}: {ratio:.3} of {peer}; goal {goal}: {word}");
        }
    }
    for metric in [FIRST, SET_UP] {
        if let Some(time) = results.median(metric, mossnet::PORTS) {
            let word = if time <= PORTS_GOAL {
                "reached"
            } else {
                "MISSED"
            };
            let name = mossnet::PORTS;
            println!("{name}, {metric}: {time:.1} ms; goal {PORTS_GOAL} ms: {word}");
        }
    }
}
