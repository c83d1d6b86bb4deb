//! Addresses: handed out, asked for, remembered, and run out of.

use crate::world::{World, ip, seconds};

fn own_address(world: &World, name: &str, ipv6: bool) -> String {
    let script = "ip -o -4 addr show eth0; ip -o -6 addr show eth0 scope global";
    let shown = world
        .mossnet(["run", "--rm", "--name", name, "--", "sh", "-c", script])
        .ok();
    let words: Vec<_> = shown.split_whitespace().collect();
    let family = if ipv6 { "inet6" } else { "inet" };
    let at = words
        .iter()
        .position(|word| *word == family)
        .expect("an address");
    words[at + 1].to_owned()
}

#[test]
fn the_default_network_is_the_first_free_24() {
    World::test(|world| {
        let address = own_address(world, "first", false);
        assert!(
            address.starts_with("10.89.0.") && address.ends_with("/24"),
            "{address}"
        );
        let address = own_address(world, "first", true);
        assert!(
            address.starts_with("fd"),
            "a unique local address: {address}"
        );
        let routes = world
            .sh("ip route show default; ip -6 route show default")
            .ok();
        assert!(
            routes.contains("default via 10.89.0.1 dev eth0"),
            "{routes}"
        );
        assert_eq!(routes.matches("default via").count(), 2, "{routes}");
    });
}

#[test]
fn prefixes_that_the_host_routes_are_avoided() {
    World::test(|world| {
        ip(
            None,
            "route add 10.89.0.0/23 via 203.0.113.1\nroute add 10.89.2.77 via 203.0.113.1\n",
        );
        let address = own_address(world, "first", false);
        assert!(address.starts_with("10.89.3."), "{address}");
    });
}

#[test]
fn no_free_prefix_is_an_error() {
    World::test(|world| {
        ip(None, "route add 10.89.0.0/16 via 203.0.113.1\n");
        let refused = world.sh("true").fails(125);
        refused.expect_text("10.89.0.0/16").expect_one_clear_line();
    });
}

#[test]
fn an_address_can_be_asked_for() {
    World::test(|world| {
        let run = |options: &str, script: &str| {
            let options = options.split(' ').map(str::to_owned);
            world
                .mossnet(["run", "--rm"])
                .then(options)
                .then(["--", "sh", "-c", script])
        };
        let show = "ip -o addr show eth0";
        assert!(run("--ip 10.89.0.50", show).ok().contains("10.89.0.50/24"));
        let gateway = world.sh("ip -6 route show default").ok();
        let gateway = gateway
            .split_whitespace()
            .nth(2)
            .expect("an IPv6 gateway")
            .to_owned();
        let asked = gateway.replace("::1", "::abcd");
        assert!(run(&format!("--ip6 {asked}"), show).ok().contains(&asked));

        world
            .mossnet([
                "run",
                "-d",
                "--name",
                "holder",
                "--ip",
                "10.89.0.60",
                "--",
                "sleep",
                "1000",
            ])
            .ok();
        let before = world.mossnet(["ps", "-a", "-q"]).ok();
        for (options, word) in [
            ("--ip 10.89.0.60", "holder"),
            ("--ip 10.90.0.5", "10.89.0.0/24"),
            ("--ip 10.89.0.0", "10.89.0.0"),
            ("--ip 10.89.0.255", "10.89.0.255"),
            ("--ip 10.89.0.1", "gateway"),
            ("--ip 10.89.0.500", "10.89.0.500"),
            ("--ip6 fd00::zz", "fd00::zz"),
            ("--ip6 2001:db8::5", "2001:db8::5"),
            ("--mac-address 01:00:00:00:00:01", "01:00:00:00:00:01"),
            ("--network none --ip 10.89.0.5", "none"),
        ] {
            let refused = run(options, "true").fails(125);
            refused.expect_text(word).expect_one_clear_line();
        }
        assert_eq!(
            world.mossnet(["ps", "-a", "-q"]).ok(),
            before,
            "nothing was created"
        );
        world.mossnet(["rm", "-f", "holder"]).ok();
        assert!(
            run("--ip 10.89.0.60", show).ok().contains("10.89.0.60"),
            "free again"
        );
    });
}

#[test]
fn a_name_keeps_its_address() {
    World::test(|world| {
        let first = own_address(world, "sticky", false);
        for name in ["a", "b", "c"] {
            assert_ne!(own_address(world, name, false), first);
        }
        assert_eq!(own_address(world, "sticky", false), first);
        crate::world::inspect::kill_everything();
        assert_eq!(
            own_address(world, "sticky", false),
            first,
            "also by the next daemon"
        );
    });
}

#[test]
fn a_full_network_says_how_full_it_is() {
    World::builder().deadline(240).test(|world| {
        let fill = "i=0; while [ $i -lt 253 ]; do \
                    mossnet --root /run/world/root run -d -- sleep 1000 >/dev/null || exit 1; \
                    i=$((i+1)); done";
        world.user(["sh", "-c", fill]).timeout(seconds(180)).ok();
        assert_eq!(world.mossnet(["ps", "-q"]).ok().lines().count(), 253);
        let full = world.mossnet(["run", "--rm", "--", "true"]).fails(125);
        full.expect_text("253").expect_one_clear_line();
        let one = world
            .mossnet(["ps", "-q"])
            .ok()
            .lines()
            .next()
            .map(str::to_owned);
        world.mossnet(["rm", "-f", &one.expect("a sandbox")]).ok();
        world.mossnet(["run", "--rm", "--", "true"]).ok();
        world
            .mossnet(["stop", "-t", "0", "--all"])
            .timeout(seconds(60))
            .ok();
    });
}
