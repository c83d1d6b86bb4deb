//! What a command sent just before it ended arrives, though nobody waits for it.

use crate::world::{SERVER, World, eventually, inspect, seconds, servers};
use std::io::Read;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Fills the connection to [`SERVER`] until nothing more is taken, says how much that was, and
/// then does what `closes` says.
fn filling(closes: &str) -> [String; 3] {
    let script = format!(
        "import socket,time\ns = socket.create_connection(('{SERVER}', 80), 5)\n\
         s.setblocking(False)\nblock = bytes(i % 251 for i in range(251 * 400))\n\
         total, moved = 0, time.monotonic()\n\
         while time.monotonic() < moved + 0.5:\n\
         \x20 try:\n\
         \x20   at = total % 251\n\
         \x20   total += s.send(block[at:])\n\
         \x20   moved = time.monotonic()\n\
         \x20 except BlockingIOError: time.sleep(0.01)\n\
         print(total, flush=True)\n{closes}"
    );
    ["python3".to_owned(), "-c".to_owned(), script]
}

/// What the server got, once it was told to read.
struct Stalled {
    go: Sender<bool>,
    got: Receiver<Vec<u8>>,
}

impl Stalled {
    /// Accepts on port 80 and reads nothing; each word to go lets one connection be read to its end,
    /// or be dropped.
    fn start() -> Self {
        let (go, gate) = channel();
        let (sender, got) = channel();
        let both = Mutex::new((gate, sender));
        servers::tcp("server", 80, move |mut stream: TcpStream| {
            let both = both.lock().expect("one connection at a time");
            let (gate, sender) = &*both;
            if gate.recv() == Ok(true) {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes);
                let _ = sender.send(bytes);
            }
        });
        Self { go, got }
    }

    /// Has it reset the connection.
    fn drop_one(&self) {
        self.go.send(false).expect("a server");
    }

    /// Lets it read, and expects exactly the `total` bytes that were sent.
    #[track_caller]
    fn expect(&self, total: &str) {
        let total: usize = total.trim().parse().expect("a number of bytes");
        assert!(total > 500_000, "{total} bytes");
        self.go.send(true).expect("a server");
        let got = self.got.recv_timeout(seconds(30)).expect("an end of file");
        assert_eq!(got.len(), total);
        assert!(
            got.iter()
                .zip((0..251).cycle())
                .all(|(got, sent)| *got == sent)
        );
    }
}

fn veths() -> usize {
    inspect::router_interfaces("ve-").len()
}

#[track_caller]
fn expect_gone(what: &str) {
    eventually(seconds(5), what, || veths() == 0);
}

#[test]
fn what_was_sent_last_arrives_after_the_end() {
    World::test(|world| {
        let server = Stalled::start();
        let run = ["run", "--rm", "--name", "last", "--"];
        let output = world.mossnet(run).then(filling("s.close()")).run();
        let output = output.expect_code(0).expect_within(seconds(10));
        assert_eq!(veths(), 1, "it lingers");
        assert_eq!(
            world.mossnet(["ps", "-aq"]).ok(),
            "",
            "the sandbox does not"
        );
        // A newcomer without wishes neither waits nor gets the address.
        let other = world.sh("ip -o -4 addr show eth0").run();
        let other = other.expect_code(0).expect_within(seconds(1));
        assert!(!other.stdout.contains("10.89.0.2/"), "{}", other.stdout);
        assert_eq!(veths(), 1, "it lingers still");
        server.expect(&output.stdout);
        expect_gone("the veth pair goes with the last byte");
        let free = ["run", "--rm", "--ip", "10.89.0.2", "--", "true"];
        world
            .mossnet(free)
            .run()
            .expect_code(0)
            .expect_within(seconds(1));
    });
}

