//! Many on one network. These tests measure, so they run alone.
//!
//! The goals are those of the program that users run, an optimised one: `cargo test --release
//! networks::scale`. Other builds, some ten times slower, are held to six times the goals, so that
//! work that grows with the square of the number still shows.
//!
//! `MOSSNET_TEST_ENDPOINTS` (2500, otherwise 1100) is how many bare sandboxes share a network; with
//! 1,024 or less nothing is proved about the limit of a bridge, and the test says so.

use crate::world::{World, enter, eventually, inspect, seconds};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SANDBOXES: usize = 1000;
/// By how much goals are stretched here, and how many endpoints there are. In debug builds, which
/// share loaded machines with other tests, what grows with the square of the number is all that fails.
const BUILD: (u32, usize) = if cfg!(debug_assertions) {
    (30, 1100)
} else {
    (1, 2500)
};
/// Clients at once; more than cores, since each waits for the daemon.
const CLIENTS: usize = 4;
/// Ports that the kernel gives a bridge, BR_MAX_PORTS.
const PORTS: usize = 1024;

/// Calls `each` with 0..count from several threads; fails the test where one fails.
fn at_once(count: usize, each: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    each(number);
                }
            });
        }
    });
}

/// The best of three calls: what it costs, not what else the machine does.
fn best(mut call: impl FnMut() -> Duration) -> Duration {
    let all = [call(), call(), call()];
    all.into_iter().min().unwrap_or_default()
}

/// The API itself, as a client that keeps its connection: the cost of a process for each call is not
/// what is tested.
struct Api(BufReader<UnixStream>);

impl Api {
    fn open() -> Self {
        let path = format!("{}/run/api.sock", crate::world::ROOT);
        Self(BufReader::new(
            UnixStream::connect(path).expect("connect to the API"),
        ))
    }

    /// The body of the answer; fails the test unless the status is a good one.
    #[track_caller]
    fn call(&mut self, method: &str, path: &str, body: &str) -> String {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: mossnet\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.0
            .get_mut()
            .write_all(request.as_bytes())
            .expect("ask the API");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let count = self.0.read_line(&mut head).expect("hear the API");
            assert!(count > 0, "the API closed: {head}");
        }
        let lower = head.to_lowercase();
        let length = lower
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.lines().next());
        let length = length.map_or(0, |text| text.trim().parse().expect("a length"));
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("hear the API");
        let body = String::from_utf8_lossy(&body).into_owned();
        let good = head
            .split(' ')
            .nth(1)
            .is_some_and(|status| status.starts_with('2'));
        assert!(good, "{method} {path}: {head}{body}");
        body
    }
}

/// `mossnet run -d` of a thousand, the smallest process in each; how long it took.
fn attach_all(world: &World) -> Duration {
    let begin = Instant::now();
    at_once(SANDBOXES, |number| {
        let line = format!("run -d --name box{number} --network crowd -- busybox sleep 100000");
        world.line(&line).timeout(seconds(60)).ok();
    });
    let elapsed = begin.elapsed();
    let all = inspect::processes();
    let sleeping = all.iter().filter(|p| p.line == "busybox sleep 100000");
    assert_eq!(sleeping.count(), SANDBOXES, "each has its process");
    elapsed
}

/// Says who worked how much so far, for the reader of a failure: the machine may be busy elsewhere.
fn report_work() {
    for role in ["daemon", "helper", "relay"] {
        let used = inspect::processor_time(inspect::the(role));
        println!("{role}: {used:?} of processor time");
    }
}

#[test]
fn a_thousand_sandboxes_on_one_network() {
    World::builder().deadline(500).alone().test(|world| {
        world.network("create --subnet 172.24.0.0/16 crowd").ok();
        world.sleeper("first", "--network crowd");
        let attached = attach_all(world);
        report_work();
        let timed = |line: &str| {
            best(|| {
                let output = world.line(line).run().expect_code(0);
                let shown = output.stdout.matches("box").count();
                assert!(shown >= SANDBOXES, "{line} shows {shown}");
                output.elapsed
            })
        };
        let (inspected, listed) = (timed("network inspect crowd"), timed("ps"));
        println!(
            "{SANDBOXES} attached in {attached:?}; network inspect {inspected:?}, ps {listed:?}"
        );
        assert!(
            attached < seconds(60) * BUILD.0.min(6),
            "attached in {attached:?}"
        );
        let limit = Duration::from_millis(100) * BUILD.0;
        assert!(inspected < limit, "network inspect takes {inspected:?}");
        assert!(listed < limit, "ps takes {listed:?}");

        let last = world.address_on(&format!("box{}", SANDBOXES - 1), "crowd", false);
        assert!(world.pings("first", &last));
        let name = format!("box{}", SANDBOXES / 2);
        assert!(world.pings("first", &name), "by name");
        let all = world.line("ps -q").ok();
        let rm = world.line("rm -f").then(all.lines());
        rm.timeout(seconds(100)).ok();
        eventually(seconds(20), "nothing is left in the kernel", || {
            inspect::router_interfaces("ve-").is_empty()
        });
        world.network("rm crowd").ok();
        world.check_networks();
    });
}

