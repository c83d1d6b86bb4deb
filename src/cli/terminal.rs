//! A terminal for the process in the sandbox (openpty(3)), and our own in raw mode meanwhile.
//!
//! Invariant: whoever leaves, by return, error or panic, drops [`RawMode`] and so gives the user
//! the terminal back as it was. Sources: pty(7), termios(3), ioctl_tty(2).

use super::error::CliError;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use tokio::sync::oneshot;

/// Bytes moved at once.
const BUFFER: usize = 16 << 10;

/// Both ends of a terminal.
pub(super) struct Terminal {
    near: OwnedFd,
    /// The process's end, until it is handed over.
    pub(super) far: Option<OwnedFd>,
}

impl Terminal {
    /// A new one, of the size of ours.
    pub(super) fn open() -> Result<Self, CliError> {
        let failed = |source| CliError::Terminal {
            what: "open a terminal for the command",
            source,
        };
        let pair = nix::pty::openpty(None, None).map_err(|errno| failed(errno.into()))?;
        let terminal = Self {
            near: pair.master,
            far: Some(pair.slave),
        };
        terminal.resize(new_size());
        Ok(terminal)
    }

    /// Makes it as large as ours; the kernel tells the process (SIGWINCH).
    pub(super) fn resize(&self, size: Option<Winsize>) {
        if let Some(size) = size {
            // The process may be gone; its size no longer matters then.
            let _ = tcsetwinsize(&self.near, size);
        }
    }

    /// Copies what the process prints to our standard output, on a thread of its own; the answer
    /// resolves when nobody holds the far end any more.
    pub(super) fn copy_output(&self) -> Result<oneshot::Receiver<()>, CliError> {
        let mut near = std::fs::File::from(self.near()?);
        let (ended, end) = oneshot::channel();
        std::thread::spawn(move || {
            let mut stdout = io::stdout().lock();
            let mut lost = false;
            let mut buffer = vec![0; BUFFER];
            // EIO is how a terminal says that its far end is closed.
            while let Ok(length @ 1..) = retried(|| near.read(&mut buffer)) {
                let part = buffer.get(..length).unwrap_or_default();
                // When our reader has gone, go on draining, so that the process can.
                lost = lost
                    || stdout
                        .write_all(part)
                        .and_then(|()| stdout.flush())
                        .is_err();
            }
            let _ = ended.send(());
        });
        Ok(end)
    }

    /// Copies what is typed to the process, on a thread that nobody waits for.
    pub(super) fn copy_input(&self) -> Result<(), CliError> {
        let mut near = std::fs::File::from(self.near()?);
        std::thread::spawn(move || {
            let mut stdin = io::stdin().lock();
            let mut buffer = vec![0; BUFFER];
            while let Ok(length @ 1..) = retried(|| stdin.read(&mut buffer)) {
                let part = buffer.get(..length).unwrap_or_default();
                if near.write_all(part).is_err() {
                    break;
                }
            }
        });
        Ok(())
    }

    fn near(&self) -> Result<OwnedFd, CliError> {
        self.near.try_clone().map_err(|source| CliError::Terminal {
            what: "use the terminal of the command",
            source,
        })
    }
}

fn retried(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

/// Size of our own terminal, if there is one.
pub(super) fn new_size() -> Option<Winsize> {
    tcgetwinsize(io::stdout())
        .or_else(|_| tcgetwinsize(io::stdin()))
        .or_else(|_| tcgetwinsize(io::stderr()))
        .ok()
}

/// Our own terminal, in raw mode for as long as this lives.
pub(super) struct RawMode(Termios);

impl RawMode {
    /// `None` where our standard input is no terminal.
    pub(super) fn enter() -> Result<Option<Self>, CliError> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let failed = |errno: nix::Error| CliError::Terminal {
            what: "make the terminal raw",
            source: errno.into(),
        };
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).map_err(failed)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // TCSADRAIN: what was printed raw is shown raw. The terminal may be gone.
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_two_ends_and_a_size() {
        let mut terminal = Terminal::open().unwrap();
        let size = Winsize {
            ws_row: 33,
            ws_col: 111,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        terminal.resize(Some(size));
        let mut far = std::fs::File::from(terminal.far.take().unwrap());
        assert_eq!(tcgetwinsize(&far).unwrap(), size);
        far.write_all(b"x\n").unwrap();
        let mut near = std::fs::File::from(terminal.near().unwrap());
        let mut text = [0; 3];
        near.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"x\r\n");
        drop(far);
        // Both threads end by themselves: EIO.
        assert!(near.read(&mut text).is_err());
    }
}
