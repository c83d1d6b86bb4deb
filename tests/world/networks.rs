//! Networks of the world: words that tests about them share, and all that can be known about them.

use super::{Cmd, Output, World, eventually, inspect, seconds};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

/// One word for each space, none quoted.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(' ').filter(|word| !word.is_empty())
}

impl World {
    /// `mossnet LINE`.
    pub fn line(&self, line: &str) -> Cmd {
        self.mossnet(words(line))
    }

    /// `mossnet network LINE`.
    pub fn network(&self, line: &str) -> Cmd {
        self.mossnet(["network"]).then(words(line))
    }

    /// `mossnet run -d --name NAME OPTIONS -- sleep`, to its success.
    #[track_caller]
    pub fn sleeper(&self, name: &str, options: &str) {
        let head = ["run", "-d", "--name", name];
        let tail = ["--", "sleep", "100000"];
        self.mossnet(head).then(words(options)).then(tail).ok();
    }

    /// `mossnet exec NAME -- sh -c SCRIPT`.
    pub fn within(&self, name: &str, script: &str) -> Cmd {
        self.mossnet(["exec", name, "--", "sh", "-c", script])
    }

    /// `mossnet exec NAME -- python3 -c SCRIPT`.
    pub fn python(&self, name: &str, script: &str) -> Cmd {
        self.mossnet(["exec", name, "--", "python3", "-c", script])
    }

    /// `mossnet network inspect NAME`, its one element.
    #[track_caller]
    pub fn network_info(&self, name: &str) -> Value {
        let text = self.mossnet(["network", "inspect", name]).ok();
        let all: Value = serde_json::from_str(&text).expect("JSON from network inspect");
        assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
        all[0].clone()
    }

    /// The endpoint of a sandbox on a network.
    #[track_caller]
    pub fn endpoint(&self, sandbox: &str, network: &str) -> Value {
        let info = self.inspect(sandbox);
        let endpoints = info["Endpoints"].as_array().cloned().unwrap_or_default();
        let found = endpoints.into_iter().find(|e| e["Network"] == network);
        found.unwrap_or_else(|| panic!("{sandbox} is not on {network}: {info:#}"))
    }

    /// An address of a sandbox on a network, without prefix length.
    #[track_caller]
    pub fn address_on(&self, sandbox: &str, network: &str, ipv6: bool) -> String {
        let endpoint = self.endpoint(sandbox, network);
        let addresses = endpoint["Addresses"].as_array().into_iter().flatten();
        let texts = addresses.filter_map(|address| address.as_str());
        let bare = texts.filter_map(|text| text.split('/').next());
        let mut wanted = bare.filter(|text| text.contains(':') == ipv6);
        let found = wanted.next().map(str::to_owned);
        found.unwrap_or_else(|| panic!("no such address in {endpoint}"))
    }

    /// Names of the networks that `network ls` shows.
    #[track_caller]
    pub fn network_names(&self) -> BTreeSet<String> {
        let names = self
            .mossnet(["network", "ls", "--format", "{{.Name}}"])
            .ok();
        names.lines().map(str::to_owned).collect()
    }

    /// True if one ping from inside a sandbox is answered within a second.
    #[track_caller]
    pub fn pings(&self, sandbox: &str, target: &str) -> bool {
        let argv = [
            "exec", sandbox, "--", "ping", "-c1", "-i0.5", "-w2", "-n", target,
        ];
        self.mossnet(argv).run().code == 0
    }

    /// What a sandbox is told by `dig +short LINE`, such as `box A`.
    #[track_caller]
    pub fn dig(&self, sandbox: &str, line: &str) -> BTreeSet<String> {
        let head = [
            "exec", sandbox, "--", "dig", "+short", "+time=5", "+tries=3",
        ];
        let answer = self.mossnet(head).then(words(line)).ok();
        // Where only a later try was answered, it says so before.
        let records = answer.lines().filter(|line| !line.starts_with(';'));
        records.map(str::to_owned).collect()
    }

    /// The default route of a sandbox, IPv4: gateway and interface.
    #[track_caller]
    pub fn default_route(&self, sandbox: &str) -> Option<(IpAddr, String)> {
        let argv = [
            "exec", sandbox, "--", "ip", "-j", "-4", "route", "show", "default",
        ];
        let routes = self.mossnet(argv).ok();
        let routes: Value = serde_json::from_str(&routes).expect("JSON from ip");
        let all = routes.as_array().expect("a list");
        assert!(all.len() < 2, "several default routes: {routes}");
        let route = all.first()?;
        let gateway = route["gateway"].as_str()?.parse().ok()?;
        Some((gateway, route["dev"].as_str()?.to_owned()))
    }

    /// Router sides of all endpoints that are recorded.
    #[track_caller]
    pub fn recorded_interfaces(&self) -> BTreeSet<String> {
        let listed = self.mossnet(["ps", "-a", "-q"]).ok();
        let ids: Vec<_> = listed.lines().collect();
        if ids.is_empty() {
            return BTreeSet::new();
        }
        // One that goes meanwhile makes it fail; the others are told all the same.
        let text = self.mossnet(["inspect"]).then(&ids).run().stdout;
        let all: Value = serde_json::from_str(&text).unwrap_or_default();
        let sandboxes = all.as_array().into_iter().flatten();
        let endpoints =
            sandboxes.flat_map(|sandbox| sandbox["Endpoints"].as_array().into_iter().flatten());
        let names = endpoints.filter_map(|endpoint| endpoint["RouterIfname"].as_str());
        names.map(str::to_owned).collect()
    }

