//! pasta's place: a network namespace of another runtime's gets a way out, through a router and a relay of
//! its own.
//!
//! Called by the name `pasta`, or as `mossnet pasta`; podman and rootlesskit do. No daemon takes part: one
//! process, which nobody ends but whoever it serves, holds what the helper holds for everybody else. Map:
//! `getopt` → `options` (`known`; [`spec`]: ports) → `host` (what the namespace is to look like) → `plan` → `place`
//! (namespaces) → `serve` (the instance: the helper's router with one direct endpoint, the relay);
//! `publishes` and `listening` (ports into the namespace), `outward` and `carry` (ports out of it); `recorder` (`--pcap`).
//!
//! The way of a packet is the relay's: a veth pair to a router netns, no tap device, no stack of our own.

mod carry;
mod getopt;
mod host;
mod known;
mod listening;
mod options;
mod outward;
mod place;
mod plan;
mod publishes;
mod recorder;
mod serve;
pub mod spec;

use crate::error::one_line;
use crate::ports::{Port, Proto};
use mossnet_helper::MacAddr;
use mossnet_helper::request::Failure;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use options::{Options, Target, Wanted};
use serve::{Before, Instance};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// Says what a process of ours is for.
const ROLE: &str = "MOSSNET_PASTA";
/// The one that stays when its parent has gone.
const BEHIND: &str = "behind";
/// What it says to its parent when all is set up.
const READY: &str = "ready\n";

