//! Out into the world, and in from there: by whatever podman starts for that (pasta, rootlessport).

use super::{SERVE, echoes, hello, soon, test};
use crate::publish::{HOST, HOST6};
use crate::world::dns::Dns;
use crate::world::{SERVER, SERVER6, servers};

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
