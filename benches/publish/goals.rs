//! What mossnet's published ports shall reach, and whether they did: issue 4's.

use crate::contender::{MOSSNET, PASTA, ROOTLESSPORT};
use crate::report::Results;
use crate::{DATAGRAMS, ECHO, EXCHANGES, PACED, STREAMS};

/// One line for each goal that was measured: row, ratio, verdict.
pub fn tell(results: &Results) {
    for (row, _) in STREAMS {
        judge(results, row, &ROOTLESSPORT, 1.0);
        judge(results, row, &PASTA, 1.0);
    }
    for (row, kind, _) in EXCHANGES {
        if kind == "connections" {
            judge(results, row, &ROOTLESSPORT, 2.0);
        }
        judge(results, row, &PASTA, 1.0);
    }
    for (row, _, kind, _) in DATAGRAMS {
        if kind == PACED {
            continue;
        }
        // Datagrams a second is what `UDP in` counts. An echo waits for its answers, as requests do.
        let goal = if kind == ECHO { 1.0 } else { 1.5 };
        judge(results, row, &PASTA, goal);
    }
}

fn judge(results: &Results, row: &'static str, peers: &[&'static str], goal: f64) {
    for peer in peers {
        let Some(ratio) = results.ratio(row, MOSSNET, peer) else {
            continue;
        };
        let word = if ratio >= goal { "reached" } else { "MISSED" };
        println!("{row}: {ratio:.2} of {peer}; goal {goal}: {word}");
    }
}
