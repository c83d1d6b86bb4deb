//! `start`, `restart`, `netns`, `unshare`, formats and graphs, through the real program.

use crate::world::{World, eventually, inspect, seconds};

fn line_of(text: &str, words: &[&str]) -> bool {
    text.lines()
        .any(|line| words.iter().all(|word| line.contains(word)))
}

#[test]
fn what_has_ended_starts_again() {
    World::test(|world| {
        let script = "echo run; trap 'exit 5' TERM; while :; do sleep 0.05; done";
        world.detached("box", ["sh", "-c", script]);
        let runs = |count: usize| {
            eventually(seconds(5), "it writes to its log", || {
                let log = world.mossnet(["logs", "box"]).ok();
                log.matches("run").count() == count
            });
        };
        runs(1);
        let address = world.address("box", false);
        world.mossnet(["stop", "box"]).ok();
        assert_eq!(world.mossnet(["start", "box"]).ok(), "box\n");
        runs(2);
        assert_eq!(world.address("box", false), address);
        let twice = world.mossnet(["start", "box"]).fails(1);
        twice.expect_text("box").expect_one_clear_line();
        assert_eq!(world.mossnet(["restart", "-t", "3", "box"]).ok(), "box\n");
        runs(3);
        let some = world.mossnet(["restart", "nobody", "box"]).fails(1);
        assert_eq!(some.stdout, "box\n", "the others are restarted");
        some.expect_text("nobody").expect_one_clear_line();

        world.mossnet(["stop", "box"]).ok();
        let mut attached = world.mossnet(["start", "-a", "box"]).start();
        attached.expect("run");
        world.mossnet(["stop", "box"]).ok();
        let output = attached.wait().expect_code(5);
        assert_eq!(output.stdout, "run\n", "only what is new");
        let several = world.mossnet(["start", "-a", "box", "box"]).fails(1);
        several.expect_one_clear_line();
        world.mossnet(["rm", "box"]).ok();
    });
}

#[test]
fn namespaces_without_a_process() {
    World::test(|world| {
        let path = world.mossnet(["netns", "create", "bare"]).ok();
        let path = path.trim();
        assert!(path.starts_with("/proc/"), "{path}");
        let listed = world.mossnet(["netns", "ls"]).ok();
        let address = world.address("bare", false);
        assert!(
            line_of(&listed, &["bare", "bridge", &address, path]),
            "{listed}"
        );
        let net = format!("--net={path}");
        let inside = world
            .mossnet(["unshare", "nsenter", &net, "--", "ip", "-o", "addr"])
            .ok();
        assert!(line_of(&inside, &["eth0", &address]), "{inside}");
        world.detached("web", ["sleep", "1000"]);
        let ping = ["exec", "web", "ping", "-c1", "-W5", &address];
        world.mossnet(ping).ok();
        let other = world.mossnet(["netns", "rm", "web", "bare"]).fails(1);
        assert_eq!(other.stdout, "bare\n");
        other.expect_text("web").expect_one_clear_line();
        assert_eq!(world.mossnet(["netns", "ls", "-q"]).ok(), "");
        world.mossnet(["rm", "-f", "web"]).ok();
    });
}

#[test]
fn a_look_at_the_router_keeps_it() {
    World::test(|world| {
        let unshare = |argv: &[&str]| {
            world
                .mossnet(["unshare"])
                .then(argv)
                .env("MOSSNET_IDLE", "1")
        };
        // None runs yet: one is started.
        let router = unshare(&["sh", "-c", "ip -o link; readlink /proc/self/ns/net"]).ok();
        assert!(line_of(&router, &["up0"]), "{router}");
        let daemon = inspect::the("daemon");
        let long = unshare(&["sh", "-c", "sleep 4; readlink /proc/self/ns/net"]).ok();
        assert!(
            router.ends_with(&long),
            "the same namespace: {router}{long}"
        );
        assert_eq!(inspect::the("daemon"), daemon, "in use, so not idle");
        assert_eq!(unshare(&["sh", "-c", "exit 7"]).fails(7).stderr, "");
        unshare(&["/no/such/command"])
            .fails(127)
            .expect_one_clear_line();
        let shell = unshare(&[])
            .env("SHELL", "/bin/sh")
            .stdin("id -u; exit 4\n");
        assert_eq!(shell.fails(4).stdout, "0\n");
        eventually(seconds(15), "nobody looks any more", || {
            inspect::mossnet_processes("daemon").is_empty()
        });
    });
}

