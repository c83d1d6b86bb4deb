//! What goes wrong is said in one clear line, with what to do, and leaves nothing behind.

use crate::world::{ROOT, World, inspect, seconds};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn bad_input_is_refused_in_one_line() {
    World::test(|world| {
        world.detached("taken", ["sleep", "1000"]);
        for (options, word) in [
            ("--network no-such-network", "no-such-network"),
            ("--name taken", "taken"),
            ("--ip not-an-address", "not-an-address"),
            ("--ip6 10.0.0.1", "10.0.0.1"),
            ("--mac-address 02:00:00:00:00", "02:00:00:00:00"),
            ("--dns nowhere", "nowhere"),
            ("--add-host broken", "broken"),
            ("--add-host name:nowhere", "nowhere"),
            ("--cap-add CAP_FLY", "CAP_FLY"),
            ("--uplink rocket", "rocket"),
            ("--network container:taken --ip 10.89.0.9", "container"),
            ("--workdir /no/such/directory", "/no/such/directory"),
            ("--env =value", "=value"),
            ("--hostname has.a_very#odd!name", "has.a_very#odd!name"),
        ] {
            let argv = ["run", "--rm"];
            let refused = world
                .mossnet(argv)
                .then(options.split(' '))
                .then(["--", "true"])
                .run();
            assert!([125, 126, 127].contains(&refused.code), "{refused}");
            refused.expect_text(word).expect_one_clear_line();
        }
        assert_eq!(world.mossnet(["ps", "-a", "-q"]).ok().lines().count(), 1);
        world.mossnet(["rm", "-f", "taken"]).ok();
    });
}

#[test]
fn a_command_that_cannot_run_leaves_nothing() {
    World::test(|world| {
        world
            .mossnet(["run", "--name", "never", "--", "no-such-command"])
            .fails(127);
        world
            .mossnet([
                "run",
                "-d",
                "--name",
                "never2",
                "--rm",
                "--",
                "no-such-command",
            ])
            .fails(127);
        world.sh("true").ok();
        assert!(inspect::router_interfaces("ve-").is_empty());
        world.mossnet(["rm", "-f", "never"]).run();
        world
            .mossnet(["run", "--rm", "--name", "never", "--", "true"])
            .ok();
    });
}

#[test]
fn an_unwritable_runtime_directory() {
    World::test(|world| {
        let place = "/run/world/home/closed";
        fs::create_dir(place).unwrap();
        fs::set_permissions(place, fs::Permissions::from_mode(0o500)).unwrap();
        let root = format!("{place}/root");
        let refused = world
            .mossnet_at(&root, ["run", "--rm", "--", "true"])
            .fails(125);
        refused
            .expect_text(place)
            .expect_one_clear_line()
            .expect_within(seconds(5));
        let file = "/run/world/home/file";
        fs::write(file, "").unwrap();
        let refused = world
            .mossnet_at(file, ["run", "--rm", "--", "true"])
            .fails(125);
        refused.expect_text(file).expect_one_clear_line();
        let long = format!("/run/world/home/{}", "x".repeat(120));
        let refused = world
            .mossnet_at(&long, ["run", "--rm", "--", "true"])
            .fails(125);
        refused.expect_text("107").expect_one_clear_line();
        assert!(inspect::mossnet_processes("daemon").is_empty());
    });
}

#[test]
fn someone_elses_runtime_directory_is_refused() {
    World::test(|world| {
        std::os::unix::fs::symlink("/run/world/home", "/tmp/mossnet-1000").unwrap();
        let bare = world
            .user(["mossnet", "run", "--rm", "--", "true"])
            .fails(125);
        bare.expect_text("/tmp/mossnet-1000")
            .expect_one_clear_line();
    });
}

#[test]
fn without_user_namespaces_the_doctor_line_is_shown() {
    World::test(|world| {
        fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
        let refused = world.sh("true").fails(125);
        refused
            .clone()
            .expect_text("user.max_user_namespaces")
            .expect_clear()
            .expect_within(seconds(10));
        let doctor = world.mossnet(["doctor"]).run();
        let line = doctor
            .stdout
            .lines()
            .find(|line| line.contains("max_user_namespaces"));
        assert!(line.is_some(), "{doctor}");
        let json = world.mossnet(["doctor", "--format", "json"]).run();
        let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
        assert!(json.to_string().contains("missing"), "{json}");
        assert!(inspect::mossnet_processes("daemon").len() <= 1);
        fs::write("/proc/sys/user/max_user_namespaces", "10000").unwrap();
        world.sh("true").ok();
    });
}

#[test]
fn the_doctor_is_content_with_a_whole_machine() {
    World::test(|world| {
        let report = world.mossnet(["doctor", "--format", "json"]).run();
        let report: serde_json::Value = serde_json::from_str(&report.stdout).expect("JSON");
        let text = report.to_string();
        assert!(!text.contains("\"missing\""), "{report:#}");
        for word in [
            "user",
            "nft",
            "veth",
            "bridge",
            "ping",
            "newuidmap",
            "mtu",
            "resolv",
        ] {
            assert!(text.to_lowercase().contains(word), "{word}: {report:#}");
        }
        assert!(
            inspect::processes().iter().all(|p| !p.line.contains(ROOT)),
            "it leaves no process"
        );
    });
}

#[test]
fn a_closed_pipe_is_no_error() {
    World::test(|world| {
        world.detached("box", ["sleep", "1000"]);
        let script = "mossnet --root /run/world/root inspect box | true; mossnet --root /run/world/root ps | head -0; echo done";
        let output = world.user(["bash", "-o", "pipefail", "-c", script]).run();
        assert_eq!(output.stdout, "done\n");
        assert!(!output.stderr.contains("panicked"), "{output}");
        world.mossnet(["rm", "-f", "box"]).ok();
    });
}
