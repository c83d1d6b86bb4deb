//! Programs that people publish, in sandboxes, with clients on another host: what their logs say of
//! clients, how connections end, and by which network they answer.

use super::ports::{answers, end, told};
use super::*;
use crate::world::{SERVER, SERVER6, installed};

const NGINX: &str = "master_process off; daemon off; user root; pid /tmp/nginx.pid;
error_log stderr; events { worker_connections 512; }
http {
  log_format who 'client $remote_addr port $remote_port asks $uri';
  access_log /dev/stdout who;
  client_body_temp_path /tmp/nginx-body; proxy_temp_path /tmp/nginx-proxy;
  fastcgi_temp_path /tmp/nginx-fastcgi; uwsgi_temp_path /tmp/nginx-uwsgi;
  scgi_temp_path /tmp/nginx-scgi;
  server { listen 80; listen [::]:80; root /run/world/home; }
}";

fn serve(world: &World, name: &str, publish: &str, argv: &[&str]) {
    std::fs::write("/run/world/home/nginx.conf", NGINX).unwrap();
    std::fs::write("/run/world/home/page", "a page\n").unwrap();
    let head = ["run", "-d", "--name", name, "-p", publish, "--"];
    world.mossnet(head).then(argv).ok();
}

/// nginx, which serves the files of the world's home.
pub(super) fn serve_nginx(world: &World, name: &str, publish: &str) {
    let argv = ["nginx", "-e", "stderr", "-c", "/run/world/home/nginx.conf"];
    serve(world, name, publish, &argv);
    let (port, _) = publish.split_once(':').expect("HOSTPORT:PORT");
    listens(at(HOST, port.parse().unwrap()));
}

