//! Connections that a container has asked for and does not have yet.
//!
//! On the path: gate (first SYN) → **pending** ← tcp::connect (host side connected) → tcp (the
//! router netns's kernel has completed the handshake, the flow begins). The three steps may happen
//! in three workers, so the table is shared.
//!
//! Invariant: an entry is for one SYN, told from an earlier or later one between the same ports by
//! its initial sequence number; a host-side socket is in the table or somebody's, never lost.
//!
//! States: `Connecting` (the host-side socket is with the worker that read the SYN) → `Ready` (it
//! is in the table, the SYN is on its way back into the router netns) → gone, or `Accepted` where
//! the container may have sent the same SYN again meanwhile.
//!
//! Sources: RFC 9293 §3.10.7.4, RFC 6298 (retransmission), `tcp_syn_linear_timeouts`.

use super::wire::ip::Packet;
use super::wire::tcp::Segment;
use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Ends of a connection as the container sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FourTuple {
    /// The container's.
    pub client: SocketAddr,
    /// Where it wants to go.
    pub destination: SocketAddr,
}

/// In one piece where the families are IPv4, as a rule: every frame is looked up, and the parts of an address one by one
/// take the hasher several times as long.
impl Hash for FourTuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (SocketAddr::V4(client), SocketAddr::V4(destination)) = (self.client, self.destination)
        else {
            return (self.client, self.destination).hash(state);
        };
        let ports = u32::from(client.port()) << 16 | u32::from(destination.port());
        let addresses = [client.ip().to_bits(), destination.ip().to_bits()];
        let [client, destination] = addresses.map(u128::from);
        state.write_u128(client << 64 | destination << 32 | u128::from(ports));
    }
}

impl FourTuple {
    /// Those of a SYN.
    pub fn of(packet: &Packet<'_>, segment: &Segment<'_>) -> Self {
        Self {
            client: SocketAddr::new(packet.source(), segment.source_port()),
            destination: SocketAddr::new(packet.destination(), segment.destination_port()),
        }
    }
}

/// A connection's host side, connected.
#[derive(Debug)]
pub struct Connected {
    /// The socket.
    pub host: OwnedFd,
    /// Its connect has ended with a reset, of which the socket does not tell a second time.
    pub was_reset: bool,
}

impl Connected {
    /// As a connect usually ends.
    pub fn new(host: OwnedFd) -> Self {
        Self {
            host,
            was_reset: false,
        }
    }
}

/// What to do about a SYN.
#[derive(Debug)]
pub enum Syn {
    /// The first of its kind: connect. An abandoned connection between the same ports may have left
    /// its host side.
    New {
        /// To be closed.
        abandoned: Option<OwnedFd>,
    },
    /// Sent again while the host side connects: nothing.
    Connecting,
    /// Sent again though it was passed on: pass it on again.
    PassOn,
    /// Too many are under way, here or from this source: drop it, it will be sent again.
    TooMany,
}

#[derive(Debug)]
enum Stage {
    Connecting,
    Ready {
        connected: Connected,
        since: Instant,
    },
    Accepted {
        since: Instant,
    },
}

#[derive(Debug)]
struct Entry {
    isn: u32,
    first_syn: Instant,
    last_syn: Instant,
    stage: Stage,
}

/// How many connections may be under way, so that those of two descriptors each use at most two thirds of
/// `descriptors`.
///
/// A source address may have as many of them as are left to all: one that floods gets a half, two get a third
/// each, and whoever comes next finds as much. No share is kept for sources that ask for nothing.
pub fn limit_for(descriptors: usize) -> usize {
    (descriptors / 3).clamp(16, 16 * 1024)
}

/// A source that has too many under way is named at most this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// A container completes the handshake in microseconds; after this it never will.
const READY_LIFETIME: Duration = Duration::from_secs(10);
/// A SYN that crossed the SYN-ACK arrives within this.
const ACCEPTED_LIFETIME: Duration = Duration::from_secs(3);
/// A container sends a SYN again after one second (RFC 6298 §2.1), not before this.
const RETRANSMISSION: Duration = Duration::from_millis(800);
/// The table is swept at most this often.
const SWEEP_INTERVAL: Duration = Duration::from_millis(900);

