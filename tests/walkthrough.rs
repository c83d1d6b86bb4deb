//! The walkthrough of the README, step by step, with real processes.

use crate::world::dns::Dns;
use crate::world::{World, eventually, inspect, installed, seconds};
use serde_json::Value;

/// A sandbox by name, with what the steps do to it.
struct Sandbox<'w> {
    world: &'w World,
    name: &'static str,
}

impl<'w> Sandbox<'w> {
    /// `run -d FLAGS --name NAME -- sleep inf`.
    #[track_caller]
    fn run(world: &'w World, flags: &str, name: &'static str) -> Self {
        let line = format!("run -d {flags} --name {name} -- sleep inf");
        world.mossnet(line.split_whitespace()).ok();
        Self { world, name }
    }

    #[track_caller]
    fn exec(&self, argv: &str) -> String {
        let head = ["exec", self.name];
        let argv = head.into_iter().chain(argv.split_whitespace());
        self.world.mossnet(argv).ok()
    }

    #[track_caller]
    fn pings(&self, whom: &str) {
        let printed = self.exec(&format!("ping -c1 -W20 {whom}"));
        assert!(printed.contains(" 0% packet loss"), "{printed}");
    }

    /// By name: nobody is called that.
    #[track_caller]
    fn does_not_know(&self, whom: &str) {
        let words = ["exec", self.name, "ping", "-c1", "-w2", whom];
        let output = self.world.mossnet(words).run();
        assert!(output.code != 0, "{output}");
        output.expect_text("Name or service not known");
    }

    /// By address: no answer.
    #[track_caller]
    fn cannot_reach(&self, whom: &str) {
        let words = ["exec", self.name, "ping", "-c1", "-w2", whom];
        let output = self.world.mossnet(words).run();
        assert!(output.code != 0, "{output}");
        assert!(!output.stdout.contains("bytes from"), "{output}");
    }

    /// Its IPv4 address on a network, without prefix length.
    #[track_caller]
    fn address(&self, network: &str) -> String {
        let template = format!(
            "{{{{range .Endpoints}}}}{{{{if eq .Network \"{network}\"}}}}{{{{index .Addresses 0}}}}{{{{end}}}}{{{{end}}}}"
        );
        let printed = self
            .world
            .mossnet(["inspect", "-f", &template, self.name])
            .ok();
        let (address, _) = printed.split_once('/').expect("an address with its prefix");
        address.to_owned()
    }

    #[track_caller]
    fn remove(self) {
        self.world.mossnet(["rm", "-f", self.name]).ok();
    }
}

/// `network inspect NAME`, its only element.
#[track_caller]
fn network(world: &World, name: &str) -> Value {
    let text = world.mossnet(["network", "inspect", name]).ok();
    let mut all: Vec<Value> = serde_json::from_str(&text).expect("a JSON array");
    all.remove(0)
}

/// The IPv4 address, with prefix length, that `network inspect` shows for a sandbox.
#[track_caller]
fn listed(world: &World, name: &str, sandbox: &str) -> String {
    let shown = network(world, name);
    let containers = shown["Containers"].as_object().expect("an object").values();
    let found = containers.into_iter().find(|c| c["Name"] == sandbox);
    let found = found.unwrap_or_else(|| panic!("{sandbox} is not on {name}: {shown}"));
    found["IPv4Address"].as_str().expect("a string").to_owned()
}

#[test]
fn walkthrough() {
    World::builder().deadline(180).test(|world| {
        if !installed("ping") || !installed("ip") {
            return;
        }
        // So that a name that nobody has is known not to exist.
        Dns::start("server");
        fresh_networks(world);
        let centos01 = a_pair_of_interfaces(world);
        let centos02 = Sandbox::run(world, "", "centos02");
        by_address_only(&centos02, &centos01);
        let centos03 = Sandbox::run(world, "--link centos02", "centos03");
        a_link(&centos03, &centos02);
        let centos04 = a_network_of_ones_own(world, &centos03);
        let centos05 = Sandbox::run(world, "--net mynet", "centos05");
        joining_makes_known(world, &centos05, &centos02);
        everything_goes(
            world,
            vec![centos01, centos02, centos03, centos04, centos05],
        );
    });
}

/// 1. `network ls` on a fresh root shows bridge, host, none.
fn fresh_networks(world: &World) {
    let listed = world.mossnet(["network", "ls"]).ok();
    let lines: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]);
    let shown: Vec<&[&str]> = lines[1..].iter().map(|line| &line[1..]).collect();
    let expected = [
        ["bridge", "bridge", "local"],
        ["host", "host", "local"],
        ["none", "null", "local"],
    ];
    assert_eq!(shown, expected, "{listed}");
}

/// 2. A sandbox has one end of a pair, the router's bridge the other; both go with it.
fn a_pair_of_interfaces(world: &World) -> Sandbox<'_> {
    let first = Sandbox::run(world, "", "centos01");
    let inside = first.exec("ip addr");
    let (_, rest) = inside.split_once("eth0@if").expect("eth0@ifN");
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let index = &rest[..digits];
    let address = first.address("bridge");
    assert!(inside.contains(&format!("inet {address}/24 ")), "{inside}");
    let peer = world
        .mossnet([
            "inspect",
            "-f",
            "{{(index .Endpoints 0).RouterIfname}}",
            "centos01",
        ])
        .ok();
    let bridge = world
        .mossnet(["network", "inspect", "-f", "{{.Bridge}}", "bridge"])
        .ok();
    let (peer, bridge) = (peer.trim(), bridge.trim());
    let router = world.mossnet(["unshare", "ip", "addr"]).ok();
    let line = router
        .lines()
        .find(|line| line.starts_with(&format!("{index}: ")));
    let line = line.unwrap_or_else(|| panic!("no interface {index} in {router}"));
    assert!(line.contains(peer), "{line} is not {peer}");
    assert!(line.contains(&format!("master {bridge}")), "{line}");
    let shown = world.mossnet(["unshare", "ls", "/sys/class/net"]).ok();
    assert!(shown.contains(peer), "/sys is the router's: {shown}");
    assert_eq!(world.mossnet(["unshare", "id", "-u"]).ok(), "0\n");

    first.remove();
    eventually(seconds(5), "the pair is gone", || {
        !world.mossnet(["unshare", "ip", "addr"]).ok().contains(peer)
    });
    let again = Sandbox::run(world, "", "centos01");
    assert_eq!(
        again.address("bridge"),
        address,
        "the name keeps its address"
    );
    again
}

