//! What `harness = false` test programs do of libtest's job: `--list`, a filter by a word, `--skip`, and
//! an exit code. Nothing chosen by nobody is a failure: a suite that ran nothing has shown nothing.

use std::io::Write;
use std::process::ExitCode;

/// Set where a skip is a failure (CI has installed every peer).
const STRICT: &str = "MOSSNET_TEST_STRICT";
/// A file that collects the skips of a whole run.
const SKIPS: &str = "MOSSNET_TEST_SKIPS";

/// Says that a test, or a part of it, proves nothing here, and why, as the integration tests do.
pub fn skip(test: &str, reason: &str) {
    let strict = std::env::var_os(STRICT).is_some();
    assert!(!strict, "{STRICT} is set and {test} is skipped: {reason}");
    skip_here(test, reason);
}

/// The same for what the machine lacks and nobody can install: no failure where skips are failures.
pub fn skip_here(test: &str, reason: &str) {
    let line = format!("SKIP: {test}: {reason}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os(SKIPS) {
        let mut options = std::fs::OpenOptions::new();
        let file = options.create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// Runs the named tests that the first word of the command line chooses (all without one), each by
/// `passes`.
pub fn run_all<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
    passes: impl Fn(&str) -> bool,
) -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    // libtest's option, which the whole workspace is given: its number is no part of a name. Tests
    // here run one after the other.
    if let Some(at) = words.iter().position(|word| word == "--test-threads") {
        words.drain(at..words.len().min(at + 2));
    }
    let mut skipped = Vec::new();
    while let Some(at) = words.iter().position(|word| word == "--skip") {
        skipped.extend(words.drain(at..words.len().min(at + 2)).skip(1));
    }
    if words.iter().any(|word| word == "--list") {
        for name in names {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let filter = words.iter().find(|word| !word.starts_with('-'));
    let chosen = |name: &str| {
        filter.is_none_or(|word| name.contains(word.as_str()))
            && !skipped.iter().any(|word| name.contains(word.as_str()))
    };
    let mut ran = 0;
    let mut failed = Vec::new();
    for name in names.filter(|name| chosen(name)) {
        ran += 1;
        if passes(name) {
            println!("test {name} ... ok");
        } else {
            println!("test {name} ... FAILED");
            failed.push(name);
        }
    }
    println!("\n{ran} run, {} failed {failed:?}", failed.len());
    if (ran == 0 && filter.is_none()) || !failed.is_empty() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
