//! Keeps a congestion control that paces (bbr) away from connections that never leave this machine.
//!
//! Towards the world the host's own congestion control rules the host side. Where that is bbr and the peer is in
//! another namespace of this machine, it paces for a network that is not there. Choosing another one later does
//! not help: a socket for which bbr has begun stays paced (`sk_pacing_status`), and the timer that paces sends from one
//! processor what the worker sends from another, so that segments overtake each other and the window shrinks.
//!
//! So a host side is made without, and gets the host's own as soon as connect(2) has come back without a connection: only with
//! a peer on this machine the two kernels have shaken hands by then. bbr begins when the connection is there.

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
        let name = control.iter().copied().take_while(|byte| *byte != 0);
        Ok(Self(Some(name.collect())))
    }

    /// Gives it back: the peer is not on this machine.
    pub fn give_back(self, socket: &OwnedFd) -> io::Result<()> {
        match self.0 {
            Some(control) => SockRef::from(socket).set_tcp_congestion(&control),
            None => Ok(()),
        }
    }
}
