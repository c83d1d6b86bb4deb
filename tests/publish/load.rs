//! Published ports under load: many at once, many clients, clients that stall, ports that come and
//! go meanwhile. Through the real binary, with clients on another host.

use super::ports::{end, serves};
use super::programs::{get, serve_nginx};
use super::*;
use crate::world::installed;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;

/// How long a client waits for what must come: long, so that a busy machine is no failure.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

const PORTS: u16 = 200;
const CLIENTS_OF_A_PORT: usize = 50;
const THREADS: usize = 8;

/// Sockets that the relay makes in advance once a family has been asked for, and idle pipes.
const STOCK: usize = 300;

/// Answers each line by its client, the port asked and the line, on ports 1000 to 1199, without a
/// thread for each.
const LINES: &str = "import resource,selectors,socket\n\
    most=resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n\
    resource.setrlimit(resource.RLIMIT_NOFILE,(most,most))\n\
    s=selectors.DefaultSelector()\n\
    def take(l,port):\n\
    \x20c,p=l.accept(); a=p[0].replace('::ffff:','')\n\
    \x20n=('[%s]:%d' if ':' in a else '%s:%d')%(a,p[1])\n\
    \x20s.register(c,selectors.EVENT_READ,(said,'%s %d '%(n,port)))\n\
    def said(c,who):\n\
    \x20d=c.recv(999)\n\
    \x20if not d: s.unregister(c); c.close()\n\
    \x20for line in d.splitlines(True): c.sendall(who.encode()+line)\n\
    for port in range(1000,1200):\n\
    \x20l=socket.create_server(('::',port),family=socket.AF_INET6,dualstack_ipv6=True,backlog=1024)\n\
    \x20s.register(l,selectors.EVENT_READ,(take,port))\n\
    print('serves',flush=True)\n\
    while True:\n\
    \x20for k,_ in s.select(): k.data[0](k.fileobj,k.data[1])";

/// A connection from the netns that this thread is in.
fn connect_here(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)
        .unwrap_or_else(|error| panic!("connect to {to}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a line, which is answered later.
pub(super) fn say(stream: &mut TcpStream, line: &str) {
    stream.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// The answer must bear the client's own address, and the port of the service.
pub(super) fn expect_own(stream: &mut TcpStream, port: u16, line: &str) {
    let own = stream.local_addr().unwrap();
    let expected = format!("{own} {port} {line}\n");
    let mut answer = vec![0; expected.len()];
    stream
        .read_exact(&mut answer)
        .unwrap_or_else(|error| panic!("answer to {expected}: {error}"));
    assert_eq!(String::from_utf8_lossy(&answer), expected);
}

fn leads_to(stream: &TcpStream) -> u16 {
    stream.peer_addr().unwrap().port() - 7000
}

/// A sandbox that serves lines, published with these flags.
pub(super) fn lines(world: &World, name: &str, flags: &str) {
    let head = ["run", "-d", "--name", name];
    let tail = ["--", "python3", "-c", LINES];
    world.mossnet(head).then(flags.split(' ')).then(tail).ok();
    serves(world, name);
}

/// One thread's clients of one wave: all connected at once, with those of the other threads.
fn wave(thread: usize, clients: std::ops::Range<usize>, together: &Barrier) {
    let ports = (8000..8000 + PORTS).skip(thread).step_by(THREADS);
    let mut streams = Vec::new();
    for client in clients {
        for port in ports.clone() {
            let v6 = (client + usize::from(port)).is_multiple_of(2);
            let mut stream = connect_here(at(if v6 { HOST6 } else { HOST }, port));
            say(&mut stream, &format!("client {client}"));
            streams.push((stream, client));
        }
    }
    for (stream, client) in &mut streams {
        expect_own(stream, leads_to(stream), &format!("client {client}"));
    }
    together.wait();
    // Everybody is connected: all are served now as before.
    for (stream, client) in &mut streams {
        say(stream, &format!("again {client}"));
    }
    for (stream, client) in &mut streams {
        expect_own(stream, leads_to(stream), &format!("again {client}"));
    }
    together.wait();
}

/// Connections of a port that can be open at once: each costs the relay two descriptors.
fn clients_at_once() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let of_flows = usize::try_from(hard).unwrap() / 4 * 3;
    let at_once = (of_flows - usize::from(PORTS)) / 2 / usize::from(PORTS);
    assert!(at_once > 0, "{hard} open files are too few for this test");
    at_once.min(CLIENTS_OF_A_PORT / 2)
}

#[test]
fn fifty_clients_of_each_of_two_hundred_ports_are_served_and_seen() {
    World::test(|world| {
        lines(world, "web", "-p 8000-8199:1000-1199");
        let idle = world.relay_descriptors();
        let at_once = clients_at_once();
        let together = Barrier::new(THREADS);
        for first in (0..CLIENTS_OF_A_PORT).step_by(at_once) {
            let clients = first..CLIENTS_OF_A_PORT.min(first + at_once);
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (clients, together) = (clients.clone(), &together);
                    scope.spawn(move || within("server", || wave(thread, clients, together)));
                }
            });
        }
        let total = world
            .mossnet(["port", "ls", "web", "--total", "--format", "json"])
            .ok();
        assert!(
            total.contains("\"Accepted\":10000") && total.contains("\"Refused\":0"),
            "{total}"
        );
        eventually(seconds(20), "the relay to let go of all", || {
            world.relay_descriptors() <= idle + STOCK
        });
        end(world);
    });
}

