//! `kill -9` of CLI, daemon, relay and helper: the next command works, and nothing leaks.

use crate::world::{Running, SERVER, World, eventually, inspect, seconds, servers};
use nix::sys::signal::Signal;
use std::time::{Duration, SystemTime};

/// Counts upward once every 50 ms over one connection between two sandboxes.
fn chatter(world: &World) -> Running {
    let serve = "import socket\nl=socket.create_server(('',9000))\nc,_=l.accept()\n\
                 while True:\n d=c.recv(100)\n if not d: break\n c.sendall(d)";
    world.detached("listener", ["python3", "-c", serve]);
    let address = world.address("listener", false);
    let call = format!(
        "import socket,time\nfor _ in range(100):\n try: s=socket.create_connection(('{address}',9000),2); break\n\
         \x20except OSError: time.sleep(.05)\ni=0\nwhile True:\n i+=1\n s.sendall(b'%d'%i)\n\
         \x20assert s.recv(100)==b'%d'%i\n print('tick',i,flush=True)\n time.sleep(.05)"
    );
    world
        .mossnet([
            "run", "-d", "--name", "caller", "--", "python3", "-c", &call,
        ])
        .ok();
    let mut follow = world
        .mossnet(["logs", "-f", "caller"])
        .timeout(seconds(80))
        .start();
    follow.expect("tick 5\n");
    follow
}

fn ticks(follow: &Running) -> usize {
    follow.stdout().lines().count()
}

fn goes_on(follow: &Running, what: &str) {
    let before = ticks(follow);
    eventually(seconds(5), what, || ticks(follow) > before + 20);
}

fn random_pause(state: &mut u64, longest: u64) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    std::thread::sleep(Duration::from_millis(*state % longest));
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = now.map_or(1, |now| u64::from(now.subsec_nanos()) | 1);
    println!("seed {seed}");
    seed
}

#[test]
fn the_daemon_dies_and_sandboxes_do_not_notice() {
    World::test(|world| {
        servers::tcp("server", 80, servers::echo);
        let follow = chatter(world);
        let script = format!(
            "import socket,time\ns=socket.create_connection(('{SERVER}',80),5)\n\
             for i in range(60): s.sendall(b'x'); assert s.recv(9)==b'x'; time.sleep(.05)\nprint('whole')"
        );
        world.detached("outbound", ["python3", "-c", &script]);
        let daemon = inspect::the("daemon");
        let relay = inspect::the("relay");
        inspect::kill_hard(&[daemon]);
        let before = world.mossnet(["ps", "-q"]).ok();
        assert_eq!(
            before.lines().count(),
            3,
            "the next command works: {before}"
        );
        assert_ne!(inspect::the("daemon"), daemon);
        assert_eq!(inspect::the("relay"), relay, "live traffic is not touched");
        let mut again = world.mossnet(["logs", "-f", "caller"]).start();
        again.expect("tick 5\n");
        goes_on(&again, "container-to-container traffic");
        assert_eq!(world.mossnet(["wait", "outbound"]).ok().trim(), "0");
        assert!(world.mossnet(["logs", "outbound"]).ok().contains("whole"));
        drop((follow, again));
        world.mossnet(["stop", "-t", "0", "--all"]).ok();
        world.mossnet(["rm", "caller", "listener", "outbound"]).ok();
    });
}

#[test]
fn an_exit_while_no_daemon_runs_is_not_lost() {
    World::test(|world| {
        world.detached("seven", ["sh", "-c", "sleep 1; exit 7"]);
        world
            .mossnet(["run", "-d", "--rm", "--name", "gone", "--", "sleep", "1"])
            .ok();
        world.detached("stays", ["sleep", "1000"]);
        inspect::kill_hard(&[inspect::the("daemon")]);
        std::thread::sleep(seconds(2));
        assert_eq!(world.mossnet(["wait", "seven"]).ok().trim(), "7");
        eventually(seconds(5), "--rm is kept", || {
            !world.mossnet(["ps", "-a"]).ok().contains("gone")
        });
        world.mossnet(["rm", "-f", "seven", "stays"]).ok();
    });
}

