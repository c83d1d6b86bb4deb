//! Published ports without the rest of the relay: for a process of its own that serves one container of
//! another runtime.
//!
//! Threads: one in each network namespace that sockets towards the container may be in, which makes them and
//! has CAP_NET_RAW alone, and a worker without any capability, which does everything that [`super`] describes.
//! One worker, since there is such a process for each container, and most of them idle.
//!
//! Invariant: nothing is read before [`Ports::begin`], so that the process can lock itself in.

use super::Publish;
use super::conversations::Conversations;
use super::listener::{Listener, ListenerError};
use super::table::{Listeners, Table};
use crate::network::snapshot::Snapshot;
use crate::relay::budget::FdBudget;
use crate::relay::bulk::BulkWorkers;
use crate::relay::busy_poll::{self, BusyPoll, WindowError};
use crate::relay::event_loop::{Batch, Interest, Key, Owner, Poller, Readiness, Token, event};
use crate::relay::flows::Limits;
use crate::relay::gate::{GateSender, UplinkMacs};
use crate::relay::pending::{Pending, limit_for};
use crate::relay::rules::{Rules, RulesReader, SharedRules};
use crate::relay::rush::Rushes;
use crate::relay::sandbox::{self, SandboxError};
use crate::relay::socket_pool::SocketPool;
use crate::relay::tcp::Tcp;
use crate::relay::ticks::Ticks;
use crate::relay::worker::{BATCH, Context, Shared};
use nix::sched::{CloneFlags, setns};
use nix::sys::eventfd::EventFd;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Why there are no ports.
#[derive(Debug, thiserror::Error)]
pub enum AloneError {
    /// One of the sockets is none.
    #[error("take up a published port's socket")]
    Listener(#[from] ListenerError),
    /// More sockets than open files.
    #[error("no room for {0} published ports: the limit of open files (ulimit -Hn) is reached")]
    NoRoom(usize),
    /// What the environment says of waiting.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// setns(2).
    #[error("enter the network namespace of the container's network")]
    Enter(#[source] io::Error),
    /// A thread could not give up its capabilities.
    #[error("restrict a thread")]
    Restrict(#[source] SandboxError),
    /// A thread, or what it waits with.
    #[error("start {what}")]
    Start {
        /// Which.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Network namespaces for sockets towards a container.
#[derive(Debug)]
pub struct Places {
    /// That of its bridges.
    pub bridges: Option<OwnedFd>,
    /// Its own.
    pub inside: OwnedFd,
}

/// The ports of one container.
pub struct Ports {
    rules: Arc<SharedRules>,
    listeners: Listeners,
    begin: Arc<Barrier>,
}

impl Ports {
    /// Starts the threads. `nofile`: how many files may be open.
    pub fn start(places: Places, sockets: Vec<OwnedFd>, nofile: u64) -> Result<Self, AloneError> {
        let budget = FdBudget::new(nofile);
        let now = Instant::now();
        if !budget.take(sockets.len(), now) {
            return Err(AloneError::NoRoom(sockets.len()));
        }
        let mut listeners = Listeners::new();
        for socket in sockets {
            let listener = Listener::new(socket)?;
            listeners.insert(listener.bound(), Arc::new(listener));
        }
        let rules = Arc::new(SharedRules::default());
        let inside = start_pool(places.inside)?;
        let bridges = places.bridges.map(start_pool).transpose()?;
        let pool = bridges.unwrap_or_else(|| inside.clone());
        let shared = shared(budget, pool, &rules, busy_poll::window()?);
        let start = |what| move |source| AloneError::Start { what, source };
        let worker = Worker::new(&shared, inside, now).map_err(start("a worker"))?;
        let begin = Arc::new(Barrier::new(2));
        let locked_in = Arc::clone(&begin);
        let (sender, restricted) = mpsc::channel();
        let run = move || {
            let done = sandbox::drop_capabilities();
            busy_poll::sleep_no_longer_than_asked();
            if sender.send(done).is_ok() {
                locked_in.wait();
                let _ended = worker.run();
                // Nothing is served any more: whoever waits for this process is to see it.
                std::process::abort();
            }
        };
        let thread = thread::Builder::new().name("worker".to_owned());
        thread.spawn(run).map_err(start("a worker"))?;
        match restricted.recv() {
            Ok(Ok(())) => Ok(Self {
                rules,
                listeners,
                begin,
            }),
            Ok(Err(error)) => Err(AloneError::Restrict(error)),
            Err(_) => Err(start("a worker")(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Lets the worker go. Once.
    pub fn begin(&self) {
        self.begin.wait();
    }

    /// Has the ports lead where the snapshot says. A connection that exists stays; UDP flows begin anew.
    pub fn lead(&self, snapshot: Snapshot) {
        let before = Arc::clone(self.rules.load().publishes());
        let (table, _without_socket) = Table::build(&snapshot, &self.listeners, &before);
        self.rules.replace(Rules::new(snapshot).publishing(table));
    }
}

/// Without gate, name server and bulk workers.
pub(in crate::relay) fn shared(
    budget: FdBudget,
    pool: SocketPool,
    rules: &Arc<SharedRules>,
    busy_poll: Duration,
) -> Shared {
    let udp_flows = (budget.limit() / 2).max(64);
    Shared {
        rules: Arc::clone(rules),
        pending: Arc::new(Pending::new(limit_for(0))),
        budget: Arc::new(budget),
        pool,
        udp: Limits {
            per_client: udp_flows / 2,
            total: udp_flows,
        },
        macs: UplinkMacs {
            up0: [0; 6],
            up1: [0; 6],
        },
        conversations: Conversations::default(),
        connections: Conversations::default(),
        // Nobody is there who could do anything about it.
        rushes: Arc::new(Rushes::new(None, Instant::now())),
        endpoints: Arc::default(),
        bulk: BulkWorkers::default(),
        workers: 1,
        busy_poll,
    }
}

/// Starts the thread that makes sockets, and waits until it has nothing but the capability for that.
fn start_pool(netns: OwnedFd) -> Result<SocketPool, AloneError> {
    let pool = SocketPool::default();
    let served = pool.clone();
    let (sender, restricted) = mpsc::channel();
    let enter = move || {
        setns(&netns, CloneFlags::CLONE_NEWNET).map_err(|errno| AloneError::Enter(errno.into()))?;
        drop(netns);
        sandbox::keep_net_raw_only().map_err(AloneError::Restrict)
    };
    let run = move || {
        let entered = enter();
        let failed = entered.is_err();
        if sender.send(entered).is_ok() && !failed {
            served.serve();
        }
    };
    let start = |source| AloneError::Start {
        what: "the thread that makes sockets",
        source,
    };
    let thread = thread::Builder::new().name("socket-pool".to_owned());
    thread.spawn(run).map_err(start)?;
    let entered = restricted.recv();
    entered.map_err(|_| start(io::ErrorKind::BrokenPipe.into()))??;
    Ok(pool)
}

/// A worker with published ports only.
struct Worker {
    poller: Poller,
    busy_poll: BusyPoll,
    rules: RulesReader,
    sender: GateSender,
    shared: Shared,
    inside: SocketPool,
    tcp: Tcp,
    publish: Publish,
    /// Readable when there are new rules.
    wake: Arc<EventFd>,
}

impl Worker {
    fn new(shared: &Shared, inside: SocketPool, now: Instant) -> io::Result<Self> {
        let poller = Poller::new()?;
        let rules = RulesReader::new(Arc::clone(&shared.rules));
        let wake = event()?;
        let token = Token::new(Owner::Wake, Key::fixed(0));
        poller.add(wake.as_fd(), token, Interest::READ)?;
        shared.rules.wake(Arc::clone(&wake));
        let tcp = Tcp::new([None, None], Arc::clone(&shared.pending), &poller)?;
        Ok(Self {
            poller,
            busy_poll: BusyPoll::new(shared.busy_poll),
            rules,
            sender: GateSender::nowhere(),
            shared: shared.clone(),
            inside,
            tcp,
            publish: Publish::new(0, shared, now),
            wake,
        })
    }

    /// Serves until epoll fails, which it never should.
    fn run(mut self) -> io::Error {
        let mut batch = Batch::with_capacity(BATCH);
        let mut ticks = Ticks::from(Instant::now());
        loop {
            let now = Instant::now();
            let patience = ticks.wait(now, self.tcp.patience(now));
            if let Err(error) = self.busy_poll.wait(&self.poller, &mut batch, patience) {
                return error;
            }
            let now = Instant::now();
            self.rules.refresh();
            self.with(now, |_, publish, cx| publish.follow(cx));
            for (token, readiness) in batch.iter() {
                ticks.event(now);
                self.dispatch(token, readiness, now);
            }
            self.with(now, |tcp, _, cx| tcp.resume(batch.is_empty(), cx));
            self.busy_poll
                .brought(self.tcp.moved(now), self.publish.came());
            if ticks.is_due(now) {
                self.with(now, |tcp, publish, cx| {
                    tcp.tick(cx);
                    publish.tick(cx);
                });
            }
        }
    }

    fn dispatch(&mut self, token: Token, readiness: Readiness, now: Instant) {
        match token.owner {
            Owner::Wake => {
                // Reset before the rules are looked at, so that no change is slept through.
                let _ = self.wake.read();
                self.rules.refresh();
                self.with(now, |_, publish, cx| publish.follow(cx));
            }
            Owner::TcpRouter | Owner::TcpHost => {
                self.with(now, |tcp, _, cx| tcp.ready(token, readiness, cx));
            }
            Owner::PublishListener
            | Owner::PublishConnect
            | Owner::PublishClient
            | Owner::PublishUdp => {
                self.with(now, |tcp, publish, cx| publish.ready(token, tcp, cx));
            }
            Owner::Gate
            | Owner::Tap
            | Owner::TcpFramed
            | Owner::TcpListener
            | Owner::TcpConnect
            | Owner::UdpListener
            | Owner::UdpHost
            | Owner::UdpRouter
            | Owner::IcmpHost => {}
        }
    }

    fn with(&mut self, now: Instant, act: impl FnOnce(&mut Tcp, &mut Publish, &mut Context<'_>)) {
        let (rules, sender) = (self.rules.get(), &mut self.sender);
        let mut cx = Context {
            inside: Some(&self.inside),
            ..self.shared.context(&self.poller, rules, sender, now)
        };
        act(&mut self.tcp, &mut self.publish, &mut cx);
    }
}
