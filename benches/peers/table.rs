//! Results as Markdown.

use crate::contender::{ALL, Kind};
use crate::results::{Outcome, Results};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A number with as many digits as it is worth.
pub fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Contenders that have a value anywhere, in their order.
pub fn columns(results: &Results) -> Vec<Kind> {
    let seen = |kind: &Kind| {
        results
            .rows
            .iter()
            .any(|row| row.values.contains_key(kind.name))
    };
    ALL.iter().copied().filter(seen).collect()
}

/// Medians, in brackets the ratio to native; last the ratio of mossnet to the best peer.
pub fn markdown(results: &Results) -> String {
    let columns = columns(results);
    let names: Vec<_> = columns.iter().map(|kind| kind.name).collect();
    let mut text = format!(
        "\n| | {} | mossnet to best peer |\n|---|---|",
        names.join(" | ")
    );
    text.push_str(&"---|".repeat(names.len()));
    for row in &results.rows {
        let _ = write!(text, "\n| {}, {} |", row.name, row.unit);
        for name in &names {
            let cell = match (row.values.get(*name), row.median(name)) {
                (None, _) => String::new(),
                (Some(_), None) => "failed".to_owned(),
                (Some(values), Some(value)) => {
                    let failed = |outcome: &&Outcome| matches!(outcome, Outcome::Failed { .. });
                    let failed = match values.iter().filter(failed).count() {
                        0 => String::new(),
                        count => format!(", {count} failed"),
                    };
                    match row.ratio(name, ALL[0].name) {
                        Some(ratio) if row.unit != "%" => {
                            format!("{} ({ratio:.2}){failed}", shown(value))
                        }
                        _ => format!("{}{failed}", shown(value)),
                    }
                }
            };
            let _ = write!(text, " {cell} |");
        }
        let best = row.best_peer().filter(|_| row.unit != "%");
        let cell = best.and_then(|(name, _)| Some((name, row.ratio("mossnet", name)?)));
        let cell = cell.map_or(String::new(), |(name, ratio)| {
            format!("{ratio:.2} × {name}")
        });
        let _ = write!(text, " {cell} |");
    }
    text.push('\n');
    text
}

/// What failed, how often and why.
pub fn failures(results: &Results) -> String {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for row in &results.rows {
        for (name, values) in &row.values {
            for outcome in values {
                if let Outcome::Failed { failed } = outcome {
                    let what = format!("{name}, {} ({} rounds)", row.name, values.len());
                    *counts.entry((what, failed.clone())).or_default() += 1;
                }
            }
        }
    }
    let mut text = String::new();
    for ((what, why), count) in counts {
        let _ = writeln!(text, "failed {count} times: {what}: {why}");
    }
    text
}
