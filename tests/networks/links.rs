//! `--link`: one-way lines in /etc/hosts that follow whom they name.

use crate::world::{World, eventually, seconds};

/// The IPv4 line of /etc/hosts in `sandbox` that has `name`.
#[track_caller]
fn line(world: &World, sandbox: &str, name: &str) -> Option<String> {
    let hosts = world
        .mossnet(["exec", sandbox, "--", "cat", "/etc/hosts"])
        .ok();
    let named = |line: &&str| {
        let mut words = line.split_whitespace();
        let ipv4 = words.next().is_some_and(|address| !address.contains(':'));
        ipv4 && words.any(|word| word == name)
    };
    let mut found = hosts.lines().filter(named);
    let line = found.next().map(str::to_owned);
    assert!(found.next().is_none(), "{name} twice: {hosts}");
    line
}

#[test]
fn a_link_is_one_way() {
    World::test(|world| {
        world.sleeper("target", "");
        world.sleeper("linked", "--link target:nick");
        let address = world.address_on("target", "bridge", false);
        let id = world.inspect("target")["Id"].as_str().expect("an id")[..12].to_owned();
        let hosts = world.line("exec linked -- cat /etc/hosts").ok();
        for name in ["target", "nick", id.as_str()] {
            let argv = ["exec", "linked", "--", "getent", "ahostsv4", name];
            assert!(
                world.mossnet(argv).ok().starts_with(&address),
                "{name}: {hosts}"
            );
        }
        assert!(world.pings("linked", "nick"));
        assert_eq!(line(world, "target", "linked"), None);
        assert!(world.line("exec target -- getent hosts linked").run().code != 0);
        world.mossnet(["rm", "-f", "linked", "target"]).ok();
    });
}

#[test]
fn a_link_follows_the_address() {
    World::test(|world| {
        world.sleeper("target", "");
        world.sleeper("linked", "--link target");
        let inode = || world.line("exec linked -- stat -c %i /etc/hosts").ok();
        let before = inode();
        let first = world.address_on("target", "bridge", false);
        let starts = |address: &str| {
            line(world, "linked", "target")
                .is_some_and(|line| line.split_whitespace().next() == Some(address))
        };
        assert!(starts(&first));
        // A new address by a new connection.
        world.network("disconnect bridge target").ok();
        world.network("connect --ip 10.89.0.99 bridge target").ok();
        assert!(
            starts("10.89.0.99"),
            "{:?}",
            line(world, "linked", "target")
        );
        // By its end and a new start of the same name.
        world.mossnet(["rm", "-f", "target"]).ok();
        world.sleeper("target", "--ip 10.89.0.101");
        eventually(
            seconds(5),
            "the link follows a sandbox of the same name",
            || starts("10.89.0.101"),
        );
        world.line("stop -t 0 target").ok();
        world.line("start target").ok();
        let now = world.address_on("target", "bridge", false);
        assert!(starts(&now), "{:?}", line(world, "linked", "target"));
        assert!(world.pings("linked", "target"));
        assert_eq!(inode(), before);
        world.mossnet(["rm", "-f", "linked", "target"]).ok();
    });
}

#[test]
fn a_link_prefers_a_shared_network() {
    World::test(|world| {
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        world.sleeper("target", "--network bridge --network mynet");
        world.sleeper("linked", "--network mynet --link target:nick");
        let address = world.address_on("target", "mynet", false);
        let found = line(world, "linked", "nick").expect("a link");
        assert!(found.starts_with(&address), "{found}");
        world.network("connect --link linked:back mynet solo").run();
        world.sleeper("solo", "");
        world.network("connect --link linked:back mynet solo").ok();
        let found = line(world, "solo", "back").expect("a link by connect");
        assert!(
            found.starts_with(&world.address_on("linked", "mynet", false)),
            "{found}"
        );
        world.mossnet(["rm", "-f", "linked", "target", "solo"]).ok();
    });
}

#[test]
fn a_link_to_nobody_is_refused() {
    World::test(|world| {
        world.sleeper("box", "");
        world.refuses("run --rm --link nobody -- true", "nobody");
        world.line("stop -t 0 box").ok();
        world.refuses("run --rm --link box -- true", "box");
        world.mossnet(["rm", "-f", "box"]).ok();
    });
}
