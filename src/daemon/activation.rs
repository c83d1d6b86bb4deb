//! Sockets that a service manager holds for us and passes on (socket activation), and word to it.
//!
//! Invariant: sockets that were passed are never removed or bound anew: whoever connects while no daemon runs
//! waits in their queue for the next one.
//!
//! Sources: sd_listen_fds(3), sd_notify(3), systemd.socket(5).

use super::refusal::{FileError, failed};
use crate::api::control::Answer;
use crate::api::paths::Paths;
use crate::sys::inherited;
use nix::sys::socket::{getsockopt, sockopt};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;
use tracing::warn;

/// SD_LISTEN_FDS_START.
const FIRST: RawFd = 3;
/// Two are needed; a number far beyond is a mistake.
const MOST: RawFd = 16;

/// Both sockets of the daemon.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) api: UnixListener,
    pub(super) stdio: UnixListener,
}

/// What was passed to this very process; `None` where it was started otherwise. To be called once, before
/// anything else opens descriptors.
pub(super) fn passed(paths: &Paths) -> Answer<Option<Passed>> {
    let variable = |name: &str| std::env::var(name).ok();
    let (pid, count) = (variable("LISTEN_PID"), variable("LISTEN_FDS"));
    let Some(count) = count_for(std::process::id(), pid.as_deref(), count.as_deref())? else {
        return Ok(None);
    };
    let mut sockets = Vec::new();
    for number in FIRST..FIRST + count {
        let taken = inherited::take(number);
        sockets.push(taken.map_err(|error| failed(format!("take descriptor {number}: {error}")))?);
    }
    sort(paths, sockets).map(Some)
}

/// How many descriptors are meant for process `own`; those of a parent are none of ours.
fn count_for(own: u32, pid: Option<&str>, count: Option<&str>) -> Answer<Option<RawFd>> {
    let (Some(pid), Some(count)) = (pid, count) else {
        return Ok(None);
    };
    if pid.parse() != Ok(own) {
        return Ok(None);
    }
    match count.parse() {
        Ok(0) => Ok(None),
        Ok(count @ 1..=MOST) => Ok(Some(count)),
        Ok(_) | Err(_) => Err(failed(format!(
            "LISTEN_FDS={} is no number of sockets",
            count.escape_debug()
        ))),
    }
}

/// Tells them apart by where they listen.
fn sort(paths: &Paths, sockets: Vec<OwnedFd>) -> Answer<Passed> {
    let hint = format!(
        "give mossnet.socket two lines: ListenStream={} and ListenStream={}",
        paths.api_socket().display(),
        paths.stdio_socket().display()
    );
    let (mut api, mut stdio) = (None, None);
    for socket in sockets {
        let listens = getsockopt(&socket, sockopt::AcceptConn) == Ok(true);
        let socket = UnixListener::from(socket);
        let place = socket.local_addr().ok();
        let place = place.as_ref().and_then(SocketAddr::as_pathname);
        let is = |path: &Path| listens && place.is_some_and(|place| same(place, path));
        if is(&paths.api_socket()) {
            api = Some(socket);
        } else if is(&paths.stdio_socket()) {
            stdio = Some(socket);
        } else {
            let shown = place.map_or("nowhere".to_owned(), |place| place.display().to_string());
            let message = format!("a socket was passed that listens at {shown}, not for mossnet");
            return Err(failed(message).with_hint(hint));
        }
    }
    let (Some(api), Some(stdio)) = (api, stdio) else {
        return Err(failed("one of mossnet's two sockets was not passed").with_hint(hint));
    };
    for socket in [&api, &stdio] {
        let set = socket.set_nonblocking(true);
        set.map_err(|error| failed(format!("use a socket that was passed: {error}")))?;
    }
    Ok(Passed { api, stdio })
}

/// The same file, perhaps by another name of its directory.
fn same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| path.canonicalize().ok();
    one == other || whole(one).is_some_and(|one| Some(one) == whole(other))
}

/// Tells the service manager, if one wants to hear it.
pub(super) fn tell(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return;
    };
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&socket),
    };
    let send = |address: &SocketAddr| {
        let sender = UnixDatagram::unbound()?;
        sender.send_to_addr(state.as_bytes(), address)
    };
    if let Err(error) = address.and_then(|address| send(&address)) {
        warn!(%error, state, "service manager not told");
    }
}

/// Where somebody listens although no daemon runs, a service manager does, and starts one.
pub(super) fn is_held(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}

/// For tokio.
pub(super) fn adopt(socket: UnixListener, path: &Path) -> Answer<tokio::net::UnixListener> {
    let adopted = tokio::net::UnixListener::from_std(socket);
    Ok(adopted.map_err(|error: io::Error| FileError::on("listen on", path)(error))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(place: &tempfile::TempDir) -> Paths {
        let paths = Paths::resolve(Some(place.path()));
        paths.prepare().unwrap();
        paths
    }

    #[test]
    fn only_what_is_for_this_process_counts() {
        let of = |pid, count| count_for(7, pid, count);
        for (pid, count) in [
            (None, None),
            (Some("7"), None),
            (None, Some("2")),
            (Some("8"), Some("2")),
            (Some("x"), Some("2")),
            (Some("7"), Some("0")),
        ] {
            assert_eq!(of(pid, count).unwrap(), None, "{pid:?} {count:?}");
        }
        assert_eq!(of(Some("7"), Some("2")).unwrap(), Some(2));
        for bad in ["-1", "17", "x", ""] {
            let refusal = of(Some("7"), Some(bad)).unwrap_err();
            assert!(refusal.body.message.contains("LISTEN_FDS"), "{bad}");
        }
    }

    #[test]
    fn sockets_are_known_by_their_place() {
        let place = tempfile::tempdir().unwrap();
        let paths = paths(&place);
        let bind = |path: &Path| OwnedFd::from(UnixListener::bind(path).unwrap());
        let (stdio, api) = (bind(&paths.stdio_socket()), bind(&paths.api_socket()));
        let again = || api.try_clone().unwrap();
        let passed = sort(&paths, vec![stdio, again()]).unwrap();
        let at = passed.api.local_addr().unwrap();
        assert_eq!(at.as_pathname(), Some(paths.api_socket().as_path()));

        let refused = |sockets: Vec<OwnedFd>| sort(&paths, sockets).unwrap_err().body;
        let alone = refused(vec![again()]);
        assert!(alone.message.contains("one of mossnet's two"));
        assert!(alone.hint.unwrap().contains("stdio.sock"));
        let elsewhere = bind(&place.path().join("other.sock"));
        assert!(
            refused(vec![again(), elsewhere])
                .message
                .contains("other.sock")
        );
        let datagram = UnixDatagram::unbound().unwrap().into();
        assert!(refused(vec![again(), datagram]).message.contains("nowhere"));
    }
}
