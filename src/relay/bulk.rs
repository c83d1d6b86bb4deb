//! Bulk workers: threads for bulk flows, so that small ones do not wait behind them.
//!
//! On the path: a worker whose bulk flow has had a number of turns ([`moving`](super::tcp::moving)) → inbox → **here**,
//! as long as the flow lasts.
//!
//! A worker that moves a stream is always busy. A message of another flow of its waits until the turn is over, and since
//! the scheduler gives a thread that works all the time no precedence when it has something small to do, until
//! others had theirs. With a thread of its own for the stream, the worker sleeps, and is woken at once.
//!
//! Invariant: a flow is in one thread's hands. It leaves a worker's epoll set before it goes into an inbox, and has no
//! event that is told once only: whoever adds it to a set is told anew.

use super::busy_poll::BusyPoll;
use super::event_loop::{Batch, Interest, Key, Owner, Poller, Token, event};
use super::gate::GateSender;
use super::rules::RulesReader;
use super::tcp::Tcp;
use super::tcp::flow::Flow;
use super::ticks::Ticks;
use super::worker::{BATCH, Context, Shared};
use crate::sys::udp::Came;
use nix::sys::eventfd::EventFd;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Counts a flow among those of its bulk worker, as long as it lives.
#[derive(Debug)]
pub struct Stay(Arc<Inbox>);

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A flow on its way to a bulk worker.
#[derive(Debug)]
pub struct Moved {
    /// In no epoll set.
    pub flow: Flow,
    /// To be dropped with it.
    pub stay: Arc<Stay>,
}

#[derive(Debug)]
struct Inbox {
    flows: Mutex<Vec<Moved>>,
    /// Flows of this bulk worker, those in its inbox included.
    load: AtomicUsize,
    /// Readable when there is something in the inbox, or there are new rules.
    wake: Arc<EventFd>,
}

/// All bulk workers, as those see them who give flows away.
#[derive(Debug, Clone, Default)]
pub struct BulkWorkers(Arc<[Arc<Inbox>]>);

impl BulkWorkers {
    /// For `count` of them.
    pub fn new(count: usize) -> io::Result<Self> {
        let inbox = |_| {
            Ok(Arc::new(Inbox {
                flows: Mutex::default(),
                load: AtomicUsize::new(0),
                wake: event()?,
            }))
        };
        (0..count).map(inbox).collect::<io::Result<_>>().map(Self)
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many flows each has.
    #[cfg(test)]
    pub fn loads(&self) -> Vec<usize> {
        let load = |inbox: &Arc<Inbox>| inbox.load.load(Ordering::Relaxed);
        self.0.iter().map(load).collect()
    }

    /// Makes them. Once.
    pub fn workers(&self, shared: &Shared) -> io::Result<Vec<BulkWorker>> {
        let inboxes = self.0.iter().map(Arc::clone);
        inboxes
            .map(|inbox| BulkWorker::new(inbox, shared))
            .collect()
    }

    /// Gives a flow to the one that has the fewest. What it returns lives as long as the flow does. The flow comes back
    /// where there is none.
    #[expect(
        clippy::result_large_err,
        reason = "of no consequence: it is one of two ways on"
    )]
    pub fn give(&self, flow: Flow) -> Result<Arc<Stay>, Flow> {
        let load = |inbox: &&Arc<Inbox>| inbox.load.load(Ordering::Relaxed);
        let Some(inbox) = self.0.iter().min_by_key(load) else {
            return Err(flow);
        };
        inbox.load.fetch_add(1, Ordering::Relaxed);
        let stay = Arc::new(Stay(Arc::clone(inbox)));
        let moved = Moved {
            flow,
            stay: Arc::clone(&stay),
        };
        inbox
            .flows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(moved);
        // Fails only where it is readable already.
        let _ = inbox.wake.write(1);
        Ok(stay)
    }
}

/// One of them, not yet running.
pub struct BulkWorker {
    inbox: Arc<Inbox>,
    poller: Poller,
    busy_poll: BusyPoll,
    rules: RulesReader,
    shared: Shared,
    /// It has no gate.
    sender: GateSender,
    tcp: Tcp,
}

impl BulkWorker {
    fn new(inbox: Arc<Inbox>, shared: &Shared) -> io::Result<Self> {
        let poller = Poller::new()?;
        let token = Token::new(Owner::Wake, Key::fixed(0));
        poller.add(inbox.wake.as_fd(), token, Interest::READ)?;
        shared.rules.wake(Arc::clone(&inbox.wake));
        let tcp = Tcp::new([None, None], Arc::clone(&shared.pending), &poller)?;
        Ok(Self {
            inbox,
            poller,
            busy_poll: BusyPoll::new(shared.busy_poll),
            rules: RulesReader::new(Arc::clone(&shared.rules)),
            shared: shared.clone(),
            sender: GateSender::nowhere(),
            tcp,
        })
    }

    /// Serves until epoll fails, which it never should.
    pub fn run(mut self) -> io::Error {
        let mut batch = Batch::with_capacity(BATCH);
        let mut ticks = Ticks::from(Instant::now());
        loop {
            let now = Instant::now();
            let patience = ticks.wait(now, self.tcp.patience(now));
            if let Err(error) = self.busy_poll.wait(&self.poller, &mut batch, patience) {
                return error;
            }
            let now = Instant::now();
            for (token, readiness) in batch.iter() {
                ticks.event(now);
                match token.owner {
                    Owner::Wake => self.woken(now),
                    _ => self.with(now, |tcp, cx| tcp.ready(token, readiness, cx)),
                }
            }
            self.with(now, |tcp, cx| tcp.resume(batch.is_empty(), cx));
            self.busy_poll.brought(self.tcp.moved(now), Came::default());
            if ticks.is_due(now) {
                self.with(now, Tcp::tick);
            }
        }
    }

    fn woken(&mut self, now: Instant) {
        // Reset before rules and inbox are looked at, so that nothing is slept through.
        let _ = self.inbox.wake.read();
        if self.rules.refresh() {
            self.with(now, Tcp::recheck);
        }
        let mut flows = (self.inbox.flows.lock()).unwrap_or_else(PoisonError::into_inner);
        let came = std::mem::take(&mut *flows);
        drop(flows);
        for moved in came {
            self.with(now, |tcp, cx| tcp.take_in(moved, cx));
        }
    }

    fn with(&mut self, now: Instant, act: impl FnOnce(&mut Tcp, &mut Context<'_>)) {
        let (rules, sender) = (self.rules.get(), &mut self.sender);
        let mut cx = self.shared.context(&self.poller, rules, sender, now);
        act(&mut self.tcp, &mut cx);
    }
}
