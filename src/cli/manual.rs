//! Completions and manual pages, from the same table as the parser.

use super::args::Cli;
use super::error::CliError;
use super::table;
use clap::{Command, CommandFactory};
use clap_complete::env::{CompleteEnv, Shells};
use std::ffi::OsString;
use std::path::Path;

/// Set by the scripts when they call us for the words that fit.
const COMPLETE: &str = "_MOSSNET_COMPLETE";

/// Set by the scripts of bash and zsh: which word is to be completed.
const INDEX: &str = "_CLAP_COMPLETE_INDEX";

/// What clap's script for bash lacks.
const BASH: &str = include_str!("completion.bash");

/// Where a shell asks for the words that fit: prints them and ends the process.
pub(super) fn complete_if_asked() {
    CompleteEnv::with_factory(|| {
        let index = std::env::var(INDEX).ok().and_then(|text| text.parse().ok());
        match begun_word(std::env::args_os(), index) {
            Some(_) => Cli::command(),
            None => with_flags_last(Cli::command()),
        }
    })
    .var(COMPLETE)
    .complete();
}

/// The word that is being completed, unless nothing of it is typed yet. A shell calls us with `--`
/// and all words; `index`: which of them it is, the last one when absent.
fn begun_word(argv: impl Iterator<Item = OsString>, index: Option<usize>) -> Option<OsString> {
    let words: Vec<_> = argv.skip_while(|word| word != "--").skip(1).collect();
    let at = index.unwrap_or(words.len().saturating_sub(1));
    let word = words.into_iter().nth(at);
    word.filter(|word| !word.is_empty())
}

/// Flags are offered only where there is nothing else to offer, or to whoever types a '-': to press
/// the tab key after `network rm` is to ask which networks there are.
fn with_flags_last(mut command: Command) -> Command {
    // So that --help and the global flags are in each.
    command.build();
    hide_flags(command)
}

fn hide_flags(command: Command) -> Command {
    command
        .mut_args(|arg| {
            let hidden = arg.is_hide_set() || !arg.is_positional();
            arg.hide(hidden)
        })
        .mut_subcommands(hide_flags)
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
    fn the_word_to_complete_is_found() {
        let begun = |line: &[&str], index| {
            let argv = line.iter().map(OsString::from);
            begun_word(argv, index).map(|word| word.into_string().unwrap())
        };
        let line = ["mossnet", "--", "mossnet", "rm", "w", "--", ""];
        assert_eq!(begun(&line, Some(2)).as_deref(), Some("w"));
        assert_eq!(begun(&line, Some(3)).as_deref(), Some("--"));
        assert_eq!(begun(&line, Some(4)), None);
        // zsh leaves an empty last word out; fish gives no index.
        assert_eq!(begun(&line, Some(5)), None);
        assert_eq!(begun(&line, None), None);
        assert_eq!(begun(&line[..5], None).as_deref(), Some("w"));
        assert_eq!(begun(&["mossnet"], None), None);
    }

    #[test]
    fn flags_are_for_whoever_types_a_dash() {
        let offered = |words: &[&str]| {
            let args: Vec<OsString> = words.iter().map(OsString::from).collect();
            let last = args.len() - 1;
            let typed = words[last];
            let mut command = match typed.is_empty() {
                true => with_flags_last(Cli::command()),
                false => Cli::command(),
            };
            let found = clap_complete::engine::complete(&mut command, args, last, None).unwrap();
            let text = |c: &clap_complete::CompletionCandidate| {
                c.get_value().to_string_lossy().into_owned()
            };
            found.iter().map(text).collect::<Vec<_>>()
        };
        let commands = offered(&["mossnet", "network", ""]);
        assert!(commands.contains(&"rm".to_owned()), "{commands:?}");
        assert!(
            commands.iter().all(|word| !word.starts_with('-')),
            "{commands:?}"
        );
        let flags = offered(&["mossnet", "network", "rm", "-"]);
        for flag in ["-f", "-h", "--root"] {
            assert!(flags.contains(&flag.to_owned()), "{flag}: {flags:?}");
        }
        // Nothing else is known of these.
        let flags = offered(&["mossnet", "network", "create", ""]);
        assert!(flags.contains(&"--subnet".to_owned()), "{flags:?}");
        let values = offered(&["mossnet", "network", "graph", "--format", ""]);
        assert!(values.contains(&"svg".to_owned()), "{values:?}");
        assert!(
            values.iter().all(|word| !word.starts_with('-')),
            "{values:?}"
        );
    }

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
            "mossnet-cni.1",
            "mossnet-oci-hook.1",
        ] {
            let text = std::fs::read_to_string(directory.path().join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{page}");
        }
        assert!(!directory.path().join("mossnet-man.1").exists());
    }
}
