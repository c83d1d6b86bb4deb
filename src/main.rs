//! argv (and argv\[0\]) to ExitCode, nothing else.
//!
//! Hidden first words make this binary one of its own helpers: `mossnet helper …` is the
//! capability-scoped part, `mossnet relay` the data plane, `mossnet probe` what `doctor` tries in
//! namespaces of its own. All start before any thread exists.

use std::process::ExitCode;

fn main() -> ExitCode {
    let word = std::env::args_os().nth(1);
    if word.as_ref().is_some_and(|word| word == "probe") {
        return mossnet::api::doctor::probe::main();
    }
    if word.is_some_and(|word| word == "relay") {
        return mossnet::relay::run();
    }
    ExitCode::SUCCESS
}
