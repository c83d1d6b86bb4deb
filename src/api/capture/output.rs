//! Where a capture goes: a file, a pipe, a terminal.
//!
//! Invariant: whoever does not read what we write cannot keep us from ending when we are told to.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// What is written to a pipe that is ready at all does not block up to this length (PIPE_BUF, pipe(7)).
const PIPE_BUF: usize = 4096;
/// How long a reader may leave our last bytes, once we are to end.
const LAST_MS: u16 = 1000;
/// More than this is not gathered before it is written.
const FULL: usize = 256 * 1024;

/// The output, and what is not written yet.
pub struct Output {
    file: File,
    regular: bool,
    /// To be filled.
    pub buffer: Vec<u8>,
}

impl Output {
    /// Writes to `file` from its position.
    pub fn new(file: File) -> io::Result<Self> {
        Ok(Self {
            regular: file.metadata()?.is_file(),
            file,
            buffer: Vec::with_capacity(FULL),
        })
    }

    /// To be watched for a reader that goes away; `None` where there is none.
    pub fn reader(&self) -> Option<BorrowedFd<'_>> {
        (!self.regular).then(|| self.file.as_fd())
    }

    /// Writes, where much is gathered.
    pub fn settle(&mut self, signals: &SignalFd) -> io::Result<()> {
        if self.buffer.len() >= FULL {
            self.flush(signals)?;
        }
        Ok(())
    }

    /// Writes everything. `TimedOut` where nobody takes it and a signal has come.
    pub fn flush(&mut self, signals: &SignalFd) -> io::Result<()> {
        if self.regular {
            self.file.write_all(&self.buffer)?;
        } else {
            write_to_reader(&mut self.file, &self.buffer, signals)?;
        }
        self.buffer.clear();
        Ok(())
    }
}

fn write_to_reader(file: &mut File, mut bytes: &[u8], signals: &SignalFd) -> io::Result<()> {
    while !bytes.is_empty() {
        wait_for_room(file, signals)?;
        let part = bytes.get(..PIPE_BUF).unwrap_or(bytes);
        match file.write(part) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_for_room(file: &File, signals: &SignalFd) -> io::Result<()> {
    let room = || PollFd::new(file.as_fd(), PollFlags::POLLOUT);
    let told = PollFd::new(signals.as_fd(), PollFlags::POLLIN);
    let mut both = [room(), told];
    poll(&mut both, PollTimeout::NONE)?;
    if both[0].any() == Some(true) {
        return Ok(());
    }
    // Only the signal, which stays for whoever reads it.
    if poll(&mut [room()], LAST_MS)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(())
}
