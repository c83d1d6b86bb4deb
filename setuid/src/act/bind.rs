//! `bind`: a socket at a granted port of the host, for the caller.

use super::{Result, Session};
use crate::act::Refusal;
use crate::kernel::KernelError;
use crate::privilege;
use crate::record::Socket;
use crate::request::{Bind, Protocol};
use caps::Capability;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use nix::sys::stat::fstat;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// Connections that wait for accept(2); the kernel takes less where net.core.somaxconn is less.
const BACKLOG: i32 = 4096;

impl Session<'_> {
    pub(super) fn bind(&mut self, wanted: Bind) -> Result<OwnedFd> {
        let (protocol, port) = (wanted.protocol, wanted.address.port());
        if !self.rights.allow_port(protocol, port) {
            return Err(Refusal::Port { protocol, port });
        }
        let most = self.rights.quota.ports;
        if self.store.record.bound_by(self.uid) >= most {
            let what = "ports";
            return Err(Refusal::Quota { what, most });
        }
        let id = self.store.record.number();
        self.store.record.sockets.push(Socket {
            id,
            uid: self.uid,
            protocol,
            port,
            inode: 0,
            published: None,
        });
        self.store.save()?;
        let made = make(wanted);
        let sockets = &mut self.store.record.sockets;
        match &made {
            Ok((_, inode)) => {
                let charged = sockets.iter_mut().find(|socket| socket.id == id);
                charged.into_iter().for_each(|socket| socket.inode = *inode);
            }
            Err(_) => sockets.retain(|socket| socket.id != id),
        }
        self.store.save()?;
        Ok(made?.0)
    }
}

/// The socket and its inode number.
fn make(wanted: Bind) -> std::result::Result<(OwnedFd, u64), KernelError> {
    let family = match wanted.address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let kind = match wanted.protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let failed = |what| move |errno| crate::kernel::refused(what, errno);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, kind, flags, None).map_err(failed("make a socket"))?;
    let option = failed("prepare a socket");
    if family == AddressFamily::Inet6 {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true).map_err(option)?;
    }
    if wanted.protocol == Protocol::Tcp {
        setsockopt(&fd, sockopt::ReuseAddr, &true).map_err(option)?;
    }
    let address = SockaddrStorage::from(wanted.address);
    let bound = privilege::with(Capability::CAP_NET_BIND_SERVICE, || {
        bind(fd.as_raw_fd(), &address)
    })?;
    bound.map_err(failed("bind a port"))?;
    if wanted.protocol == Protocol::Tcp {
        let backlog = Backlog::new(BACKLOG).map_err(option)?;
        listen(&fd, backlog).map_err(failed("listen"))?;
    }
    let inode = fstat(&fd).map_err(option)?.st_ino;
    Ok((fd, inode))
}
