//! How a worker waits: while events follow each other closely, it looks for the next one for a moment before it
//! sleeps.
//!
//! On the path: [`worker`](super::worker) → **here** → [`event_loop`](super::event_loop).
//!
//! Whoever sleeps must be woken, and waking an idle processor takes tens of microseconds, in a virtual machine even
//! more: several times what relaying a small message costs. And whoever sleeps and wakes for each message has its
//! processor to itself for no more than that one, so that sender, relay and receiver change places all the time.
//! Here the worker gives its processor to whoever else wants it (sched_yield(2)), asks epoll without waiting, and
//! does so again for at most [`DEFAULT_WINDOW`].
//!
//! It spends processor time only where that is nobody else's, and is made up for:
//!
//! * Looking begins when several waits in a row were shorter than the window, and ends with the first that are longer. A peer
//!   further away than the window (most of any network), or a pair of messages now and then, is slept for.
//! * What comes in mass (bulk transfers, datagrams faster than they are read) is slept for: while the worker
//!   sleeps more of it gathers, to be moved at once.
//! * Small datagrams of which a call brings several, but not many, are slept for in any case, for [`GATHERING`], unless a TCP
//!   flow had something to do besides. Each costs a call and a packet on the other side, which many share when they were
//!   read at once; and whoever sends or receives them has the processor meanwhile. Network cards do the same with their
//!   interrupts.
//! * Where the processor does not come back from others within [`LOST`], the machine has other work. Then nothing is
//!   gained: no processor is idle, and since Linux 6.18 a yield gives up the whole rest of a time slice. So there is no looking
//!   for [`PAUSE`].
//!
//! The same trade is KVM's halt polling (kernel: virt/kvm/halt-polling), on by default for the same reason.
//! `MOSSNET_BUSY_POLL` sets the window, in microseconds; 0 switches it off.

use super::event_loop::{Batch, Poller};
use super::tcp::Moved;
use crate::sys::udp::Came;
use nix::sys::prctl;
use std::io;
use std::time::{Duration, Instant};

/// Sets the window, in microseconds.
const VARIABLE: &str = "MOSSNET_BUSY_POLL";

/// How long a worker looks for events before it sleeps. Measured (`benches/peers`, `--rows requests,connections`):
/// 20 µs were too few to meet the answer of a server on the same machine, 200 gained nothing more.
pub const DEFAULT_WINDOW: Duration = Duration::from_micros(100);

/// The longest window, µs: looking in vain must stay cheaper than anybody notices.
const MOST: u64 = 1000;

/// Whoever gets the processor at a yield, and is a peer of ours, has given it back by then.
const LOST: Duration = Duration::from_millis(1);

/// How long others are left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// How long datagrams gather. Measured (`benches/peers`, `--rows udp`): 25 µs brought the most of 10, 25, 50 and 80.
const GATHERING: Duration = Duration::from_micros(25);

/// Short waits before looking begins.
const CREDIT_NEEDED: u8 = 4;
/// No more are remembered, so that looking ends soon.
const CREDIT_MOST: u8 = 16;

/// The variable holds something else than a number of microseconds.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE}='{0}' must be a number of microseconds from 0 (off) to {MOST}")]
pub struct WindowError(String);

/// The window that the environment asks for.
pub fn window() -> Result<Duration, WindowError> {
    match std::env::var_os(VARIABLE) {
        Some(value) => parse(&value.to_string_lossy()),
        None => Ok(DEFAULT_WINDOW),
    }
}

fn parse(value: &str) -> Result<Duration, WindowError> {
    match value.parse() {
        Ok(microseconds @ 0..=MOST) => Ok(Duration::from_micros(microseconds)),
        Ok(_) | Err(_) => Err(WindowError(value.to_owned())),
    }
}

/// What one worker knows of its waits.
#[derive(Debug)]
pub struct BusyPoll {
    window: Duration,
    /// Grows by one with a wait shorter than the window; a longer one halves it.
    credit: u8,
    /// Others want the processor.
    paused_until: Option<Instant>,
    /// More of what came is worth waiting for.
    gathers: bool,
}

