//! `--rate-in`, `--rate-out`: how fast a sandbox may be on a network, by every way to say it.

use crate::world::rates::{is_held_to, rate};
use crate::world::{SERVER, World, inspect, installed};
use serde_json::Value;

const MBIT: f64 = 1e6;

/// What the kernel holds endpoints to, sorted.
fn held() -> Vec<String> {
    let shown = inspect::in_router(["tc", "qdisc"]).ok();
    let lines = shown.lines().filter(|line| line.contains("qdisc tbf"));
    let rate = |line: &str| {
        let mut words = line.split(' ');
        let after = words.find(|word| *word == "rate").and(words.next());
        after.expect("a rate").to_lowercase()
    };
    let mut held: Vec<_> = lines.map(rate).collect();
    held.sort();
    held
}

#[test]
fn the_way_out_is_held_to_the_rates_of_a_sandbox() {
    World::builder().deadline(180).test(|world| {
        if !installed("iperf3") {
            return;
        }
        world.sleeper(
            "web",
            "--cap-add NET_ADMIN --rate-in 16mbit --rate-out 8mbit",
        );
        let iperf3 = |options: &str| {
            let client = world.mossnet(["exec", "web", "--"]);
            rate(world.server(["env"]), client, SERVER, options)
        };
        is_held_to(8.0 * MBIT, || iperf3(""));
        is_held_to(16.0 * MBIT, || iperf3("-R"));
        // No way around it, by root of the sandbox.
        let more = "ip link set eth0 mtu 1400 gso_max_segs 1 txqueuelen 10000";
        world.within("web", more).ok();
        is_held_to(8.0 * MBIT, || iperf3(""));
        world.line("rm -f web").ok();
        assert!(inspect::router_interfaces("if-").is_empty());
    });
}

#[test]
fn rates_outlive_daemon_and_run() {
    World::test(|world| {
        if !installed("tc") {
            return;
        }
        world.network("create mynet").ok();
        world.network("create other").ok();
        world.sleeper("web", "--network mynet:rate_in=3mbit,rate_out=4mbit");
        assert_eq!(held(), ["3mbit", "4mbit"]);
        let shown: Value = serde_json::from_str(&world.line("inspect web").ok()).expect("JSON");
        let endpoint = &shown[0]["Endpoints"][0];
        assert_eq!(endpoint["RateIn"]["BitsPerSecond"], 3_000_000, "{endpoint}");
        assert_eq!(endpoint["RateOut"]["BitsPerSecond"], 4_000_000);

        world.network("connect --rate-out 5mbit other web").ok();
        assert_eq!(held(), ["3mbit", "4mbit", "5mbit"]);
        world.network("disconnect other web").ok();
        assert_eq!(held(), ["3mbit", "4mbit"]);
        world.network("connect --rate-in 5mbit other web").ok();

        // The next daemon knows of them, and makes what is missing as it was.
        let links = inspect::router_interfaces("ve-");
        inspect::kill_hard(&[inspect::the("daemon")]);
        for link in &links {
            inspect::in_router(["ip", "link", "del", link]).ok();
        }
        world.line("ps").ok();
        assert_eq!(held(), ["3mbit", "4mbit", "5mbit"]);

        world.line("stop -t 0 web").ok();
        assert!(held().is_empty());
        world.line("start web").ok();
        assert_eq!(held(), ["3mbit", "4mbit", "5mbit"]);

        world
            .line("netns create ns --network mynet:rate_in=7mbit")
            .ok();
        assert!(held().contains(&"7mbit".to_owned()));
        world.line("rm -f web ns").ok();
        assert!(held().is_empty() && inspect::router_interfaces("if-").is_empty());
        world
            .line("run --rate-in 10 -- true")
            .fails(125)
            .expect_text("1kbit to 1000tbit")
            .expect_one_clear_line();
    });
}
