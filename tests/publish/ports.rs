//! Published ports from the command line to the client, through the daemon, the helper and the relay.

use super::*;
use crate::world::{SERVER, SERVER6, inspect};

/// Tells every TCP client, and every datagram's sender, whom it takes them for; the second word of
/// a TCP client is answered, too.
pub(super) const TELL: &str = "import socket,threading\n\
    t=socket.create_server(('::',80),family=socket.AF_INET6,dualstack_ipv6=True,backlog=256)\n\
    u=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\n\
    u.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_V6ONLY,0)\n\
    u.bind(('::',53))\n\
    def name(p):\n\
    \x20a=p[0].replace('::ffff:','')\n\
    \x20return ('[%s]:%d' if ':' in a else '%s:%d')%(a,p[1])\n\
    def datagrams():\n\
    \x20while True:\n\
    \x20 d,p=u.recvfrom(999)\n\
    \x20 u.sendto(name(p).encode(),p)\n\
    def serve(c,p):\n\
    \x20print('client',name(p),flush=True)\n\
    \x20c.sendall(name(p).encode()+b'\\n')\n\
    \x20while True:\n\
    \x20 d=c.recv(999)\n\
    \x20 if not d: break\n\
    \x20 c.sendall(d)\n\
    \x20c.close()\n\
    threading.Thread(target=datagrams,daemon=True).start()\n\
    print('serves',flush=True)\n\
    while True:\n\
    \x20c,p=t.accept()\n\
    \x20threading.Thread(target=serve,args=(c,p),daemon=True).start()";

/// A sandbox that tells, with these flags.
pub(crate) fn tell(world: &World, name: &str, flags: &[&str]) {
    let head = ["run", "-d", "--name", name];
    let tail = ["--", "python3", "-c", TELL];
    world.mossnet([&head[..], flags, &tail[..]].concat()).ok();
    serves(world, name);
}

pub(crate) fn serves(world: &World, name: &str) {
    eventually(seconds(20), "the service to listen", || {
        world.mossnet(["logs", name]).ok().contains("serves")
    });
}

pub(super) fn line(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).expect("a line") == 1 && byte[0] != b'\n' {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// Whom the service takes a client for, and the client.
pub(crate) fn told(from: &str, to: SocketAddr) -> (SocketAddr, TcpStream) {
    let mut stream = connect(from, to);
    let seen = line(&mut stream);
    let seen = seen
        .parse()
        .unwrap_or_else(|_| panic!("'{seen}' from {to}"));
    (seen, stream)
}

pub(super) fn answers(from: &str, to: SocketAddr) -> bool {
    within(from, || {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, seconds(2)) else {
            return false;
        };
        stream.set_read_timeout(Some(seconds(2))).unwrap();
        matches!(stream.read(&mut [0; 1]), Ok(1))
    })
}

pub(super) fn goes_on(stream: &mut TcpStream) {
    stream.write_all(b"still there\n").unwrap();
    assert_eq!(line(stream), "still there");
}

pub(super) fn end(world: &World) {
    world.mossnet(["stop", "-t", "0", "--all"]).ok();
}

#[test]
fn a_service_sees_its_clients_from_the_command_line_on() {
    World::test(|world| {
        let flags = ["-p", "8080:80", "-p", "5353:53/udp", "-p", "127.0.0.1::80"];
        tell(world, "web", &flags);
        for (host, own) in [(HOST, SERVER), (HOST6, SERVER6)] {
            let (seen, client) = told("server", at(host, 8080));
            assert_eq!(seen, client.local_addr().unwrap());
            assert!(seen.is_ipv6() || seen.ip().to_string() == own);
            let udp = udp_client("server", 0, at(host, 5353));
            assert_eq!(udp_seen(&udp), udp.local_addr().unwrap());
            let log = world.mossnet(["logs", "web"]).ok();
            assert!(log.contains(&format!("client {seen}")), "{log}");
        }
        let network: serde_json::Value =
            serde_json::from_str(&world.mossnet(["network", "inspect", "bridge"]).ok()).unwrap();
        let gateways = network.to_string();
        for to in ["127.0.0.1", "::1", HOST, HOST6] {
            let (seen, client) = told("host", at(to, 8080));
            assert_eq!(seen.port(), client.local_addr().unwrap().port());
            assert!(gateways.contains(&format!("\"{}\"", seen.ip())), "{seen}");
        }
        // Its own port, and another's, by the host's address.
        for name in ["web", "other"] {
            if name == "other" {
                world.detached(name, ["sleep", "1000"]);
            }
            let ask = format!(
                "import socket;print(socket.create_connection(('{HOST}',8080),5).recv(99))"
            );
            let said = world.mossnet(["exec", name, "python3", "-c", &ask]).ok();
            assert!(said.contains("10.89.0.1:"), "{said}");
        }
        check_listings(world);
        end(world);
    });
}