impl BusyPoll {
    /// Looks for at most `window`; never, where that is zero.
    pub fn new(window: Duration) -> Self {
        Self {
            window,
            credit: 0,
            paused_until: None,
            gathers: false,
        }
    }

    /// Waits for events, asleep at most for `patience`.
    pub fn wait(
        &mut self,
        poller: &Poller,
        batch: &mut Batch,
        patience: Duration,
    ) -> io::Result<()> {
        if std::mem::take(&mut self.gathers) && !patience.is_zero() {
            std::thread::sleep(GATHERING);
        }
        if patience.is_zero() || self.window.is_zero() {
            return poller.wait(batch, Some(patience));
        }
        let begin = Instant::now();
        if !self.looks(begin) || !self.look(poller, batch, begin)? {
            poller.wait(batch, Some(patience))?;
        }
        self.waited(begin.elapsed());
        Ok(())
    }

    /// Looks for events without sleeping. `false` where there is none.
    fn look(&mut self, poller: &Poller, batch: &mut Batch, begin: Instant) -> io::Result<bool> {
        let mut last = begin;
        loop {
            // First of all: a peer that was woken by what we just did has something for us when it is done.
            std::thread::yield_now();
            let now = Instant::now();
            poller.wait(batch, Some(Duration::ZERO))?;
            if now.saturating_duration_since(last) >= LOST {
                self.lost(now);
            }
            if !batch.is_empty() {
                return Ok(true);
            }
            if !self.looks(now) || now.saturating_duration_since(begin) >= self.window {
                return Ok(false);
            }
            last = Instant::now();
        }
    }

    /// What the last round was about. A bulk transfer, or several datagrams at once, could have waited.
    pub fn brought(&mut self, tcp: Moved, datagrams: Came) {
        if tcp.bulk || datagrams.several {
            self.credit = 0;
        }
        self.gathers = datagrams.several && !datagrams.much && tcp == Moved::default();
    }

    fn looks(&mut self, now: Instant) -> bool {
        self.paused_until = self.paused_until.filter(|until| now < *until);
        self.paused_until.is_none() && self.credit >= CREDIT_NEEDED
    }

    fn lost(&mut self, now: Instant) {
        self.paused_until = Some(now + PAUSE);
    }

    fn waited(&mut self, time: Duration) {
        self.credit = if time < self.window {
            (self.credit + 1).min(CREDIT_MOST)
        } else {
            self.credit / 2
        };
    }
}

