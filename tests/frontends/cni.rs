//! The CNI plugin, driven by a small client written against the specification, as a runtime inside
//! `mossnet unshare` drives it.

mod crash;
mod errors;
mod limits;

use super::{Guest, HOST, Owner, ask, tell_peer};
use crate::world::{SERVER, World, eventually, inspect, seconds, servers};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;

const PLUGIN: &str = "/run/world/bin/mossnet-cni";
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Where Debian keeps the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

/// A runtime.
struct Runtime<'a> {
    world: &'a World,
    version: &'static str,
}

/// What a plugin said.
#[derive(Debug)]
struct Said {
    code: i32,
    text: String,
}

impl Said {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    fn ok(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        if self.text.is_empty() {
            return Value::Null;
        }
        self.json()
    }

    /// One JSON error of this code, with this word in it.
    #[track_caller]
    fn refused(&self, code: u32, word: &str) -> Value {
        let error = self.json();
        assert_ne!(self.code, 0, "{self:?}");
        assert_eq!(error["code"], code, "{self:?}");
        assert!(
            error["msg"].as_str().is_some_and(|m| m.contains(word)),
            "{self:?}"
        );
        assert!(VERSIONS.contains(&error["cniVersion"].as_str().expect("a version")));
        error
    }
}

impl<'a> Runtime<'a> {
    fn new(world: &'a World) -> Self {
        let _ = symlink("mossnet", PLUGIN);
        world.line("ps").ok();
        Self {
            world,
            version: "1.1.0",
        }
    }

    /// A configuration of network `lab` with these keys besides.
    fn config(&self, keys: &Value) -> Value {
        let mut config = json!({
            "cniVersion": self.version, "name": "lab", "type": "mossnet-cni",
            "ranges": [[{"subnet": "172.31.7.0/24"}]],
        });
        for (key, value) in keys.as_object().expect("keys") {
            config[key] = value.clone();
        }
        config
    }

    fn exec(&self, plugin: &str, variables: &[(&str, &str)], input: impl Into<Vec<u8>>) -> Said {
        let variables = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let env = ["unshare", "env", "CNI_PATH=/usr/lib/cni"];
        let command = self.world.mossnet(env).then(variables).then([plugin]);
        let output = command.stdin(input).run();
        assert!(output.stderr.is_empty(), "{output}");
        Said {
            code: output.code,
            text: output.stdout,
        }
    }

    fn call(&self, command: &str, id: &str, netns: &str, config: &Value) -> Said {
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", id),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web"),
        ];
        self.exec(PLUGIN, &variables, config.to_string())
    }

    fn add(&self, id: &str, guest: &Guest, keys: &Value) -> Said {
        self.call("ADD", id, &guest.netns(), &self.config(keys))
    }

    fn del(&self, id: &str, netns: &str) -> Said {
        self.call("DEL", id, netns, &self.config(&json!({})))
    }

    /// After an `ADD` with this result.
    fn check(&self, id: &str, guest: &Guest, result: &Value, keys: &Value) -> Said {
        let mut config = self.config(keys);
        config["prevResult"] = result.clone();
        self.call("CHECK", id, &guest.netns(), &config)
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        assert_eq!(self.world.line("ps -aq").ok(), "");
        assert!(inspect::router_interfaces("ve-").is_empty());
    }
}

fn address(result: &Value) -> String {
    let net = result["ips"][0]["address"].as_str().expect("an address");
    net.split('/').next().expect("an address").to_owned()
}

