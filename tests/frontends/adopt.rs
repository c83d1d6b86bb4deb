//! `netns adopt`: network namespaces that others made.

use super::{Guest, HOST, Owner, ask, tell_peer};
use crate::world::{World, eventually, inspect, seconds, servers};

#[test]
fn a_container_of_others_is_a_member() {
    World::test(|world| {
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        world.sleeper("peer", "--network mynet");
        for owner in [Owner::Ours, Owner::Below] {
            let guest = Guest::start(world, "guest", owner);
            let line = format!(
                "netns adopt guest {} --network mynet:alias=nick",
                guest.netns()
            );
            let path = world.mossnet(line.split(' ')).then(["-p", "8080:80"]).ok();
            assert!(path.starts_with("/proc/"), "{path}");
            assert!(guest.pings(&world.address_on("peer", "mynet", false)));
            assert!(world.pings("peer", "nick"), "{owner:?}");
            assert!(guest.pings("127.0.0.1"), "loopback is up");
            servers::tcp("guest", 80, tell_peer);
            let (seen, own) = ask("server", &format!("{HOST}:8080")).expect("an answer");
            assert_eq!(seen, own, "{owner:?}");
            world.network("create --subnet 172.31.2.0/24 second").ok();
            world.network("connect second guest").ok();
            assert!(guest.run("ip addr").ok().contains("172.31.2.2/24"));
            world.line("netns rm guest").ok();
            let links = guest.run("ip -o link").ok();
            assert_eq!(links.lines().count(), 1, "{links}");
            world.network("rm second").ok();
            guest.end();
        }
        world.mossnet(["rm", "-f", "peer"]).ok();
        assert!(inspect::router_interfaces("ve-").is_empty());
    });
}

#[test]
fn it_goes_with_its_process_whoever_is_killed() {
    World::test(|world| {
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        let adopt = |guest: &Guest| {
            let pid = guest.process.pid();
            let netns = guest.netns();
            let line =
                format!("netns adopt guest {netns} --network mynet -p 8080:80 --ends-with {pid}");
            world.line(&line).ok();
        };
        let gone = |what: &str| {
            eventually(seconds(20), what, || {
                let listed = world.line("netns ls -q").ok();
                listed.is_empty() && inspect::router_interfaces("ve-").is_empty()
            });
            assert!(ask("server", &format!("{HOST}:8080")).is_none());
        };
        let guest = Guest::start(world, "guest", Owner::Below);
        adopt(&guest);
        guest.end();
        gone("it goes with its process");

        // Nobody is there to see the end.
        let guest = Guest::start(world, "guest", Owner::Below);
        adopt(&guest);
        inspect::kill_hard(&[inspect::the("daemon")]);
        guest.end();
        gone("the next daemon sees that the process has ended");

        // Another daemon follows it.
        let guest = Guest::start(world, "guest", Owner::Below);
        adopt(&guest);
        inspect::kill_hard(&[inspect::the("daemon")]);
        assert!(!world.line("netns ls -q").ok().is_empty());
        guest.end();
        gone("the next daemon follows the process");

        let guest = Guest::start(world, "guest", Owner::Below);
        adopt(&guest);
        inspect::kill_hard(&[inspect::the("helper")]);
        gone("with the helper go its records");
        guest.end();
    });
}

#[test]
fn what_is_not_ours_is_refused() {
    World::test(|world| {
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        let sibling = Guest::start(world, "sibling", Owner::Sibling);
        let guest = Guest::start(world, "guest", Owner::Ours);
        let (theirs, ours) = (sibling.netns(), guest.netns());
        world
            .line(&format!("netns adopt one {ours} --network mynet"))
            .ok();
        let adopt = |rest: &str| format!("netns adopt two {rest} --network mynet");
        let refused = world.refuses(&adopt(&theirs), "user namespace");
        refused.expect_text("mossnet unshare");
        world.refuses_each([
            (adopt("/proc/self/ns/net"), "user namespace"),
            (adopt("/proc/self/ns/mnt"), "not a network namespace"),
            (adopt("/dev/null"), "not a network namespace"),
            (adopt("/nowhere"), "No such file"),
            (adopt(&ours), "that of sandbox"),
            (adopt(&format!("{ours} --ends-with 999999")), "no process"),
            (
                "run --rm --network container:one -- true".to_owned(),
                "another runtime's",
            ),
            ("exec one -- true".to_owned(), "one"),
        ]);
        let router = world
            .mossnet(["unshare", "mossnet"])
            .then(adopt("/proc/self/ns/net").split(' '))
            .run();
        assert!(router.code != 0, "{router}");
        router.expect_text("the router's network namespace");
        world.line("netns rm one").ok();
        guest.end();
        sibling.end();
    });
}

#[test]
fn no_daemon_is_started_in_the_routers_namespace() {
    World::test(|world| {
        let script = "mossnet ps && kill -9 $1 && while mossnet ps; do :; done";
        world.line("ps").ok();
        let daemon = inspect::the("daemon").to_string();
        let refused = world
            .mossnet(["unshare", "sh", "-c", script, "sh", &daemon])
            .run();
        assert!(refused.code == 0, "{refused}");
        refused.expect_text("cannot be started inside 'mossnet unshare'");
        assert!(inspect::mossnet_processes("daemon").is_empty());
        world.line("ps").ok();
    });
}
