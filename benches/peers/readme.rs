//! The tables of a document, remade where they stand.
//!
//! Of results: a table whose header names contenders, between an empty first cell and a last one for the best peer. Its rows say by
//! their names what they show, so that a document has those that its author wants: a new one is asked for by its
//! name, `| DNS queries, 1/s |`. Of goals: the table that [`goals::text`] makes, and the sentence that counts them.

use crate::contender::ALL;
use crate::goals::{self, Verdict};
use crate::results::{Outcome, Results, Row};

/// Begin and end of the header of a table of results.
const RESULTS: (&str, &str) = ("| | native veth |", "| mossnet to the best peer |");
/// Begins the table of goals.
const GOALS: &str = "| row | mossnet | goal |";
/// Begin and end of the sentence before it.
const COUNTED: (&str, &str) = ("Of ", " missed:");

/// `text` with what was measured in its tables. Rows that were not stay as they are.
pub fn remade(text: &str, results: &Results, goals: &[Verdict]) -> String {
    let mut lines = Vec::new();
    let mut columns: Vec<&str> = Vec::new();
    let mut within_goals = false;
    for line in text.lines() {
        if line.starts_with(RESULTS.0) && line.ends_with(RESULTS.1) {
            columns = cells(line);
        } else if line.starts_with(GOALS) {
            within_goals = true;
            lines.extend(goals::text(goals).trim().lines().map(str::to_owned));
        } else if !line.starts_with('|') {
            columns.clear();
            within_goals = false;
        }
        if within_goals {
            continue;
        }
        let is_counted = line.starts_with(COUNTED.0) && line.ends_with(COUNTED.1);
        lines.push(match row_of(line, results) {
            Some(row) if !columns.is_empty() => shown(row, &columns),
            _ if is_counted => counted(goals),
            _ => line.to_owned(),
        });
    }
    lines.join("\n") + "\n"
}

fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().trim_matches('|');
    inner.split('|').map(str::trim).collect()
}

/// The row that a line names in its first cell.
fn row_of<'a>(line: &str, results: &'a Results) -> Option<&'a Row> {
    let name = *cells(line.strip_prefix('|')?).first()?;
    let mut rows = results.rows.iter();
    rows.find(|row| format!("{}, {}", row.name, row.unit) == name)
}

fn shown(row: &Row, columns: &[&str]) -> String {
    let mut line = format!("| {}, {} |", row.name, row.unit);
    let (_, contenders) = columns.split_first().expect("a header has cells");
    let (_, contenders) = contenders.split_last().expect("a header has cells");
    for name in contenders {
        line += &format!(" {} |", cell(row, name));
    }
    let best = row.best_peer().filter(|_| row.unit != "%");
    let ratio = best.and_then(|(name, _)| row.ratio("mossnet", name));
    line + &format!(
        " {} |",
        ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"))
    )
}

/// A median, in brackets its ratio to native.
fn cell(row: &Row, name: &str) -> String {
    let Some(value) = row.median(name) else {
        let failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed { .. });
        let tried = row.values.get(name);
        let failed = tried.is_some_and(|values| values.iter().any(failed));
        return if failed { "failed" } else { "" }.to_owned();
    };
    let native = ALL[0].name;
    match row.ratio(name, native) {
        Some(ratio) if name != native && row.unit != "%" => {
            format!("{} ({ratio:.2})", number(value))
        }
        _ => number(value),
    }
}

/// A number with as many digits as a reader wants, thousands apart.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => {
            let digits = format!("{value:.0}");
            let head = digits.len() % 3;
            let (head, rest) = digits.split_at(head);
            let threes = rest.as_bytes().chunks(3);
            let threes = threes.map(|three| String::from_utf8_lossy(three).into_owned());
            let head = (!head.is_empty()).then(|| head.to_owned());
            head.into_iter().chain(threes).collect::<Vec<_>>().join(",")
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn counted(goals: &[Verdict]) -> String {
    let count = |met| goals.iter().filter(|goal| goal.met == Some(met)).count();
    let (met, missed) = (count(true), count(false));
    format!(
        "{}{} goals {met} are met and {missed}{}",
        COUNTED.0,
        met + missed,
        COUNTED.1
    )
}
