//! Who may do what: sandboxes, relay, daemon and helper, read from the running processes.

use crate::world::{Cmd, ROOT, SERVER, World, eventually, inspect, seconds, servers};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Docker's default capabilities, as in CapEff.
const DOCKER_DEFAULT: &str = "00000000a80425fb";
const NONE: &str = "0000000000000000";
const NET_RAW: &str = "0000000000002000";
const NET_ADMIN: &str = "0000000000001000";

fn user_namespace(pid: i32) -> String {
    fs::read_link(format!("/proc/{pid}/ns/user"))
        .expect("a process")
        .display()
        .to_string()
}

fn sandbox_pid(world: &World, name: &str) -> i32 {
    let pid = world.inspect(name)["Pid"].as_i64().expect("a pid");
    i32::try_from(pid).expect("a pid")
}

#[test]
fn a_sandbox_has_dockers_capabilities() {
    World::test(|world| {
        let field = |options: &[&str], field: &str| {
            let status = world
                .mossnet(["run", "--rm"])
                .then(options)
                .then(["--", "cat", "/proc/self/status"])
                .ok();
            let line = status
                .lines()
                .find(|line| line.starts_with(field))
                .expect("a field")
                .to_owned();
            line.split_whitespace().nth(1).expect("a value").to_owned()
        };
        assert_eq!(field(&[], "CapEff"), DOCKER_DEFAULT);
        assert_eq!(field(&[], "CapBnd"), DOCKER_DEFAULT);
        assert_eq!(field(&["--cap-drop", "ALL"], "CapEff"), NONE);
        assert_eq!(
            field(&["--cap-drop", "ALL", "--cap-add", "NET_RAW"], "CapEff"),
            NET_RAW
        );
        assert_ne!(field(&["--cap-add", "NET_ADMIN"], "CapEff"), DOCKER_DEFAULT);
    });
}

#[test]
fn root_in_a_sandbox_has_no_power_over_the_router() {
    World::test(|world| {
        world
            .mossnet([
                "run",
                "-d",
                "--name",
                "box",
                "--cap-add",
                "ALL",
                "--",
                "sleep",
                "1000",
            ])
            .ok();
        let pid = sandbox_pid(world, "box");
        let router = inspect::router_netns().expect("a router netns");
        let router = router.to_string_lossy().trim_end_matches('/').to_owned();
        // Root of the sandbox's user namespace, with the router netns already in its hand.
        let enter = |namespace: &str| {
            let script = format!(
                "exec 9<{router}; exec nsenter --user={namespace} --preserve-credentials -- \
                 nsenter --net=/proc/self/fd/9 ip link add intruder type veth peer name intruder2"
            );
            Cmd::new(["bash", "-c", &script]).run()
        };
        let refused = enter(&format!("/proc/{pid}/ns/user"));
        assert!(refused.code != 0, "{refused}");
        refused.expect_text("Operation not permitted");
        assert!(inspect::router_interfaces("intruder").is_empty());
        // The same steps one level up succeed: it is the namespace that refuses, not the script.
        let helper = inspect::the("helper");
        enter(&format!("/proc/{helper}/ns/user")).expect_code(0);
        assert_eq!(inspect::router_interfaces("intruder").len(), 2);
        inspect::in_router(["ip", "link", "del", "intruder"]).ok();

        let inside = user_namespace(pid);
        assert_ne!(inside, user_namespace(helper));
        assert_ne!(inside, user_namespace(1));
        let exec = |script: &str| {
            world
                .mossnet(["exec", "box", "--", "sh", "-c", script])
                .run()
        };
        let seen = exec("ls /proc | grep -c '^[0-9]'; ip -o link | wc -l");
        assert_eq!(seen.stdout.lines().nth(1), Some("2"), "{seen}");
        let moved = exec(
            "ip link add v0 type veth peer name v1 && ip link set v1 netns 1 && ip link del v0; ip link set eth0 down; ip link set eth0 up",
        );
        assert!(!inspect::router_interfaces("").contains("v1"), "{moved}");
        world.mossnet(["rm", "-f", "box"]).ok();
    });
}

#[test]
fn the_runtime_directory_is_hidden() {
    World::test(|world| {
        let seen = world.sh(&format!("ls -A {ROOT}/run | wc -l")).ok();
        assert_eq!(seen.trim(), "0");
        let socket = world.sh(&format!("test -S {ROOT}/run/api.sock")).run();
        assert!(socket.code != 0, "the API is out of reach of sandboxes");
        // With every capability the mask comes off; the sockets behind it still give no answer.
        let script = format!(
            "import os, socket, struct\n\
             os.system('umount {ROOT}/run')\n\
             hello = b'{{\"request\":\"hello\",\"version\":1}}'\n\
             for name, words in (\n\
             \x20   ('api', b'GET /v1/info HTTP/1.1\\r\\nHost: mossnet\\r\\n\\r\\n'),\n\
             \x20   ('helper', struct.pack('<I', len(hello)) + hello)):\n\
             \x20 s = socket.socket(socket.AF_UNIX)\n\
             \x20 try:\n\
             \x20   s.connect(f'{ROOT}/run/{{name}}.sock')\n\
             \x20   s.sendall(words)\n\
             \x20   print(name, 'answers', s.recv(1000))\n\
             \x20 except (FileNotFoundError, ConnectionError): print(name, 'answers', b'')\n"
        );
        let argv = [
            "run",
            "--rm",
            "--cap-add",
            "ALL",
            "--",
            "python3",
            "-c",
            &script,
        ];
        assert_eq!(
            world.mossnet(argv).ok(),
            "api answers b''\nhelper answers b''\n",
            "not even with every capability"
        );
        // The same words get an answer from outside of sandboxes.
        let outside = world.user(["python3", "-c", &script]).ok();
        assert!(outside.contains("api answers b'HTTP/1.1 200"), "{outside}");
    });
}

