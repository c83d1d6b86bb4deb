//! The socket that takes descriptors: a client that made an attached sandbox (or exec) hands over
//! its standard streams here, since HTTP cannot carry them.
//!
//! One exchange a connection. Client → daemon: the id as one line of JSON, with three descriptors
//! (SCM_RIGHTS, unix(7)). Daemon → client: `ok`, or an [`ErrorBody`] as one line of JSON.
//!
//! Invariant: descriptors that came with a malformed message are closed, however many they are.

use super::control::{Control, Refusal};
use super::types::ErrorBody;
use mossnet_helper::SandboxId;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tracing::debug;

/// A quoted id and a newline are 67 bytes.
const MAX_LINE: usize = 128;
/// The kernel passes at most this many descriptors with one message (SCM_MAX_FD), so that a buffer
/// of this size never truncates.
const SCM_MAX_FD: usize = 253;
/// A client sends its message at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// An error line longer than this is no error line of ours.
const MAX_ANSWER: u64 = 64 << 10;

/// Takes one message, passes it on, answers, closes.
pub(super) async fn serve<C: Control>(mut stream: UnixStream, control: &C) {
    let answer = match take(&stream).await {
        Ok((id, stdio)) => control.attach(id, stdio).await,
        Err(refusal) => Err(refusal),
    };
    let line = match answer {
        Ok(()) => "ok\n".to_owned(),
        Err(refusal) => error_line(&refusal.body),
    };
    if let Err(error) = stream.write_all(line.as_bytes()).await {
        debug!(%error, "descriptors acknowledged to nobody");
    }
}

fn error_line(body: &ErrorBody) -> String {
    serde_json::to_string(body).unwrap_or_else(|_| body.message.clone()) + "\n"
}

async fn take(stream: &UnixStream) -> Result<(SandboxId, [OwnedFd; 3]), Refusal> {
    let (line, fds) = tokio::time::timeout(PATIENCE, receive(stream))
        .await
        .map_err(|_| Refusal::new(408, "no descriptors came within 10 seconds"))??;
    let id: SandboxId = serde_json::from_slice(&line)
        .map_err(|error| Refusal::new(400, format!("malformed id before descriptors: {error}")))?;
    let count = fds.len();
    let stdio = fds.try_into().map_err(|_| {
        Refusal::new(
            400,
            format!("{count} descriptors came with the id, three are needed"),
        )
    })?;
    Ok((id, stdio))
}

/// Reads up to the newline, and every descriptor that comes with it.
async fn receive(stream: &UnixStream) -> Result<(Vec<u8>, Vec<OwnedFd>), Refusal> {
    let mut line = Vec::new();
    let mut fds = Vec::new();
    loop {
        let mut buffer = [0; MAX_LINE];
        let length = stream
            .async_io(Interest::READABLE, || {
                receive_once(stream.as_fd(), &mut buffer, &mut fds)
            })
            .await
            .map_err(|error| Refusal::new(400, format!("receive descriptors: {error}")))?;
        let part = buffer.get(..length).unwrap_or_default();
        line.extend_from_slice(part);
        if let Some(end) = line.iter().position(|&byte| byte == b'\n') {
            line.truncate(end);
            return Ok((line, fds));
        }
        if length == 0 || line.len() >= MAX_LINE {
            return Err(Refusal::new(400, "expected an id on one line"));
        }
        if fds.len() > 3 {
            return Err(Refusal::new(
                400,
                "more than three descriptors came with the id",
            ));
        }
    }
}

/// One recvmsg(2): returns the bytes read, appends the descriptors.
fn receive_once(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    Ok(received.bytes)
}

/// Why descriptors could not be handed over.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// The socket failed.
    #[error("hand over standard streams by {socket}")]
    Socket {
        /// The daemon's socket.
        socket: String,
        /// Why.
        source: io::Error,
    },
    /// The daemon refused them.
    #[error("{}", .0.message)]
    Refused(ErrorBody),
}

/// Hands `stdio` to the daemon as the standard streams of `id`. Blocks until it is acknowledged.
pub fn send(socket: &Path, id: &SandboxId, stdio: [BorrowedFd<'_>; 3]) -> Result<(), StdioError> {
    let failed = |source| StdioError::Socket {
        socket: socket.display().to_string(),
        source,
    };
    let answer = exchange(socket, id, &stdio).map_err(failed)?;
    let answer = answer.trim_end();
    if answer == "ok" {
        return Ok(());
    }
    match serde_json::from_str(answer) {
        Ok(body) => Err(StdioError::Refused(body)),
        Err(_) => Err(failed(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the daemon ended without an answer",
        ))),
    }
}

fn exchange(socket: &Path, id: &SandboxId, stdio: &[BorrowedFd<'_>]) -> io::Result<String> {
    let stream = StdUnixStream::connect(socket)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let line = format!("\"{id}\"\n");
    if send_raw(&stream, line.as_bytes(), stdio)? != line.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

/// One sendmsg(2); returns the bytes sent.
pub(super) fn send_raw(
    stream: &StdUnixStream,
    line: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(fds).size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(fds));
    let sent = rustix::net::sendmsg(
        stream,
        &[IoSlice::new(line)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(sent)
}
