//! `capture`: packets of sandboxes and networks, to lines and files, until it is told to end.

pub mod file;

use crate::world::{Output, Running, SERVER, World, eventually, inspect, seconds, servers};
use file::File;
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const FILE: &str = "/run/world/home/capture.pcapng";
/// TCP, UDP and ICMP to the server; nobody has the UDP port, so that ICMP comes back, too.
const TRAFFIC: &str = "ping -c2 -i0.2 -W5 198.51.100.10 >/dev/null; \
    curl -sS http://198.51.100.10/; \
    python3 -c 'import socket; s=socket.socket(2,2); s.sendto(b\"seven b\", (\"198.51.100.10\", 7777))'";

/// Starts `mossnet capture LINE`; nothing is missed any more.
fn capture(world: &World, line: &str) -> Running {
    let mut running = world.line(&format!("capture {line}")).start();
    running.expect_error("capturing on");
    running
}

/// Ends it; stderr must say how many were captured, which is given, and how many lost.
fn end(running: Running, signal: Signal) -> (Output, u64, u64) {
    running.signal(signal);
    counted(running.wait().expect_code(0))
}

#[track_caller]
fn counted(output: Output) -> (Output, u64, u64) {
    let last = output.stderr.lines().last().unwrap_or_default().to_owned();
    let words: Vec<&str> = last.split(' ').collect();
    let [
        "mossnet:",
        captured,
        "packets" | "packet",
        "captured,",
        dropped,
        "dropped",
        ..,
    ] = words[..]
    else {
        panic!("no count: {output}");
    };
    let counts = (captured.parse().unwrap(), dropped.parse().unwrap());
    (output, counts.0, counts.1)
}

#[test]
fn a_sandbox_in_both_directions() {
    World::test(|world| {
        servers::http("server", 80);
        world.sleeper("web", "");
        let address = world.address("web", false);
        let running = capture(world, &format!("-w {FILE} web"));
        let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
        for line in [
            "CapEff:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "NoNewPrivs:\t1",
        ] {
            assert!(status.contains(line), "{line} in {status}");
        }
        // It needs nobody of ours.
        inspect::kill_hard(&[inspect::the("daemon")]);
        world.within("web", TRAFFIC).ok();
        let (output, captured, dropped) = end(running, Signal::SIGINT);
        let mode = fs::metadata(FILE).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let file = File::read(FILE);
        assert_eq!(file.packets.len() as u64, captured, "{output}");
        assert_eq!(file.statistics, [(captured, dropped)], "{output}");
        let [interface] = &file.interfaces[..] else {
            panic!("{file:?}");
        };
        assert_eq!(
            (&interface.name[..], &interface.description[..]),
            ("eth0", "web on bridge")
        );
        for protocol in [1, 6, 17] {
            for inward in [false, true] {
                if protocol == 17 && inward {
                    continue;
                }
                let found = |packet: &&file::Packet| {
                    let ends = [address.as_str(), SERVER];
                    let ends = if inward { [ends[1], ends[0]] } else { ends };
                    packet.protocol() == protocol
                        && packet.inward == inward
                        && packet.addresses() == ends
                };
                let found = file.packets.iter().filter(found).count();
                assert!(found > 0, "{protocol} {inward} {file:#?}");
            }
        }
        let datagram = file.packets.iter().find(|packet| {
            packet.protocol() == 17 && packet.ports()[1] == 7777 && packet.addresses()[1] == SERVER
        });
        assert_eq!(&datagram.expect("the datagram").bytes[42..], b"seven b");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.unwrap().as_nanos() as u64;
        for packet in &file.packets {
            assert!(packet.nanoseconds.abs_diff(now) < 120_000_000_000);
            assert_eq!(packet.length, packet.bytes.len());
        }
    });
}

