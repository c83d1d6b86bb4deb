//! Keeps the relay's side of the conversation on fd 3. What a snapshot says, it does: `die` ends it
//! without an answer, `refuse` is refused, anything else is taken up.

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
    loop {
        match snapshot().as_deref() {
            Some("die") => return ExitCode::FAILURE,
            Some("refuse") => say("it says refuse"),
            Some(_) => say("ok"),
            None => return ExitCode::SUCCESS,
        }
    }
}

fn say(words: &str) {
    send(CONTROL, words.as_bytes(), MsgFlags::empty()).unwrap();
}

fn snapshot() -> Option<String> {
    let mut length = [0; 16];
    let mut iov = [IoSliceMut::new(&mut length)];
    let mut control = cmsg_space!(RawFd);
    let message = recvmsg::<()>(CONTROL, &mut iov, Some(&mut control), MsgFlags::empty()).unwrap();
    let read = message.bytes;
    let rights = message.cmsgs().unwrap().next();
    if read == 0 {
        return None;
    }
    assert_eq!(read, 8);
    let Some(ControlMessageOwned::ScmRights(fds)) = rights else {
        panic!("no memfd: {rights:?}")
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
    let expected = u64::from_le_bytes(length[..8].try_into().unwrap());
    assert_eq!(text.len() as u64, expected);
    Some(text)
}
