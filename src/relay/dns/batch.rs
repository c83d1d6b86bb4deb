//! Datagrams as the kernel has them ready, many at a time, and who of their senders is heard.
//!
//! All clients of a relay share one socket of each family. What arrives faster than it is answered fills
//! the socket's buffer, and then the kernel loses the queries of everybody alike. So reading must be
//! much faster than answering: a batch is one system call, and where batches come full one after the
//! other, each client is answered few queries of each and the rest of its are thrown away unread.
//!
//! Invariants: a burst that fits the socket's buffer is answered whole; a client within its share is
//! heard, however much others send. Sources: recvmmsg(2), ip(7) IP_PKTINFO, RFC 3542 §6.2.

use super::message::MAX_QUERY;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg,
};
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

/// Datagrams of one system call.
const SIZE: usize = 64;
/// So many full batches in a row are a flood: more than a socket's buffer of the usual size holds.
const FLOOD: u32 = 6;
/// Of a flood, each client's part of a batch.
const SHARE: usize = 8;

/// One datagram and its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    length: usize,
    /// Who asks.
    pub client: SocketAddr,
    /// The address that is asked.
    pub gateway: IpAddr,
}

/// Room for a batch, used again and again.
pub struct Batch {
    headers: MultiHeaders<SockaddrStorage>,
    buffer: Vec<u8>,
    /// Where in `buffer` it begins is its place here times [`MAX_QUERY`]; `None` for what cannot be a
    /// query to us.
    datagrams: Vec<Option<Datagram>>,
    /// Full ones in a row.
    full: u32,
}

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            headers: headers(),
            buffer: vec![0; SIZE * MAX_QUERY],
            datagrams: Vec::with_capacity(SIZE),
            full: 0,
        }
    }

    /// Takes what is there, at least one datagram.
    ///
    /// # Errors
    /// Nothing is there (`WouldBlock`), or the socket's.
    pub fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<()> {
        self.datagrams.clear();
        let chunks = self.buffer.chunks_exact_mut(MAX_QUERY);
        let mut slices: Vec<_> = chunks.map(|chunk| [IoSliceMut::new(chunk)]).collect();
        let received = recvmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            slices.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        for message in received {
            self.datagrams.push(read(&message)?);
        }
        if self.datagrams.contains(&None) {
            // The room for what comes along is as large as last time's.
            self.headers = headers();
        }
        self.full = if self.is_full() {
            self.full.saturating_add(1)
        } else {
            0
        };
        Ok(())
    }

    /// As many came as there is room for, and perhaps there are more.
    pub fn is_full(&self) -> bool {
        self.datagrams.len() == SIZE
    }

    /// What is to be answered of it, in order.
    pub fn fair(&self) -> impl Iterator<Item = (Datagram, &[u8])> {
        let flood = self.full >= FLOOD;
        let mut heard = HashMap::new();
        let messages = self.buffer.chunks_exact(MAX_QUERY);
        self.datagrams
            .iter()
            .zip(messages)
            .filter_map(move |(datagram, message)| {
                let datagram = (*datagram)?;
                let message = message.get(..datagram.length)?;
                if flood {
                    let count = heard.entry(datagram.client.ip()).or_insert(0_usize);
                    *count += 1;
                    if *count > SHARE {
                        return None;
                    }
                }
                Some((datagram, message))
            })
    }
}

fn headers() -> MultiHeaders<SockaddrStorage> {
    let control = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
    MultiHeaders::preallocate(SIZE, Some(control))
}

/// `None` for a datagram that cannot be a query to us.
fn read(message: &RecvMsg<'_, '_, SockaddrStorage>) -> io::Result<Option<Datagram>> {
    if message
        .flags
        .intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC)
    {
        return Ok(None);
    }
    let client = message.address.as_ref().and_then(socket_address);
    let mut gateway = None;
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                gateway = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                gateway = Some(IpAddr::from(info.ipi6_addr.s6_addr));
            }
            _other => {}
        }
    }
    // Source port 0 cannot be answered.
    Ok(client
        .zip(gateway)
        .filter(|(client, _)| client.port() != 0)
        .map(|(client, gateway)| Datagram {
            length: message.bytes,
            client,
            gateway,
        }))
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || {
        address
            .as_sockaddr_in()
            .map(|v4| SocketAddr::V4((*v4).into()))
    };
    let v6 = || {
        address
            .as_sockaddr_in6()
            .map(|v6| SocketAddr::V6((*v6).into()))
    };
    v4().or_else(v6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{setsockopt, sockopt};
    use std::net::UdpSocket;

    fn receive(batch: &mut Batch, socket: &UdpSocket) -> usize {
        batch.receive(socket).unwrap();
        batch.fair().count()
    }

    #[test]
    fn bursts_are_heard_whole_and_floods_in_part() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).unwrap();
        let gateway = socket.local_addr().unwrap();
        let [greedy, modest] = ["127.0.0.2:0", "127.0.0.3:0"].map(|a| UdpSocket::bind(a).unwrap());
        let mut batch = Batch::new();
        let nothing = batch.receive(&socket).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        for round in 1..=FLOOD + 2 {
            for number in 0..SIZE - 1 {
                greedy
                    .send_to(&[1, u8::try_from(number).unwrap()], gateway)
                    .unwrap();
            }
            modest.send_to(&[2, 9, 9], gateway).unwrap();
            let heard = receive(&mut batch, &socket);
            let expected = if round < FLOOD { SIZE } else { SHARE + 1 };
            assert_eq!(heard, expected, "in round {round}");
            let (last, message) = batch.fair().last().unwrap();
            assert_eq!(last.client, modest.local_addr().unwrap());
            assert_eq!(last.gateway, gateway.ip());
            assert_eq!(message, [2, 9, 9]);
            let first = batch.fair().next().map(|(_, message)| message.to_vec());
            assert_eq!(first, Some(vec![1, 0]), "in order");
        }
        // It is over with the first batch that has room.
        greedy.send_to(&[1], gateway).unwrap();
        assert_eq!(receive(&mut batch, &socket), 1);
        for _ in 0..SIZE {
            greedy.send_to(&[1], gateway).unwrap();
        }
        assert_eq!(receive(&mut batch, &socket), SIZE);
    }

    #[test]
    fn what_is_too_large_is_no_query() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).unwrap();
        let gateway = socket.local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.2:0").unwrap();
        client.send_to(&[0; MAX_QUERY + 1], gateway).unwrap();
        client.send_to(&[7; MAX_QUERY], gateway).unwrap();
        let mut batch = Batch::new();
        assert_eq!(receive(&mut batch, &socket), 1);
        assert!(batch.fair().all(|(_, message)| message == [7; MAX_QUERY]));
    }
}
