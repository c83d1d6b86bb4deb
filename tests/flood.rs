//! A sandbox that floods the gate with SYNs: others connect as before, and the relay stays small.

use crate::world::{BLACK_HOLE, Running, SERVER, World, eventually, inspect, seconds, servers};
use std::fs;

/// SYNs of one flood.
const SYNS: usize = 100_000;

/// Sends SYNs to a black hole as fast as it can: COUNT of them, no two alike.
const FLOOD: &str = "import socket,struct\n\
    s=socket.socket(socket.AF_INET,socket.SOCK_RAW,6)\n\
    s.connect((BLACK_HOLE,0))\n\
    syn=struct.Struct('!HHIIBBHHH').pack\n\
    print('flooding',flush=True)\n\
    for i in range(COUNT):\n\
    \x20try: s.send(syn(1024+i%60000,80+i//60000%60000,i,0,0x50,2,64240,0,0))\n\
    \x20except OSError: pass\n\
    print('flooded',flush=True)\n";

/// Sends one SYN a thousand times.
const RETRANSMISSIONS: &str = "import socket,struct\n\
    s=socket.socket(socket.AF_INET,socket.SOCK_RAW,6)\n\
    for i in range(1000):\n\
    \x20s.sendto(struct.pack('!HHIIBBHHH',1024,80,7,0,0x50,2,64240,0,0),(BLACK_HOLE,0))\n";

/// Connects to the server again and again, and says how long each took, in milliseconds.
const CONNECTS: &str = "import socket,time\n\
    for i in range(100):\n\
    \x20begun=time.monotonic()\n\
    \x20socket.create_connection((SERVER,80),20).close()\n\
    \x20print((time.monotonic()-begun)*1000)\n\
    \x20time.sleep(.005)\n";

/// A lost SYN is sent again after a second.
const LOST_MS: f64 = 900.0;

/// Milliseconds of each, the shortest first.
fn connects(world: &World) -> Vec<f64> {
    let script = format!("SERVER='{SERVER}'\n{CONNECTS}");
    let times = world.python("calm", &script).timeout(seconds(60)).ok();
    let mut times: Vec<f64> = times.lines().map(|line| line.parse().unwrap()).collect();
    times.sort_by(f64::total_cmp);
    times
}

fn flood(world: &World, count: usize) -> Running {
    let script = format!("BLACK_HOLE='{BLACK_HOLE}'\nCOUNT={count}\n{FLOOD}");
    let mut flood = world
        .python("flooder", &script)
        .timeout(seconds(80))
        .start();
    flood.expect("flooding");
    flood
}

/// Nanoseconds that a process has had of the processors.
fn cpu_ns(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let each = tasks.map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let first = text.split(' ').next().map(str::parse::<u64>);
        first.and_then(Result::ok).unwrap_or(0)
    });
    each.sum()
}

fn rss_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Connects of the host under way.
fn syn_sent() -> usize {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let states = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3));
    states.filter(|state| *state == "02").count()
}

#[test]
fn others_connect_beside_a_flood() {
    World::builder().alone().deadline(150).test(|world| {
        servers::http("server", 80);
        for name in ["flooder", "calm"] {
            world.sleeper(name, "");
        }
        let relay = inspect::the("relay");
        let quiet = connects(world);
        let (cpu, rss) = (cpu_ns(relay), rss_kib(relay));
        flood(world, SYNS)
            .wait()
            .expect_code(0)
            .expect_text("flooded");
        let each = (cpu_ns(relay) - cpu) / SYNS as u64;
        println!(
            "relay: {each} ns of a processor for each SYN, {} connects",
            syn_sent()
        );
        assert!(syn_sent() > 100, "the flood has come through");
        // A flood without end; a machine that is busy otherwise may keep the relay from its work once.
        let mut flood = flood(world, usize::MAX >> 1);
        let mut rounds = (0..4).map(|_| {
            let busy = connects(world);
            let show =
                |times: &[f64]| format!("{:.2} / {:.2} / {:.2}", times[50], times[90], times[99]);
            println!(
                "p50 / p90 / max ms: {}, quiet {}",
                show(&busy),
                show(&quiet)
            );
            busy[50] < (20.0 * quiet[50]).max(50.0) && busy[99] < LOST_MS
        });
        assert!(rounds.any(|calm| calm), "every time a SYN was lost");
        assert!(flood.is_alive());
        drop(flood);
        let grown = rss_kib(relay).saturating_sub(rss);
        assert!(grown < 16 * 1024, "{grown} KiB more");
        assert_eq!(inspect::the("relay"), relay, "the same relay");
    });
}

#[test]
fn a_syn_that_comes_again_is_the_same_connect() {
    World::test(|world| {
        world.sleeper("flooder", "");
        let script = format!("BLACK_HOLE='{BLACK_HOLE}'\n{RETRANSMISSIONS}");
        world.python("flooder", &script).ok();
        eventually(seconds(10), "a connect", || syn_sent() > 0);
        assert_eq!(syn_sent(), 1);
    });
}

#[test]
fn a_sandbox_has_its_share_of_the_connects_under_way() {
    World::test(|world| {
        servers::http("server", 80);
        for name in ["flooder", "calm"] {
            world.sleeper(name, "");
        }
        let limits = fs::read_to_string(format!("/proc/{}/limits", inspect::the("relay"))).unwrap();
        let files = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .unwrap();
        let files: usize = files.split_whitespace().nth(3).unwrap().parse().unwrap();
        flood(world, SYNS).wait().expect_code(0);
        let first = syn_sent();
        // Half of what there may be: a third of the descriptors, some of which are kept back.
        assert!(first > 0 && first <= files / 6, "{first} of {files}");
        assert!(first <= 8 * 1024, "{first}");
        let log = fs::read_to_string("/run/world/root/run/helper.log").unwrap_or_default();
        let told = log.matches("too many unanswered connects").count();
        assert_eq!(told, 1, "{log}");
        assert_eq!(connects(world).len(), 100);
    });
}
