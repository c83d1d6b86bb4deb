//! Capability `bandwidth`: both directions are held to it, as iperf3 sees it, and `CHECK` notices where not.

use super::*;
use crate::world::rates::{is_held_to, rate};
use crate::world::{Cmd, installed};

const MBIT: f64 = 1e6;

#[test]
fn both_directions_are_held_to_their_rates() {
    World::builder().deadline(180).test(|world| {
        if !installed("iperf3") || !installed("tc") {
            return;
        }
        let runtime = Runtime::new(world);
        let (one, two) = (
            Guest::start(world, "one", Owner::Ours),
            Guest::start(world, "two", Owner::Below),
        );
        let limits = json!({"ingressRate": 20_000_000, "ingressBurst": 400_000,
            "egressRate": 8_000_000, "egressBurst": 400_000});
        let keys = json!({"runtimeConfig": {"bandwidth": limits}});
        let result = runtime.add("one", &one, &keys).ok();
        let other = address(&runtime.add("two", &two, &json!({})).ok());
        let measure = |options: &str| rate(inside(&two), inside(&one), &other, options);
        is_held_to(8.0 * MBIT, || measure(""));
        is_held_to(20.0 * MBIT, || measure("-R"));
        runtime.check("one", &one, &result, &keys).ok();
        checked(&runtime, &one, &result, &keys);
        for (id, guest) in [("one", one), ("two", two)] {
            runtime.del(id, &guest.netns()).ok();
            guest.end();
        }
        runtime.nothing_is_left();
        assert!(inspect::router_interfaces("if-").is_empty());
    });
}

fn inside(guest: &Guest) -> Cmd {
    guest.run("env")
}

fn checked(runtime: &Runtime, guest: &Guest, result: &Value, keys: &Value) {
    let mut other = keys.clone();
    other["runtimeConfig"]["bandwidth"]["egressRate"] = 9_000_000.into();
    let drifted = |keys: &Value, word: &str| {
        let said = runtime.check("one", guest, result, keys);
        said.refused(101, word);
    };
    drifted(&other, "added with 8mbit egress limit, not 9mbit");
    drifted(&json!({}), "added with 20mbit ingress limit, not no");
    let links: Vec<_> = inspect::router_interfaces("if-").into_iter().collect();
    let [turnaround] = &links[..] else {
        panic!("one endpoint is limited: {links:?}");
    };
    let tc = |words: &str| inspect::in_router(["tc", "qdisc"]).then(words.split(' '));
    tc(&format!("del dev {turnaround} root")).ok();
    drifted(keys, "not held to its egress limit of 8mbit");
    let port = turnaround.replacen("if-", "ve-", 1);
    tc(&format!(
        "replace dev {port} root tbf rate 1gbit burst 1mb latency 1s"
    ))
    .ok();
    drifted(keys, "not held to its ingress limit of 20mbit");
}
