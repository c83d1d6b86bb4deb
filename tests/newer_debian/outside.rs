//! Out into the world, and in from there: by whatever podman starts for that (pasta, rootlessport).

use super::{SERVE, echoes, hello, soon, test};
use crate::publish::{HOST, HOST6, at, udp_client};
use crate::world::dns::Dns;
use crate::world::{SERVER, SERVER6, seconds, servers, within};
use std::io::Read;
use std::net::TcpStream;

/// Tells each client its own address, on TCP port 80 and UDP port 90.
const WHO: &str = "exec python3 -c '
import socket, threading
def plain(peer): return peer[0].replace(\"::ffff:\", \"\").encode()
both = dict(family=socket.AF_INET6, dualstack_ipv6=True)
t = socket.create_server((\"::\", 80), **both)
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
u.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
u.bind((\"::\", 90))
def tcp():
    while True:
        c, peer = t.accept()
        c.sendall(plain(peer))
        c.close()
threading.Thread(target=tcp, daemon=True).start()
while True:
    peer = u.recvfrom(99)[1]
    u.sendto(plain(peer), peer)'";

/// Over TCP, UDP and by name, to the outside.
pub fn outside() -> String {
    format!(
        "curl -sS -m 9 http://{SERVER}/ >/dev/null && curl -sS -m 9 'http://[{SERVER6}]/' >/dev/null &&
         curl -sS -m 9 http://www.test.example/ >/dev/null && exec python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(9)
s.sendto(b\"there\", (\"{SERVER}\", 9000))
print(s.recv(99).decode())'"
    )
}

#[test]
fn containers_reach_the_outside() {
    test(|_, podman| {
        Dns::start("server");
        servers::http("server", 80);
        servers::udp_echo("server", 9000);
        podman.network(&["--ipv6", "six"]);
        for network in ["--network=six", "--network=pasta"] {
            assert_eq!(podman.run(&[network], &outside()), "there\n", "{network}");
        }
        // Where podman puts a container that asks for nothing.
        assert_eq!(podman.run(&[], &outside()), "there\n");
    });
}

#[test]
fn the_outside_reaches_published_ports() {
    test(|_, podman| {
        podman.network(&["--ipv6", "six"]);
        for (network, tcp, udp) in [
            ("--network=six", 8080, 9001),
            ("--network=pasta", 8081, 9002),
        ] {
            let ports = [format!("-p={tcp}:80"), format!("-p={udp}:90/udp")];
            let name = &network[10..];
            podman.detached(name, &[network, &ports[0], &ports[1]], SERVE);
            for from in ["server", "host"] {
                soon(&format!("{network} from {from}"), || {
                    hello(from, &format!("{HOST}:{tcp}")) && echoes(from, &format!("{HOST}:{udp}"))
                });
            }
            soon(&format!("{network} over IPv6"), || {
                hello("server", &format!("[{HOST6}]:{tcp}"))
            });
        }
    });
}

/// Whom the container takes `server` for, over TCP and UDP.
fn seen(host: &str, tcp: u16, udp: u16) -> Option<[String; 2]> {
    let mut stream = within("server", || TcpStream::connect(at(host, tcp))).ok()?;
    stream.set_read_timeout(Some(seconds(5))).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let socket = udp_client("server", 0, at(host, udp));
    socket.set_read_timeout(Some(seconds(2))).ok()?;
    socket.send(b"who am I?").ok()?;
    let mut buffer = [0; 99];
    let length = socket.recv(&mut buffer).ok()?;
    let datagram = String::from_utf8_lossy(&buffer[..length]).into_owned();
    Some([text, datagram])
}

#[test]
fn containers_see_their_clients() {
    test(|_, podman| {
        let status = podman.sh("mossnet podman status").ok();
        for program in ["netavark", "aardvark-dns", "rootlessport", "pasta"] {
            assert!(status.contains(program), "{status}");
        }
        podman.network(&["--ipv6", "six"]);
        for (network, tcp, udp) in [
            ("--network=six", 8080, 9001),
            ("--network=pasta", 8081, 9002),
        ] {
            let ports = [format!("-p={tcp}:80"), format!("-p={udp}:90/udp")];
            podman.detached(&network[10..], &[network, &ports[0], &ports[1]], WHO);
            for (host, client) in [(HOST, SERVER), (HOST6, SERVER6)] {
                let mut last = None;
                soon(&format!("{network} answers {client}"), || {
                    last = seen(host, tcp, udp);
                    last.is_some()
                });
                let expected = [client.to_owned(), client.to_owned()];
                assert_eq!(last, Some(expected), "{network}");
            }
        }
    });
}
