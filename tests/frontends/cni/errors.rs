//! What is refused, with which code, and that nothing is left of it.

use super::{PLUGIN, Runtime, Said};
use crate::frontends::{Guest, Owner};
use crate::world::{World, inspect};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;

#[test]
fn every_error_has_its_code() {
    World::test(|world| {
        let runtime = Runtime::new(world);
        world.line("network create --subnet 172.31.7.0/24 lab").ok();
        let guest = Guest::start(world, "guest", Owner::Ours);
        let netns = guest.netns();
        // Whatever comes with the first container is there.
        runtime.add("one", &guest, &json!({})).ok();
        runtime.del("one", &netns).ok();
        let before = world.settled();
        wrong_variables(&runtime, &netns);
        wrong_configurations(&runtime, &netns);
        wrong_namespaces(&runtime, &netns);
        assert_eq!(before, world.settled(), "something is left");
        guest.end();
    });
}

fn variables<'a>(
    command: &'a str,
    id: &'a str,
    netns: &'a str,
    ifname: &'a str,
) -> [(&'static str, &'a str); 4] {
    [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", id),
        ("CNI_NETNS", netns),
        ("CNI_IFNAME", ifname),
    ]
}

fn wrong_variables(runtime: &Runtime, netns: &str) {
    let good = runtime.config(&json!({}));
    for (variables, word) in [
        (variables("", "one", netns, "eth0"), "CNI_COMMAND"),
        (variables("add", "one", netns, "eth0"), "add"),
        (
            variables("ADD", "", netns, ""),
            "CNI_CONTAINERID, CNI_IFNAME",
        ),
        (variables("ADD", "one", "", "eth0"), "CNI_NETNS"),
        (variables("CHECK", "one", "", "eth0"), "CNI_NETNS"),
        (variables("DEL", "", "", "eth0"), "CNI_CONTAINERID"),
        (variables("ADD", "../one", netns, "eth0"), "CNI_CONTAINERID"),
        (variables("ADD", "one", netns, "a/b"), "CNI_IFNAME"),
    ] {
        runtime
            .exec(PLUGIN, &variables, good.to_string())
            .refused(4, word);
    }
}

fn wrong_configurations(runtime: &Runtime, netns: &str) {
    let usual = variables("ADD", "one", netns, "eth0");
    let good = runtime.config(&json!({}));
    let whole = good.to_string();
    for text in ["", "{", "null", "[1]", &whole[..40], r#"{"cniVersion": 1}"#] {
        runtime.exec(PLUGIN, &usual, text).refused(6, "malformed");
    }
    let long = format!("{}{}", " ".repeat(10 << 20), good);
    runtime.exec(PLUGIN, &usual, long).refused(6, "longer");
    for (keys, code, word) in [
        (json!({"cniVersion": "0.2.0"}), 1, "0.2.0"),
        (json!({"cniVersion": "9.0.0"}), 1, "9.0.0"),
        (json!({"name": ""}), 7, "name"),
        (json!({"name": "a/b", "ranges": []}), 7, "a/b"),
        (json!({"ranges": "x"}), 6, "malformed"),
        (
            json!({"runtimeConfig": {"bandwidth": {"egressRate": 5}}}),
            7,
            "bandwidth.egressRate: a rate must be",
        ),
        (json!({"runtimeConfig": {"mac": "x"}}), 7, "MAC"),
        (
            json!({"runtimeConfig": {"ips": ["10.9.9.9"]}}),
            7,
            "10.9.9.9",
        ),
        (json!({"runtimeConfig": {"aliases": ["a b"]}}), 7, "a b"),
        (json!({"prevResult": []}), 6, "prevResult"),
    ] {
        let config = runtime.config(&keys).to_string();
        runtime.exec(PLUGIN, &usual, config).refused(code, word);
    }
}

fn wrong_namespaces(runtime: &Runtime, netns: &str) {
    let good = runtime.config(&json!({}));
    let nowhere = variables("ADD", "one", "/nowhere", "eth0");
    runtime
        .exec(PLUGIN, &nowhere, good.to_string())
        .refused(3, "/nowhere");
    let wrong = variables("ADD", "one", "/dev/null", "eth0");
    runtime
        .exec(PLUGIN, &wrong, good.to_string())
        .refused(7, "not a network namespace");
    let check = variables("CHECK", "one", netns, "eth0");
    runtime
        .exec(PLUGIN, &check, good.to_string())
        .refused(7, "prevResult");
    let config = runtime.config(&json!({"prevResult": {}})).to_string();
    runtime.exec(PLUGIN, &check, config).refused(3, "one");
    let sibling = Guest::start(runtime.world, "sibling", Owner::Sibling);
    let theirs = sibling.netns();
    let theirs = variables("ADD", "one", &theirs, "eth0");
    let error = runtime
        .exec(PLUGIN, &theirs, good.to_string())
        .refused(5, "Permission denied");
    assert!(
        error["details"]
            .as_str()
            .is_some_and(|d| d.contains("mossnet unshare")),
        "{error}"
    );
    sibling.end();
}

#[test]
fn without_a_daemon() {
    World::test(|world| {
        let _ = symlink("mossnet", PLUGIN);
        let config = json!({"cniVersion": "1.1.0", "name": "lab", "type": "mossnet-cni"});
        let with = |command: &str, config: &Value| {
            let variable = format!("CNI_COMMAND={command}");
            let env = ["env", "MOSSNET_ROOT=/run/world/root", &variable];
            let names = [
                "CNI_CONTAINERID=one",
                "CNI_IFNAME=eth0",
                "CNI_NETNS=/proc/self/ns/net",
            ];
            let output = world.user(env).then(names).then([PLUGIN]);
            let output = output.stdin(config.to_string()).run();
            Said {
                code: output.code,
                text: output.stdout,
            }
        };
        let call = |command: &str| with(command, &config);
        call("STATUS").refused(50, "no mossnet daemon runs");
        call("ADD").refused(11, "no mossnet daemon runs");
        // There never was one: there is nothing to remove, unless the runtime knows better.
        call("DEL").ok();
        let mut added = config.clone();
        added["prevResult"] = json!({"interfaces": [{"name": "ve-0123"}]});
        with("DEL", &added).refused(11, "no mossnet daemon runs");
        world.line("ps").ok();
        call("STATUS").ok();
        // Not inside `mossnet unshare`: the host's own namespace.
        call("ADD").refused(7, "user namespace");
        assert!(
            !world.network_names().contains("lab"),
            "the network is taken back"
        );
        inspect::kill_hard(&[inspect::the("daemon")]);
        call("DEL").refused(11, "no mossnet daemon runs");
        world.line("ps").ok();
        call("DEL").ok();
    });
}
