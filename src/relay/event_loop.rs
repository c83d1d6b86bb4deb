//! Readiness: epoll with typed tokens.
//!
//! On the path: every worker waits here ([`busy_poll`](super::busy_poll) says how), then hands each event to the part that owns its token.
//!
//! Invariant: a token names a slot *and* its generation, so that an event still queued for a
//! descriptor that was closed cannot reach what moved into its slot since.

use crate::sys::epoll::{Epoll, Events};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// Whose event it is, and which of its descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Owner {
    /// The AF_PACKET socket on `up1`.
    Gate = 1,
    /// Transparent TCP listener; the slot is 0 (IPv4) or 1 (IPv6).
    TcpListener,
    /// A host-side connect under way.
    TcpConnect,
    /// Router side of a TCP flow.
    TcpRouter,
    /// Host side of a TCP flow.
    TcpHost,
    /// Transparent UDP listener; the slot is 0 (IPv4) or 1 (IPv6).
    UdpListener,
    /// Host side of a UDP flow.
    UdpHost,
    /// Connected router side of a promoted UDP flow.
    UdpRouter,
    /// A host-side ping socket.
    IcmpHost,
    /// There are new rules.
    Wake,
    /// A published port's listening socket of the host netns, TCP or UDP.
    PublishListener,
    /// Router side of a published connection, on its way to the container.
    PublishConnect,
    /// The client of such a connection.
    PublishClient,
    /// Router side of a published port's UDP flow.
    PublishUdp,
    /// The AF_PACKET socket that sees framed flows.
    Tap,
    /// Host side of a framed flow.
    TcpFramed,
}

impl Owner {
    const ALL: [Self; 16] = [
        Self::Gate,
        Self::TcpListener,
        Self::TcpConnect,
        Self::TcpRouter,
        Self::TcpHost,
        Self::UdpListener,
        Self::UdpHost,
        Self::UdpRouter,
        Self::IcmpHost,
        Self::Wake,
        Self::PublishListener,
        Self::PublishConnect,
        Self::PublishClient,
        Self::PublishUdp,
        Self::Tap,
        Self::TcpFramed,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|owner| *owner as u8 == number)
    }
}

/// Names one descriptor in an epoll set: owner (8 bits), generation (24), slot (32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// Who handles it.
    pub owner: Owner,
    /// Which of the owner's things.
    pub key: Key,
}

/// A place in a [`Slots`](super::slots::Slots), valid for one occupant only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Index.
    pub slot: u32,
    /// 24 bits; counts the occupants of the slot.
    pub generation: u32,
}

impl Key {
    /// For owners with fixed descriptors (listeners, the gate).
    pub const fn fixed(slot: u32) -> Self {
        Self {
            slot,
            generation: 0,
        }
    }
}

/// Generations count modulo 2^24.
pub const GENERATION_MASK: u32 = 0x00ff_ffff;

impl Token {
    /// Names descriptor `owner` of the occupant `key`.
    pub const fn new(owner: Owner, key: Key) -> Self {
        Self { owner, key }
    }

    fn encode(self) -> u64 {
        (self.owner as u64) << 56
            | u64::from(self.key.generation & GENERATION_MASK) << 32
            | u64::from(self.key.slot)
    }

    fn decode(data: u64) -> Option<Self> {
        let [owner, g2, g1, g0, s3, s2, s1, s0] = data.to_be_bytes();
        Some(Self {
            owner: Owner::from_number(owner)?,
            key: Key {
                slot: u32::from_be_bytes([s3, s2, s1, s0]),
                generation: u32::from_be_bytes([0, g2, g1, g0]),
            },
        })
    }
}

/// What to wait for. Errors and hang-ups are always told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest(u32);

