//! Datagrams in batches: recvmmsg(2), sendmmsg(2), the error queue, and their control messages.
//!
//! Serves UDP and ping sockets. The only unsafe code is the three system calls; addresses and
//! control messages are bytes that the kernel wrote into our buffers, read here by safe code.
//!
//! Sources: recvmmsg(2), sendmmsg(2), cmsg(3), ip(7), ipv6(7), udp(7), icmp(7).

mod address;
mod control;
mod receive;
mod send;

#[cfg(test)]
mod tests;

pub use control::{Origin, QueuedError};
pub use receive::{Batch, Came, ErrorQueue, Queued, Received};
pub use send::{Datagram, Join, MAX_BATCH, Path, send, send_joined};

use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What the kernel shall tell about each datagram, besides data and sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Where a tproxied datagram was going (IP_RECVORIGDSTADDR).
    OriginalDestination,
    /// The address that was asked (IP_PKTINFO, IPV6_RECVPKTINFO).
    LocalAddress,
    /// TTL or hop limit (IP_RECVTTL, IPV6_RECVHOPLIMIT).
    Ttl,
    /// DSCP and ECN (IP_RECVTOS, IPV6_RECVTCLASS).
    Tos,
    /// ICMP errors, in the error queue (IP_RECVERR, IPV6_RECVERR).
    Errors,
    /// What tells whether a router may take it apart: the packet's mark (SO_RCVMARK, Linux 5.19), which
    /// the ruleset gives to IPv4 packets; of IPv6, whether it came in fragments (IPV6_RECVFRAGSIZE).
    Fragments,
    /// Several datagrams of one size at once, with that size (UDP_GRO; Linux 5.0).
    Segments,
}

/// Asks for reports on an IPv6 (`v6`) or IPv4 socket.
pub fn enable(socket: BorrowedFd<'_>, v6: bool, report: Report) -> io::Result<()> {
    match (report, v6) {
        (Report::OriginalDestination, false) => {
            setsockopt(&socket, sockopt::Ipv4OrigDstAddr, &true)?;
        }
        (Report::OriginalDestination, true) => {
            setsockopt(&socket, sockopt::Ipv6OrigDstAddr, &true)?;
        }
        (Report::LocalAddress, false) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
        (Report::LocalAddress, true) => {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        (Report::Ttl, false) => setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?,
        (Report::Ttl, true) => setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?,
        (Report::Tos, false) => setsockopt(&socket, sockopt::IpRecvTos, &true)?,
        (Report::Tos, true) => setsockopt(&socket, sockopt::Ipv6RecvTClass, &true)?,
        (Report::Errors, false) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        (Report::Errors, true) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
        (Report::Fragments, false) => setsockopt(&socket, sockopt::RcvMark, &true)?,
        (Report::Fragments, true) => set(socket, libc::SOL_IPV6, libc::IPV6_RECVFRAGSIZE, 1)?,
        (Report::Segments, _) => setsockopt(&socket, sockopt::UdpGroSegment, &true)?,
    }
    Ok(())
}

/// Whether what is longer than the path carries is sent in fragments, or not at all: EMSGSIZE, and
/// an entry with the MTU in the error queue (IP_MTU_DISCOVER, IPV6_MTU_DISCOVER).
pub fn fragment(socket: BorrowedFd<'_>, v6: bool, fragment: bool) -> io::Result<()> {
    let (level, option, value) = match (v6, fragment) {
        (true, true) => (
            libc::SOL_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_WANT,
        ),
        (true, false) => (
            libc::SOL_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_DO,
        ),
        (false, true) => (libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT),
        (false, false) => (libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
    };
    set(socket, level, option, value)
}

/// An option whose value is a number.
fn set(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: `value` outlives the call, which only reads its four bytes.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
