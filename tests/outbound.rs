//! The way out: TCP, UDP and ICMP to the world, with the world's own answers.

use crate::world::{
    BLACK_HOLE, BLACK_HOLE6, Cmd, ISP, ISP6, PROHIBITED, Running, SERVER, SERVER6, UNREACHABLE,
    UNREACHABLE6, UNROUTED, UNROUTED6, World, eventually, inspect, installed, seconds, servers,
};
use std::sync::mpsc::channel;

const GIBIBYTE: u64 = 1 << 30;
const PRELUDE: &str = "import socket, struct, sys, time, errno\n";

#[test]
fn curl_fetches_a_gibibyte_unharmed() {
    World::builder().deadline(150).test(|world| {
        servers::http("server", 80);
        let digest = servers::pattern_digest(GIBIBYTE);
        let script = format!("curl -sS http://{SERVER}/bytes/{GIBIBYTE} | sha256sum");
        let received = world.sh(&script).timeout(seconds(100)).ok();
        assert_eq!(received.split(' ').next(), Some(digest.as_str()));
    });
}

#[test]
fn curl_sends_a_gibibyte_unharmed() {
    World::builder().deadline(150).test(|world| {
        servers::http("server", 80);
        let digest = servers::pattern_digest(GIBIBYTE);
        let url = format!("http://{SERVER}/upload");
        let upload = world
            .mossnet(["run", "--rm", "-i", "--", "curl", "-sS", "-T", "-", &url])
            .feed(|mut stdin| servers::pattern(GIBIBYTE, &mut stdin).expect("feed curl"));
        assert_eq!(upload.timeout(seconds(100)).ok(), digest);
    });
}

#[test]
fn many_transfers_at_once_do_not_mix() {
    World::builder().deadline(120).test(|world| {
        servers::http("server", 80);
        let length = 20_000_003;
        let digest = servers::pattern_digest(length);
        let script = format!(
            "for i in 1 2 3 4 5 6 7 8; do for a in {SERVER} '[{SERVER6}]'; do \
             curl -gsS http://$a/bytes/{length} | sha256sum & done; done; wait"
        );
        let received = world.sh(&script).timeout(seconds(100)).ok();
        assert_eq!(received.matches(&digest).count(), 16, "{received}");
    });
}

#[test]
fn the_world_sees_the_hosts_address() {
    World::test(|world| {
        servers::http("server", 80);
        let seen = |url: String| world.run(["curl", "-gsS", &url]).ok();
        assert_eq!(seen(format!("http://{SERVER}/")), "203.0.113.2");
        assert_eq!(seen(format!("http://[{SERVER6}]/")), "2001:db8:113::2");
    });
}

/// iperf3 from a sandbox; the end of its report.
fn iperf3(world: &World, options: &str) -> serde_json::Value {
    let mut server = world.server(["iperf3", "-s", "-1", "--forceflush"]).start();
    server.expect("listening");
    let mut argv = vec!["iperf3", "-J", "-t", "2", "-c", SERVER];
    argv.extend(options.split_whitespace());
    let report = world.run(argv).ok();
    server.wait().expect_code(0);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON from iperf3");
    report["end"].clone()
}

#[test]
fn iperf3_runs_over_tcp_in_both_directions() {
    World::test(|world| {
        if !installed("iperf3") {
            return;
        }
        for options in ["", "-R", "-P 4", "-P 4 -R"] {
            let end = iperf3(world, options);
            let rate = end["sum_received"]["bits_per_second"]
                .as_f64()
                .unwrap_or(0.0);
            println!("iperf3 {options}: {:.2} Gbit/s", rate / 1e9);
            assert!(rate > 5e8, "iperf3 {options}: {end}");
        }
    });
}

