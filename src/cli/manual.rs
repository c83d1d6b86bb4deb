//! Completions and manual pages, from the same table as the parser.

use super::args::Cli;
use super::error::CliError;
use super::table;
use clap::CommandFactory;
use clap_complete::env::{CompleteEnv, Shells};
use std::path::Path;

/// Set by the scripts when they call us for the words that fit.
const COMPLETE: &str = "_MOSSNET_COMPLETE";

/// What clap's script for bash lacks.
const BASH: &str = include_str!("completion.bash");

/// Where a shell asks for the words that fit: prints them and ends the process.
pub(super) fn complete_if_asked() {
    CompleteEnv::with_factory(Cli::command)
        .var(COMPLETE)
        .complete();
}

/// The script that makes a shell ask us.
pub(super) fn completion(shell: clap_complete::Shell) -> Result<u8, CliError> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let name = shell.to_string();
    let known = shells.completer(&name).ok_or(CliError::NotHere)?;
    known
        .write_registration(COMPLETE, "mossnet", "mossnet", "mossnet", &mut script)
        .map_err(CliError::Output)?;
    if shell == clap_complete::Shell::Bash {
        script.extend_from_slice(BASH.as_bytes());
    }
    table::print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

/// `mossnet.1`, `mossnet-run.1` and so on.
pub(super) fn pages(directory: &Path) -> Result<u8, CliError> {
    clap_mangen::generate_to(Cli::command(), directory).map_err(|source| CliError::File {
        what: "write manual pages into",
        path: directory.to_path_buf(),
        source,
    })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command() {
        let directory = tempfile::tempdir().unwrap();
        pages(directory.path()).unwrap();
        for page in [
            "mossnet.1",
            "mossnet-run.1",
            "mossnet-network-ls.1",
            "mossnet-network-create.1",
            "mossnet-netns-create.1",
            "mossnet-unshare.1",
        ] {
            let text = std::fs::read_to_string(directory.path().join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{page}");
        }
        assert!(!directory.path().join("mossnet-man.1").exists());
    }
}
