//! `mossnet-helper`: argv to exit code, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::FAILURE
}
