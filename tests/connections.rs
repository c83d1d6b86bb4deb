//! TCP as it is on the host: refusals, resets, half-closes, and nothing left afterwards.

use crate::outbound::{python, python_on_host};
use crate::world::{
    BLACK_HOLE, BLACK_HOLE6, Cmd, PROHIBITED, Running, SERVER, SERVER6, UNREACHABLE, UNREACHABLE6,
    UNROUTED, UNROUTED6, World, eventually, inspect, installed, seconds, servers,
};
use std::sync::mpsc::channel;

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

/// Connects on the host and in a sandbox. Few at a time: a router sends a burst of five errors to
/// a neighbour, then one a second.
fn expect_failures(world: &World, cases: &[(&str, &str)]) {
    for (address, answer) in cases {
        let (on_host, host_seconds) = connecting(|s| python_on_host(world, s), address);
        assert_eq!(on_host, *answer, "connect to {address} on the host");
        let (inside, inside_seconds) = connecting(|s| python(world, s), address);
        assert_eq!(inside, *answer, "connect to {address}");
        // An error that comes while connect() still holds the socket is noticed only at the first
        // retransmission, one second later, on the host too (veth delivers within the call).
        assert!(
            *answer == "timed out" || inside_seconds < host_seconds.max(1.0) + 0.8,
            "{answer} of {address} after {inside_seconds} s, on the host {host_seconds} s"
        );
    }
}

#[test]
fn refused_connections_are_refused() {
    World::test(|world| {
        servers::tcp("server", 80, servers::echo);
        expect_failures(
            world,
            &[(SERVER, "ECONNREFUSED"), (SERVER6, "ECONNREFUSED")],
        );
    });
}

#[test]
fn none_waits_for_a_relay_that_begins() {
    World::test(|world| {
        servers::tcp("server", 80, servers::echo);
        // A SYN that nobody sees is sent again after a second. The relay's rings come while these go on, so they must begin soon.
        let script = format!(
            "longest=0; count=0; end=$((${{EPOCHREALTIME/./}} + 150000)); now=0\n\
             while (( now < end )); do begin=${{EPOCHREALTIME/./}}; exec 3<>/dev/tcp/{SERVER}/80; echo >&3; read -r <&3; exec 3>&-\n\
             now=${{EPOCHREALTIME/./}}; (( now - begin > longest )) && longest=$((now - begin)); ((++count)); done\n\
             echo $longest $count"
        );
        for _ in 0..6 {
            let said = world.run(["bash", "-c", &script]).ok();
            let (longest, count) = said.trim().split_once(' ').expect("two values");
            let (longest, count): (u32, u32) = (longest.parse().unwrap(), count.parse().unwrap());
            assert!(longest < 800_000 && count > 5, "µs, connections: {said}");
            world.mossnet(["shutdown", "--all"]).ok();
        }
    });
}

#[test]
fn unreachable_destinations_are_unreachable_at_once() {
    World::test(|world| {
        expect_failures(
            world,
            &[(UNREACHABLE, "EHOSTUNREACH"), (UNROUTED, "ENETUNREACH")],
        );
    });
}

#[test]
fn prohibited_destinations_and_those_of_ipv6() {
    World::test(|world| {
        // Linux routers answer `no route` for both over IPv6.
        let cases = [
            (PROHIBITED, "EHOSTUNREACH"),
            (UNREACHABLE6, "ENETUNREACH"),
            (UNROUTED6, "ENETUNREACH"),
        ];
        expect_failures(world, &cases);
    });
}

#[test]
fn silence_is_a_timeout() {
    World::test(|world| {
        expect_failures(
            world,
            &[(BLACK_HOLE, "timed out"), (BLACK_HOLE6, "timed out")],
        );
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
            ends.recv_timeout(seconds(20))
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
        assert_eq!(counts.recv_timeout(seconds(20)), Ok(3_000_000));
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
            during >= before + 5_000,
            "a host side each: {before} → {during}"
        );
        assert!(
            during < before + 5_200,
            "a young flow has neither a router side nor a pipe: {before} → {during}"
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

/// The host's congestion control: of connections to elsewhere, and with peers on this machine.
pub(crate) fn far_and_near() -> (String, String) {
    let own = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
    let own = own.trim().to_owned();
    let near = if own.starts_with("bbr") { "reno" } else { &own };
    (own.clone(), near.to_owned())
}

/// The congestion controls of the host's connections that ss(8) finds by `filter`.
pub(crate) fn controls(world: &World, filter: [&str; 4]) -> Vec<String> {
    let text = world.host(["ss", "-tinH"].into_iter().chain(filter)).ok();
    let words = text.split_whitespace();
    words
        .filter(|word| ["bbr", "reno", "cubic"].contains(word))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_hosts_congestion_control_rules_all_but_peers_on_this_machine() {
    World::test(|world| {
        let (own, near) = far_and_near();
        servers::tcp("server", 7000, servers::echo);
        world.sleeper("busy", "");
        let script = format!(
            "import socket,sys\n\
             near=[socket.create_connection(('{SERVER}',7000)) for _ in range(20)]\n\
             far=socket.socket()\nfar.setblocking(False)\nfar.connect_ex(('{BLACK_HOLE}',80))\n\
             print('both',flush=True)\nsys.stdin.read()"
        );
        let both = world.mossnet(["exec", "-i", "busy", "--", "python3", "-c", &script]);
        let mut both = both.open_stdin().timeout(seconds(60)).start();
        both.expect("both");
        eventually(seconds(10), "a connect under way", || {
            controls(world, ["state", "all", "dst", BLACK_HOLE]) == [own.as_str()]
        });
        let found = controls(world, ["state", "all", "dst", SERVER]);
        assert_eq!(found.len(), 20);
        // Where others keep the machine busy, a handshake may take its time even here.
        assert!(found.contains(&near), "{found:?}");
    });
}
