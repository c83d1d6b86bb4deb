//! OCI hooks, called by crun and runc inside `mossnet unshare`.

use super::{HOST, ask};
use crate::world::{Cmd, Running, World, eventually, inspect, installed, seconds};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;

const HOOK: &str = "/run/world/bin/mossnet-oci-hook";
const BUNDLE: &str = "/run/world/bundle";
/// With a control group file system of the newer kind, which both runtimes know how to do without.
const PREPARE: &str = "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";

/// What runs in a container: answers everybody on port 80.
const SERVER: &str = "echo ready; while :; do echo served | nc -l -p 80; done";

struct Bundle<'a> {
    world: &'a World,
    runtime: &'a str,
}

impl<'a> Bundle<'a> {
    fn new(world: &'a World, runtime: &'a str) -> Self {
        let _ = symlink("mossnet", HOOK);
        for directory in ["bin", "proc", "dev", "etc", "tmp"] {
            fs::create_dir_all(format!("{BUNDLE}/rootfs/{directory}")).expect("a directory");
        }
        fs::copy("/bin/busybox", format!("{BUNDLE}/rootfs/bin/busybox")).expect("busybox");
        for applet in ["sh", "ip", "ping", "nc", "sleep", "echo", "cat"] {
            let _ = symlink("busybox", format!("{BUNDLE}/rootfs/bin/{applet}"));
        }
        Self { world, runtime }
    }

    /// Writes the configuration of a container that runs `script`.
    fn write(&self, script: &str, annotations: &Value, nested: bool, hook: &[&str]) {
        let kinds = ["pid", "network", "ipc", "uts", "mount"];
        let mut namespaces: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
        let ids = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        if nested {
            namespaces.push(json!({"type": "user"}));
        }
        let words = [&["mossnet-oci-hook"], hook].concat();
        let hook = json!([{"path": HOOK, "args": words}]);
        let capabilities = ["bounding", "effective", "permitted"].map(|set| {
            (
                set.to_owned(),
                json!(["CAP_NET_RAW", "CAP_NET_BIND_SERVICE"]),
            )
        });
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
                "args": ["sh", "-c", script], "noNewPrivileges": true,
                "capabilities": capabilities.into_iter().collect::<serde_json::Map<_, _>>(),
            },
            "root": {"path": "rootfs", "readonly": true},
            "hostname": "box",
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "annotations": annotations,
            "hooks": {"createRuntime": hook, "poststop": hook},
            "linux": {"namespaces": namespaces},
        });
        if nested {
            config["linux"]["uidMappings"] = ids.clone();
            config["linux"]["gidMappings"] = ids;
        }
        fs::write(format!("{BUNDLE}/config.json"), config.to_string()).expect("config.json");
    }

    /// The runtime, inside `mossnet unshare`.
    fn call(&self, words: &str) -> Cmd {
        let inside = [
            "unshare", "unshare", "--mount", "--cgroup", "sh", "-c", PREPARE, "sh",
        ];
        self.told(self.world.mossnet(inside), words)
    }

    fn told(&self, inside: Cmd, words: &str) -> Cmd {
        let root = format!("/run/world/{}", self.runtime);
        let command = inside.then([self.runtime, "--root", &root]);
        let command = match self.runtime {
            "crun" => command.then(["--cgroup-manager=disabled"]),
            _ => command,
        };
        command.then(words.split(' '))
    }

    fn run(&self, id: &str) -> Cmd {
        self.call(&format!("run -b {BUNDLE} {id}"))
    }

    #[track_caller]
    fn start(&self, id: &str) -> Running {
        let mut running = self.run(id).timeout(seconds(80)).start();
        running.expect("ready");
        running
    }
}

const ROOT: &[&str] = &["--root", crate::world::ROOT];

#[track_caller]
fn nothing_is_left(world: &World) {
    eventually(seconds(20), "the container leaves nothing", || {
        world.line("ps -aq").ok().is_empty() && inspect::router_interfaces("ve-").is_empty()
    });
    assert!(ask("server", &format!("{HOST}:8080")).is_none());
}

/// A world with time for both.
fn long() -> crate::world::Builder {
    World::builder().deadline(180)
}

fn for_each_runtime(world: &World, test: impl Fn(&Bundle)) {
    for runtime in ["crun", "runc"] {
        if installed(runtime) {
            test(&Bundle::new(world, runtime));
        }
    }
}

#[test]
fn annotations_join_a_container() {
    long().test(|world| for_each_runtime(world, |bundle| joined(world, bundle)));
}

