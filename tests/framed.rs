//! Framed flows: connections whose container side the relay speaks itself, as long as they are short. What they
//! are is seen by the sockets of the router netns, which they have none of; that nobody notices, by each exchange
//! going both ways (out of a container, and by a published port) and over both families.
//!
//! `ends`: half-closes and resets. `stalls`: peers that do not read, or whose TCP lacks timestamps. `others`: forgers, and
//! the relay's death.

mod ends;
mod others;
mod stalls;

use crate::publish::ports::serves;
use crate::publish::{HOST, HOST6};
use crate::world::{Cmd, Running, SERVER, SERVER6, World, eventually, inspect, seconds};

/// What servers and clients have at hand.
const WORDS: &str = "\
import array,errno,fcntl,hashlib,socket,struct,sys,termios,threading,time
def pattern(n,seed=7): return hashlib.shake_128(b'%d'%seed).digest(n)
def take(c,n):
    d=b''
    while len(d)<n:
        more=c.recv(min(n-len(d),1<<16))
        if not more: raise EOFError(len(d))
        d+=more
    return d
def rest(c):
    d=bytearray()
    try:
        while more:=c.recv(1<<16): d+=more
        how='eof'
    except OSError as e: how=errno.errorcode[e.errno]
    return bytes(d),how
def is_taken(c):
    n=array.array('i',[1])
    while n[0]: fcntl.ioctl(c,termios.TIOCOUTQ,n); time.sleep(.01)
def reset(c): c.setsockopt(socket.SOL_SOCKET,socket.SO_LINGER,struct.pack('ii',1,0)); c.close()
def ask(c,d): c.sendall(d); got=take(c,len(d)); assert got==d,(d[:9],got[:9])
def say(*words): print(*words,flush=True)
def echo(c):
    while d:=c.recv(1<<16): c.sendall(d)
    c.close()
";

/// Port of the servers, and the one by which the container's is published.
const PORT: u16 = 7000;
const PUBLISHED: u16 = 8080;

/// Between whom a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From a container to the server.
    Out { v6: bool },
    /// From the server's host to a container.
    In { v6: bool },
}

const WAYS: [Way; 4] = [
    Way::Out { v6: false },
    Way::Out { v6: true },
    Way::In { v6: false },
    Way::In { v6: true },
];

/// A server in the container `web`, the same in the netns `server`; clients beside them.
struct Stage<'w> {
    world: &'w World,
    server: Running,
}

impl<'w> Stage<'w> {
    /// `serve`: body of a function of the connection, `c`.
    fn set(world: &'w World, serve: &str) -> Self {
        Self::set_with(world, serve, |command| command)
    }

    /// The same, with something about the first command, which starts the daemon.
    fn set_with(world: &'w World, serve: &str, first: impl Fn(Cmd) -> Cmd) -> Self {
        let body: String = serve.lines().map(|line| format!("    {line}\n")).collect();
        let script = format!(
            "{WORDS}def serve(c):\n{body}\
             l=socket.create_server(('::',{PORT}),family=socket.AF_INET6,dualstack_ipv6=True,backlog=1024)\n\
             say('serves')\nwhile True: threading.Thread(target=serve,args=l.accept()[:1],daemon=True).start()"
        );
        let publish = format!("{PUBLISHED}:{PORT}");
        let head = ["run", "-d", "--name", "web", "-p", &publish, "--"];
        let web = world.mossnet(head).then(["python3", "-c", &script]);
        first(web).ok();
        world.sleeper("client", "");
        let server = world.server(["python3", "-c", &script]);
        let mut server = server.timeout(seconds(300)).start();
        server.expect("serves");
        serves(world, "web");
        Self { world, server }
    }

    /// A client's script, whose `connect()` makes a connection.
    fn client(&self, way: Way, script: &str) -> Cmd {
        let (address, port) = match way {
            Way::Out { v6: false } => (SERVER, PORT),
            Way::Out { v6: true } => (SERVER6, PORT),
            Way::In { v6: false } => (HOST, PUBLISHED),
            Way::In { v6: true } => (HOST6, PUBLISHED),
        };
        let script = format!(
            "{WORDS}def connect(): return socket.create_connection(('{address}',{port}),20)\n{script}"
        );
        let python = ["python3", "-c", &script];
        let command = match way {
            Way::Out { .. } => self
                .world
                .mossnet(["exec", "-i", "client", "--"])
                .then(python),
            Way::In { .. } => self.world.server(python),
        };
        command.timeout(seconds(60))
    }

    /// A client that goes on when it is told to.
    fn start(&self, way: Way, script: &str) -> Running {
        self.client(way, script).open_stdin().start()
    }

