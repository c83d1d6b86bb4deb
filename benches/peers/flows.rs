//! UDP flows to one destination, made one after the other: what the last thousand of ten thousand
//! costs, beside the first.

use crate::contender::{Contender, Kind, Product, guarded, one_line};
use crate::load;
use crate::results::Better::{Higher, Lower};
use crate::results::Results;
use crate::usage;
use crate::world::World;
use std::collections::BTreeMap;
use std::time::Duration;

/// Flows of a test; the load generator tells of each thousand.
const FLOWS: usize = 10_000;
/// The generator ends after the last flow; before that only if it is stuck.
const PATIENCE: Duration = Duration::from_secs(25);
/// A contender is started anew for each test: more rounds than this take long.
const MOST_ROUNDS: u64 = 2;

/// What is asked of a flow, and of which load.
const TESTS: [(&str, &str); 2] = [
    ("UDP flows to one destination", "flows-short"),
    ("UDP flows of 10 echoes to one destination", "flows-long"),
];

/// Each test of each contender with one that has just started.
pub fn measure(world: &World, kinds: &[Kind], rounds: u64, results: &mut Results) {
    let rounds = rounds.min(MOST_ROUNDS);
    for round in 1..=rounds {
        for (title, load) in TESTS {
            for kind in kinds.iter().filter(|kind| !kind.streams_only) {
                let measured = guarded(|| once(world, *kind, load));
                println!(
                    "round {round} of {rounds}, {title}, {}: {}",
                    kind.name,
                    told(&measured)
                );
                note(title, *kind, &measured, results);
                kind.shut_down(world);
            }
        }
    }
}

/// What the generator tells, and as `cpu01` and on the helper's milliseconds for each thousand.
fn once(world: &World, kind: Kind, load: &str) -> Measured {
    let contender = Contender::start(world, kind)?;
    let carriers = contender.carriers();
    let mut running = contender.generator(load, FLOWS, PATIENCE).start();
    let (mut before, mut parts) = (usage::processor_time(&carriers), Vec::new());
    while running.is_alive() {
        if running.stdout().matches("made").count() > parts.len() {
            let now = usage::processor_time(&carriers);
            parts.push((now - before) * 1e3);
            before = now;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = running.wait();
    if output.code != 0 {
        return Err(one_line(output.stderr.lines().last().unwrap_or_default()));
    }
    let mut values = load::parse(output.stdout.lines().last().unwrap_or_default());
    // The last one is over with the generator, that of a native container is nobody's.
    if parts.len() < FLOWS / 1000 {
        parts.push((usage::processor_time(&carriers) - before) * 1e3);
    }
    if kind.product != Product::Native {
        let numbered = (1..).zip(parts);
        values.extend(numbered.map(|(part, cpu)| (format!("cpu{part:02}"), cpu)));
    }
    Ok(values)
}

type Measured = Result<BTreeMap<String, f64>, String>;

/// Each thousand: flows per second, and the helper's processor time.
fn told(measured: &Measured) -> String {
    match measured {
        Ok(values) => {
            let all = |prefix: &str| {
                let them = values.iter().filter(|(name, _)| name.starts_with(prefix));
                let them: Vec<_> = them.map(|(_, value)| format!("{value:.0}")).collect();
                them.join(" ")
            };
            let lost = values.get("lost").copied().unwrap_or_default();
            let (rates, times) = (all("thousand"), all("cpu"));
            format!("{rates} flows/s, {lost:.2} % lost; CPU of the helper, ms: {times}")
        }
        Err(reason) => reason.clone(),
    }
}

fn note(title: &str, kind: Kind, measured: &Measured, results: &mut Results) {
    let value = |name: &str| match measured {
        Ok(values) => values.get(name).copied().ok_or("not told".to_owned()),
        Err(reason) => Err(reason.clone()),
    };
    let ratio = |of: &str, to: &str| Ok(value(of)? / value(to)?);
    let mut rows = vec![
        (", the first 1,000", "1/s", Higher, value("thousand01")),
        (", the last of 10,000", "1/s", Higher, value("thousand10")),
        (
            ", last to first",
            "",
            Higher,
            ratio("thousand10", "thousand01"),
        ),
        (", echoes lost", "%", Lower, value("lost")),
    ];
    if kind.product != Product::Native {
        rows.extend([
            (
                ", CPU of the helper, the first 1,000",
                "ms",
                Lower,
                value("cpu01"),
            ),
            (
                ", CPU of the helper, the last of 10,000",
                "ms",
                Lower,
                value("cpu10"),
            ),
            (
                ", CPU of the helper, last to first",
                "",
                Lower,
                ratio("cpu10", "cpu01"),
            ),
        ]);
    }
    for (suffix, unit, better, value) in rows {
        results.add(&format!("{title}{suffix}"), unit, better, kind.name, value);
    }
}