/// Sends back what comes, on port 80 and by UDP on port 53.
const ECHO: &str = "import socket,threading\n\
    t=socket.create_server(('::',80),family=socket.AF_INET6,dualstack_ipv6=True,backlog=256)\n\
    u=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\n\
    u.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_V6ONLY,0); u.bind(('::',53))\n\
    def datagrams():\n\
    \x20while True: u.sendto(*u.recvfrom(999))\n\
    def echo(c):\n\
    \x20while True:\n\
    \x20 d=c.recv(1<<17)\n\
    \x20 if not d: break\n\
    \x20 c.sendall(d)\n\
    \x20c.close()\n\
    threading.Thread(target=datagrams,daemon=True).start()\n\
    print('serves',flush=True)\n\
    while True: threading.Thread(target=echo,args=(t.accept()[0],),daemon=True).start()";

/// Bytes that nobody else's are like, and that never repeat.
struct Pattern(u64);

impl Pattern {
    fn fill(&mut self, block: &mut [u8]) {
        for word in block.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes());
        }
    }
}

/// A connection that carries a pattern there and back until it is stopped.
struct Transfer {
    stop: Arc<AtomicBool>,
    back: Arc<AtomicU64>,
    writer: JoinHandle<u64>,
    reader: JoinHandle<u64>,
}

const BLOCK: usize = 32 << 10;

impl Transfer {
    fn start(seed: u64, to: SocketAddr) -> Self {
        let stream = within("server", || connect_here(to));
        let mut sink = stream.try_clone().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let writer = std::thread::spawn(move || {
            let (mut pattern, mut block, mut sent) = (Pattern(seed), vec![0; BLOCK], 0);
            while !stopped.load(Ordering::Relaxed) {
                pattern.fill(&mut block);
                sink.write_all(&block)
                    .unwrap_or_else(|error| panic!("{to}: {error}"));
                sent += BLOCK as u64;
            }
            sink.shutdown(Shutdown::Write).unwrap();
            sent
        });
        let back = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&back);
        let reader = std::thread::spawn(move || compare(stream, seed, &counted));
        Self {
            stop,
            back,
            writer,
            reader,
        }
    }

    fn carried(&self) -> u64 {
        self.back.load(Ordering::Relaxed)
    }

    /// Everything has come back, and then the end.
    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.writer.join().expect("writer");
        assert_eq!(self.reader.join().expect("reader"), sent);
    }
}

/// Reads the pattern to the end of the stream: how much came.
fn compare(mut stream: TcpStream, seed: u64, counted: &AtomicU64) -> u64 {
    let (mut pattern, mut block) = (Pattern(seed), vec![0; BLOCK]);
    let mut got = vec![0; BLOCK];
    loop {
        let mut filled = 0;
        while filled < BLOCK {
            match stream.read(&mut got[filled..]).expect("what was sent") {
                0 => break,
                count => filled += count,
            }
        }
        pattern.fill(&mut block);
        let before = counted.fetch_add(filled as u64, Ordering::Relaxed);
        assert!(got[..filled] == block[..filled], "altered after {before}");
        if filled < BLOCK {
            return before + filled as u64;
        }
    }
}

