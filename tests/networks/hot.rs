//! Connect and disconnect while a sandbox runs: interfaces, routes, files and names follow at once.

use crate::world::{World, eventually, inspect, installed, seconds};
use std::collections::BTreeSet;

/// Names of the interfaces in a sandbox, loopback aside.
#[track_caller]
fn interfaces(world: &World, sandbox: &str) -> BTreeSet<String> {
    let links = world
        .mossnet(["exec", sandbox, "--", "ip", "-o", "link"])
        .ok();
    let names = links.lines().filter_map(|line| line.split(": ").nth(1));
    let names = names.map(|name| name.split('@').next().unwrap_or(name).to_owned());
    names.filter(|name| name != "lo").collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[track_caller]
fn file(world: &World, sandbox: &str, path: &str) -> String {
    world.mossnet(["exec", sandbox, "--", "cat", path]).ok()
}

/// Interface and gateway of the default route.
#[track_caller]
fn route(world: &World, sandbox: &str) -> Option<(String, String)> {
    let route = world.default_route(sandbox);
    route.map(|(gateway, interface)| (interface, gateway.to_string()))
}

fn by(interface: &str, gateway: &str) -> Option<(String, String)> {
    Some((interface.to_owned(), gateway.to_owned()))
}

#[test]
fn interfaces_come_and_go() {
    World::test(|world| {
        world
            .network("create --subnet 192.168.0.0/16 --gateway 192.168.0.1 mynet")
            .ok();
        world.network("create --subnet 172.31.5.0/24 other").ok();
        world.sleeper("box", "");
        assert_eq!(interfaces(world, "box"), set(["eth0"]));
        let first = world.address_on("box", "bridge", false);
        world.network("connect mynet box").ok();
        world.network("connect other box").ok();
        assert_eq!(interfaces(world, "box"), set(["eth0", "eth1", "eth2"]));
        let shown = world
            .within("box", "ip -o -4 addr show eth1; ip -o -4 addr show eth2")
            .ok();
        let second = world.address_on("box", "mynet", false);
        assert!(shown.contains(&format!("{second}/16")), "{shown}");
        assert!(shown.contains("172.31.5.2/24"), "{shown}");
        assert!(world.pings("box", "192.168.0.1") && world.pings("box", "172.31.5.1"));

        // The default network had the default route, and keeps it until it goes.
        assert_eq!(route(world, "box"), by("eth0", "10.89.0.1"));
        world.network("disconnect bridge box").ok();
        assert_eq!(interfaces(world, "box"), set(["eth1", "eth2"]));
        assert_eq!(route(world, "box"), by("eth1", "192.168.0.1"));
        let hosts = file(world, "box", "/etc/hosts");
        assert!(
            !hosts.contains(&first) && hosts.contains(&second),
            "{hosts}"
        );

        // The first free name, and its former address.
        world.network("connect bridge box").ok();
        assert_eq!(interfaces(world, "box"), set(["eth0", "eth1", "eth2"]));
        assert_eq!(world.endpoint("box", "bridge")["Ifname"], "eth0");
        assert_eq!(world.address_on("box", "bridge", false), first);

        for network in ["mynet", "other", "bridge"] {
            world.network(&format!("disconnect {network} box")).ok();
        }
        assert_eq!(interfaces(world, "box"), set([]));
        assert_eq!(route(world, "box"), None);
        assert!(inspect::router_interfaces("ve-").is_empty());
        world.network("connect mynet box").ok();
        assert_eq!(route(world, "box"), by("eth0", "192.168.0.1"));
        world.mossnet(["rm", "-f", "box"]).ok();
        world.network("rm mynet other").ok();
    });
}

#[test]
fn the_default_route_goes_by_priority() {
    World::test(|world| {
        for (name, subnet) in [
            ("a", "172.31.1.0/24"),
            ("b", "172.31.2.0/24"),
            ("c", "172.31.3.0/24"),
        ] {
            world
                .network(&format!("create --subnet {subnet} {name}"))
                .ok();
        }
        world
            .network("create --internal --subnet 172.31.9.0/24 inner")
            .ok();
        world.sleeper("box", "--network inner --network a");
        assert_eq!(
            route(world, "box"),
            by("eth1", "172.31.1.1"),
            "an internal network gives none"
        );
        world.network("connect b box").ok();
        assert_eq!(
            route(world, "box"),
            by("eth1", "172.31.1.1"),
            "among equals the first"
        );
        world.network("connect --gw-priority 5 c box").ok();
        assert_eq!(route(world, "box"), by("eth3", "172.31.3.1"), "the highest");
        world.network("disconnect a box").ok();
        assert_eq!(route(world, "box"), by("eth3", "172.31.3.1"));
        world.network("disconnect c box").ok();
        assert_eq!(route(world, "box"), by("eth2", "172.31.2.1"));
        world.network("disconnect b box").ok();
        assert_eq!(route(world, "box"), None, "an internal network gives none");
        world.mossnet(["rm", "-f", "box"]).ok();
    });
}

#[test]
fn files_follow_in_place() {
    World::test(|world| {
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        world.sleeper("box", "--hostname boxhost");
        let inodes = || {
            world
                .within("box", "stat -c %i /etc/hosts /etc/resolv.conf")
                .ok()
        };
        let before = inodes();
        assert!(file(world, "box", "/etc/resolv.conf").contains("nameserver 10.89.0.1"));
        world.network("connect mynet box").ok();
        let hosts = file(world, "box", "/etc/hosts");
        for network in ["bridge", "mynet"] {
            let address = world.address_on("box", network, false);
            let line = hosts.lines().find(|line| line.starts_with(&address));
            assert!(
                line.is_some_and(|line| line.contains("boxhost")),
                "{network}: {hosts}"
            );
        }
        let resolv = file(world, "box", "/etc/resolv.conf");
        assert!(
            resolv.contains("nameserver 172.31.1.1"),
            "names live there: {resolv}"
        );
        world.network("disconnect mynet box").ok();
        let resolv = file(world, "box", "/etc/resolv.conf");
        assert!(
            resolv.contains("nameserver 10.89.0.1") && !resolv.contains("172.31.1.1"),
            "{resolv}"
        );
        assert_eq!(
            inodes(),
            before,
            "whoever bound or opened the files sees the change"
        );
        world.mossnet(["rm", "-f", "box"]).ok();
    });
}

#[test]
fn names_come_and_go_with_the_command() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        world.sleeper("asker", "--network mynet");
        world.sleeper("box", "");
        for round in 0..10 {
            // No waiting in between: what the command promised holds when it ends.
            world.network("connect --alias nick mynet box").ok();
            let address = BTreeSet::from([world.address_on("box", "mynet", false)]);
            for name in ["box", "nick"] {
                assert_eq!(
                    world.dig("asker", &format!("{name} A")),
                    address,
                    "{name}, round {round}"
                );
            }
            let reached = world.mossnet(["exec", "asker", "--", "ping", "-c1", "-W2", "nick"]);
            reached.ok();
            world.network("disconnect mynet box").ok();
            for name in ["box", "nick"] {
                assert_eq!(
                    world.dig("asker", &format!("{name} A")),
                    BTreeSet::new(),
                    "{name}, round {round}"
                );
            }
        }
        world.mossnet(["rm", "-f", "asker", "box"]).ok();
    });
}