#[test]
fn every_version_is_spoken() {
    World::test(|world| {
        let mut runtime = Runtime::new(world);
        let guest = Guest::start(world, "guest", Owner::Ours);
        for version in VERSIONS {
            runtime.version = version;
            let asked = json!({"cniVersion": version}).to_string();
            let said = runtime
                .exec(PLUGIN, &[("CNI_COMMAND", "VERSION")], asked)
                .ok();
            assert_eq!(said["cniVersion"], version);
            assert_eq!(said["supportedVersions"], json!(VERSIONS));

            let result = runtime.add("one", &guest, &json!({})).ok();
            assert_eq!(result["cniVersion"], version);
            let family = matches!(version, "0.3.0" | "0.3.1" | "0.4.0").then_some("4");
            let shown = result["ips"][0]["version"].as_str();
            assert_eq!(shown, family, "{result}");
            let index = result["ips"][0]["interface"].as_u64().expect("an index") as usize;
            let interface = &result["interfaces"][index];
            assert_eq!(interface["name"], "eth0");
            assert_eq!(interface["sandbox"], guest.netns());
            assert_eq!(interface["mtu"].is_number(), version == "1.1.0", "{result}");
            assert_eq!(
                result["routes"],
                json!([{"dst": "0.0.0.0/0", "gw": "172.31.7.1"}])
            );
            assert_eq!(result["dns"]["nameservers"], json!(["172.31.7.1"]));
            let shown = guest.run("ip -o addr show eth0").ok();
            assert!(shown.contains(result["ips"][0]["address"].as_str().expect("one")));

            let check = runtime.check("one", &guest, &result, &json!({}));
            match version {
                "0.3.0" | "0.3.1" => drop(check.refused(1, "CHECK")),
                _ => drop(check.ok()),
            }
            for command in ["GC", "STATUS"] {
                let keys = json!({"cni.dev/valid-attachments": [{"containerID": "one", "ifname": "eth0"}]});
                let config = runtime.config(&keys).to_string();
                let said = runtime.exec(PLUGIN, &[("CNI_COMMAND", command)], config);
                match version {
                    "1.1.0" => drop(said.ok()),
                    _ => drop(said.refused(1, command)),
                }
            }
            // As often as the runtime likes, with and without what it may leave out.
            runtime.del("one", &guest.netns()).ok();
            runtime.del("one", &guest.netns()).ok();
            runtime.del("one", "").ok();
            runtime.del("one", "/nowhere").ok();
            runtime.nothing_is_left();
        }
        guest.end();
    });
}

#[test]
fn containers_are_reached_by_name_and_by_port() {
    World::test(|world| {
        let runtime = Runtime::new(world);
        servers::tcp("server", 80, tell_peer);
        let (one, two) = (
            Guest::start(world, "one", Owner::Ours),
            Guest::start(world, "two", Owner::Below),
        );
        let keys = json!({"runtimeConfig": {
            "ips": ["172.31.7.50/24"], "mac": "02:00:00:00:00:50", "aliases": {"lab": ["db"]},
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
            "dns": {"servers": ["9.9.9.9"], "searches": ["example"]},
        }});
        let result = runtime.add("one", &one, &keys).ok();
        assert_eq!(address(&result), "172.31.7.50");
        assert_eq!(result["dns"]["nameservers"], json!(["9.9.9.9"]));
        assert_eq!(result["dns"]["search"], json!(["example"]));
        let link = one.run("ip -o link show eth0").ok();
        assert!(link.contains("02:00:00:00:00:50"), "{link}");
        let other = runtime.add("two", &two, &json!({})).ok();
        assert!(one.pings(&address(&other)) && two.pings("172.31.7.50"));
        for name in ["db", "web"] {
            let found = two
                .run(&format!("dig +short +tries=2 @172.31.7.1 {name}"))
                .ok();
            assert!(found.contains("172.31.7.50"), "{name}: {found}");
        }
        assert!(ask("one", &format!("{SERVER}:80")).is_some(), "the way out");
        servers::tcp("one", 80, tell_peer);
        let (seen, own) = ask("server", &format!("{HOST}:8080")).expect("an answer");
        assert_eq!(seen, own, "the container sees its client");
        runtime.check("one", &one, &result, &keys).ok();

        // Taken: nothing is left of the one that fails.
        let three = Guest::start(world, "three", Owner::Ours);
        let taken = runtime.add("three", &three, &keys);
        taken.refused(100, "8080");
        runtime.add(
            "three",
            &three,
            &json!({"runtimeConfig": {"ips": ["10.0.0.1"]}}),
        );
        assert_eq!(three.run("ip -o link").ok().lines().count(), 1);
        assert_eq!(world.line("netns ls -q").ok().lines().count(), 2);

        runtime.del("one", &one.netns()).ok();
        assert!(ask("server", &format!("{HOST}:8080")).is_none());
        // Its process may be gone before.
        let netns = two.netns();
        two.end();
        runtime.del("two", &netns).ok();
        runtime.nothing_is_left();
        one.end();
        three.end();
    });
}

