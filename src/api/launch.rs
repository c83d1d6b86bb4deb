//! Starts the daemon on first use: `/proc/self/exe [--root DIR] daemon --background`.
//!
//! The daemon's side of the bargain: it leaves our session, and writes one line to stdout, `ready`
//! once its sockets listen, or an [`ErrorBody`] in JSON (or plain text) and ends.

use super::paths::Paths;
use super::types::ErrorBody;
use crate::error::EXIT_FAILURE;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStdout, Command};

/// Longest time until the daemon says that it is ready. It reads its stores and starts the helper.
const PATIENCE: Duration = Duration::from_secs(60);
/// A first line longer than this is none of the daemon's.
const MAX_LINE: u64 = 64 << 10;

/// Why the daemon is not there.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// We are where a daemon cannot work.
    #[error("the daemon has ended, and cannot be started inside 'mossnet unshare'")]
    Unshared,
    /// It could not be executed.
    #[error("start the daemon")]
    Spawn(#[source] io::Error),
    /// Its log cannot be written.
    #[error("open {}", path.display())]
    Log {
        /// The log file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It said why it cannot run.
    #[error("{}", .0.message)]
    Refused(ErrorBody),
    /// It ended without a word.
    #[error("the daemon ended while starting")]
    Ended {
        /// Its log.
        log: PathBuf,
    },
    /// It says nothing.
    #[error("the daemon did not become ready within {} seconds", PATIENCE.as_secs())]
    Silent {
        /// Its log.
        log: PathBuf,
    },
}

impl LaunchError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused(body) => body.hint.clone(),
            Self::Ended { log } | Self::Silent { log } => Some(format!(
                "{} may say why; mossnet doctor checks what this machine lacks",
                log.display()
            )),
            Self::Log { .. } => {
                Some("make it writable, or choose another place with --root DIR".to_owned())
            }
            Self::Unshared => Some(
                "any mossnet command outside of it, such as mossnet ps, starts the daemon again"
                    .to_owned(),
            ),
            Self::Spawn(_) => None,
        }
    }
}

/// Starts it and waits until it is ready.
pub(super) async fn daemon(paths: &Paths) -> Result<(), LaunchError> {
    if paths.is_unshared() {
        return Err(LaunchError::Unshared);
    }
    let log = paths.log("daemon");
    // The daemon outlives us: what our caller left open (a lock, a pipe) must not live on in it.
    crate::sys::inheritance::keep_standard_streams_only().map_err(LaunchError::Spawn)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("mossnet");
    if let Some(root) = &paths.root {
        command.arg("--root").arg(root);
    }
    let mut child = command
        .args(["daemon", "--background"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(open_log(&log)?)
        // Control-C at our terminal is not meant for the daemon, not even before its setsid(2).
        .process_group(0)
        .spawn()
        .map_err(LaunchError::Spawn)?;
    let Some(stdout) = child.stdout.take() else {
        return Err(LaunchError::Ended { log });
    };
    let line = tokio::time::timeout(PATIENCE, first_line(stdout))
        .await
        .map_err(|_| LaunchError::Silent { log: log.clone() })?
        .map_err(LaunchError::Spawn)?;
    judge(&line, log)
}

fn open_log(path: &PathBuf) -> Result<File, LaunchError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| LaunchError::Log {
            path: path.clone(),
            source,
        })
}

/// Up to the newline or the end.
async fn first_line(stdout: ChildStdout) -> io::Result<String> {
    let mut line = Vec::new();
    let mut stdout = stdout.take(MAX_LINE);
    while !line.contains(&b'\n') {
        if stdout.read_buf(&mut line).await? == 0 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&line);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn judge(line: &str, log: PathBuf) -> Result<(), LaunchError> {
    match line {
        "ready" => Ok(()),
        "" => Err(LaunchError::Ended { log }),
        other => {
            let body = serde_json::from_str(other).unwrap_or_else(|_| ErrorBody {
                message: other.to_owned(),
                hint: None,
                exit_code: EXIT_FAILURE,
            });
            Err(LaunchError::Refused(body))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_decides() {
        let log = || PathBuf::from("/run/daemon.log");
        assert!(judge("ready", log()).is_ok());
        assert!(matches!(judge("", log()), Err(LaunchError::Ended { .. })));
        let refused = judge(r#"{"message":"no","hint":"do","exit_code":125}"#, log());
        let error = refused.unwrap_err();
        assert_eq!(
            (error.to_string(), error.hint()),
            ("no".into(), Some("do".into()))
        );
        let error = judge("plain words", log()).unwrap_err();
        assert_eq!(
            (error.to_string(), error.hint()),
            ("plain words".into(), None)
        );
    }
}
