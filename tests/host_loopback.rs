//! The host's loopback from inside: closed to everybody, open to whoever was allowed, as far as that
//! goes, and truthful about what listens there.

use crate::world::dns::Dns;
use crate::world::{World, eventually, inspect, installed, seconds, within};
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

/// What stands for 127.0.0.1 and ::1.
const HOST: &str = "169.254.77.77";
const HOST6: &str = "fd8d:5ead:b037::77";
const NAMES: [&str; 3] = [
    "host.mossnet.internal",
    "host.docker.internal",
    "host.containers.internal",
];

/// Tries words such as `tcp/7001/::1`, and says of each what came of it.
const PROBE: &str = r"
import socket
for word in WORDS.split():
    proto,port,host=word.split('/',2)
    family=socket.AF_INET6 if ':' in host else socket.AF_INET
    s=socket.socket(family,socket.SOCK_STREAM if proto=='tcp' else socket.SOCK_DGRAM)
    s.settimeout(3)
    try:
        if SOURCE: s.bind((SOURCE,0))
        s.connect((host,int(port)))
        if proto=='udp': s.send(b'who am I?')
        print(s.recv(100).decode())
    except ConnectionRefusedError: print('refused')
    except TimeoutError: print('silence')
    except OSError as error: print(error)
";

/// Services on one port of the host's loopback, TCP and UDP, IPv4 and IPv6, which tell each client
/// whom they take it for.
#[derive(Clone, Default)]
struct Services(Arc<Mutex<Vec<String>>>);

impl Services {
    fn start(ports: &[u16]) -> Self {
        let services = Self::default();
        for port in ports {
            for address in ["127.0.0.1", "::1"] {
                services.tcp(address, *port);
                services.udp(address, *port);
            }
        }
        services
    }

    fn tcp(&self, address: &'static str, port: u16) {
        let listener = within("host", || TcpListener::bind((address, port))).expect("bind");
        let services = self.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let seen = stream.peer_addr().expect("peer").ip().to_string();
                let _ = write!(stream, "{seen}");
                services.0.lock().expect("seen").push(seen);
            }
        });
    }

    fn udp(&self, address: &'static str, port: u16) {
        let socket = within("host", || UdpSocket::bind((address, port))).expect("bind");
        let services = self.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let seen = from.ip().to_string();
                let _ = socket.send_to(seen.as_bytes(), from);
                services.0.lock().expect("seen").push(seen);
            }
        });
    }

    /// How often they were asked.
    fn asked(&self) -> usize {
        self.0.lock().expect("seen").len()
    }
}

#[track_caller]
fn probe(world: &World, sandbox: &str, words: &str) -> Vec<String> {
    probe_from(world, sandbox, "", words)
}

#[track_caller]
fn probe_from(world: &World, sandbox: &str, source: &str, words: &str) -> Vec<String> {
    let script = format!("SOURCE='{source}'\nWORDS='{words}'\n{PROBE}");
    let said = world.python(sandbox, &script).ok();
    said.lines().map(str::to_owned).collect()
}

/// Both protocols and families, on one port.
fn all_ways(port: u16) -> String {
    format!("tcp/{port}/{HOST} tcp/{port}/{HOST6} udp/{port}/{HOST} udp/{port}/{HOST6}")
}

const OPEN: [&str; 4] = ["127.0.0.1", "::1", "127.0.0.1", "::1"];
const REFUSED: [&str; 4] = ["refused"; 4];

#[track_caller]
fn status(world: &World, sandbox: &str, question: &str) -> String {
    let head = ["exec", sandbox, "--", "dig", "+time=5", "+tries=3"];
    let answer = world.mossnet(head).then(question.split(' ')).ok();
    let (_, rest) = answer.split_once("status: ").expect("a status");
    rest.split(',').next().unwrap_or_default().to_owned()
}

#[track_caller]
fn knows_nothing(world: &World, sandbox: &str) {
    assert_eq!(probe(world, sandbox, &all_ways(7001)), REFUSED, "{sandbox}");
    for name in NAMES {
        let found = world.mossnet(["exec", sandbox, "--", "getent", "ahosts", name]);
        assert_eq!(found.run().code, 2, "{sandbox} {name}");
        assert_eq!(status(world, sandbox, &format!("{name} A")), "NXDOMAIN");
        assert_eq!(status(world, sandbox, &format!("{name} AAAA")), "NXDOMAIN");
    }
    for address in [HOST, HOST6] {
        assert_eq!(status(world, sandbox, &format!("-x {address}")), "NXDOMAIN");
    }
}