#[test]
fn a_network_and_its_forwarded_packets() {
    World::test(|world| {
        world.network("create lab").ok();
        world.sleeper("one", "--network lab");
        world.sleeper("two", "--network lab");
        let [one, two] = ["one", "two"].map(|name| world.address_on(name, "lab", false));
        let mut running = capture(world, "--proto icmp --proto udp lab");
        world.within("one", &format!("ping -c1 -W5 {two}")).ok();
        running.expect(&format!("lab In  IP {one} > {two}: ICMP echo request"));
        running.expect(&format!("lab In  IP {two} > {one}: ICMP echo reply"));
        let (output, ..) = end(running, Signal::SIGTERM);
        // Each once, ARP and what goes by the gateway not mistaken for it.
        let echoes = output
            .stdout
            .lines()
            .filter(|line| line.contains("ICMP echo"));
        assert_eq!(echoes.count(), 2, "{output}");
        assert!(!output.stdout.contains("ARP"), "{output}");
        // To standard output as a file, by count; the gateway's own packets go out.
        let running = capture(world, &format!("-w {FILE} --proto icmp -c 4 lab"));
        let gateway = world.endpoint("one", "lab")["Gateways"][0].clone();
        let gateway = gateway.as_str().expect("a gateway").to_owned();
        world
            .within("one", &format!("ping -c3 -i0.2 -W5 {gateway}"))
            .ok();
        let (output, captured, _) = counted(running.wait().expect_code(0));
        assert_eq!(captured, 4, "{output}");
        let file = File::read(FILE);
        let directions: Vec<bool> = file.packets.iter().map(|packet| packet.inward).collect();
        assert_eq!(directions, [true, false, true, false]);
    });
}

#[test]
fn what_is_asked_for_and_no_more() {
    World::test(|world| {
        servers::http("server", 80);
        world.network("create lab").ok();
        world.sleeper("web", "--network bridge --network lab");
        world.sleeper("peer", "--network lab");
        let peer = world.address_on("peer", "lab", false);
        let all = capture(
            world,
            &format!("-w {FILE} --host {SERVER} --host {peer} web"),
        );
        let some = format!("{FILE}.some");
        let line = format!("-w {some} -s 60 --proto tcp --port 80 --host {SERVER} web");
        let tcp = capture(world, &line);
        let lab = format!("{FILE}.lab");
        let only_lab = capture(world, &format!("-w {lab} --network lab web"));
        world.within("web", TRAFFIC).ok();
        world.within("web", &format!("ping -c1 -W5 {peer}")).ok();
        for running in [all, tcp, only_lab] {
            end(running, Signal::SIGHUP);
        }
        let all = File::read(FILE);
        let names: Vec<_> = all.interfaces.iter().map(|i| &i.description[..]).collect();
        assert_eq!(names, ["web on bridge", "web on lab"]);
        let on = |file: &File, interface| {
            file.packets
                .iter()
                .filter(|packet| packet.interface == interface)
                .count()
        };
        assert!(on(&all, 0) > 5 && on(&all, 1) >= 2, "{all:#?}");
        let tcp = File::read(some);
        assert!(on(&tcp, 0) >= 6 && on(&tcp, 1) == 0, "{tcp:#?}");
        for packet in &tcp.packets {
            assert!(packet.protocol() == 6 && packet.ports().contains(&80));
            assert!(packet.bytes.len() <= 60);
        }
        assert!(tcp.packets.iter().any(|packet| packet.length > 60));
        assert_eq!(tcp.interfaces[0].snaplen, 60);
        let lab = File::read(lab);
        assert_eq!(lab.interfaces.len(), 1);
        assert!(
            lab.packets
                .iter()
                .filter(|packet| packet.protocol() == 1)
                .count()
                >= 2
        );
    });
}

#[test]
fn it_ends_with_what_it_looks_at() {
    World::test(|world| {
        world.network("create lab").ok();
        world.sleeper("one", "--network lab");
        world.sleeper("two", "");
        world
            .mossnet(["netns", "create", "bare", "--network", "lab"])
            .ok();
        let captures = ["one", "lab", "bare"].map(|name| capture(world, name));
        let mut other = capture(world, "two");
        let timed = capture(world, "--duration 100ms two");
        world.mossnet(["network", "rm", "-f", "lab"]).ok();
        for running in captures {
            counted(running.wait().expect_code(0));
        }
        counted(timed.wait().expect_code(0));
        assert!(other.is_alive());
        world.mossnet(["rm", "-f", "two"]).ok();
        counted(other.wait().expect_code(0));
    });
}

