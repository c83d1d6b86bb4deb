//! Keeps a congestion control that paces (bbr) away from connections that never leave this machine.
//!
//! Towards the world the host's own congestion control rules the host side. Where that is bbr and the peer is in
//! another namespace of this machine, it paces for a network that is not there. Choosing another one later does
//! not help: a socket for which bbr has begun stays paced (`sk_pacing_status`), and the timer that paces sends from one
//! processor what the worker sends from another, so that segments overtake each other and the window shrinks.
//!
//! So a host side is made without, and gets the host's own once its peer is known to be further away:
//!
//! * of a connection that a container makes, as soon as connect(2) has come back without a connection. Only with
//!   a peer on this machine the two kernels have shaken hands by then;
//! * of one that a client makes to a published port, when it is accepted, by the handshake's [round trip](NEAR).
//!
//! bbr learns of the round trips that follow as they come.

use crate::relay::socket_pool::CONGESTION;
use crate::sys::tcp::round_trip;
use socket2::{Protocol, SockRef, Socket, Type};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// A client whose ACK has come sooner is on this machine: those are at 2 to 10 µs, the fastest networks take
/// longer, with two kernels at their ends. One here that takes longer, since others have the processor, counts as far.
const NEAR: Duration = Duration::from_micros(25);

/// A congestion control that was put aside. Dropped, it stays aside.
#[derive(Debug, Clone, Default)]
pub struct Aside(Option<Arc<[u8]>>);

impl Aside {
    /// Puts the control of a socket that is not connected yet aside, where it is one that paces.
    pub fn put(socket: &Socket) -> io::Result<Self> {
        Self::put_for(socket, &SockRef::from(socket))
    }

    /// Does the same to another fresh socket, without asking what it has.
    pub fn put_again(&self, socket: &Socket) -> io::Result<()> {
        match self.0 {
            Some(_) => socket.set_tcp_congestion(CONGESTION),
            None => Ok(()),
        }
    }

    /// Puts the control of all connections aside that a listening socket of this network namespace will accept.
    pub fn put_for_accepted(listener: &SockRef<'_>) -> io::Result<Self> {
        // Of the listener itself an earlier relay may have put it aside already.
        let fresh = Socket::new(listener.domain()?, Type::STREAM, Some(Protocol::TCP))?;
        Self::put_for(&fresh, listener)
    }

    fn put_for(fresh: &Socket, socket: &SockRef<'_>) -> io::Result<Self> {
        let control = fresh.tcp_congestion()?;
        if !control.starts_with(b"bbr") {
            return Ok(Self(None));
        }
        socket.set_tcp_congestion(CONGESTION)?;
        // The zero bytes after the name do no harm: the kernel reads as far as the first.
        Ok(Self(Some(control.into())))
    }

    /// Gives it back: the peer is not on this machine.
    pub fn give_back(&self, socket: &OwnedFd) -> io::Result<()> {
        match &self.0 {
            Some(control) => SockRef::from(socket).set_tcp_congestion(control),
            None => Ok(()),
        }
    }

    /// Gives it back to a connection just accepted, if the client is not on this machine.
    pub fn give_back_to_far(&self, accepted: &OwnedFd) -> io::Result<()> {
        if self.0.is_none() || round_trip(accepted.as_fd())?.is_some_and(|time| time < NEAR) {
            return Ok(());
        }
        self.give_back(accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::Domain;

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
        let another = with(b"bbr").unwrap();
        aside.put_again(&another).unwrap();
        assert_eq!(control(&another.into()), "reno");
    }

    #[test]
    fn accepted_connections_have_another_one_than_their_listener_had() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let own = control(&own.into());
        // The second relay that has the listener knows of it, too.
        for _ in 0..2 {
            let aside = Aside::put_for_accepted(&SockRef::from(&listener)).unwrap();
            let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let accepted = OwnedFd::from(listener.accept().unwrap().0);
            let (near, far) = if own.starts_with("bbr") {
                ("reno", own.as_str())
            } else {
                (own.as_str(), own.as_str())
            };
            assert_eq!(control(&accepted), near);
            aside.give_back(&accepted).unwrap();
            assert_eq!(control(&accepted), far);
        }
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
