//! What is sent to the relay: listening sockets, snapshots, a place for counters, where endpoints are.
//!
//! | message | descriptors | answer |
//! |---|---|---|
//! | `listeners` | 1 to 253 listening sockets | `ok` |
//! | length of the JSON, 8 bytes, little-endian | a sealed memfd that holds it | `ok` |
//! | `counters` | a memfd, to be written | `counted LENGTH` |
//! | `endpoints LENGTH` | a sealed memfd that holds the JSON, a list of [`crate::framed::EndpointPlace`] | `ok` |
//!
//! Sources: memfd_create(2), unix(7), cmsg(3).

use crate::request::{Failure, MAX_LISTENERS, PortCount};
use crate::sealed::Sealed;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

/// More bytes of counters are a mistake: 65,535 ports need a fifth of it.
const MOST_COUNTERS: usize = 64 << 20;
/// A key is an address, a port and a protocol.
const LONGEST_KEY: usize = 64;

/// One message.
#[derive(Debug)]
pub(super) enum Parcel {
    /// Sockets with these keys.
    Listeners(Vec<String>),
    /// JSON.
    Snapshot(Sealed),
    /// Where to write.
    Counters(File),
    /// JSON: where all endpoints are.
    Endpoints(Sealed),
}

/// Sockets, in as many messages as it takes, then the snapshot that needs them.
pub(super) fn parcels(keys: Vec<String>, snapshot: Sealed) -> VecDeque<Parcel> {
    let sockets = keys.chunks(MAX_LISTENERS);
    let sockets = sockets.map(|keys| Parcel::Listeners(keys.to_vec()));
    sockets.chain([Parcel::Snapshot(snapshot)]).collect()
}

/// The length in `counted LENGTH`.
pub(super) fn counted(answer: &str) -> Option<usize> {
    let length = answer.strip_prefix("counted ")?.parse().ok()?;
    (length <= MOST_COUNTERS).then_some(length)
}

/// Listening sockets that are kept, by key.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<String, OwnedFd>);

impl Held {
    /// Take sockets over, one for each key; the keys are given back.
    pub(super) fn keep(
        &mut self,
        keys: Vec<String>,
        sockets: Vec<OwnedFd>,
    ) -> Result<Vec<String>, Failure> {
        if keys.is_empty() || keys.len() > MAX_LISTENERS || keys.len() != sockets.len() {
            return Err(Failure::invalid(format!(
                "{} listening sockets came with {} keys; at most {MAX_LISTENERS} can come at once",
                sockets.len(),
                keys.len()
            )));
        }
        if let Some(key) = keys.iter().find(|key| key.len() > LONGEST_KEY) {
            return Err(Failure::invalid(format!("key '{key}' is too long")));
        }
        self.0.extend(keys.iter().cloned().zip(sockets));
        Ok(keys)
    }

    /// Refuse keys that are not held.
    pub(super) fn check(&self, wanted: &BTreeSet<String>) -> Result<(), Failure> {
        match wanted.iter().find(|key| !self.0.contains_key(*key)) {
            None => Ok(()),
            Some(key) => Err(Failure::not_found(format!("no socket for {key} is held"))),
        }
    }

    /// Let go of all but these.
    pub(super) fn retain(&mut self, wanted: &BTreeSet<String>) {
        self.0.retain(|key, _| wanted.contains(key));
    }

