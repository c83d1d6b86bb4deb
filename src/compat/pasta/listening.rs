//! Which ports somebody listens at in a network namespace, as /proc tells.
//!
//! The files are opened once, by a thread that is in the namespace; reading them again from their start
//! gives them anew. Nothing else of the namespace is held.
//!
//! Sources: proc_pid_net(5) (net/tcp, net/udp), Documentation/networking/proc_net_tcp.rst.

use crate::ports::{Port, Proto};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek};

/// Each with the state that a socket without a peer has there.
const FILES: [(Proto, &str, &str); 4] = [
    (Proto::Tcp, "tcp", "0A"),
    (Proto::Tcp, "tcp6", "0A"),
    (Proto::Udp, "udp", "07"),
    (Proto::Udp, "udp6", "07"),
];
/// UDP ports from here on are those of clients, which come and go with each question.
const EPHEMERAL: u16 = 32_768;

/// Where somebody listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    /// Protocol.
    pub proto: Proto,
    /// Port.
    pub port: Port,
    /// Whom for.
    pub scope: Scope,
}

/// Whom a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Any address.
    All,
    /// The loopback only.
    Loopback,
    /// One address that is not.
    Address,
}

/// The files of one namespace.
#[derive(Debug)]
pub struct Listening(Vec<(Proto, &'static str, File)>);

impl Listening {
    /// Of the namespace that the calling thread is in.
    pub fn here() -> io::Result<Self> {
        let mut files = Vec::new();
        for (proto, name, state) in FILES {
            match File::open(format!("/proc/thread-self/net/{name}")) {
                Ok(file) => files.push((proto, state, file)),
                // The kernel has no IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self(files))
    }

    /// Who listens now.
    pub fn read(&mut self) -> io::Result<BTreeSet<Socket>> {
        let mut all = BTreeSet::new();
        for (proto, state, file) in &mut self.0 {
            let mut text = String::new();
            file.rewind()?;
            file.read_to_string(&mut text)?;
            all.extend(text.lines().filter_map(|line| parse(*proto, state, line)));
        }
        Ok(all)
    }
}

/// `  0: 0100007F:1F90 00000000:0000 0A …`
fn parse(proto: Proto, wanted: &str, line: &str) -> Option<Socket> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, _remote, state) = (words.next()?, words.next()?, words.next()?);
    let (address, port) = local.split_once(':')?;
    let port = Port::new(u16::from_str_radix(port, 16).ok()?)?;
    if state != wanted || proto == Proto::Udp && port.get() >= EPHEMERAL {
        return None;
    }
    let scope = scope(address)?;
    Some(Socket { proto, port, scope })
}

/// Words of 32 bits, each in the machine's order.
fn scope(address: &str) -> Option<Scope> {
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let v4 = |word: u32| match word.to_ne_bytes() {
        [0, 0, 0, 0] => Scope::All,
        [127, ..] => Scope::Loopback,
        _ => Scope::Address,
    };
    match address.len() {
        8 => word(0).map(v4),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            Some(match words.map(u32::to_ne_bytes) {
                [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]] => Scope::All,
                [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]] => Scope::Loopback,
                [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0xff, 0xff], _] => v4(words[3]),
                _ => Scope::Address,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn sockets_are_found_as_they_come_and_go() {
        let mut listening = Listening::here().unwrap();
        let find = |listening: &mut Listening, proto, port: u16| {
            let all = listening.read().unwrap();
            let mut all = all.into_iter();
            all.find(|s| s.proto == proto && s.port.get() == port)
                .map(|s| s.scope)
        };
        let lo = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = lo.local_addr().unwrap().port();
        assert_eq!(
            find(&mut listening, Proto::Tcp, port),
            Some(Scope::Loopback)
        );
        drop(lo);
        for (at, scope) in [
            ("[::1]:0", Scope::Loopback),
            ("[::]:0", Scope::All),
            ("0.0.0.0:0", Scope::All),
        ] {
            let Ok(socket) = TcpListener::bind(at) else {
                continue;
            };
            let port = socket.local_addr().unwrap().port();
            assert_eq!(find(&mut listening, Proto::Tcp, port), Some(scope), "{at}");
        }
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = client.local_addr().unwrap().port();
        assert!(port < EPHEMERAL || find(&mut listening, Proto::Udp, port).is_none());
    }

    #[test]
    fn lines_that_are_none() {
        for line in [
            "",
            "sl local rem st",
            "0: 0100007F 0:0 0A",
            "0: 1F:1F90 0:0 0A",
            "0: 0100007F:0000 0:0 0A",
        ] {
            assert_eq!(parse(Proto::Tcp, "0A", line), None, "{line}");
        }
    }
}
