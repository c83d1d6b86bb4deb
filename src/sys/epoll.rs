//! epoll(7): waits for readiness of many descriptors at once.
//!
//! Sources: epoll_create1(2), epoll_ctl(2), epoll_wait(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

/// Room for the events of one wait.
pub struct Events {
    buffer: Vec<libc::epoll_event>,
    filled: usize,
}

impl Events {
    /// At most `capacity` events a wait.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            buffer: vec![libc::epoll_event { events: 0, u64: 0 }; capacity.max(1)],
            filled: 0,
        }
    }

    /// The last wait brought none.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// (event bits, data) of the last wait.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        // By value: the struct is packed on x86-64.
        self.buffer
            .iter()
            .take(self.filled)
            .map(|event| (event.events, event.u64))
    }
}

impl Epoll {
    /// EMFILE at the descriptor limit.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor just made, which nobody else has.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// ENOSPC at fs.epoll.max_user_watches, EEXIST where it is there already.
    pub fn add(&self, fd: BorrowedFd<'_>, events: u32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, events, data)
    }

    /// ENOENT where it was not added.
    pub fn modify(&self, fd: BorrowedFd<'_>, events: u32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, events, data)
    }

    /// ENOENT where it was not added.
    pub fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    fn control(
        &self,
        operation: libc::c_int,
        fd: BorrowedFd<'_>,
        events: u32,
        data: u64,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: data };
        // SAFETY: `event` outlives the call, which only reads it.
        let result = unsafe {
            libc::epoll_ctl(
                self.0.as_raw_fd(),
                operation,
                fd.as_raw_fd(),
                &raw mut event,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Waits until something is ready or `timeout` (rounded up to milliseconds) is over; for ever
    /// without one. A signal ends it early, with no events.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        let milliseconds = timeout.map_or(-1, |timeout| {
            i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        let capacity = i32::try_from(events.buffer.len()).unwrap_or(i32::MAX);
        events.filled = 0;
        // SAFETY: the buffer holds `capacity` events and is borrowed for the whole call.
        let count = unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                events.buffer.as_mut_ptr(),
                capacity,
                milliseconds,
            )
        };
        match usize::try_from(count) {
            Ok(count) => events.filled = count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