#[test]
fn the_relay_dies_and_is_replaced() {
    World::test(|world| {
        servers::http("server", 80);
        let follow = chatter(world);
        let relay = inspect::the("relay");
        inspect::kill_hard(&[relay]);
        goes_on(&follow, "container-to-container traffic");
        let url = format!("http://{SERVER}/");
        let answer = world.run([
            "curl",
            "-sS",
            "--retry",
            "5",
            "--retry-connrefused",
            "--connect-timeout",
            "2",
            &url,
        ]);
        assert_eq!(answer.ok(), "203.0.113.2");
        assert_ne!(inspect::the("relay"), relay);
        drop(follow);
        world.mossnet(["stop", "-t", "0", "--all"]).ok();
    });
}

#[test]
fn the_cli_dies_and_the_sandbox_lives_on() {
    World::test(|world| {
        let command = [
            "run",
            "--rm",
            "--name",
            "box",
            "--",
            "sh",
            "-c",
            "echo ready; sleep 3",
        ];
        let mut run = world.mossnet(command).start();
        run.expect("ready");
        run.signal(Signal::SIGKILL);
        eventually(seconds(5), "the CLI is gone", || !run.is_alive());
        assert!(world.mossnet(["ps"]).ok().contains("box"), "as with docker");
        eventually(seconds(10), "it ends and is removed", || {
            !world.mossnet(["ps", "-a"]).ok().contains("box")
        });
    });
}

#[test]
fn the_helper_dies_and_the_next_command_starts_afresh() {
    World::test(|world| {
        world.detached("box", ["sleep", "1000"]);
        inspect::kill_hard(&[inspect::the("helper")]);
        eventually(seconds(5), "nothing outlives the helper", || {
            !inspect::processes()
                .iter()
                .any(|process| process.line == "sleep 1000")
        });
        world.sh("true").ok();
        let listed = world.mossnet(["ps"]).ok();
        assert!(!listed.contains("box"), "{listed}");
        world.mossnet(["rm", "box"]).ok();
    });
}

#[test]
fn a_power_cut_leaves_nothing_in_the_way() {
    World::test(|world| {
        world.detached("box", ["sleep", "1000"]);
        inspect::kill_everything();
        world.sh("true").ok();
        world.mossnet(["rm", "-f", "box"]).ok();
        world.detached("box", ["sleep", "1000"]);
        world.mossnet(["rm", "-f", "box"]).ok();
    });
}

/// Kills what `victims` finds at a random moment of a `run`, many times.
fn at_random_moments(world: &World, role: &str) {
    let mut state = seed();
    for round in 0..12 {
        let mut run = world
            .mossnet(["run", "--rm", "--", "sh", "-c", "sleep 0.05"])
            .start();
        random_pause(&mut state, 250);
        match role {
            "cli" if run.is_alive() => run.signal(Signal::SIGKILL),
            "cli" => {}
            role => inspect::kill_hard(&inspect::mossnet_processes(role)),
        }
        // How the victim's own run ended is not the point: the next command is.
        eventually(seconds(15), "the run ends", || !run.is_alive());
        drop(run);
        let next = world.sh("echo works").run();
        assert_eq!(next.stdout, "works\n", "round {round}: {next}");
    }
    eventually(seconds(10), "no sandbox stays behind", || {
        world.mossnet(["ps", "-a", "-q"]).ok().is_empty()
    });
    world.check_leftovers();
}

#[test]
fn the_cli_killed_at_random_moments() {
    World::builder()
        .deadline(120)
        .test(|world| at_random_moments(world, "cli"));
}

#[test]
fn the_daemon_killed_at_random_moments() {
    World::builder()
        .deadline(120)
        .test(|world| at_random_moments(world, "daemon"));
}

#[test]
fn the_relay_killed_at_random_moments() {
    World::builder()
        .deadline(120)
        .test(|world| at_random_moments(world, "relay"));
}