/// All of them carry more than they have.
fn all_go_on(transfers: &[Transfer]) {
    let before: Vec<_> = transfers.iter().map(Transfer::carried).collect();
    eventually(PATIENCE, "every connection to go on", || {
        let mut both = transfers.iter().zip(&before);
        both.all(|(transfer, before)| transfer.carried() > *before)
    });
}

#[test]
fn connections_go_on_while_ports_come_and_go() {
    World::test(|world| {
        let head = ["run", "-d", "--name", "web"];
        let ports = ["-p", "8080:80", "-p", "5353:53/udp"];
        let tail = ["--", "python3", "-c", ECHO];
        world.mossnet(head).then(ports).then(tail).ok();
        serves(world, "web");
        let udp = [HOST, HOST6].map(|host| udp_client("server", 0, at(host, 5353)));
        let hosts = [HOST, HOST6].into_iter().cycle();
        let mut transfers: Vec<_> = (1..=4)
            .zip(hosts.clone())
            .map(|(seed, host)| Transfer::start(seed, at(host, 8080)))
            .collect();
        for (round, host) in (0..6).zip(hosts) {
            let changed = ["9000-9099:9000-9099", "9100-9119:9100-9119/udp", "9200:80"];
            world.mossnet(["port", "add", "web"]).then(changed).ok();
            // One more, by a port that is taken back while it carries.
            transfers.push(Transfer::start(100 + round, at(host, 9200)));
            all_go_on(&transfers);
            world.mossnet(["port", "rm", "web"]).then(changed).ok();
            let refused = within("server", || TcpStream::connect(at(host, 9200))).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            all_go_on(&transfers);
            for udp in &udp {
                udp.send(b"echo").unwrap();
                assert_eq!(udp.recv(&mut [0; 9]).expect("an echo"), 4);
            }
        }
        // A network that comes and goes changes what is admitted, which is looked up again for all.
        world.network("create second").ok();
        world.sleeper("other", "--network second -p 9300:80");
        all_go_on(&transfers);
        world.mossnet(["rm", "-f", "other"]).ok();
        world.network("rm second").ok();
        all_go_on(&transfers);
        for transfer in transfers {
            transfer.finish();
        }
        // Connections and flows are those of the beginning.
        let counted = "{{.HostPorts}} {{.Accepted}} {{.Refused}}";
        let counted = world
            .mossnet(["port", "ls", "web", "--format", counted])
            .ok();
        assert_eq!(counted, "8080 4 0\n5353 2 0\n");
        end(world);
    });
}

/// More than all buffers on the way can hold.
const LARGE: usize = 24 << 20;

#[test]
fn clients_that_stall_delay_nobody() {
    World::test(|world| {
        if !installed("nginx") {
            return;
        }
        let mut large = vec![0; LARGE];
        Pattern(7).fill(&mut large);
        std::fs::write("/run/world/home/large", &large).unwrap();
        serve_nginx(world, "web", "8080:80");
        let hosts = [HOST, HOST6];
        // Half a request.
        let mut slow: Vec<_> = (0..100)
            .map(|n| connect("server", at(hosts[n % 2], 8080)))
            .collect();
        for stream in &mut slow {
            stream.write_all(b"GET /page HTTP/1.0\r\nHo").unwrap();
        }
        // A whole one, of which the answer is not read.
        let mut full: Vec<_> = (0..20)
            .map(|n| connect("server", at(hosts[n % 2], 8080)))
            .collect();
        for stream in &mut full {
            stream.write_all(b"GET /large HTTP/1.0\r\n\r\n").unwrap();
        }
        let bytes_out = || {
            let json = ["port", "ls", "web", "--format", "{{.BytesOut}}"];
            world.mossnet(json).ok()
        };
        let mut last = String::new();
        eventually(PATIENCE, "every window to be shut", || {
            std::thread::sleep(Duration::from_millis(300));
            let now = bytes_out();
            std::mem::replace(&mut last, now.clone()) == now && now != "0\n"
        });
        for n in 0..100 {
            let (answer, _) = get("server", at(hosts[n % 2], 8080), "/page");
            assert!(answer.ends_with("\r\n\r\na page\n"), "{answer}");
        }
        // Nobody has been given up for that.
        for mut stream in slow {
            stream.write_all(b"st: web\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            assert!(answer.ends_with("\r\n\r\na page\n"), "{answer}");
        }
        for mut stream in full {
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("the large file");
            assert!(answer.ends_with(&large), "{} bytes", answer.len());
        }
        end(world);
    });
}
