//! Sticky leases: who comes back under its name gets its address back, while there are others.

use crate::world::{World, inspect};

#[test]
fn stop_and_start_keep_every_address() {
    World::test(|world| {
        world
            .network("create --subnet 172.31.1.0/24 --subnet fd00:31::/64 mynet")
            .ok();
        world.sleeper("box", "--network mynet --network bridge");
        let addresses = || {
            ["mynet", "bridge"]
                .map(|network| [false, true].map(|ipv6| world.address_on("box", network, ipv6)))
        };
        let before = addresses();
        world.line("stop -t 0 box").ok();
        let info = world.network_info("mynet");
        assert_eq!(info["Containers"], serde_json::json!({}), "{info:#}");
        let leases = info["Leases"].as_array().expect("leases");
        let kept = leases
            .iter()
            .find(|lease| lease["Name"] == "box")
            .expect("a lease");
        assert!(
            kept["Addresses"].to_string().contains(&before[0][0]),
            "{kept}"
        );
        for name in ["a", "b", "c"] {
            world.sleeper(name, "--network mynet --network bridge");
        }
        world.line("start box").ok();
        assert_eq!(addresses(), before);
        let shown = world.line("exec box -- ip -o addr").ok();
        assert!(
            before
                .iter()
                .flatten()
                .all(|address| shown.contains(address.as_str())),
            "{shown}"
        );
        world.line("restart -t 0 box").ok();
        assert_eq!(addresses(), before);
        // Its output goes on in the same log, its end is waited for again.
        assert!(world.line("logs box").run().code == 0);
        world.mossnet(["rm", "-f", "box", "a", "b", "c"]).ok();
    });
}

#[test]
fn the_same_name_gets_its_address_back() {
    World::test(|world| {
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        let own = |name: &str| {
            world.sleeper(name, "--network mynet");
            let address = world.address_on(name, "mynet", false);
            world.mossnet(["rm", "-f", name]).ok();
            address
        };
        let first = own("sticky");
        for name in ["a", "b", "c"] {
            assert_ne!(own(name), first, "while there are others");
        }
        assert_eq!(own("sticky"), first);
        inspect::kill_everything();
        assert_eq!(own("sticky"), first, "also by the next daemon");
        // Off and on again, too.
        world.sleeper("sticky", "--network mynet");
        world.network("disconnect mynet sticky").ok();
        world.sleeper("other", "--network mynet");
        world.network("connect mynet sticky").ok();
        assert_eq!(world.address_on("sticky", "mynet", false), first);
        world.mossnet(["rm", "-f", "sticky", "other"]).ok();
    });
}

#[test]
fn a_remembered_address_is_given_away_last() {
    World::test(|world| {
        // Six addresses, one of them the gateway's.
        world.network("create --subnet 172.31.1.0/29 small").ok();
        let start = |name: &str| {
            world.sleeper(name, "--network small");
            world.address_on(name, "small", false)
        };
        let first = start("sticky");
        world.line("stop -t 0 sticky").ok();
        for number in 0..4 {
            assert_ne!(start(&format!("box{number}")), first);
        }
        assert_eq!(start("box4"), first, "nothing else is left");
        let full = world.refuses("run --rm --network small -- true", "172.31.1.0/29");
        full.expect_text("5 of 5");
        let refused = world.line("start sticky").run();
        assert!(refused.code != 0, "{refused}");
        world.mossnet(["rm", "-f", "box2"]).ok();
        world.line("start sticky").ok();
        for name in ["sticky", "box0", "box1", "box3", "box4"] {
            world.mossnet(["rm", "-f", name]).ok();
        }
    });
}
