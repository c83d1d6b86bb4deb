//! The way out: TCP, UDP and ICMP to the world, with the world's own answers.

use crate::world::{
    BLACK_HOLE, Cmd, ISP, ISP6, SERVER, SERVER6, UNROUTED, World, installed, seconds, servers,
};

const GIBIBYTE: u64 = 1 << 30;
const PRELUDE: &str = "import socket, struct, sys, time, errno\n";

/// A Python script in a sandbox.
pub fn python(world: &World, script: &str) -> Cmd {
    world.run(["python3", "-c", &format!("{PRELUDE}{script}")])
}

/// The same on the host.
pub fn python_on_host(world: &World, script: &str) -> Cmd {
    world.user(["python3", "-c", &format!("{PRELUDE}{script}")])
}

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
    World::builder().alone().test(|world| {
        if !installed("iperf3") {
            return;
        }
        for options in ["", "-R", "-P 4", "-P 4 -R"] {
            let rates = (0..3).map(|_| {
                let end = iperf3(world, options);
                let rate = end["sum_received"]["bits_per_second"]
                    .as_f64()
                    .unwrap_or(0.0);
                println!("iperf3 {options}: {:.2} Gbit/s", rate / 1e9);
                rate
            });
            assert!(rates.into_iter().any(|rate| rate > 5e8), "iperf3 {options}");
        }
    });
}

#[test]
fn iperf3_runs_over_udp_in_both_directions() {
    World::builder().alone().test(|world| {
        if !installed("iperf3") {
            return;
        }
        for options in ["-u -b 20M -l 1400", "-u -b 20M -l 1400 -R"] {
            // On a busy machine one run of three may lose, on the host as well.
            let lost = (0..3).map(|_| {
                let end = iperf3(world, options);
                let lost = end["sum"]["lost_percent"].as_f64().unwrap_or(100.0);
                let packets = end["sum"]["packets"].as_u64().unwrap_or(0);
                println!("iperf3 {options}: {packets} datagrams, {lost} % lost");
                assert!(packets > 2_000, "iperf3 {options}: {end}");
                lost
            });
            assert!(lost.into_iter().any(|lost| lost < 1.0), "iperf3 {options}");
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
        world.run(["ping", "-c1", "-W15", "10.89.0.1"]).ok();
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