#[test]
fn several_networks_are_one_container() {
    World::test(|world| {
        let runtime = Runtime::new(world);
        let guest = Guest::start(world, "guest", Owner::Ours);
        let ports = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80}]});
        let first = runtime.config(&json!({"runtimeConfig": ports}));
        let mut second = first.clone();
        second["name"] = "second".into();
        second["ranges"] = json!([
            [{"subnet": "172.31.8.0/24", "gateway": "172.31.8.254", "rangeStart": "172.31.8.64", "rangeEnd": "172.31.8.127"}],
            [{"subnet": "fd00:8::/64"}],
        ]);
        let call = |command: &str, ifname: &str, config: &Value| {
            let variables = [
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", "pod"),
                ("CNI_NETNS", &guest.netns()),
                ("CNI_IFNAME", ifname),
            ];
            runtime.exec(PLUGIN, &variables, config.to_string())
        };
        call("ADD", "eth0", &first).ok();
        let result = call("ADD", "net1", &second).ok();
        assert_eq!(address(&result), "172.31.8.64");
        assert_eq!(result["ips"].as_array().map(Vec::len), Some(2), "{result}");
        assert_eq!(result["ips"][0]["gateway"], "172.31.8.254");
        assert_eq!(
            result["routes"],
            json!([{"dst": "::/0", "gw": "fd00:8::1"}])
        );
        second["prevResult"] = result.clone();
        call("CHECK", "net1", &second).ok();
        call("ADD", "net2", &first).refused(100, "already");
        // Of another interface than the attachment's.
        call("DEL", "net2", &first).ok();
        servers::tcp("guest", 80, tell_peer);
        assert!(ask("server", &format!("{HOST}:8080")).is_some());
        call("DEL", "eth0", &first).ok();
        assert!(ask("server", &format!("{HOST}:8080")).is_some());
        let links = guest.run("ip -o link").ok();
        assert!(links.contains("net1") && !links.contains("eth0"), "{links}");
        call("DEL", "net1", &second).ok();
        runtime.nothing_is_left();

        let mut other = second.clone();
        other["ranges"] = json!([[{"subnet": "172.31.8.0/24", "gateway": "172.31.8.1"}]]);
        call("ADD", "eth0", &other).refused(7, "172.31.8.254");
        other["ranges"] = json!([[{"subnet": "172.31.9.0/24"}]]);
        call("ADD", "eth0", &other).refused(7, "172.31.9.0/24");
        runtime.nothing_is_left();
        guest.end();
    });
}

#[test]
fn drift_is_noticed() {
    World::test(|world| {
        let runtime = Runtime::new(world);
        let guest = Guest::start(world, "guest", Owner::Ours);
        let keys =
            json!({"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}});
        let result = runtime.add("one", &guest, &keys).ok();
        let check = || runtime.check("one", &guest, &result, &keys);
        check().ok();
        let net = result["ips"][0]["address"]
            .as_str()
            .expect("an address")
            .to_owned();
        for (spoil, mend, word) in [
            (
                "ip route del default",
                "ip route add default via 172.31.7.1",
                "default route",
            ),
            ("ip link set eth0 down", "ip link set eth0 up", "down"),
        ] {
            guest.run(spoil).ok();
            check().refused(101, word);
            guest.run(mend).ok();
            guest.run("ip route replace default via 172.31.7.1").ok();
            eventually(seconds(10), "it is well again", || check().code == 0);
        }
        guest.run(&format!("ip addr del {net} dev eth0")).ok();
        check().refused(101, "lost its address");
        guest.run(&format!("ip addr add {net} dev eth0")).ok();
        guest.run("ip route replace default via 172.31.7.1").ok();
        world.line("port rm cni-one 8080:80").ok();
        check().refused(101, "8080:80/tcp");
        world.line("port add cni-one 8080:80").ok();
        check().ok();
        let mut other = result.clone();
        other["ips"][0]["address"] = "172.31.7.99/24".into();
        runtime
            .check("one", &guest, &other, &keys)
            .refused(101, "172.31.7");
        guest.run("ip link del eth0").ok();
        check().refused(101, "gone");
        runtime.del("one", &guest.netns()).ok();
        check().refused(3, "one");
        runtime.nothing_is_left();
        guest.end();
    });
}

#[test]
fn what_nobody_lists_is_collected() {
    World::test(|world| {
        let runtime = Runtime::new(world);
        let guests = ["a", "b", "c"].map(|name| Guest::start(world, name, Owner::Ours));
        for guest in &guests {
            runtime.add(&guest.name, guest, &json!({})).ok();
        }
        let mut elsewhere = runtime.config(&json!({"ranges": [[{"subnet": "172.31.8.0/24"}]]}));
        elsewhere["name"] = "second".into();
        let variables = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "b"),
            ("CNI_NETNS", &guests[1].netns()),
            ("CNI_IFNAME", "net1"),
        ];
        runtime.exec(PLUGIN, &variables, elsewhere.to_string()).ok();
        world.line("netns create own --network lab").ok();
        let gc = |valid: Value| {
            let config = runtime.config(&json!({"cni.dev/valid-attachments": valid}));
            runtime.exec(PLUGIN, &[("CNI_COMMAND", "GC")], config.to_string())
        };
        // One is listed, one by another interface; what another configuration has made is not its affair.
        gc(json!([{"containerID": "a", "ifname": "eth0"}, {"containerID": "c", "ifname": "net1"}]))
            .ok();
        let listed = world.line("netns ls --format {{.Name}}").ok();
        let mut names: Vec<&str> = listed.lines().collect();
        names.sort_unstable();
        assert_eq!(names, ["cni-a", "cni-b", "own"]);
        let links = guests[1].run("ip -o link").ok();
        assert!(links.contains("net1") && !links.contains("eth0"), "{links}");
        runtime
            .exec(
                PLUGIN,
                &[("CNI_COMMAND", "GC")],
                runtime.config(&json!({})).to_string(),
            )
            .refused(7, "valid-attachments");
        gc(json!([])).ok();
        gc(json!([])).ok();
        elsewhere["cni.dev/valid-attachments"] = json!([]);
        runtime
            .exec(PLUGIN, &[("CNI_COMMAND", "GC")], elsewhere.to_string())
            .ok();
        world.line("netns rm own").ok();
        runtime.nothing_is_left();
        guests.into_iter().for_each(Guest::end);
    });
}

