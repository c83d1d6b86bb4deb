//! Streams have threads of their own: they do not hold up what is small, and end as other connections do.

use crate::world::{SERVER, World, eventually, inspect, seconds, servers};
use std::time::Duration;

const GIBIBYTE: u64 = 1 << 30;

/// Processor time of the relay's threads whose names begin so.
fn time_of(threads: &str) -> Duration {
    let times = inspect::thread_times(inspect::the("relay"));
    let named = times.iter().filter(|(name, _)| name.starts_with(threads));
    named.map(|(_, time)| *time).sum()
}

#[test]
fn a_stream_has_a_thread_of_its_own() {
    World::builder().deadline(120).test(|world| {
        servers::http("server", 80);
        servers::tcp("server", 7000, servers::echo);
        world.sleeper("busy", "");
        let url = format!("http://{SERVER}/bytes/{GIBIBYTE}");
        let fetch = ["exec", "busy", "curl", "-sS", "-o", "/dev/null", &url];
        world.mossnet(fetch).timeout(seconds(60)).ok();
        let (stream, others) = (time_of("bulk-"), time_of("worker-"));
        assert!(stream > others, "{stream:?} of {others:?} besides");
        // What is small stays with the workers.
        let script = format!(
            "import socket\ns=socket.create_connection(('{SERVER}',7000))\n\
             for _ in range(5000):\n s.sendall(b'x')\n assert s.recv(10)==b'x'\n"
        );
        world.python("busy", &script).timeout(seconds(60)).ok();
        let more = (time_of("bulk-") - stream, time_of("worker-") - others);
        assert!(more.0 < more.1, "{more:?}");
    });
}

#[test]
fn streams_that_end_there_leave_nothing() {
    World::builder().deadline(120).test(|world| {
        servers::http("server", 80);
        world.sleeper("busy", "");
        let url = format!("http://{SERVER}/bytes/{GIBIBYTE}");
        let fetch = format!("curl -sS -m MOST -o /dev/null {url}");
        let one = fetch.replace("MOST", "60");
        // To the end, and given up in the middle, by a reset and by the death of the container.
        let some = format!(
            "for i in 1 2 3 4; do {} & done; for i in 1 2 3; do {} & done; wait; true",
            fetch.replace("MOST", "60"),
            fetch.replace("MOST", "0.3"),
        );
        let run = world.mossnet(["exec", "busy", "sh", "-c", &some]);
        run.timeout(seconds(90)).ok();
        let endless = format!("while :; do {one}; done");
        world.detached("dies", ["sh", "-c", &endless]);
        let time = time_of("bulk-");
        eventually(seconds(20), "its stream is a bulk worker's", || {
            time_of("bulk-") > time
        });
        world.mossnet(["rm", "-f", "dies"]).ok();
        let list = ["ss", "-Htn"];
        let left = || world.host(list).ok() + &inspect::in_router(list).ok();
        eventually(seconds(20), "no connection", || left().is_empty());
    });
}
