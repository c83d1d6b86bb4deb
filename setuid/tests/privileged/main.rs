//! The installed helper, with real file capabilities and real users, on a host that is only this test's:
//! a network and a mount namespace of the machine's own user namespace, so that capabilities of files
//! count there, with /etc, /run and /dev that are empty but for what a test puts there.
//!
//! Needs root. `cargo test -p mossnet-setuid --test privileged -- WORD` runs those whose name contains WORD.

// Nothing but tests here, though clippy cannot know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cases;
#[path = "../../../helper/tests/harness/mod.rs"]
mod harness;
mod traffic;
mod user;
mod world;

use std::process::{Command, ExitCode};

/// Names the test that this process is to run.
const CASE: &str = "MOSSNET_PRIVILEGED_CASE";
/// What the names of all tests begin with.
const SUITE: &str = "privileged";

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(CASE) {
        return run_case(&name);
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let left_out = words.windows(2).any(|pair| pair == ["--skip", SUITE]);
    let listed = words.iter().any(|word| word == "--list");
    if left_out && !listed {
        println!("left out: another run of the tests has them, as root");
        return ExitCode::SUCCESS;
    }
    let wanted = harness_filter(&words);
    let ours = |word: &String| {
        cases::ALL
            .iter()
            .any(|(name, _)| name.contains(word.as_str()))
    };
    if !listed && !wanted.is_none_or(ours) {
        println!("nothing chosen");
        return ExitCode::SUCCESS;
    }
    if !listed && !world::is_possible() {
        if nix::unistd::geteuid().is_root() {
            harness::skip_here(SUITE, "root is not the machine's own here");
        } else {
            harness::skip(SUITE, "not root on the machine itself");
        }
        return ExitCode::SUCCESS;
    }
    harness::run_all(cases::ALL.iter().map(|(name, _)| *name), in_process)
}

/// The word that chooses tests; libtest's options have values.
fn harness_filter(words: &[String]) -> Option<&String> {
    let mut words = words.iter();
    loop {
        let word = words.next()?;
        match word.as_str() {
            "--test-threads" | "--skip" => drop(words.next()),
            option if option.starts_with('-') => {}
            _ => return Some(word),
        }
    }
}

/// Run one test in a process of its own.
fn in_process(name: &str) -> bool {
    let mut command = Command::new("/proc/self/exe");
    command.env(CASE, name).current_dir("/");
    command.status().unwrap().success()
}

fn run_case(name: &str) -> ExitCode {
    match cases::ALL.iter().find(|(known, _)| *known == name) {
        Some((_, case)) => {
            let world = world::World::enter();
            case(&world);
            world.expect_nothing_left();
            ExitCode::SUCCESS
        }
        None => ExitCode::FAILURE,
    }
}
