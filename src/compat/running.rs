//! The daemon, for programs that other runtimes start: one that runs, since where such a program is, inside
//! `mossnet unshare`, none can be started.

use crate::api::client::{Client, ClientError};
use crate::api::paths::Paths;
use std::future::Future;
use std::io;
use std::path::PathBuf;

/// Why there is no way to it.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoDaemon {
    /// Nobody listens.
    #[error("no mossnet daemon runs at {}", .0.display())]
    Absent(PathBuf),
    /// It is there, but.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl NoDaemon {
    /// What to do next.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Absent(_) => Some(
                "run the runtime inside 'mossnet unshare'; where it does, any mossnet command outside starts the daemon again"
                    .to_owned(),
            ),
            Self::Client(error) => error.hint(),
        }
    }
}

/// Where it is: below `root`, or what the environment says.
pub(super) fn paths(root: Option<PathBuf>) -> Paths {
    let root = root.or_else(|| std::env::var_os("MOSSNET_ROOT").map(PathBuf::from));
    let root = root.filter(|root| !root.as_os_str().is_empty());
    Paths::of_running(root.as_deref())
}

/// A connection to it.
pub(super) async fn connect(paths: &Paths) -> Result<Client, NoDaemon> {
    let absent = || NoDaemon::Absent(paths.runtime.clone());
    // Before anything is made there.
    if !paths.api_socket().exists() {
        return Err(absent());
    }
    let client = Client::connect_running(paths.clone()).await?;
    client.ok_or_else(absent)
}

/// Runs `work` to its end.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(outcome)
}
