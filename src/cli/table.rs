//! Standard output: tables as Docker's, JSON by the line, and lines.

use super::args::Format;
use super::error::CliError;
use serde::Serialize;
use std::io::{self, Write};

/// Space between columns.
const GAP: usize = 3;

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

/// One JSON object a line.
fn json_lines<T: Serialize>(rows: &[T]) -> Result<(), CliError> {
    let mut text = String::new();
    for row in rows {
        text += &serde_json::to_string(row)?;
        text.push('\n');
    }
    print(&text)
}

/// A list in the form that was asked for: ids alone, JSON by the line, or a table.
pub(super) fn list<T: Serialize>(
    rows: &[T],
    quiet: bool,
    format: Format,
    id: impl Fn(&T) -> &str,
    table: impl FnOnce(&[T]) -> String,
) -> Result<u8, CliError> {
    if quiet {
        let ids: String = rows.iter().map(|row| format!("{}\n", id(row))).collect();
        print(&ids)?;
    } else if format == Format::Json {
        json_lines(rows)?;
    } else {
        print(&table(rows))?;
    }
    Ok(0)
}

/// One JSON value over several lines.
pub(super) fn json<T: Serialize>(value: &T) -> Result<(), CliError> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Columns padded to their widest cell; the last one is not.
pub(super) fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = std::iter::once(header.iter().map(|&h| h.to_owned()).collect())
        .chain(
            rows.iter()
                .map(|row| row.iter().map(|cell| shown(cell)).collect()),
        )
        .collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let width = |row: &Vec<String>| row.get(column).map_or(0, |cell| cell.chars().count());
            rows.iter().map(width).max().unwrap_or(0) + GAP
        })
        .collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
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
            vec!["a".to_owned(), "long cell".to_owned(), "x".to_owned()],
            vec!["bcd".to_owned(), "é".to_owned(), "\u{1b}[31m".to_owned()],
        ];
        let expected = "A     B           C\n\
                        a     long cell   x\n\
                        bcd   é           \\u{1b}[31m\n";
        assert_eq!(render(&["A", "B", "C"], &rows), expected);
    }
}