    /// Runs a client to its end, both ways and over both families; it says `fine`.
    #[track_caller]
    fn each(&self, script: &str) {
        for way in WAYS {
            let said = self.client(way, script).run();
            assert!(said.stdout.ends_with("fine\n"), "{way:?}: {said}");
        }
    }

    /// The same, each of whose servers then has said `words`.
    #[track_caller]
    fn each_hears(&self, script: &str, words: &str) {
        for way in WAYS {
            let before = self.said(way).matches(words).count();
            let said = self.client(way, script).run();
            assert!(said.stdout.ends_with("fine\n"), "{way:?}: {said}");
            eventually(seconds(5), &format!("{way:?}: {words}"), || {
                self.said(way).matches(words).count() > before
            });
        }
    }

    /// What the server at the end of the way has said.
    fn said(&self, way: Way) -> String {
        match way {
            Way::Out { .. } => self.server.stdout(),
            Way::In { .. } => self.world.mossnet(["logs", "web"]).ok(),
        }
    }

    /// Connections that go on, of the server's: those with a socket in the router netns.
    fn in_router(&self) -> Vec<String> {
        let ours = format!("( sport = :{PORT} or dport = :{PORT} )");
        let text = inspect::in_router(["ss", "-Htan", "state", "connected", &ours]).ok();
        let ended = |line: &&str| line.contains("TIME-WAIT");
        text.lines()
            .filter(|line| !ended(line))
            .map(str::to_owned)
            .collect()
    }

    /// The same of the host netns, with their timers.
    fn on_host(&self, way: Way) -> Vec<String> {
        let ours = match way {
            Way::Out { .. } => format!("dport = :{PORT}"),
            Way::In { .. } => format!("sport = :{PUBLISHED}"),
        };
        let argv = ["ss", "-Htno", "state", "established", &ours];
        let text = self.world.host(argv).ok();
        text.lines().map(str::to_owned).collect()
    }

    /// The peer of each connection will be asked whether it lives, when it has been silent for long.
    #[track_caller]
    fn are_kept_alive(&self, way: Way) {
        eventually(seconds(5), "keepalive timers", || {
            let there = self.on_host(way);
            !there.is_empty()
                && there
                    .iter()
                    .all(|line| line.contains("timer:(keepalive,4min"))
        });
    }

    fn end(self) {
        self.world.mossnet(["rm", "-f", "web", "client"]).ok();
    }
}

/// Connections of [`TALKS`].
const TALKERS: usize = 8;
/// Where the machine is busy, the kernel has taken over some.
const MOST_TAKEN: usize = TALKERS / 2;

/// Has short exchanges by connections that stay open until a line comes.
const TALKS: &str = "\
all=[connect() for _ in range(8)]
for c in all:
    for d in (b'ping',b'x'*1000,b'pong'): ask(c,d)
say('talked'); sys.stdin.readline()
for c in all: ask(c,b'bye')
say('fine')";

fn talk(stage: &Stage<'_>, way: Way, expected: impl Fn(usize) -> bool) {
    let mut client = stage.start(way, TALKS);
    client.expect("talked");
    let there = stage.in_router();
    assert!(expected(there.len()), "{way:?}: {there:#?}");
    assert_eq!(stage.on_host(way).len(), TALKERS, "{way:?}");
    client.write(b"\n");
    client.wait().expect_code(0).expect_text("fine");
    eventually(seconds(5), "the connections are over", || {
        stage.on_host(way).is_empty() && stage.in_router().is_empty()
    });
}

#[test]
fn short_exchanges_need_no_socket_in_the_router() {
    World::test(|world| {
        let stage = Stage::set(world, "echo(c)");
        for way in WAYS {
            talk(&stage, way, |there| there <= MOST_TAKEN);
        }
        stage.end();
    });
}

#[test]
fn where_they_are_not_wanted_the_kernel_speaks_all() {
    World::test(|world| {
        let stage = Stage::set_with(world, "echo(c)", |first| first.env("MOSSNET_FRAMED", "0"));
        for way in WAYS {
            talk(&stage, way, |there| there == TALKERS);
            let mut client = stage.start(way, "c=connect()\nsay('there'); sys.stdin.readline()");
            client.expect("there");
            stage.are_kept_alive(way);
            client.write(b"\n");
            client.wait().expect_code(0);
        }
        stage.end();
    });
}

#[test]
fn a_word_that_is_neither_is_named() {
    World::test(|world| {
        let run = world
            .mossnet(["run", "true"])
            .env("MOSSNET_FRAMED", "maybe");
        run.fails(125)
            .expect_text("MOSSNET_FRAMED='maybe' must be 0 (off) or 1")
            .expect_clear();
    });
}

