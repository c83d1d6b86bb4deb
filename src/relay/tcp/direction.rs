//! One direction of a TCP flow: bytes from a source socket to a destination socket.
//!
//! Small messages move by one recv and one send through the worker's buffer, with no second recv
//! where the first came short. A direction that half fills the buffer turns bulk, and its bytes move
//! by splice through a pipe, lent while they are in it, without being copied. Where the destination
//! takes no more, nothing more is read: the source's window closes (backpressure).
//!
//! Invariant: bytes leave in the order in which they came; what was read and not written yet is in
//! `held`, and nothing is read while it is there. An end of file is passed on after the last byte.
//!
//! States: `Open` → `Ending` (end of file read, bytes held) → `Ended` (passed on).
//!
//! Sources: splice(2), tcp(7) (urgent data), epoll(7) (edge-triggered).

use super::pipe_pool::{Pipe, PipePool};
use crate::sys::splice::splice;
use socket2::SockRef;
use std::io::{self, Read as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};

/// The worker's buffer, bytes.
pub const BUFFER_LEN: usize = 64 * 1024;

/// Most bytes read of a direction before it begins: they may have to be kept, for many that never do.
pub const EARLY_LEN: usize = 4096;

/// A read that brings this much makes a direction bulk. A single large segment (GRO: just under
/// 64 KiB) must, or else a relay that keeps up with its sender would copy for ever.
const BULK_FROM: usize = 32 * 1024;

/// Bytes asked of one splice; what a pipe can take is less.
const SPLICE_LEN: usize = 1024 * 1024;

/// A bulk direction whose first splice brings less than this copies again.
const BULK_LEAST: usize = 8 * 1024;

/// Bytes moved before other flows get their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn(usize);

impl Turn {
    /// Nobody else is about.
    pub const LONG: Self = Self(256 * 1024);
    /// Others are: what they wait for takes several rounds, each of which waits for this.
    pub const SHORT: Self = Self(64 * 1024);
}

/// What the directions of one worker share.
pub struct Scratch {
    buffer: Box<[u8]>,
    /// Pipes for bulk directions.
    pub pipes: PipePool,
    /// How long one may take.
    pub turn: Turn,
}

impl Scratch {
    /// With an empty pool.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_LEN].into_boxed_slice(),
            pipes: PipePool::default(),
            turn: Turn::LONG,
        }
    }

    /// Reads what has come already. Nothing where nothing has; an end is told again by the next
    /// read, an error (a reset, say) only here.
    pub fn first_bytes(&mut self, source: &OwnedFd) -> io::Result<&[u8]> {
        let room = self.buffer.get_mut(..EARLY_LEN).unwrap_or_default();
        match retry(|| (&*SockRef::from(source)).read(room)) {
            Ok(length) => Ok(self.buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(&[]),
            Err(error) => Err(error),
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// How far the direction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Bytes may come.
    Open,
    /// The source has ended; bytes are held.
    Ending,
    /// The end was passed on.
    Ended,
}

/// How bytes move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Copy,
    Bulk,
    /// Copy for good: splice stops at urgent data, and does not say so.
    CopyOnly,
}

/// Bytes read and not written.
#[derive(Debug)]
enum Held {
    Nothing,
    /// From `start` on.
    Bytes {
        bytes: Box<[u8]>,
        start: u32,
    },
    Pipe {
        pipe: Pipe,
        length: u32,
    },
}

/// Why pumping stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Until the next event.
    Blocked,
    /// There is more to do, after others had their turn.
    TurnOver,
    /// The end was passed on; nothing will come any more.
    Ended,
}

/// A socket is broken: its connection was reset, or timed out.
#[derive(Debug)]
pub enum Broken {
    /// Nothing more can be read.
    Source(io::Error),
    /// Nothing more can be written.
    Destination(io::Error),
}

/// What was read of a direction before it began.
#[derive(Debug, Default)]
pub struct Early {
    /// Bytes read, at most [`EARLY_LEN`].
    pub length: usize,
    /// The end of them, which has found no room yet.
    pub unsent: Box<[u8]>,
}

