//! Conversations between namespaces of a test.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// How long something that must arrive may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long something that must not arrive is waited for.
const SILENCE: Duration = Duration::from_millis(700);

/// Connect and read what the other side sees as our address.
pub fn seen_by(server: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Nothing answers there.
#[track_caller]
pub fn expect_silence(server: SocketAddr) {
    let connected = TcpStream::connect_timeout(&server, SILENCE);
    let error = connected.expect_err("no connection");
    let silent = [
        ErrorKind::TimedOut,
        ErrorKind::NetworkUnreachable,
        ErrorKind::HostUnreachable,
    ];
    assert!(silent.contains(&error.kind()), "{error}");
}

/// Tell whoever connects its own address, for as long as the test lives.
pub fn serve(address: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("a server");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = write!(stream, "{}", peer.ip().to_canonical());
        }
    });
    address
}

/// The same for datagrams.
pub fn serve_datagrams(address: SocketAddr) {
    let socket = UdpSocket::bind(address).expect("a server");
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
        }
    });
}

/// Ask by datagram, more than once: the first may be lost on the way to a neighbour.
pub fn seen_by_datagram(from: IpAddr, server: SocketAddr) -> Option<String> {
    let socket = UdpSocket::bind((from, 0)).expect("a socket");
    socket
        .set_read_timeout(Some(SILENCE))
        .expect("a time limit");
    let mut buffer = [0; 100];
    for _ in 0..20 {
        // Without a route this fails at once.
        if socket.send_to(b"who am I", server).is_err() {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        if let Ok((length, _)) = socket.recv_from(&mut buffer) {
            return Some(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }
    None
}

/// The same, where no answer is to come.
pub fn expect_no_datagram(from: IpAddr, server: SocketAddr) {
    let socket = UdpSocket::bind((from, 0)).expect("a socket");
    socket
        .set_read_timeout(Some(SILENCE))
        .expect("a time limit");
    let _ = socket.send_to(b"who am I", server);
    let answer = socket.recv_from(&mut [0; 100]);
    assert!(answer.is_err(), "{from} was answered by {server}");
}

pub fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
