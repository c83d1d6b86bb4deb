//! Sandboxes on the real kernel. Each test is a process of its own: uid 1000 (or the caller's, if
//! that is not root) as the helper is, in a fresh user and mount namespace. `cargo test -p
//! mossnet-helper --test sandbox -- WORD` runs those whose name contains WORD.

// Nothing but tests here, though clippy cannot know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cases;
mod world;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Names the test that this process is to run.
const CASE: &str = "MOSSNET_SANDBOX_CASE";

/// Whom root becomes.
const UNPRIVILEGED: u32 = 1000;

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(CASE) {
        return run_case(&name);
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        for (name, _) in cases::ALL {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let filter = words.iter().find(|word| !word.starts_with('-'));
    let chosen = |name: &str| filter.is_none_or(|word| name.contains(word.as_str()));
    let mut ran = 0;
    let mut failed = Vec::new();
    for (name, _) in cases::ALL.iter().filter(|(name, _)| chosen(name)) {
        ran += 1;
        if in_process(name) {
            println!("test {name} ... ok");
        } else {
            println!("test {name} ... FAILED");
            failed.push(*name);
        }
    }
    println!("\n{ran} run, {} failed {failed:?}", failed.len());
    let nothing_ran = ran == 0 && filter.is_none();
    if nothing_ran || !failed.is_empty() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Run one test in a process of its own.
fn in_process(name: &str) -> bool {
    let mut command = Command::new("/proc/self/exe");
    command.env(CASE, name).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        // For root, std also drops the supplementary groups.
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command.status().unwrap().success()
}

/// Be the helper, and run one test.
fn run_case(name: &str) -> ExitCode {
    let (_, case) = cases::ALL
        .iter()
        .find(|(known, _)| *known == name)
        .expect("an existing test");
    assert!(!nix::unistd::geteuid().is_root());
    world::become_helper();
    case();
    ExitCode::SUCCESS
}
