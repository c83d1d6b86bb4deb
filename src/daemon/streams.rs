//! Standard streams of processes that nobody is attached to.
//!
//! Output goes to a sink: a sandbox's log, or nowhere. Without `-i` there is nothing to read. With it
//! stdin stays open though nobody writes: a pipe that the process itself holds open for writing, so
//! that no one else need live for it. With `-t` the three are one terminal; a *keeper*, a process of
//! its own (`mossnet terminal`), holds the other end and copies what is printed into the sink. It is
//! the daemon's child but outlives a daemon that dies, and ends when the last process on the terminal
//! has: the kernel then ends its read (EIO, pty(7)).

use super::refusal::FileError;
use nix::pty::{Winsize, openpty};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use tokio::process::Command;

/// Hidden first word of the command line of a keeper.
pub const KEEPER: &str = "terminal";
/// This program, whatever has become of its file.
const SELF: &str = "/proc/self/exe";
/// What a terminal is as long as nobody says otherwise.
const SIZE: Winsize = Winsize {
    ws_row: 24,
    ws_col: 80,
    ws_xpixel: 0,
    ws_ypixel: 0,
};
/// Bytes moved at once.
const BUFFER: usize = 16 << 10;

/// Standard streams of a detached process.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Detached {
    /// Its stdin stays open.
    pub(super) interactive: bool,
    /// It has a terminal.
    pub(super) tty: bool,
}

impl Detached {
    /// Makes them, output going to the end of the file `sink`. Within the runtime.
    pub(super) fn open(self, sink: &Path) -> Result<[OwnedFd; 3], FileError> {
        let mut options = OpenOptions::new();
        let output = options.create(true).append(true).mode(0o600).open(sink);
        let output = output.map_err(FileError::on("open", sink))?;
        if self.tty {
            let path = Path::new("/dev/ptmx");
            return terminal(output).map_err(FileError::on("make a terminal from", path));
        }
        let stderr = output.try_clone().map_err(FileError::on("open", sink))?;
        let stdin = if self.interactive {
            open_for_ever().map_err(FileError::on("keep open", Path::new("/dev/stdin")))?
        } else {
            let null = Path::new("/dev/null");
            File::open(null).map_err(FileError::on("open", null))?
        };
        Ok([stdin.into(), output.into(), stderr.into()])
    }

    /// The same with output that nobody keeps.
    pub(super) fn nowhere(self) -> Result<[OwnedFd; 3], FileError> {
        self.open(Path::new("/dev/null"))
    }
}

/// A pipe that never ends and never has anything in it (fifo(7): opening both ways works on Linux).
fn open_for_ever() -> io::Result<File> {
    let (reader, _writer) = io::pipe()?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
    OpenOptions::new().read(true).write(true).open(path)
}

/// Three times the far end of a new terminal, whose keeper runs.
fn terminal(sink: File) -> io::Result<[OwnedFd; 3]> {
    let pair = openpty(&SIZE, None)?;
    // Neither end is to stay open in anyone who is not meant to have it.
    for end in [&pair.master, &pair.slave] {
        rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
    }
    let mut keeper = Command::new(SELF)
        .arg0("mossnet")
        .arg(KEEPER)
        .stdin(Stdio::from(pair.master))
        .stdout(Stdio::from(sink))
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    // Its end is of no interest, but somebody must wait for it.
    tokio::spawn(async move { keeper.wait().await });
    let far = pair.slave;
    Ok([far.try_clone()?, far.try_clone()?, far])
}

/// What a keeper does: copies from its stdin, the near end, to its stdout, until the far end is closed.
pub fn keep() -> ExitCode {
    let mut near = io::stdin().lock();
    let mut sink = io::stdout().lock();
    let mut buffer = vec![0; BUFFER];
    loop {
        match near.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return ExitCode::SUCCESS,
            Ok(length) => {
                let part = buffer.get(..length).unwrap_or_default();
                // A full disk loses output, but does not stop who prints it.
                let _ = sink.write_all(part).and_then(|()| sink.flush());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;

    fn readable(fd: &OwnedFd) -> bool {
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() > 0
    }

    #[test]
    fn output_goes_to_the_end_of_the_sink() {
        let sink = std::env::temp_dir().join(format!("mossnet-streams-{}", std::process::id()));
        for times in 1..=2 {
            let [stdin, out, err] = Detached::default().open(&sink).unwrap();
            assert!(readable(&stdin), "at its end at once");
            File::from(out).write_all(b"one\n").unwrap();
            File::from(err).write_all(b"two\n").unwrap();
            let said = std::fs::read_to_string(&sink).unwrap();
            assert_eq!(said, "one\ntwo\n".repeat(times));
        }
        std::fs::remove_file(&sink).unwrap();
    }

    #[test]
    fn an_open_stdin_has_nothing_and_does_not_end() {
        let interactive = Detached {
            interactive: true,
            tty: false,
        };
        let [stdin, ..] = interactive.nowhere().unwrap();
        assert!(!readable(&stdin));
    }
}