#[track_caller]
fn knows_the_host(world: &World, sandbox: &str) {
    assert_eq!(probe(world, sandbox, &all_ways(7001)), OPEN, "{sandbox}");
    for name in NAMES {
        let dig = |kind: &str| world.dig(sandbox, &format!("{name} {kind}"));
        assert_eq!(dig("A"), [HOST.to_owned()].into());
        assert_eq!(dig("AAAA"), [HOST6.to_owned()].into());
        let found = world.mossnet(["exec", sandbox, "--", "getent", "ahosts", name]);
        let found = found.ok();
        assert!(found.contains(HOST) && found.contains(HOST6), "{found}");
    }
    for address in [HOST, HOST6] {
        let name = world.dig(sandbox, &format!("-x {address}"));
        assert_eq!(name, ["host.mossnet.internal.".to_owned()].into());
    }
}

/// Nothing that the resolvers outside were asked has to do with the host's names.
#[track_caller]
fn nothing_leaked(dns: &Dns) {
    let asked = dns.asked();
    let leaked = |name: &&String| {
        let name = name.to_lowercase();
        name.contains("host.") || name.contains(".internal") || name.contains("77.254.169")
    };
    assert_eq!(asked.iter().find(leaked), None, "{asked:?}");
}

#[test]
fn it_is_closed_unless_it_is_opened() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        let (dns, services) = (Dns::start("server"), Services::start(&[7001]));
        world.network("create --ipv6 mynet").ok();
        world.sleeper("default", "");
        world.sleeper("mine", "--network mynet");
        for sandbox in ["default", "mine"] {
            knows_nothing(world, sandbox);
            let others = "tcp/7001/127.0.0.1 tcp/7001/::1";
            assert_eq!(probe(world, sandbox, others), ["refused"; 2]);
            // So that the record of questions is one.
            assert_eq!(status(world, sandbox, "www.test.example A"), "NOERROR");
        }
        assert_eq!(services.asked(), 0);
        assert!(!dns.asked().is_empty());
        nothing_leaked(&dns);
        world.mossnet(["rm", "-f", "default", "mine"]).ok();
        world.network("rm mynet").ok();
    });
}

#[test]
fn it_is_open_to_the_sandbox_that_was_allowed_and_to_no_neighbour() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        let (dns, services) = (Dns::start("server"), Services::start(&[7001]));
        world.network("create --ipv6 mynet").ok();
        world.sleeper("friend", "--network mynet --host-loopback");
        world.sleeper("other", "--network mynet --cap-add NET_ADMIN");
        world.sleeper("default", "--host-loopback");
        assert_eq!(world.inspect("friend")["HostLoopback"], "all");
        assert!(world.inspect("other")["HostLoopback"].is_null());
        // What a network opens is shown while the sandbox is on it.
        world
            .network("create --host-ports 5432 --subnet 10.78.0.0/24 lab")
            .ok();
        world.sleeper("guest", "--network lab --host-ports 53/udp");
        assert_eq!(world.inspect("guest")["HostLoopback"], "5432,53/udp");
        world.network("disconnect lab guest").ok();
        assert_eq!(world.inspect("guest")["HostLoopback"], "53/udp");
        world.mossnet(["rm", "-f", "guest"]).ok();
        world.network("rm lab").ok();
        for sandbox in ["friend", "default"] {
            knows_the_host(world, sandbox);
            // Nobody listens there, and the sandbox is told.
            assert_eq!(probe(world, sandbox, &all_ways(7999)), REFUSED);
            let ping = world.pings(sandbox, "host.mossnet.internal");
            assert!(ping, "{sandbox}");
        }
        let asked = services.asked();
        knows_nothing(world, "other");
        assert!(!world.pings("other", HOST));
        // With the friend's addresses it is not heard at all.
        for ipv6 in [false, true] {
            let address = world.address_on("friend", "mynet", ipv6);
            let (prefix, host) = if ipv6 { (64, HOST6) } else { (24, HOST) };
            let nodad = if ipv6 { "nodad" } else { "" };
            let take = format!("ip addr add {address}/{prefix} dev eth0 {nodad}");
            world.within("other", &take).ok();
            let ways = format!("tcp/7001/{host} udp/7001/{host}");
            let heard = probe_from(world, "other", &address, &ways);
            assert_eq!(heard, ["silence"; 2], "{address}");
        }
        assert_eq!(services.asked(), asked);
        // The one whose addresses these are is not disturbed.
        assert_eq!(probe(world, "friend", &all_ways(7001)), OPEN);
        nothing_leaked(&dns);
        world
            .mossnet(["rm", "-f", "friend", "other", "default"])
            .ok();
        world.network("rm mynet").ok();
    });
}

