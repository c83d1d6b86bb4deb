//! Keeps the relay's side of the conversation on fd 3. What a snapshot says, it does: `die` ends it
//! without an answer, `refuse` is refused, `has N` is where so many listening sockets have come so far,
//! `knows JSON` where the last list of endpoints was that; from `deaf` on such lists are refused; anything else is taken up.

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send};
use std::fs::{self, OpenOptions};
use std::io::{IoSliceMut, Read};
use std::os::fd::RawFd;
use std::process::ExitCode;

const CONTROL: RawFd = 3;
const ROUTER: &str = "/proc/self/fd/4";

pub fn main() -> ExitCode {
    let router = fs::read_link(ROUTER).map(|path| path.to_string_lossy().into_owned());
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let ready = match router {
        Ok(router) if router.starts_with("net:") && router != own.to_string_lossy() => "ready",
        _ => "fd 4 is not the router netns",
    };
    say(ready);
    let mut listeners = 0;
    let (mut endpoints, mut deaf) = (String::new(), false);
    loop {
        match message() {
            Some(Message::Listeners(count)) => {
                listeners += count;
                say("ok");
            }
            Some(Message::Endpoints(_)) if deaf => say("it is deaf"),
            Some(Message::Endpoints(list)) => {
                endpoints = list;
                say("ok");
            }
            Some(Message::Snapshot(text)) => match text.as_str() {
                "die" => return ExitCode::FAILURE,
                "refuse" => say("it says refuse"),
                has if has.starts_with("has ") && has != format!("has {listeners}") => {
                    say(&format!("it has {listeners}"));
                }
                knows if knows.starts_with("knows ") && knows != format!("knows {endpoints}") => {
                    say(&format!("it knows {endpoints}"));
                }
                word => {
                    deaf |= word == "deaf";
                    say("ok");
                }
            },
            None => return ExitCode::SUCCESS,
        }
    }
}

fn say(words: &str) {
    send(CONTROL, words.as_bytes(), MsgFlags::empty()).unwrap();
}

enum Message {
    Snapshot(String),
    Endpoints(String),
    /// So many.
    Listeners(usize),
}

fn message() -> Option<Message> {
    let mut length = [0; 32];
    let mut iov = [IoSliceMut::new(&mut length)];
    let mut control = cmsg_space!([RawFd; 253]);
    let message = recvmsg::<()>(CONTROL, &mut iov, Some(&mut control), MsgFlags::empty()).unwrap();
    let read = message.bytes;
    let rights = message.cmsgs().unwrap().next();
    if read == 0 {
        return None;
    }
    let Some(ControlMessageOwned::ScmRights(fds)) = rights else {
        panic!("no descriptor: {rights:?}")
    };
    if length.starts_with(b"listeners") {
        return Some(Message::Listeners(fds.len()));
    }
    let endpoints = std::str::from_utf8(&length[..read])
        .ok()
        .and_then(|text| text.strip_prefix("endpoints "));
    let expected = match endpoints {
        Some(length) => length.parse().unwrap(),
        None => {
            assert_eq!(read, 8);
            u64::from_le_bytes(length[..8].try_into().unwrap())
        }
    };
    let path = format!("/proc/self/fd/{}", fds[0]);
    let writable = OpenOptions::new().append(true).open(&path);
    assert!(
        writable.is_err() || nix::unistd::write(writable.unwrap(), b"x").is_err(),
        "unsealed"
    );
    let mut text = String::new();
    fs::File::open(&path)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text.len() as u64, expected);
    Some(match endpoints {
        Some(_) => Message::Endpoints(text),
        None => Message::Snapshot(text),
    })
}