#[test]
fn connections_on_one_network_outlive_changes_of_others() {
    World::test(|world| {
        world.network("create --subnet 172.31.1.0/24 steady").ok();
        world.network("create --subnet 172.31.2.0/24 coming").ok();
        let serve = "import socket\nl=socket.create_server(('',9000))\nc,_=l.accept()\n\
                     while True:\n d=c.recv(100)\n if not d: break\n c.sendall(d)";
        let head = "run -d --network steady --name";
        world
            .line(&format!("{head} listener -- python3 -c"))
            .then([serve])
            .ok();
        let call = "import socket,time\nfor _ in range(200):\n try: s=socket.create_connection(('listener',9000),2); break\n\
                    \x20except OSError: time.sleep(.05)\nfor i in range(10**6):\n s.sendall(b'%d'%i)\n\
                    \x20assert s.recv(100)==b'%d'%i\n print('tick',i,flush=True)\n time.sleep(.02)";
        world
            .line(&format!("{head} caller -- python3 -c"))
            .then([call])
            .ok();
        let mut follow = world.line("logs -f caller").timeout(seconds(80)).start();
        follow.expect("tick 5\n");
        for _ in 0..5 {
            for sandbox in ["caller", "listener"] {
                world
                    .network(&format!("connect --gw-priority 3 coming {sandbox}"))
                    .ok();
                world.network(&format!("disconnect coming {sandbox}")).ok();
            }
        }
        let seen = follow.stdout().lines().count();
        follow.expect(&format!("tick {}\n", seen + 20));
        drop(follow);
        world.mossnet(["rm", "-f", "caller", "listener"]).ok();
    });
}

