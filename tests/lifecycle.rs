//! A sandbox's life: `run -d`, `ps`, `exec`, `logs`, `wait`, `stop`, `kill`, `rm`, `inspect`.

use crate::run::on_terminal;
use crate::world::{World, eventually, inspect, seconds};

#[test]
fn a_detached_sandbox_lives_on() {
    World::test(|world| {
        let id = world
            .mossnet([
                "run",
                "-d",
                "--name",
                "web",
                "--",
                "sh",
                "-c",
                "echo hello; echo oops >&2; sleep 1000",
            ])
            .ok();
        let id = id.trim();
        assert!(
            id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()),
            "{id}"
        );
        assert_eq!(world.mossnet(["ps", "-q"]).ok().trim(), &id[..12]);
        assert!(world.mossnet(["ps"]).ok().contains("web"));
        let info = world.inspect("web");
        assert_eq!(info["Id"], id);
        assert_eq!(info["State"], "running", "{info}");
        assert_eq!(
            world.inspect(&id[..6])["Id"],
            id,
            "found by the beginning of its id"
        );
        eventually(seconds(5), "both streams are logged", || {
            let logs = world.mossnet(["logs", "web"]).run().expect_code(0);
            let both = logs.stdout + &logs.stderr;
            both.contains("hello") && both.contains("oops")
        });
        world.mossnet(["stop", "-t", "1", "web"]).ok();
        assert_eq!(world.mossnet(["ps", "-q"]).ok(), "");
        assert!(world.mossnet(["ps", "-a"]).ok().contains("web"));
        world.mossnet(["rm", "web"]).ok();
        assert_eq!(world.mossnet(["ps", "-a", "-q"]).ok(), "");
    });
}

#[test]
fn listings_are_json_too() {
    World::test(|world| {
        world.detached("one", ["sleep", "1000"]);
        let text = world.mossnet(["ps", "--format", "json"]).ok();
        let first = text.lines().next().expect("a line");
        let listed: serde_json::Value = serde_json::from_str(&text)
            .or_else(|_| serde_json::from_str(first))
            .expect("JSON, one array or one object a line");
        assert!(listed.to_string().contains("\"one\""), "{listed}");
        world.mossnet(["rm", "-f", "one"]).ok();
    });
}

#[test]
fn removal_follows_docker() {
    World::test(|world| {
        world.mossnet(["run", "--name", "kept", "--", "true"]).ok();
        assert!(world.mossnet(["ps", "-a"]).ok().contains("kept"));
        assert_eq!(world.inspect("kept")["State"], "exited");
        world
            .mossnet(["run", "--rm", "--name", "gone", "--", "true"])
            .ok();
        assert!(!world.mossnet(["ps", "-a"]).ok().contains("gone"));
        world.detached("busy", ["sleep", "1000"]);
        let refused = world.mossnet(["rm", "busy"]).run();
        assert!(refused.code != 0, "a running one needs -f: {refused}");
        world.mossnet(["rm", "-f", "busy"]).ok();
        world.mossnet(["rm", "kept"]).ok();
        let unknown = world.mossnet(["rm", "kept"]).run();
        assert!(
            unknown.code != 0 && unknown.stderr.contains("kept"),
            "{unknown}"
        );
    });
}

#[test]
fn waiting_tells_the_exit_status() {
    World::test(|world| {
        world.detached("seven", ["sh", "-c", "sleep 0.3; exit 7"]);
        assert_eq!(world.mossnet(["wait", "seven"]).ok().trim(), "7");
        assert_eq!(
            world.mossnet(["wait", "seven"]).ok().trim(),
            "7",
            "also afterwards"
        );
        assert_eq!(world.inspect("seven")["ExitCode"], 7);
        world.mossnet(["rm", "seven"]).ok();
    });
}

#[test]
fn further_processes_join_a_sandbox() {
    World::test(|world| {
        world
            .mossnet([
                "run",
                "-d",
                "--name",
                "box",
                "--hostname",
                "mossy",
                "--env",
                "COLOUR=green",
                "--",
                "sleep",
                "1000",
            ])
            .ok();
        let exec = |script: &str| world.mossnet(["exec", "box", "--", "sh", "-c", script]);
        assert_eq!(exec("hostname; echo $COLOUR").ok(), "mossy\ngreen\n");
        assert_eq!(
            world.mossnet(["exec", "box", "hostname"]).ok(),
            "mossy\n",
            "-- is optional"
        );
        exec("exit 9").fails(9);
        let pids = exec("readlink /proc/1/ns/net /proc/self/ns/net").ok();
        let mut pids = pids.lines();
        assert_eq!(pids.next(), pids.next());
        let input = world
            .mossnet(["exec", "-i", "box", "--", "rev"])
            .stdin("abc\n");
        assert_eq!(input.ok(), "cba\n");
        let tty = on_terminal(
            world,
            "true",
            "exec -it box -- sh -c 'test -t 0 && echo terminal'",
        );
        assert!(tty.ok().contains("terminal"));
        world
            .mossnet(["exec", "box", "--", "no-such-command"])
            .fails(127);
        world
            .mossnet(["exec", "box", "--", "/etc/hostname"])
            .fails(126);
        let unknown = world.mossnet(["exec", "no-such-box", "--", "true"]).run();
        assert!(unknown.code != 0, "{unknown}");
        unknown.expect_text("no-such-box").expect_one_clear_line();
        world.mossnet(["rm", "-f", "box"]).ok();
        let stopped = world.mossnet(["exec", "box", "--", "true"]).run();
        assert!(stopped.code != 0, "{stopped}");
    });
}

