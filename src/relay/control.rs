//! The relay's line to the helper: snapshots come in, one word goes back.
//!
//! A SOCK_SEQPACKET socket. One message per snapshot: its length (8 bytes, little-endian), and a
//! sealed memfd that holds its JSON from offset 0. Each is answered by `ok` or an error text; the
//! relay's first message, unasked, is `ready` or an error text. End of file means exit.
//!
//! Invariant: a snapshot that cannot be read leaves the rules as they are.
//!
//! Sources: unix(7), memfd_create(2), cmsg(3).

use super::rules::{Rules, SharedRules};
use crate::error::one_line;
use crate::network::snapshot::Snapshot;
use crate::sys;
use socket2::{Domain, SockRef, Type};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Largest snapshot taken, bytes: some hundred thousand names.
const MAX_SNAPSHOT: u64 = 64 << 20;

/// Why a snapshot was not taken up.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Not eight bytes and one descriptor.
    #[error("snapshot message of {length} bytes and {descriptors} descriptors; it must be 8 and 1")]
    Malformed {
        /// Bytes that came.
        length: usize,
        /// Descriptors that came.
        descriptors: usize,
    },
    /// More than [`MAX_SNAPSHOT`].
    #[error("snapshot of {0} bytes; at most {MAX_SNAPSHOT} are taken")]
    TooLarge(u64),
    /// The memfd cannot be read, or is shorter than was said.
    #[error("read the snapshot")]
    Read(#[source] io::Error),
    /// Not a snapshot.
    #[error("understand the snapshot")]
    Json(#[from] serde_json::Error),
}

/// The relay's end.
#[derive(Debug)]
pub struct Control(OwnedFd);

impl Control {
    /// Checks that `socket` is a SOCK_SEQPACKET unix socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let options = SockRef::from(&socket);
        if options.domain()? != Domain::UNIX || options.r#type()? != Type::SEQPACKET {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a SOCK_SEQPACKET unix socket",
            ));
        }
        Ok(Self(socket))
    }

    /// Sends one message.
    pub fn say(&self, text: &str) -> io::Result<()> {
        SockRef::from(&self.0)
            .send_with_flags(text.as_bytes(), libc::MSG_NOSIGNAL)
            .map(drop)
    }

    /// Takes up snapshots until the helper closes its end, or dies.
    pub fn serve(&self, rules: &SharedRules) -> io::Result<()> {
        let mut buffer = [0; 16];
        loop {
            let message = match sys::descriptors::receive(self.0.as_fd(), &mut buffer) {
                Ok(message) => message,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let bytes = buffer.get(..message.length).unwrap_or_default();
            if bytes.is_empty() && message.descriptors.is_empty() {
                return Ok(());
            }
            match read(bytes, message.descriptors) {
                Ok(snapshot) => {
                    tracing::info!(
                        snapshot.generation = snapshot.generation,
                        snapshot.networks = snapshot.networks.len(),
                        "snapshot taken up"
                    );
                    rules.replace(Rules::new(snapshot));
                    self.say("ok")?;
                }
                Err(error) => {
                    let error = one_line(&error);
                    tracing::error!(error, "snapshot refused");
                    self.say(&error)?;
                }
            }
        }
    }
}

fn read(message: &[u8], descriptors: Vec<OwnedFd>) -> Result<Snapshot, ControlError> {
    let malformed = ControlError::Malformed {
        length: message.len(),
        descriptors: descriptors.len(),
    };
    let Ok(length) = <[u8; 8]>::try_from(message) else {
        return Err(malformed);
    };
    let Ok([memfd]) = <[OwnedFd; 1]>::try_from(descriptors) else {
        return Err(malformed);
    };
    let length = u64::from_le_bytes(length);
    if length > MAX_SNAPSHOT {
        return Err(ControlError::TooLarge(length));
    }
    let mut json = vec![0; length as usize];
    File::from(memfd)
        .read_exact_at(&mut json, 0)
        .map_err(ControlError::Read)?;
    Ok(serde_json::from_slice(&json)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use socket2::Socket;
    use std::io::Write as _;
    use std::sync::Arc;

    struct World {
        helper: OwnedFd,
        rules: Arc<SharedRules>,
        relay: Option<std::thread::JoinHandle<io::Result<()>>>,
    }

    impl World {
        fn new() -> Self {
            let (helper, relay) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
            let control = Control::new(relay.into()).unwrap();
            let rules = Arc::new(SharedRules::default());
            let shared = Arc::clone(&rules);
            Self {
                helper: helper.into(),
                rules,
                relay: Some(std::thread::spawn(move || control.serve(&shared))),
            }
        }

        fn send(&self, json: &str, length: u64) -> String {
            let memfd = memfd_create(c"snapshot", MFdFlags::MFD_CLOEXEC).unwrap();
            let mut file = File::from(memfd);
            file.write_all(json.as_bytes()).unwrap();
            sys::descriptors::send(self.helper.as_fd(), &length.to_le_bytes(), &[file.as_fd()])
                .unwrap();
            self.answer()
        }

        fn answer(&self) -> String {
            let mut buffer = [0; 512];
            let message = sys::descriptors::receive(self.helper.as_fd(), &mut buffer).unwrap();
            String::from_utf8(buffer[..message.length].to_vec()).unwrap()
        }
    }

    #[test]
    fn snapshots_replace_the_rules_and_bad_ones_do_not() {
        let mut world = World::new();
        let mut snapshot = Snapshot {
            generation: 3,
            ..Snapshot::default()
        };
        let json = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(world.send(&json, json.len() as u64), "ok");
        assert_eq!(world.rules.load().snapshot().generation, 3);
        assert!(world.send("{}", 2).contains("understand the snapshot"));
        assert!(world.send("{}", 3).contains("read the snapshot"));
        assert!(world.send("{}", u64::MAX).contains("at most"));
        SockRef::from(&world.helper).send(b"hello").unwrap();
        assert!(world.answer().contains("5 bytes and 0 descriptors"));
        assert_eq!(world.rules.load().snapshot().generation, 3);
        snapshot.generation = 4;
        let json = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(world.send(&json, json.len() as u64), "ok");
        assert_eq!(world.rules.load().snapshot().generation, 4);
        let relay = world.relay.take().unwrap();
        drop(world);
        relay.join().unwrap().unwrap();
    }

    #[test]
    fn other_sockets_are_refused() {
        let (stream, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(Control::new(stream.into()).is_err());
    }
}