#[test]
fn iperf3_runs_over_udp_in_both_directions() {
    World::test(|world| {
        if !installed("iperf3") {
            return;
        }
        for options in ["-u -b 100M -l 1400", "-u -b 100M -l 1400 -R"] {
            // A socket holds some 10 ms of this: on a busy machine one of three runs may lose.
            let lost = (0..3).map(|_| {
                let end = iperf3(world, options);
                let lost = end["sum"]["lost_percent"].as_f64().unwrap_or(100.0);
                let packets = end["sum"]["packets"].as_u64().unwrap_or(0);
                println!("iperf3 {options}: {packets} datagrams, {lost} % lost");
                assert!(packets > 10_000, "iperf3 {options}: {end}");
                lost
            });
            assert!(lost.into_iter().any(|lost| lost < 1.0), "iperf3 {options}");
        }
    });
}

/// A Python script in a sandbox.
fn python(world: &World, script: &str) -> Cmd {
    world.run(["python3", "-c", &format!("{PRELUDE}{script}")])
}

/// The same on the host.
fn python_on_host(world: &World, script: &str) -> Cmd {
    world.user(["python3", "-c", &format!("{PRELUDE}{script}")])
}

/// What connect() to port 81 of `address` says, and after how many seconds.
fn connecting(python: impl Fn(&str) -> Cmd, address: &str) -> (String, f64) {
    let script = format!(
        "begin = time.monotonic()\n\
         s = socket.socket(socket.AF_INET6 if ':' in '{address}' else socket.AF_INET)\n\
         s.settimeout(4)\n\
         try: s.connect(('{address}', 81)); what = 'connected'\n\
         except socket.timeout: what = 'timed out'\n\
         except OSError as e: what = errno.errorcode[e.errno]\n\
         print(what + ',', time.monotonic() - begin)"
    );
    let answer = python(&script).ok();
    let (what, elapsed) = answer.trim().split_once(", ").expect("two values");
    (what.to_owned(), elapsed.parse().expect("seconds"))
}

#[test]
fn failed_connections_fail_as_they_do_on_the_host() {
    World::test(|world| {
        servers::tcp("server", 80, servers::echo);
        for (address, answer) in [
            (SERVER, "ECONNREFUSED"),
            (SERVER6, "ECONNREFUSED"),
            (UNREACHABLE, "EHOSTUNREACH"),
            // Linux routers answer `no route` for IPv6 here, too.
            (UNREACHABLE6, "ENETUNREACH"),
            (UNROUTED, "ENETUNREACH"),
            (UNROUTED6, "ENETUNREACH"),
            (PROHIBITED, "EHOSTUNREACH"),
            (BLACK_HOLE, "timed out"),
            (BLACK_HOLE6, "timed out"),
        ] {
            let (on_host, host_seconds) = connecting(|s| python_on_host(world, s), address);
            assert_eq!(on_host, answer, "connect to {address} on the host");
            let (inside, inside_seconds) = connecting(|s| python(world, s), address);
            assert_eq!(inside, answer, "connect to {address}");
            // Not `at once` in itself: an error that comes while connect() still holds the socket
            // is noticed at the first retransmission, on the host too (ICMPv6 over veth).
            assert!(
                inside_seconds < host_seconds + 0.8,
                "{answer} of {address} after {inside_seconds} s, on the host {host_seconds} s"
            );
        }
    });
}

#[test]
fn netcat_says_what_it_says_on_the_host() {
    World::test(|world| {
        if !installed("nc") {
            return;
        }
        servers::tcp("server", 80, servers::echo);
        let nc =
            |address: &str, port: &str| world.run(["nc", "-zv", "-w", "2", address, port]).run();
        nc(SERVER, "80").expect_code(0).expect_text("succeeded");
        nc(SERVER, "81")
            .expect_code(1)
            .expect_text("Connection refused");
        nc(UNREACHABLE, "81")
            .expect_code(1)
            .expect_text("No route to host");
        nc(UNROUTED, "81")
            .expect_code(1)
            .expect_text("Network is unreachable");
        nc(BLACK_HOLE, "81").expect_code(1).expect_text("timed out");
    });
}