#[test]
fn stop_asks_first_and_then_insists() {
    World::test(|world| {
        let polite = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
        world.detached("polite", ["sh", "-c", polite]);
        eventually(seconds(5), "it has set its trap", || {
            world.mossnet(["logs", "polite"]).ok().contains("ready")
        });
        world
            .mossnet(["stop", "polite"])
            .run()
            .expect_code(0)
            .expect_within(seconds(5));
        assert_eq!(world.inspect("polite")["ExitCode"], 3);
        world.detached(
            "deaf",
            ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"],
        );
        let stop = world
            .mossnet(["stop", "-t", "1", "deaf"])
            .run()
            .expect_code(0);
        assert!(stop.elapsed >= seconds(1), "{stop}");
        assert_eq!(world.inspect("deaf")["ExitCode"], 137);
        world.mossnet(["stop", "deaf"]).ok();
        for name in ["a", "b", "c"] {
            world.detached(name, ["sleep", "1000"]);
        }
        world.mossnet(["stop", "-t", "0", "--all"]).ok();
        assert_eq!(world.mossnet(["ps", "-q"]).ok(), "");
        world.mossnet(["rm", "a", "b", "c", "polite", "deaf"]).ok();
    });
}

#[test]
fn kill_sends_any_signal() {
    World::test(|world| {
        let script = "trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done";
        world.detached("box", ["sh", "-c", script]);
        let logged = |text: &str| {
            eventually(seconds(5), text, || {
                world.mossnet(["logs", "box"]).ok().contains(text)
            });
        };
        logged("ready");
        world.mossnet(["kill", "-s", "HUP", "box"]).ok();
        logged("hup");
        world.mossnet(["kill", "box"]).ok();
        assert_eq!(world.mossnet(["wait", "box"]).ok().trim(), "137");
        let late = world.mossnet(["kill", "box"]).run();
        assert!(late.code != 0, "not running any more: {late}");
        world.mossnet(["rm", "box"]).ok();
    });
}

#[test]
fn logs_can_be_followed() {
    World::test(|world| {
        world.detached(
            "talker",
            [
                "sh",
                "-c",
                "for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done",
            ],
        );
        let followed = world.mossnet(["logs", "-f", "talker"]).run().expect_code(0);
        assert_eq!(followed.stdout, "line 1\nline 2\nline 3\nline 4\nline 5\n");
        world.mossnet(["rm", "talker"]).ok();
    });
}

#[test]
fn names_are_unique_or_made_up() {
    World::test(|world| {
        world.detached("web", ["sleep", "1000"]);
        let twice = world
            .mossnet(["run", "-d", "--name", "web", "--", "true"])
            .fails(125);
        twice.expect_text("web").expect_one_clear_line();
        let bad = world
            .mossnet(["run", "--rm", "--name", "bad/name", "--", "true"])
            .fails(125);
        bad.expect_text("bad/name").expect_one_clear_line();
        world.mossnet(["run", "-d", "--", "sleep", "1000"]).ok();
        let names = world.mossnet(["ps"]).ok();
        assert_eq!(names.lines().count(), 3, "{names}");
        world.mossnet(["stop", "-t", "0", "--all"]).ok();
    });
}

#[test]
fn subcommands_on_what_is_unknown_say_so() {
    World::test(|world| {
        for command in ["stop", "kill", "rm", "wait", "inspect", "logs"] {
            let output = world.mossnet([command, "nobody"]).run();
            assert!(output.code != 0, "{output}");
            output.expect_text("nobody").expect_one_clear_line();
        }
    });
}

#[test]
fn the_daemon_ends_when_idle_and_takes_all_with_it() {
    World::test(|world| {
        let idle = |argv: &[&str]| world.mossnet(argv).env("MOSSNET_IDLE", "2");
        idle(&["run", "-d", "--name", "box", "--", "sleep", "1000"]).ok();
        let daemon = inspect::the("daemon");
        std::thread::sleep(seconds(4));
        assert_eq!(inspect::the("daemon"), daemon, "not while something runs");
        idle(&["rm", "-f", "box"]).ok();
        let gone = |role: &str| inspect::mossnet_processes(role).is_empty();
        eventually(seconds(15), "daemon, helper and relay end", || {
            gone("daemon") && gone("helper") && gone("relay")
        });
        idle(&["run", "--rm", "--", "true"]).ok();
    });
}

#[test]
fn shutdown_leaves_what_it_should() {
    World::test(|world| {
        world.detached("box", ["sleep", "1000"]);
        let daemon = inspect::the("daemon");
        world.mossnet(["shutdown"]).ok();
        eventually(seconds(5), "the daemon ends", || {
            !inspect::mossnet_processes("daemon").contains(&daemon)
        });
        assert_eq!(
            world.mossnet(["ps", "-q"]).ok().lines().count(),
            1,
            "it goes on"
        );
        world
            .mossnet(["shutdown", "--all"])
            .timeout(seconds(20))
            .ok();
        eventually(seconds(10), "nothing of mossnet runs", || {
            let all = inspect::processes();
            all.iter()
                .all(|p| !p.line.contains("mossnet --root") && p.line != "sleep 1000")
                && inspect::mossnet_processes("helper").is_empty()
                && inspect::mossnet_processes("relay").is_empty()
        });
    });
}
