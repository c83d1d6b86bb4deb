//! A process in a sandbox whose standard streams and signals are ours, until it ends.
//!
//! Without a terminal our own descriptors are handed over: nothing is copied, and the process goes
//! on when we are killed. With one, its far end is handed over, and `terminal` copies.
//!
//! Invariant: signals are caught from before anything is made until the end, so that none is lost
//! and none leaves the user's terminal raw.

use super::create_args::StreamArgs;
use super::error::CliError;
use super::terminal::{RawMode, Terminal, new_size};
use crate::api::client::{Client, ClientError, Waiting};
use mossnet_helper::SandboxId;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Passed on to the process; SIGWINCH changes the size of its terminal instead.
const FORWARDED: [i32; 6] = [
    nix::libc::SIGHUP,
    nix::libc::SIGINT,
    nix::libc::SIGQUIT,
    nix::libc::SIGUSR1,
    nix::libc::SIGUSR2,
    nix::libc::SIGTERM,
];
/// After so many requests to end that did not help, we leave alone, as `docker run` does.
const PATIENCE: u32 = 3;
/// How long output may still come after the end; by then nobody holds the far end.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// A process that is made but perhaps not started.
pub(super) enum Target {
    /// The first one of a sandbox.
    Sandbox(SandboxId),
    /// A further one.
    Exec(SandboxId),
}

/// What a step came to.
pub(super) enum Outcome<T> {
    /// It was done.
    Done(T),
    /// A signal came first: end with this code.
    Interrupted(u8),
}

impl Target {
    pub(super) fn id(&self) -> &SandboxId {
        match self {
            Self::Sandbox(id) | Self::Exec(id) => id,
        }
    }

    pub(super) async fn begin_wait(&self, client: &Client) -> Result<Waiting, ClientError> {
        match self {
            Self::Sandbox(id) => client.begin_wait(id.as_str()).await,
            Self::Exec(id) => client.begin_exec_wait(id).await,
        }
    }

    pub(super) async fn start(&self, client: &Client) -> Result<(), ClientError> {
        match self {
            Self::Sandbox(id) => client.start(id.as_str()).await,
            Self::Exec(id) => client.exec_start(id).await,
        }
    }

    async fn kill(&self, client: &Client, signal: i32) -> Result<(), ClientError> {
        match self {
            Self::Sandbox(id) => client.kill(id.as_str(), signal).await,
            Self::Exec(id) => client.exec_kill(id, signal).await,
        }
    }
}

/// Our side of an attached process.
pub(super) struct Session {
    pub(super) streams: Streams,
    pub(super) signals: Signals,
}

impl Session {
    /// Catches signals from now on; makes the terminal if there is to be one.
    pub(super) fn new(args: StreamArgs) -> Result<Self, CliError> {
        Ok(Self {
            streams: Streams {
                interactive: args.interactive,
                terminal: args.tty.then(Terminal::open).transpose()?,
            },
            signals: Signals::catch(args.tty)?,
        })
    }
}

/// Its standard streams.
pub(super) struct Streams {
    interactive: bool,
    terminal: Option<Terminal>,
}

