//! The daemon under a service manager that holds its sockets: started by whoever connects, told apart from one
//! that a command starts, gone when idle, and back again.

use crate::world::{Running, World, eventually, inspect, installed, seconds};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// What systemd does for `mossnet.socket` and `mossnet.service`.
const MANAGER: &str = include_str!("activation/manager.py");
const SOCKETS: [&str; 2] = [
    "/run/world/root/run/api.sock",
    "/run/world/root/run/stdio.sock",
];

const UNITS: [(&str, &str); 2] = [
    (
        "mossnet.socket",
        include_str!("../contrib/systemd/mossnet.socket"),
    ),
    (
        "mossnet.service",
        include_str!("../contrib/systemd/mossnet.service"),
    ),
];

fn manager(world: &World, idle: &str) -> Running {
    // Directories as the daemon makes them.
    world.line("ps").ok();
    world.line("shutdown").ok();
    eventually(seconds(20), "no daemon is left", || {
        inspect::mossnet_processes("daemon").is_empty()
    });
    let command = world.user(["python3", "-c", MANAGER]).then(SOCKETS);
    let daemon = [
        "/run/world/bin/mossnet",
        "--root",
        crate::world::ROOT,
        "daemon",
    ];
    let mut manager = command.then(daemon).env("MOSSNET_IDLE", idle).start();
    manager.expect("listening");
    manager
}

/// Who holds the sockets.
fn identity() -> Vec<u64> {
    let inode = |path: &str| fs::metadata(path).expect("a socket").ino();
    SOCKETS.map(inode).to_vec()
}

#[test]
fn whoever_connects_starts_the_daemon() {
    World::test(|world| {
        let mut manager = manager(world, "1");
        let sockets = identity();
        assert!(inspect::mossnet_processes("daemon").is_empty());
        world.detached("web", ["sleep", "1000"]);
        manager.expect("ready 1");
        assert_eq!(world.line("exec web -- echo hello").ok(), "hello\n");
        // Killed: the next one finds the sandbox.
        inspect::kill_hard(&[inspect::the("daemon")]);
        assert_eq!(world.line("ps -q").ok().lines().count(), 1);
        manager.expect("ready 2");
        world.line("rm -f web").ok();
        // Idle: it ends in order, and leaves the sockets where they are.
        manager.expect("ended 2: 0");
        assert_eq!(sockets, identity());
        world.line("network create lab").ok();
        manager.expect("ready 3");
        world.line("shutdown").ok();
        manager.expect("ended 3: 0");
        assert!(world.line("network ls").ok().contains("lab"));
        world.line("network rm lab").ok();
        assert_eq!(sockets, identity());
        world.line("shutdown --all").ok();
    });
}

/// Where a daemon is about to end, a command may think that it must start one itself.
#[test]
fn no_other_daemon_takes_the_sockets_away() {
    World::test(|world| {
        let _manager = manager(world, "0");
        let sockets = identity();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..12 {
                        world.line("network ls").ok();
                    }
                });
            }
        });
        let said = world.line("daemon").ok();
        assert!(said.contains("serves this directory already"), "{said}");
        assert_eq!(sockets, identity());
        world.line("shutdown --all").ok();
    });
}

#[test]
fn systemds_own_program_starts_it() {
    World::test(|world| {
        if !installed("systemd-socket-activate") {
            return;
        }
        world.line("ps").ok();
        world.line("shutdown").ok();
        let [api, stdio] = SOCKETS;
        let listen = ["systemd-socket-activate", "-l", api, "-l", stdio];
        let daemon = [
            "/run/world/bin/mossnet",
            "--root",
            crate::world::ROOT,
            "daemon",
        ];
        let activate = world.user(listen).then(daemon).start();
        eventually(seconds(20), "both sockets are there", || {
            SOCKETS.iter().all(|path| fs::metadata(path).is_ok())
        });
        // It becomes the daemon.
        assert_eq!(world.line("run --rm -- echo hello").ok(), "hello\n");
        assert_eq!(inspect::the("daemon"), activate.pid());
        world.line("shutdown --all").ok();
        activate.wait().expect_code(0);
        // One socket is not enough.
        let place = "/run/world/lonely.sock";
        let listen = ["systemd-socket-activate", "-l", place];
        let lonely = world.user(listen).then(daemon).start();
        eventually(seconds(20), "it is woken", || {
            std::os::unix::net::UnixStream::connect(place).is_ok()
        });
        let refused = lonely.wait().expect_code(125);
        refused
            .expect_text("not for mossnet")
            .expect_text("ListenStream=");
    });
}

#[test]
fn the_units_are_what_systemd_expects() {
    World::test(|world| {
        if !installed("systemd-analyze") {
            return;
        }
        let program = "/run/world/home/.cargo/bin";
        fs::create_dir_all(program).expect("a directory");
        std::os::unix::fs::symlink("/run/world/bin/mossnet", format!("{program}/mossnet"))
            .expect("a link");
        let units = UNITS.map(|(name, text)| {
            let place = format!("/run/world/{name}");
            fs::write(&place, text).expect("write a unit");
            place
        });
        let verify = ["systemd-analyze", "verify", "--user", "--man=no"];
        let verified = world
            .user(verify)
            .then(units)
            .env("HOME", "/run/world/home")
            .env("XDG_RUNTIME_DIR", "/run/world")
            .run();
        assert_eq!(
            (verified.code, verified.stderr.as_str()),
            (0, ""),
            "{verified}"
        );
    });
}