/// One direction.
#[derive(Debug)]
pub struct Direction {
    phase: Phase,
    mode: Mode,
    held: Held,
    /// The source may have something: no read has come short since its last event.
    readable: bool,
    /// The destination may have room: no write has come short since its last event.
    writable: bool,
    /// The end of file is near: a short read is not the last one.
    source_closing: bool,
    /// The source was reset: its end is not passed on as an end of file.
    source_broken: bool,
    /// Bytes read since [`Direction::take_moved`].
    moved: u32,
}

impl Default for Direction {
    fn default() -> Self {
        Self::new()
    }
}

impl Direction {
    /// Both sockets are believed idle and writable.
    pub const fn new() -> Self {
        Self {
            phase: Phase::Open,
            mode: Mode::Copy,
            held: Held::Nothing,
            readable: false,
            writable: true,
            source_closing: false,
            source_broken: false,
            moved: 0,
        }
    }

    /// The same after a first read.
    pub fn begun(early: Early) -> Self {
        let mut direction = Self::new();
        direction.took(early.length, EARLY_LEN);
        direction.moved = early.length as u32;
        if !early.unsent.is_empty() {
            direction.held = Held::Bytes {
                bytes: early.unsent,
                start: 0,
            };
        }
        direction
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Something may be read. `closing`: the peer has sent its last byte.
    pub fn source_ready(&mut self, closing: bool) {
        self.readable = true;
        self.source_closing |= closing;
    }

    /// Something may be written.
    pub fn destination_ready(&mut self) {
        self.writable = true;
    }

    /// Urgent data has come (with SO_OOBINLINE, among the rest).
    pub fn urgent(&mut self) {
        self.mode = Mode::CopyOnly;
        self.readable = true;
    }

    /// The source is reset, maybe with bytes left to be read. Its end will be passed on as a reset,
    /// which is not for one direction to do.
    pub fn source_broke(&mut self) {
        self.source_broken = true;
        self.source_ready(true);
    }

    /// Its bytes move by splice.
    pub fn is_bulk(&self) -> bool {
        self.mode == Mode::Bulk
    }

    /// Bytes were read that are not written yet.
    pub fn holds(&self) -> bool {
        !matches!(self.held, Held::Nothing)
    }

    /// What it holds is in a pipe.
    pub fn has_pipe(&self) -> bool {
        matches!(self.held, Held::Pipe { .. })
    }

    /// It goes on when the destination has room.
    pub fn waits_for_room(&self) -> bool {
        self.holds() && !self.writable
    }

    /// Gives the pipe back when the flow is over.
    pub fn close(&mut self, pipes: &mut PipePool) {
        if let Held::Pipe { pipe, .. } = std::mem::replace(&mut self.held, Held::Nothing) {
            pipes.discard(pipe);
        }
        self.phase = Phase::Ended;
    }

    /// How many bytes were read since the last call.
    pub fn take_moved(&mut self) -> u64 {
        u64::from(std::mem::take(&mut self.moved))
    }

    /// Moves bytes until one side has or takes no more, or the turn is over. `last`: the other
    /// direction has ended, so that the close which follows this one's end passes that on.
    pub fn pump(
        &mut self,
        source: &OwnedFd,
        destination: &OwnedFd,
        scratch: &mut Scratch,
        last: bool,
    ) -> Result<Pause, Broken> {
        let mut moved = 0;
        let Turn(most) = scratch.turn;
        while moved < most {
            if !self.flush(destination, &mut scratch.pipes)? {
                return Ok(Pause::Blocked);
            }
            match self.phase {
                Phase::Open => {}
                Phase::Ending => {
                    self.phase = Phase::Ended;
                    if self.source_broken || last {
                        return Ok(Pause::Ended);
                    }
                    // ENOTCONN: the connection is gone, which the other direction will notice.
                    let _ = SockRef::from(destination).shutdown(Shutdown::Write);
                    return Ok(Pause::Ended);
                }
                Phase::Ended => return Ok(Pause::Ended),
            }
            if !self.readable {
                return Ok(Pause::Blocked);
            }
            let length = match self.mode {
                Mode::Copy | Mode::CopyOnly => self.copy(source, destination, scratch)?,
                Mode::Bulk => self.fill_pipe(source, scratch, moved == 0)?,
            };
            moved += length;
            // A turn is far from 4 GiB; where nobody asks, it does not matter.
            self.moved = self.moved.wrapping_add(length as u32);
        }
        Ok(Pause::TurnOver)
    }

    /// One recv, one send. The number of bytes read.
    fn copy(
        &mut self,
        source: &OwnedFd,
        destination: &OwnedFd,
        scratch: &mut Scratch,
    ) -> Result<usize, Broken> {
        let room = scratch.buffer.len();
        let length = match retry(|| (&*SockRef::from(source)).read(&mut scratch.buffer)) {
            Ok(0) => {
                self.phase = Phase::Ending;
                return Ok(0);
            }
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(0);
            }
            Err(error) => return Err(Broken::Source(error)),
        };
        self.took(length, room);
        let bytes = scratch.buffer.get(..length).unwrap_or_default();
        let sent = send(destination, bytes)?;
        if let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            self.writable = false;
            self.held = Held::Bytes {
                bytes: rest.into(),
                start: 0,
            };
        }
        Ok(length)
    }

    /// A read has brought `length` bytes, where there was room for `room`.
    fn took(&mut self, length: usize, room: usize) {
        if length >= BULK_FROM && self.mode == Mode::Copy {
            self.mode = Mode::Bulk;
        }
        self.readable = length == room || self.source_closing;
    }

    /// Splices from the source into a pipe, to be flushed next. The number of bytes.
    fn fill_pipe(
        &mut self,
        source: &OwnedFd,
        scratch: &mut Scratch,
        first: bool,
    ) -> Result<usize, Broken> {
        let Some(pipe) = scratch.pipes.take() else {
            self.mode = Mode::Copy;
            return Ok(0);
        };
        let Turn(most) = scratch.turn;
        let asked = if scratch.turn == Turn::LONG {
            SPLICE_LEN
        } else {
            most
        };
        let result = retry(|| splice(source.as_fd(), pipe.write.as_fd(), asked));
        let length = match result {
            Ok(length) if length > 0 => length,
            Ok(_) => {
                scratch.pipes.give_back(pipe);
                self.phase = Phase::Ending;
                return Ok(0);
            }
            Err(error) => {
                scratch.pipes.give_back(pipe);
                if error.kind() != io::ErrorKind::WouldBlock {
                    return Err(Broken::Source(error));
                }
                if first {
                    // Not what the event had promised: let recv find out.
                    self.mode = Mode::Copy;
                } else {
                    self.readable = false;
                }
                return Ok(0);
            }
        };
        if first && length < BULK_LEAST {
            self.mode = Mode::Copy;
        }
        self.held = Held::Pipe {
            pipe,
            // At most SPLICE_LEN.
            length: length as u32,
        };
        Ok(length)
    }

    /// Writes what is held. `false` where some of it stays.
    fn flush(&mut self, destination: &OwnedFd, pipes: &mut PipePool) -> Result<bool, Broken> {
        loop {
            if !self.holds() {
                return Ok(true);
            }
            if !self.writable {
                return Ok(false);
            }
            match &mut self.held {
                Held::Nothing => return Ok(true),
                Held::Bytes { bytes, start } => {
                    let rest = bytes.get(*start as usize..).unwrap_or_default();
                    let sent = send(destination, rest)?;
                    if sent == rest.len() {
                        self.held = Held::Nothing;
                    } else {
                        *start += sent as u32;
                        self.writable = false;
                    }
                }
                Held::Pipe { pipe, length } => {
                    match drain(pipe, destination, *length as usize)? {
                        None => self.writable = false,
                        Some(moved) => *length = length.saturating_sub(moved as u32),
                    }
                    if *length == 0
                        && let Held::Pipe { pipe, .. } =
                            std::mem::replace(&mut self.held, Held::Nothing)
                    {
                        pipes.give_back(pipe);
                    }
                }
            }
        }
    }
}

/// Splices from the pipe into the destination. `None` where it takes nothing now.
fn drain(pipe: &Pipe, destination: &OwnedFd, length: usize) -> Result<Option<usize>, Broken> {
    match retry(|| splice(pipe.read.as_fd(), destination.as_fd(), length)) {
        Ok(0) => Ok(None),
        Ok(moved) => Ok(Some(moved)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(Broken::Destination(error)),
    }
}

/// Bytes taken; none where there is no room.
fn send(destination: &OwnedFd, bytes: &[u8]) -> Result<usize, Broken> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    match retry(|| SockRef::from(destination).send_with_flags(bytes, flags)) {
        Ok(sent) => Ok(sent),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(Broken::Destination(error)),
    }
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
