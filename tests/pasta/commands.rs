//! A command in namespaces of its own.

use super::who;
use crate::world::{SERVER, World, installed};

#[test]
fn its_code_is_pastas() {
    World::test(|world| {
        let head = ["mossnet", "pasta", "--config-net"];
        let quiet = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"];
        let pasta = |words: &[&str]| {
            let words = head.iter().chain(&quiet).chain(words).copied();
            world.user(words.collect::<Vec<_>>())
        };
        pasta(&["sh", "-c", "exit 7"]).fails(7);
        pasta(&["/nonexistent/x"])
            .fails(127)
            .expect_text("/nonexistent/x");
        pasta(&["/etc"]).fails(126);
        // It is root of its namespaces, and the first of its processes.
        let text = pasta(&["sh", "-c", "id -u; echo $$; ip -o -4 addr show eth0"]).ok();
        assert!(text.starts_with("0\n1\n"), "{text}");
        assert!(text.contains("203.0.113.2/24"), "{text}");
        // Words from stdin reach it.
        let text = pasta(&["cat"]).stdin("to and fro").ok();
        assert_eq!(text, "to and fro");
    });
}

#[test]
fn everything_follows_by_default() {
    World::test(|world| {
        if !installed("python3") {
            return;
        }
        who("server", SERVER, 7000);
        who("host", "127.0.0.1", 7003);
        let script = format!(
            r"
import socket, time
def ask(host, port):
    s = socket.create_connection((host, port), 10)
    return b''.join(iter(lambda: s.recv(100), b'')).decode()
print(ask('{SERVER}', 7000))
print(ask('203.0.113.1', 7003))
for attempt in range(100):
    try:
        print(ask('127.0.0.1', 7003)); break
    except ConnectionRefusedError: time.sleep(0.1)
"
        );
        let argv = ["mossnet", "pasta", "--config-net", "python3", "-c", &script];
        let text = world.user(argv).ok();
        assert_eq!(text, "203.0.113.2\n127.0.0.1\n127.0.0.1\n");
    });
}

/// It has no power over the router's namespace, which is not its own.
#[test]
fn it_is_root_of_nothing_else() {
    World::test(|world| {
        let script = r#"
            for p in /proc/[0-9]*; do echo "${p#/proc/} $(tr '\0' ' ' <$p/cmdline)"; done | grep -c relay || true
            ip link set eth0 down && ip link set eth0 up && echo own"#;
        let argv = ["mossnet", "pasta", "--config-net", "sh", "-c", script];
        let text = world.user(argv).ok();
        assert!(text.contains("own"), "{text}");
    });
}
