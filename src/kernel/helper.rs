//! Client of the helper: requests in order, one reply each, events in between.
//!
//! Invariant: a request, once submitted, is sent whole and its reply is taken from the stream even
//! if whoever asked has gone; so the order of replies never slips.

use super::{framing, launch};
use mossnet_helper::SandboxId;
use mossnet_helper::request::{
    Event, Failure, FailureKind, Frame, Inventory, MAX_LISTENERS, PROTOCOL_VERSION, PortCount,
    Reply, Request,
};
use mossnet_helper::sealed::Sealed;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

/// The helper could not do, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// It cannot be started.
    #[error("start the helper process")]
    Launch {
        /// Why.
        source: io::Error,
    },
    /// Its socket cannot be used.
    #[error("connect to the helper at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was started by another version of mossnet.
    #[error(
        "the running helper (process {pid}) speaks version {found} of the protocol, this mossnet speaks {PROTOCOL_VERSION}"
    )]
    Version {
        /// Its process id.
        pid: u32,
        /// Its version.
        found: u32,
    },
    /// It ended, and every sandbox with it.
    #[error("the helper process ended")]
    Gone,
    /// It answered something else than what was asked.
    #[error("the helper answered out of turn")]
    OutOfTurn,
    /// No memory for what it is to be handed.
    #[error("write the relay's snapshot into memory")]
    Snapshot(#[source] io::Error),
    /// It did not perform the request.
    #[error(transparent)]
    Refused(#[from] Failure),
}

impl HelperError {
    /// What was refused, if that is what happened.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Refused(failure) => Some(failure),
            Self::Launch { .. }
            | Self::Connect { .. }
            | Self::Version { .. }
            | Self::Gone
            | Self::OutOfTurn
            | Self::Snapshot(_) => None,
        }
    }

    /// The object that was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.failure()
            .is_some_and(|f| f.kind == FailureKind::NotFound)
    }
}

struct Call {
    request: Request,
    fds: Vec<OwnedFd>,
    answer: oneshot::Sender<Result<Reply, Failure>>,
}

/// Requests sent and not yet answered, oldest first. `None` once the helper has gone.
type Pending = Arc<Mutex<Option<VecDeque<oneshot::Sender<Result<Reply, Failure>>>>>>;

/// A connection to a helper; cheap to clone.
#[derive(Debug, Clone)]
pub struct Helper {
    submit: mpsc::Sender<Call>,
    /// Its process id in the host's pid namespace.
    pub pid: u32,
    /// Number of user ids that sandboxes can map.
    pub mapped_ids: u32,
    /// Endpoints are held to their own addresses.
    pub anti_spoofing: bool,
    router_netns_fd: i32,
}

