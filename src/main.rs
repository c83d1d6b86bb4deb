//! argv (and argv\[0\]) to ExitCode, nothing else.
//!
//! Two hidden first words make this binary one of its own helpers: `mossnet helper …` is the
//! capability-scoped part, `mossnet relay` the data plane. Both start before any thread exists.

use mossnet::api::paths::Paths;
use mossnet::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let paths = Paths::resolve(cli.root.as_deref());
    cli::run(cli.command, paths)
}
