//! What answers at the other end: small servers on threads, each with one exact behaviour.

use super::netns::within;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A listener for IPv4 and IPv6 in netns `netns`.
pub fn listener(netns: &str, port: u16) -> TcpListener {
    use socket2::{Domain, Protocol, Socket, Type};
    within(netns, || {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).expect("socket");
        socket.set_only_v6(false).expect("dual stack");
        socket.set_reuse_address(true).expect("reuse");
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        socket.bind(&address.into()).expect("bind a test server");
        socket.listen(8192).expect("listen");
        socket.into()
    })
}

/// Gives each connection to `port` in netns `netns` to `serve`, on a thread of its own.
pub fn tcp(netns: &str, port: u16, serve: impl Fn(TcpStream) + Send + Sync + 'static) {
    let listener = listener(netns, port);
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
}

/// Sends back what comes, and closes when the peer has.
pub fn echo(mut stream: TcpStream) {
    let mut reader = stream.try_clone().expect("clone");
    let _ = std::io::copy(&mut reader, &mut stream);
    let _ = stream.shutdown(Shutdown::Write);
}

/// Reads to the peer's end of file, then says how much came: works only with half-closes.
pub fn count_until_eof(mut stream: TcpStream) {
    let count = std::io::copy(&mut stream, &mut std::io::sink()).unwrap_or(0);
    let _ = writeln!(stream, "got {count} bytes");
}

/// Says `bye`, closes its own direction, then counts what still comes and reports it.
pub fn close_first(counts: std::sync::mpsc::Sender<u64>) -> impl Fn(TcpStream) + Send + Sync {
    let counts = Mutex::new(counts);
    move |mut stream| {
        let _ = stream.write_all(b"bye\n");
        let _ = stream.shutdown(Shutdown::Write);
        let count = std::io::copy(&mut stream, &mut std::io::sink()).unwrap_or(0);
        let _ = counts.lock().expect("counts").send(count);
    }
}

/// Ends the connection by RST, after it has read `after` bytes.
pub fn reset(mut stream: TcpStream, after: usize) {
    let mut bytes = vec![0; after];
    let _ = stream.read_exact(&mut bytes);
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// Starts a server that says how each connection ended: `eof` or the kind of error.
pub fn report_ends(netns: &str, port: u16) -> Receiver<String> {
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    tcp(netns, port, move |mut stream| {
        let _ = stream.write_all(b"ready\n");
        let end = match std::io::copy(&mut stream, &mut std::io::sink()) {
            Ok(_) => "eof".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        };
        let _ = sender.lock().expect("ends").send(end);
    });
    receiver
}

/// Connections that are accepted and kept open.
pub struct Held(Arc<Mutex<Vec<TcpStream>>>);

impl Held {
    /// Accepts on `port` in netns `netns`.
    pub fn start(netns: &str, port: u16) -> Self {
        let listener = listener(netns, port);
        let held = Self(Arc::default());
        let streams = Arc::clone(&held.0);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                streams.lock().expect("held").push(stream);
            }
        });
        held
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.0.lock().expect("held").len()
    }

    /// Closes them all.
    pub fn release(&self) {
        self.0.lock().expect("held").clear();
    }
}

/// Sends every datagram to `port` in netns `netns` back to where it came from.
pub fn udp_echo(netns: &str, port: u16) {
    let socket = within(netns, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))).expect("bind");
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..count], from);
        }
    });
}

/// HTTP: `GET /` tells the client's address, `GET /bytes/N` sends N bytes of [`pattern`], `PUT`
/// answers with the SHA-256 of the body.
pub fn http(netns: &str, port: u16) {
    tcp(netns, port, |stream| {
        let _ = http_connection(&stream);
    });
}

fn http_connection(mut stream: &TcpStream) -> std::io::Result<()> {
    let peer = canonical(stream.peer_addr()?.ip());
    let mut reader = BufReader::with_capacity(1 << 18, stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let lower = head.to_lowercase();
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    if method == "PUT" {
        if lower.contains("expect: 100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut digest = Digest::start();
        chunked_body(&mut reader, &mut digest.input())?;
        return answer(stream, &digest.finish());
    }
    let Some(length) = path.strip_prefix("/bytes/").and_then(|n| n.parse().ok()) else {
        return answer(stream, &peer.to_string());
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    pattern(length, &mut stream)
}

fn answer(mut stream: &TcpStream, text: &str) -> std::io::Result<()> {
    let length = text.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    )
}

/// An IPv4 address that came in on an IPv6 socket, as IPv4.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Body in chunked transfer coding, which is what curl uses for a body of unknown length.
fn chunked_body(reader: &mut impl BufRead, sink: &mut impl Write) -> std::io::Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
        std::io::copy(&mut reader.by_ref().take(length), sink)?;
        reader.read_line(&mut line)?;
        if length == 0 {
            return Ok(());
        }
    }
}

/// Writes `length` bytes that differ in every MiB, so that lost, doubled and swapped parts show.
pub fn pattern(length: u64, sink: &mut impl Write) -> std::io::Result<()> {
    const BLOCK: usize = 1 << 20;
    let mut block = Vec::with_capacity(BLOCK);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while block.len() < BLOCK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend_from_slice(&state.to_le_bytes());
    }
    let mut left = length;
    let mut number = 0_u64;
    while left > 0 {
        block[..8].copy_from_slice(&number.to_le_bytes());
        let count = BLOCK.min(usize::try_from(left).unwrap_or(BLOCK));
        sink.write_all(&block[..count])?;
        left -= count as u64;
        number += 1;
    }
    Ok(())
}

/// SHA-256 of [`pattern`], in hexadecimal.
pub fn pattern_digest(length: u64) -> String {
    let mut digest = Digest::start();
    pattern(length, &mut digest.input()).expect("feed sha256sum");
    digest.finish()
}

struct Digest(std::process::Child);

impl Digest {
    fn start() -> Self {
        let mut command = Command::new("sha256sum");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().expect("sha256sum (coreutils) is installed"))
    }

    fn input(&mut self) -> impl Write + use<> {
        self.0.stdin.take().expect("piped")
    }

    fn finish(self) -> String {
        let output = self.0.wait_with_output().expect("sha256sum");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split(' ').next().unwrap_or_default().to_owned()
    }
}
