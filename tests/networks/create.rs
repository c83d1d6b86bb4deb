//! `network create`: what a network is made of, and that packets obey it.

use crate::world::{World, inspect, ip};
use std::collections::BTreeSet;

#[test]
fn a_fresh_root_has_the_three() {
    World::test(|world| {
        assert_eq!(
            world.network_names(),
            BTreeSet::from(["bridge", "host", "none"].map(str::to_owned))
        );
        let table = world.network("ls").ok();
        let head: Vec<_> = table
            .lines()
            .next()
            .expect("a head")
            .split_whitespace()
            .collect();
        assert_eq!(
            head,
            ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"],
            "{table}"
        );
        for line in ["bridge", "host", "none"] {
            world.refuses(&format!("network rm {line}"), "pre-defined");
            world.refuses(&format!("network create {line}"), line);
        }
    });
}

#[test]
fn the_next_free_prefix_is_found() {
    World::test(|world| {
        ip(None, "route add 10.89.2.0/24 via 203.0.113.1\n");
        let subnet = |name: &str| {
            world.network(&format!("create {name}")).ok();
            world.network_info(name)["IPAM"]["Config"][0]["Subnet"]
                .as_str()
                .expect("a subnet")
                .to_owned()
        };
        let all: BTreeSet<_> = ["a", "b", "c"].map(&subnet).into();
        assert_eq!(all.len(), 3, "{all:?}");
        assert!(
            all.iter()
                .all(|subnet| subnet.starts_with("10.89.") && subnet.ends_with("/24")),
            "{all:?}"
        );
        assert!(!all.contains("10.89.2.0/24"), "the host routes it: {all:?}");
        world.network("create --ipv6 six").ok();
        let config = world.network_info("six")["IPAM"]["Config"].clone();
        let subnets: Vec<_> = config
            .as_array()
            .expect("a list")
            .iter()
            .map(|c| c["Subnet"].to_string())
            .collect();
        assert!(
            subnets.len() == 2 && subnets.iter().any(|s| s.starts_with("\"fd")),
            "{subnets:?}"
        );
        // What was removed is free again.
        world.network("rm a").ok();
        assert!(all.contains(&subnet("again")));
    });
}

#[test]
fn overlaps_name_the_other() {
    World::test(|world| {
        ip(
            None,
            "route add 172.20.0.0/16 via 203.0.113.1\nroute add 2001:db8:77::/48 via 2001:db8:113::1\n",
        );
        world
            .network("create --subnet 172.31.0.0/16 --subnet fd00:31::/64 first")
            .ok();
        for subnet in [
            "172.31.0.0/16",
            "172.31.5.0/24",
            "172.16.0.0/12",
            "fd00:31::/48",
            "fd00:31::/80",
        ] {
            world.refuses(&format!("network create --subnet {subnet} second"), "first");
        }
        for (subnet, route) in [
            ("172.20.1.0/24", "172.20.0.0/16"),
            ("2001:db8:77:1::/64", "2001:db8:77::/48"),
        ] {
            world.refuses(&format!("network create --subnet {subnet} second"), route);
        }
        world.refuses("network create first", "first");
    });
}

#[test]
fn addresses_come_out_of_the_range() {
    World::test(|world| {
        world
            .network("create --subnet 172.31.1.0/24 --ip-range 172.31.1.64/29 --gateway 172.31.1.254 --aux-address printer=172.31.1.66 ranged")
            .ok();
        let mut seen = BTreeSet::new();
        for number in 0..7 {
            let name = format!("box{number}");
            world.sleeper(&name, "--network ranged");
            seen.insert(world.address_on(&name, "ranged", false));
        }
        let expected: BTreeSet<_> = (64..72)
            .filter(|n| *n != 66)
            .map(|n| format!("172.31.1.{n}"))
            .collect();
        assert_eq!(seen, expected);
        world.refuses("run --rm --network ranged -- true", "172.31.1.64/29");
        world.refuses(
            "run --rm --network ranged:ip=172.31.1.66 -- true",
            "printer",
        );
        world.refuses(
            "run --rm --network ranged:ip=172.31.1.254 -- true",
            "gateway",
        );
        // A fixed address may lie outside of the range.
        world.sleeper("fixed", "--network ranged:ip=172.31.1.5");
        let (gateway, _) = world.default_route("fixed").expect("a route");
        assert_eq!(gateway.to_string(), "172.31.1.254");
        assert!(world.pings("fixed", "172.31.1.254"));
        let config = world.network_info("ranged")["IPAM"]["Config"][0].clone();
        assert_eq!(config["IPRange"], "172.31.1.64/29");
        assert_eq!(config["AuxiliaryAddresses"]["printer"], "172.31.1.66");
        world.line("stop -t 0 --all").ok();
    });
}