/// Why nothing is served, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum PastaError {
    /// The words.
    #[error(transparent)]
    Options(#[from] options::OptionError),
    /// What they mean together.
    #[error(transparent)]
    Plan(#[from] plan::PlanError),
    /// The namespaces.
    #[error(transparent)]
    Place(#[from] place::PlaceError),
    /// Ports of the host.
    #[error(transparent)]
    Publish(#[from] publishes::PublishError),
    /// The kernel.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// A port in the namespace.
    #[error("{proto} port {port} of the namespace's loopback is in use")]
    Inside {
        /// Protocol.
        proto: Proto,
        /// Port.
        port: Port,
    },
    /// A file.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What failed.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A child of ours.
    #[error("{0} ended")]
    Ended(&'static str),
    /// Talking to it.
    #[error("ports of the host: {0}")]
    Outward(#[source] io::Error),
    /// Signals.
    #[error("listen for signals: {0}")]
    Signals(#[source] io::Error),
    /// The process itself.
    #[error("{what}: {source}")]
    Process {
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn process(what: &'static str) -> impl Fn(io::Error) -> PastaError {
    move |source| PastaError::Process { what, source }
}

/// Reads arguments, acts.
pub fn main(words: Vec<OsString>) -> ExitCode {
    let role = std::env::var(ROLE).unwrap_or_default();
    match role.as_str() {
        outward::WORD => return outward::main(),
        recorder::WORD => return recorder::main(),
        _ => {}
    }
    let behind = role == BEHIND;
    match options::read(words.clone()) {
        Ok(Wanted::Help) => {
            print!("{}", include_str!("help.txt"));
            ExitCode::SUCCESS
        }
        Ok(Wanted::Version) => {
            println!("pasta (mossnet) {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(Wanted::Run(options)) if behind || stays(&options) => run(&options, behind),
        Ok(Wanted::Run(_)) => leave_behind(words),
        Err(error) => {
            if let options::OptionError::Misuse(misuse) = &error {
                eprintln!("pasta: {misuse}");
            } else {
                eprintln!("pasta (mossnet): {error}");
            }
            eprintln!(
                "Usage: pasta [OPTION]... [COMMAND [ARG]... | PID | --netns PATH]; see pasta --help"
            );
            ExitCode::FAILURE
        }
    }
}

fn stays(options: &Options) -> bool {
    options.foreground || matches!(options.target, Target::Command(_))
}

/// Has a process of its own serve, and returns when that is ready or has failed.
fn leave_behind(words: Vec<OsString>) -> ExitCode {
    let child = Command::new("/proc/self/exe")
        .arg0("pasta")
        .args(words)
        .env(ROLE, BEHIND)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut said = String::new();
    let heard = child.and_then(|mut child| {
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_string(&mut said)?;
        }
        match said.as_str() {
            READY => Ok(ExitCode::SUCCESS),
            // It has said why.
            _ => child.wait().map(|_| ExitCode::FAILURE),
        }
    });
    heard.unwrap_or_else(|error| report(&process("start")(error), None))
}

fn report(error: &PastaError, voice: Option<&OwnedFd>) -> ExitCode {
    let line = format!("pasta (mossnet): {}\n", one_line(error));
    match voice.and_then(|voice| voice.try_clone().ok()) {
        Some(voice) => {
            let _ = File::from(voice).write_all(line.as_bytes());
        }
        None => eprint!("{line}"),
    }
    ExitCode::FAILURE
}

/// Serves, from start to end.
fn run(options: &Options, behind: bool) -> ExitCode {
    // Logs of ours and our children do not belong to the caller, who may wait for the end of this stream.
    let voice = match io::stderr().as_fd().try_clone_to_owned() {
        Ok(voice) => voice,
        Err(error) => return report(&process("keep standard error")(error), None),
    };
    let made = make(options);
    let (instance, ready) = match made {
        Ok(made) => made,
        Err(error) => return report(&error, Some(&voice)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return report(&process("start")(error), Some(&voice)),
    };
    let mut instance = instance;
    if let Err(error) = ready.write() {
        return report(&error, Some(&voice));
    }
    // Whoever waits for the end of standard error has it now.
    let voice = (!behind).then_some(voice);
    let begun = match behind {
        true => detach().map_err(process("go into the background")),
        false => instance.go().map_err(PastaError::from),
    };
    let served = begun.and_then(|()| runtime.block_on(instance.serve()));
    served.map_or_else(|error| report(&error, voice.as_ref()), ExitCode::from)
}

/// Sets everything up.
fn make(options: &Options) -> Result<(Instance, Ready), PastaError> {
    raise_descriptor_limit();
    let pid_file = match &options.pid_file {
        Some(path) => Some((path.clone(), create(path)?)),
        None => None,
    };
    let log = match &options.log_file {
        Some(path) => Some(append(path)?),
        None => None,
    };
    let [exit4, exit6] = &options.outbound_interface;
    let like = options
        .interface
        .as_ref()
        .or(exit4.as_ref())
        .or(exit6.as_ref());
    let host = host::look(like.map(String::as_str))?;
    let plan = plan::plan(options, &host, random_mac()?)?;
    host::check_exits(&plan.snapshot.exits)?;
    let capture = match &options.capture_file {
        Some(path) => Some(create(path)?),
        None => None,
    };
    let found = place::find(options)?;
    let listening = listening::Listening::here();
    let before = Before {
        publishes: publishes::Publishes::bind(&options.inward)?,
        host: listening.map_err(|e| Failure::kernel("read who listens on the host", e))?,
        capture,
    };
    let place = place::enter(found)?;
    keep_powers_over_exec();
    quieten(options, log).map_err(process("redirect standard error"))?;
    let instance = Instance::make(options, &plan, place, before, ROLE)?;
    // Whoever is root in a user namespace that we have joined is not to look into this process.
    let closed = nix::sys::prctl::set_dumpable(false);
    closed.map_err(|errno| process("close the process to inspection")(errno.into()))?;
    Ok((instance, Ready { pid_file }))
}

/// What is to be told when all is set up.
struct Ready {
    pid_file: Option<(PathBuf, File)>,
}

impl Ready {
    fn write(self) -> Result<(), PastaError> {
        let Some((path, mut file)) = self.pid_file else {
            return Ok(());
        };
        let written = writeln!(file, "{}", std::process::id());
        written.map_err(|source| PastaError::File {
            what: "write",
            path,
            source,
        })
    }
}

/// Leaves the caller's session, directory and streams.
fn detach() -> io::Result<()> {
    let _ = setsid();
    let _ = std::env::set_current_dir("/");
    let mut stdout = io::stdout().lock();
    stdout.write_all(READY.as_bytes())?;
    stdout.flush()?;
    let null = null()?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(())
}

fn null() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}

/// From here on standard error is for logs.
fn quieten(options: &Options, log: Option<File>) -> io::Result<()> {
    match log {
        Some(log) => dup2_stderr(&log)?,
        None if options.debug && stays(options) => {}
        None => dup2_stderr(&null()?)?,
    }
    Ok(())
}

fn create(path: &PathBuf) -> Result<File, PastaError> {
    let mut how = OpenOptions::new();
    how.write(true).create(true).truncate(true).mode(0o600);
    how.open(path).map_err(|source| PastaError::File {
        what: "open",
        path: path.clone(),
        source,
    })
}

fn append(path: &PathBuf) -> Result<File, PastaError> {
    let mut how = OpenOptions::new();
    how.append(true).create(true).mode(0o600);
    how.open(path).map_err(|source| PastaError::File {
        what: "open",
        path: path.clone(),
        source,
    })
}

/// Many ports are many descriptors; what is refused shows where they run out.
fn raise_descriptor_limit() {
    mossnet_helper::limits::raise();
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// In a user namespace where we are not root, a program of ours would start without what it needs.
fn keep_powers_over_exec() {
    if nix::unistd::geteuid().is_root() {
        return;
    }
    let Ok(held) = caps::read(None, caps::CapSet::Permitted) else {
        return;
    };
    for set in [caps::CapSet::Inheritable, caps::CapSet::Ambient] {
        // Less than everything may do; what does not, says so.
        let _ = caps::set(None, set, &held);
    }
}

/// Locally administered, of one host.
fn random_mac() -> Result<MacAddr, PastaError> {
    let mut octets = [0u8; 6];
    let drawn = rustix::rand::getrandom(&mut octets, rustix::rand::GetRandomFlags::empty());
    drawn.map_err(|errno| process("draw a MAC address")(errno.into()))?;
    octets[0] = (octets[0] & 0xfc) | 2;
    let mac = MacAddr::try_from(octets);
    mac.map_err(|e| Failure::invalid(e.to_string()).into())
}
