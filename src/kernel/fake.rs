//! A helper for tests: answers by a script, remembers what it was asked.

use mossnet_helper::request::{Event, Failure, Frame, Reply, Request};
use mossnet_helper::sealed::Sealed;
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What a script says to one request: events first, then the answer.
pub(crate) type Said = (Vec<Event>, Result<Reply, Failure>);

/// Answers a request that came with so many descriptors; `None`: end the connection instead.
pub(crate) trait Script: FnMut(&Request, usize) -> Option<Said> + Send + 'static {}
impl<F: FnMut(&Request, usize) -> Option<Said> + Send + 'static> Script for F {}

/// Every request so far.
pub(crate) type Asked = Arc<Mutex<Vec<Request>>>;

/// The snapshot that was handed over last.
pub(crate) type LastSnapshot = Arc<Mutex<Vec<u8>>>;

/// `Done`, without events.
pub(crate) fn done() -> Option<Said> {
    Some((Vec::new(), Ok(Reply::Done)))
}

/// Serves every connection to `socket` by the script, until it ends one.
pub(crate) fn serve(socket: &Path, script: impl Script) -> Asked {
    serve_keeping(socket, script, LastSnapshot::default())
}

/// The same, keeping the last snapshot.
pub(crate) fn serve_keeping(
    socket: &Path,
    mut script: impl Script,
    snapshot: LastSnapshot,
) -> Asked {
    let listener = UnixListener::bind(socket).unwrap();
    let asked = Asked::default();
    let recorded = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if !converse(stream.unwrap(), &mut script, &recorded, &snapshot) {
                return;
            }
        }
    });
    asked
}

/// False where the script ended the connection.
fn converse(
    mut stream: UnixStream,
    script: &mut impl Script,
    asked: &Asked,
    snapshot: &LastSnapshot,
) -> bool {
    while let Some((request, descriptors)) = receive(&mut stream) {
        if let (Request::RelaySnapshot { .. }, [sealed]) = (&request, descriptors.as_slice()) {
            let sealed = Sealed::check(sealed.try_clone().unwrap()).unwrap();
            let mut text = vec![0; usize::try_from(sealed.length()).unwrap()];
            let file = File::from(sealed.duplicate().unwrap());
            file.read_exact_at(&mut text, 0).unwrap();
            *snapshot.lock().unwrap() = text;
        }
        asked.lock().unwrap().push(request.clone());
        let said = match request {
            Request::Hello { version } => Some((
                Vec::new(),
                Ok(Reply::Hello {
                    version,
                    pid: u32::MAX,
                    mapped_ids: 1,
                    anti_spoofing: true,
                    router_netns_fd: 5,
                }),
            )),
            request => script(&request, descriptors.len()),
        };
        let Some((events, reply)) = said else {
            return false;
        };
        for event in events {
            send(&mut stream, &Frame::Event(event));
        }
        send(&mut stream, &Frame::Reply(reply));
    }
    true
}

fn receive(stream: &mut UnixStream) -> Option<(Request, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let flags = rustix::net::RecvFlags::CMSG_CLOEXEC;
    let mut buffers = [IoSliceMut::new(&mut length)];
    let received = rustix::net::recvmsg(&*stream, &mut buffers, &mut control, flags).ok()?;
    if received.bytes == 0 {
        return None;
    }
    let rights = |message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
        _ => Vec::new(),
    };
    let descriptors = control.drain().flat_map(rights).collect();
    let mut json = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut json).unwrap();
    Some((serde_json::from_slice(&json).unwrap(), descriptors))
}

fn send(stream: &mut UnixStream, frame: &Frame) {
    let json = serde_json::to_vec(frame).unwrap();
    let length = u32::try_from(json.len()).unwrap().to_le_bytes();
    // Whoever asked may have gone.
    let _ = stream.write_all(&[&length[..], &json].concat());
}
