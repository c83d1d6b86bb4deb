//! Netlink sockets: requests that are acknowledged, and dumps. A socket belongs to the network
//! namespace in which it was opened, for ever.

use crate::message::{HEADER_LENGTH, Message, Received, received};
use crate::sys::option::set_netlink_option;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Asked for: a batch carries a whole ruleset. The kernel grants twice net.core.wmem_max.
const SEND_BUFFER: usize = 4 << 20;

/// Large enough for any single message of a dump (NLMSG_GOODSIZE and more).
const RECEIVE_BUFFER: usize = 64 << 10;

/// The kernel answers before send(2) returns; this only bounds the wait should it ever not.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Error number.
    pub errno: Errno,
    /// What the kernel says in words (extended acknowledgement), if anything.
    pub words: Option<String>,
    /// Sequence number of the refused message.
    pub sequence: u32,
}

impl Refused {
    fn local(errno: Errno) -> Self {
        Self {
            errno,
            words: None,
            sequence: 0,
        }
    }

    /// The link does not exist, or not any more.
    pub fn is_absent(&self) -> bool {
        self.errno == Errno::ENODEV
    }
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self::local(errno)
    }
}

/// A netlink socket in one network namespace.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// A NETLINK_ROUTE socket in the calling thread's netns.
    pub fn route() -> nix::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute, 0)
    }

    /// The same, told of every change to a link (RTMGRP_LINK).
    pub fn link_changes() -> nix::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute, libc::RTMGRP_LINK as u32)
    }

    /// The same, told of every change to a link, an address or a route.
    pub fn network_changes() -> nix::Result<Self> {
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV6_ROUTE;
        Self::open(SockProtocol::NetlinkRoute, groups as u32)
    }

    /// A NETLINK_NETFILTER socket in the calling thread's netns.
    pub fn netfilter() -> nix::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter, 0)
    }

    /// A NETLINK_GENERIC socket in the calling thread's netns.
    pub fn generic() -> nix::Result<Self> {
        Self::open(SockProtocol::NetlinkGeneric, 0)
    }

    fn open(protocol: SockProtocol, groups: u32) -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        setsockopt(&fd, sockopt::SndBuf, &SEND_BUFFER)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            set_netlink_option(fd.as_fd(), option, 1)?;
        }
        Ok(Self { fd, sequence: 0 })
    }

    /// Perform one request, and wait for its acknowledgement.
    pub fn request(&mut self, message: Message) -> Result<(), Refused> {
        self.exchange(message, libc::NLM_F_ACK, |_| {})
    }

    /// Ask for one object; `take` sees its payload.
    pub fn query(&mut self, message: Message, take: impl FnMut(&[u8])) -> Result<(), Refused> {
        self.exchange(message, libc::NLM_F_ACK, take)
    }

    /// Ask for every object of a kind; `take` sees the payload of each.
    pub fn dump(&mut self, message: Message, take: impl FnMut(&[u8])) -> Result<(), Refused> {
        self.exchange(message, libc::NLM_F_DUMP, take)
    }

    fn exchange(
        &mut self,
        mut message: Message,
        flags: i32,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Refused> {
        self.sequence = self.sequence.wrapping_add(1);
        message.finish(self.sequence, flags as u16);
        self.send(message.bytes())?;
        loop {
            for part in received(&self.receive()?) {
                match part {
                    Received::Data {
                        sequence, payload, ..
                    } if sequence == self.sequence => {
                        take(payload);
                    }
                    Received::Error(refused) if refused.sequence == self.sequence => {
                        return Err(refused);
                    }
                    Received::Ack { sequence } | Received::Done { sequence }
                        if sequence == self.sequence =>
                    {
                        return Ok(());
                    }
                    // Left over from an exchange that timed out, or news of a link.
                    Received::Data { .. }
                    | Received::Error(_)
                    | Received::Ack { .. }
                    | Received::Done { .. } => {}
                }
            }
        }
    }

    /// Send the messages of a transaction at once; only the one numbered `acknowledged` asks for
    /// an acknowledgement. The first error is returned.
    pub fn transaction(&mut self, bytes: &[u8], acknowledged: u32) -> Result<(), Refused> {
        self.send(bytes)?;
        let mut succeeded = false;
        let mut first = None;
        while !succeeded && first.is_none() {
            for part in received(&self.receive()?) {
                match part {
                    Received::Ack { sequence } => succeeded |= sequence == acknowledged,
                    Received::Error(refused) => first = first.or(Some(refused)),
                    Received::Data { .. } | Received::Done { .. } => {}
                }
            }
        }
        self.discard();
        first.map_or(Ok(()), Err)
    }

    /// Wait until something arrives, at most until `deadline`; false: nothing came.
    pub fn wait(&mut self, deadline: Instant) -> Result<bool, Refused> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => Ok(false),
            Ok(_) | Err(Errno::EINTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Be told of every change to a link of the netns from now on, or not any more.
    pub fn follow_links(&self, follow: bool) -> nix::Result<()> {
        let option = match follow {
            true => libc::NETLINK_ADD_MEMBERSHIP,
            false => libc::NETLINK_DROP_MEMBERSHIP,
        };
        set_netlink_option(self.fd.as_fd(), option, libc::RTNLGRP_LINK as i32)
    }

    /// Whether any part of what has arrived is `wanted`. What could not be kept of it (ENOBUFS) is no
    /// error.
    pub fn heard(&mut self, wanted: impl Fn(&Received<'_>) -> bool) -> nix::Result<bool> {
        let mut buffer = vec![0; RECEIVE_BUFFER];
        loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    if received(datagram).iter().any(&wanted) {
                        return Ok(true);
                    }
                }
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Throw away what has arrived.
    pub fn discard(&mut self) {
        let mut buffer = vec![0; RECEIVE_BUFFER];
        while recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Refused> {
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self) -> Result<Vec<u8>, Refused> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut buffer = vec![0; RECEIVE_BUFFER];
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) if length < HEADER_LENGTH => return Err(Errno::EBADMSG.into()),
                Ok(length) => {
                    buffer.truncate(length);
                    return Ok(buffer);
                }
                Err(Errno::EAGAIN) if !self.wait(deadline)? => return Err(Errno::ETIMEDOUT.into()),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