#[test]
fn a_network_opens_it_for_its_members_while_they_are_on_it() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        let dns = Dns::start("server");
        let _services = Services::start(&[7001, 7002]);
        world.network("create --ipv6 --host-loopback open").ok();
        world
            .network("create -o host_ports=7001,7002/udp narrow")
            .ok();
        let options = &world.network_info("open")["Options"];
        assert_eq!(options["host_loopback"], "true");
        let options = &world.network_info("narrow")["Options"];
        assert_eq!(options["host_ports"], "7001,7002/udp");
        world.sleeper("member", "--network open");
        knows_the_host(world, "member");
        world.sleeper("few", "--network narrow");
        let ways = |host: &str| {
            let way = |(proto, port): (&str, u16)| format!("{proto}/{port}/{host} ");
            let all = [("tcp", 7001), ("tcp", 7002), ("udp", 7001), ("udp", 7002)];
            all.map(way).concat()
        };
        let found = probe(world, "few", &ways(HOST));
        assert_eq!(found, ["127.0.0.1", "refused", "refused", "127.0.0.1"]);
        // Without IPv6 there is no IPv6 address, but the name exists.
        let none = world.dig("few", "host.docker.internal AAAA");
        assert!(none.is_empty(), "{none:?}");
        assert_eq!(status(world, "few", "host.docker.internal AAAA"), "NOERROR");
        // A sandbox that joins has it from then on, by whichever of its addresses; one that leaves
        // has it no longer, and what it was connected to ends.
        world.sleeper("guest", "");
        knows_nothing(world, "guest");
        world.network("connect open guest").ok();
        knows_the_host(world, "guest");
        let script = format!(
            "import socket\ns=socket.create_connection(('{HOST}',7003),3)\n\
             print('connected',flush=True)\n\
             try: print(s.recv(1))\nexcept OSError as error: print(error)"
        );
        let held = within("host", || TcpListener::bind("127.0.0.1:7003")).expect("bind");
        let mut connected = world.python("guest", &script).start();
        connected.expect("connected");
        let (_peer, _) = held.accept().expect("accept");
        world.network("disconnect open guest").ok();
        connected.wait().expect_code(0).expect_text("reset by peer");
        knows_nothing(world, "guest");
        nothing_leaked(&dns);
        world.mossnet(["rm", "-f", "member", "few", "guest"]).ok();
        world.network("rm open narrow").ok();
    });
}

#[test]
fn it_stays_as_it_was_whoever_is_killed() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        let _services = Services::start(&[7001, 7002]);
        world.network("create --ipv6 mynet").ok();
        world.sleeper("friend", "--network mynet --host-ports 7001,7001/udp");
        world.sleeper("other", "--network mynet");
        let is_right = || {
            knows_the_host(world, "friend");
            assert_eq!(probe(world, "friend", &all_ways(7002)), REFUSED);
            knows_nothing(world, "other");
        };
        is_right();
        inspect::kill_hard(&[inspect::the("daemon")]);
        is_right();
        let relay = inspect::the("relay");
        inspect::kill_hard(&[relay]);
        eventually(seconds(10), "another relay", || {
            let all = inspect::mossnet_processes("relay");
            all.iter().any(|pid| *pid != relay)
        });
        eventually(seconds(10), "the host to be reached again", || {
            probe(world, "friend", &format!("tcp/7001/{HOST}")) == ["127.0.0.1"]
        });
        is_right();
        world.mossnet(["stop", "-t", "0", "friend"]).ok();
        world.mossnet(["start", "friend"]).ok();
        is_right();
        inspect::kill_hard(&[inspect::the("daemon"), inspect::the("helper")]);
        world.mossnet(["start", "friend", "other"]).ok();
        is_right();
        world.mossnet(["rm", "-f", "friend", "other"]).ok();
        world.network("rm mynet").ok();
    });
}

