//! Whoever is killed, the next one finds its way.

use super::{PLUGIN, Runtime};
use crate::frontends::{Guest, Owner};
use crate::world::{World, eventually, inspect, seconds};
use serde_json::json;

#[test]
fn a_daemon_that_is_killed_knows_its_containers() {
    World::test(|world| {
        let runtime = Runtime::new(world);
        let guest = Guest::start(world, "guest", Owner::Ours);
        let result = runtime.add("one", &guest, &json!({})).ok();
        inspect::kill_hard(&[inspect::the("daemon")]);
        world.line("ps").ok();
        runtime.check("one", &guest, &result, &json!({})).ok();
        // A runtime that is killed while it adds: DEL takes away whatever there is by then.
        let other = Guest::start(world, "other", Owner::Ours);
        for pause in [0, 1, 3, 10, 30] {
            let variables = [
                "CNI_COMMAND=ADD".to_owned(),
                "CNI_CONTAINERID=two".to_owned(),
                format!("CNI_NETNS={}", other.netns()),
                "CNI_IFNAME=eth0".to_owned(),
            ];
            let command = world
                .mossnet(["unshare", "env"])
                .then(variables)
                .then([PLUGIN]);
            let adding = command
                .stdin(runtime.config(&json!({})).to_string())
                .start();
            std::thread::sleep(std::time::Duration::from_millis(pause));
            inspect::kill_hard(&[adding.pid()]);
            drop(adding);
            eventually(
                seconds(20),
                "a request under way is over, and then removed",
                || {
                    runtime.del("two", &other.netns()).ok();
                    other.run("ip -o link").ok().lines().count() == 1
                },
            );
        }
        runtime.del("one", &guest.netns()).ok();
        eventually(seconds(20), "nothing is left", || {
            let _ = runtime.del("two", "");
            world.line("ps -aq").ok().is_empty()
        });
        runtime.nothing_is_left();
        guest.end();
        other.end();
    });
}
