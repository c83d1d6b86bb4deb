//! No program of the machine is needed: mossnet talks to the kernel itself.

use crate::world::dns::Dns;
use crate::world::{SERVER, World, installed, seconds, servers};
use std::fs;

#[test]
fn only_mossnet_and_the_command_are_executed() {
    World::test(|world| {
        if !installed("strace") {
            return;
        }
        Dns::start("server");
        servers::http("server", 80);
        let script = "curl -sS http://www.test.example/";
        let traced = world
            .run(["/bin/sh", "-c", script])
            .timeout(seconds(60))
            .under([
                "strace",
                "-f",
                "-qq",
                "-e",
                "trace=execve,execveat",
                "-o",
                "/tmp/trace",
            ])
            .ok();
        assert_eq!(traced, "203.0.113.2");
        let trace = fs::read_to_string("/tmp/trace").expect("a trace");
        let executed: Vec<_> = trace
            .lines()
            .filter(|line| line.contains("exec") && line.contains("= 0"))
            .filter_map(|line| line.split('"').nth(1))
            .map(|path| path.rsplit('/').next().unwrap_or(path).to_owned())
            .collect();
        for name in &executed {
            // An empty path is execveat(2) of a descriptor: mossnet, entering its namespace.
            let expected = ["", "setpriv", "mossnet", "exe", "sh", "curl"];
            assert!(
                expected.contains(&name.as_str()),
                "{name} was executed\n{trace}"
            );
        }
        let by_descriptor = trace.lines().filter(|line| line.contains("execveat("));
        for line in by_descriptor {
            assert!(line.contains("[\"mossnet\", \"helper\""), "{line}");
        }
        for role in ["exe", "sh", "curl"] {
            assert!(
                executed.iter().any(|name| name == role),
                "{role} is missing: {trace}"
            );
        }
        for tool in ["ip", "nft", "newuidmap", "newgidmap", "sysctl", "iptables"] {
            let tried = trace
                .lines()
                .filter(|line| line.contains(&format!("/{tool}\"")));
            assert_eq!(tried.count(), 0, "{tool}\n{trace}");
        }
    });
}

#[test]
fn an_empty_path_is_enough() {
    World::test(|world| {
        servers::http("server", 80);
        let url = format!("http://{SERVER}/");
        let argv = ["run", "--rm", "--", "/usr/bin/curl", "-sS", &url];
        let seen = world.mossnet_with_path("/nonexistent", &argv).ok();
        assert_eq!(seen, "203.0.113.2");
    });
}