#[test]
fn formats_are_templates() {
    World::test(|world| {
        let ls = |format: &str| world.mossnet(["network", "ls", "--format", format]);
        assert_eq!(
            ls("{{.Name}}/{{.Driver}}").ok(),
            "bridge/bridge\nhost/host\nnone/null\n"
        );
        let table = ls("table {{.Name}}\\t{{.Scope}}").ok();
        assert_eq!(
            table,
            "NAME      SCOPE\nbridge    local\nhost      local\nnone      local\n"
        );
        let unknown = ls("{{.Nme}}").fails(1);
        unknown
            .expect_text("Nme")
            .expect_text(".Name")
            .expect_one_clear_line();
        ls("{{.Name").fails(125).expect_one_clear_line();
        ls("yaml").fails(125).expect_one_clear_line();
        assert_eq!(
            world
                .mossnet(["network", "ls", "-q", "-f", "name=host"])
                .ok()
                .len(),
            13
        );
        let inspect = |format: &str| world.mossnet(["network", "inspect", "-f", format, "bridge"]);
        assert_eq!(
            inspect("{{(index .IPAM.Config 0).Gateway}}").ok(),
            "10.89.0.1\n"
        );
        assert_eq!(inspect("{{json .Containers}}").ok(), "{}\n");
        inspect("{{.Nothing}}")
            .fails(1)
            .expect_text("Nothing")
            .expect_one_clear_line();
        world.detached("web", ["sleep", "1000"]);
        let ps = world
            .mossnet(["ps", "--format", "{{.Names}} {{.State}}"])
            .ok();
        assert_eq!(ps, "web running\n");
        world.mossnet(["rm", "-f", "web"]).ok();
    });
}

#[test]
fn a_graph_shows_who_is_where() {
    World::test(|world| {
        world
            .mossnet(["network", "create", "--internal", "vault"])
            .ok();
        world.detached("web", ["sleep", "1000"]);
        world.mossnet(["network", "connect", "vault", "web"]).ok();
        let address = world.address("web", false);
        let text = world.mossnet(["network", "graph"]).ok();
        assert!(line_of(&text, &["web: eth0", &address]), "{text}");
        assert!(line_of(&text, &["web: eth1"]), "{text}");
        for format in ["dot", "mermaid", "svg"] {
            let text = world.mossnet(["network", "graph", "--format", format]).ok();
            assert!(text.contains(&address) && text.contains("vault"), "{text}");
        }
        world.mossnet(["rm", "-f", "web"]).ok();
        world.mossnet(["network", "rm", "vault"]).ok();
    });
}

#[test]
fn a_removal_goes_on_after_an_error() {
    // Names that cannot be the beginning of an id.
    World::test(|world| {
        world.mossnet(["network", "create", "one"]).ok();
        let some = world.mossnet(["network", "rm", "nobody", "one"]).fails(1);
        assert_eq!(some.stdout, "one\n");
        some.expect_text("nobody").expect_one_clear_line();
        world.mossnet(["network", "create", "two"]).ok();
        let no = world.mossnet(["network", "prune"]).stdin("n\n").fails(1);
        no.expect_text("Are you sure");
        world.mossnet(["network", "exists", "two"]).ok();
        world.mossnet(["network", "prune", "-f"]).ok();
        assert_eq!(
            world.mossnet(["network", "exists", "two"]).fails(1).stderr,
            ""
        );
    });
}
