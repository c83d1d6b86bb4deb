//! How flows of published UDP ports end: after a time without datagrams (RFC 4787 §4.3), or because the
//! container has no service there. Through the real binary, with clients on another host.

use super::ports::{end, serves};
use super::*;
use crate::world::inspect;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

/// UDP port 53 tells each client whom it is taken for; `late` goes to all that ever asked whenever
/// somebody connects to port 80.
const LATE: &str = "import socket,threading\n\
    t=socket.create_server(('::',80),family=socket.AF_INET6,dualstack_ipv6=True)\n\
    u=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\n\
    u.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_V6ONLY,0); u.bind(('::',53))\n\
    known=set()\n\
    def late():\n\
    \x20while True:\n\
    \x20 c,p=t.accept()\n\
    \x20 for p in known: u.sendto(b'late',p)\n\
    \x20 c.sendall(b'sent\\n'); c.close()\n\
    threading.Thread(target=late,daemon=True).start()\n\
    print('serves',flush=True)\n\
    while True:\n\
    \x20d,p=u.recvfrom(999); known.add(p); a=p[0].replace('::ffff:','')\n\
    \x20u.sendto((('[%s]:%d' if ':' in a else '%s:%d')%(a,p[1])).encode(),p)";

/// Sockets of the relay.
fn sockets() -> usize {
    let all = inspect::descriptors(inspect::complete_relay());
    let sockets = all.iter().filter(|link| link.starts_with("socket:"));
    sockets.count()
}

/// Flows that were begun, and that were refused, of UDP port 5353 of `web`.
fn seen_flows(world: &World) -> (u64, u64) {
    let columns = "{{.HostPorts}} {{.Accepted}} {{.Refused}}";
    let listed = world
        .mossnet(["port", "ls", "web", "--format", columns])
        .ok();
    let mut lines = listed.lines().filter_map(|line| line.strip_prefix("5353 "));
    let (accepted, refused) = lines.next().unwrap().split_once(' ').unwrap();
    (accepted.parse().unwrap(), refused.parse().unwrap())
}

/// Bytes of memory that wait at the host's UDP `port` to be read.
fn queued(port: u16) -> u64 {
    let read = |table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap();
    let tables = within("host", || [read("udp"), read("udp6")]);
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let of_port = lines.filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let (_, local) = columns[1].rsplit_once(':').unwrap();
        let (_, received) = columns[4].split_once(':').unwrap();
        (u16::from_str_radix(local, 16) == Ok(port))
            .then(|| u64::from_str_radix(received, 16).unwrap())
    });
    of_port.sum()
}

