//! `kill -9` of the daemon in the middle of changes to networks: the next command repairs, and what
//! is recorded is what is there.

use crate::world::{World, inspect, seconds};
use std::time::{Duration, SystemTime};

/// A generator whose seed the reader of a failure sees.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seed = now.map_or(1, |now| u64::from(now.subsec_nanos()) | 1);
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Runs `line`, kills the daemon at a random moment of it, and tells whether the command succeeded.
/// Not synchronisation: the moment is what is tested.
fn killed_during(world: &World, line: &str, chance: &mut Chance) -> bool {
    // A daemon runs before, so that it is the command that is hit and not the start.
    world.network("ls -q").ok();
    let daemon = inspect::the("daemon");
    let running = world.line(line).timeout(seconds(40)).start();
    std::thread::sleep(Duration::from_micros(chance.below(60_000)));
    inspect::kill_hard(&[daemon]);
    running.wait().code == 0
}

#[test]
fn connections_survive_or_vanish_whole() {
    World::builder().deadline(240).test(|world| {
        let mut chance = Chance::new();
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        world.sleeper("box", "--network bridge");
        world.sleeper("peer", "--network mynet");
        for round in 0..12 {
            let connected = world.network_info("mynet")["Containers"]
                .to_string()
                .contains("\"box\"");
            let word = if connected { "disconnect" } else { "connect" };
            let done = killed_during(world, &format!("network {word} mynet box"), &mut chance);
            world.check_networks();
            let now = world.network_info("mynet")["Containers"]
                .to_string()
                .contains("\"box\"");
            assert!(
                !done || now != connected,
                "round {round}: {word} succeeded and did nothing"
            );
            // Whichever it is, it is so in the sandbox and on the wire, too.
            let shown = world.line("exec box -- ip -o -4 addr").ok();
            assert_eq!(shown.contains("172.31.1."), now, "round {round}: {shown}");
            if now {
                let peer = world.address_on("peer", "mynet", false);
                assert!(world.pings("box", &peer), "round {round}");
            }
            assert!(
                world.pings("box", "10.89.0.1"),
                "round {round}: its other network"
            );
        }
        world.mossnet(["rm", "-f", "box", "peer"]).ok();
        world.network("rm mynet").ok();
        world.check_networks();
    });
}

#[test]
fn networks_and_members_come_and_go_whole() {
    World::builder().deadline(240).test(|world| {
        let mut chance = Chance::new();
        world.sleeper("steady", "");
        for round in 0..8 {
            for line in [
                "network create --subnet 172.31.7.0/24 fresh",
                "netns create bare --network fresh --network bridge",
                "rm -f bare",
                "network rm fresh",
            ] {
                killed_during(world, line, &mut chance);
                world.check_networks();
                println!("round {round}: {line}");
                // Brought to its end, so that the next one has its scene.
                let again = world.line(line).run();
                let already = [
                    "already",
                    "exists",
                    "overlap",
                    "in use",
                    "no such",
                    "there is no",
                    "not found",
                    "No such",
                ];
                let said = already.iter().any(|word| again.stderr.contains(word));
                assert!(again.code == 0 || said, "round {round}: {again}");
                world.check_networks();
            }
            assert!(world.pings("steady", "10.89.0.1"), "round {round}");
        }
        world.mossnet(["rm", "-f", "steady"]).ok();
        world.check_networks();
    });
}

#[test]
fn after_a_power_cut_networks_and_leases_are_there() {
    World::test(|world| {
        world
            .network("create --subnet 172.31.1.0/24 --label kept=yes -o mtu=1400 mynet")
            .ok();
        world.sleeper("box", "--network mynet --network bridge");
        let address = world.address_on("box", "mynet", false);
        let before = world.network_info("mynet");
        inspect::kill_everything();
        let after = world.network_info("mynet");
        for field in ["Id", "Created", "IPAM", "Labels", "Options"] {
            assert_eq!(before[field], after[field], "{field}");
        }
        assert_eq!(
            after["Containers"],
            serde_json::json!({}),
            "its sandboxes ended"
        );
        world.check_networks();
        world.line("start box").ok();
        assert_eq!(world.address_on("box", "mynet", false), address);
        assert!(world.pings("box", "172.31.1.1"));
        world.mossnet(["rm", "-f", "box"]).ok();
        world.network("rm mynet").ok();
    });
}
