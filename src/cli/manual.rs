//! Completions and manual pages, from the same table as the parser.

use super::args::Cli;
use super::error::CliError;
use super::table;
use clap::CommandFactory;
use std::path::Path;

pub(super) fn completion(shell: clap_complete::Shell) -> Result<u8, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mossnet", &mut script);
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
        for page in ["mossnet.1", "mossnet-run.1", "mossnet-network-ls.1"] {
            let text = std::fs::read_to_string(directory.path().join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{page}");
        }
        assert!(!directory.path().join("mossnet-man.1").exists());
    }
}