#[test]
fn a_stopped_sandbox_joins_when_it_starts() {
    World::test(|world| {
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        world.sleeper("box", "");
        world.line("stop -t 0 box").ok();
        world.network("connect --ip 172.31.1.77 mynet box").ok();
        world.network("disconnect bridge box").ok();
        assert!(inspect::router_interfaces("ve-").is_empty());
        world.line("start box").ok();
        assert_eq!(world.address_on("box", "mynet", false), "172.31.1.77");
        assert_eq!(interfaces(world, "box"), set(["eth0"]));
        world.mossnet(["rm", "-f", "box"]).ok();
    });
}

#[test]
fn what_is_inspected_is_what_is_there() {
    World::test(|world| {
        world
            .network("create --subnet 172.31.1.0/24 --subnet fd00:31::/64 --label who=me mynet")
            .ok();
        world.sleeper("box", "--network mynet:mac=02:00:00:00:00:77,ip=172.31.1.9");
        let info = world.network_info("mynet");
        assert_eq!(info["Labels"]["who"], "me");
        assert_eq!(info["Scope"], "local");
        assert_eq!(info["Driver"], "bridge");
        assert_eq!(info["EnableIPv6"], true);
        assert_eq!(
            info["IPAM"]["Config"].as_array().map(Vec::len),
            Some(2),
            "{info:#}"
        );
        let id = world.inspect("box")["Id"]
            .as_str()
            .expect("an id")
            .to_owned();
        let container = &info["Containers"][&id];
        assert_eq!(container["Name"], "box", "{info:#}");
        assert_eq!(container["MacAddress"], "02:00:00:00:00:77");
        assert_eq!(container["IPv4Address"], "172.31.1.9/24");
        let ipv6 = container["IPv6Address"].as_str().expect("an address");
        let shown = world
            .within("box", "ip -o addr show eth0; ip -o link show eth0")
            .ok();
        for text in ["172.31.1.9/24", "02:00:00:00:00:77", ipv6] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
        world.network("disconnect mynet box").ok();
        assert_eq!(
            world.network_info("mynet")["Containers"],
            serde_json::json!({})
        );
        world.mossnet(["rm", "-f", "box"]).ok();
    });
}

/// A sandbox that never was, one that is stopped, one that ends or goes during the call: four things,
/// four answers.
#[test]
fn whoever_comes_too_late_is_told_the_truth() {
    World::test(|world| {
        world.network("create mynet").ok();
        let never = world.refuses("network connect mynet brief", "no such sandbox: brief");
        assert_eq!(never.code, 1, "{never}");
        world.refuses("network disconnect mynet brief", "no such sandbox: brief");

        // Stopped, it joins all the same, and leaves; for the next start.
        world.sleeper("brief", "");
        world.line("stop -t 0 brief").ok();
        world.network("connect mynet brief").ok();
        world.line("start brief").ok();
        assert_eq!(interfaces(world, "brief"), set(["eth0", "eth1"]));
        world.line("stop -t 0 brief").ok();
        world.network("disconnect mynet brief").ok();
        world.refuses("network disconnect mynet brief", "is not connected");
        world.line("rm brief").ok();

        let (mut met, mut missed) = (0, 0);
        for round in 0..12 {
            let removed = round % 2 == 1;
            world.sleeper("brief", if removed { "--rm" } else { "" });
            let ending = world.line("kill brief").start();
            let joined = world.network("connect mynet brief").run();
            ending.wait().expect_code(0);
            let text = &joined.stderr;
            if joined.code == 0 {
                missed += 1;
            } else {
                met += 1;
                let ended = text.contains("sandbox 'brief' ended meanwhile");
                let gone = text.contains("no such sandbox: brief")
                    || text.contains("sandbox 'brief' was removed meanwhile");
                assert!(ended || gone && removed, "{joined}");
                joined.expect_one_clear_line();
            }
            eventually(seconds(5), "its end is recorded", || {
                let listed = world.line("ps -a --format {{.Names}}={{.State}}").ok();
                !listed.contains("brief") || listed.contains("brief=exited")
            });
            if !removed {
                world.line("rm brief").ok();
            }
            world.check_networks();
        }
        eprintln!("connects that met the end: {met}, that were in time: {missed}");
        world.network("rm mynet").ok();
    });
}
