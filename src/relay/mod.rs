//! The data plane, in a process of its own: everything that reads bytes chosen by a container or a
//! remote peer.
//!
//! Started by the helper as `mossnet relay` inside the user namespace and the host netns, with
//! descriptor 3 the control socket and 4 the router netns. Map, as packets pass: [`worker`]
//! ([`event_loop`], [`busy_poll`]) → [`gate`] ([`wire`], [`rules`], [`host_loopback`]) → [`pending`], [`tcp`] | [`udp`] | [`icmp`]
//! ([`exit`], [`endpoints`], [`offender`]); streams go on from [`tcp`] to [`bulk`]; the other way, [`publish`] → [`tcp`]; beside them [`dns`]. Set-up: [`router_side`], [`sandbox`],
//! [`seccomp`], [`socket_pool`], [`budget`]; then [`control`].
//!
//! Invariant: no byte from outside is read before the process has locked itself in.

pub mod budget;
pub mod bulk;
pub mod busy_poll;
pub mod control;
pub mod dns;
pub mod endpoints;
pub mod event_loop;
pub mod exit;
pub mod flows;
pub mod gate;
pub mod host_loopback;
pub mod icmp;
pub mod offender;
pub mod pending;
pub mod publish;
pub mod router_side;
pub mod rules;
pub mod rush;
pub mod sandbox;
pub mod seccomp;
pub mod slots;
pub mod socket_pool;
pub mod tcp;
pub mod ticks;
pub mod udp;
pub mod worker;

pub use crate::wire;

use crate::error::one_line;
use crate::sys;
use budget::FdBudget;
use bulk::BulkWorkers;
use busy_poll::WindowError;
use control::Control;
use endpoints::Endpoints;
use flows::Limits as UdpLimits;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pending::{Pending, limit_for};
use publish::conversations::Conversations;
use router_side::{RouterSide, RouterSideError};
use rules::SharedRules;
use rush::Rushes;
use sandbox::SandboxError;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use tcp::framed::wanted::{self, FramedError};
use worker::{Shared, Worker};

/// Where the helper leaves the control socket.
const CONTROL: i32 = 3;
/// Where it leaves the router netns.
const ROUTER_NETNS: i32 = 4;

/// Beyond four workers the kernel's side of a flow is the bottleneck.
const MAX_WORKERS: usize = 4;
/// Open files for which there is room from the start, in 128 KiB of the kernel's: no flow waits for it.
const OPEN_FILES: u64 = 16_384;

/// Why the relay does not run.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Started by something else than the helper.
    #[error("descriptor {number} must be the {what}; the relay is started by the mossnet helper")]
    Inherited {
        /// Its number.
        number: i32,
        /// What it should be.
        what: &'static str,
        /// Why it is not.
        source: io::Error,
    },
    /// Descriptor limit.
    #[error("raise the limit of open files")]
    Limit(#[source] io::Error),
    /// What the environment says of waiting.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// What the environment says of framed flows.
    #[error(transparent)]
    Framed(#[from] FramedError),
    /// Sockets of the router netns.
    #[error(transparent)]
    RouterSide(#[from] RouterSideError),
    /// It could not lock itself in.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A worker or the name server could not be started.
    #[error("start {what}")]
    Start {
        /// Which.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The helper cannot be talked to.
    #[error("talk to the helper")]
    Control(#[source] io::Error),
}

/// Runs the relay until the helper ends.
pub fn run() -> ExitCode {
    crate::log::init();
    let netns = match inherited() {
        Ok(inherited) => inherited,
        Err(error) => {
            tracing::error!(error = one_line(&error), "relay not started");
            return ExitCode::FAILURE;
        }
    };
    let (control, netns) = netns;
    let rules = Arc::new(SharedRules::default());
    let endpoints = Arc::new(Endpoints::default());
    let line = control.duplicate().map_err(RelayError::Control);
    let known = (&rules, &endpoints);
    let started = line.and_then(|line| start(netns, known, line));
    let result = started.and_then(|budget| {
        control.say("ready").map_err(RelayError::Control)?;
        tracing::info!("relay ready");
        let served = control.serve(&rules, &budget, &endpoints);
        served.map_err(RelayError::Control)
    });
    match result {
        Ok(()) => {
            tracing::info!("helper gone, relay ends");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let error = one_line(&error);
            tracing::error!(error, "relay ends");
            // The helper may be the reason.
            let _ = control.say(&error);
            ExitCode::FAILURE
        }
    }
}

/// The two descriptors from the helper; all others are closed.
fn inherited() -> Result<(Control, OwnedFd), RelayError> {
    let take = |number, what| {
        sys::inherited::take(number).map_err(|source| RelayError::Inherited {
            number,
            what,
            source,
        })
    };
    let control = take(CONTROL, "control socket")?;
    let netns = take(ROUTER_NETNS, "router netns")?;
    // Fails before Linux 5.9 only; the helper marks its own descriptors close-on-exec.
    let _ = sys::inherited::close_from(ROUTER_NETNS + 1);
    let control = Control::new(control).map_err(|source| RelayError::Inherited {
        number: CONTROL,
        what: "control socket",
        source,
    })?;
    Ok((control, netns))
}

/// What the helper tells.
type Known<'a> = (&'a Arc<SharedRules>, &'a Arc<Endpoints>);

/// Sets everything up, locks the process in, and lets the workers go.
fn start(netns: OwnedFd, known: Known<'_>, line: OwnedFd) -> Result<Arc<FdBudget>, RelayError> {
    let window = busy_poll::window()?;
    let framed = wanted::wanted()?;
    let nofile = raise_descriptor_limit().map_err(RelayError::Limit)?;
    // A worker that panics has left its flows in an unknown state: end the process, and let the
    // helper start another.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "relay panicked");
        std::process::abort();
    }));
    // The process has one thread: what follows counts for all that come.
    sandbox::empty_root()?;
    sandbox::no_new_privileges()?;
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_WORKERS);
    let side = router_side::start(netns, workers, framed)?;
    // Workers get what this thread has when it starts them.
    if side.framed {
        sandbox::keep_net_admin_only()?;
    } else {
        sandbox::drop_capabilities()?;
    }
    // Each worker has a bulk worker beside it.
    let locked_in = Arc::new(Barrier::new(2 * workers + 1));
    let budget = Arc::new(FdBudget::new(nofile));
    let rushes = Arc::new(Rushes::new(Some(line), Instant::now()));
    start_threads(side, known, (&budget, rushes, window), &locked_in)?;
    seccomp::install()?;
    locked_in.wait();
    Ok(budget)
}

