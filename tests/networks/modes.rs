//! `--network none`, `host`, `container:NAME`, and several networks from the start.

use crate::world::{World, inspect};
use std::fs;

fn netns(world: &World, sandbox: &str) -> String {
    let pid = world.inspect(sandbox)["Pid"].as_i64().expect("a pid");
    fs::read_link(format!("/proc/{pid}/ns/net"))
        .expect("a netns")
        .display()
        .to_string()
}

#[test]
fn none_has_loopback_only() {
    World::test(|world| {
        world.sleeper("alone", "--network none");
        let links = world.line("exec alone -- ip -o link").ok();
        assert_eq!(links.lines().count(), 1, "{links}");
        assert!(world.pings("alone", "127.0.0.1"));
        assert!(inspect::router_interfaces("ve-").is_empty());
        world.refuses("network connect bridge alone", "none");
        world.mossnet(["rm", "-f", "alone"]).ok();
    });
}

#[test]
fn host_is_the_hosts() {
    World::test(|world| {
        world.sleeper("hosted", "--network host");
        let own = fs::read_link("/proc/self/ns/net")
            .expect("a netns")
            .display()
            .to_string();
        assert_eq!(netns(world, "hosted"), own);
        world.network("create mynet").ok();
        world.refuses("network connect mynet hosted", "host");
        world.refuses("network disconnect host hosted", "host");
        world.mossnet(["rm", "-f", "hosted"]).ok();
    });
}

#[test]
fn container_is_anothers() {
    World::test(|world| {
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        world.sleeper("owner", "--network mynet");
        world.sleeper("guest", "--network container:owner");
        assert_eq!(netns(world, "guest"), netns(world, "owner"));
        world.refuses("network connect bridge guest", "guest");
        // What the owner joins, the guest is on.
        world.network("connect bridge owner").ok();
        let shown = world.line("exec guest -- ip -o -4 addr").ok();
        assert!(
            shown.contains(&world.address_on("owner", "bridge", false)),
            "{shown}"
        );
        world.mossnet(["rm", "-f", "guest", "owner"]).ok();
    });
}

#[test]
fn several_networks_from_the_start() {
    World::test(|world| {
        world.network("create --subnet 172.31.1.0/24 a").ok();
        world
            .network("create --subnet 172.31.2.0/24 --subnet fd00:2::/64 b")
            .ok();
        world.sleeper(
            "box",
            "--network a:ip=172.31.1.50,alias=x,alias=y --network b:ip=172.31.2.60,ip6=fd00:2::60,mac=02:00:00:00:00:60,interface_name=wan0,gw_priority=2",
        );
        let shown = world.line("exec box -- ip -o addr").ok();
        for text in ["172.31.1.50/24", "172.31.2.60/24", "fd00:2::60/64"] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
        let link = world.line("exec box -- ip -o link show wan0").ok();
        assert!(link.contains("02:00:00:00:00:60"), "{link}");
        let (gateway, interface) = world.default_route("box").expect("a default route");
        assert_eq!(
            (gateway.to_string().as_str(), interface.as_str()),
            ("172.31.2.1", "wan0")
        );
        let aliases = world.endpoint("box", "a")["Aliases"].clone();
        assert_eq!(aliases, serde_json::json!(["x", "y"]));
        let networks = world.inspect("box")["Networks"].clone();
        assert_eq!(networks, serde_json::json!(["a", "b"]));
        world.refuses("run --rm --network a --network none -- true", "none");
        world.refuses("run --rm --network a --network a -- true", "twice");
        world.refuses("run --rm --network a --network nowhere -- true", "nowhere");
        world.mossnet(["rm", "-f", "box"]).ok();
    });
}

#[test]
fn a_bare_network_namespace_is_a_member() {
    World::test(|world| {
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        let path = world
            .line("netns create bare --network mynet:alias=nick")
            .ok();
        assert!(path.trim().starts_with("/proc/"), "{path}");
        world.sleeper("box", "--network mynet");
        assert!(world.pings("box", &world.address_on("bare", "mynet", false)));
        assert!(world.pings("box", "nick"));
        world.sleeper("joined", "--network container:bare");
        assert!(world.pings("joined", &world.address_on("box", "mynet", false)));
        let listed = world.line("ps").ok();
        assert!(
            listed.contains("bare") && listed.contains("(netns)"),
            "{listed}"
        );
        world.refuses("network rm mynet", "bare");
        world.network("disconnect mynet bare").ok();
        world.network("connect mynet bare").ok();
        assert!(world.pings("box", &world.address_on("bare", "mynet", false)));
        world.mossnet(["rm", "-f", "joined", "box"]).ok();
        world.line("netns rm bare").ok();
        assert!(inspect::router_interfaces("ve-").is_empty());
    });
}
