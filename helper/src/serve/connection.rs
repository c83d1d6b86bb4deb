//! The daemon's connection: frames in, with their descriptors; frames out, as far as it takes them.

use crate::request::{Failure, Frame, MAX_FRAME, Request, SandboxNetns};
use mossnet_netlink::fds::{MAX_FDS, recv_with_fds};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;
/// Answers that the daemon does not read pile up to this; then it is given up.
const MOST_UNREAD: usize = 64 << 20;
/// The length before each frame.
const PREFIX: usize = 4;

/// A connection, or one that is over.
#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    arrived: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    unsent: Vec<u8>,
}

/// A request as it came: with its descriptors, or unintelligible.
pub type Incoming = Result<(Request, Vec<OwnedFd>), Failure>;

impl Connection {
    /// Over a non-blocking socket.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            arrived: Vec::new(),
            descriptors: Vec::new(),
            unsent: Vec::new(),
        })
    }

    /// For poll(2).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Something waits to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Read what is there; false: the daemon has closed it, or it must be given up.
    pub fn fill(&mut self) -> bool {
        let mut buffer = vec![0; CHUNK];
        match recv_with_fds(self.socket.as_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok((0, _)) => false,
            Ok((length, descriptors)) => {
                self.arrived.extend_from_slice(&buffer[..length]);
                self.descriptors.extend(descriptors);
                // Those of a request of which the rest is still to come, and of the next one.
                self.descriptors.len() <= 2 * MAX_FDS
            }
            Err(Errno::EAGAIN | Errno::EINTR) => true,
            Err(_) => false,
        }
    }

    /// The next whole request. `Err(())`: the connection cannot go on.
    pub fn next(&mut self) -> Result<Option<Incoming>, ()> {
        let Some(prefix) = self.arrived.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > MAX_FRAME {
            return Err(());
        }
        let Some(json) = self.arrived.get(PREFIX..PREFIX + length) else {
            return Ok(None);
        };
        let request = serde_json::from_slice::<Request>(json);
        self.arrived.drain(..PREFIX + length);
        let wanted = request
            .as_ref()
            .map_or(0, descriptors_of)
            .min(self.descriptors.len());
        let descriptors = self.descriptors.drain(..wanted).collect();
        if self.arrived.is_empty() {
            // They came with a request that takes none.
            self.descriptors.clear();
        }
        let incoming = request.map(|request| (request, descriptors));
        Ok(Some(incoming.map_err(|e| {
            Failure::invalid(format!("unintelligible request: {e}"))
        })))
    }

    /// Queue a frame, and send what the socket takes; false: it must be given up.
    pub fn push(&mut self, frame: &Frame) -> bool {
        let Ok(json) = serde_json::to_vec(frame) else {
            return false;
        };
        let Ok(length) = u32::try_from(json.len()) else {
            return false;
        };
        self.unsent.extend_from_slice(&length.to_le_bytes());
        self.unsent.extend_from_slice(&json);
        self.unsent.len() <= MOST_UNREAD && self.flush()
    }

    /// Send what the socket takes; false: it is broken.
    pub fn flush(&mut self) -> bool {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while !self.unsent.is_empty() {
            match send(self.socket.as_raw_fd(), &self.unsent, flags) {
                Ok(sent) => {
                    self.unsent.drain(..sent);
                }
                Err(Errno::EAGAIN) => return true,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// How many descriptors come with a request.
fn descriptors_of(request: &Request) -> usize {
    match request {
        Request::CreateSandbox(spec) if spec.process.is_none() => {
            usize::from(spec.netns == SandboxNetns::Given)
        }
        Request::CreateSandbox(_) | Request::Exec(_) => 3,
        Request::Listeners { keys } => keys.len(),
        Request::RelaySnapshot { .. } => 1,
        Request::Hello { .. }
        | Request::Inventory
        | Request::Bridge(_)
        | Request::RemoveBridge { .. }
        | Request::Ruleset { .. }
        | Request::Attach(_)
        | Request::DefaultRoutes { .. }
        | Request::Detach { .. }
        | Request::StartSandbox { .. }
        | Request::Signal { .. }
        | Request::Unsent { .. }
        | Request::Forget { .. }
        | Request::Counters { .. }
        | Request::StartUplink(_)
        | Request::KernelUplink(_)
        | Request::StopUplink { .. }
        | Request::Shutdown => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Connection::new(ours).unwrap(), theirs)
    }

    fn frame(json: &[u8]) -> Vec<u8> {
        let mut bytes = (json.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(json);
        bytes
    }

    #[test]
    fn requests_arrive_whole_however_they_are_cut() {
        let (mut connection, mut daemon) = pair();
        let bytes = frame(br#"{"request":"inventory"}"#);
        for byte in &bytes[..bytes.len() - 1] {
            daemon.write_all(&[*byte]).unwrap();
            assert!(connection.fill());
            assert!(matches!(connection.next(), Ok(None)));
        }
        daemon.write_all(&bytes[bytes.len() - 1..]).unwrap();
        daemon.write_all(&frame(b"{}")).unwrap();
        assert!(connection.fill());
        assert!(matches!(
            connection.next(),
            Ok(Some(Ok((Request::Inventory, _))))
        ));
        assert!(matches!(connection.next(), Ok(Some(Err(_)))));
        assert!(matches!(connection.next(), Ok(None)));
        drop(daemon);
        assert!(!connection.fill());
    }

    #[test]
    fn a_frame_beyond_the_limit_ends_the_connection() {
        let (mut connection, mut daemon) = pair();
        daemon
            .write_all(&(MAX_FRAME as u32 + 1).to_le_bytes())
            .unwrap();
        assert!(connection.fill());
        assert!(connection.next().is_err());
    }

    #[test]
    fn answers_wait_for_a_slow_reader() {
        let (mut connection, mut daemon) = pair();
        let failure = Failure::invalid("x".repeat(1 << 20));
        assert!(connection.push(&Frame::Reply(Err(failure.clone()))));
        assert!(connection.has_unsent());
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            daemon.read_to_end(&mut all).unwrap();
            all
        });
        while connection.has_unsent() {
            assert!(connection.flush());
        }
        drop(connection);
        let all = reader.join().unwrap();
        let frame: Frame = serde_json::from_slice(&all[PREFIX..]).unwrap();
        assert_eq!(frame, Frame::Reply(Err(failure)));
    }
}