#[test]
fn a_servers_reset_arrives_as_a_reset() {
    World::test(|world| {
        servers::tcp("server", 81, |stream| servers::reset(stream, 0));
        servers::tcp("server", 82, |stream| servers::reset(stream, 5));
        let script = format!(
            "ends = set()\n\
             for port in (81, 82) * 100:\n\
             \x20 try:\n\
             \x20   s = socket.create_connection(('{SERVER}', port), 5)\n\
             \x20   if port == 82: s.sendall(b'hello')\n\
             \x20   ends.add('eof' if s.recv(10) == b'' else 'data')\n\
             \x20 except OSError as e: ends.add(errno.errorcode[e.errno])\n\
             print(*ends)"
        );
        assert_eq!(
            python_on_host(world, &script).ok(),
            "ECONNRESET\n",
            "on the host"
        );
        assert_eq!(python(world, &script).ok(), "ECONNRESET\n");
    });
}

#[test]
fn a_clients_reset_arrives_as_a_reset() {
    World::test(|world| {
        let ends = servers::report_ends("server", 80);
        let close = |linger: &str| {
            let script = format!(
                "s = socket.create_connection(('{SERVER}', 80), 5)\n\
                 assert s.recv(10) == b'ready\\n'\n{linger}\ns.close()"
            );
            python(world, &script).ok();
            ends.recv_timeout(seconds(5))
                .expect("the server saw the end")
        };
        let reset = "s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))";
        assert_eq!(close(reset), "ConnectionReset");
        assert_eq!(close(""), "eof");
    });
}

#[test]
fn half_closed_connections_go_on_in_the_other_direction() {
    World::test(|world| {
        servers::tcp("server", 80, servers::count_until_eof);
        let (sender, counts) = channel();
        servers::tcp("server", 81, servers::close_first(sender));
        let client_first = format!(
            "s = socket.create_connection(('{SERVER}', 80), 5)\n\
             s.sendall(b'x' * 3_000_000)\ns.shutdown(socket.SHUT_WR)\n\
             print(s.makefile().read(), end='')"
        );
        assert_eq!(python(world, &client_first).ok(), "got 3000000 bytes\n");
        let server_first = format!(
            "s = socket.create_connection(('{SERVER}', 81), 5)\n\
             print(s.makefile().read(), end='')\n\
             for _ in range(30): s.sendall(b'y' * 100_000)\ns.close()"
        );
        assert_eq!(python(world, &server_first).ok(), "bye\n");
        assert_eq!(counts.recv_timeout(seconds(5)), Ok(3_000_000));
    });
}

/// Opens 5,000 connections, closes them at a line on stdin, ends at another.
fn five_thousand(world: &World) -> Running {
    let script = format!(
        "import socket, sys, resource\n\
         limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n\
         resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))\n\
         all = [socket.create_connection(('{SERVER}', 80), 20) for _ in range(5000)]\n\
         print('open', len(all), flush=True)\nsys.stdin.readline()\n\
         for s in all: s.close()\nprint('closed', flush=True)\nsys.stdin.readline()"
    );
    let argv = ["run", "--rm", "-i", "--", "python3", "-c", &script];
    world
        .mossnet(argv)
        .open_stdin()
        .timeout(seconds(90))
        .start()
}

