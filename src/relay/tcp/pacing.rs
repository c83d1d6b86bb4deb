//! Keeps a congestion control that paces (bbr) away from connections that never leave this machine.
//!
//! Towards the world the host's own congestion control rules the host side. Where that is bbr and the peer is in
//! another namespace of this machine, it paces for a network that is not there. Choosing another one later does
//! not help: a socket for which bbr has begun stays paced (`sk_pacing_status`), and the timer that paces sends from one
//! processor what the worker sends from another, so that segments overtake each other and the window shrinks.
//!
//! So a host side is made without, and gets the host's own as soon as connect(2) has come back without a connection: only with
//! a peer on this machine the two kernels have shaken hands by then. bbr learns of the first round trip as it comes.

use crate::relay::socket_pool::CONGESTION;
use socket2::{SockRef, Socket};
use std::io;
use std::os::fd::OwnedFd;

/// A congestion control that was put aside. Dropped, it stays aside.
#[derive(Debug)]
pub struct Aside(Option<Vec<u8>>);

impl Aside {
    /// Puts the control of a socket that is not connected yet aside, where it is one that paces.
    pub fn put(socket: &Socket) -> io::Result<Self> {
        let control = socket.tcp_congestion()?;
        if !control.starts_with(b"bbr") {
            return Ok(Self(None));
        }
        socket.set_tcp_congestion(CONGESTION)?;
        // The zero bytes after the name do no harm: the kernel reads as far as the first.
        Ok(Self(Some(control)))
    }

    /// Gives it back: the peer is not on this machine.
    pub fn give_back(self, socket: &OwnedFd) -> io::Result<()> {
        match self.0 {
            Some(control) => SockRef::from(socket).set_tcp_congestion(&control),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Type};

    fn with(control: &[u8]) -> Option<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_tcp_congestion(control).ok()?;
        Some(socket)
    }

    fn control(socket: &OwnedFd) -> String {
        let name = SockRef::from(socket).tcp_congestion().unwrap();
        String::from_utf8_lossy(&name)
            .trim_end_matches('\0')
            .to_owned()
    }

    #[test]
    fn one_that_paces_is_put_aside_and_given_back() {
        let Some(socket) = with(b"bbr") else {
            println!("SKIP: this kernel lets us choose no congestion control that paces");
            return;
        };
        let aside = Aside::put(&socket).unwrap();
        let socket = OwnedFd::from(socket);
        assert_eq!(control(&socket), "reno");
        aside.give_back(&socket).unwrap();
        assert_eq!(control(&socket), "bbr");
    }

    #[test]
    fn others_stay() {
        let socket = with(b"reno").unwrap();
        let aside = Aside::put(&socket).unwrap();
        assert!(aside.0.is_none());
        let socket = OwnedFd::from(socket);
        aside.give_back(&socket).unwrap();
        assert_eq!(control(&socket), "reno");
    }
}