impl Helper {
    /// Connects to the helper at `socket`, if one listens there. The stream of events ends when
    /// the helper does.
    pub async fn connect(
        socket: &Path,
    ) -> Result<Option<(Self, mpsc::UnboundedReceiver<Event>)>, HelperError> {
        let stream = match UnixStream::connect(socket).await {
            Ok(stream) => stream,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(source) => {
                let path = socket.to_path_buf();
                return Err(HelperError::Connect { path, source });
            }
        };
        match Self::over(stream).await {
            Ok(connected) => Ok(Some(connected)),
            // It was about to end when we came.
            Err(HelperError::Gone) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Starts a helper at `socket`, its messages going to `log`, and connects to it.
    pub async fn launch(
        socket: &Path,
        log: &Path,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>), HelperError> {
        launch::launch(socket, log).await?;
        Self::connect(socket).await?.ok_or(HelperError::Gone)
    }

    async fn over(
        stream: UnixStream,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>), HelperError> {
        let (submit, calls) = mpsc::channel(64);
        let (event_sender, events) = mpsc::unbounded_channel();
        let pending: Pending = Arc::new(Mutex::new(Some(VecDeque::new())));
        let (close, closed) = watch::channel(false);
        let (reader, writer) = stream.into_split();
        tokio::spawn(write_calls(writer, calls, Arc::clone(&pending), closed));
        tokio::spawn(read_frames(reader, pending, event_sender, close));
        let mut helper = Self {
            submit,
            pid: 0,
            mapped_ids: 1,
            anti_spoofing: false,
            router_netns_fd: -1,
        };
        let version = PROTOCOL_VERSION;
        match helper.call(Request::Hello { version }).await? {
            Reply::Hello { version, pid, .. } if version != PROTOCOL_VERSION => {
                Err(HelperError::Version {
                    pid,
                    found: version,
                })
            }
            Reply::Hello {
                pid,
                mapped_ids,
                anti_spoofing,
                router_netns_fd,
                ..
            } => {
                helper.router_netns_fd = router_netns_fd;
                helper.anti_spoofing = anti_spoofing;
                helper.pid = pid;
                helper.mapped_ids = mapped_ids;
                Ok((helper, events))
            }
            Reply::Done
            | Reply::Created { .. }
            | Reply::Bare { .. }
            | Reply::Inventory(_)
            | Reply::Counters { .. }
            | Reply::Unsent { .. } => Err(HelperError::OutOfTurn),
        }
    }

    /// Performs a request.
    pub async fn call(&self, request: Request) -> Result<Reply, HelperError> {
        self.call_with(request, Vec::new()).await
    }

    /// Performs a request that carries descriptors.
    pub async fn call_with(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<Reply, HelperError> {
        let (answer, answered) = oneshot::channel();
        let call = Call {
            request,
            fds,
            answer,
        };
        self.submit
            .send(call)
            .await
            .map_err(|_| HelperError::Gone)?;
        Ok(answered.await.map_err(|_| HelperError::Gone)??)
    }

    /// Performs `CreateSandbox` or `Exec`: the new process's id.
    pub async fn create(&self, request: Request, fds: Vec<OwnedFd>) -> Result<u32, HelperError> {
        match self.call_with(request, fds).await? {
            Reply::Created { pid } => Ok(pid),
            Reply::Done
            | Reply::Hello { .. }
            | Reply::Bare { .. }
            | Reply::Inventory(_)
            | Reply::Counters { .. }
            | Reply::Unsent { .. } => Err(HelperError::OutOfTurn),
        }
    }

    /// Sockets of a sandbox's network that still have something to deliver.
    pub async fn unsent(&self, id: &SandboxId) -> Result<u32, HelperError> {
        match self.call(Request::Unsent { id: id.clone() }).await? {
            Reply::Unsent { sockets } => Ok(sockets),
            Reply::Done
            | Reply::Hello { .. }
            | Reply::Created { .. }
            | Reply::Bare { .. }
            | Reply::Counters { .. }
            | Reply::Inventory(_) => Err(HelperError::OutOfTurn),
        }
    }

    /// Performs `CreateSandbox` without a process: the number of the descriptor of its network
    /// namespace in the helper. `fds`: that namespace, where it is another runtime's.
    pub async fn create_bare(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<i32, HelperError> {
        match self.call_with(request, fds).await? {
            Reply::Bare { netns_fd } => Ok(netns_fd),
            Reply::Unsent { .. } | Reply::Counters { .. } => Err(HelperError::OutOfTurn),
            Reply::Done | Reply::Hello { .. } | Reply::Created { .. } | Reply::Inventory(_) => {
                Err(HelperError::OutOfTurn)
            }
        }
    }

    /// Everything the helper holds.
    pub async fn inventory(&self) -> Result<Inventory, HelperError> {
        match self.call(Request::Inventory).await? {
            Reply::Inventory(inventory) => Ok(*inventory),
            Reply::Done
            | Reply::Hello { .. }
            | Reply::Created { .. }
            | Reply::Bare { .. }
            | Reply::Counters { .. }
            | Reply::Unsent { .. } => Err(HelperError::OutOfTurn),
        }
    }

    /// Has it keep listening sockets, each under its key.
    pub async fn keep_listeners(
        &self,
        mut sockets: Vec<(String, OwnedFd)>,
    ) -> Result<(), HelperError> {
        while !sockets.is_empty() {
            let rest = sockets.split_off(sockets.len().min(MAX_LISTENERS));
            let (keys, fds) = sockets.into_iter().unzip();
            self.call_with(Request::Listeners { keys }, fds).await?;
            sockets = rest;
        }
        Ok(())
    }

    /// Hands the relay a snapshot, which needs the listening sockets with these keys.
    pub async fn load_relay(
        &self,
        snapshot: &[u8],
        listeners: Vec<String>,
    ) -> Result<(), HelperError> {
        let sealed = Sealed::of(snapshot).and_then(|sealed| sealed.duplicate());
        let sealed = sealed.map_err(HelperError::Snapshot)?;
        let request = Request::RelaySnapshot { listeners };
        self.call_with(request, vec![sealed]).await.map(drop)
    }

    /// What the published ports of a sandbox have seen.
    pub async fn counters(&self, sandbox: &str) -> Result<Vec<PortCount>, HelperError> {
        let sandbox = sandbox.to_owned();
        match self.call(Request::Counters { sandbox }).await? {
            Reply::Counters { ports } => Ok(ports),
            Reply::Done
            | Reply::Hello { .. }
            | Reply::Created { .. }
            | Reply::Bare { .. }
            | Reply::Inventory(_)
            | Reply::Unsent { .. } => Err(HelperError::OutOfTurn),
        }
    }

    /// Resolves when its process has ended, and with it every sandbox; at once where that cannot be
    /// followed.
    pub async fn ended(&self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok());
        let watched = pidfd.and_then(|pidfd| crate::sys::readiness::watch(pidfd).ok());
        if let Some(watched) = watched {
            // A pidfd is readable once its process has ended (pidfd_open(2)).
            let _ = watched.readable().await;
        }
    }

    /// A path that leads to the router's network namespace while the helper lives.
    pub fn router_netns(&self) -> PathBuf {
        self.descriptor(self.router_netns_fd)
    }

    /// A path that leads to what one of its descriptors leads to.
    pub fn descriptor(&self, number: i32) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{number}", self.pid))
    }

    /// The connection is closed.
    pub fn is_gone(&self) -> bool {
        self.submit.is_closed()
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

async fn write_calls(
    stream: OwnedWriteHalf,
    mut calls: mpsc::Receiver<Call>,
    pending: Pending,
    mut closed: watch::Receiver<bool>,
) {
    loop {
        let call = tokio::select! {
            call = calls.recv() => call,
            _ = closed.wait_for(|closed| *closed) => None,
        };
        let Some(call) = call else { break };
        match lock(&pending).as_mut() {
            Some(queue) => queue.push_back(call.answer),
            None => break,
        }
        debug!(request = ?call.request, "helper asked");
        if let Err(error) = framing::send(stream.as_ref(), &call.request, &call.fds).await {
            warn!(%error, "request to the helper not sent");
            break;
        }
    }
    // Dropping our half tells the helper that no more will come.
}

async fn read_frames(
    mut stream: OwnedReadHalf,
    pending: Pending,
    events: mpsc::UnboundedSender<Event>,
    closed: watch::Sender<bool>,
) {
    loop {
        match framing::receive(&mut stream).await {
            Ok(Some(Frame::Event(event))) => {
                // Nobody listens while the daemon ends.
                let _ = events.send(event);
            }
            Ok(Some(Frame::Reply(reply))) => {
                let answer = lock(&pending).as_mut().and_then(VecDeque::pop_front);
                let Some(answer) = answer else {
                    warn!("reply of the helper to no request");
                    break;
                };
                let _ = answer.send(reply);
            }
            Ok(None) => break,
            Err(error) => {
                warn!(%error, "frame of the helper not understood");
                break;
            }
        }
    }
    // Whoever still waits for a reply learns that none comes.
    lock(&pending).take();
    let _ = closed.send(true);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fake;
    use mossnet_helper::request::{ExecSpec, ExitStatus, ProcessSpec};

    /// `Exec` by an event and the number of descriptors as the pid, all else by `NotFound`; it
    /// ends on `Shutdown`.
    fn script(request: &Request, descriptors: usize) -> Option<fake::Said> {
        match request {
            Request::Shutdown => None,
            Request::Exec(spec) => {
                let id = spec.id.clone();
                let status = ExitStatus::Code(0);
                let pid = u32::try_from(descriptors).unwrap();
                let event = Event::Exited { id, status };
                Some((vec![event], Ok(Reply::Created { pid })))
            }
            request => {
                let what = format!("{request:?}");
                let kind = FailureKind::NotFound;
                Some((
                    Vec::new(),
                    Err(Failure {
                        what,
                        errno: None,
                        kind,
                    }),
                ))
            }
        }
    }

    fn exec_request(id: &SandboxId) -> Request {
        Request::Exec(Box::new(ExecSpec {
            id: id.clone(),
            sandbox: id.clone(),
            process: ProcessSpec {
                argv: vec!["true".into()],
                env: Vec::new(),
                workdir: None,
                tty: false,
            },
        }))
    }

    #[tokio::test]
    async fn replies_come_in_order_with_descriptors_and_events() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("helper.sock");
        assert!(Helper::connect(&socket).await.unwrap().is_none());
        let asked = fake::serve(&socket, script);
        let (helper, mut events) = Helper::connect(&socket).await.unwrap().unwrap();
        assert_eq!(helper.mapped_ids, 1);

        let id = SandboxId::from([1; 32]);
        // A caller that goes away does not make the replies slip.
        let forgotten = helper.clone();
        let inventory = tokio::spawn(async move { forgotten.inventory().await });
        tokio::task::yield_now().await;
        inventory.abort();
        let fd = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let fds = vec![fd(), fd(), fd()];
        assert_eq!(helper.create(exec_request(&id), fds).await.unwrap(), 3);
        assert!(matches!(events.recv().await, Some(Event::Exited { id: got, .. }) if got == id));
        let calls = (0..20).map(|_| helper.call(Request::Forget { id: id.clone() }));
        for answer in futures_util::future::join_all(calls).await {
            assert!(answer.unwrap_err().is_not_found());
        }

        let ended = helper.call(Request::Shutdown).await;
        assert!(matches!(ended, Err(HelperError::Gone)));
        assert!(events.recv().await.is_none());
        assert!(matches!(helper.inventory().await, Err(HelperError::Gone)));
        assert!(asked.lock().unwrap().len() >= 23);
    }
}
