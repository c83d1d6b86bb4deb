//! While the ports are open: waits for the container's end, for podman to say its new address, and for changes of
//! its network that podman does not tell.
//!
//! Podman connects to `TMPDIR/rp/CONTAINER` (SOCK_SEQPACKET), writes the address as a string of JSON, and reads
//! `OK` or an error text until the end. Invariant: nobody holds this up for longer than [`PATIENCE`].

use super::input;
use super::place::Site;
use super::refusal::{Refusal, process};
use crate::error::one_line;
use crate::relay::publish::alone::Ports;
use crate::relay::sandbox::{self, SandboxError};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{UnlinkatFlags, read, unlinkat};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the sockets are, below podman's directory.
const DIRECTORY: &str = "rp";
/// How long podman may take to write, and to read.
const PATIENCE: Duration = Duration::from_secs(2);
/// One change seldom comes alone.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest message.
const MESSAGE: usize = 1024;
/// Who wait to be accepted.
const BACKLOG: i32 = 16;

/// Where podman says new addresses. The socket's file goes with it.
pub struct Updates {
    socket: Socket,
    directory: PathBuf,
    name: String,
}

impl Drop for Updates {
    fn drop(&mut self) {
        let path = self.directory.join(&self.name);
        let _ = unlinkat(AT_FDCWD, &path, UnlinkatFlags::NoRemoveDir);
    }
}

impl Updates {
    /// Listens there; what an earlier process has left goes.
    pub fn listen(tmp_dir: &Path, container: &str) -> Result<Self, Refusal> {
        let directory = tmp_dir.join(DIRECTORY);
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&directory);
        made.map_err(process("make the directory for podman's news"))?;
        let path = directory.join(container);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(process("remove an old socket")(error));
            }
            _ => {}
        }
        let listen = || -> io::Result<Socket> {
            let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
            // By descriptor, since a socket's path has at most 107 bytes.
            let opened = File::open(&directory)?;
            let short = format!("/proc/self/fd/{}/{container}", opened.as_raw_fd());
            socket.bind(&SockAddr::unix(short)?)?;
            socket.listen(BACKLOG)?;
            Ok(socket)
        };
        Ok(Self {
            socket: listen().map_err(process("listen for podman's news"))?,
            directory,
            name: container.to_owned(),
        })
    }

    /// Makes its directory the root of this process, which can remove the socket then.
    pub fn become_root(&mut self) -> Result<(), SandboxError> {
        sandbox::only_directory(&self.directory)?;
        self.directory = PathBuf::from("/");
        Ok(())
    }
}

/// Serves until the other end of `exit` is closed.
pub fn serve(
    ports: &Ports,
    site: &mut Site,
    updates: Option<&Updates>,
    exit: &OwnedFd,
) -> Result<(), Refusal> {
    loop {
        let wait = |on| PollFd::new(on, PollFlags::POLLIN);
        let mut waits = vec![wait(exit.as_fd()), wait(site.changes())];
        waits.extend(updates.map(|on| wait(on.socket.as_fd())));
        match poll(&mut waits, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.map_err(|errno| process("wait for the container")(errno.into()))?,
        };
        let happened =
            |wait: Option<&PollFd<'_>>| wait.is_some_and(|wait| wait.any() == Some(true));
        if happened(waits.first()) && has_ended(exit) {
            return Ok(());
        }
        let changed = happened(waits.get(1));
        if let Some(updates) = updates.filter(|_| happened(waits.get(2))) {
            hear(ports, site, updates);
        } else if changed && !ends_within(exit, PAUSE) {
            // A network that is gone altogether has no ports; podman says so, or ends us.
            if let Ok(Some(snapshot)) = site.follow() {
                ports.lead(snapshot);
            }
        }
    }
}

/// Whether something happens there within a time.
fn ends_within(exit: &OwnedFd, time: Duration) -> bool {
    let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO);
    let waits = &mut [PollFd::new(exit.as_fd(), PollFlags::POLLIN)];
    poll(waits, time).is_ok_and(|count| count > 0)
}

/// What is written there means nothing.
fn has_ended(exit: &OwnedFd) -> bool {
    match read(exit, &mut [0; 64]) {
        Ok(length) => length == 0,
        Err(errno) => !matches!(errno, Errno::EINTR | Errno::EAGAIN),
    }
}

/// One message of podman's.
fn hear(ports: &Ports, site: &mut Site, updates: &Updates) {
    // Gone again, or no room for a descriptor: podman says that it was not heard.
    let Ok((podman, _)) = updates.socket.accept() else {
        return;
    };
    let patience = Some(PATIENCE);
    let limited = podman
        .set_read_timeout(patience)
        .and_then(|()| podman.set_write_timeout(patience));
    if limited.is_err() {
        return;
    }
    let mut message = [0; MESSAGE];
    let answer = match read(&podman, &mut message) {
        Ok(length) => match follow(ports, site, message.get(..length).unwrap_or_default()) {
            Ok(()) => "OK".to_owned(),
            Err(error) => one_line(&error),
        },
        Err(errno) => format!("read the address: {errno}"),
    };
    let _ = SockRef::from(&podman).send_with_flags(answer.as_bytes(), libc::MSG_NOSIGNAL);
}

fn follow(ports: &Ports, site: &mut Site, message: &[u8]) -> Result<(), Refusal> {
    let text: String = serde_json::from_slice(message).map_err(Refusal::Json)?;
    let child = input::child(&text)?;
    ports.lead(site.settle(child)?);
    Ok(())
}

/// Tells podman that every port listens.
pub fn say_ready(ready: OwnedFd) -> Result<(), Refusal> {
    let written = File::from(ready).write_all(b"1");
    written.map_err(process("tell podman that the ports listen"))
}
