//! Users and groups inside, where the user has subordinate ids: real newuidmap(1) maps them. It gives
//! ids only in the machine's own user namespace, so these tests run in no world, and make no
//! traffic. `tests/run-all` has a user for them.

mod podman;
mod podman_cni;
mod rootlessport;

use crate::world::{Cmd, enter, eventually, inspect, seconds};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// mossnet with a root of its own on the machine itself.
struct Machine {
    directory: tempfile::TempDir,
    /// The first subordinate user id.
    first: u32,
}

impl Machine {
    /// For a user who has subordinate ids; says that the test is skipped otherwise.
    fn find(test: &str) -> Option<Self> {
        let first = first_subordinate_id(test)?;
        let directory = tempfile::tempdir().expect("a directory");
        Some(Self { directory, first })
    }

    fn mossnet<const N: usize>(&self, argv: [&str; N]) -> Cmd {
        let root = self.directory.path().join("root");
        Cmd::new([
            env!("CARGO_BIN_EXE_mossnet").as_ref(),
            "--root".as_ref(),
            root.as_os_str(),
        ])
        .then(argv)
        .directory(self.directory.path())
        .timeout(seconds(20))
    }
}

/// The first subordinate user id, if the user has some of both kinds; says that the test is skipped
/// otherwise.
fn first_subordinate_id(test: &str) -> Option<u32> {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).expect("users");
    let first = user.and_then(|user| {
        let of = |file: &str| {
            let text = fs::read_to_string(file).ok()?;
            let begin = format!("{}:", user.name);
            let line = text.lines().find_map(|line| line.strip_prefix(&begin))?;
            line.split(':').next()?.parse::<u32>().ok()
        };
        of("/etc/subgid").and(of("/etc/subuid"))
    });
    let first = first.filter(|_| Path::new("/usr/bin/newuidmap").exists());
    if first.is_none() {
        let reason = "the user has no subordinate ids (subuid(5), newuidmap)";
        enter::skip_outside(test, reason);
    }
    first
}

impl Drop for Machine {
    fn drop(&mut self) {
        let ended = self.mossnet(["shutdown", "--all"]).run();
        // Of a test that failed before it started anything, say.
        if !std::thread::panicking() {
            ended.expect_code(0);
        }
    }
}

#[test]
fn many_users_and_groups_are_there() {
    let Some(machine) = Machine::find("subids::many_users_and_groups_are_there") else {
        return;
    };
    let script = "id -u; touch theirs; chown 33:44 theirs; stat -c '%u %g' theirs; \
        setpriv --reuid 33 --regid 44 --groups 45 -- sh -c 'id -u; id -g; id -G; touch no || echo no'; \
        su -s /bin/sh nobody -c 'id -u'";
    let run = ["run", "--rm", "--network", "none", "--", "sh", "-c", script];
    let seen = machine.mossnet(run).ok();
    assert_eq!(seen, "0\n33 44\n33\n44\n44 45\nno\n65534\n");
    let theirs = machine.directory.path().join("theirs");
    let owner = fs::metadata(&theirs).expect("the file").uid();
    assert_eq!(
        owner,
        machine.first + 32,
        "on the machine it is a subordinate id's"
    );
}

#[test]
fn a_process_that_changed_its_uid_is_stopped_like_any_other() {
    let name = "subids::a_process_that_changed_its_uid_is_stopped_like_any_other";
    let Some(machine) = Machine::find(name) else {
        return;
    };
    let pid = other_user(&machine);
    machine.mossnet(["exec", "box", "kill", "-0", "1"]).ok();
    machine.mossnet(["stop", "-t", "1", "box"]).ok();
    assert!(!lives(pid));
    machine.mossnet(["rm", "box"]).ok();
}

#[test]
fn a_process_that_changed_its_uid_does_not_outlive_the_helper() {
    let name = "subids::a_process_that_changed_its_uid_does_not_outlive_the_helper";
    let Some(machine) = Machine::find(name) else {
        return;
    };
    // With the daemon there, and without.
    for daemon_too in [false, true] {
        let pid = other_user(&machine);
        let info = machine.mossnet(["info", "--format", "json"]).ok();
        let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
        let pids = ["Pid", "HelperPid"].map(|role| {
            let pid = info[role].as_i64().and_then(|pid| i32::try_from(pid).ok());
            pid.unwrap_or_else(|| panic!("{role} in {info}"))
        });
        inspect::kill_hard(if daemon_too { &pids } else { &pids[1..] });
        assert_eq!(
            machine.mossnet(["ps", "-q"]).ok(),
            "",
            "the next command works"
        );
        let deadline = Instant::now() + seconds(20);
        while lives(pid) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let outlived = lives(pid);
        if outlived {
            // It would outlive the test, too.
            inspect::kill_hard(&[pid]);
        }
        assert!(!outlived, "daemon killed, too: {daemon_too}");
        machine.mossnet(["rm", "box"]).ok();
    }
}

fn lives(pid: i32) -> bool {
    !matches!(
        inspect::status(pid, "State").chars().next(),
        None | Some('Z' | 'X')
    )
}

/// Starts a sandbox `box` whose first process is another user; its process id.
fn other_user(machine: &Machine) -> i32 {
    let sleep = "exec setpriv --reuid 33 --regid 44 --clear-groups sleep 1000";
    let run = [
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "none",
        "--",
        "sh",
        "-c",
        sleep,
    ];
    machine.mossnet(run).ok();
    let info = machine.mossnet(["inspect", "box"]).ok();
    let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
    let pid = info[0]["Pid"].as_i64().expect("a process id");
    let pid = i32::try_from(pid).expect("a process id");
    eventually(seconds(5), "it is another user", || {
        fs::metadata(format!("/proc/{pid}")).is_ok_and(|m| m.uid() == machine.first + 32)
    });
    pid
}
