//! Sockets towards a container, in the client's name where that can be.
//!
//! Invariant: such a socket is bound to the bridge of the container's network, so that a segment
//! that comes by another bridge never reaches it, whatever addresses it bears. Inside the container's own
//! netns there is none: what comes in from elsewhere is for another address there.
//!
//! The client's own address and port first; where another socket of the router netns has them in
//! the same conversation, the gateway with the client's port, then with any.

use super::conversations::{Conversations, Reservation};
use super::source::{Reason, Shown, shown};
use super::table::{Published, Target};
use crate::ports::Proto;
use crate::relay::socket_pool::SocketKind;
use crate::relay::worker::Context;
use socket2::{SockAddr, SockRef};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// A socket towards a container.
#[derive(Debug)]
pub struct Towards {
    /// Non-blocking; of a TCP one the connect is under way, or done.
    pub socket: OwnedFd,
    /// The container knows it as the client.
    pub as_client: bool,
    /// Of a TCP one, where it could be had.
    pub reservation: Option<Reservation>,
}

/// How one begins.
#[derive(Debug, Clone, Copy)]
pub struct Begin<'a> {
    /// Nobody else has the conversation between client and container (the kernel knows that of TCP
    /// alone).
    pub free: bool,
    /// The client's first bytes are here, and follow the connect at once.
    pub data_follows: bool,
    /// Where connections are reserved that the kernel does not know of.
    pub connections: Option<&'a Conversations>,
}

/// As whom the container would see the client, if nobody else has that conversation.
pub fn appearance(
    published: &Published,
    target: &Target<'_>,
    client: SocketAddr,
    asked: IpAddr,
    cx: &Context<'_>,
) -> SocketAddr {
    let is_ours = |address| cx.rules.is_ours(address);
    match shown(client, asked, target.way, is_ours) {
        Shown::Client => client,
        Shown::Gateway(reason) => {
            tell(published, client, reason);
            SocketAddr::new(target.gateway, client.port())
        }
    }
}

/// Opens one for a `client` that asked at `asked`.
pub fn open(
    published: &Published,
    target: &Target<'_>,
    client: SocketAddr,
    asked: IpAddr,
    cx: &Context<'_>,
    begin: Begin<'_>,
) -> io::Result<Towards> {
    let proto = published.listener().bound().proto;
    let seen = shown(client, asked, target.way, |address| {
        cx.rules.is_ours(address)
    });
    let reason = match seen {
        Shown::Client if begin.free => match attempt(proto, client, target, begin, cx) {
            Ok((socket, reservation)) => {
                return Ok(Towards {
                    socket,
                    as_client: true,
                    reservation,
                });
            }
            Err(error) if is_taken(&error) => Reason::Taken,
            Err(error) => return Err(error),
        },
        Shown::Client => Reason::Taken,
        Shown::Gateway(reason) => reason,
    };
    tell(published, client, reason);
    let same_port = SocketAddr::new(target.gateway, client.port());
    let (socket, reservation) = match attempt(proto, same_port, target, begin, cx) {
        Err(error) if is_taken(&error) => {
            let any_port = SocketAddr::new(target.gateway, 0);
            attempt(proto, any_port, target, begin, cx)?
        }
        result => result?,
    };
    Ok(Towards {
        socket,
        as_client: false,
        reservation,
    })
}

fn attempt(
    proto: Proto,
    from: SocketAddr,
    target: &Target<'_>,
    begin: Begin<'_>,
    cx: &Context<'_>,
) -> io::Result<(OwnedFd, Option<Reservation>)> {
    // Which port any will be, only the kernel knows.
    let connections = begin.connections.filter(|_| from.port() != 0);
    let taken = || io::Error::from_raw_os_error(libc::EADDRINUSE);
    let reserve = |of: &Conversations| of.reserve((from, target.address)).ok_or_else(taken);
    let reservation = connections.map(reserve).transpose()?;
    let v6 = target.address.is_ipv6();
    let pool = match (target.bridge, cx.inside) {
        (None, Some(inside)) => inside,
        (Some(_), _) | (None, None) => cx.pool,
    };
    let socket = pool.take(match (proto, v6) {
        (Proto::Tcp, false) => SocketKind::TcpV4,
        (Proto::Tcp, true) => SocketKind::TcpV6,
        (Proto::Udp, false) => SocketKind::UdpV4,
        (Proto::Udp, true) => SocketKind::UdpV6,
    })?;
    let options = SockRef::from(&socket);
    if let Some(bridge) = target.bridge {
        match options.bind_device(Some(bridge.as_bytes())) {
            // Before Linux 5.7 it takes CAP_NET_RAW. The bridges' own rules keep strangers out, too.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            result => result?,
        }
    }
    // The same client may talk to several containers. Among our own gateway's ports, though, what
    // is in use is in use.
    if from.ip() == target.gateway {
        options.set_reuse_address(false)?;
    }
    if proto == Proto::Tcp && begin.data_follows {
        // The first bytes carry the handshake's last ACK: the container is woken once, with its
        // connection and what to answer. Afterwards the kernel acknowledges as it always does.
        options.set_tcp_quickack(false)?;
    }
    options.bind(&SockAddr::from(from))?;
    match options.connect(&SockAddr::from(target.address)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok((socket, reservation))
}

/// EADDRNOTAVAIL is what connect(2) says of a conversation that exists.
fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EADDRINUSE | libc::EADDRNOTAVAIL)
    )
}

/// Once for each publish and reason.
fn tell(published: &Published, client: SocketAddr, reason: Reason) {
    let listener = published.listener();
    if reason.is_surprising() && listener.tell_once(reason.bit()) {
        tracing::info!(
            publish.listener = %listener.bound(),
            sandbox.name = published.sandbox(),
            client.addr = %client,
            reason = reason.text(),
            "the container sees the gateway's address instead of the client's"
        );
    }
}
