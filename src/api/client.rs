//! What the CLI calls: one method for each request of the API, over the daemon's unix socket.
//!
//! A client keeps one connection open for its whole life, so that the daemon does not end of
//! idleness between two requests. Requests go over it, one after the other; one that is made while
//! another has no answer yet has a connection of its own, as has each wait.

use super::call::{Call, Sender, parse};
use super::launch::{self, LaunchError};
use super::network_types::{NetnsAdopt, NetnsCreated};
use super::paths::{Paths, PathsError};
use super::stdio::{self, StdioError};
use super::types::{
    Created, ErrorBody, ExecCreate, Exit, Info, LogFile, Ping, SandboxCreate, SandboxInfo,
};
use crate::error::EXIT_FAILURE;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::handshake;
use hyper::{Method, Response};
use hyper_util::rt::TokioIo;
use mossnet_helper::SandboxId;
use serde::de::DeserializeOwned;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// A daemon that lives answers a ping within this time, busy as it may be.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How often to look for a daemon, or start one, where each goes away again.
const ATTEMPTS: u32 = 5;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The directories cannot be used.
    #[error(transparent)]
    Paths(#[from] PathsError),
    /// The daemon could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Nobody listens.
    #[error("connect to the daemon at {}", path.display())]
    Connect {
        /// The API socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else listens.
    #[error("{} is served by uid {owner}, not by uid {uid}", path.display())]
    Foreign {
        /// The API socket.
        path: PathBuf,
        /// Who listens.
        owner: u32,
        /// Us.
        uid: u32,
    },
    /// It does not answer.
    #[error("the daemon at {} does not answer", .0.display())]
    Silent(PathBuf),
    /// The connection broke before the answer came.
    #[error("the daemon ended while serving {request}")]
    Broken {
        /// Method and path.
        request: String,
        /// Why.
        source: hyper::Error,
    },
    /// The answer is not what this version expects.
    #[error("unexpected answer of the daemon to {request}")]
    Answer {
        /// Method and path.
        request: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A request that could not be written.
    #[error("write a request")]
    Request(#[source] io::Error),
    /// The daemon refused or failed.
    #[error("{}", body.message)]
    Refused {
        /// HTTP status.
        status: u16,
        /// What the user reads.
        body: ErrorBody,
    },
    /// The standard streams could not be handed over.
    #[error(transparent)]
    Stdio(#[from] StdioError),
}

impl ClientError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Paths(error) => Some(error.hint().to_owned()),
            Self::Launch(error) => error.hint(),
            Self::Refused { body, .. } | Self::Stdio(StdioError::Refused { body, .. }) => {
                body.hint.clone()
            }
            Self::Foreign { .. } => Some("choose another place with --root DIR".to_owned()),
            Self::Silent(path) => Some(format!(
                "look into daemon.log beside {}; if the daemon is stuck, kill its process: the next command starts a new one and sandboxes go on",
                path.display()
            )),
            Self::Answer { .. } => Some(
                "the daemon may be of another version: mossnet shutdown, and the next command starts a new one"
                    .to_owned(),
            ),
            Self::Broken { .. } | Self::Connect { .. } | Self::Stdio(StdioError::Socket { .. }) => {
                Some("try again: the next command starts a new daemon; daemon.log may say why".to_owned())
            }
            Self::Request(_) => None,
        }
    }

    /// The exit code of `run` and `exec` after this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { body, .. } | Self::Stdio(StdioError::Refused { body, .. }) => {
                body.exit_code
            }
            Self::Launch(LaunchError::Refused(body)) => body.exit_code,
            _ => EXIT_FAILURE,
        }
    }

    /// What was named does not exist (any more).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// It contradicts something, or could mean several things.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// Another daemon may know the answer, or do what this one did not.
    pub fn daemon_ended(&self) -> bool {
        matches!(
            self,
            Self::Broken { .. }
                | Self::Connect { .. }
                | Self::Refused { status: 503, .. }
                | Self::Stdio(StdioError::Socket { .. })
        )
    }

    /// The connection had ended before the request was sent.
    fn unseen(&self) -> bool {
        matches!(self, Self::Broken { source, .. } if source.is_canceled() || source.is_closed())
    }

    /// Nobody is there, and nobody has seen the request.
    fn nobody(&self) -> bool {
        match self {
            Self::Connect { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::ConnectionReset
            ),
            // To a ping, which changes nothing: the daemon was about to end.
            Self::Broken { .. } => true,
            _ => false,
        }
    }
}