#[test]
fn five_thousand_connections_come_and_go_without_a_trace() {
    World::builder().deadline(120).test(|world| {
        servers::tcp("server", 79, servers::echo);
        world.run(["nc", "-z", SERVER, "79"]).ok();
        world.detached("keeper", ["sleep", "1000"]);
        let before = world.relay_descriptors();
        let held = servers::Held::start("server", 80);
        let mut client = five_thousand(world);
        client.expect("open 5000");
        eventually(seconds(10), "5,000 connections at the server", || {
            held.count() == 5000
        });
        let during = world.relay_descriptors();
        assert!(
            during >= before + 10_000,
            "two sockets a flow: {before} → {during}"
        );
        assert!(
            during < before + 10_200,
            "an idle flow has no pipe: {before} → {during}"
        );
        client.write(b"\n");
        client.expect("closed");
        held.release();
        eventually(seconds(20), "no descriptor is left in the relay", || {
            inspect::descriptors(inspect::the("relay"))
                .iter()
                .filter(|l| l.starts_with("socket:"))
                .count()
                < before + 5
        });
        client.write(b"\n");
        client.wait().expect_code(0);
        let after = world.relay_descriptors();
        assert!(
            after <= before,
            "descriptors of the relay: {before}, then {during}, now {after}"
        );
        let flows = inspect::in_router(["ss", "-Htan", "state", "connected"]).ok();
        assert_eq!(
            flows
                .lines()
                .filter(|line| !line.contains("TIME-WAIT"))
                .count(),
            0,
            "{flows}"
        );
        let flows = world.host(["ss", "-Htan", "state", "established"]).ok();
        assert_eq!(flows, "", "host side");
        world.mossnet(["rm", "-f", "keeper"]).ok();
    });
}

#[test]
fn datagrams_of_every_size_come_back() {
    World::test(|world| {
        servers::udp_echo("server", 7);
        for address in [SERVER, SERVER6] {
            let script = format!(
                "s = socket.socket(socket.AF_INET6 if ':' in '{address}' else socket.AF_INET, socket.SOCK_DGRAM)\n\
                 s.settimeout(3)\n\
                 for size in (0, 1, 512, 1400, 1472, 1473, 4000, 9000, 30000, 60000):\n\
                 \x20 data = bytes(i % 251 for i in range(size))\n\
                 \x20 s.sendto(data, ('{address}', 7))\n\
                 \x20 back, peer = s.recvfrom(65535)\n\
                 \x20 assert back == data, (size, len(back))\n\
                 \x20 assert peer[:2] == ('{address}', 7), peer\n\
                 print('all')"
            );
            assert_eq!(python(world, &script).ok(), "all\n", "{address}");
        }
    });
}

#[test]
fn datagrams_keep_their_order_and_their_flows() {
    World::test(|world| {
        servers::udp_echo("server", 7);
        let script = format!(
            "for flow in range(50):\n\
             \x20 s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             \x20 s.settimeout(3)\n\
             \x20 for i in range(40): s.sendto(struct.pack('ii', flow, i), ('{SERVER}', 7))\n\
             \x20 got = [struct.unpack('ii', s.recv(8)) for i in range(40)]\n\
             \x20 assert got == [(flow, i) for i in range(40)], got\n\
             print('in order')"
        );
        assert_eq!(python(world, &script).ok(), "in order\n");
    });
}

#[test]
fn errors_for_datagrams_come_back_too() {
    World::test(|world| {
        for (address, answer) in [
            (SERVER, "ECONNREFUSED"),
            (SERVER6, "ECONNREFUSED"),
            (UNREACHABLE, "EHOSTUNREACH"),
            (UNREACHABLE6, "ENETUNREACH"),
            (UNROUTED, "ENETUNREACH"),
            (UNROUTED6, "ENETUNREACH"),
            (PROHIBITED, "EHOSTUNREACH"),
            (BLACK_HOLE, "timed out"),
        ] {
            // Without RECVERR the kernel tells a program of refused ports only (udp(7)).
            let script = format!(
                "six = ':' in '{address}'\n\
                 s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)\n\
                 s.setsockopt(*((socket.IPPROTO_IPV6, 25, 1) if six else (socket.IPPROTO_IP, 11, 1)))\n\
                 s.settimeout(2)\ns.connect(('{address}', 9))\n\
                 try:\n\
                 \x20 s.send(b'anyone?')\n\
                 \x20 s.recv(10)\n\
                 except socket.timeout: print('timed out')\n\
                 except OSError as e: print(errno.errorcode[e.errno])"
            );
            let on_host = python_on_host(world, &script).ok();
            assert_eq!(on_host.trim(), answer, "datagram to {address}, on the host");
            let inside = python(world, &script).ok();
            assert_eq!(inside.trim(), answer, "datagram to {address}");
        }
    });
}

