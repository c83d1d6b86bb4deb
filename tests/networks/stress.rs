//! Twenty clients at once: no address twice, no network lost, no deadlock.

use crate::world::{World, inspect, seconds};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const CLIENTS: usize = 20;
const ACTS: usize = 25;
const NETWORKS: u64 = 6;
const SANDBOXES: u64 = 12;

/// Why an act may be refused while others act: said in these words.
const EXCUSES: [&str; 12] = [
    "already",
    "in use",
    "no such",
    "No such",
    "there is no",
    "not connected",
    "not found",
    "does not run",
    "is not running",
    "ended meanwhile",
    "was removed meanwhile",
    "being",
];

/// Numbers that look random; each client has its own row of them.
fn next(state: &mut u64, limit: u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % limit
}

/// One random act.
fn act(state: &mut u64) -> String {
    let network = format!("net{}", next(state, NETWORKS));
    let sandbox = format!("box{}", next(state, SANDBOXES));
    match next(state, 12) {
        0 | 1 => format!("network create {network}"),
        2 => format!("network rm {network}"),
        3 | 4 => format!("netns create {sandbox} --network {network} --network bridge"),
        5 => format!("run -d --name {sandbox} --network {network} -- sleep 100000"),
        6 | 7 => format!("network connect {network} {sandbox}"),
        8 | 9 => format!("network disconnect {network} {sandbox}"),
        10 => format!("rm -f {sandbox}"),
        _ => "network prune -f --filter label=never".to_owned(),
    }
}

/// Fails the test if a network shows one address or MAC for two members.
#[track_caller]
fn no_address_twice(networks: &Value) {
    for network in networks.as_array().expect("a list") {
        let mut owners: BTreeMap<String, &str> = BTreeMap::new();
        for member in network["Containers"].as_object().expect("members").values() {
            let name = member["Name"].as_str().expect("a name");
            for field in ["IPv4Address", "IPv6Address", "MacAddress"] {
                let value = member[field].as_str().unwrap_or_default();
                let other = owners.insert(value.to_owned(), name);
                assert!(
                    value.is_empty() || other.is_none(),
                    "{value}: {name} and {other:?} on {network:#}"
                );
            }
        }
    }
}

/// Every network there is at the moment; one that goes meanwhile is left out.
fn inspect_all(world: &World) -> Option<Value> {
    let names: Vec<String> = world.network_names().into_iter().collect();
    let output = world.mossnet(["network", "inspect"]).then(&names).run();
    (output.code == 0).then(|| serde_json::from_str(&output.stdout).expect("JSON"))
}

#[test]
fn twenty_clients_change_networks() {
    World::builder().deadline(280).test(|world| {
        world.sleeper("steady", "");
        let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
        let looks = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut looks = 0;
                while !over.load(Ordering::Relaxed) {
                    if let Some(all) = inspect_all(world) {
                        no_address_twice(&all);
                        looks += 1;
                    }
                }
                looks
            });
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let done = &done;
                    scope.spawn(move || {
                        let mut state = 77 + number as u64;
                        for _ in 0..ACTS {
                            let line = act(&mut state);
                            // Whoever waits for 40 s waits for ever.
                            let output = world.line(&line).timeout(seconds(40)).run();
                            let excused = EXCUSES.iter().any(|word| output.stderr.contains(word));
                            assert!(output.code == 0 || excused, "no good reason: {output}");
                            if output.code == 0 {
                                done.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    })
                })
                .collect();
            let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
            over.store(true, Ordering::Relaxed);
            let looks = watcher.join().expect("the watcher saw no address twice");
            for result in results {
                result.expect("a client");
            }
            looks
        });
        let done = done.load(Ordering::Relaxed);
        println!("{done} of {} acts succeeded, {looks} looks", CLIENTS * ACTS);
        assert!(
            done > CLIENTS * ACTS / 5 && looks > 3,
            "{done} acts, {looks} looks"
        );
        no_address_twice(&inspect_all(world).expect("networks"));
        world.check_networks();
        assert!(world.pings("steady", "10.89.0.1"), "who had no part in it");

        // All of it can be removed, and nothing is left.
        let all = world.mossnet(["ps", "-a", "-q"]).ok();
        let all: Vec<_> = all.lines().collect();
        world
            .mossnet(["rm", "-f"])
            .then(&all)
            .timeout(seconds(60))
            .ok();
        world.network("prune -f").ok();
        assert_eq!(world.network_names().len(), 3);
        assert!(inspect::router_interfaces("ve-").is_empty());
        world.check_networks();
    });
}

#[test]
fn the_same_address_at_once_goes_to_one() {
    World::test(|world| {
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        let names: Vec<String> = (0..10).map(|number| format!("box{number}")).collect();
        for name in &names {
            world
                .line(&format!("netns create {name} --network bridge"))
                .ok();
        }
        let running: Vec<_> = names
            .iter()
            .map(|name| {
                world
                    .network(&format!("connect --ip 172.31.1.50 mynet {name}"))
                    .start()
            })
            .collect();
        let outputs: Vec<_> = running.into_iter().map(|one| one.wait()).collect();
        let won = outputs.iter().filter(|output| output.code == 0).count();
        assert_eq!(won, 1, "{outputs:#?}");
        for output in outputs.into_iter().filter(|output| output.code != 0) {
            output.expect_text("172.31.1.50").expect_one_clear_line();
        }
        // Twenty creations without a subnet at once get twenty subnets.
        let running: Vec<_> = (0..20)
            .map(|n| world.network(&format!("create net{n}")).start())
            .collect();
        for one in running {
            one.wait().expect_code(0);
        }
        let all = inspect_all(world).expect("networks");
        let subnets: std::collections::BTreeSet<_> = all
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|network| network["IPAM"]["Config"][0]["Subnet"].as_str())
            .collect();
        assert_eq!(subnets.len(), 22, "{subnets:?}");
        world.mossnet(["rm", "-f"]).then(&names).ok();
        world.check_networks();
    });
}
