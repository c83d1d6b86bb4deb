//! Datagrams with descriptors, over a SOCK_SEQPACKET pair (unix(7)).

use crate::wire::MAX_DATAGRAM;
use mossnet_netlink::fds::recv_with_fds;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// What arrived.
#[derive(Debug)]
pub struct Datagram {
    /// Empty: the other side is gone.
    pub bytes: Vec<u8>,
    /// In the order in which they were sent, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Send one datagram with these descriptors. A peer that is gone is EPIPE, not a signal.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(bytes)];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &parts,
        rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .map(drop)
}

/// Receive one datagram. EMSGSIZE: it is longer than any of ours.
pub fn receive(socket: BorrowedFd<'_>) -> nix::Result<Datagram> {
    let mut bytes = vec![0; MAX_DATAGRAM + 1];
    let (length, fds) = recv_with_fds(socket, &mut bytes, MsgFlags::empty())?;
    if length > MAX_DATAGRAM {
        return Err(Errno::EMSGSIZE);
    }
    bytes.truncate(length);
    Ok(Datagram { bytes, fds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::os::fd::AsFd;

    #[test]
    fn what_is_too_long_is_refused_and_the_end_is_empty() {
        let kind = SockType::SeqPacket;
        let (one, other) =
            socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).expect("a pair");
        send(one.as_fd(), &[1; MAX_DATAGRAM + 1], &[]).expect("sent");
        assert_eq!(receive(other.as_fd()).err(), Some(Errno::EMSGSIZE));
        send(one.as_fd(), b"x", &[one.as_fd(), other.as_fd()]).expect("sent");
        let received = receive(other.as_fd()).expect("received");
        assert_eq!(
            (received.bytes.as_slice(), received.fds.len()),
            (&b"x"[..], 2)
        );
        drop(received);
        // A last word of one that has not read what it was sent.
        send(other.as_fd(), b"unread", &[]).expect("sent");
        send(one.as_fd(), b"last", &[]).expect("sent");
        drop(one);
        assert_eq!(receive(other.as_fd()).err(), Some(Errno::ECONNRESET));
        assert_eq!(receive(other.as_fd()).expect("received").bytes, b"last");
        assert!(receive(other.as_fd()).expect("the end").bytes.is_empty());
        let gone = send(other.as_fd(), b"x", &[]);
        assert_eq!(gone, Err(Errno::EPIPE));
    }
}
