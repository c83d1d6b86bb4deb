//! From the container to the host side.

use super::Framed;
use socket2::SockRef;
use std::io;
use std::os::fd::OwnedFd;

/// Whether the host side would hold back a small segment while another is under way (Nagle; RFC 9293 §3.7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delay {
    /// It would, but none is.
    NothingSent,
    /// It would.
    Possible,
    /// TCP_NODELAY is set.
    Never,
}

impl Framed {
    /// Passes on what the container has sent; what finds no room is kept. `false`: the host side is broken.
    pub(super) fn pass_outward(&mut self, data: &[u8]) -> bool {
        if data.is_empty() || self.broken {
            return true;
        }
        if !self.held.is_empty() {
            self.held.extend_from_slice(data);
            return true;
        }
        self.send_at_once();
        match send(&self.host, data) {
            Ok(sent) => {
                // What is held, the kernel's flow counts.
                if let Some(passage) = &self.passage {
                    passage.counters.carry(0, sent as u64);
                }
                self.held
                    .extend_from_slice(data.get(sent..).unwrap_or_default());
                true
            }
            Err(error) => {
                tracing::debug!(%error, "host side broken");
                self.broken = true;
                false
            }
        }
    }

    /// What is sent next does not wait for what was sent before.
    fn send_at_once(&mut self) {
        self.delay = match self.delay {
            Delay::NothingSent => Delay::Possible,
            Delay::Possible => {
                // Where that fails it goes all the same, only later.
                let _ = SockRef::from(&self.host).set_tcp_nodelay(true);
                Delay::Never
            }
            Delay::Never => Delay::Never,
        };
    }
}

/// Bytes taken; none where there is no room.
pub(super) fn send(host: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    loop {
        match SockRef::from(host).send_with_flags(bytes, flags) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::Connection;
    use super::*;
    use crate::relay::endpoints::Place;
    use crate::relay::pending::FourTuple;
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    fn flow() -> (Framed, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ends = FourTuple {
            client: "10.0.0.2:1000".parse().unwrap(),
            destination: "192.0.2.1:80".parse().unwrap(),
        };
        let place = Place {
            port: 7,
            mac: [2, 0, 0, 0, 0, 9],
        };
        let connection = Connection::asking(ends, place, 1);
        let flow = Framed::new(connection, host.into(), Instant::now());
        (flow, listener.accept().unwrap().0)
    }

    #[test]
    fn what_is_sent_does_not_wait_for_what_was_sent_before() {
        let (mut flow, mut server) = flow();
        let at_once = |flow: &Framed| SockRef::from(&flow.host).tcp_nodelay().unwrap();
        for (data, delay, option) in [
            (&b""[..], Delay::NothingSent, false),
            (b"first", Delay::Possible, false),
            (b"second", Delay::Never, true),
            (b"third", Delay::Never, true),
        ] {
            assert!(flow.pass_outward(data));
            assert_eq!((flow.delay, at_once(&flow)), (delay, option));
            let mut got = vec![0; data.len()];
            server.read_exact(&mut got).unwrap();
            assert_eq!(got, data);
        }
    }
}
