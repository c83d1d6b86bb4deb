//! The relay's line to the helper: snapshots, listening sockets and where endpoints are come in, one word
//! goes back.
//!
//! A SOCK_SEQPACKET socket. Messages, each answered in order by a word or an error text:
//!
//! | message | descriptors | answer |
//! |---|---|---|
//! | length, 8 bytes, little-endian | a sealed memfd with the JSON of a snapshot from offset 0 | `ok` |
//! | `listeners` | 1 to 253 listening sockets of the host netns | `ok` |
//! | `counters` | a memfd, to be written from offset 0 | `counted LENGTH` |
//! | `endpoints LENGTH` | a sealed memfd with a JSON list of [`EndpointPlace`] from offset 0 | `ok` |
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
use super::endpoints::Endpoints;
use super::publish::listener::{Bound, Listener, ListenerError};
use super::publish::table::{Listeners, Table};
use super::rules::{Rules, SharedRules};
use crate::error::one_line;
use crate::network::snapshot::Snapshot;
use crate::sys;
use mossnet_helper::framed::EndpointPlace;
use serde::de::DeserializeOwned;
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

/// Most JSON taken at once, bytes: a snapshot of some hundred thousand names, or as many endpoints.
const MAX_JSON: u64 = 64 << 20;
/// Longest message: `endpoints` and a number.
const LONGEST_MESSAGE: usize = 32;

/// What comes as JSON.
const SNAPSHOT: &str = "snapshot";
const ENDPOINTS: &str = "list of endpoints";

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
    /// More than [`MAX_JSON`].
    #[error("{what} of {length} bytes; at most {MAX_JSON} are taken")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// Bytes.
        length: u64,
    },
    /// The memfd cannot be read, or is shorter than was said.
    #[error("read the {what}")]
    Read {
        /// What was to be in it.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Something else than was said.
    #[error("understand the {what}")]
    Json {
        /// What it was to be.
        what: &'static str,
        /// Why it is not.
        source: serde_json::Error,
    },
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
    endpoints: &'a Endpoints,
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
    pub fn serve(
        &self,
        rules: &SharedRules,
        budget: &FdBudget,
        endpoints: &Endpoints,
    ) -> io::Result<()> {
        let mut desk = Desk {
            rules,
            budget,
            endpoints,
            listeners: Listeners::new(),
        };
        let mut buffer = [0; LONGEST_MESSAGE];
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
            _ => match bytes.strip_prefix(b"endpoints ") {
                Some(length) => self.endpoints(bytes, length, descriptors),
                None => self.snapshot(bytes, descriptors),
            },
        }
    }

    fn endpoints(
        &self,
        message: &[u8],
        length: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<String, ControlError> {
        let length = decimal(length).ok_or(ControlError::Malformed {
            length: message.len(),
            descriptors: descriptors.len(),
        })?;
        let memfd = only(message, descriptors)?;
        let list: Vec<EndpointPlace> = json(memfd, length, ENDPOINTS)?;
        tracing::debug!(endpoints.count = list.len(), "list of endpoints taken up");
        self.endpoints.replace(list);
        Ok("ok".to_owned())
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
        let counts = self.rules.load().publishes().counts();
        serde_json::to_vec(&counts)
            .map_err(io::Error::from)
            .and_then(|json| {
                File::from(memfd).write_all_at(&json, 0)?;
                Ok(format!("counted {}", json.len()))
            })
            .map_err(ControlError::Counters)
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
    json(memfd, u64::from_le_bytes(length), SNAPSHOT)
}

/// The number that is written so.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text)
        .ok()?
        .parse()
        .ok()
        .filter(|_| digits)
}

/// What a memfd says in so many bytes.
fn json<T: DeserializeOwned>(
    memfd: OwnedFd,
    length: u64,
    what: &'static str,
) -> Result<T, ControlError> {
    if length > MAX_JSON {
        return Err(ControlError::TooLarge { what, length });
    }
    let mut json = vec![0; length as usize];
    File::from(memfd)
        .read_exact_at(&mut json, 0)
        .map_err(|source| ControlError::Read { what, source })?;
    serde_json::from_slice(&json).map_err(|source| ControlError::Json { what, source })
}

#[cfg(test)]
mod tests;
