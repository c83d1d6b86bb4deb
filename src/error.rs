//! Exit codes, and how an error and its hint are shown to a user.
//!
//! Exit codes follow `docker run`: the command's own status, or 125 when mossnet itself failed,
//! 126 when the command cannot be executed, 127 when it was not found.

use std::fmt::Write as _;

/// mossnet itself failed.
pub const EXIT_FAILURE: u8 = 125;
/// The command exists but cannot be executed.
pub const EXIT_CANNOT_EXECUTE: u8 = 126;
/// The command was not found.
pub const EXIT_NOT_FOUND: u8 = 127;

/// An error and all of its causes on one line, as it follows `mossnet: ` on stderr.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors repeat their source in their own text.
        if !line.contains(&text) {
            let _ = write!(line, ": {text}");
        }
        cause = error.source();
    }
    line
}
