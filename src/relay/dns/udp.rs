//! DNS over UDP, on a wildcard socket of the router netns.
//!
//! Place: transport in front of `server`. Invariant: an answer leaves from the address that was
//! asked. Sources: ip(7) IP_PKTINFO, RFC 3542 §6.2 (IPV6_PKTINFO).

use super::batch::{Batch, Datagram};
use super::server::{Server, Step, Via};
use nix::sys::socket::{
    ControlMessage, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike, sendmsg, setsockopt, sockopt,
};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::{debug, warn};

/// A listening socket, ready for the runtime that is being entered.
pub struct UdpListener {
    socket: UdpSocket,
}

impl UdpListener {
    /// Takes over a bound socket of one family.
    pub fn new(socket: OwnedFd, family: Family) -> io::Result<Self> {
        super::set_nonblocking(&socket)?;
        match family {
            Family::V4 => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            Family::V6 => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self { socket })
    }

    /// Serves until the socket breaks.
    pub async fn serve(self: Rc<Self>, server: Rc<Server>) {
        let mut batch = Batch::new();
        loop {
            match self.receive(&mut batch).await {
                Ok(()) => {
                    for (datagram, message) in batch.fair() {
                        self.handle(&server, message, datagram);
                    }
                    // The socket may never be empty; answers from outside want their turn, too.
                    tokio::task::yield_now().await;
                }
                // What an earlier answer met on its way comes back here (ICMP): not ours to fix.
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    warn!(%error, "dns socket failed");
                    return;
                }
            }
        }
    }

    async fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        loop {
            self.socket.readable().await?;
            let mut received = Ok(());
            // WouldBlock stands for "wait for more" here: a batch that is not full was all there is.
            let _ = self.socket.try_io(Interest::READABLE, || {
                received = batch.receive(&self.socket);
                match received {
                    Ok(()) if batch.is_full() => Ok(()),
                    Ok(()) => Err(io::ErrorKind::WouldBlock.into()),
                    Err(ref error) => Err(error.kind().into()),
                }
            });
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    fn handle(self: &Rc<Self>, server: &Rc<Server>, message: &[u8], datagram: Datagram) {
        let Datagram {
            client, gateway, ..
        } = datagram;
        match server.take(message, gateway, client.ip(), Via::Udp) {
            Step::Ignore => {}
            Step::Answer(answer) => self.send(&answer, gateway, client),
            Step::Forward(forward) => {
                let listener = Rc::clone(self);
                let reply = move |answer: &[u8]| listener.send(answer, gateway, client);
                server.forward_datagram(forward, reply);
            }
        }
    }

    /// A full socket buffer loses the answer, as a network would: the client asks again.
    fn send(&self, answer: &[u8], gateway: IpAddr, client: SocketAddr) {
        if let Err(error) = send_from(&self.socket, answer, gateway, client) {
            debug!(client.addr = %client, %error, "dns answer not sent");
        }
    }
}

/// Address family of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

fn send_from(
    socket: &UdpSocket,
    answer: &[u8],
    gateway: IpAddr,
    client: SocketAddr,
) -> io::Result<()> {
    let parts = [IoSlice::new(answer)];
    match (gateway, client) {
        (IpAddr::V4(gateway), SocketAddr::V4(client)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(gateway.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            send(socket, &parts, &control, &SockaddrIn::from(client))
        }
        (IpAddr::V6(gateway), SocketAddr::V6(client)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: gateway.octets(),
                },
                ipi6_ifindex: client.scope_id(),
            };
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            send(socket, &parts, &control, &SockaddrIn6::from(client))
        }
        // One socket gives addresses of one family.
        (IpAddr::V4(_), SocketAddr::V6(_)) | (IpAddr::V6(_), SocketAddr::V4(_)) => {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }
}

fn send<A: SockaddrLike>(
    socket: &UdpSocket,
    parts: &[IoSlice<'_>],
    control: &[ControlMessage<'_>],
    client: &A,
) -> io::Result<()> {
    sendmsg(
        socket.as_raw_fd(),
        parts,
        control,
        MsgFlags::MSG_DONTWAIT,
        Some(client),
    )?;
    Ok(())
}

fn is_passing(error: &io::Error) -> bool {
    // Anything but a descriptor that is none.
    !matches!(
        error.raw_os_error(),
        Some(libc::EBADF | libc::ENOTSOCK | libc::EINVAL)
    )
}