/// A way to one daemon.
pub struct Client {
    paths: Paths,
    /// Open for as long as the client lives; `create` goes over it (see `api::hold`).
    anchor: Mutex<Sender>,
    /// What the user should know about this daemon.
    pub warning: Option<String>,
}

impl Client {
    /// Finds the daemon of `paths`, or starts it.
    pub async fn connect(paths: Paths) -> Result<Self, ClientError> {
        paths.prepare()?;
        let (anchor, ping) = anchor(&paths).await?;
        let ours = env!("CARGO_PKG_VERSION");
        let warning = (ping.version != ours).then(|| {
            format!(
                "the running daemon is version {}, this is {ours}; after 'mossnet shutdown' the next command starts the new one",
                ping.version
            )
        });
        Ok(Self {
            paths,
            anchor: Mutex::new(anchor),
            warning,
        })
    }

    /// Finds the daemon of `paths`; `None` where none runs.
    pub async fn connect_running(paths: Paths) -> Result<Option<Self>, ClientError> {
        paths.prepare()?;
        match ping(&paths).await {
            Ok((anchor, _)) => Ok(Some(Self {
                paths,
                anchor: Mutex::new(anchor),
                warning: None,
            })),
            Err(error) if error.nobody() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `POST /v1/sandboxes`. It is removed again when this client goes away before it is started.
    pub async fn create(&self, request: &SandboxCreate) -> Result<Created, ClientError> {
        let call = Call::post("/v1/sandboxes?hold=true".to_owned()).with_body(request)?;
        let mut anchor = self.anchor.lock().await;
        parse(&call, call.send(&mut anchor).await?)
    }

    /// Hands over standard streams.
    pub fn attach(&self, id: &SandboxId, stdio: [BorrowedFd<'_>; 3]) -> Result<(), ClientError> {
        Ok(stdio::send(&self.paths.stdio_socket(), id, stdio)?)
    }

    /// Hands over another runtime's network namespace, which becomes a sandbox without a process.
    pub fn adopt(
        &self,
        request: &NetnsAdopt,
        netns: BorrowedFd<'_>,
    ) -> Result<NetnsCreated, ClientError> {
        let adopted = stdio::adopt(&self.paths.stdio_socket(), request, netns);
        adopted.map_err(|error| match error {
            StdioError::Refused { status, body } => ClientError::Refused { status, body },
            StdioError::Socket { .. } => error.into(),
        })
    }

    /// `POST /v1/sandboxes/{sandbox}/start`; also of one that has exited, which then runs detached.
    pub async fn start(&self, sandbox: &str) -> Result<(), ClientError> {
        self.change(Call::post(of_sandbox(sandbox, "/start"))).await
    }

    /// `POST /v1/sandboxes/{sandbox}/stop`.
    pub async fn stop(&self, sandbox: &str, timeout_seconds: u64) -> Result<(), ClientError> {
        let path = of_sandbox(sandbox, &format!("/stop?timeout={timeout_seconds}"));
        self.change(Call::post(path)).await
    }

    /// `POST /v1/sandboxes/{sandbox}/kill`.
    pub async fn kill(&self, sandbox: &str, signal: i32) -> Result<(), ClientError> {
        let path = of_sandbox(sandbox, &format!("/kill?signal={signal}"));
        self.change(Call::post(path)).await
    }

    /// `DELETE /v1/sandboxes/{sandbox}`.
    pub async fn remove(&self, sandbox: &str, force: bool) -> Result<(), ClientError> {
        let path = of_sandbox(sandbox, &format!("?force={force}"));
        self.change(Call::new(Method::DELETE, path)).await
    }

    /// `GET /v1/sandboxes/{sandbox}/wait`; goes on with the next daemon where one ends.
    pub async fn wait(&self, sandbox: &str) -> Result<Exit, ClientError> {
        self.wait_at(of_sandbox(sandbox, "/wait")).await
    }

    /// The same in two steps: once this one is done, an end cannot be missed.
    pub async fn begin_wait(&self, sandbox: &str) -> Result<Waiting, ClientError> {
        self.begin_wait_at(of_sandbox(sandbox, "/wait")).await
    }

    /// `GET /v1/sandboxes`.
    pub async fn list(&self, all: bool) -> Result<Vec<SandboxInfo>, ClientError> {
        self.get(format!("/v1/sandboxes?all={all}")).await
    }

    /// `GET /v1/sandboxes/{sandbox}`.
    pub async fn inspect(&self, sandbox: &str) -> Result<SandboxInfo, ClientError> {
        self.get(of_sandbox(sandbox, "")).await
    }

    /// `GET /v1/sandboxes/{sandbox}/logs`.
    pub async fn log_path(&self, sandbox: &str) -> Result<PathBuf, ClientError> {
        let file: LogFile = self.get(of_sandbox(sandbox, "/logs")).await?;
        Ok(file.path)
    }

    /// `POST /v1/sandboxes/{sandbox}/exec`.
    pub async fn exec(&self, sandbox: &str, request: &ExecCreate) -> Result<Created, ClientError> {
        let call = Call::post(of_sandbox(sandbox, "/exec")).with_body(request)?;
        parse(&call, self.ask(&call).await?)
    }

    /// `POST /v1/exec/{id}/start`.
    pub async fn exec_start(&self, id: &SandboxId) -> Result<(), ClientError> {
        self.change(Call::post(format!("/v1/exec/{id}/start")))
            .await
    }

    /// `POST /v1/exec/{id}/kill`.
    pub async fn exec_kill(&self, id: &SandboxId, signal: i32) -> Result<(), ClientError> {
        self.change(Call::post(format!("/v1/exec/{id}/kill?signal={signal}")))
            .await
    }

    /// `GET /v1/exec/{id}/wait`, in two steps as `begin_wait`.
    pub async fn begin_exec_wait(&self, id: &SandboxId) -> Result<Waiting, ClientError> {
        self.begin_wait_at(format!("/v1/exec/{id}/wait")).await
    }

    /// `GET /v1/info`.
    pub async fn info(&self) -> Result<Info, ClientError> {
        self.get("/v1/info".to_owned()).await
    }

    /// `POST /v1/router`: as `info`, after a helper was started where none ran.
    pub async fn router(&self) -> Result<Info, ClientError> {
        let call = Call::post("/v1/router".to_owned());
        parse(&call, self.ask(&call).await?)
    }

    /// `POST /v1/shutdown`.
    pub async fn shutdown(&self, all: bool) -> Result<(), ClientError> {
        self.change(Call::post(format!("/v1/shutdown?all={all}")))
            .await
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: String) -> Result<T, ClientError> {
        let call = Call::new(Method::GET, path);
        parse(&call, self.ask(&call).await?)
    }

    pub(super) async fn change(&self, call: Call) -> Result<(), ClientError> {
        self.ask(&call).await.map(drop)
    }

    async fn wait_at(&self, path: String) -> Result<Exit, ClientError> {
        let waiting = self.begin_wait_at(path).await?;
        self.finish_wait(waiting).await
    }

    async fn begin_wait_at(&self, path: String) -> Result<Waiting, ClientError> {
        let call = Call::new(Method::GET, path);
        let mut sender = self.open_again().await?;
        let answer = call.head(&mut sender).await?;
        Ok(Waiting {
            call,
            answer,
            _sender: sender,
        })
    }

    /// The end of what `begin_wait` waits for; goes on with the next daemon where one ends.
    pub async fn finish_wait(&self, mut waiting: Waiting) -> Result<Exit, ClientError> {
        loop {
            let Waiting { call, answer, .. } = waiting;
            let error = match call.wait_end(answer).await {
                Err(error) if error.daemon_ended() => error,
                end => return end,
            };
            let (next, _) = anchor(&self.paths).await?;
            *self.anchor.lock().await = next;
            waiting = match self.begin_wait_at(call.path).await {
                // The next daemon has never heard of it: it ended while none was there.
                Err(next) if next.is_not_found() => return Err(error),
                begun => begun?,
            };
        }
    }

    pub(super) async fn ask(&self, call: &Call) -> Result<Bytes, ClientError> {
        if let Ok(mut anchor) = self.anchor.try_lock() {
            match call.send(&mut anchor).await {
                Err(error) if error.unseen() => {}
                answer => return answer,
            }
        }
        let mut sender = self.open_again().await?;
        call.send(&mut sender).await
    }

    /// A new connection, to a new daemon where ours was killed meanwhile.
    async fn open_again(&self) -> Result<Sender, ClientError> {
        match open(&self.paths).await {
            Err(error) if error.nobody() => {
                let (next, _) = anchor(&self.paths).await?;
                *self.anchor.lock().await = next;
                open(&self.paths).await
            }
            opened => opened,
        }
    }
}

/// A wait that the daemon knows of.
pub struct Waiting {
    call: Call,
    answer: Response<Incoming>,
    /// Dropping it would close the connection.
    _sender: Sender,
}

/// A connection to a daemon that has answered, started if need be.
async fn anchor(paths: &Paths) -> Result<(Sender, Ping), ClientError> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        match ping(paths).await {
            Err(error) if error.nobody() => last = Some(error),
            answer => return answer,
        }
        if let Err(error) = launch::daemon(paths).await {
            // Another command may have started one at the same moment.
            return ping(paths).await.map_err(|_| error.into());
        }
    }
    Err(last.unwrap_or_else(|| ClientError::Silent(paths.api_socket())))
}

async fn ping(paths: &Paths) -> Result<(Sender, Ping), ClientError> {
    let mut sender = open(paths).await?;
    let call = Call::new(Method::GET, "/v1/ping".to_owned());
    let answer = tokio::time::timeout(PING_TIMEOUT, call.send(&mut sender))
        .await
        .map_err(|_| ClientError::Silent(paths.api_socket()))??;
    let ping = parse(&call, answer)?;
    Ok((sender, ping))
}

async fn open(paths: &Paths) -> Result<Sender, ClientError> {
    let path = paths.api_socket();
    let failed = |source| ClientError::Connect {
        path: paths.api_socket(),
        source,
    };
    let stream = UnixStream::connect(&path).await.map_err(failed)?;
    let owner = stream.peer_cred().map_err(failed)?.uid();
    let uid = nix::unistd::geteuid().as_raw();
    if owner != uid {
        return Err(ClientError::Foreign { path, owner, uid });
    }
    let (sender, connection) =
        handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ClientError::Broken {
                request: "connect".to_owned(),
                source,
            })?;
    // Its errors reach the caller through the request.
    tokio::spawn(connection);
    Ok(sender)
}

fn of_sandbox(sandbox: &str, rest: &str) -> String {
    format!("/v1/sandboxes/{}{rest}", encoded(sandbox))
}

/// Percent-encodes all that is not unreserved (RFC 3986 §2.3). An empty name becomes one that no
/// sandbox can have, not another path.
pub(super) fn encoded(name: &str) -> String {
    use std::fmt::Write as _;
    if name.is_empty() {
        return "%20".to_owned();
    }
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn names_cannot_become_other_paths() {
        assert_eq!(encoded("web-1.x_y~"), "web-1.x_y~");
        assert_eq!(encoded("a/b?c d%"), "a%2Fb%3Fc%20d%25");
        assert_eq!(encoded("é"), "%C3%A9");
        assert_eq!(encoded(""), "%20");
    }
}
