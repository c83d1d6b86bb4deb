//! Descriptors that travel over unix sockets (SCM_RIGHTS).
//!
//! Sources: unix(7), cmsg(3).

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Descriptors taken from one message; the kernel lets nobody send more (SCM_MAX_FD).
pub const MOST: usize = 253;

/// What came besides the bytes.
#[derive(Debug)]
pub struct Message {
    /// Bytes put into the buffer; none at the end of file.
    pub length: usize,
    /// Close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Receives one message. `InvalidData` where it had more bytes or descriptors than there is room.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Message> {
    let mut control = nix::cmsg_space!([RawFd; MOST]);
    let mut vectors = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut vectors,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut descriptors = Vec::new();
    // Fails where there were more than fit. The sender is trusted not to leave us those that did.
    let control = message.cmsgs().map(Iterator::collect::<Vec<_>>);
    for message in control.iter().flatten() {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            for number in numbers {
                // SAFETY: the kernel has just opened it for us, and each is taken once.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(*number) });
            }
        }
    }
    let cut = MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC;
    if control.is_err() || message.flags.intersects(cut) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Message {
        length: message.bytes,
        descriptors,
    })
}

/// Sends one message.
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() {
        &[][..]
    } else {
        &rights[..]
    };
    let vectors = [IoSlice::new(bytes)];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &vectors,
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}