#[test]
fn ping_is_answered() {
    World::test(|world| {
        if !installed("ping") {
            return;
        }
        let ping = |args: &str| {
            world
                .run(["ping", "-n", "-W", "2"])
                .then(args.split(' '))
                .run()
        };
        for address in [SERVER, SERVER6, ISP, ISP6, "10.89.0.1", "127.0.0.1"] {
            let answer = ping(&format!("-c 3 -i 0.1 {address}")).expect_code(0);
            assert!(answer.stdout.contains("3 received"), "{answer}");
        }
        let large = ping(&format!("-c 2 -i 0.1 -s 4000 {SERVER}")).expect_code(0);
        assert!(large.stdout.contains("4008 bytes"), "{large}");
        let many = ping(&format!("-c 200 -i 0.002 -q {SERVER}")).expect_code(0);
        assert!(many.stdout.contains("200 received"), "{many}");
        let unrouted = ping(&format!("-c 1 {UNROUTED}")).expect_code(1);
        unrouted.expect_text("Unreachable");
        ping(&format!("-c 1 {BLACK_HOLE}"))
            .expect_code(1)
            .expect_text("0 received");
    });
}

#[test]
fn without_ping_sockets_the_rest_works() {
    World::builder().ping(false).test(|world| {
        servers::http("server", 80);
        world
            .run(["curl", "-sS", &format!("http://{SERVER}/")])
            .ok();
        world
            .run(["ping", "-c1", "-W2", SERVER])
            .run()
            .expect_within(seconds(8));
        world.run(["ping", "-c1", "-W2", "10.89.0.1"]).ok();
        let doctor = world.mossnet(["doctor"]).run();
        assert!(doctor.stdout.contains("ping_group_range"), "{doctor}");
    });
}

#[test]
fn traceroute_shows_the_real_hops() {
    World::test(|world| {
        if !installed("traceroute") {
            return;
        }
        for (options, hops) in [
            ("-4", ["10.89.0.1", ISP, SERVER]),
            ("-4 -I", ["10.89.0.1", ISP, SERVER]),
            ("-4 -T -p 80", ["10.89.0.1", ISP, SERVER]),
        ] {
            servers_once(options);
            let argv = format!("traceroute -n -q 1 -w 2 -m 6 {options} {}", hops[2]);
            let trace = world.run(argv.split(' ')).ok();
            let seen: Vec<_> = trace
                .lines()
                .skip(1)
                .filter_map(|line| line.split_whitespace().nth(1))
                .collect();
            assert_eq!(seen, hops, "{trace}");
        }
        let trace = world
            .run([
                "traceroute",
                "-6",
                "-n",
                "-q",
                "1",
                "-w",
                "2",
                "-m",
                "6",
                SERVER6,
            ])
            .ok();
        assert!(trace.contains(ISP6) && trace.contains(SERVER6), "{trace}");
    });
}

/// TCP traceroute ends at a port that answers.
fn servers_once(options: &str) {
    if options.contains("-T") {
        servers::tcp("server", 80, servers::echo);
    }
}

#[test]
fn an_idle_flow_stays_open() {
    World::test(|world| {
        servers::tcp("server", 80, servers::echo);
        let script = format!(
            "s = socket.create_connection(('{SERVER}', 80), 5)\n\
             for i in range(5):\n\
             \x20 s.sendall(b'tick')\n\
             \x20 assert s.recv(10) == b'tick'\n\
             \x20 time.sleep(0.5)\n\
             print('alive')"
        );
        assert_eq!(python(world, &script).ok(), "alive\n");
    });
}
