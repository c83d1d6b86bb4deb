//! The socket that takes descriptors, since HTTP cannot carry them: a client that made an attached sandbox
//! (or exec) hands over its standard streams here, another runtime the network namespace of its container.
//!
//! One exchange a connection. Client → daemon: one line of JSON, with descriptors (SCM_RIGHTS, unix(7)): an
//! id and three, or a [`NetnsAdopt`] and one. Daemon → client: one line, `ok` to the first, a
//! [`NetnsCreated`] in JSON to the second; or an [`ErrorBody`] with its `status` in JSON.
//!
//! Invariant: descriptors that came with a malformed message are closed, however many they are.

use super::control::{Answer, Control, Refusal};
use super::network_types::{NetnsAdopt, NetnsCreated};
use super::types::ErrorBody;
use mossnet_helper::SandboxId;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tracing::debug;

/// A quoted id and a newline are 67 bytes; what is published may be long.
const MAX_LINE: usize = 256 << 10;
/// Bytes read at a time.
const CHUNK: usize = 4096;
/// The kernel passes at most this many descriptors with one message (SCM_MAX_FD), so that a buffer
/// of this size never truncates.
const SCM_MAX_FD: usize = 253;
/// A client sends its message at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// An error line longer than this is no error line of ours.
const MAX_ANSWER: u64 = 64 << 10;

/// What came.
enum Handed {
    Stdio(SandboxId, [OwnedFd; 3]),
    Netns(Box<NetnsAdopt>, OwnedFd),
}

/// Takes one message, passes it on, answers, closes. What it changes is made to its end, whether or not the
/// client waits for it.
pub(super) async fn serve<C: Control>(mut stream: UnixStream, control: &C) {
    let answer = match take(&stream).await {
        Ok(Handed::Stdio(id, stdio)) => control.attach(id, stdio).await.map(|()| "ok".to_owned()),
        Ok(Handed::Netns(request, netns)) => {
            let created = control.adopt_netns(*request, netns).await;
            created.and_then(|created| as_line(&created))
        }
        Err(refusal) => Err(refusal),
    };
    let line = answer.unwrap_or_else(|refusal| error_line(&refusal)) + "\n";
    if let Err(error) = stream.write_all(line.as_bytes()).await {
        debug!(%error, "descriptors acknowledged to nobody");
    }
}

fn as_line(created: &NetnsCreated) -> Answer<String> {
    serde_json::to_string(created).map_err(|error| Refusal::new(500, format!("answer: {error}")))
}

/// A refusal as it travels: the body with its HTTP status.
#[derive(Serialize, Deserialize)]
struct ErrorLine {
    status: u16,
    #[serde(flatten)]
    body: ErrorBody,
}

fn error_line(refusal: &Refusal) -> String {
    let line = ErrorLine {
        status: refusal.status,
        body: refusal.body.clone(),
    };
    serde_json::to_string(&line).unwrap_or(line.body.message)
}

async fn take(stream: &UnixStream) -> Result<Handed, Refusal> {
    let (line, fds) = tokio::time::timeout(PATIENCE, receive(stream))
        .await
        .map_err(|_| Refusal::new(408, "no descriptors came within 10 seconds"))??;
    let count = fds.len();
    if line.starts_with(b"{") {
        let request = serde_json::from_slice(&line)
            .map_err(|error| Refusal::new(400, format!("malformed request: {error}")))?;
        let [netns] = <[OwnedFd; 1]>::try_from(fds)
            .map_err(|_| Refusal::new(400, format!("{count} descriptors came, one is needed")))?;
        return Ok(Handed::Netns(request, netns));
    }
    let id: SandboxId = serde_json::from_slice(&line)
        .map_err(|error| Refusal::new(400, format!("malformed id before descriptors: {error}")))?;
    let stdio = fds.try_into().map_err(|_| {
        Refusal::new(
            400,
            format!("{count} descriptors came with the id, three are needed"),
        )
    })?;
    Ok(Handed::Stdio(id, stdio))
}

/// Reads up to the newline, and every descriptor that comes with it.
async fn receive(stream: &UnixStream) -> Result<(Vec<u8>, Vec<OwnedFd>), Refusal> {
    let mut line = Vec::new();
    let mut fds = Vec::new();
    loop {
        let mut buffer = [0; CHUNK];
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
            return Err(Refusal::new(400, "expected one line of JSON"));
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
    #[error("hand over descriptors by {socket}")]
    Socket {
        /// The daemon's socket.
        socket: String,
        /// Why.
        source: io::Error,
    },
    /// The daemon refused them.
    #[error("{}", body.message)]
    Refused {
        /// HTTP status.
        status: u16,
        /// What the user reads.
        body: ErrorBody,
    },
}

/// Hands `stdio` to the daemon as the standard streams of `id`. Blocks until it is acknowledged.
pub fn send(socket: &Path, id: &SandboxId, stdio: [BorrowedFd<'_>; 3]) -> Result<(), StdioError> {
    match exchange(socket, &format!("\"{id}\"\n"), &stdio)?.trim_end() {
        "ok" => Ok(()),
        answer => Err(refused(socket, answer)),
    }
}

/// Hands `netns` to the daemon, to be adopted. Blocks until it is.
pub(super) fn adopt(
    socket: &Path,
    request: &NetnsAdopt,
    netns: BorrowedFd<'_>,
) -> Result<NetnsCreated, StdioError> {
    let line = serde_json::to_string(request);
    let line = line.map_err(|error| failed(socket, error.into()))? + "\n";
    let answer = exchange(socket, &line, &[netns])?;
    serde_json::from_str(&answer).map_err(|_| refused(socket, answer.trim_end()))
}

fn failed(socket: &Path, source: io::Error) -> StdioError {
    let socket = socket.display().to_string();
    StdioError::Socket { socket, source }
}

fn refused(socket: &Path, answer: &str) -> StdioError {
    match serde_json::from_str(answer) {
        Ok(ErrorLine { status, body }) => StdioError::Refused { status, body },
        Err(_) => failed(
            socket,
            io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the daemon ended without an answer",
            ),
        ),
    }
}

fn exchange(socket: &Path, line: &str, fds: &[BorrowedFd<'_>]) -> Result<String, StdioError> {
    let exchanged = || {
        let mut stream = StdUnixStream::connect(socket)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // Descriptors go with the first byte, the rest may take several calls.
        let sent = send_raw(&stream, line.as_bytes(), fds)?;
        stream.write_all(line.as_bytes().get(sent..).unwrap_or_default())?;
        let mut answer = String::new();
        stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
        Ok(answer)
    };
    exchanged().map_err(|source| failed(socket, source))
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
