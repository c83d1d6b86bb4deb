//! The API server: accepts connections of our own user and serves [`super::routes`] on them.
//!
//! Invariants: nobody but our uid, outside of its sandboxes, gets an answer (SO_PEERCRED, unix(7));
//! when the daemon ends, requests that change something are finished, those that only wait are told
//! to come again.

use super::control::Control;
use super::hold::Held;
use super::routes::{Api, router};
use super::stdio;
use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mossnet_helper::peer::outside_sandboxes;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

/// How long a request that is being served may still take once the daemon ends.
const DRAIN: Duration = Duration::from_secs(10);
/// A client that opens a connection must send its request within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept(2): out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that are open (and changes under way), and when the last one closed: by this the daemon knows that nobody
/// is using it.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    usage: Mutex<Usage>,
    idle: Notify,
}

#[derive(Debug)]
struct Usage {
    open: usize,
    last: Instant,
    closed: bool,
}

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(Shared {
            usage: Mutex::new(Usage {
                open: 0,
                last: Instant::now(),
                closed: false,
            }),
            idle: Notify::new(),
        }))
    }
}

impl Activity {
    /// Since when no connection has been open; `None` while one is.
    pub fn idle_since(&self) -> Option<Instant> {
        let usage = self.usage();
        (usage.open == 0).then_some(usage.last)
    }

    /// Closes the door for good, unless a connection is open or has been since `quiet`; from here on
    /// new ones are hung up on. So whoever got an answer can rely on the daemon not to end of
    /// idleness while the connection is open.
    pub fn close_if_unused_since(&self, quiet: Instant) -> bool {
        let mut usage = self.usage();
        usage.closed |= usage.open == 0 && usage.last <= quiet;
        usage.closed
    }

    /// For a new connection; `None` once closed.
    fn admit(&self) -> Option<Busy> {
        let mut usage = self.usage();
        if usage.closed {
            return None;
        }
        usage.open += 1;
        Some(Busy(self.clone()))
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.0.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is going on until the returned value is dropped.
    pub(super) fn enter(&self) -> Busy {
        self.usage().open += 1;
        Busy(self.clone())
    }

    async fn until_idle(&self) {
        loop {
            let ended = self.0.idle.notified();
            if self.idle_since().is_some() {
                return;
            }
            ended.await;
        }
    }
}

/// An open connection, or a change that goes on without one; its end is an activity too.
pub(super) struct Busy(Activity);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut usage = self.0.usage();
        usage.open = usage.open.saturating_sub(1);
        usage.last = Instant::now();
        self.0.0.idle.notify_one();
    }
}

/// Serves both sockets until `shutdown` resolves, then finishes what is being served.
///
/// Errors: none at present; a connection that fails is logged, and the server goes on.
pub async fn serve<C: Control>(
    api: UnixListener,
    stdio: UnixListener,
    control: Arc<C>,
    activity: Activity,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (end, ending) = watch::channel(false);
    let router = router(Api {
        control: Arc::clone(&control),
        activity: activity.clone(),
        ending: ending.clone(),
    });
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = api.accept() => {
                if let Some(stream) = checked(accepted.map(|(stream, _)| stream)).await
                    && let Some(open) = activity.admit()
                {
                    let control = Arc::clone(&control);
                    let held = Held::default();
                    let router = router.clone().layer(Extension(held.clone()));
                    let served = serve_http(stream, router, ending.clone());
                    connections.spawn(async move {
                        let _open = open;
                        served.await;
                        held.close(control.as_ref()).await;
                    });
                }
            }
            accepted = stdio.accept() => {
                if let Some(stream) = checked(accepted.map(|(stream, _)| stream)).await
                    && let Some(open) = activity.admit()
                {
                    let control = Arc::clone(&control);
                    connections.spawn(async move {
                        let _open = open;
                        stdio::serve(stream, control.as_ref()).await;
                    });
                }
            }
            Some(ended) = connections.join_next() => report(ended),
        }
    }
    // From here on a new connection is refused, not left unanswered in the queue.
    drop((api, stdio));
    let _ = end.send(true);
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
        activity.until_idle().await;
    };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        warn!("requests abandoned at the end of the daemon");
    }
    Ok(())
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        warn!(%error, "connection task failed");
    }
}

/// The connection, if it is one of our own user's.
async fn checked(accepted: io::Result<UnixStream>) -> Option<UnixStream> {
    let stream = match accepted {
        Ok(stream) => stream,
        Err(error) => {
            warn!(%error, "accept failed");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            return None;
        }
    };
    let uid = nix::unistd::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == uid => {
            // Linux always tells the pid; where it did not, nothing is known of the peer.
            let outside = peer.pid().is_some_and(outside_sandboxes);
            if !outside {
                warn!(peer.pid = ?peer.pid(), "connection from inside a sandbox refused");
            }
            outside.then_some(stream)
        }
        Ok(peer) => {
            warn!(peer.uid = peer.uid(), "connection of another user refused");
            None
        }
        Err(error) => {
            warn!(%error, "peer credentials unreadable");
            None
        }
    }
}

async fn serve_http(stream: UnixStream, router: Router, mut ending: watch::Receiver<bool>) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = super::routes::ended(&mut ending) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        debug!(%error, "connection ended early");
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
