//! The relay's line to the helper: snapshots and listening sockets come in, one word goes back.
//!
//! A SOCK_SEQPACKET socket. Messages, each answered in order by a word or an error text:
//!
//! | message | descriptors | answer |
//! |---|---|---|
//! | length, 8 bytes, little-endian | a sealed memfd with the JSON of a snapshot from offset 0 | `ok` |
//! | `listeners` | 1 to 253 listening sockets of the host netns | `ok` |
//! | `counters` | a memfd, to be written from offset 0 | `counted LENGTH` |
//!
//! Sockets say themselves where they listen; a new one takes the place of an old one. They are for
//! the snapshot that follows: those that it does not name are closed. The relay's first message,
//! unasked, is `ready` or an error text; later it may say `rush ADDRESS` and `rush over ADDRESS`. End of file
//! means exit.
//!
//! Invariant: a message that cannot be read leaves everything as it is.
//!
//! Sources: unix(7), memfd_create(2), cmsg(3).

use super::budget::FdBudget;
use super::publish::listener::{Bound, Listener, ListenerError};
use super::publish::table::{Listeners, Table};
use super::rules::{Rules, SharedRules};
use crate::error::one_line;
use crate::network::snapshot::Snapshot;
use crate::sys;
use socket2::{Domain, SockRef, Type};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long to wait for workers to let go of a socket, and between two looks.
const CLOSING: Duration = Duration::from_secs(1);
const CLOSING_PAUSE: Duration = Duration::from_micros(500);

/// Largest snapshot taken, bytes: some hundred thousand names.
const MAX_SNAPSHOT: u64 = 64 << 20;

/// Why a message was not taken up.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// None of the messages that there are.
    #[error("message of {length} bytes and {descriptors} descriptors; a snapshot has 8 and 1")]
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
    /// One of the sockets is none, or of another kind.
    #[error("take up a published port's socket")]
    Listener(#[from] ListenerError),
    /// The limit of open files.
    #[error(
        "no room for {0} more published ports: the limit of open files (ulimit -Hn) is reached"
    )]
    NoRoom(usize),
    /// Bytes or descriptors were lost on the way.
    #[error("message was cut short, perhaps at the limit of open files (ulimit -Hn)")]
    CutShort,
    /// The memfd cannot be written.
    #[error("write the counters")]
    Counters(#[source] io::Error),
}

/// The relay's end.
#[derive(Debug)]
pub struct Control(OwnedFd);

/// What the messages are about.
struct Desk<'a> {
    rules: &'a SharedRules,
    budget: &'a FdBudget,
    listeners: Listeners,
}

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

    /// The same socket once more, for words that nobody asked for ([`super::rush`]).
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Sends one message.
    pub fn say(&self, text: &str) -> io::Result<()> {
        SockRef::from(&self.0)
            .send_with_flags(text.as_bytes(), libc::MSG_NOSIGNAL)
            .map(drop)
    }

    /// Takes up messages until the helper closes its end, or dies. Listening sockets are taken from
    /// `budget`.
    pub fn serve(&self, rules: &SharedRules, budget: &FdBudget) -> io::Result<()> {
        let mut desk = Desk {
            rules,
            budget,
            listeners: Listeners::new(),
        };
        let mut buffer = [0; 16];
        loop {
            let answer = match sys::descriptors::receive(self.0.as_fd(), &mut buffer) {
                Ok(message) => {
                    let bytes = buffer.get(..message.length).unwrap_or_default();
                    if bytes.is_empty() && message.descriptors.is_empty() {
                        return Ok(());
                    }
                    desk.take(bytes, message.descriptors)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    Err(ControlError::CutShort)
                }
                Err(error) => return Err(error),
            };
            match answer {
                Ok(word) => self.say(&word)?,
                Err(error) => {
                    let error = one_line(&error);
                    tracing::error!(error, "message of the helper refused");
                    self.say(&error)?;
                }
            }
        }
    }
}

impl Desk<'_> {
    fn take(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) -> Result<String, ControlError> {
        match bytes {
            b"listeners" if !descriptors.is_empty() => self.listeners(descriptors),
            b"counters" => self.counters(only(bytes, descriptors)?),
            _snapshot => self.snapshot(bytes, descriptors),
        }
    }

    fn snapshot(
        &mut self,
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<String, ControlError> {
        let snapshot = read(bytes, descriptors)?;
        let before = Arc::clone(self.rules.load().publishes());
        let (table, missing) = Table::build(&snapshot, &self.listeners, &before);
        if let Some(first) = missing.first() {
            tracing::error!(
                publish.listener = %first,
                publish.missing = missing.len(),
                "published ports have no socket and are not served"
            );
        }
        let named = |bound: &Bound, _: &mut Arc<Listener>| table.get(bound).is_none();
        let closed = self.listeners.extract_if(named);
        let closing: Vec<_> = closed.map(|(_, gone)| Arc::downgrade(&gone)).collect();
        self.budget.release(closing.len());
        tracing::info!(
            snapshot.generation = snapshot.generation,
            snapshot.networks = snapshot.networks.len(),
            snapshot.ports = self.listeners.len(),
            "snapshot taken up"
        );
        self.rules.replace(Rules::new(snapshot).publishing(table));
        drop(before);
        wait_until_closed(&closing);
        Ok("ok".to_owned())
    }

    fn listeners(&mut self, descriptors: Vec<OwnedFd>) -> Result<String, ControlError> {
        let sockets = descriptors.into_iter().map(Listener::new);
        let sockets: Vec<Listener> = sockets.collect::<Result<_, _>>()?;
        if !self.budget.take(sockets.len(), Instant::now()) {
            return Err(ControlError::NoRoom(sockets.len()));
        }
        for socket in sockets {
            if let Some(_old) = self.listeners.insert(socket.bound(), Arc::new(socket)) {
                self.budget.release(1);
            }
        }
        Ok("ok".to_owned())
    }

    fn counters(&self, memfd: OwnedFd) -> Result<String, ControlError> {
        let json = serde_json::to_vec(&self.rules.load().publishes().counts())?;
        File::from(memfd)
            .write_all_at(&json, 0)
            .map_err(ControlError::Counters)?;
        Ok(format!("counted {}", json.len()))
    }
}

