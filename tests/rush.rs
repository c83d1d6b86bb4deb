//! A sandbox that sends datagrams faster than the relay reads them: a thread of the kernel puts them together
//! while that lasts, and nothing about them changes.

use crate::world::{SERVER, SERVER6, World, eventually, inspect, netns, seconds};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Sends as fast as it can until it is killed: numbers, in datagrams of 200 bytes and, every tenth, of 100.
const FLOOD: &str = "
s=socket.socket(socket.AF_INET6 if ':' in TO else socket.AF_INET,socket.SOCK_DGRAM)
s.connect((TO,7000))
print('flooding',flush=True)
i=0
while True:
\x20b=struct.pack('!Q',i).ljust(100 if i%10==0 else 200,b'.')
\x20try: s.send(b)
\x20except OSError: pass
\x20i+=1
";

/// Answers one datagram with as many as it can, until it is killed.
const ANSWERS: &str = "
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
s.bind(('',53))
_,who=s.recvfrom(100)
s.connect(who)
while True:
\x20try: s.send(b'.'*200)
\x20except OSError: pass
";

/// Where a kernel does without, or a container shows no /sys, there is nothing to see.
const REFUSED: &str = "are not put together";

fn helper_log() -> String {
    std::fs::read_to_string("/run/world/root/run/helper.log").unwrap_or_default()
}

/// Whether a thread of the kernel takes what the only port of the router netns brings.
fn threaded() -> bool {
    is_threaded("ve-")
}

fn is_threaded(prefix: &str) -> bool {
    let ports = inspect::router_interfaces(prefix);
    let port = ports.first().expect("a port");
    let script = format!("mount -t sysfs sysfs /sys && cat /sys/class/net/{port}/threaded");
    let text = inspect::in_router(["unshare", "-m", "sh", "-c", &script]).ok();
    text.trim() == "1"
}

/// What the sandbox's end of it waits in.
fn queue(world: &World) -> String {
    world.within("busy", "tc qdisc show dev eth0").ok()
}

/// A server that counts what comes, and finds fault with it.
struct Server {
    count: Arc<AtomicU64>,
    wrong: Arc<AtomicBool>,
}