impl Interest {
    /// Data, a connection, an end of file. Told as long as it lasts.
    pub const READ: Self = Self(libc::EPOLLIN as u32);
    /// The same, told to one of those that wait on the descriptor rather than to all
    /// (EPOLLEXCLUSIVE). It cannot be changed later.
    pub const READ_ONE_OF_US: Self = Self((libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32);
    /// Room to write, a finished connect. Told as long as it lasts.
    pub const WRITE: Self = Self(libc::EPOLLOUT as u32);
    /// Nothing but errors.
    pub const NONE: Self = Self(0);
    /// What comes in by a stream socket, urgent data included, and its end, each change told once.
    pub const STREAM_READ_EDGE: Self =
        Self((libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLET) as u32);
    /// The same, and room to write.
    pub const STREAM_EDGE: Self = Self(
        (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLET) as u32,
    );
    /// Data, each arrival told once.
    pub const READ_EDGE: Self = Self((libc::EPOLLIN | libc::EPOLLET) as u32);
}

impl Interest {
    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness(u32);

impl Readiness {
    /// That of a descriptor with something to read.
    #[cfg(test)]
    pub fn of_reading() -> Self {
        Self(libc::EPOLLIN as u32)
    }

    /// There may be something to read, were it an error or the end.
    pub fn readable(self) -> bool {
        self.has(libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR)
    }
    /// There may be room to write, or an error.
    pub fn writable(self) -> bool {
        self.has(libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR)
    }
    /// The peer has sent its last byte; there may be some before it.
    pub fn read_closed(self) -> bool {
        self.has(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR)
    }
    /// Urgent data (tcp(7)).
    pub fn urgent(self) -> bool {
        self.has(libc::EPOLLPRI)
    }
    /// An error waits on the socket, or in its error queue.
    pub fn error(self) -> bool {
        self.has(libc::EPOLLERR)
    }

    fn has(self, bits: libc::c_int) -> bool {
        self.0 & bits as u32 != 0
    }
}

/// By which others wake a worker that waits: [`Owner::Wake`].
pub fn event() -> io::Result<Arc<EventFd>> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let event = EventFd::from_value_and_flags(0, flags)?;
    Ok(Arc::new(event))
}

/// One worker's epoll set.
#[derive(Debug)]
pub struct Poller(Epoll);

/// Events of one wait.
pub struct Batch(Events);

impl Batch {
    /// At most `capacity` events a wait.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Events::with_capacity(capacity))
    }

    /// Nothing happened.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What happened, to whom.
    pub fn iter(&self) -> impl Iterator<Item = (Token, Readiness)> + '_ {
        self.0
            .iter()
            .filter_map(|(bits, data)| Some((Token::decode(data)?, Readiness(bits))))
    }
}

impl Poller {
    /// EMFILE at the descriptor limit.
    pub fn new() -> io::Result<Self> {
        Epoll::new().map(Self)
    }

    /// Starts telling about `fd`. It ends when the last copy of `fd` is closed.
    pub fn add(&self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> io::Result<()> {
        self.0.add(fd, interest.0, token.encode())
    }

    /// Changes token and interest; an edge-triggered event that lasts is told again.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> io::Result<()> {
        self.0.modify(fd, interest.0, token.encode())
    }

    /// Stops telling, for a descriptor that goes to another thread.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.delete(fd)
    }

    /// Waits for events, at most for `timeout`.
    pub fn wait(&self, batch: &mut Batch, timeout: Option<Duration>) -> io::Result<()> {
        self.0.wait(&mut batch.0, timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for owner in Owner::ALL {
            for (slot, generation) in [(0, 0), (7, 1), (u32::MAX, GENERATION_MASK)] {
                let token = Token::new(owner, Key { slot, generation });
                assert_eq!(Token::decode(token.encode()), Some(token));
            }
        }
        assert_eq!(Token::decode(0), None);
        assert_eq!(Token::decode(u64::MAX), None);
    }

    #[test]
    fn events_carry_their_token() {
        use std::io::Write as _;
        use std::os::fd::AsFd as _;
        let (mut one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let poller = Poller::new().unwrap();
        let token = Token::new(Owner::TcpHost, Key::fixed(42));
        poller
            .add(other.as_fd(), token, Interest::READ_EDGE)
            .unwrap();
        let mut batch = Batch::with_capacity(4);
        poller.wait(&mut batch, Some(Duration::ZERO)).unwrap();
        assert_eq!(batch.iter().count(), 0);
        one.write_all(b"x").unwrap();
        poller.wait(&mut batch, None).unwrap();
        let events: Vec<_> = batch.iter().collect();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].0, token);
        assert!(events[0].1.readable() && !events[0].1.read_closed());
    }
}
