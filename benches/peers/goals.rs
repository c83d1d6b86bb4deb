//! The goals of issue 5 at container MTU 1500, and whether they were met.

use crate::measures::HOSTS_CONTROL;
use crate::results::{Better, Results};
use serde::Serialize;
use std::fmt::Write as _;

/// What a row is held against.
#[derive(Clone, Copy)]
enum Against {
    Native,
    /// At whatever MTU and congestion control it does best.
    BestPeer,
    Pasta1500,
}

use Against::{BestPeer, Native, Pasta1500};

/// Row, against whom, ratio: at least, or of rows where less is better at most.
const GOALS: &[(&str, Against, f64)] = &[
    ("TCP out, 1 stream", Native, 0.8),
    ("TCP out, 1 stream", BestPeer, 1.1),
    ("TCP out, 1 stream", Pasta1500, 5.0),
    ("TCP in, 1 stream", Native, 0.8),
    ("TCP in, 1 stream", BestPeer, 1.1),
    ("TCP in, 1 stream", Pasta1500, 5.0),
    ("TCP out, 4 streams", BestPeer, 1.3),
    ("TCP in, 4 streams", BestPeer, 1.3),
    ("requests, 1 connection", BestPeer, 1.2),
    ("requests, 1 connection, p99", BestPeer, 1.0),
    ("requests, 32 connections", BestPeer, 1.2),
    ("requests, 32 connections, p99", BestPeer, 1.0),
    ("connections, 1 at once", BestPeer, 1.3),
    ("connections, 32 at once", BestPeer, 1.3),
    ("connections, 256 at once", BestPeer, 1.3),
    ("UDP out, 64 bytes", BestPeer, 1.5),
    ("UDP in, 64 bytes", BestPeer, 1.5),
    ("UDP out, 1,400 bytes", BestPeer, 1.5),
    ("UDP in, 1,400 bytes", BestPeer, 1.5),
    ("UDP out, GSO sender", BestPeer, 5.0),
    ("TCP out, 1 stream, CPU of the helper", BestPeer, 0.7),
    ("TCP in, 1 stream, CPU of the helper", BestPeer, 0.7),
];

/// A goal and what became of it.
#[derive(Debug, Serialize)]
pub struct Verdict {
    pub row: &'static str,
    pub against: String,
    /// At least, or at most.
    pub bound: &'static str,
    pub goal: f64,
    /// None: not measured, of mossnet or of any that it is held against.
    pub ratio: Option<f64>,
    pub met: Option<bool>,
}

/// One for each goal whose row was measured.
pub fn judge(results: &Results) -> Vec<Verdict> {
    let measured = GOALS.iter().filter_map(|(name, against, goal)| {
        let row = results.row(name)?;
        let (against, other) = match against {
            Native => ("native veth".to_owned(), row.median("native veth")),
            Pasta1500 => ("pasta, MTU 1500".to_owned(), row.median("pasta, MTU 1500")),
            BestPeer => {
                let hosts = results.row(&format!("{name}{HOSTS_CONTROL}"));
                let both = [Some(row), hosts].into_iter().flatten();
                // Only rates have a second row, and more is better there.
                let best = both
                    .filter_map(|row| row.best_peer())
                    .reduce(|a, b| if b.1 > a.1 { b } else { a });
                match best {
                    Some((name, value)) => (format!("the best peer ({name})"), Some(value)),
                    None => ("the best peer".to_owned(), None),
                }
            }
        };
        let ratio = row
            .median("mossnet")
            .zip(other)
            .map(|(own, other)| own / other);
        let (bound, met): (_, fn(f64, f64) -> bool) = match row.better {
            Better::Higher => ("at least", |ratio, goal| ratio >= goal),
            Better::Lower => ("at most", |ratio, goal| ratio <= goal),
        };
        Some(Verdict {
            row: name,
            against,
            bound,
            goal: *goal,
            ratio,
            met: ratio.map(|ratio| met(ratio, *goal)),
        })
    });
    measured.collect()
}

/// A table of verdicts.
pub fn text(goals: &[Verdict]) -> String {
    let mut text = String::from("\n| row | mossnet | goal | |\n|---|---|---|---|\n");
    for goal in goals {
        let ratio = goal
            .ratio
            .map_or("not measured".to_owned(), |ratio| format!("{ratio:.2}"));
        let word = match goal.met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        let _ = writeln!(
            text,
            "| {} | {ratio} × {} | {} {} | {word} |",
            goal.row, goal.against, goal.bound, goal.goal
        );
    }
    text
}