fn joined(world: &World, bundle: &Bundle) {
    let _ = world.network("create --subnet 172.31.1.0/24 mynet").run();
    let _ = world.network("create --subnet 172.31.2.0/24 other").run();
    world.sleeper("peer", "--network mynet");
    let annotations = json!({
        "org.mossnet.networks": "mynet,other", "org.mossnet.ip": "172.31.1.50",
        "org.mossnet.publish": "8080:80", "org.mossnet.aliases": "db",
    });
    for nested in [false, true] {
        bundle.write(SERVER, &annotations, nested, ROOT);
        let running = bundle.start("box");
        assert!(world.pings("peer", "172.31.1.50"), "{}", bundle.runtime);
        assert!(world.pings("peer", "box") && world.pings("peer", "db"));
        let (answer, _) = ask("server", &format!("{HOST}:8080")).expect("an answer");
        assert_eq!(answer, "served\n");
        let inside = bundle.call("exec box ip addr").ok();
        assert!(
            inside.contains("172.31.1.50/24") && inside.contains("172.31.2."),
            "{inside}"
        );
        bundle.call("kill box KILL").ok();
        let _ = running.wait();
        // The runtime that ran it may have done so.
        let _ = bundle.call("delete -f box").run();
        world.mossnet(["stop", "-t", "0", "peer"]).ok();
        nothing_is_left_but_peer(world);
        world.line("start peer").ok();
    }
    world.mossnet(["rm", "-f", "peer"]).ok();
    // One that ends by itself.
    bundle.write("ping -c1 172.31.1.1", &annotations, true, ROOT);
    let shown = bundle.run("box").ok();
    assert!(shown.contains("1 packets received"), "{shown}");
    nothing_is_left(world);
    // Without annotations of ours: nothing.
    bundle.write("ip -o link", &json!({"org.example": "x"}), false, ROOT);
    assert!(!bundle.run("box").ok().contains("eth0"));
    nothing_is_left(world);
}

#[track_caller]
fn nothing_is_left_but_peer(world: &World) {
    eventually(seconds(20), "the container leaves nothing", || {
        let listed = world.mossnet(["ps", "-a", "--format", "{{.Names}}"]).ok();
        listed.trim() == "peer" && inspect::router_interfaces("ve-").is_empty()
    });
}

#[test]
fn names_resolve_in_a_container() {
    long().test(|world| for_each_runtime(world, |bundle| resolved(world, bundle)));
}

fn resolved(world: &World, bundle: &Bundle) {
    let _ = world.network("create --subnet 172.31.1.0/24 mynet").run();
    world.sleeper("peer", "--network mynet");
    let file = format!("{BUNDLE}/rootfs/etc/resolv.conf");
    let joined = json!({"org.mossnet.networks": "mynet"});
    let script = "cat /etc/resolv.conf; ping -c1 peer";
    for nested in [false, true] {
        let _ = fs::remove_file(&file);
        for own in [None, Some("nameserver 192.0.2.1")] {
            if let Some(text) = own {
                fs::write(&file, text).expect("write a file");
            }
            bundle.write(script, &joined, nested, ROOT);
            let shown = bundle.run("box").ok();
            assert!(shown.contains("nameserver 172.31.1.1\n"), "{shown}");
            assert!(shown.contains("1 packets received"), "{shown}");
            let left = fs::read_to_string(&file).expect("a file");
            assert_eq!(left, own.unwrap_or_default(), "the image stays as it is");
        }
        let unwanted = json!({"org.mossnet.networks": "mynet", "org.mossnet.dns": "none"});
        bundle.write("cat /etc/resolv.conf", &unwanted, nested, ROOT);
        assert_eq!(bundle.run("box").ok(), "nameserver 192.0.2.1");
    }
    unusual(bundle, &file);
    let _ = fs::remove_file(&file);
    world.mossnet(["rm", "-f", "peer"]).ok();
    nothing_is_left(world);
}

/// What a configuration mounts stays, unless `always`; links do not lead out.
fn unusual(bundle: &Bundle, file: &str) {
    let config = format!("{BUNDLE}/config.json");
    let mounted = "/run/world/mounted.conf";
    fs::write(mounted, "nameserver 192.0.2.2").expect("write a file");
    for (word, shows) in [("", "192.0.2.2"), ("always", "172.31.1.1")] {
        let mut annotations = json!({"org.mossnet.networks": "mynet"});
        if !word.is_empty() {
            annotations["org.mossnet.dns"] = word.into();
        }
        bundle.write("cat /etc/resolv.conf", &annotations, false, ROOT);
        let text = fs::read_to_string(&config).expect("config.json");
        let mut whole: Value = serde_json::from_str(&text).expect("JSON");
        let mounts = whole["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/etc/resolv.conf", "type": "bind",
            "source": mounted, "options": ["bind"]}));
        fs::write(&config, whole.to_string()).expect("config.json");
        let shown = bundle.run("box").ok();
        assert!(shown.contains(shows), "{word}: {shown}");
    }
    // What is mounted may be covered, but not written.
    let left = fs::read_to_string(mounted).expect("a file");
    assert_eq!(left, "nameserver 192.0.2.2");
    fs::remove_file(file).expect("remove a file");
    symlink("/run/world/victim.conf", file).expect("a link");
    let joined = json!({"org.mossnet.networks": "mynet"});
    bundle.write("echo started", &joined, false, ROOT);
    assert_eq!(bundle.run("box").ok(), "started\n");
    assert!(!std::path::Path::new("/run/world/victim.conf").exists());
}