#[test]
fn readers_that_go_or_do_not_read() {
    World::test(|world| {
        world.detached("web", ["ping", "-i", "0.1", SERVER]);
        // Nothing comes that could be written: it ends all the same.
        let gone = "mossnet --root /run/world/root capture --port 9 web | sleep 0.2; echo over";
        assert_eq!(world.user(["sh", "-c", gone]).ok(), "over\n");
        let first = "mossnet --root /run/world/root capture -w - --proto icmp web | head -c 20 | wc -c; \
                     mossnet --root /run/world/root capture --proto icmp web | head -n 1";
        let mut running = world.user(["bash", "-o", "pipefail", "-c", first]).start();
        running.expect_error("capturing on");
        let output = running.wait().expect_code(0);
        assert!(output.stdout.starts_with("20\n"), "{output}");
        assert!(output.stdout.contains("ICMP echo"), "{output}");
        // A reader that sleeps holds it for as long as nobody tells it to end.
        let stalled = "mossnet --root /run/world/root capture web | sleep 1000";
        let mut shell = world.user(["sh", "-c", stalled]).start();
        shell.expect_error("capturing on");
        let flood = "ping -f -c 3000 -s 8 -q 198.51.100.10 >/dev/null || true";
        world.within("web", flood).ok();
        let is_ours = |process: &inspect::Process| process.line.contains("capture web");
        let ours = |process: &inspect::Process| is_ours(process) && !process.line.starts_with("sh");
        let found: Vec<_> = inspect::processes().into_iter().filter(ours).collect();
        let [process] = &found[..] else {
            panic!("{found:?}");
        };
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.pid), Signal::SIGTERM).unwrap();
        eventually(seconds(10), "the capture ends", || {
            !inspect::processes().iter().any(ours)
        });
    });
}

#[test]
fn what_finds_no_room_is_counted() {
    World::test(|world| {
        servers::http("server", 80);
        world.sleeper("web", "");
        let running = capture(world, &format!("-w {FILE} web"));
        running.signal(Signal::SIGSTOP);
        // Four times what the ring holds.
        let fetch = "curl -sS http://198.51.100.10/bytes/33554432 | wc -c";
        assert_eq!(
            world.within("web", fetch).timeout(seconds(60)).ok(),
            "33554432\n"
        );
        running.signal(Signal::SIGCONT);
        let (output, captured, dropped) = end(running, Signal::SIGINT);
        assert!(captured > 0 && dropped > 0, "{output}");
        let file = File::read(FILE);
        assert_eq!(file.packets.len() as u64, captured);
        assert_eq!(file.statistics, [(captured, dropped)]);
    });
}

#[test]
fn what_cannot_be_captured_is_said_and_changes_nothing() {
    World::test(|world| {
        world.network("create lab").ok();
        world.sleeper("web", "");
        world.sleeper("hosts", "--network host");
        world.sleeper("none", "--network none");
        world.sleeper("guest", "--network container:web");
        world.sleeper("ended", "");
        world.mossnet(["stop", "-t", "0", "ended"]).ok();
        fs::write(FILE, "precious").unwrap();
        let file = format!("-w {FILE}");
        for (line, code, text) in [
            ("nobody", 1, "no sandbox and no network is called 'nobody'"),
            ("ended", 1, "'ended' does not run"),
            ("hosts", 1, "host's network"),
            ("none", 1, "on no network"),
            ("guest", 1, "it shares those of 'web'"),
            ("host", 1, "network 'host' has no bridge"),
            ("lab", 1, "nobody is on network 'lab'"),
            ("--network lab web", 1, "'web' is not on network 'lab'"),
            ("--network lab bridge", 125, "'bridge' is a network"),
            (
                "--port 80 --proto icmp web",
                125,
                "--port goes with TCP and UDP",
            ),
            ("--port http web", 125, "'http'"),
            ("--host example.org web", 125, "'example.org'"),
            ("-c 0 web", 125, "'0'"),
        ] {
            let refused = world.line(&format!("capture {file} {line}")).run();
            assert_eq!(refused.code, code, "{line}: {refused}");
            refused.expect_one_clear_line().expect_text(text);
            assert_eq!(fs::read_to_string(FILE).unwrap(), "precious");
        }
        let nowhere = world.line("capture -w /nowhere/file web").fails(1);
        nowhere.expect_one_clear_line().expect_text("/nowhere/file");
        // As root in a namespace of our own it may write no more than its user.
        fs::set_permissions(FILE, fs::Permissions::from_mode(0o400)).unwrap();
        let refused = world.line(&format!("capture {file} web")).fails(1);
        refused.expect_one_clear_line().expect_text(FILE);
    });
}
