//! `mossnet-helper`: argv to exit code, nothing else.

use mossnet_setuid::program;
use std::process::ExitCode;

fn main() -> ExitCode {
    program::run(std::env::args_os().skip(1))
}
