//! Starts a helper: our own binary with the hidden word `helper`.
//!
//! It says `ready` on its stdout once it listens, or why it cannot, as the JSON of a [`Failure`].

use super::helper::HelperError;
use mossnet_helper::request::Failure;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Making namespaces takes milliseconds; a loaded machine takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Our own binary, also after it was replaced on disk.
const SELF: &str = "/proc/self/exe";

/// Starts a helper that listens at `socket` and waits until it does.
pub(super) async fn launch(socket: &Path, log: &Path) -> Result<(), HelperError> {
    let mut child = spawn(socket, log).map_err(|source| HelperError::Launch { source })?;
    let answer = tokio::time::timeout(PATIENCE, first_line(&mut child)).await;
    // It lives on without us; reaping it is all that is left to do.
    let reap = |mut child: Child| {
        tokio::spawn(async move {
            let _ = child.wait().await;
        })
    };
    let launch_error = |source| HelperError::Launch { source };
    let line = match answer {
        Ok(line) => line.map_err(launch_error)?,
        Err(_elapsed) => {
            let _ = child.start_kill();
            reap(child);
            let source = io::Error::new(io::ErrorKind::TimedOut, "no answer within 30 seconds");
            return Err(launch_error(source));
        }
    };
    reap(child);
    let line = line.trim();
    if line == "ready" {
        return Ok(());
    }
    match serde_json::from_str::<Failure>(line) {
        Ok(failure) => Err(HelperError::Refused(failure)),
        Err(_) => {
            let said = format!("it ended saying '{line}'; see {}", log.display());
            Err(launch_error(io::Error::other(said)))
        }
    }
}

fn spawn(socket: &Path, log: &Path) -> io::Result<Child> {
    let mut options = OpenOptions::new();
    let log = options.create(true).append(true).mode(0o600).open(log)?;
    let mut command = std::process::Command::new(SELF);
    // Sandboxes inherit it from there.
    crate::sys::open_files::restore_in(&mut command);
    command.arg0("mossnet");
    Command::from(command)
        .arg("helper")
        .arg("--socket")
        .arg(socket)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
}

async fn first_line(child: &mut Child) -> io::Result<String> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).await?;
    }
    Ok(line)
}
