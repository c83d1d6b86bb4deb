//! Standard output: columns as Docker's, JSON, and lines.

use super::error::CliError;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::PrettyFormatter;
use std::io::{self, Write};

/// Space between columns, as in Docker's tables.
const GAP: usize = 3;
/// Narrowest column with its gap, as in Docker's tables.
const MIN_WIDTH: usize = 10;

/// One line.
pub(super) fn line(text: &str) -> Result<(), CliError> {
    print(&format!("{text}\n"))
}

/// Any text.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(CliError::Output)
}

/// One JSON value over several lines, indented as Docker does it.
pub(super) fn json<T: Serialize>(value: &T) -> Result<(), CliError> {
    let mut text = Vec::new();
    let indented = PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut Serializer::with_formatter(&mut text, indented))?;
    line(&String::from_utf8_lossy(&text))
}

/// Lines of cells, each but the last of a line padded to the widest of its column.
pub(super) fn columns(lines: &[Vec<String>]) -> String {
    let lines: Vec<Vec<String>> = lines
        .iter()
        .map(|line| line.iter().map(|cell| shown(cell)).collect())
        .collect();
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|column| {
            let width = |line: &Vec<String>| line.get(column).map_or(0, |c| c.chars().count());
            let widest = lines.iter().map(width).max().unwrap_or(0);
            (widest + GAP).max(MIN_WIDTH)
        })
        .collect();
    let mut text = String::new();
    for cells in &lines {
        let mut line = String::new();
        for (cell, &width) in cells.iter().zip(&widths) {
            line += cell;
            line.extend(std::iter::repeat_n(
                ' ',
                width.saturating_sub(cell.chars().count()),
            ));
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Without control characters, which would reach the user's terminal.
fn shown(cell: &str) -> String {
    cell.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_harmless() {
        let rows = [
            vec!["A".to_owned(), "B".to_owned(), "C".to_owned()],
            vec!["a".to_owned(), "long cell".to_owned(), "x".to_owned()],
            vec!["bcd".to_owned(), "é".to_owned(), "\u{1b}[31m".to_owned()],
        ];
        let expected = "A         B           C\n\
                        a         long cell   x\n\
                        bcd       é           \\u{1b}[31m\n";
        assert_eq!(columns(&rows), expected);
    }
}