/// The kernel lets threads sleep up to 50 µs longer than they ask for, to wake several at once: twice as long again as
/// [`GATHERING`]. Of the calling thread; before it is locked in.
pub fn sleep_no_longer_than_asked() {
    // Then it sleeps longer.
    let _ = prctl::set_timerslack(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::event_loop::{Interest, Key, Owner, Token};
    use nix::sys::eventfd::EventFd;
    use std::os::fd::AsFd as _;

    const SHORT: Duration = Duration::from_micros(30);
    const LONG: Duration = Duration::from_micros(300);

    const IDLE: Moved = Moved {
        bulk: false,
        small: false,
    };
    const SMALL: Moved = Moved {
        small: true,
        ..IDLE
    };
    const BULK: Moved = Moved { bulk: true, ..IDLE };
    const NONE: Came = Came {
        several: false,
        much: false,
    };
    const FEW: Came = Came {
        several: true,
        ..NONE
    };
    const MANY: Came = Came { much: true, ..FEW };

    fn after(waits: impl IntoIterator<Item = Duration>) -> BusyPoll {
        let mut poll = BusyPoll::new(DEFAULT_WINDOW);
        for wait in waits {
            poll.waited(wait);
        }
        poll
    }

    #[test]
    fn looking_begins_when_waits_are_short_and_ends_when_they_are_not() {
        let now = Instant::now();
        assert!(!after([]).looks(now));
        assert!(!after([SHORT; 3]).looks(now));
        assert!(after([SHORT; 4]).looks(now));
        let mut long_since = after([SHORT; 10_000]);
        long_since.waited(LONG);
        long_since.waited(LONG);
        assert!(long_since.looks(now));
        long_since.waited(LONG);
        assert!(!long_since.looks(now));
    }

    #[test]
    fn a_pair_of_messages_now_and_then_is_slept_for() {
        let pairs = [SHORT, LONG].into_iter().cycle().take(10_000);
        assert!(!after(pairs).looks(Instant::now()));
    }

    #[test]
    fn what_comes_in_mass_is_slept_for() {
        let now = Instant::now();
        for (tcp, came) in [(BULK, NONE), (IDLE, FEW), (IDLE, MANY), (SMALL, FEW)] {
            let mut poll = after([SHORT; 16]);
            poll.brought(tcp, came);
            assert!(!poll.looks(now));
            poll.waited(SHORT);
            assert!(!poll.looks(now));
        }
        let mut poll = after([SHORT; 16]);
        poll.brought(SMALL, NONE);
        assert!(poll.looks(now));
    }

    #[test]
    fn a_few_datagrams_wait_for_more_where_nobody_else_waits() {
        let gathers = |tcp, came| {
            let mut poll = after([]);
            poll.brought(tcp, came);
            poll.gathers
        };
        assert!(gathers(IDLE, FEW));
        for (tcp, came) in [(IDLE, NONE), (IDLE, MANY), (SMALL, FEW), (BULK, FEW)] {
            assert!(!gathers(tcp, came), "{tcp:?} {came:?}");
        }
    }

    #[test]
    fn gathering_lasts_once_and_not_where_work_is_left() {
        let poller = Poller::new().unwrap();
        let event = EventFd::new().unwrap();
        let token = Token::new(Owner::Wake, Key::fixed(0));
        poller.add(event.as_fd(), token, Interest::READ).unwrap();
        event.write(1).unwrap();
        let mut batch = Batch::with_capacity(4);
        let mut poll = after([]);
        for patience in [Duration::from_secs(60), Duration::ZERO] {
            poll.brought(IDLE, FEW);
            let begin = Instant::now();
            poll.wait(&poller, &mut batch, patience).unwrap();
            assert_eq!(batch.iter().count(), 1);
            assert!(patience.is_zero() || begin.elapsed() >= GATHERING);
            assert!(!poll.gathers);
        }
    }

    #[test]
    fn who_loses_the_processor_leaves_it_to_others_for_a_while() {
        let now = Instant::now();
        let mut poll = after([SHORT; 16]);
        poll.lost(now);
        assert!(!poll.looks(now));
        assert!(!poll.looks(now + PAUSE / 2));
        assert!(poll.looks(now + PAUSE));
    }

    #[test]
    fn it_sleeps_for_what_does_not_come_and_finds_what_does() {
        let poller = Poller::new().unwrap();
        let event = EventFd::new().unwrap();
        let token = Token::new(Owner::Wake, Key::fixed(0));
        poller.add(event.as_fd(), token, Interest::READ).unwrap();
        let mut batch = Batch::with_capacity(4);
        let mut poll = after([SHORT; 16]);
        let patience = Duration::from_millis(5);
        let begin = Instant::now();
        poll.wait(&poller, &mut batch, patience).unwrap();
        assert!(batch.is_empty());
        assert!(begin.elapsed() >= patience);
        assert_eq!(poll.credit, 8);
        event.write(1).unwrap();
        poll.wait(&poller, &mut batch, Duration::from_secs(60))
            .unwrap();
        assert_eq!(batch.iter().count(), 1);
    }

    #[test]
    fn without_a_window_it_only_sleeps() {
        let poller = Poller::new().unwrap();
        let mut batch = Batch::with_capacity(4);
        let mut poll = BusyPoll::new(Duration::ZERO);
        for _ in 0..10 {
            poll.waited(Duration::ZERO);
            let patience = Duration::from_millis(1);
            poll.wait(&poller, &mut batch, patience).unwrap();
        }
        assert!(!poll.looks(Instant::now()));
    }

    #[test]
    fn windows_are_microseconds_up_to_a_thousand() {
        assert_eq!(parse("0").unwrap(), Duration::ZERO);
        assert_eq!(parse("1000").unwrap(), Duration::from_millis(1));
        for wrong in ["", "1001", "-1", "50us", "1.5"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("'{wrong}'")), "{error}");
        }
    }
}