fn next(client: &UdpSocket) -> Option<String> {
    let mut buffer = [0; 99];
    let length = client.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[test]
fn flows_end_when_their_time_is_over_and_not_before() {
    World::test(|world| {
        let head = ["run", "-d", "--name", "web", "-p", "5353:53/udp"];
        let tail = ["-p", "8080:80", "--", "python3", "-c", LATE];
        world.mossnet(head).then(tail).ok();
        serves(world, "web");
        let clients = || [HOST, HOST6].map(|host| udp_client("server", 0, at(host, 5353)));
        let (once, twice) = (clients(), clients());
        for client in &twice {
            for _ in 0..2 {
                assert_eq!(udp_seen(client), client.local_addr().unwrap());
            }
        }
        let begin = Instant::now();
        for client in &once {
            assert_eq!(udp_seen(client), client.local_addr().unwrap());
        }
        assert_eq!(seen_flows(world), (4, 0));
        // One question and its answer on a well-known port: ten seconds. All others: two minutes.
        let with_all = sockets();
        eventually(
            seconds(40),
            "the answered questions to be forgotten",
            || sockets() <= with_all - 2,
        );
        assert!(begin.elapsed() > seconds(9), "{:?}", begin.elapsed());
        std::thread::sleep(seconds(2));
        assert_eq!(sockets(), with_all - 2, "the others are not");
        // What the container still sends to whom it has forgotten comes from no published port.
        let mut done = String::new();
        let mut order = connect("host", at("127.0.0.1", 8080));
        order.read_to_string(&mut done).unwrap();
        assert_eq!(done, "sent\n");
        for client in &twice {
            assert_eq!(next(client).as_deref(), Some("late"));
        }
        for client in &once {
            client
                .set_read_timeout(Some(Duration::from_millis(500)))
                .unwrap();
            assert_eq!(next(client), None);
            client.set_read_timeout(Some(seconds(20))).unwrap();
        }
        // Whoever asks again is served, and seen as before.
        for client in once.iter().chain(&twice) {
            assert_eq!(udp_seen(client), client.local_addr().unwrap());
        }
        assert_eq!(seen_flows(world), (6, 0));
        end(world);
    });
}

/// Thirty datagrams, which the relay finds all at once.
fn burst_at_once() {
    let relay = inspect::the("relay");
    kill(Pid::from_raw(relay), Signal::SIGSTOP).unwrap();
    eventually(seconds(10), "every thread to stop", || {
        let mut threads = inspect::threads(relay).into_iter();
        threads.all(|thread| inspect::status(thread, "State").starts_with('T'))
    });
    let burst = udp_client("server", 0, at(HOST, 5353));
    burst.send(b"anybody?").unwrap();
    eventually(seconds(10), "the first to arrive", || queued(5353) > 0);
    let one = queued(5353);
    for _ in 1..30 {
        burst.send(b"anybody?").unwrap();
    }
    eventually(seconds(10), "the burst to arrive", || {
        queued(5353) == 30 * one
    });
    kill(Pid::from_raw(relay), Signal::SIGCONT).unwrap();
}

#[test]
fn a_container_without_a_service_ends_the_flow() {
    World::test(|world| {
        world.sleeper("web", "-p 5353:53/udp");
        let ways = [
            ("server", HOST),
            ("server", HOST6),
            ("host", "127.0.0.1"),
            ("host", "::1"),
        ];
        let clients = ways.map(|(from, to)| udp_client(from, 0, at(to, 5353)));
        for (client, flows) in clients.iter().zip(1..) {
            client.send(b"anybody?").unwrap();
            eventually(seconds(10), "the refusal to be counted", || {
                seen_flows(world) == (flows, flows)
            });
        }
        // To the client that is silence; the host has no right to send ICMP.
        let silent = &clients[0];
        silent
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let heard = silent.recv(&mut [0; 9]).unwrap_err();
        assert_eq!(heard.kind(), ErrorKind::WouldBlock);
        let idle = sockets();
        // A burst that the relay finds all at once. The container's kernel answers the first few
        // datagrams only, and that while the last are still being sent.
        burst_at_once();
        eventually(seconds(10), "the burst to be counted", || {
            seen_flows(world) == (5, 5)
        });
        assert!(sockets() <= idle, "no flow is left of it");
        // Somebody listens now: the same clients are served.
        world
            .mossnet(["exec", "-d", "web", "--", "python3", "-c", LATE])
            .ok();
        for client in &clients[..2] {
            eventually(seconds(20), "an answer", || {
                client.send(b"who am I?").unwrap();
                client.set_read_timeout(Some(seconds(1))).unwrap();
                next(client).is_some_and(|text| text == client.local_addr().unwrap().to_string())
            });
        }
        // A port that is published no longer is refused by the host's own kernel.
        world.mossnet(["port", "rm", "web", "5353:53/udp"]).ok();
        for client in &clients {
            // A late answer may still wait to be read, and the error be told by the next send.
            client.set_read_timeout(Some(seconds(1))).unwrap();
            eventually(seconds(20), "the refusal", || {
                let heard = client
                    .send(b"anybody?")
                    .and_then(|_| client.recv(&mut [0; 99]));
                heard.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            });
        }
        end(world);
    });
}
