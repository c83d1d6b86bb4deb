//! The smallest daemon: blocking, one request at a time.

use mossnet_helper::request::{Event, Failure, Frame, PROTOCOL_VERSION, Reply, Request};
use mossnet_helper::sealed::Sealed;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::collections::VecDeque;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to the helper.
pub struct Client {
    socket: UnixStream,
    events: VecDeque<Event>,
}

impl Client {
    /// Connect, and say hello.
    pub fn connect(path: &Path) -> Self {
        let mut client = Self::silent(path);
        let hello = client
            .ask(Request::Hello {
                version: PROTOCOL_VERSION,
            })
            .unwrap();
        assert!(matches!(
            hello,
            Reply::Hello {
                version: PROTOCOL_VERSION,
                mapped_ids: 1..,
                ..
            }
        ));
        client
    }

    /// Connect without a word.
    pub fn silent(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            events: VecDeque::new(),
        }
    }

    /// A request without descriptors.
    pub fn ask(&mut self, request: Request) -> Result<Reply, Failure> {
        self.ask_with(request, &[])
    }

    /// A request with its descriptors.
    pub fn ask_with(&mut self, request: Request, fds: &[OwnedFd]) -> Result<Reply, Failure> {
        self.send(&serde_json::to_vec(&request).unwrap(), fds);
        self.reply()
    }

    /// A snapshot for the relay.
    pub fn load(&mut self, text: &str, listeners: Vec<String>) -> Result<Reply, Failure> {
        let sealed = Sealed::of(text.as_bytes()).unwrap();
        let request = Request::RelaySnapshot { listeners };
        self.ask_with(request, &[sealed.duplicate().unwrap()])
    }

    /// A request that must succeed.
    pub fn done(&mut self, request: Request) {
        let what = format!("{request:?}");
        match self.ask(request) {
            Ok(Reply::Done) => {}
            other => panic!("{what}: {other:?}"),
        }
    }

    /// Bytes as a frame.
    pub fn send(&mut self, json: &[u8], fds: &[OwnedFd]) {
        let mut frame = (json.len() as u32).to_le_bytes().to_vec();
        frame.extend_from_slice(json);
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
        let fd = self.socket.as_raw_fd();
        let sent = sendmsg::<()>(fd, &[IoSlice::new(&frame)], rights, MsgFlags::empty(), None);
        self.socket.write_all(&frame[sent.unwrap()..]).unwrap();
    }

    /// The next answer; events before it are kept.
    pub fn reply(&mut self) -> Result<Reply, Failure> {
        loop {
            match self.frame().expect("the helper has hung up") {
                Frame::Reply(reply) => return reply,
                Frame::Event(event) => self.events.push_back(event),
            }
        }
    }

    /// The next event.
    pub fn event(&mut self) -> Event {
        if let Some(event) = self.events.pop_front() {
            return event;
        }
        match self.frame().expect("the helper has hung up") {
            Frame::Event(event) => event,
            Frame::Reply(reply) => panic!("an answer without a request: {reply:?}"),
        }
    }

    /// The next frame; none at end of file.
    pub fn frame(&mut self) -> Option<Frame> {
        let mut length = [0; 4];
        match self.socket.read(&mut length[..1]) {
            Ok(0) => return None,
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
            other => other.unwrap(),
        };
        self.socket.read_exact(&mut length[1..]).unwrap();
        let mut json = vec![0; u32::from_le_bytes(length) as usize];
        self.socket.read_exact(&mut json).unwrap();
        Some(serde_json::from_slice(&json).unwrap())
    }
}
