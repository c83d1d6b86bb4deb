//! Who holds a port: /proc/net says which socket, /proc/PID/fd whose it is.
//!
//! For an error text only: what cannot be seen is not told. Source: proc(5).

use crate::ports::{Claim, HostAddr, Port, Proto};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its command's name.
    pub name: String,
}

/// The process that stands in the way of `wish`, where it is one whose descriptors may be read.
pub fn holder(wish: &Claim) -> Option<Holder> {
    let tables = match wish.proto {
        Proto::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Proto::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let inode = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|text| inode_in_the_way(&text, wish))?;
    process_with(inode)
}

/// The inode of the first socket in a table of /proc/net that listens where `wish` would.
fn inode_in_the_way(table: &str, wish: &Claim) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (address, port) = local(words.next()?)?;
        let state = words.nth(1)?;
        let inode = words.nth(5)?.parse().ok()?;
        // TCP_LISTEN; of UDP sockets the state says nothing that matters.
        let listens = wish.proto == Proto::Udp || state == "0A";
        let in_the_way = wish.host_ports.offset(port).is_some()
            && (address.overlaps(wish.host_addr) || is_any(address));
        (listens && in_the_way).then_some(inode)
    })
}

/// `::` may be a socket of both families: the table does not tell.
fn is_any(address: HostAddr) -> bool {
    address == HostAddr::Only(Ipv6Addr::UNSPECIFIED.into())
}

/// `0100007F:1F90`: words of the machine's byte order, and a number.
fn local(text: &str) -> Option<(HostAddr, Port)> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = Vec::with_capacity(16);
    for word in address.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let address: IpAddr = match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
        _ => return None,
    };
    let port = Port::new(u16::from_str_radix(port, 16).ok()?)?;
    Some((HostAddr::only(address), port))
}

fn process_with(inode: u64) -> Option<Holder> {
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // Not ours to read, or gone.
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = descriptors
            .flatten()
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .any(|target| target.as_os_str() == wanted.as_str());
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name = name.trim().chars().filter(|c| !c.is_control()).collect();
            return Some(Holder { pid, name });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::PortRange;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1 0 100 0 0 10 0\n\
        1: 0100007F:1F91 0200007F:1000 01 00000000:00000000 00:00000000 00000000  1000        0 222 1 0 20 4 30 10 -1\n\
        garbage\n";

    fn wish(proto: Proto, addr: &str, port: u16) -> Claim {
        Claim {
            proto,
            host_addr: addr.parse().unwrap(),
            host_ports: PortRange::one(Port::new(port).unwrap()),
        }
    }

    #[test]
    fn listening_sockets_are_found_by_address_and_port() {
        // The table is written in the byte order of the machine.
        if cfg!(target_endian = "big") {
            return;
        }
        let find = |addr: &str, port| inode_in_the_way(TABLE, &wish(Proto::Tcp, addr, port));
        assert_eq!(find("127.0.0.1", 8080), Some(111));
        assert_eq!(find("*", 8080), Some(111));
        assert_eq!(find("127.0.0.2", 8080), None);
        assert_eq!(find("*", 8081), None, "it does not listen");
        assert_eq!(find("*", 8082), None);
        let v6 = "h\n 0: 00000000000000000000000001000000:0050 0:0 0A 0:0 0:0 0 0 0 333 1\n";
        assert_eq!(
            inode_in_the_way(v6, &wish(Proto::Tcp, "[::1]", 80)),
            Some(333)
        );
    }
}
