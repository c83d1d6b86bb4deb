//! `publish`: ports that the caller holds lead to containers behind its uplink.

use super::{Result, Session};
use crate::act::Refusal;
use crate::kernel::socket_table::SocketTable;
use crate::kernel::{KernelError, refused};
use crate::privilege;
use crate::record::{LinkKind, Socket};
use crate::request::{Protocol, Publish, Reply};
use crate::sys;
use caps::Capability;
use ipnet::IpNet;
use nix::sys::socket::{SockType, SockaddrStorage, getsockname, getsockopt, setsockopt, sockopt};
use nix::sys::stat::fstat;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

impl Session<'_> {
    pub(super) fn publish(&mut self, publish: &Publish, sockets: &[OwnedFd]) -> Result<Reply> {
        let record = &self.store.record;
        let uplink = record.link_of(self.uid, &publish.uplink);
        let uplink = uplink.filter(|link| link.kind == LinkKind::Uplink);
        let uplink = uplink.ok_or(Refusal::NotMade)?.clone();
        let table = SocketTable::read();
        let cookie = self.host.cookie()?;
        let mut wanted = Vec::new();
        for (socket, target) in sockets.iter().zip(&publish.targets) {
            let behind = |subnet: &IpNet| subnet.contains(&target.ip());
            if !uplink.prefixes.iter().any(behind) {
                return Err(Refusal::Target(*target));
            }
            let held = held_port(socket, target.is_ipv6(), cookie, &table);
            wanted.push((socket, held.ok_or(Refusal::Socket)?, *target));
        }
        let before = self.store.record.clone();
        let done = self.lead(uplink.id, &wanted);
        if done.is_err() {
            self.store.record = before;
            self.store.save()?;
            // The first failure is the one that counts.
            let _ = self.apply_rules(LinkKind::Uplink);
        }
        done.map(|()| Reply::Done)
    }

    fn lead(&mut self, uplink: u32, wanted: &[(&OwnedFd, Held, SocketAddr)]) -> Result<()> {
        let mut marks = Vec::new();
        for (fd, held, target) in wanted {
            let id = self.charge_port(uplink, *held, *target);
            marks.push((*fd, id));
        }
        let most = self.rights.quota.published;
        if self.store.record.published_by(self.uid) > most {
            let what = "published ports";
            return Err(Refusal::Quota { what, most });
        }
        self.store.save()?;
        self.apply_rules(LinkKind::Uplink)?;
        for (fd, mark) in marks {
            mark_socket(fd, mark)?;
        }
        Ok(())
    }

    /// The mark of the socket that leads to `target` from now on.
    fn charge_port(&mut self, uplink: u32, held: Held, target: SocketAddr) -> u32 {
        let uid = self.uid;
        let record = &mut self.store.record;
        let same = |socket: &&mut Socket| {
            socket.inode == held.inode && socket.uid == uid && socket.published.is_some()
        };
        if let Some(known) = record.sockets.iter_mut().find(same) {
            known.published = Some((uplink, target));
            return known.mark();
        }
        let socket = Socket {
            id: record.number(),
            uid,
            protocol: held.protocol,
            port: held.port,
            inode: held.inode,
            published: Some((uplink, target)),
        };
        let mark = socket.mark();
        record.sockets.push(socket);
        mark
    }
}

/// A port that a socket holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    protocol: Protocol,
    port: u16,
    inode: u64,
}

/// The port of the host that this socket proves to be the caller's: it listens (TCP) or is bound (UDP),
/// in the host's own namespace and in the family of its target. `None`: it proves nothing.
fn held_port(socket: &OwnedFd, ipv6: bool, cookie: u64, table: &SocketTable) -> Option<Held> {
    let protocol = match getsockopt(socket, sockopt::SockType).ok()? {
        SockType::Stream => Protocol::Tcp,
        SockType::Datagram => Protocol::Udp,
        _ => return None,
    };
    let listens = protocol == Protocol::Udp || getsockopt(socket, sockopt::AcceptConn).ok()?;
    let name: SockaddrStorage = getsockname(socket.as_raw_fd()).ok()?;
    let port = match (name.as_sockaddr_in(), name.as_sockaddr_in6()) {
        (Some(v4), None) if !ipv6 => v4.port(),
        (None, Some(v6)) if ipv6 => v6.port(),
        _ => return None,
    };
    let host = sys::netns_cookie(socket.as_fd()).ok()? == cookie;
    let inode = fstat(socket).ok()?.st_ino;
    let held = Held {
        protocol,
        port,
        inode,
    };
    // Neither SCTP nor anything else that has ports, too.
    (host && listens && table.has(protocol, port, inode)).then_some(held)
}

fn mark_socket(socket: &OwnedFd, mark: u32) -> std::result::Result<(), KernelError> {
    let marked = privilege::with(Capability::CAP_NET_ADMIN, || {
        setsockopt(socket, sockopt::Mark, &mark)
    })?;
    marked.map_err(|errno| refused("mark a socket", errno))
}