#[test]
fn what_cannot_be_opened_is_refused() {
    World::test(|world| {
        world.network("create --internal inner").ok();
        world.network("create --uplink none still").ok();
        world.sleeper("web", "");
        let run = |options: &str| format!("run --rm {options} -- true");
        let create = |options: &str| format!("network create {options} new");
        world.refuses_each([
            (create("--internal --host-loopback"), "internal network"),
            (create("--internal --host-ports 80"), "internal network"),
            (create("--uplink pasta --host-loopback"), "uplink pasta"),
            (create("--uplink slirp -o host_loopback=1"), "uplink slirp"),
            (create("--uplink none --host-ports 80"), "uplink none"),
            (create("-o host_loopback=perhaps"), "perhaps"),
            (create("-o host_loopback=false --host-ports 1"), "closes"),
            (create("--host-ports 0"), "'0' is not a port"),
            (run("--host-ports 80-70"), "runs backwards"),
            (run("--host-ports 80/icmp"), "icmp"),
            (run("--network inner --host-loopback"), "it is internal"),
            (run("--network still --host-ports 80"), "uplink is none"),
            (run("--uplink pasta --host-loopback"), "--uplink pasta"),
            (run("--network host --host-loopback"), "--network host"),
            (run("--network none --host-ports 80"), "--network none"),
            (run("--network container:web --host-loopback"), "container"),
            (run("--add-host h:host-gateway"), "host-gateway"),
            (
                "netns create --network inner --host-loopback ns".to_owned(),
                "it is internal",
            ),
        ]);
        world.mossnet(["rm", "-f", "web"]).ok();
        world.network("rm inner still").ok();
    });
}

#[test]
fn the_host_goes_by_the_names_that_users_give_it() {
    World::test(|world| {
        let _services = Services::start(&[7001]);
        let host = "--add-host db:host-gateway";
        let own = "--add-host host.docker.internal:192.0.2.7";
        let resolver = "--dns 192.0.2.53";
        world.sleeper("box", &format!("--host-ports 7001 {host} {own} {resolver}"));
        let hosts = world.within("box", "cat /etc/hosts").ok();
        for line in [
            format!("{HOST}\tdb"),
            format!("{HOST6}\tdb"),
            "192.0.2.7\thost.docker.internal".to_owned(),
            format!("{HOST}\t{}", NAMES.join(" ")),
        ] {
            assert!(hosts.lines().any(|have| have == line), "{line}: {hosts}");
        }
        // By /etc/hosts, whatever resolver it has; and the user's own line comes first.
        let first = |name: &str| {
            let script = format!("getent ahostsv4 {name} | head -1 | cut -d' ' -f1");
            world.within("box", &script).ok()
        };
        assert_eq!(first("db").trim(), HOST);
        assert_eq!(first("host.mossnet.internal").trim(), HOST);
        assert_eq!(first("host.docker.internal").trim(), "192.0.2.7");
        let open = ["127.0.0.1", "::1", "refused", "refused"];
        assert_eq!(probe(world, "box", &all_ways(7001)), open);
        world.mossnet(["rm", "-f", "box"]).ok();
    });
}

#[test]
fn a_published_port_is_reached_through_the_host_without_a_loop() {
    World::test(|world| {
        let tell = "import socket\nl=socket.create_server(('',80))\nwhile True:\n\
                    \x20c,a=l.accept(); c.sendall(a[0].encode()); c.close()";
        let options = ["--host-loopback", "-p", "127.0.0.1:8080:80"];
        let head = ["run", "-d", "--name", "web"];
        let tail = ["--", "python3", "-c", tell];
        world.mossnet(head).then(options).then(tail).ok();
        let gateway = &world.inspect("web")["Endpoints"][0]["Gateways"][0];
        let way = format!("tcp/8080/{HOST}");
        eventually(seconds(5), "the service to be there", || {
            probe(world, "web", &way) == [gateway.as_str().expect("a gateway")]
        });
        // Its own socket on the host, and no other.
        let counted = ["port", "ls", "web", "--format", "{{.Accepted}}"];
        let accepted = world.mossnet(counted).ok();
        let accepted: u32 = accepted.trim().parse().expect("a count");
        assert!((1..100).contains(&accepted), "{accepted}");
        world.mossnet(["rm", "-f", "web"]).ok();
    });
}
