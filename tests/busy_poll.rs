//! How the relay waits: it looks for the next event while they follow each other closely, and uses no processor time
//! when there is nothing to do.

use crate::world::{SERVER, World, inspect, seconds, servers};

/// Bounces a byte off the server that often.
const REQUESTS: u32 = 2000;

fn bounce(world: &World) {
    let script = format!(
        "import socket\ns=socket.create_connection(('{SERVER}',7000))\ns.setsockopt(6,1,1)\n\
         for _ in range({REQUESTS}):\n s.sendall(b'x')\n assert s.recv(10)==b'x'\n"
    );
    world.python("busy", &script).timeout(seconds(60)).ok();
}

#[test]
fn a_relay_with_nothing_to_do_uses_no_processor_time() {
    World::test(|world| {
        servers::tcp("server", 7000, servers::echo);
        world.sleeper("busy", "");
        bounce(world);
        let relay = inspect::the("relay");
        let before = inspect::processor_time(relay);
        std::thread::sleep(seconds(3));
        let used = inspect::processor_time(relay) - before;
        // Three ticks of the clock; who looks for events all the time uses a hundred a second.
        assert!(used.as_millis() <= 30, "{used:?}");
    });
}

#[test]
fn a_window_that_is_none_is_named() {
    World::test(|world| {
        for wrong in ["soon", "1001", "-1"] {
            let run = world.mossnet(["run", "true"]);
            let refused = run.env("MOSSNET_BUSY_POLL", wrong).fails(125);
            refused
                .expect_text(&format!("MOSSNET_BUSY_POLL='{wrong}' must be"))
                .expect_clear();
            world.mossnet(["shutdown", "--all"]).ok();
        }
        world.mossnet(["run", "true"]).ok();
    });
}
