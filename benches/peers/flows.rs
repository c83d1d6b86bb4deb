//! UDP flows to one destination, made one after the other: what the last thousand of ten thousand
//! costs, beside the first.

use crate::contender::{Contender, Kind, guarded};
use crate::results::{Better, Results};
use crate::world::World;
use std::collections::BTreeMap;
use std::time::Duration;

/// Flows of a test; the load generator tells of each thousand.
const FLOWS: usize = 10_000;
/// The generator ends after the last flow; before that only if it is stuck.
const PATIENCE: Duration = Duration::from_secs(40);

/// What is asked of a flow, and of which load.
const TESTS: [(&str, &str); 2] = [
    ("UDP flows to one destination", "flows-short"),
    ("UDP flows of 10 echoes to one destination", "flows-long"),
];

/// As many rounds as of other rows; each test of each contender with one that has just started.
pub fn measure(world: &World, kinds: &[Kind], rounds: u64, results: &mut Results) {
    for round in 1..=rounds {
        for (title, load) in TESTS {
            for kind in kinds.iter().filter(|kind| !kind.streams_only) {
                let measured =
                    guarded(|| Contender::start(world, *kind)?.load(load, FLOWS, PATIENCE));
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

type Measured = Result<BTreeMap<String, f64>, String>;

/// Flows per second of each thousand.
fn told(measured: &Measured) -> String {
    match measured {
        Ok(values) => {
            let rates = values
                .iter()
                .filter(|(name, _)| name.starts_with("thousand"));
            let rates: Vec<_> = rates.map(|(_, rate)| format!("{rate:.0}")).collect();
            let lost = values.get("lost").copied().unwrap_or_default();
            format!("{} flows/s, {lost:.2} % lost", rates.join(" "))
        }
        Err(reason) => reason.clone(),
    }
}

fn note(title: &str, kind: Kind, measured: &Measured, results: &mut Results) {
    let value = |name: &str| match measured {
        Ok(values) => values.get(name).copied().ok_or("not told".to_owned()),
        Err(reason) => Err(reason.clone()),
    };
    let (first, last) = (value("thousand01"), value("thousand10"));
    let steady = match (&first, &last) {
        (Ok(first), Ok(last)) => Ok(last / first),
        (Err(reason), _) | (_, Err(reason)) => Err(reason.clone()),
    };
    let rows = [
        (", the first 1,000", "1/s", Better::Higher, first),
        (", the last 1,000 of 10,000", "1/s", Better::Higher, last),
        (", last to first", "", Better::Higher, steady),
        (", echoes lost", "%", Better::Lower, value("lost")),
    ];
    for (suffix, unit, better, value) in rows {
        results.add(&format!("{title}{suffix}"), unit, better, kind.name, value);
    }
}