/// Until the workers have let go of these sockets, so that their ports are free when the helper hears
/// of it. Workers are woken by new rules, and are never busy for long.
fn wait_until_closed(sockets: &[Weak<Listener>]) {
    let begin = Instant::now();
    while sockets.iter().any(|socket| socket.strong_count() > 0) {
        if begin.elapsed() > CLOSING {
            tracing::warn!("sockets of ports that are published no longer are still in use");
            return;
        }
        std::thread::sleep(CLOSING_PAUSE);
    }
}

/// The one descriptor that a message must have.
fn only(message: &[u8], descriptors: Vec<OwnedFd>) -> Result<OwnedFd, ControlError> {
    let malformed = ControlError::Malformed {
        length: message.len(),
        descriptors: descriptors.len(),
    };
    let [descriptor] = <[OwnedFd; 1]>::try_from(descriptors).map_err(|_| malformed)?;
    Ok(descriptor)
}

fn read(message: &[u8], descriptors: Vec<OwnedFd>) -> Result<Snapshot, ControlError> {
    let Ok(length) = <[u8; 8]>::try_from(message) else {
        return Err(ControlError::Malformed {
            length: message.len(),
            descriptors: descriptors.len(),
        });
    };
    let memfd = only(message, descriptors)?;
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
    use crate::network::snapshot::PublishView;
    use crate::ports::{PublishSpec, SourceAddress};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use socket2::Socket;
    use std::io::{Read as _, Seek as _, Write as _};
    use std::net::TcpListener;
    use std::os::fd::BorrowedFd;

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
                relay: Some(std::thread::spawn(move || {
                    control.serve(&shared, &FdBudget::new(8))
                })),
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

    impl World {
        fn listeners(&self, sockets: &[BorrowedFd<'_>]) -> String {
            sys::descriptors::send(self.helper.as_fd(), b"listeners", sockets).unwrap();
            self.answer()
        }

        fn publish(&self, ports: &[u16]) -> usize {
            let publish = |port: &u16| PublishView {
                sandbox: "web".into(),
                publish: format!("127.0.0.1:{port}:80")
                    .parse::<PublishSpec>()
                    .unwrap()
                    .fixed(SourceAddress::Keep)
                    .unwrap(),
                targets: vec!["10.89.0.2".parse().unwrap()],
                inside: false,
                either_family: false,
            };
            let snapshot = Snapshot {
                publishes: ports.iter().map(publish).collect(),
                ..Snapshot::default()
            };
            let json = serde_json::to_string(&snapshot).unwrap();
            assert_eq!(self.send(&json, json.len() as u64), "ok");
            self.rules.load().publishes().iter().count()
        }
    }

    fn listening() -> (TcpListener, u16) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        (socket, port)
    }

    #[test]
    fn listeners_are_kept_for_as_long_as_snapshots_name_them() {
        let world = World::new();
        let (one, first) = listening();
        let (other, second) = listening();
        assert_eq!(world.listeners(&[one.as_fd(), other.as_fd()]), "ok");
        // A port without a socket is not served, the others are.
        assert_eq!(world.publish(&[first, second, 1]), 2);
        let before = Arc::clone(world.rules.load().publishes());
        assert_eq!(world.publish(&[first, second]), 2);
        assert!(Arc::ptr_eq(&before, world.rules.load().publishes()));
        assert_eq!(world.publish(&[second]), 1);
        // The first was closed: naming it again does not bring it back.
        assert_eq!(world.publish(&[first, second]), 1);
        drop((one, before));
        assert!(TcpListener::bind(("127.0.0.1", first)).is_ok());
        // Six of eight descriptors may be taken.
        let more: Vec<_> = (0..6).map(|_| listening().0).collect();
        let more: Vec<_> = more.iter().map(AsFd::as_fd).collect();
        assert!(world.listeners(&more).contains("no room for 6"));
        assert_eq!(world.listeners(&more[..5]), "ok");
        let unix = world.helper.as_fd();
        assert!(world.listeners(&[unix]).contains("published port's socket"));
    }

    #[test]
    fn counters_are_written_where_the_asker_wants_them() {
        let world = World::new();
        let (socket, port) = listening();
        world.listeners(&[socket.as_fd()]);
        world.publish(&[port]);
        let rules = world.rules.load();
        let published = rules.publishes().iter().next().unwrap();
        published.listener().counters.accept();
        published.listener().counters.carry(3, 4);
        let memfd = memfd_create(c"counters", MFdFlags::MFD_CLOEXEC).unwrap();
        sys::descriptors::send(world.helper.as_fd(), b"counters", &[memfd.as_fd()]).unwrap();
        let answer = world.answer();
        let mut text = String::new();
        let mut file = File::from(memfd);
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(answer, format!("counted {}", text.len()));
        let expected = format!(
            r#"[{{"listener":"127.0.0.1:{port}/tcp","sandbox":"web","accepted":1,"refused":0,"bytes_in":3,"bytes_out":4}}]"#
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn other_sockets_are_refused() {
        let (stream, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(Control::new(stream.into()).is_err());
    }
}