    /// Fails the test unless what is recorded of networks and endpoints is what the kernel has.
    #[track_caller]
    pub fn check_networks(&self) {
        let deadline = Instant::now() + super::seconds(5);
        loop {
            let found = self.contradictions();
            if found.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "record and kernel differ: {found:#?}"
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        let names: Vec<_> = self.network_names().into_iter().collect();
        let text = self
            .mossnet(["network", "inspect"])
            .then(&names)
            .run()
            .stdout;
        let networks: Value = serde_json::from_str(&text).unwrap_or_default();
        let networks: Vec<&Value> = networks.as_array().into_iter().flatten().collect();
        let kernel = inspect::router_interfaces("br-");
        let bridge = |network: &Value| network["Bridge"].as_str().map(str::to_owned);
        let recorded: BTreeSet<String> = networks
            .iter()
            .filter_map(|network| bridge(network))
            .collect();
        found.extend(
            kernel
                .difference(&recorded)
                .map(|name| format!("bridge of no network: {name}")),
        );
        for network in &networks {
            let members = network["Containers"]
                .as_object()
                .map_or(0, serde_json::Map::len);
            let there = bridge(network).is_some_and(|name| kernel.contains(&name));
            if members > 0 && !there {
                found.push(format!(
                    "{} has {members} members and no bridge",
                    network["Name"]
                ));
            }
        }
        let members: usize = networks
            .iter()
            .filter_map(|network| network["Containers"].as_object())
            .map(serde_json::Map::len)
            .sum();
        let (ours, theirs) = (
            self.recorded_interfaces(),
            inspect::router_interfaces("ve-"),
        );
        found.extend(
            ours.difference(&theirs)
                .map(|name| format!("endpoint without an interface: {name}")),
        );
        found.extend(
            theirs
                .difference(&ours)
                .map(|name| format!("interface of no endpoint: {name}")),
        );
        if members != ours.len() {
            found.push(format!(
                "networks have {members} members, sandboxes {} endpoints",
                ours.len()
            ));
        }
        found
    }

    /// All that a refused command must leave as it was.
    #[track_caller]
    pub fn snapshot(&self) -> Snapshot {
        let names = self.network_names();
        let ids = self.mossnet(["ps", "-a", "-q"]).ok();
        let mut snapshot = Snapshot {
            networks: self.mossnet(["network", "inspect"]).then(&names).ok(),
            sandboxes: String::new(),
            links: String::new(),
        };
        if !ids.is_empty() {
            snapshot.sandboxes = self.mossnet(["inspect"]).then(ids.lines()).ok();
        }
        if inspect::router_netns().is_some() {
            let links = inspect::in_router(["ip", "-j", "-d", "addr"]).ok();
            snapshot.links = stable_links(&links);
        }
        snapshot
    }

    /// The snapshot when nothing goes on any more: what an ended sandbox leaves goes after the command
    /// that ended it.
    #[track_caller]
    pub fn settled(&self) -> Snapshot {
        let mut last = self.snapshot();
        eventually(seconds(20), "the kernel's objects stay the same", || {
            let next = self.snapshot();
            let same = next == last;
            last = next;
            same
        });
        last
    }

    /// Fails the test unless `line` is refused in one clear line that has `word`, and changes nothing.
    #[track_caller]
    pub fn refuses(&self, line: &str, word: &str) -> Output {
        let before = self.settled();
        let refused = self.refused(line, word);
        assert_eq!(before, self.snapshot(), "{line} changed something");
        refused
    }

    /// The same of many, each a line and its word.
    #[track_caller]
    pub fn refuses_each<L: AsRef<str>>(&self, cases: impl IntoIterator<Item = (L, &'static str)>) {
        let before = self.settled();
        for (line, word) in cases {
            self.refused(line.as_ref(), word);
            assert_eq!(
                before,
                self.snapshot(),
                "{} changed something",
                line.as_ref()
            );
        }
    }

    #[track_caller]
    fn refused(&self, line: &str, word: &str) -> Output {
        let refused = self.line(line).run();
        assert!(refused.code != 0, "accepted: {refused}");
        refused.expect_text(word).expect_one_clear_line()
    }
}

/// See [`World::snapshot`].
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    networks: String,
    sandboxes: String,
    links: String,
}

/// Name, MTU, master, whether it is up, and addresses of each link. What counts or ages is left out,
/// and what follows by itself, some time later: whether others are at its ends (`operstate`), and
/// link-local addresses.
fn stable_links(json: &str) -> String {
    let links: Value = serde_json::from_str(json).expect("JSON from ip");
    let links = links.as_array().expect("a list").iter().map(|link| {
        let addresses = link["addr_info"].as_array().into_iter().flatten();
        let given = addresses.filter(|address| address["scope"] != "link");
        let addresses: Vec<_> = given.map(|a| a["local"].to_string()).collect();
        let facts = ["ifname", "mtu", "master", "address"].map(|key| link[key].to_string());
        let flags = link["flags"].as_array().into_iter().flatten();
        let up = flags.filter(|flag| *flag == "UP").count();
        format!("{} {up} {}\n", facts.join(" "), addresses.join(","))
    });
    links.collect()
}