/// `GET PATH`, and whose connection it was.
pub(super) fn get(from: &str, to: SocketAddr, path: &str) -> (String, SocketAddr) {
    let mut stream = connect(from, to);
    let request = format!("GET {path} HTTP/1.0\r\nHost: web\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let own = stream.local_addr().unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    (answer, own)
}

fn listens(at: SocketAddr) {
    eventually(seconds(20), "the program to listen", || {
        within("server", || {
            let Ok(mut stream) = TcpStream::connect_timeout(&at, seconds(2)) else {
                return false;
            };
            stream.set_read_timeout(Some(seconds(2))).unwrap();
            stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").is_ok()
                && stream.read(&mut [0; 1]).is_ok_and(|count| count == 1)
        })
    });
}

/// What the program has logged, once `line` is in it.
fn logged(world: &World, name: &str, line: &str) {
    eventually(seconds(10), line, || {
        world.mossnet(["logs", name]).run().stdout.contains(line)
            || world.mossnet(["logs", name]).run().stderr.contains(line)
    });
}

#[test]
fn web_servers_log_their_clients() {
    World::test(|world| {
        if !installed("nginx") {
            return;
        }
        serve_nginx(world, "nginx", "8080:80");
        let home = "/run/world/home";
        let httpd = ["busybox", "httpd", "-f", "-v", "-p", "[::]:80", "-h", home];
        serve(world, "httpd", "8081:80", &httpd);
        for (host, own) in [(HOST, SERVER), (HOST6, SERVER6)] {
            for port in [8080, 8081] {
                listens(at(host, port));
            }
            let (answer, client) = get("server", at(host, 8080), "/page");
            assert!(answer.ends_with("a page\n"), "{answer}");
            assert_eq!(client.ip().to_string(), own);
            let line = format!("client {own} port {} asks /page", client.port());
            logged(world, "nginx", &line);
            let (answer, client) = get("server", at(host, 8081), "/page");
            assert!(answer.ends_with("a page\n"), "{answer}");
            // It listens for both families on one socket.
            let shown = match host {
                HOST => format!("[::ffff:{own}]:{}", client.port()),
                _ => format!("[{own}]:{}", client.port()),
            };
            logged(world, "httpd", &shown);
        }
        end(world);
    });
}

/// Port 81: how much came until EOF; 82: RST after three bytes; 83: how the connection ended.
const ENDS: &str = "import socket,struct,threading\n\
    def listen(p): return socket.create_server(('::',p),family=socket.AF_INET6,dualstack_ipv6=True)\n\
    def count(c):\n\
    \x20n=0\n\
    \x20while True:\n\
    \x20 d=c.recv(65536)\n\
    \x20 if not d: break\n\
    \x20 n+=len(d)\n\
    \x20c.sendall(b'got %d\\n'%n); c.close()\n\
    def reset(c):\n\
    \x20c.recv(3)\n\
    \x20c.setsockopt(socket.SOL_SOCKET,socket.SO_LINGER,struct.pack('ii',1,0)); c.close()\n\
    def tell(c):\n\
    \x20c.sendall(b'ready\\n')\n\
    \x20try:\n\
    \x20 while c.recv(999): pass\n\
    \x20 print('ended eof',flush=True)\n\
    \x20except ConnectionResetError: print('ended reset',flush=True)\n\
    \x20c.close()\n\
    def early(c):\n\
    \x20c.sendall(b'bye\\n'); c.shutdown(socket.SHUT_WR); print('early %d'%len(c.makefile('rb').read()),flush=True)\n\
    def serve(l,f):\n\
    \x20while True:\n\
    \x20 c,p=l.accept(); threading.Thread(target=f,args=(c,),daemon=True).start()\n\
    for p,f in ((81,count),(82,reset),(83,tell),(84,early)): threading.Thread(target=serve,args=(listen(p),f)).start()\n\
    print('serves',flush=True)";

#[test]
fn half_closes_and_resets_pass_both_ways() {
    World::test(|world| {
        let head = ["run", "-d", "--name", "ends", "-p", "8081-8084:81-84"];
        world.mossnet(head).then(["--", "python3", "-c", ENDS]).ok();
        super::ports::serves(world, "ends");
        for host in [HOST, HOST6] {
            let mut counted = connect("server", at(host, 8081));
            counted.write_all(&vec![0; 3 << 20]).unwrap();
            counted.shutdown(std::net::Shutdown::Write).unwrap();
            let mut text = String::new();
            counted.read_to_string(&mut text).unwrap();
            assert_eq!(text, format!("got {}\n", 3 << 20));
            let mut reset = connect("server", at(host, 8082));
            reset.write_all(b"abc").unwrap();
            let error = reset.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            // The container closes its direction first.
            let mut early = connect("server", at(host, 8084));
            let mut bye = String::new();
            early.read_to_string(&mut bye).unwrap();
            assert_eq!(bye, "bye\n");
            early.write_all(&vec![0; 100_000]).unwrap();
            drop(early);
            logged(world, "ends", "early 100000");
            let mut client = connect("server", at(host, 8083));
            client.read_exact(&mut [0; 6]).unwrap();
            let before = world.mossnet(["logs", "ends"]).ok();
            let count = |text: &str| text.matches("ended reset").count();
            socket2::SockRef::from(&client)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(client);
            eventually(seconds(10), "the reset to arrive", || {
                count(&world.mossnet(["logs", "ends"]).ok()) == count(&before) + 1
            });
        }
        end(world);
    });
}

/// Says whom it takes its client for, and by which of its own addresses it was reached.
const WHERE: &str = "import socket\n\
    t=socket.create_server(('::',80),family=socket.AF_INET6,dualstack_ipv6=True)\n\
    plain=lambda a: a.replace('::ffff:','')\n\
    print('serves',flush=True)\n\
    while True:\n\
    \x20c,p=t.accept()\n\
    \x20c.sendall((plain(p[0])+' '+plain(c.getsockname()[0])+'\\n').encode()); c.close()";

#[test]
fn a_sandbox_on_several_networks_answers_by_the_right_one() {
    World::test(|world| {
        for (name, subnets) in [
            ("first", "--subnet 10.77.1.0/24 --subnet fd00:77:1::/64"),
            ("second", "--subnet 10.77.2.0/24 --subnet fd00:77:2::/64"),
        ] {
            world.network(&format!("create {subnets} {name}")).ok();
        }
        let head = ["run", "-d", "--name", "web", "--network", "first"];
        let tail = ["-p", "8080:80", "--", "python3", "-c", WHERE];
        world.mossnet(head).then(tail).ok();
        super::ports::serves(world, "web");
        let by = |host: &str, network: &str| {
            let mut text = String::new();
            let mut stream = connect("server", at(host, 8080));
            let client = stream.local_addr().unwrap().ip();
            stream.read_to_string(&mut text).unwrap();
            let own = world.address_on("web", network, host == HOST6);
            assert_eq!(text, format!("{client} {own}\n"), "{host}");
        };
        for host in [HOST, HOST6] {
            by(host, "first");
        }
        // A network that the default route stays away from changes nothing.
        world.network("connect second web").ok();
        for host in [HOST, HOST6] {
            by(host, "first");
        }
        world.network("disconnect second web").ok();
        // One that the default route goes to takes the ports along, for both families.
        world.network("connect --gw-priority 5 second web").ok();
        for host in [HOST, HOST6] {
            by(host, "second");
        }
        world.network("disconnect second web").ok();
        for host in [HOST, HOST6] {
            by(host, "first");
        }
        world.mossnet(["rm", "-f", "web"]).ok();
    });
}

#[test]
fn sandboxes_reach_published_ports_by_the_hosts_address() {
    World::test(|world| {
        world
            .network("create --subnet 10.77.1.0/24 --subnet fd00:77:1::/64 other")
            .ok();
        super::ports::tell(world, "web", &["-p", "8080:80", "-p", "5353:53/udp"]);
        super::ports::tell(world, "local", &["-p", "127.0.0.1:8081:80"]);
        world.sleeper("neighbour", "");
        world.sleeper("stranger", "--network other");
        let ask = format!(
            "import socket\n\
             for h in ('{HOST}','{HOST6}'):\n\
             \x20s=socket.create_connection((h,8080),5); print(s.makefile().readline().strip()); s.close()\n\
             \x20u=socket.socket(socket.AF_INET6 if ':' in h else socket.AF_INET,socket.SOCK_DGRAM)\n\
             \x20u.settimeout(5); u.connect((h,5353)); u.send(b'?'); print(u.recv(99).decode())\n"
        );
        let network = world.network_info("bridge").to_string();
        for (round, name) in (1..).zip(["web", "neighbour", "stranger"]) {
            let said = world.python(name, &ask).ok();
            assert_eq!(said.lines().count(), 4, "{said}");
            for line in said.lines() {
                // Nobody else than the gateway of the network that the service is on.
                let seen: SocketAddr = line.parse().unwrap();
                assert!(
                    network.contains(&format!("\"{}\"", seen.ip())),
                    "{name}: {said}"
                );
            }
            // Each was accepted once: none went round.
            let counted = "{{.HostPorts}} {{.Accepted}} {{.Refused}}";
            let counted = world
                .mossnet(["port", "ls", "web", "--format", counted])
                .ok();
            let expected = format!("8080 {0} 0\n5353 {0} 0\n", 2 * round);
            assert_eq!(counted, expected);
            let total = world
                .mossnet(["port", "ls", "--total", "--format", "json", "web"])
                .ok();
            assert!(
                total.contains(&format!("\"Accepted\":{}", 4 * round)),
                "{total}"
            );
        }
        // A port on the host's loopback is for the host alone.
        assert!(answers("host", at("127.0.0.1", 8081)));
        assert_eq!(
            told("host", at("127.0.0.1", 8081)).0.ip().to_string(),
            "10.89.0.1"
        );
        for name in ["local", "neighbour", "stranger"] {
            for to in ["127.0.0.1", HOST, "10.89.0.1"] {
                let ask = format!("import socket;socket.create_connection(('{to}',8081),5)");
                let refused = world.python(name, &ask).run();
                assert_ne!(refused.code, 0, "{name} reaches {to}");
            }
        }
        end(world);
        world.mossnet(["network", "rm", "other"]).run();
    });
}
