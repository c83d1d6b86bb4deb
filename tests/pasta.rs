//! The pasta drop-in by itself, as podman and rootlesskit call it: by whoever is root in a user namespace of
//! an unprivileged user, in the host's network namespace, for a namespace of its own.

mod commands;
mod lifetime;
mod looks;
mod outward;
mod published;
mod refusals;

use crate::world::{Cmd, Running, World, within};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// What every script begins with: a user namespace as podman's, a directory, a network namespace `ns`.
const PROLOGUE: &str = r#"
mkdir -p /run/p
mount -t tmpfs none /run/p
new() { : >"/run/p/$1"; unshare -n mount --bind /proc/self/ns/net "/run/p/$1"; }
new ns
pasta() { mossnet pasta --config-net "$@"; }
# As podman 5 calls it, with what is left out there.
podmans() { pasta "$@" --pid /run/p/pid --no-map-gw --quiet --netns /run/p/ns; }
quiet_ports="-t none -u none -T none -U none"
inside() { nsenter --net=/run/p/ns "$@"; }
until_true() { n=0; until "$@" >/dev/null 2>&1; do n=$((n + 1)); [ "$n" -lt 400 ] || return 1; sleep 0.05; done; }
# Of a process whose parent has not looked yet, only its state tells.
gone() { state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) || return 0; [ -z "$state" ] || [ "$state" = Z ]; }
"#;

/// A program that is started as podman starts pasta.
pub fn sh(world: &World, script: &str) -> Cmd {
    let script = format!("{PROLOGUE}\n{script}");
    let argv = ["unshare", "-r", "-m", "sh", "-euc", script.as_str()];
    world.user(argv)
}

/// Tries words such as `tcp/7001/::1` in the namespace, and says of each what came of it.
pub const ASK: &str = r#"
cat >/run/p/ask.py <<'END'
import socket, sys
for word in sys.argv[1:]:
    proto, port, host = word.split('/', 2)
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM if proto == 'tcp' else socket.SOCK_DGRAM)
    s.settimeout(10)
    try:
        s.connect((host, int(port)))
        if proto == 'udp': s.send(b'who am I?')
        said = s.recv(100)
        while proto == 'tcp' and (more := s.recv(100)): said += more
        print(word, said.decode() or 'closed')
    except ConnectionRefusedError: print(word, 'refused')
    except socket.timeout: print(word, 'silence')
    except OSError as error: print(word, error.strerror)
END
ask() { inside python3 /run/p/ask.py "$@"; }
"#;

/// Services in the namespace, at `ADDRESS/PORT/PROTO`, which tell whom they take a client for; ready when
/// `/run/p/serving` is there.
pub const WHO: &str = r#"
cat >/run/p/who.py <<'END'
import socket, sys, threading
def tcp(s):
    while True:
        c, peer = s.accept()
        c.sendall(peer[0].encode()); c.close()
def udp(s):
    while True:
        _, peer = s.recvfrom(100)
        s.sendto(peer[0].encode(), peer)
for word in sys.argv[1:]:
    proto, port, host = word.split('/', 2)
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM if proto == 'tcp' else socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((host, int(port)))
    if proto == 'tcp': s.listen(100)
    threading.Thread(target=tcp if proto == 'tcp' else udp, args=(s,), daemon=True).start()
open('/run/p/serving', 'w').close()
threading.Event().wait()
END
serve() { rm -f /run/p/serving; nsenter --net=/run/p/ns python3 /run/p/who.py "$@" & server=$!; until_true test -e /run/p/serving; }
"#;

/// A script that goes on when it is told to.
pub struct Script(Running);

impl Script {
    /// Starts it, and waits until it says `up`.
    #[track_caller]
    pub fn start(world: &World, script: &str) -> Self {
        let mut running = sh(world, script).open_stdin().start();
        running.expect("up\n");
        Self(running)
    }

    /// Lets it end, and gives what it has said.
    #[track_caller]
    pub fn end(mut self) -> String {
        self.0.write(b"\n");
        self.0.wait().expect_code(0).stdout
    }
}

/// A service in `netns` that tells whom it takes a client for, TCP and UDP.
pub fn who(netns: &str, at: &str, port: u16) {
    let at = SocketAddr::new(at.parse().expect("an address"), port);
    let (tcp, udp) = within(netns, || (TcpListener::bind(at), UdpSocket::bind(at)));
    let (tcp, udp) = (tcp.expect("listen"), udp.expect("bind"));
    std::thread::spawn(move || {
        for mut client in tcp.incoming().flatten() {
            let seen = client.peer_addr().expect("a peer").ip().to_canonical();
            let _ = client.write_all(seen.to_string().as_bytes());
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, client)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(client.ip().to_canonical().to_string().as_bytes(), client);
        }
    });
}

/// Whom a service at `to` takes `netns` for.
pub fn asked(netns: &str, to: &str) -> std::io::Result<String> {
    let to: SocketAddr = to.parse().expect("an address");
    let limit = Duration::from_secs(10);
    let mut client = within(netns, || TcpStream::connect_timeout(&to, limit))?;
    client.set_read_timeout(Some(limit))?;
    let mut text = String::new();
    client.read_to_string(&mut text)?;
    Ok(text)
}

/// The same by datagrams, asked again where one is lost.
pub fn asked_udp(netns: &str, to: &str) -> String {
    let to: SocketAddr = to.parse().expect("an address");
    let any: IpAddr = match to.is_ipv6() {
        true => std::net::Ipv6Addr::UNSPECIFIED.into(),
        false => std::net::Ipv4Addr::UNSPECIFIED.into(),
    };
    let socket = within(netns, || UdpSocket::bind((any, 0))).expect("bind");
    socket.connect(to).expect("connect");
    let limit = Some(Duration::from_secs(2));
    socket.set_read_timeout(limit).expect("a timeout");
    let mut buffer = [0; 100];
    for _ in 0..8 {
        let sent = socket.send(b"who am I?");
        if let (Ok(_), Ok(length)) = (sent, socket.recv(&mut buffer)) {
            return String::from_utf8_lossy(&buffer[..length]).into_owned();
        }
    }
    panic!("{to} does not answer");
}