#[test]
fn the_mtu_is_everywhere() {
    World::test(|world| {
        world
            .network("create -o mtu=1380 --subnet 172.31.1.0/24 small")
            .ok();
        world
            .network("create --opt com.docker.network.driver.mtu=9000 --subnet 172.31.2.0/24 big")
            .ok();
        world.sleeper("box", "--network small --network big");
        let shown = world.line("exec box -- ip -o link").ok();
        assert!(
            shown.contains("mtu 1380") && shown.contains("mtu 9000"),
            "{shown}"
        );
        for (network, mtu) in [("small", "mtu 1380"), ("big", "mtu 9000")] {
            let endpoint = world.endpoint("box", network);
            let router = endpoint["RouterIfname"]
                .as_str()
                .expect("a name")
                .to_owned();
            let bridge = world.network_info(network)["Bridge"]
                .as_str()
                .expect("a bridge")
                .to_owned();
            for interface in [router, bridge] {
                let link = inspect::in_router(["ip", "-o", "link", "show", &interface]).ok();
                assert!(link.contains(mtu), "{link}");
            }
        }
        world.sleeper("peer", "--network big");
        let target = world.address_on("peer", "big", false);
        world
            .line(&format!("exec box -- ping -c1 -W2 -M do -s 8972 {target}"))
            .ok();
        world
            .line(&format!("exec box -- ping -c1 -W2 -M do -s 8973 {target}"))
            .fails(1);
        world.mossnet(["rm", "-f", "box", "peer"]).ok();
    });
}

#[test]
fn without_icc_members_reach_the_world_only() {
    World::test(|world| {
        crate::world::servers::http("server", 80);
        world
            .network("create -o icc=false --subnet 172.31.1.0/24 --subnet fd00:31::/64 shy")
            .ok();
        world.sleeper("a", "--network shy");
        world
            .line("run -d --name b --network shy -- nc -lk 8080")
            .ok();
        for ipv6 in [false, true] {
            let target = world.address_on("b", "shy", ipv6);
            assert!(!world.pings("a", &target), "{target}");
            let closed = world
                .line(&format!("exec a -- nc -z -w1 {target} 8080"))
                .run();
            assert!(closed.code != 0, "{closed}");
        }
        assert!(world.pings("a", "172.31.1.1"));
        let url = format!("http://{}/", crate::world::SERVER);
        world
            .mossnet(["exec", "a", "--", "curl", "-sS", "-m5", &url])
            .ok();
        // By way of the router neither: root gives the peer a route through the gateway.
        world.sleeper("root", "--network shy --cap-add NET_ADMIN");
        let target = world.address_on("b", "shy", false);
        world
            .within("root", &format!("ip route add {target}/32 via 172.31.1.1"))
            .ok();
        assert!(!world.pings("root", &target));
        world.mossnet(["rm", "-f", "a", "b", "root"]).ok();

        world.network("create --subnet 172.31.2.0/24 open").ok();
        world.sleeper("c", "--network open");
        world.sleeper("d", "--network open");
        assert!(
            world.pings("c", &world.address_on("d", "open", false)),
            "the same without the option"
        );
        world.mossnet(["rm", "-f", "c", "d"]).ok();
    });
}