/// 3. On the default network there are addresses, and no names.
fn by_address_only(centos02: &Sandbox<'_>, centos01: &Sandbox<'_>) {
    centos02.pings(&centos01.address("bridge"));
    centos02.does_not_know(centos01.name);
}

/// 4. A link gives one side a name for the other.
fn a_link(centos03: &Sandbox<'_>, centos02: &Sandbox<'_>) {
    centos03.pings(centos02.name);
    centos02.does_not_know(centos03.name);
    let hosts = centos03.exec("cat /etc/hosts");
    let address = centos02.address("bridge");
    let entry = hosts.lines().find(|line| line.starts_with(&address));
    let entry = entry.unwrap_or_else(|| panic!("no entry of {address} in {hosts}"));
    assert!(
        entry.split_whitespace().any(|word| word == centos02.name),
        "{entry}"
    );
}

/// 5. Members of a network of one's own find one another by name.
fn a_network_of_ones_own<'w>(world: &'w World, centos03: &Sandbox<'w>) -> Sandbox<'w> {
    let create =
        "network create --driver bridge --subnet 192.168.0.0/16 --gateway 192.168.0.1 mynet";
    let id = world.mossnet(create.split(' ')).ok();
    assert_eq!(id.trim().len(), 64, "{id}");
    let listed = world.mossnet(["network", "ls"]).ok();
    let line = listed
        .lines()
        .find(|line| line.contains("mynet"))
        .expect("a line");
    assert!(line.starts_with(&id[..12]), "{listed}");
    let centos04 = Sandbox::run(world, "--net mynet", "centos04");
    world
        .mossnet(["network", "connect", "mynet", "centos03"])
        .ok();
    for (one, other) in [(&centos04, centos03), (centos03, &centos04)] {
        one.pings(other.name);
        let address = other.address("mynet");
        assert!(address.starts_with("192.168."), "{address}");
        one.pings(&address);
    }
    let links = centos03.exec("ip -o link");
    assert!(links.contains("eth1@if"), "the second network: {links}");
    centos04
}

/// 6. Who is on no common network is neither known nor reached; who joins is both at once.
fn joining_makes_known(world: &World, centos05: &Sandbox<'_>, centos02: &Sandbox<'_>) {
    centos05.does_not_know(centos02.name);
    centos05.cannot_reach(&centos02.address("bridge"));
    world
        .mossnet(["network", "connect", "mynet", centos02.name])
        .ok();
    centos05.pings(centos02.name);
    centos05.pings(&centos02.address("mynet"));
    let on_bridge = listed(world, "bridge", centos02.name);
    let on_mynet = listed(world, "mynet", centos02.name);
    assert_ne!(on_bridge, on_mynet);
    assert_eq!(on_bridge, format!("{}/24", centos02.address("bridge")));
    assert_eq!(on_mynet, format!("{}/16", centos02.address("mynet")));
}

/// 7. A network in use stays; what nobody uses goes, also from the kernel.
fn everything_goes(world: &World, sandboxes: Vec<Sandbox<'_>>) {
    let mynet = network(world, "mynet")["Bridge"]
        .as_str()
        .expect("a name")
        .to_owned();
    assert!(inspect::router_interfaces("br-").contains(&mynet));
    let refused = world.mossnet(["network", "rm", "mynet"]).fails(1);
    let refused = refused.expect_one_clear_line();
    for name in ["centos02", "centos03", "centos04", "centos05"] {
        assert!(refused.stderr.contains(name), "who uses it: {refused}");
    }
    for predefined in ["bridge", "host", "none"] {
        let output = world.mossnet(["network", "rm", predefined]).fails(1);
        output.expect_text(predefined).expect_one_clear_line();
    }
    for sandbox in &sandboxes[1..] {
        world
            .mossnet(["network", "disconnect", "mynet", sandbox.name])
            .ok();
    }
    let [_, centos02, centos03, centos04, _] = &sandboxes[..] else {
        panic!("five sandboxes");
    };
    centos04.cannot_reach(centos02.name);
    let links = centos03.exec("ip -o link");
    assert!(!links.contains("eth1"), "gone at once: {links}");
    centos03.pings(centos02.name);

    world.mossnet(["network", "create", "unused"]).ok();
    assert_eq!(world.mossnet(["network", "rm", "mynet"]).ok(), "mynet\n");
    let pruned = world.mossnet(["network", "prune"]).stdin("y\n").ok();
    assert!(
        pruned.ends_with("Deleted Networks:\nunused\n\n"),
        "{pruned}"
    );
    let left = world
        .mossnet(["network", "ls", "--format", "{{.Name}}"])
        .ok();
    assert_eq!(left, "bridge\nhost\nnone\n");
    eventually(seconds(5), "the bridges are gone", || {
        inspect::router_interfaces("br-").len() == 1
    });
    for sandbox in sandboxes {
        sandbox.remove();
    }
    eventually(seconds(5), "every pair is gone", || {
        inspect::router_interfaces("ve-").is_empty()
    });
}