/// Starts the workers, and then, when this thread has no capability any more, bulk workers and the name server.
fn start_threads(
    side: RouterSide,
    (rules, endpoints): Known<'_>,
    (budget, rushes, busy_poll): (&Arc<FdBudget>, Arc<Rushes>, Duration),
    locked_in: &Arc<Barrier>,
) -> Result<(), RelayError> {
    let start = |what| move |source| RelayError::Start { what, source };
    let bulk = BulkWorkers::new(side.workers.len()).map_err(start(BULK_WORKER))?;
    let udp_flows = (budget.limit() / side.workers.len().max(1) / 2).max(64);
    let shared = Shared {
        rules: Arc::clone(rules),
        pending: Arc::new(Pending::new(limit_for(budget.limit()))),
        budget: Arc::clone(budget),
        pool: side.pool,
        udp: UdpLimits {
            per_client: udp_flows / 2,
            total: udp_flows,
        },
        macs: side.macs,
        conversations: Conversations::default(),
        connections: Conversations::default(),
        rushes,
        endpoints: Arc::clone(endpoints),
        bulk,
        workers: side.workers.len(),
        busy_poll,
    };
    for (number, sockets) in side.workers.into_iter().enumerate() {
        let worker = Worker::new(number, sockets, &shared).map_err(start(WORKER))?;
        let started = start_worker(format!("worker-{number}"), locked_in, || worker.run());
        started.map_err(start(WORKER))?;
    }
    sandbox::drop_capabilities()?;
    let bulk = shared.bulk.workers(&shared).map_err(start(BULK_WORKER))?;
    for (number, worker) in bulk.into_iter().enumerate() {
        let started = start_worker(format!("bulk-{number}"), locked_in, || worker.run());
        started.map_err(start(BULK_WORKER))?;
    }
    dns::spawn(side.dns, Arc::clone(rules)).map_err(start("the name server"))?;
    Ok(())
}

const WORKER: &str = "a worker";
const BULK_WORKER: &str = "a bulk worker";

/// A thread that lets `work` go when the process is locked in. It never should return.
fn start_worker(
    name: String,
    locked_in: &Arc<Barrier>,
    work: impl FnOnce() -> io::Error + Send + 'static,
) -> io::Result<()> {
    let locked_in = Arc::clone(locked_in);
    let run = move || {
        busy_poll::sleep_no_longer_than_asked();
        locked_in.wait();
        let error = work();
        tracing::error!(%error, "worker ended");
        std::process::abort();
    };
    let thread = std::thread::Builder::new().name(name);
    thread.spawn(run).map(drop)
}

/// Raises the soft limit to the hard one, and tells it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    // Not to be had where /dev/null is not: then a thousand ports or flows come a little later.
    let _ = sys::open_files::make_room(OPEN_FILES);
    Ok(hard)
}