    /// Which are held.
    pub(super) fn keys(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Send one message. A socket that is held no longer is left out.
    pub(super) fn send(&self, relay: BorrowedFd<'_>, parcel: &Parcel) -> Result<(), Failure> {
        match parcel {
            Parcel::Listeners(keys) => {
                let sockets = keys.iter().filter_map(|key| self.0.get(key));
                let sockets: Vec<RawFd> = sockets.map(AsRawFd::as_raw_fd).collect();
                let what = "hand the relay the sockets of published ports";
                send(relay, b"listeners", &sockets, what)
            }
            Parcel::Snapshot(sealed) => {
                let what = "hand the relay its snapshot";
                let length = sealed.length().to_le_bytes();
                send(relay, &length, &[sealed.as_fd().as_raw_fd()], what)
            }
            Parcel::Counters(file) => {
                let what = "ask the relay for its counters";
                send(relay, b"counters", &[file.as_raw_fd()], what)
            }
            Parcel::Endpoints(sealed) => {
                let what = "tell the relay where endpoints are";
                let text = format!("endpoints {}", sealed.length());
                send(relay, text.as_bytes(), &[sealed.as_fd().as_raw_fd()], what)
            }
        }
    }
}

fn send(relay: BorrowedFd<'_>, text: &[u8], fds: &[RawFd], what: &str) -> Result<(), Failure> {
    let rights = [ControlMessage::ScmRights(fds)];
    let (relay, flags) = (relay.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
    sendmsg::<()>(relay, &[IoSlice::new(text)], &rights, flags, None)
        .map_err(|e| Failure::kernel(what, e))?;
    Ok(())
}

/// A file that the relay writes its counters to.
#[derive(Debug)]
pub(super) struct Counting(File);

/// A line of the counters.
#[derive(Deserialize)]
struct Line {
    sandbox: String,
    #[serde(flatten)]
    port: PortCount,
}

impl Counting {
    pub(super) fn new() -> Result<Self, Failure> {
        let file = memfd_create(c"counters", MFdFlags::MFD_CLOEXEC);
        let file = file.map_err(|e| Failure::kernel("make a file for counters", e))?;
        Ok(Self(File::from(file)))
    }

    /// For the relay.
    pub(super) fn writer(&self) -> Result<File, Failure> {
        let file = self.0.try_clone();
        file.map_err(|e| Failure::kernel("duplicate a file for counters", e))
    }

    /// What was written of one sandbox's ports.
    pub(super) fn read(&self, length: usize, sandbox: &str) -> Result<Vec<PortCount>, Failure> {
        let mut json = vec![0; length.min(MOST_COUNTERS)];
        let read = self.0.read_exact_at(&mut json, 0);
        read.map_err(|e| Failure::kernel("read the relay's counters", e))?;
        let lines: Vec<Line> = serde_json::from_slice(&json)
            .map_err(|e| Failure::invalid(format!("understand the relay's counters: {e}")))?;
        let own = lines.into_iter().filter(|line| line.sandbox == sandbox);
        Ok(own.map(|line| line.port).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn sockets_are_kept_by_key_until_no_snapshot_wants_them() {
        let mut held = Held::default();
        let keys = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(held.keep(keys("a b"), vec![null()]).is_err());
        assert!(held.keep(Vec::new(), Vec::new()).is_err());
        assert!(held.keep(vec!["x".repeat(65)], vec![null()]).is_err());
        held.keep(keys("a b"), vec![null(), null()]).unwrap();
        held.keep(keys("b c"), vec![null(), null()]).unwrap();
        assert_eq!(held.keys(), ["a", "b", "c"]);
        let wanted: BTreeSet<String> = keys("a c").into_iter().collect();
        held.check(&wanted).unwrap();
        held.retain(&wanted);
        assert_eq!(held.keys(), ["a", "c"]);
        assert!(held.check(&keys("b").into_iter().collect()).is_err());
    }

    #[test]
    fn many_sockets_take_several_messages() {
        let snapshot = Sealed::of(b"{}").unwrap();
        let keys: Vec<String> = (0..MAX_LISTENERS + 1).map(|n| n.to_string()).collect();
        let sent = parcels(keys, snapshot.clone());
        let lengths: Vec<_> = sent
            .iter()
            .map(|parcel| match parcel {
                Parcel::Listeners(keys) => keys.len(),
                Parcel::Snapshot(_) | Parcel::Counters(_) | Parcel::Endpoints(_) => 0,
            })
            .collect();
        assert_eq!(lengths, [MAX_LISTENERS, 1, 0]);
        assert_eq!(parcels(Vec::new(), snapshot).len(), 1);
    }

    #[test]
    fn counters_are_those_of_one_sandbox() {
        let counting = Counting::new().unwrap();
        let json = r#"[{"listener":"*:80/tcp","sandbox":"web","accepted":1,"refused":0,"bytes_in":3,"bytes_out":4},
            {"listener":"*:81/tcp","sandbox":"db","accepted":1,"refused":0,"bytes_in":3,"bytes_out":4}]"#;
        counting
            .writer()
            .unwrap()
            .write_all_at(json.as_bytes(), 0)
            .unwrap();
        let ports = counting.read(json.len(), "web").unwrap();
        assert_eq!(ports.len(), 1);
        assert_eq!(
            (ports[0].listener.as_str(), ports[0].bytes_out),
            ("*:80/tcp", 4)
        );
        assert!(counting.read(json.len() + 1, "web").is_err());
        assert_eq!(counted("counted 7"), Some(7));
        assert_eq!(counted("counted x"), None);
    }
}