#[test]
fn bulk_is_handed_to_the_kernel_unharmed() {
    World::test(|world| {
        let stage = Stage::set(
            world,
            "while h:=c.recv(4,socket.MSG_WAITALL): c.sendall(take(c,int.from_bytes(h)))",
        );
        let script = "\
c=connect()
def send(n,seed): c.sendall(n.to_bytes(4)+pattern(n,seed))
for seed,n in enumerate((5,100,1<<20,7,3000,1<<20,20000,1)):
    t=threading.Thread(target=send,args=(n,seed)); t.start()
    assert take(c,n)==pattern(n,seed),n
    t.join()
say('moved'); sys.stdin.readline()
send(9,9); assert take(c,9)==pattern(9,9)
say('fine')";
        for way in WAYS {
            let mut client = stage.start(way, script);
            client.expect("moved");
            let there = stage.in_router();
            assert_eq!(there.len(), 1, "{way:?}: {there:?}");
            stage.are_kept_alive(way);
            client.write(b"\n");
            client.wait().expect_code(0).expect_text("fine");
        }
        stage.end();
    });
}

#[test]
fn a_server_may_speak_first() {
    World::test(|world| {
        let stage = Stage::set(world, "c.sendall(b'welcome'); echo(c)");
        stage.each(
            "for _ in range(50):\n    c=connect(); assert take(c,7)==b'welcome'; ask(c,b'hello'); c.close()\nsay('fine')",
        );
        stage.end();
    });
}

#[test]
fn a_connection_that_is_asked_now_and_then_stays_framed() {
    World::test(|world| {
        let stage = Stage::set(world, "echo(c)");
        let script = "\
all=[connect() for _ in range(8)]
for n in range(7):
    for c in all: ask(c,b'%d'%n)
    time.sleep(.3)
say('kept'); sys.stdin.readline()
for c in all: ask(c,b'bye')
say('fine')";
        for way in WAYS {
            let mut client = stage.start(way, script);
            client.expect("kept");
            let there = stage.in_router();
            assert!(there.len() <= MOST_TAKEN, "{way:?}: {there:#?}");
            client.write(b"\n");
            client.wait().expect_code(0).expect_text("fine");
        }
        stage.end();
    });
}

#[test]
fn a_refused_client_is_told_at_once() {
    World::test(|world| {
        let head = ["run", "-d", "--name", "web", "-p", "8080:9"];
        world.mossnet(head).then(["--", "sleep", "1000"]).ok();
        for host in [HOST, HOST6] {
            let script = format!(
                "{WORDS}for _ in range(20):\n    begin=time.monotonic()\n    try:\n        \
                 c=socket.create_connection(('{host}',{PUBLISHED}),20); how=rest(c)[1]\n    \
                 except OSError as e: how=errno.errorcode[e.errno]\n    \
                 assert how in ('ECONNREFUSED','ECONNRESET'),how\n    \
                 print(time.monotonic()-begin)"
            );
            let times = world.server(["python3", "-c", &script]).ok();
            let times: Vec<f64> = times.lines().map(|line| line.parse().unwrap()).collect();
            assert_eq!(times.len(), 20);
            // One that others on the machine held up is no failure.
            let late = times.iter().filter(|time| **time > 0.15).count();
            assert!(late < 10, "{times:?}");
        }
        world.mossnet(["rm", "-f", "web"]).ok();
    });
}

/// By how much the stocks of both families may have grown (`relay::socket_pool`: filled up by 64 when they fall below 48),
/// of 12,000 connections.
const MOST_STOCKED: usize = 2 * 64;

#[test]
fn thousands_of_short_connections_leave_nothing() {
    World::builder().deadline(180).test(|world| {
        let stage = Stage::set(world, "echo(c)");
        let run = |count: usize| {
            let script = format!(
                "for n in range({count}):\n    c=connect(); ask(c,b'%d'%n)\n    \
                 if n%2: c.shutdown(socket.SHUT_WR); assert rest(c)==(b'','eof')\n    c.close()\nsay('fine')"
            );
            stage.each(&script);
        };
        run(300);
        // Some are the kernel's, where others hold the machine up. For these the relay has sockets in stock.
        stage.each("c=connect(); t=threading.Thread(target=c.sendall,args=(bytes(1<<20),)); t.start()\n\
                    take(c,1<<20); t.join(); c.close()\nsay('fine')");
        let before = world.relay_descriptors();
        run(3000);
        eventually(seconds(10), "no connection is left", || {
            WAYS.iter().all(|way| stage.on_host(*way).is_empty()) && stage.in_router().is_empty()
        });
        let after = world.relay_descriptors();
        assert!(after <= before + MOST_STOCKED, "{before}, now {after}");
        stage.end();
    });
}
