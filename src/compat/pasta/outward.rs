//! Ports at the namespace's loopback that lead to the host's: `-T` and `-U`.
//!
//! A process of its own, `pasta` with the word [`WORD`] in its environment: it reads what the namespace
//! sends. Its standard input is a socket by which `serve` says which ports there are to be, its standard
//! output the network namespace. One thread goes there and makes sockets; everything else happens in the
//! host's namespace. Confined as the relay is (`relay::sandbox`, `relay::seccomp`), but for one capability of
//! that thread, by which ports below 1024 are bound in the namespace.
//!
//! The conversation: a line of JSON, the ports that there are to be, is answered by a line: those that could
//! not be bound.
//!
//! Sources: unix(7), setns(2).

use super::carry;
use crate::ports::{Port, Proto};
use crate::relay::{sandbox, seccomp};
use mossnet_helper::request::Failure;
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};
use std::sync::mpsc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet};

/// What the environment says to the process.
pub const WORD: &str = "outward";
/// Connections that may wait.
const BACKLOG: i32 = 128;

/// One port of the loopback there, and the one that it leads to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Forward {
    /// Protocol.
    pub proto: Proto,
    /// There.
    pub port: Port,
    /// Here.
    pub to: Port,
}

/// The process, seen from `serve`.
#[derive(Debug)]
pub struct Outward {
    child: Child,
    socket: BufReader<UnixStream>,
    asked: BTreeSet<Forward>,
}

impl Outward {
    /// Starts it. What it has to say goes to our standard error.
    pub fn start(netns: BorrowedFd<'_>, environment: &str) -> Result<Self, Failure> {
        let failed = |e: io::Error| Failure::kernel("start the process for ports of the host", e);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let netns = netns.try_clone_to_owned().map_err(failed)?;
        let child = Command::new("/proc/self/exe")
            .arg0("pasta")
            .env(environment, WORD)
            .stdin(OwnedFd::from(theirs))
            .stdout(netns)
            .spawn()
            .map_err(failed)?;
        Ok(Self {
            child,
            socket: BufReader::new(ours),
            asked: BTreeSet::new(),
        })
    }

    /// Has exactly these; what could not be bound.
    pub fn ask(&mut self, wanted: &BTreeSet<Forward>) -> io::Result<Vec<Forward>> {
        let mut line = serde_json::to_string(wanted)?;
        line.push('\n');
        self.socket.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        if self.socket.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let missing: Vec<Forward> = serde_json::from_str(&answer)?;
        self.asked.clone_from(wanted);
        Ok(missing)
    }

    /// What was asked for last.
    pub fn asked(&self) -> &BTreeSet<Forward> {
        &self.asked
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// A wish of the main thread's: a socket for that address.
type Wish = (Proto, SocketAddr, oneshot::Sender<io::Result<Socket>>);

/// The process itself.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pasta (mossnet): ports of the host: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let netns = io::stdout().as_fd().try_clone_to_owned()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    sandbox::empty_root()?;
    sandbox::no_new_privileges()?;
    let (wishes, taken) = mpsc::channel::<Wish>();
    let (ready, is_ready) = mpsc::channel();
    std::thread::Builder::new()
        .name("inside".to_owned())
        .spawn(move || {
            let entered = setns(&netns, CloneFlags::CLONE_NEWNET);
            drop(netns);
            let entered = entered.map_err(|errno| errno.to_string());
            let kept = entered.and_then(|()| {
                sandbox::keep_bind_service_only().map_err(|error| error.to_string())
            });
            let _ = ready.send(kept);
            for (proto, at, answer) in taken {
                let _ = answer.send(listen(proto, at));
            }
        })?;
    is_ready.recv()??;
    sandbox::drop_capabilities()?;
    // The thread inside makes listening sockets as they are wished for.
    seccomp::install_with(&[libc::SYS_listen])?;
    let work = serve(control, wishes);
    LocalSet::new().block_on(&runtime, work)?;
    Ok(())
}

fn listen(proto: Proto, at: SocketAddr) -> io::Result<Socket> {
    let (kind, protocol) = match proto {
        Proto::Tcp => (Type::STREAM, Protocol::TCP),
        Proto::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(at), kind.nonblocking(), Some(protocol))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if proto == Proto::Tcp {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at.into())?;
    if proto == Proto::Tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// Follows what is asked until the other end is gone.
async fn serve(control: UnixStream, wishes: mpsc::Sender<Wish>) -> io::Result<()> {
    control.set_nonblocking(true)?;
    let control = tokio::net::UnixStream::from_std(control)?;
    let (read, mut write) = control.into_split();
    let mut lines = tokio::io::BufReader::new(read).lines();
    let mut open: BTreeMap<Forward, Vec<JoinHandle<()>>> = BTreeMap::new();
    while let Some(line) = lines.next_line().await? {
        let wanted: BTreeSet<Forward> = serde_json::from_str(&line)?;
        let gone: Vec<Forward> = open
            .keys()
            .copied()
            .filter(|f| !wanted.contains(f))
            .collect();
        for forward in gone {
            for task in open.remove(&forward).unwrap_or_default() {
                task.abort();
                // Until it is gone, it has the port.
                let _ = task.await;
            }
        }
        let mut missing = Vec::new();
        for forward in wanted {
            let Entry::Vacant(place) = open.entry(forward) else {
                continue;
            };
            match start(forward, &wishes).await {
                tasks if tasks.is_empty() => missing.push(forward),
                tasks => drop(place.insert(tasks)),
            }
        }
        let mut answer = serde_json::to_string(&missing)?;
        answer.push('\n');
        write.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// At both loopbacks; IPv4's must be free, and IPv6 may not be there.
async fn start(forward: Forward, wishes: &mpsc::Sender<Wish>) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    for address in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let at = SocketAddr::new(address, forward.port.get());
        let (answer, answered) = oneshot::channel();
        let told = wishes.send((forward.proto, at, answer));
        let socket = match (told, answered.await) {
            (Ok(()), Ok(Ok(socket))) => socket,
            _ if address.is_ipv4() => return Vec::new(),
            _ => continue,
        };
        let to = SocketAddr::new(address, forward.to.get());
        let task = match forward.proto {
            Proto::Tcp => tokio::net::TcpListener::from_std(socket.into())
                .map(|listener| tokio::task::spawn_local(carry::connections(listener, to))),
            Proto::Udp => tokio::net::UdpSocket::from_std(socket.into())
                .map(|socket| tokio::task::spawn_local(carry::datagrams(socket, to))),
        };
        tasks.extend(task.ok());
    }
    tasks
}