/// After eight connections and four datagrams.
fn check_listings(world: &World) {
    let list = world.mossnet(["port", "web"]).ok();
    let lines: Vec<_> = list.lines().collect();
    assert_eq!(
        lines[..2],
        ["80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"]
    );
    assert_eq!(
        lines[2..4],
        ["53/udp -> 0.0.0.0:5353", "53/udp -> [::]:5353"]
    );
    let free = lines[4].strip_prefix("80/tcp -> 127.0.0.1:").unwrap();
    assert!(answers("host", at("127.0.0.1", free.parse().unwrap())));
    let only = world.mossnet(["port", "web", "53/udp"]).ok();
    assert_eq!(only, "0.0.0.0:5353\n[::]:5353\n");
    world
        .mossnet(["port", "web", "81"])
        .fails(1)
        .expect_one_clear_line();
    let ps = world.mossnet(["ps"]).ok();
    assert!(
        ps.contains("0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        "{ps}"
    );
    let counted = "{{.HostPorts}} {{.Accepted}} {{.Refused}}";
    let counted = world
        .mossnet(["port", "ls", "web", "--format", counted])
        .ok();
    assert!(counted.contains("8080 8 0\n"), "{counted}");
    assert!(counted.contains("5353 2 0\n"), "{counted}");
}

#[test]
fn ports_are_added_and_removed_while_a_sandbox_runs() {
    World::test(|world| {
        tell(
            world,
            "web",
            &["-p", "8080:80", "--source-address", "gateway"],
        );
        let (seen, mut stream) = told("server", at(HOST, 8080));
        assert_eq!(seen.ip().to_string(), "10.89.0.1");
        let said = world.mossnet(["port", "add", "web", "8081:80", "53:53/udp"]);
        let refused = said.fails(1).expect_one_clear_line();
        for word in ["udp port 53", "ip_unprivileged_port_start", "8053"] {
            assert!(refused.stderr.contains(word), "{}", refused.stderr);
        }
        assert!(!answers("server", at(HOST, 8081)), "nothing of it stays");
        let added = world
            .mossnet(["port", "add", "web", "8081:80", "8082:80"])
            .ok();
        assert!(added.starts_with("80/tcp -> 0.0.0.0:8081\n"), "{added}");
        assert_eq!(told("server", at(HOST, 8082)).0.ip().to_string(), SERVER);
        // One of two is not there: neither goes.
        world
            .mossnet(["port", "rm", "web", "8081:80", "8099:80"])
            .fails(1)
            .expect_text("does not publish 8099:80/tcp");
        assert!(answers("server", at(HOST, 8081)));
        world
            .mossnet(["port", "rm", "web", "8081:80", "8080:80"])
            .ok();
        // At once: the command's end is the port's.
        assert!(std::net::TcpListener::bind("[::]:8080").is_ok());
        assert!(std::net::TcpListener::bind("0.0.0.0:8081").is_ok());
        goes_on(&mut stream);
        world.mossnet(["port", "rm", "web", "80"]).ok();
        assert_eq!(world.mossnet(["port", "web"]).ok(), "");
        assert!(!answers("server", at(HOST, 8082)));
        goes_on(&mut stream);
        end(world);
    });
}

#[test]
fn a_port_in_use_is_said_with_its_process_and_nothing_is_left() {
    World::test(|world| {
        // Of somebody whose descriptors an unprivileged user may look at.
        let serve = "import socket,time\ns=socket.create_server(('0.0.0.0',8081))\nprint('serves',flush=True)\ntime.sleep(1000)";
        let mut taken = world.user(["python3", "-c", serve]).start();
        taken.expect("serves");
        let publish = ["run", "-d", "-p", "8080:80", "-p", "8081:80", "--", "true"];
        let refused = world.mossnet(publish).fails(125).expect_one_clear_line();
        let process = format!("in use by python3 (process {})", taken.pid());
        for word in ["tcp port 8081 of ", &process] {
            assert!(refused.stderr.contains(word), "{}", refused.stderr);
        }
        assert!(std::net::TcpListener::bind("[::]:8080").is_ok());
        assert_eq!(world.mossnet(["ps", "-aq"]).ok(), "");
        drop(taken);
        world.sleeper("web", "-p 8080-8089:80");
        let publish = world.line("run -d -p 8080:80 -- true");
        publish.fails(125).expect_text("by sandbox 'web'");
        end(world);
    });
}

#[test]
fn ports_that_cannot_be_published_are_refused() {
    World::test(|world| {
        world.sleeper("web", "-p 8080-8089:80");
        let low = world.line("run -d -p 8090:80 -p 80:80 -- true");
        let refused = low.fails(125).expect_one_clear_line();
        // 8080 would be offered, but is taken.
        for word in ["ip_unprivileged_port_start", "grants.toml", "publish "] {
            assert!(refused.stderr.contains(word), "{}", refused.stderr);
        }
        assert!(std::net::TcpListener::bind("[::]:8090").is_ok());
        let twice = world.line("run -p 8091:80 -p 127.0.0.1:8091:81 -- true");
        twice.fails(125).expect_text("published twice");
        for network in ["none", "container:web"] {
            let run = world.line(&format!("run --network {network} -p 8091:80 -- true"));
            run.fails(125).expect_text("--publish cannot be combined");
        }
        let host = world.line("run --network host -p 8091:80 -- true");
        host.run().expect_code(0).expect_text("discarded");
        end(world);
    });
}

#[test]
fn ports_come_and_go_with_the_sandbox_and_follow_its_networks() {
    World::test(|world| {
        world.mossnet(["network", "create", "second"]).ok();
        tell(
            world,
            "web",
            &[
                "-p", "8080:80", "-P", "--expose", "80", "--expose", "53/udp",
            ],
        );
        let before = world.mossnet(["port", "web"]).ok();
        assert_eq!(before.lines().count(), 6, "{before}");
        assert!(answers("server", at(HOST, 8080)));
        world.mossnet(["stop", "-t", "0", "web"]).ok();
        assert!(
            std::net::TcpListener::bind("[::]:8080").is_ok(),
            "free at once"
        );
        assert_eq!(world.mossnet(["port", "web"]).ok(), "");
        {
            let _taken = std::net::TcpListener::bind("[::]:8080").unwrap();
            world
                .mossnet(["start", "web"])
                .fails(1)
                .expect_text("tcp port 8080");
        }
        world.mossnet(["start", "web"]).ok();
        eventually(seconds(20), "the service again", || {
            answers("server", at(HOST, 8080))
        });
        assert_eq!(world.mossnet(["port", "web"]).ok(), before);
        world.mossnet(["network", "connect", "second", "web"]).ok();
        let (seen, mut stream) = told("server", at(HOST, 8080));
        assert_eq!(seen, stream.local_addr().unwrap());
        goes_on(&mut stream);
        drop(stream);
        world
            .mossnet(["network", "disconnect", "bridge", "web"])
            .ok();
        let (seen, stream) = told("server", at(HOST, 8080));
        assert_eq!(seen, stream.local_addr().unwrap());
        world
            .mossnet(["network", "disconnect", "second", "web"])
            .ok();
        assert!(
            std::net::TcpListener::bind("[::]:8080").is_ok(),
            "without a network"
        );
        world.mossnet(["network", "connect", "second", "web"]).ok();
        assert!(answers("server", at(HOST, 8080)));
        world.mossnet(["rm", "-f", "web"]).ok();
        assert!(std::net::TcpListener::bind("[::]:8080").is_ok());
        world.mossnet(["network", "rm", "second"]).ok();
    });
}

#[test]
fn ports_outlive_the_daemon_and_the_relay() {
    World::test(|world| {
        tell(world, "web", &["-p", "8080:80", "-p", "5353:53/udp"]);
        let (_, mut stream) = told("server", at(HOST, 8080));
        let udp = udp_client("server", 0, at(HOST, 5353));
        udp_seen(&udp);
        inspect::kill_hard(&[inspect::the("daemon")]);
        goes_on(&mut stream);
        assert!(answers("server", at(HOST, 8080)), "without a daemon");
        let listed = world.mossnet(["port", "web"]).ok();
        assert_eq!(listed.lines().count(), 4, "{listed}");
        goes_on(&mut stream);
        assert!(answers("server", at(HOST, 8080)), "with the next one");
        udp_seen(&udp);
        world.mossnet(["port", "add", "web", "8081:80"]).ok();
        assert!(answers("server", at(HOST, 8081)));
        inspect::kill_hard(&[inspect::the("relay")]);
        for port in [8080, 8081] {
            eventually(seconds(10), "the next relay to serve it", || {
                answers("server", at(HOST, port))
            });
        }
        eventually(seconds(10), "datagrams again", || {
            let udp = udp_client("server", 0, at(HOST, 5353));
            udp.set_read_timeout(Some(seconds(1))).unwrap();
            udp.send(b"anybody?").is_ok() && udp.recv(&mut [0; 99]).is_ok()
        });
        world.mossnet(["stop", "-t", "0", "web"]).ok();
        assert!(std::net::TcpListener::bind("[::]:8081").is_ok());
        end(world);
    });
}

#[test]
fn a_thousand_ports_are_ready_at_once() {
    World::test(|world| {
        world.detached("idle", ["sleep", "1000"]);
        let relay = inspect::complete_relay();
        let before = inspect::descriptors(relay).len();
        let threads = inspect::threads(relay).len();
        let ports = ["-p", "20000-20999:20000-20999"];
        let head = ["run", "-d", "--name", "many"];
        world
            .mossnet([&head[..], &ports, &["--", "sleep", "1000"]].concat())
            .run()
            .expect_code(0)
            .expect_within(seconds(3));
        assert_eq!(world.mossnet(["port", "many"]).ok().lines().count(), 2000);
        let after = inspect::descriptors(relay).len();
        assert_eq!(after - before, 1000, "one descriptor each");
        assert_eq!(inspect::threads(relay).len(), threads);
        world
            .mossnet(["port", "rm", "many", "20500-20999:20500-20999"])
            .ok();
        let left = world.mossnet(["ps", "--format", "{{.Ports}}"]).ok();
        assert!(
            left.contains("0.0.0.0:20000-20499->20000-20499/tcp"),
            "{left}"
        );
        assert!(std::net::TcpListener::bind("[::]:20500").is_ok());
        let limit = world
            .mossnet(["exec", "many", "sh", "-c", "ulimit -Sn"])
            .ok();
        let own = world.user(["sh", "-c", "ulimit -Sn"]).ok();
        assert_eq!(limit, own, "the limit of open files is the user's own");
        world.mossnet(["rm", "-f", "many"]).ok();
        eventually(seconds(5), "the relay to let go of all", || {
            inspect::descriptors(relay).len() <= before
        });
        end(world);
    });
}

#[test]
fn an_interface_is_published_on_its_addresses_only() {
    World::test(|world| {
        tell(world, "web", &["-p", "8080:80", "--publish-iface", "lo"]);
        assert!(answers("host", at("127.0.0.1", 8080)));
        assert!(answers("host", at("::1", 8080)));
        assert!(!answers("server", at(HOST, 8080)));
        let add = [
            "port",
            "add",
            "--publish-iface",
            "nosuch0",
            "web",
            "8081:80",
        ];
        world
            .mossnet(add)
            .fails(1)
            .expect_text("no such interface on this host: nosuch0");
        end(world);
    });
}