fn installed_plugins() -> bool {
    let there = std::path::Path::new(REFERENCE).join("bandwidth").exists();
    if !there {
        let strict = std::env::var_os(crate::world::enter::STRICT).is_some();
        assert!(!strict, "the reference CNI plugins are missing");
        crate::world::enter::skip("the reference CNI plugins are not installed");
    }
    there
}

/// They find our interface, on both sides.
fn reference_plugins(runtime: &Runtime, guest: &Guest, result: &Value) {
    let rates = json!({"bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000}});
    for (plugin, keys, line, shown) in [
        (
            "tuning",
            json!({"mtu": 1400}),
            "ip -o link show eth0",
            "mtu 1400",
        ),
        ("bandwidth", json!({"runtimeConfig": rates}), "", "tbf"),
    ] {
        let mut config = runtime.config(&keys);
        config["type"] = plugin.into();
        config["cniVersion"] = "1.0.0".into();
        config["prevResult"] = result.clone();
        config["prevResult"]["cniVersion"] = "1.0.0".into();
        let variables = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "one"),
            ("CNI_NETNS", &guest.netns()),
            ("CNI_IFNAME", "eth0"),
        ];
        let program = format!("{REFERENCE}/{plugin}");
        let said = runtime.exec(&program, &variables, config.to_string()).ok();
        assert_eq!(
            said["interfaces"].as_array().map(Vec::len),
            Some(4),
            "{said}"
        );
        let seen = match line {
            "" => inspect::in_router(["tc", "qdisc"]).ok(),
            line => guest.run(line).ok(),
        };
        assert!(seen.contains(shown), "{seen}");
    }
}

#[test]
fn plugins_are_chained() {
    World::test(|world| {
        let runtime = Runtime::new(world);
        let guest = Guest::start(world, "guest", Owner::Ours);
        // After another: what that said stays.
        let before = json!({"cniVersion": "1.1.0",
            "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": guest.netns()}],
            "ips": [{"address": "127.0.0.1/8", "interface": 0}]});
        let result = runtime
            .add("one", &guest, &json!({"prevResult": before}))
            .ok();
        assert_eq!(result["interfaces"][0], before["interfaces"][0]);
        assert_eq!(result["ips"][0], before["ips"][0]);
        runtime.check("one", &guest, &result, &json!({})).ok();
        // Before another: the reference plugin finds our interface.
        if installed_plugins() {
            reference_plugins(&runtime, &guest, &result);
        }
        runtime.del("one", &guest.netns()).ok();
        runtime.nothing_is_left();
        guest.end();
    });
}

/// As a runtime takes it: each plugin with name and version of the list.
#[test]
fn the_example_works() {
    let list: Value = serde_json::from_str(include_str!("../../contrib/cni/mossnet.conflist"))
        .expect("the example is JSON");
    let hook: Value = serde_json::from_str(include_str!("../../contrib/oci/mossnet.json"))
        .expect("the example is JSON");
    assert_eq!(hook["stages"], json!(["createRuntime", "poststop"]));
    World::test(|world| {
        let runtime = Runtime::new(world);
        let guest = Guest::start(world, "guest", Owner::Ours);
        let mut config = list["plugins"][0].clone();
        config["cniVersion"] = list["cniVersion"].clone();
        config["name"] = list["name"].clone();
        let result = runtime.call("ADD", "one", &guest.netns(), &config).ok();
        assert_eq!(address(&result), "10.90.0.2");
        runtime.call("DEL", "one", &guest.netns(), &config).ok();
        runtime.nothing_is_left();
        guest.end();
    });
}
