//! Names of sandboxes and networks for a shell that completes words: what a running daemon knows.
//!
//! Invariants: no daemon is started, nothing is written, and the shell waits [`PATIENCE`] at most.

use crate::api::client::{Client, ClientError};
use crate::api::paths::Paths;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

/// Longest that a key press may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Every sandbox.
pub(super) fn sandboxes() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| offer(typed, &[Kind::Sandbox { stopped: true }], ""))
}

/// Sandboxes that run.
pub(super) fn running() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| offer(typed, &[Kind::Sandbox { stopped: false }], ""))
}

/// Every network.
pub(super) fn networks() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| offer(typed, &[Kind::Network], ""))
}

/// What `inspect` takes.
pub(super) fn anything() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        offer(typed, &[Kind::Sandbox { stopped: true }, Kind::Network], "")
    })
}

/// What `capture` takes.
pub(super) fn anything_running() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        offer(
            typed,
            &[Kind::Sandbox { stopped: false }, Kind::Network],
            "",
        )
    })
}

/// What `run --network` takes.
pub(super) fn run_networks() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let container = "container:";
        if typed
            .to_str()
            .is_some_and(|typed| typed.starts_with(container))
        {
            return offer(typed, &[Kind::Sandbox { stopped: false }], container);
        }
        offer(typed, &[Kind::Network], "")
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Sandbox { stopped: bool },
    Network,
}

/// Names that begin as typed, each after `before`.
fn offer(typed: &OsStr, kinds: &[Kind], before: &str) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else {
        return Vec::new();
    };
    known(kinds)
        .into_iter()
        .map(|name| format!("{before}{name}"))
        .filter(|name| name.starts_with(typed))
        .map(CompletionCandidate::new)
        .collect()
}

/// Nothing where no daemon runs, or none that answers.
fn known(kinds: &[Kind]) -> Vec<String> {
    let root = root_of(std::env::args_os()).or_else(super::args::root_of_environment);
    let paths = Paths::resolve(root.as_deref());
    if !paths.api_socket().exists() {
        return Vec::new();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return Vec::new();
    };
    let asked = runtime.block_on(async { tokio::time::timeout(PATIENCE, ask(paths, kinds)).await });
    asked.ok().and_then(Result::ok).unwrap_or_default()
}

async fn ask(paths: Paths, kinds: &[Kind]) -> Result<Vec<String>, ClientError> {
    let Some(client) = Client::connect_running(paths).await? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for kind in kinds {
        match kind {
            Kind::Sandbox { stopped } => {
                let sandboxes = client.list(*stopped).await?;
                names.extend(sandboxes.into_iter().map(|sandbox| sandbox.name));
            }
            Kind::Network => {
                let networks = client.networks().await?;
                names.extend(networks.into_iter().map(|network| network.name));
            }
        }
    }
    Ok(names)
}

/// `--root` among the words that are being completed.
fn root_of(words: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let mut root = None;
    let mut words = words.skip_while(|word| word != "--").skip(1).peekable();
    while let Some(word) = words.next() {
        if word == "--root" {
            root = words.peek().map(PathBuf::from);
        } else if let Some(value) = word.to_str().and_then(|word| word.strip_prefix("--root=")) {
            root = Some(PathBuf::from(value));
        }
    }
    root.filter(|root| !root.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_among_the_words() {
        let root = |line: &str| root_of(line.split_whitespace().map(OsString::from));
        assert_eq!(root("mossnet -- mossnet --root /x rm"), Some("/x".into()));
        assert_eq!(root("mossnet -- mossnet --root=/x rm"), Some("/x".into()));
        assert_eq!(root("mossnet -- mossnet rm --root"), None);
        assert_eq!(root("mossnet --root /x"), None);
        assert_eq!(root("mossnet -- mossnet rm"), None);
    }
}
