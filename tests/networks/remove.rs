//! `network rm` and `prune`: what is used stays, what goes leaves nothing in the kernel.

use crate::world::{World, inspect};

fn bridges() -> usize {
    inspect::router_interfaces("br-").len()
}

#[test]
fn who_is_on_it_is_named() {
    World::test(|world| {
        world.network("create mynet").ok();
        world.sleeper("web", "--network mynet");
        world.sleeper("db", "--network mynet");
        world.refuses("network rm mynet", "web").expect_text("db");
        world.network("disconnect mynet web").ok();
        let refused = world.refuses("network rm mynet", "db");
        assert!(!refused.stderr.contains("web"), "{refused}");
        let bridge = world.network_info("mynet")["Bridge"]
            .as_str()
            .expect("a bridge")
            .to_owned();
        assert_eq!(inspect::router_interfaces(&bridge).len(), 1);
        world.mossnet(["rm", "-f", "web", "db"]).ok();
        world.network("rm mynet").ok();
        assert!(inspect::router_interfaces(&bridge).is_empty());
        world.refuses("network rm mynet", "mynet");
        // Only what was removed is printed.
        assert_eq!(world.network("rm -f mynet").ok(), "");
        world.network("create again").ok();
        assert_eq!(world.network("rm -f mynet again nonet").ok(), "again\n");
        let mixed = world.network("rm -f bridge nonet").run().expect_code(1);
        assert_eq!(mixed.stdout, "", "{mixed}");
        mixed.expect_text("pre-defined").expect_one_clear_line();
        // A program asks the API, and is told.
        let socket = format!("{}/run/api.sock", crate::world::ROOT);
        let url = "http://mossnet/v1/networks/mynet?force=true";
        let argv = [
            "curl",
            "-sS",
            "-o",
            "-",
            "-w",
            " %{http_code}",
            "-X",
            "DELETE",
        ];
        let told = world.user(argv).then(["--unix-socket", &socket, url]).ok();
        assert!(told.contains("no such network: mynet"), "{told}");
        assert!(told.ends_with(" 404"), "{told}");
    });
}

#[test]
fn by_force_its_sandboxes_go_too() {
    World::test(|world| {
        world.network("create mynet").ok();
        world.sleeper("web", "--network mynet");
        world.sleeper("free", "");
        world.network("rm -f mynet").ok();
        let names = world.line("ps -a").ok();
        assert!(!names.contains("web") && names.contains("free"), "{names}");
        assert!(!world.network_names().contains("mynet"));
        world.mossnet(["rm", "-f", "free"]).ok();
    });
}

#[test]
fn prune_takes_what_nobody_uses() {
    World::test(|world| {
        for (name, label) in [
            ("a", "x=1"),
            ("b", "x=2"),
            ("c", "y=1"),
            ("used", "x=1"),
            ("resting", "x=1"),
        ] {
            world
                .network(&format!("create --label {label} {name}"))
                .ok();
        }
        world.sleeper("box", "--network used");
        world.sleeper("stopped", "--network resting");
        world.line("stop -t 0 stopped").ok();
        let before = bridges();
        let gone = world.network("prune -f --filter label=x=1").ok();
        assert!(gone.lines().any(|line| line == "a"), "{gone}");
        assert!(
            !gone.lines().any(|line| ["b", "c", "used"].contains(&line)),
            "{gone}"
        );
        let gone = world.network("prune -f --filter label!=y").ok();
        assert!(
            gone.lines().any(|line| line == "b") && !gone.lines().any(|line| line == "c"),
            "{gone}"
        );
        let none = world.network("prune -f --filter until=24h").ok();
        assert!(
            !none.lines().any(|line| line == "c"),
            "made just now: {none}"
        );
        let gone = world.network("prune -f").ok();
        assert!(gone.lines().any(|line| line == "c"), "{gone}");
        let left = world.network_names();
        for name in ["bridge", "host", "none", "used"] {
            assert!(left.contains(name), "{name}: {left:?}");
        }
        assert!(!left.contains("a") && !left.contains("b") && !left.contains("c"));
        assert!(bridges() <= before, "{before}");
        assert_eq!(world.address_on("box", "used", false).split('.').count(), 4);
        world.refuses("network prune -f --filter colour=red", "colour");
        world.mossnet(["rm", "-f", "box", "stopped"]).ok();
    });
}

#[test]
fn a_removed_sandbox_leaves_nothing() {
    World::test(|world| {
        world.network("create a").ok();
        world.network("create b").ok();
        world.sleeper("held", "--network a");
        let before = inspect::router_interfaces("");
        for _ in 0..5 {
            world.sleeper("box", "--network a --network b --network bridge");
            assert!(inspect::router_interfaces("ve-").len() >= 4);
            world.mossnet(["rm", "-f", "box"]).ok();
        }
        let strangers: Vec<_> = inspect::router_interfaces("ve-")
            .difference(&before)
            .cloned()
            .collect();
        assert_eq!(strangers, Vec::<String>::new());
        for network in ["a", "b", "bridge"] {
            let containers = world.network_info(network)["Containers"].clone();
            assert!(!containers.to_string().contains("box"), "{containers}");
        }
        world.mossnet(["rm", "-f", "held"]).ok();
    });
}