#[test]
fn a_vlan_is_a_network_like_any_other() {
    World::test(|world| {
        crate::world::servers::http("server", 80);
        // So that there is a router, whose kernel can be asked.
        world.sleeper("resident", "");
        let create = "network create -o vlan=7 --subnet 172.31.1.0/24 tagged";
        if !has_vlans() {
            let refused = world.refuses(create, "CONFIG_BRIDGE_VLAN_FILTERING");
            refused
                .expect_text("VLAN 7")
                .expect_text("leave -o vlan out");
            assert!(!world.network_names().contains("tagged"));
            world.mossnet(["rm", "-f", "resident"]).ok();
            return;
        }
        world.line(create).ok();
        assert_eq!(inspect::router_interfaces("br-").len(), 1, "the trial");
        assert_eq!(world.network_info("tagged")["Options"]["vlan"], "7");
        world.sleeper("a", "--network tagged");
        world.sleeper("b", "--network tagged");
        assert!(world.pings("a", &world.address_on("b", "tagged", false)));
        assert!(world.pings("a", "b") && world.pings("a", "172.31.1.1"));
        let url = format!("http://{}/", crate::world::SERVER);
        world
            .mossnet(["exec", "a", "--", "curl", "-sS", "-m5", &url])
            .ok();
        world.mossnet(["rm", "-f", "a", "b", "resident"]).ok();
    });
}

/// Whether this kernel puts bridges into VLANs, found without mossnet.
fn has_vlans() -> bool {
    let probe = [
        "ip",
        "link",
        "add",
        "probe",
        "type",
        "bridge",
        "vlan_filtering",
        "1",
    ];
    let made = inspect::in_router(probe).run();
    if made.code != 0 {
        assert!(made.stderr.contains("not supported"), "{made}");
        return false;
    }
    inspect::in_router(["ip", "link", "del", "probe"]).ok();
    true
}

#[test]
fn families_are_as_asked() {
    World::test(|world| {
        crate::world::servers::http("server", 80);
        world.network("create --subnet fd00:66::/64 only6").ok();
        world
            .network(
                "create --subnet 172.31.1.0/24 --subnet fd00:31::/64 --gateway fd00:31::99 both",
            )
            .ok();
        world.sleeper("six", "--network only6");
        world.sleeper("two", "--network both");
        world.sleeper("peer", "--network both");
        let route = world.line("exec two -- ip -6 route show default").ok();
        assert!(route.contains("fd00:31::99"), "{route}");
        for ipv6 in [false, true] {
            assert!(world.pings("two", &world.address_on("peer", "both", ipv6)));
        }
        let shown = world.line("exec six -- ip -o addr show scope global").ok();
        assert!(shown.contains("fd00:66::"), "{shown}");
        let info = world.network_info("only6");
        assert_eq!(info["EnableIPv6"], true);
        let url = format!("http://[{}]/", crate::world::SERVER6);
        for name in ["six", "two"] {
            world
                .mossnet(["exec", name, "--", "curl", "-gsS", "-m5", &url])
                .ok();
        }
        world.mossnet(["rm", "-f", "six", "two", "peer"]).ok();
    });
}

#[test]
fn docker_and_podman_words_are_understood() {
    World::test(|world| {
        world
            .network("create --driver bridge --label a=1 --label b -o com.docker.network.bridge.enable_icc=false -o isolate=true mynet")
            .ok();
        let info = world.network_info("mynet");
        assert_eq!(info["Options"]["icc"], "false", "{info:#}");
        assert_eq!(
            (&info["Labels"]["a"], &info["Labels"]["b"]),
            (&"1".into(), &"".into())
        );
        let listed = |filter: &str| {
            let argv = ["network", "ls", "--format", "{{.Name}}", "--filter", filter];
            world
                .mossnet(argv)
                .ok()
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(listed("label=a=1"), ["mynet"]);
        assert_eq!(listed("label=a=2"), Vec::<String>::new());
        assert_eq!(listed("name=myn"), ["mynet"]);
        assert_eq!(listed("type=custom"), ["mynet"]);
        assert_eq!(listed("driver=host"), ["host"]);
        let id = info["Id"].as_str().expect("an id");
        let short = world.network("ls -q --filter name=mynet").ok();
        assert_eq!(short.trim(), &id[..12]);
        assert_eq!(
            world
                .network("ls -q --no-trunc --filter name=mynet")
                .ok()
                .trim(),
            id
        );
        let json = world.network("ls --format json --filter name=mynet").ok();
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["Name"], "mynet", "{json}");
        // By id, or its beginning.
        world.network(&format!("rm {}", &id[..8])).ok();
        assert!(!world.network_names().contains("mynet"));
    });
}
