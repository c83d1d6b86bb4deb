//! What has to be tried to be known.
//!
//! Invariant: an attempt leaves nothing behind, but for mossnet's own directories.

use super::grants::Installed;
use super::machine::Machine;
use super::probe::{self, Probe, Try};
use crate::api::paths::Paths;
use crate::error::one_line;
use crate::network::resolv::HostResolver;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use nix::unistd::{User, getegid, geteuid, getgroups};
use std::fs::OpenOptions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

/// How long a resolver may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// A query for the name servers of the root: id, RD, one question, `.` NS IN (RFC 1035 §4.1).
const ROOT_QUERY: [u8; 17] = *b"\x6d\x6f\x01\0\0\x01\0\0\0\0\0\0\0\0\x02\0\x01";

/// Who we are and what was tried.
#[derive(Debug, Clone)]
pub struct Attempts {
    /// In namespaces of a child's own.
    pub probe: Probe,
    /// An ICMP echo socket.
    pub ping: Try,
    /// /dev/net/tun.
    pub tun: Try,
    /// mossnet's directories: why they cannot be used, and what to do.
    pub directories: Result<(), (String, String)>,
    /// Each resolver and whether it answered.
    pub resolvers: Vec<(IpAddr, bool)>,
    /// Descriptors that a process may be allowed (RLIMIT_NOFILE, hard).
    pub fd_limit: u64,
    /// User id.
    pub uid: u32,
    /// Its name, or its number.
    pub user: String,
    /// Group ids that count for ping sockets.
    pub gids: Vec<u32>,
    /// What an admin has installed.
    pub granted: Option<Installed>,
    /// Where programs are looked for.
    pub search_path: String,
}

impl Attempts {
    /// Tries everything, on the machine that runs; `program` is ourselves, for the probe.
    pub fn make(paths: &Paths, machine: &Machine, program: &Path) -> Self {
        let uid = geteuid();
        let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
        let mut gids = vec![getegid().as_raw()];
        gids.extend(
            getgroups()
                .unwrap_or_default()
                .iter()
                .map(|gid| gid.as_raw()),
        );
        let prepared = paths.prepare();
        Self {
            probe: probe::spawn(program),
            ping: ping(),
            tun: tun(machine),
            directories: prepared.map_err(|error| (one_line(&error), error.hint().to_owned())),
            resolvers: resolvers(machine),
            fd_limit: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard),
            uid: uid.as_raw(),
            user: name.unwrap_or_else(|| uid.to_string()),
            gids,
            granted: Installed::find(),
            search_path: std::env::var("PATH").unwrap_or_default(),
        }
    }
}

fn ping() -> Try {
    let flags = SockFlag::SOCK_CLOEXEC;
    let made = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        flags,
        SockProtocol::Icmp,
    );
    match made {
        Ok(_) => Try::Works,
        Err(errno) => failure("open a ping socket", errno.into()),
    }
}

fn tun(machine: &Machine) -> Try {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .open(machine.path("/dev/net/tun"));
    opened.map_or_else(|error| failure("open /dev/net/tun", error), |_| Try::Works)
}

fn failure(what: &str, error: io::Error) -> Try {
    Try::Fails {
        what: what.to_owned(),
        errno: error.raw_os_error().or(Some(Errno::EIO as i32)),
    }
}

/// Asks all of them at once.
fn resolvers(machine: &Machine) -> Vec<(IpAddr, bool)> {
    let text = machine.text("/etc/resolv.conf").unwrap_or_default();
    let servers = HostResolver::parse(&text).view().nameservers;
    std::thread::scope(|scope| {
        let asked: Vec<_> = servers
            .into_iter()
            .map(|server| (server, scope.spawn(move || answers(server))))
            .collect();
        let heard =
            |(server, asking): (IpAddr, std::thread::ScopedJoinHandle<'_, io::Result<()>>)| {
                (server, asking.join().is_ok_and(|answer| answer.is_ok()))
            };
        asked.into_iter().map(heard).collect()
    })
}

/// Any answer will do, also a refusal: somebody resolves there.
fn answers(server: IpAddr) -> io::Result<()> {
    let any: IpAddr = match server {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((server, 53))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&ROOT_QUERY)?;
    socket.recv(&mut [0; 512]).map(|_| ())
}
