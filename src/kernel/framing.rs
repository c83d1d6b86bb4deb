//! Frames on the helper's socket: a little-endian u32 length, then JSON; descriptors by SCM_RIGHTS
//! with the first byte. Source: `mossnet_helper::request`, unix(7).

use mossnet_helper::request::{Frame, MAX_FRAME, MAX_LISTENERS, Request};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::{AsyncRead, AsyncReadExt, Interest};
use tokio::net::UnixStream;

/// A request carries three standard streams, or sockets of published ports.
const MAX_FDS: usize = MAX_LISTENERS;

/// Sends one request whole.
pub(super) async fn send(
    stream: &UnixStream,
    request: &Request,
    fds: &[OwnedFd],
) -> io::Result<()> {
    let bytes = encode(request)?;
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        // Descriptors go with the first byte only, even where it takes several calls.
        let fds = if sent == 0 { fds } else { &[] };
        let write = || send_once(stream.as_fd(), rest, fds);
        sent += stream.async_io(Interest::WRITABLE, write).await?;
    }
    Ok(())
}

fn encode(request: &Request) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(request)?;
    let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "request is too large");
    if json.len() > MAX_FRAME {
        return Err(too_large());
    }
    let length = u32::try_from(json.len()).map_err(|_| too_large())?;
    Ok([&length.to_le_bytes()[..], &json].concat())
}

fn send_once(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors",
        ));
    }
    let flags = SendFlags::NOSIGNAL;
    Ok(rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        flags,
    )?)
}

/// Receives one frame; `None` at the end of the stream between frames. Not cancel-safe.
pub(super) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut length = [0; 4];
    let first = stream.read(&mut length).await?;
    if first == 0 {
        return Ok(None);
    }
    if let Some(rest) = length.get_mut(first..) {
        stream.read_exact(rest).await?;
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "frame is too large",
        ));
    }
    let mut json = vec![0; length];
    stream.read_exact(&mut json).await?;
    Ok(Some(serde_json::from_slice(&json)?))
}
