//! The name server outside the relay: on addresses that come and go, in a process of its own.
//!
//! Place: the aardvark-dns drop-in runs it in podman's network namespace, where the wildcard address may
//! belong to somebody else. Invariant: what was listened at goes on undisturbed by what is added.

use super::server::{Quotas, Rules, Server};
use super::tcp;
use super::udp::{Family, UdpListener};
use super::upstream::{Timing, Upstream};
use nix::sys::resource::{Resource, getrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::task::AbortHandle;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A name server.
pub struct NameServer {
    server: Rc<Server>,
    listening: HashMap<SocketAddr, [AbortHandle; 2]>,
}

impl NameServer {
    /// Of these rules, which are asked for again for each query.
    ///
    /// # Errors
    /// The limit of open files cannot be read.
    pub fn new(rules: Rules) -> io::Result<Self> {
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let upstream = Upstream::new(Timing::default());
        Ok(Self {
            server: Rc::new(Server::new(rules, upstream, Quotas::within(limit))),
            listening: HashMap::new(),
        })
    }

    /// Listens at these addresses and no others, UDP and TCP; returns those where it cannot. Within a
    /// `LocalSet`, on which the serving goes on.
    pub fn listen(&mut self, wanted: &BTreeSet<SocketAddr>) -> Vec<(SocketAddr, io::Error)> {
        self.listening.retain(|address, tasks| {
            let stays = wanted.contains(address);
            if !stays {
                tasks.iter().for_each(AbortHandle::abort);
            }
            stays
        });
        let mut failed = Vec::new();
        for address in wanted {
            if self.listening.contains_key(address) {
                continue;
            }
            match self.serve(*address) {
                Ok(tasks) => {
                    self.listening.insert(*address, tasks);
                }
                Err(error) => failed.push((*address, error)),
            }
        }
        failed
    }

    fn serve(&self, address: SocketAddr) -> io::Result<[AbortHandle; 2]> {
        let family = match address {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) => Family::V6,
        };
        let udp = UdpListener::new(socket(address, Type::DGRAM)?, family)?;
        let tcp = tcp::listener(socket(address, Type::STREAM)?)?;
        let udp = tokio::task::spawn_local(Rc::new(udp).serve(Rc::clone(&self.server)));
        let tcp = tokio::task::spawn_local(tcp::serve(tcp, Rc::clone(&self.server)));
        Ok([udp.abort_handle(), tcp.abort_handle()])
    }
}

fn socket(address: SocketAddr, kind: Type) -> io::Result<OwnedFd> {
    let domain = Domain::for_address(address);
    let protocol = match kind {
        Type::STREAM => Protocol::TCP,
        _datagrams => Protocol::UDP,
    };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // Connections of a server that has just ended are no obstacle.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}
