//! Many at once, and two worlds beside each other.

use crate::world::{SERVER, World, inspect, seconds, servers};
use std::collections::BTreeSet;

#[test]
fn twenty_runs_at_once() {
    World::test(|world| {
        servers::http("server", 80);
        let script = format!("ip -o -4 addr show eth0; curl -sS http://{SERVER}/");
        let running: Vec<_> = (0..20)
            .map(|_| world.sh(&script).timeout(seconds(60)).start())
            .collect();
        let mut addresses = BTreeSet::new();
        for one in running {
            let output = one.wait().expect_code(0);
            assert!(output.stdout.ends_with("203.0.113.2"), "{output}");
            let address = output.stdout.split_whitespace().nth(3).expect("an address");
            addresses.insert(address.to_owned());
        }
        assert!(addresses.len() > 1, "{addresses:?}");
        assert_eq!(world.mossnet(["ps", "-a", "-q"]).ok(), "");
    });
}

#[test]
fn twenty_detached_at_once_have_twenty_addresses() {
    World::test(|world| {
        let running: Vec<_> = (0..20)
            .map(|i| {
                world
                    .mossnet([
                        "run",
                        "-d",
                        "--name",
                        &format!("box{i}"),
                        "--",
                        "sleep",
                        "1000",
                    ])
                    .start()
            })
            .collect();
        for one in running {
            one.wait().expect_code(0);
        }
        let addresses: BTreeSet<_> = (0..20)
            .map(|i| world.address(&format!("box{i}"), false))
            .collect();
        assert_eq!(addresses.len(), 20);
        world.mossnet(["stop", "-t", "0", "--all"]).ok();
    });
}

#[test]
fn the_same_name_at_once_goes_to_one() {
    World::test(|world| {
        let running: Vec<_> = (0..10)
            .map(|_| {
                world
                    .mossnet(["run", "-d", "--name", "same", "--", "sleep", "1000"])
                    .start()
            })
            .collect();
        let codes: Vec<_> = running.into_iter().map(|one| one.wait().code).collect();
        assert_eq!(
            codes.iter().filter(|code| **code == 0).count(),
            1,
            "{codes:?}"
        );
        assert_eq!(
            codes.iter().filter(|code| **code == 125).count(),
            9,
            "{codes:?}"
        );
        world.mossnet(["rm", "-f", "same"]).ok();
    });
}

#[test]
fn two_roots_never_meet() {
    World::test(|world| {
        let other = "/run/world/other";
        let at = |root: &'static str, args: &str| world.mossnet_at(root, args.split(' '));
        let root = crate::world::ROOT;
        for root in [root, other] {
            at(root, "run -d --name web --ip 10.89.0.5 -- nc -lk 8080").ok();
        }
        let list = |root| at(root, "ps -q").ok();
        assert_ne!(list(root), list(other));
        assert_eq!(list(root).lines().count() + list(other).lines().count(), 2);
        at(root, "rm -f web").ok();
        assert_eq!(list(other).lines().count(), 1);
        let closed = at(root, "run --rm -- nc -z -w1 10.89.0.5 8080").run();
        assert!(closed.code != 0, "the other root's sandbox: {closed}");
        at(other, "run --rm -- nc -z -w2 10.89.0.5 8080").ok();
        assert_eq!(inspect::mossnet_processes("helper").len(), 2);
        at(other, "rm -f web").ok();
        inspect::kill_hard(&inspect::mossnet_processes("daemon"));
        inspect::kill_hard(&inspect::mossnet_processes("helper"));
    });
}