/// When a container that last sent its SYN at `last` has given up. The time from one SYN to the
/// next is at most the time since the first, plus one second; some slack is added.
pub fn gives_up_at(first: Instant, last: Instant) -> Instant {
    last + last.duration_since(first) + Duration::from_secs(3)
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<FourTuple, Entry>,
    per_source: HashMap<IpAddr, usize>,
    swept: Option<Instant>,
    complained: Option<Instant>,
    /// Entries that are `Ready`.
    ready: usize,
}

/// The shared table.
#[derive(Debug)]
pub struct Pending {
    limit: usize,
    table: Mutex<Table>,
}

impl Pending {
    /// Empty; `limit`: of connections under way.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            table: Mutex::new(Table::default()),
        }
    }

    /// Notes a SYN.
    pub fn syn(&self, tuple: FourTuple, isn: u32, now: Instant) -> Syn {
        let mut table = self.table();
        let mut abandoned = None;
        if let Some(entry) = table.entries.get_mut(&tuple) {
            if entry.isn == isn {
                entry.last_syn = now;
                return match entry.stage {
                    Stage::Connecting => Syn::Connecting,
                    Stage::Ready { .. } | Stage::Accepted { .. } => Syn::PassOn,
                };
            }
            abandoned = table.remove(&tuple).map(|left| left.host);
        }
        let from_source = table
            .per_source
            .get(&tuple.client.ip())
            .copied()
            .unwrap_or(0);
        let left = self.limit.saturating_sub(table.entries.len());
        // An abandoned one has just made room for itself.
        if from_source >= left && abandoned.is_none() {
            table.complain(tuple.client.ip(), from_source, now);
            return Syn::TooMany;
        }
        table.insert(
            tuple,
            Entry {
                isn,
                first_syn: now,
                last_syn: now,
                stage: Stage::Connecting,
            },
        );
        Syn::New { abandoned }
    }

    /// Puts in the connected host side. Gives it back where the connection was abandoned.
    pub fn ready(
        &self,
        tuple: FourTuple,
        isn: u32,
        connected: Connected,
        now: Instant,
    ) -> Result<(), Connected> {
        let mut table = self.table();
        match table.entries.get_mut(&tuple) {
            Some(entry) if entry.isn == isn && matches!(entry.stage, Stage::Connecting) => {
                entry.stage = Stage::Ready {
                    connected,
                    since: now,
                };
                table.ready += 1;
                Ok(())
            }
            Some(_) | None => Err(connected),
        }
    }

    /// Whether a connection may wait to be accepted, by this worker or another one.
    pub fn any_ready(&self) -> bool {
        self.table().ready > 0
    }

    /// Forgets a connection whose host side failed.
    pub fn forget(&self, tuple: FourTuple, isn: u32) {
        let mut table = self.table();
        if let Some(entry) = table.entries.get(&tuple)
            && entry.isn == isn
        {
            table.remove(&tuple);
        }
    }

    /// The host side that belongs to a connection just accepted. `isn` is unknown for one that was
    /// made from a SYN cookie.
    pub fn accept(&self, tuple: FourTuple, isn: Option<u32>, now: Instant) -> Option<Connected> {
        let mut table = self.table();
        let entry = table.entries.get_mut(&tuple)?;
        if isn.is_some_and(|isn| isn != entry.isn) || !matches!(entry.stage, Stage::Ready { .. }) {
            return None;
        }
        if now.duration_since(entry.first_syn) < RETRANSMISSION {
            return table.remove(&tuple);
        }
        let accepted = Stage::Accepted { since: now };
        let before = std::mem::replace(&mut entry.stage, accepted);
        table.taken(before)
    }

    /// Whether nobody waits any more for a host-side connect: the container has stopped asking, or
    /// asks for another connection.
    pub fn abandoned(&self, tuple: FourTuple, isn: u32, now: Instant) -> bool {
        match self.table().entries.get(&tuple) {
            Some(entry) if entry.isn == isn => now >= gives_up_at(entry.first_syn, entry.last_syn),
            Some(_) | None => true,
        }
    }

    /// Takes out what was never accepted, once in a while; the host sides are to be closed.
    pub fn sweep(&self, now: Instant) -> Vec<OwnedFd> {
        let mut table = self.table();
        if table
            .swept
            .is_some_and(|swept| now.duration_since(swept) < SWEEP_INTERVAL)
        {
            return Vec::new();
        }
        table.swept = Some(now);
        let over: Vec<FourTuple> = table
            .entries
            .iter()
            .filter(|(_, entry)| match entry.stage {
                Stage::Connecting => false,
                Stage::Ready { since, .. } => now.duration_since(since) >= READY_LIFETIME,
                Stage::Accepted { since } => now.duration_since(since) >= ACCEPTED_LIFETIME,
            })
            .map(|(tuple, _)| *tuple)
            .collect();
        over.iter()
            .filter_map(|tuple| table.remove(tuple))
            .map(|left| left.host)
            .collect()
    }

    /// How many connections are in the table.
    pub fn len(&self) -> usize {
        self.table().entries.len()
    }

    /// None is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn insert(&mut self, tuple: FourTuple, entry: Entry) {
        *self.per_source.entry(tuple.client.ip()).or_default() += 1;
        self.entries.insert(tuple, entry);
    }

    /// Of one that connects to nowhere, as a rule: dead destinations, a scan, a flood.
    fn complain(&mut self, source: IpAddr, under_way: usize, now: Instant) {
        let late = |last| now.duration_since(last) >= COMPLAINT_INTERVAL;
        if self.complained.is_none_or(late) {
            self.complained = Some(now);
            tracing::warn!(
                client.addr = %source,
                connects = under_way,
                "too many unanswered connects, further ones are dropped"
            );
        }
    }

    fn remove(&mut self, tuple: &FourTuple) -> Option<Connected> {
        let entry = self.entries.remove(tuple)?;
        if let MapEntry::Occupied(mut count) = self.per_source.entry(tuple.client.ip()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        self.taken(entry.stage)
    }

    /// The host side in a stage that is over.
    fn taken(&mut self, stage: Stage) -> Option<Connected> {
        match stage {
            Stage::Ready { connected, .. } => {
                self.ready -= 1;
                Some(connected)
            }
            Stage::Connecting | Stage::Accepted { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher as _;

    fn pending() -> Pending {
        Pending::new(5)
    }

    fn tuple(client: &str) -> FourTuple {
        FourTuple {
            client: client.parse().unwrap(),
            destination: "192.0.2.1:80".parse().unwrap(),
        }
    }

    fn connected() -> Connected {
        let descriptor = std::os::unix::net::UnixStream::pair().unwrap().0;
        Connected::new(descriptor.into())
    }

    #[test]
    fn each_part_of_a_tuple_counts() {
        let tuple = |client: &str, destination: &str| FourTuple {
            client: client.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        let all = [
            tuple("10.0.0.2:1000", "192.0.2.1:80"),
            tuple("10.0.0.3:1000", "192.0.2.1:80"),
            tuple("10.0.0.2:1001", "192.0.2.1:80"),
            tuple("10.0.0.2:1000", "192.0.2.2:80"),
            tuple("10.0.0.2:1000", "192.0.2.1:81"),
            tuple("10.0.0.2:80", "192.0.2.1:1000"),
            tuple("192.0.2.1:80", "10.0.0.2:1000"),
            tuple("[fd00::2]:1000", "[2001:db8::1]:80"),
            tuple("[fd00::2]:1000", "[2001:db8::1]:81"),
            tuple("[fd00::2]:1001", "[2001:db8::1]:80"),
        ];
        let hasher = std::hash::RandomState::new();
        let hashes: std::collections::HashSet<u64> =
            all.iter().map(|one| hasher.hash_one(one)).collect();
        assert_eq!(hashes.len(), all.len());
    }

    #[test]
    fn a_connection_goes_through_once() {
        let (pending, now, tuple) = (pending(), Instant::now(), tuple("10.0.0.2:1000"));
        assert!(matches!(
            pending.syn(tuple, 7, now),
            Syn::New { abandoned: None }
        ));
        assert!(matches!(pending.syn(tuple, 7, now), Syn::Connecting));
        assert!(pending.accept(tuple, Some(7), now).is_none());
        assert!(pending.ready(tuple, 7, connected(), now).is_ok());
        assert!(matches!(pending.syn(tuple, 7, now), Syn::PassOn));
        assert!(pending.accept(tuple, Some(8), now).is_none());
        assert!(pending.any_ready());
        assert!(pending.accept(tuple, Some(7), now).is_some());
        assert!(pending.is_empty() && !pending.any_ready());
    }

    #[test]
    fn a_syn_that_crossed_the_answer_does_not_connect_again() {
        let (pending, start, tuple) = (pending(), Instant::now(), tuple("10.0.0.2:1000"));
        pending.syn(tuple, 7, start);
        let late = start + Duration::from_secs(1);
        pending.ready(tuple, 7, connected(), late).unwrap();
        assert!(pending.accept(tuple, None, late).is_some());
        assert!(!pending.any_ready());
        assert!(matches!(pending.syn(tuple, 7, late), Syn::PassOn));
        assert!(pending.accept(tuple, Some(7), late).is_none());
        assert!(pending.sweep(late).is_empty());
        pending.sweep(late + ACCEPTED_LIFETIME);
        assert!(pending.is_empty());
    }

    #[test]
    fn a_new_sequence_number_is_a_new_connection() {
        let (pending, now, tuple) = (pending(), Instant::now(), tuple("10.0.0.2:1000"));
        pending.syn(tuple, 7, now);
        assert!(matches!(
            pending.syn(tuple, 8, now),
            Syn::New { abandoned: None }
        ));
        assert!(pending.abandoned(tuple, 7, now));
        assert!(pending.ready(tuple, 7, connected(), now).is_err());
        pending.forget(tuple, 7);
        assert!(pending.ready(tuple, 8, connected(), now).is_ok());
        assert!(matches!(
            pending.syn(tuple, 9, now),
            Syn::New { abandoned: Some(_) }
        ));
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn a_source_may_have_as_many_as_are_left() {
        let (pending, now) = (pending(), Instant::now());
        let new = |client: &str| matches!(pending.syn(tuple(client), 1, now), Syn::New { .. });
        assert!(new("10.0.0.2:1") && new("10.0.0.2:2") && new("10.0.0.2:3"));
        assert!(!new("10.0.0.2:4"), "three of five, two are left");
        assert!(new("10.0.0.3:1"), "which are not its own to take");
        assert!(!new("10.0.0.3:2"));
        assert!(new("10.0.0.4:1"));
        assert!(!new("10.0.0.5:1"), "in all");
        pending.forget(tuple("10.0.0.2:1"), 1);
        assert!(!new("10.0.0.2:4"));
        assert!(new("10.0.0.5:1"));
    }

    #[test]
    fn who_stops_asking_is_given_up() {
        let (pending, start, tuple) = (pending(), Instant::now(), tuple("10.0.0.2:1000"));
        let at = |seconds| start + Duration::from_secs(seconds);
        pending.syn(tuple, 7, start);
        assert!(!pending.abandoned(tuple, 7, at(2)));
        assert!(pending.abandoned(tuple, 7, at(3)));
        // Exponential: a SYN at 1, 3, 7, 15 s keeps it alive until the next is due.
        for (seen, next) in [(1, 3), (3, 7), (7, 15), (15, 31)] {
            pending.syn(tuple, 7, at(seen));
            assert!(!pending.abandoned(tuple, 7, at(next)));
        }
        assert!(pending.abandoned(tuple, 7, at(15 + 15 + 3)));
    }

    #[test]
    fn what_is_never_accepted_is_swept() {
        let (pending, now, tuple) = (pending(), Instant::now(), tuple("10.0.0.2:1000"));
        pending.syn(tuple, 7, now);
        assert!(pending.sweep(now + READY_LIFETIME).is_empty());
        pending.ready(tuple, 7, connected(), now).unwrap();
        assert_eq!(pending.sweep(now + 2 * READY_LIFETIME).len(), 1);
        assert!(pending.is_empty() && !pending.any_ready());
    }
}