#[test]
fn whoever_is_killed_leaves_nothing() {
    long().test(|world| for_each_runtime(world, |bundle| killed(world, bundle)));
}

fn killed(world: &World, bundle: &Bundle) {
    let _ = world.network("create --subnet 172.31.1.0/24 mynet").run();
    let annotations = json!({"org.mossnet.networks": "mynet", "org.mossnet.publish": "8080:80"});
    bundle.write(SERVER, &annotations, true, ROOT);
    let first_process = |bundle: &Bundle| -> i32 {
        let state: Value = serde_json::from_str(&bundle.call("state box").ok()).expect("JSON");
        i32::try_from(state["pid"].as_i64().expect("a pid")).expect("a pid")
    };
    // The runtime, then the container; nobody calls poststop.
    let running = bundle.start("box");
    let container = first_process(bundle);
    inspect::kill_hard(&[running.pid()]);
    inspect::kill_hard(&[container]);
    drop(running);
    nothing_is_left(world);
    // Called late it finds nothing, and is content.
    bundle.call("delete -f box").ok();

    let running = bundle.start("box");
    let container = first_process(bundle);
    inspect::kill_hard(&[inspect::the("daemon"), running.pid(), container]);
    drop(running);
    nothing_is_left(world);
    bundle.call("delete -f box").ok();
}

#[test]
fn what_cannot_be_stops_the_container() {
    long().test(|world| for_each_runtime(world, |bundle| stopped(world, bundle)));
}

fn stopped(world: &World, bundle: &Bundle) {
    let _ = world.network("create --subnet 172.31.1.0/24 mynet").run();
    world.line("netns create box --network mynet").ok();
    let before = world.settled();
    for (key, value, word) in [
        ("org.mossnet.networks", "nowhere", "nowhere"),
        (
            "org.mossnet.network",
            "mynet",
            "org.mossnet.network is not known",
        ),
        ("org.mossnet.ip", "x", "org.mossnet.ip"),
    ] {
        // crun throws away what a hook says, unless it is told where to.
        let said = "/run/world/hook.said";
        let _ = fs::remove_file(said);
        let mut annotations =
            json!({"org.mossnet.networks": "mynet", "run.oci.hooks.stderr": said});
        annotations[key] = value.into();
        bundle.write("echo started", &annotations, false, ROOT);
        let refused = bundle.run("box").run();
        assert!(
            refused.code != 0 && !refused.stdout.contains("started"),
            "{refused}"
        );
        let said = fs::read_to_string(said).unwrap_or_default() + &refused.stderr;
        assert!(said.contains(word), "{said}");
        let _ = bundle.call("delete -f box").run();
        // Not even the user's own sandbox of that name.
        assert_eq!(before, world.settled(), "{key}={value}");
    }
    world.line("netns rm box").ok();
}

#[test]
fn a_malformed_state_is_one_clear_line() {
    World::test(|world| {
        let _ = symlink("mossnet", HOOK);
        for (state, word) in [
            ("", "malformed"),
            ("[]", "malformed"),
            (r#"{"id": "x"}"#, "malformed"),
            (
                r#"{"id": "x", "status": "creating", "annotations": {"org.mossnet.networks": "a"}}"#,
                "no mossnet daemon runs",
            ),
        ] {
            let refused = world.user([HOOK]).stdin(state).fails(1);
            refused.expect_text(word).expect_one_clear_line();
        }
        let long = " ".repeat(10 << 20);
        let refused = world.user([HOOK]).stdin(long).fails(1);
        refused.expect_text("longer").expect_one_clear_line();
        world.user([HOOK, "x"]).fails(1).expect_one_clear_line();
        // Where nothing of ours ever ran there is nothing to remove.
        let stopped =
            r#"{"id": "x", "status": "stopped", "annotations": {"org.mossnet.networks": "a"}}"#;
        world.user([HOOK]).stdin(stopped).ok();
    });
}

/// Runtimes give hooks no environment, and ours run as root of our user namespace.
#[test]
fn a_hook_finds_the_daemon_by_itself() {
    World::test(|world| {
        if !installed("crun") {
            return;
        }
        let bundle = Bundle::new(world, "crun");
        let mossnet = |words: &str| {
            let command = world.user(["mossnet"]).then(words.split(' '));
            command.env("XDG_RUNTIME_DIR", "/run/user/1000")
        };
        mossnet("network create --subnet 172.31.1.0/24 mynet").ok();
        bundle.write(
            "ip addr",
            &json!({"org.mossnet.networks": "mynet"}),
            false,
            &[],
        );
        let inside = mossnet("unshare unshare --mount --cgroup sh -c").then([PREPARE, "sh"]);
        let shown = bundle.told(inside, &format!("run -b {BUNDLE} box")).ok();
        assert!(shown.contains("172.31.1."), "{shown}");
        mossnet("shutdown --all").ok();
    });
}
