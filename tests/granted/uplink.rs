//! `--uplink kernel`.

use super::{GRANTS, world};
use crate::world::{SERVER, SERVER6, World, servers};

fn prepared(world: &World) {
    world.grant(GRANTS);
    world.forward();
}

/// A network of both families.
fn network(world: &World, name: &str) {
    let argv = ["network", "create", "--uplink", "kernel", "--ipv6", name];
    world.mossnet(argv).ok();
}

#[test]
fn everything_leaves_and_the_host_reaches_containers() {
    world().test(|world| {
        prepared(world);
        network(world, "fast");
        servers::http("server", 80);
        let run = ["run", "--rm", "--network", "fast", "--", "sh", "-c"];
        let script = format!(
            "curl -sS http://{SERVER}/ && curl -sS 'http://[{SERVER6}]/' && \
             ping -c 1 -W 5 {SERVER} && ping -c 1 -W 5 {SERVER6}"
        );
        let seen = world.mossnet(run).then([&script]).ok();
        assert_eq!(seen.matches("1 received").count(), 2, "{seen}");
        assert!(seen.starts_with("203.0.113.22001:db8:113::2"), "{seen}");
    });
}