#[test]
fn removal_ends_it() {
    World::test(|world| {
        let server = Stalled::start();
        world.detached("ended", filling("s.close()"));
        assert_eq!(world.mossnet(["wait", "ended"]).ok(), "0\n");
        assert_eq!(veths(), 1);
        world
            .mossnet(["rm", "ended"])
            .run()
            .expect_code(0)
            .expect_within(seconds(1));
        assert_eq!(veths(), 0, "rm");
        server.drop_one();
        world.detached("running", filling("time.sleep(1000)"));
        eventually(seconds(10), "all is sent that can be", || {
            !world.mossnet(["logs", "running"]).ok().is_empty()
        });
        world
            .mossnet(["rm", "-f", "running"])
            .run()
            .expect_code(0)
            .expect_within(seconds(1));
        assert_eq!(veths(), 0, "rm -f");
    });
}

#[test]
fn the_next_of_its_name_or_address_gets_its_place() {
    World::test(|world| {
        let server = Stalled::start();
        let run = |options: &[&str]| world.mossnet(["run", "--rm"]).then(options).then(["--"]);
        let show = ["ip", "-o", "-4", "addr", "show", "eth0"];
        for options in [["--name", "same"], ["--ip", "10.89.0.77"]] {
            run(&options).then(filling("s.close()")).ok();
            assert_eq!(veths(), 1, "{options:?}");
            let next = run(&options).then(show).run();
            let next = next.expect_code(0).expect_within(seconds(3));
            let address = if options[0] == "--ip" {
                "10.89.0.77/"
            } else {
                "10.89.0.2/"
            };
            assert!(
                next.stdout.contains(address),
                "{options:?}: {}",
                next.stdout
            );
            expect_gone("one that was cut leaves nothing");
            server.drop_one();
        }
        // Within that second it may come to its end.
        let sent = run(&["--name", "same"]).then(filling("s.close()")).ok();
        let next = run(&["--name", "same"]).then(show).start();
        server.expect(&sent);
        next.wait().expect_code(0).expect_text("10.89.0.2/");
    });
}

#[test]
fn nothing_ends_before_it_but_by_force() {
    World::test(|world| {
        let server = Stalled::start();
        let mossnet = |argv: &[&str]| world.mossnet(argv).env("MOSSNET_IDLE", "1");
        let fill = || {
            mossnet(&["run", "--rm", "--"])
                .then(filling("s.close()"))
                .ok()
        };
        let sent = fill();
        let daemon = inspect::the("daemon");
        std::thread::sleep(seconds(3));
        assert_eq!(inspect::the("daemon"), daemon, "idle it is not");
        server.expect(&sent);
        eventually(seconds(10), "now it is", || {
            inspect::mossnet_processes("daemon").is_empty()
        });
        fill();
        let next = inspect::the("daemon");
        inspect::kill_hard(&[next]);
        assert_eq!(veths(), 1, "as a sandbox would, it outlives the daemon");
        mossnet(&["ps"]).ok();
        expect_gone("the next daemon finds no record of it");
        server.drop_one();
        fill();
        mossnet(&["shutdown"]).ok();
        eventually(
            seconds(5),
            "an end that is asked for does not wait long",
            || {
                let all = ["daemon", "helper", "relay"];
                all.iter()
                    .all(|role| inspect::mossnet_processes(role).is_empty())
            },
        );
    });
}

#[test]
fn sockets_of_who_shares_the_network_do_not_count() {
    World::test(|world| {
        world.detached("owner", ["sleep", "1000"]);
        let listen = "import socket,time\ns = socket.create_server(('', 9000))\n\
                      c = socket.create_connection(('127.0.0.1', 9000))\n\
                      print('ready', flush=True)\ntime.sleep(1000)";
        let join = [
            "run",
            "-d",
            "--name",
            "guest",
            "--network",
            "container:owner",
            "--",
        ];
        world.mossnet(join).then(["python3", "-c", listen]).ok();
        eventually(seconds(5), "the guest has sockets", || {
            !world.mossnet(["logs", "guest"]).ok().is_empty()
        });
        assert_eq!(veths(), 1);
        world.mossnet(["kill", "owner"]).ok();
        world.mossnet(["wait", "owner"]).ok();
        assert_eq!(veths(), 0, "nothing of them is on its way");
        world.mossnet(["rm", "-f", "owner", "guest"]).ok();
    });
}