impl Server {
    fn start() -> Self {
        let socket = netns::within("server", || UdpSocket::bind("[::]:7000").unwrap());
        let (count, wrong) = (Arc::default(), Arc::default());
        let server = Self { count, wrong };
        let (count, wrong) = (Arc::clone(&server.count), Arc::clone(&server.wrong));
        std::thread::spawn(move || {
            let mut buffer = [0; 2000];
            let mut last = None;
            while let Ok((length, _)) = socket.recv_from(&mut buffer) {
                let number = u64::from_be_bytes(buffer[..8].try_into().unwrap());
                let expected = if number % 10 == 0 { 100 } else { 200 };
                let later = number == 0 || last.is_none_or(|last| number > last);
                if length != expected || !later {
                    println!("{number} of {length} bytes after {last:?}");
                    wrong.store(true, Ordering::Relaxed);
                }
                last = Some(number);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        server
    }

    /// Sees more of them.
    fn sees(&self, more: u64) {
        let until = self.count.load(Ordering::Relaxed) + more;
        eventually(seconds(20), "more datagrams", || {
            self.count.load(Ordering::Relaxed) >= until
        });
        assert!(
            !self.wrong.load(Ordering::Relaxed),
            "out of order or resized"
        );
    }
}

fn flood(world: &World, to: &str) -> crate::world::Running {
    let script = format!("import socket,struct\nTO='{to}'\n{FLOOD}");
    let mut flood = world.python("busy", &script).timeout(seconds(80)).start();
    flood.expect("flooding");
    flood
}

/// To the program in the sandbox, which does not end with the command that waits for it.
fn signal(world: &World, name: &str) {
    let script = format!("pkill -{name} python3");
    world.within("busy", &script).ok();
}

/// Until a rush has begun. `false`: the kernel here does without.
fn begins(world: &World) -> bool {
    let mut refused = false;
    eventually(seconds(20), "a rush", || {
        refused = helper_log().contains(REFUSED);
        refused || threaded()
    });
    if refused {
        println!("SKIP: {}", helper_log());
    } else {
        assert!(queue(world).contains("pfifo 6d6f:"), "{}", queue(world));
    }
    !refused
}

fn is_over(world: &World) {
    eventually(seconds(20), "the end of the rush", || !threaded());
    eventually(seconds(5), "no queue", || !queue(world).contains("6d6f:"));
}

#[test]
fn datagrams_in_a_rush_are_put_together_and_unchanged() {
    World::test(|world| {
        world.sleeper("busy", "");
        let server = Server::start();
        for to in [SERVER, SERVER6] {
            assert!(!threaded());
            let flood = flood(world, to);
            if !begins(world) {
                return;
            }
            server.sees(20_000);
            signal(world, "KILL");
            flood.wait();
            is_over(world);
            server.count.store(0, Ordering::Relaxed);
        }
        // Who sends no more than a few is in no rush.
        let script = format!(
            "import socket\ns=socket.socket(2,2)\nfor i in range(500): s.sendto(b'x',('{SERVER}',9))"
        );
        world.python("busy", &script).ok();
        assert!(!threaded());
    });
}

#[test]
fn a_rush_does_not_outlive_the_relay() {
    World::test(|world| {
        world.sleeper("busy", "");
        let server = Server::start();
        let flood = flood(world, SERVER);
        if !begins(world) {
            return;
        }
        // Stopped, the flood cannot begin another one with the next relay.
        signal(world, "STOP");
        let relay = inspect::the("relay");
        inspect::kill_hard(&[relay]);
        eventually(seconds(20), "the next relay with its threads", || {
            let next = inspect::mossnet_processes("relay");
            next.iter().any(|pid| inspect::threads(*pid).len() > 2)
        });
        is_over(world);
        signal(world, "CONT");
        assert!(begins(world));
        server.sees(1000);
        // Nor the sandbox: nothing is left to be told of.
        world.mossnet(["rm", "-f", "busy"]).ok();
        flood.wait();
        world.sleeper("busy", "");
        std::thread::sleep(Duration::from_secs(3));
        assert!(!threaded());
        world.check_leftovers();
    });
}

#[test]
fn answers_of_a_published_port_may_rush_too() {
    World::test(|world| {
        world.sleeper("busy", "-p 5353:53/udp");
        let script = format!("import socket\n{ANSWERS}");
        let answers = world.python("busy", &script).timeout(seconds(60)).start();
        let client = netns::within("server", || UdpSocket::bind("[::]:0").unwrap());
        client
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let host = (format!("::ffff:{}", crate::publish::HOST), 5353);
        let host = (host.0.parse::<std::net::Ipv6Addr>().unwrap(), host.1);
        let mut buffer = [0; 2000];
        eventually(seconds(10), "an answer", || {
            client.send_to(b"go", host).unwrap();
            client
                .recv_from(&mut buffer)
                .is_ok_and(|(length, _)| length == 200)
        });
        if begins(world) {
            let next = client.recv_from(&mut buffer).unwrap();
            assert_eq!(next.0, 200);
        }
        signal(world, "KILL");
        answers.wait();
    });
}

#[test]
fn the_pasta_drop_in_sees_it_too() {
    World::test(|world| {
        let server = Server::start();
        let script = format!(
            "cat >/run/p/flood.py <<'END'\nimport socket,struct\nTO='{SERVER}'\n{FLOOD}\nEND\n\
             podmans $quiet_ports\n\
             nsenter --net=/run/p/ns python3 /run/p/flood.py >/dev/null &\n\
             flood=$!\necho up; read go; kill $flood\n\
             echo calm; read go; kill $(cat /run/p/pid)"
        );
        let mut running = crate::pasta::sh(world, &script).open_stdin().start();
        running.expect("up\n");
        server.sees(1000);
        // It says so on its standard error, which podman shows to nobody.
        let mut port = || is_threaded("br-");
        eventually(seconds(20), "a rush", &mut port);
        running.write(b"\n");
        running.expect("calm\n");
        eventually(seconds(20), "its end", || !port());
        running.write(b"\n");
        running.wait().expect_code(0);
    });
}
