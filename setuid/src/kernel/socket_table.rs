//! Which sockets of the host still exist: /proc/self/net/{tcp,tcp6,udp,udp6} (proc_net(5)), which need
//! no module of the kernel and no capability.

use crate::request::Protocol;
use std::collections::BTreeSet;
use std::fs;

/// Sockets bound to a port: protocol, port, inode number.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SocketTable {
    bound: BTreeSet<(Protocol, u16, u64)>,
}

impl SocketTable {
    /// As it is now. A table that cannot be read has no sockets: of a family that is not there.
    pub fn read() -> Self {
        let mut table = Self::default();
        for (file, protocol) in [
            ("tcp", Protocol::Tcp),
            ("tcp6", Protocol::Tcp),
            ("udp", Protocol::Udp),
            ("udp6", Protocol::Udp),
        ] {
            let text = fs::read_to_string(format!("/proc/self/net/{file}"));
            table.add(protocol, &text.unwrap_or_default());
        }
        table
    }

    fn add(&mut self, protocol: Protocol, text: &str) {
        let lines = text.lines().skip(1).filter_map(line);
        let rows = lines.map(|(port, inode)| (protocol, port, inode));
        self.bound.extend(rows);
    }

    /// Such a socket exists.
    pub fn has(&self, protocol: Protocol, port: u16, inode: u64) -> bool {
        self.bound.contains(&(protocol, port, inode))
    }
}

/// `sl local_address rem_address st queues timer retransmits uid timeout inode ...`
fn line(line: &str) -> Option<(u16, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let inode = fields.nth(7)?.parse().ok()?;
    Some((port, inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::fstat;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn sockets_are_found_while_they_are_open() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let udp = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0"));
        let udp = udp.expect("a socket");
        let tcp_row = (
            tcp.local_addr().expect("an address").port(),
            fstat(&tcp).expect("a socket").st_ino,
        );
        let udp_row = (
            udp.local_addr().expect("an address").port(),
            fstat(&udp).expect("a socket").st_ino,
        );
        let table = SocketTable::read();
        assert!(table.has(Protocol::Tcp, tcp_row.0, tcp_row.1));
        assert!(table.has(Protocol::Udp, udp_row.0, udp_row.1));
        assert!(!table.has(Protocol::Udp, tcp_row.0, tcp_row.1));
        drop(tcp);
        assert!(!SocketTable::read().has(Protocol::Tcp, tcp_row.0, tcp_row.1));
    }

    #[test]
    fn what_is_no_line_is_passed_over() {
        let mut table = SocketTable::default();
        table.add(
            Protocol::Tcp,
            "header\n\nx y z\n 0: 0100007F:ZZ 0 0A 0 0 0 0 0 5",
        );
        assert_eq!(table, SocketTable::default());
    }
}