#[test]
fn a_network_beyond_the_ports_of_a_bridge() {
    let count = std::env::var("MOSSNET_TEST_ENDPOINTS")
        .map_or(BUILD.1, |text| text.parse().expect("a number"));
    World::builder().deadline(420).alone().test(|world| {
        if count <= PORTS {
            enter::skip(&format!("{count} endpoints fit on one bridge"));
        }
        world.network("create --subnet 172.24.0.0/16 --subnet fd00:24::/64 crowd").ok();
        // From here on there are helper, router and bridge.
        world.sleeper("steady", "--network crowd");
        let before = inspect::router_interfaces("");
        let begin = Instant::now();
        at_once(count, |number| {
            thread_local!(static API: std::cell::RefCell<Option<Api>> = const { std::cell::RefCell::new(None) });
            let body = format!("{{\"name\":\"bare{number}\",\"networks\":[{{\"network\":\"crowd\"}}]}}");
            API.with_borrow_mut(|api| api.get_or_insert_with(Api::open).call("POST", "/v1/netns", &body));
        });
        println!("{count} endpoints attached in {:?}", begin.elapsed());
        report_work();
        let containers = world.network_info("crowd")["Containers"].clone();
        let members = containers.as_object().map(serde_json::Map::len);
        assert_eq!(members, Some(count + 1));
        let bridges = inspect::in_router(["ip", "-o", "link", "show", "type", "bridge"]).ok();
        let ports = inspect::in_router(["ip", "-j", "link"]).ok();
        let most = most_ports(&ports);
        println!("{} bridges, {most} ports at most", bridges.lines().count());
        assert!(most < PORTS, "{most} ports on one bridge");

        // First, middle and last may be on different bridges: they reach each other and the gateway.
        let some = [0, count / 2, count - 1].map(|number| format!("bare{number}"));
        for (index, name) in some.iter().enumerate() {
            world.sleeper(&format!("in{index}"), &format!("--network container:{name}"));
        }
        for index in 0..some.len() {
            let from = format!("in{index}");
            for target in ["172.24.0.1", "fd00:24::1"] {
                assert!(world.pings(&from, target), "{from} to {target}");
            }
            for name in &some {
                for ipv6 in [false, true] {
                    let target = world.address_on(name, "crowd", ipv6);
                    assert!(world.pings(&from, &target), "{from} to {name}, {target}");
                }
                assert!(world.dig(&from, &format!("@172.24.0.1 {name} A")).len() == 1, "{name}");
            }
        }
        world.mossnet(["rm", "-f", "in0", "in1", "in2"]).ok();
        let begin = Instant::now();
        at_once(count, |number| {
            thread_local!(static API: std::cell::RefCell<Option<Api>> = const { std::cell::RefCell::new(None) });
            let path = format!("/v1/sandboxes/bare{number}?force=true");
            API.with_borrow_mut(|api| api.get_or_insert_with(Api::open).call("DELETE", &path, ""));
        });
        println!("{count} endpoints removed in {:?}", begin.elapsed());
        report_work();
        // Overflow bridges go with those who needed them.
        eventually(seconds(20), "nothing is left in the kernel", || {
            inspect::router_interfaces("").is_subset(&before)
        });
        world.mossnet(["rm", "-f", "steady"]).ok();
        world.network("rm crowd").ok();
        world.check_networks();
    });
}

/// Ports of the fullest bridge, out of `ip -j link`.
fn most_ports(json: &str) -> usize {
    let links: serde_json::Value = serde_json::from_str(json).expect("JSON from ip");
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for link in links.as_array().expect("a list") {
        if let Some(master) = link["master"].as_str() {
            *counts.entry(master).or_default() += 1;
        }
    }
    counts.into_values().max().unwrap_or(0)
}