#[test]
fn files_and_sockets_are_the_users_alone() {
    World::test(|world| {
        world.detached("box", ["sleep", "1000"]);
        for (path, mode) in [
            ("run", 0o700),
            ("data", 0o700),
            ("run/api.sock", 0o600),
            ("run/stdio.sock", 0o600),
            ("run/helper.sock", 0o600),
        ] {
            let metadata = fs::metadata(Path::new(ROOT).join(path)).expect(path);
            assert_eq!(metadata.permissions().mode() & 0o777, mode, "{path}");
        }
        let tcp = world.host(["ss", "-Htlnp"]).ok();
        assert!(!tcp.contains("mossnet"), "the API is on no TCP port: {tcp}");
        world.mossnet(["rm", "-f", "box"]).ok();
    });
}

#[test]
fn the_relay_is_confined() {
    World::test(|world| {
        servers::http("server", 80);
        world.detached("box", ["sleep", "1000"]);
        world
            .run(["curl", "-sS", &format!("http://{SERVER}/")])
            .ok();
        let relay = inspect::complete_relay();
        let threads = inspect::threads(relay);
        assert!(threads.len() >= 3, "workers, socket pool, DNS: {threads:?}");
        let (mut with_net_raw, mut with_net_admin) = (0, 0);
        for thread in &threads {
            let field = |name: &str| {
                inspect::status_at(&format!("/proc/{relay}/task/{thread}/status"), name)
            };
            let name = field("Name");
            let expected = match name.as_str() {
                "socket-pool" => {
                    with_net_raw += 1;
                    NET_RAW
                }
                // To give a connection to the kernel.
                worker if worker.starts_with("worker-") => {
                    with_net_admin += 1;
                    NET_ADMIN
                }
                _ => NONE,
            };
            assert_eq!(field("CapEff"), expected, "{name}");
            assert_eq!(field("CapPrm"), expected, "{name}");
            assert_eq!(field("CapInh"), NONE, "{name}");
            assert_eq!(field("CapAmb"), NONE, "{name}");
            assert_eq!(field("NoNewPrivs"), "1", "{name}");
            assert_eq!(field("Seccomp"), "2", "{name}");
        }
        assert_eq!(with_net_raw, 1, "one thread makes transparent sockets");
        assert!(with_net_admin >= 1, "a worker");
        assert_eq!(
            user_namespace(relay),
            user_namespace(inspect::the("helper"))
        );
        assert_ne!(user_namespace(relay), user_namespace(1));
        let root = fs::read_dir(format!("/proc/{relay}/root")).expect("its root");
        assert_eq!(root.count(), 0, "an empty root directory");
        for link in inspect::descriptors(relay) {
            let harmless = ["socket:", "pipe:", "anon_inode:", "/dev/null", "net:["];
            let log = link.ends_with(".log");
            assert!(
                log || harmless.iter().any(|h| link.starts_with(h)),
                "the relay holds {link}"
            );
        }
        world.mossnet(["rm", "-f", "box"]).ok();
    });
}

#[test]
fn daemon_and_helper_have_what_they_need() {
    World::test(|world| {
        world.detached("box", ["sleep", "1000"]);
        let daemon = inspect::the("daemon");
        for field in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(inspect::status(daemon, field), NONE, "daemon {field}");
        }
        assert_eq!(
            user_namespace(daemon),
            user_namespace(1),
            "the daemon makes no namespace"
        );
        let helper = inspect::the("helper");
        assert_ne!(user_namespace(helper), user_namespace(1));
        assert_eq!(
            inspect::status(helper, "CapEff"),
            NONE,
            "nothing effective between requests"
        );
        assert_eq!(
            inspect::status(helper, "Uid").split_whitespace().next(),
            Some("1000")
        );
        world.mossnet(["rm", "-f", "box"]).ok();
    });
}

#[test]
fn the_hosts_loopback_is_out_of_reach() {
    World::test(|world| {
        let host = servers::listener("host", 9999);
        let script = "import socket\nfor a in ('127.0.0.1','10.89.0.1','169.254.77.1','169.254.77.2'):\n\
                      \x20 for p in (9999,7000):\n\x20  s=socket.socket()\n\x20  s.settimeout(1)\n\
                      \x20  try: s.connect((a,p)); print('reached',a,p)\n\x20  except OSError: pass";
        assert_eq!(world.run(["python3", "-c", script]).ok(), "");
        drop(host);
    });
}

#[test]
fn what_a_sandbox_sends_cannot_name_other_addresses() {
    World::test(|world| {
        world.detached("web", ["nc", "-lk", "8080"]);
        let address = world.address("web", false);
        eventually(
            seconds(5),
            "sandboxes of one network reach each other",
            || world.run(["nc", "-z", "-w1", &address, "8080"]).run().code == 0,
        );
        world.mossnet(["rm", "-f", "web"]).ok();
    });
}