impl Streams {
    /// Gives the daemon the process's ends.
    pub(super) fn hand_over(&self, client: &Client, id: &SandboxId) -> Result<(), CliError> {
        if let Some(far) = self.terminal.as_ref().and_then(|t| t.far.as_ref()) {
            client.attach(id, [far.as_fd(), far.as_fd(), far.as_fd()])?;
            return Ok(());
        }
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        if self.interactive {
            client.attach(id, [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
            return Ok(());
        }
        let nothing = File::open("/dev/null").map_err(|source| CliError::File {
            what: "open",
            path: "/dev/null".into(),
            source,
        })?;
        client.attach(id, [nothing.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
        Ok(())
    }

    /// Closes our copy of the process's end: its end must be the end of the terminal.
    pub(super) fn handed_over(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.far = None;
        }
    }
}

/// Copies, passes signals on, and returns the exit code at the end.
pub(super) async fn serve(
    streams: Streams,
    mut signals: Signals,
    client: &Client,
    target: &Target,
    waiting: Waiting,
) -> Result<u8, CliError> {
    let mut output_ended = None;
    let mut raw = None;
    if let Some(terminal) = &streams.terminal {
        output_ended = Some(terminal.copy_output()?);
        if streams.interactive {
            raw = RawMode::enter()?;
            terminal.copy_input()?;
        }
    }
    let ended = signals
        .until_end(streams.terminal.as_ref(), client, target, waiting)
        .await;
    if let (Outcome::Done(Ok(_)), Some(output_ended)) = (&ended, output_ended) {
        // Nobody holds the far end any more: the copy ends once it has printed the rest.
        let _ = tokio::time::timeout(LAST_OUTPUT, output_ended).await;
    }
    drop(raw);
    match ended {
        Outcome::Done(code) => Ok(code?),
        Outcome::Interrupted(code) => {
            let id = target.id().short();
            if let (Target::Sandbox(_), None) = (target, &streams.terminal) {
                eprintln!("mossnet: sandbox {id} goes on");
                eprintln!("hint: mossnet stop {id} ends it");
            }
            Ok(code)
        }
    }
}

/// Signals that we caught, in order.
pub(super) struct Signals {
    caught: mpsc::UnboundedReceiver<i32>,
    /// Came while the process was being started, and are for it.
    early: VecDeque<i32>,
    /// How many asked for an end.
    requests: u32,
}

impl Signals {
    fn catch(tty: bool) -> Result<Self, CliError> {
        let (queue, signals) = mpsc::unbounded_channel();
        let window = tty.then_some(nix::libc::SIGWINCH);
        for number in FORWARDED.into_iter().chain(window) {
            let mut caught = signal(SignalKind::from_raw(number)).map_err(CliError::Signals)?;
            let queue = queue.clone();
            tokio::spawn(async move {
                while caught.recv().await.is_some() && queue.send(number).is_ok() {}
            });
        }
        Ok(Self {
            caught: signals,
            early: VecDeque::new(),
            requests: 0,
        })
    }

    /// Does `step`, unless a signal that would end us comes first.
    pub(super) async fn unless_interrupted<T>(
        &mut self,
        step: impl Future<Output = T>,
    ) -> Outcome<T> {
        let mut step = std::pin::pin!(step);
        loop {
            tokio::select! {
                done = &mut step => return Outcome::Done(done),
                Some(signal) = self.caught.recv() => {
                    if signal != nix::libc::SIGWINCH {
                        return Outcome::Interrupted(shell_code(signal));
                    }
                }
            }
        }
    }

    /// Does `step`, at whose end the process may run already: signals are kept for it.
    pub(super) async fn keep_during<T>(&mut self, step: impl Future<Output = T>) -> Outcome<T> {
        let mut step = std::pin::pin!(step);
        loop {
            tokio::select! {
                done = &mut step => return Outcome::Done(done),
                Some(signal) = self.caught.recv() => {
                    self.early.push_back(signal);
                    if self.out_of_patience(signal) {
                        return Outcome::Interrupted(shell_code(signal));
                    }
                }
            }
        }
    }

    fn out_of_patience(&mut self, signal: i32) -> bool {
        self.requests += u32::from([nix::libc::SIGINT, nix::libc::SIGTERM].contains(&signal));
        self.requests >= PATIENCE
    }

    async fn next(&mut self) -> Option<i32> {
        match self.early.pop_front() {
            Some(signal) => Some(signal),
            None => self.caught.recv().await,
        }
    }

    async fn until_end(
        &mut self,
        terminal: Option<&Terminal>,
        client: &Client,
        target: &Target,
        waiting: Waiting,
    ) -> Outcome<Result<u8, ClientError>> {
        let mut end = std::pin::pin!(client.finish_wait(waiting));
        self.requests = 0;
        loop {
            let signal = tokio::select! {
                exit = &mut end => {
                    let code = exit.map(|exit| u8::try_from(exit.code).unwrap_or(u8::MAX));
                    return Outcome::Done(code);
                }
                Some(signal) = self.next() => signal,
            };
            if signal == nix::libc::SIGWINCH {
                if let Some(terminal) = terminal {
                    terminal.resize(new_size());
                }
                continue;
            }
            // A process that has just ended cannot be signalled; `end` says so.
            let _ = target.kill(client, signal).await;
            let impatient = self.out_of_patience(signal);
            // Our own terminal is gone: nobody can see or type any more.
            let hung_up = signal == nix::libc::SIGHUP && terminal.is_some();
            if impatient || hung_up {
                return Outcome::Interrupted(shell_code(signal));
            }
        }
    }
}

fn shell_code(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}
