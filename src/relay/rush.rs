//! Rushes: a container sends datagrams faster than a worker reads them. The relay only says so, to the
//! helper, which has a thread of the kernel put them together (`router::rush` there).
//!
//! On the path: what UDP has read of a container, from the listener, a flow's own socket or that of a
//! published port's flow → **here** → the helper's line.
//!
//! What counts is not the rate, which may be high and no trouble, but that reads find their room full: somebody
//! who is in time finds one datagram or two. Since a rush cures that, its end is told by the rate.
//!
//! Invariant: a rush that was said is said to be over, unless the relay ends, which the helper sees.

use socket2::SockRef;
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Messages read at once by who is late.
pub const LATE: usize = 16;
/// As many datagrams read late within [`WINDOW`] are a rush.
const MANY: usize = 2000;
const WINDOW: Duration = Duration::from_millis(100);
/// A rush is over when there were fewer a second than this, so many looks in a row.
const FEW: f64 = 5000.0;
const CALM: u8 = 2;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(900);
/// More containers than could be in a rush.
const MOST: usize = 256;

/// Those of all workers.
#[derive(Debug)]
pub struct Rushes {
    /// To the helper.
    line: Option<OwnedFd>,
    /// How many there are, or may come to be: for most datagrams that is all that is looked at.
    watched: AtomicUsize,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    clients: HashMap<IpAddr, Client>,
    looked: Instant,
}

/// Somebody of whom datagrams were late.
#[derive(Debug)]
struct Client {
    since: Instant,
    /// Datagrams since then.
    count: usize,
    /// The helper was told.
    told: bool,
    /// Looks that found few.
    calm: u8,
}

impl Rushes {
    /// None. `line`: a SOCK_SEQPACKET socket on which the helper listens; without one nobody is watched.
    pub fn new(line: Option<OwnedFd>, now: Instant) -> Self {
        Self {
            line,
            watched: AtomicUsize::new(0),
            table: Mutex::new(Table {
                clients: HashMap::new(),
                looked: now,
            }),
        }
    }

    /// `count` datagrams of a container were read, of which `late` says whether they were late.
    pub fn heard(&self, client: IpAddr, count: usize, late: bool, now: Instant) {
        let nobody = self.watched.load(Ordering::Relaxed) == 0;
        if self.line.is_none() || (nobody && !late) {
            return;
        }
        let mut table = self.table();
        if let Some(known) = table.clients.get_mut(&client) {
            if !known.told && now.saturating_duration_since(known.since) > WINDOW {
                (known.since, known.count) = (now, 0);
            }
            if known.told || late {
                known.count = known.count.saturating_add(count);
            }
            if !known.told && known.count >= MANY {
                known.told = self.say(&format!("rush {client}"));
                (known.since, known.count, known.calm) = (now, 0, 0);
            }
        } else if late && table.clients.len() < MOST {
            let (since, told, calm) = (now, false, 0);
            table.clients.insert(
                client,
                Client {
                    since,
                    count,
                    told,
                    calm,
                },
            );
            self.watched.store(table.clients.len(), Ordering::Relaxed);
        }
    }

    /// Looks whose rush is over. To be called once a second or so, by any worker.
    pub fn tick(&self, now: Instant) {
        if self.watched.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut table = self.table();
        if now.saturating_duration_since(table.looked) < LOOK {
            return;
        }
        table.looked = now;
        table.clients.retain(|client, known| {
            let passed = now.saturating_duration_since(known.since);
            if !known.told {
                return passed <= WINDOW;
            }
            let few = (known.count as f64) < FEW * passed.as_secs_f64();
            known.calm = if few { known.calm + 1 } else { 0 };
            (known.since, known.count) = (now, 0);
            // Where there is no room to say it, the next look does.
            known.calm < CALM || !self.say(&format!("rush over {client}"))
        });
        self.watched.store(table.clients.len(), Ordering::Relaxed);
    }

    fn say(&self, word: &str) -> bool {
        let Some(line) = &self.line else {
            return false;
        };
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let said = SockRef::from(&line.as_fd()).send_with_flags(word.as_bytes(), flags);
        tracing::debug!(word, said = said.is_ok(), "to the helper");
        said.is_ok()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::io::Read as _;

    struct Heard {
        rushes: Rushes,
        helper: OwnedFd,
        now: Instant,
    }

    const SOMEBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    impl Heard {
        fn new() -> Self {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let kind = SockType::SeqPacket;
            let (helper, line) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
            let now = Instant::now();
            let rushes = Rushes::new(Some(line), now);
            Self {
                rushes,
                helper,
                now,
            }
        }

        fn words(&self) -> Vec<String> {
            let mut words = Vec::new();
            let mut buffer = [0; 64];
            while let Ok(length) = (&*SockRef::from(&self.helper)).read(&mut buffer) {
                words.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
            words
        }

        /// So many batches of 32, each 1 ms after the one before.
        fn batches(&mut self, number: usize, late: bool) {
            for _ in 0..number {
                self.now += Duration::from_millis(1);
                self.rushes.heard(SOMEBODY, 32, late, self.now);
            }
        }

        fn second(&mut self) {
            self.now += Duration::from_secs(1);
            self.rushes.tick(self.now);
        }
    }

    #[test]
    fn a_rush_is_said_once_and_its_end_too() {
        let mut heard = Heard::new();
        heard.batches(80, true);
        assert_eq!(heard.words(), ["rush 10.0.0.2"]);
        // What is put together is not late any more.
        heard.batches(400, false);
        heard.second();
        assert!(heard.words().is_empty());
        heard.second();
        assert!(heard.words().is_empty(), "a pause");
        heard.batches(400, false);
        heard.second();
        heard.second();
        heard.second();
        assert_eq!(heard.words(), ["rush over 10.0.0.2"]);
        heard.second();
        heard.batches(80, true);
        assert_eq!(heard.words(), ["rush 10.0.0.2"]);
    }

    #[test]
    fn who_is_read_in_time_is_in_no_rush() {
        let mut heard = Heard::new();
        heard.batches(1000, false);
        for _ in 0..10 {
            heard.batches(1, true);
            heard.batches(300, false);
        }
        heard.second();
        heard.second();
        assert!(heard.words().is_empty());
        assert_eq!(heard.rushes.watched.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_word_that_found_no_room_is_said_later() {
        let mut heard = Heard::new();
        while heard.rushes.say("rush 10.0.0.3") {}
        heard.batches(80, true);
        assert!(heard.words().iter().all(|word| word.ends_with(".3")));
        heard.batches(80, true);
        assert_eq!(heard.words(), ["rush 10.0.0.2"]);
        while heard.rushes.say("rush 10.0.0.3") {}
        for _ in 0..5 {
            heard.second();
        }
        heard.words();
        heard.second();
        assert_eq!(heard.words(), ["rush over 10.0.0.2"]);
    }
}
