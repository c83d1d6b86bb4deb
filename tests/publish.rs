//! Published ports: by the relay alone, whom a container sees and how many there may be; `ports`,
//! `forms`, `programs`, `peers`, `load`, `datagrams`: through the real binary.

mod attach;
mod datagrams;
mod forms;
mod lifetime;
mod load;
mod peers;
pub(crate) mod ports;
mod programs;

use crate::world::bare_relay::{BareRelay, listening};
use crate::world::{World, eventually, ip, seconds, servers, within};
use mossnet::ports::{HostAddr, SourceAddress};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// The host's own addresses, as the world outside knows it.
pub(crate) const HOST: &str = "203.0.113.2";
pub(crate) const HOST6: &str = "2001:db8:113::2";

pub(crate) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// A connection from netns `from`, from `port` where it is not 0.
fn connect_from(from: &str, port: u16, to: SocketAddr) -> TcpStream {
    within(from, || {
        let domain = socket2::Domain::for_address(to);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
        if port != 0 {
            socket.set_reuse_address(true).unwrap();
            let any: IpAddr = match to {
                SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            socket.bind(&SocketAddr::new(any, port).into()).unwrap();
        }
        socket
            .connect_timeout(&to.into(), seconds(20))
            .unwrap_or_else(|error| panic!("connect to {to}: {error}"));
        socket.set_read_timeout(Some(seconds(20))).unwrap();
        socket.into()
    })
}

pub(crate) fn connect(from: &str, to: SocketAddr) -> TcpStream {
    connect_from(from, 0, to)
}

/// Whom the container's server saw, as it says, and who it was.
fn seen(mut stream: TcpStream) -> (SocketAddr, SocketAddr) {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let seen: SocketAddr = text.parse().expect("an address");
    let canonical = SocketAddr::new(seen.ip().to_canonical(), seen.port());
    (canonical, stream.local_addr().unwrap())
}

/// Tells each client whom it is taken for.
fn tell_peer(mut stream: TcpStream) {
    let peer = stream.peer_addr().unwrap();
    let _ = write!(stream, "{peer}");
}

fn udp_tell_peer(netns: &str, port: u16) {
    let socket = within(netns, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(from.to_string().as_bytes(), from);
        }
    });
}

/// Asks from a connected socket, which hears the address asked and no other.
pub(crate) fn udp_client(from: &str, port: u16, to: SocketAddr) -> UdpSocket {
    within(from, || {
        let any = if to.is_ipv6() { "::" } else { "0.0.0.0" };
        let socket = UdpSocket::bind((any, port)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(seconds(20))).unwrap();
        socket
    })
}

pub(crate) fn udp_seen(socket: &UdpSocket) -> SocketAddr {
    socket.send(b"who am I?").unwrap();
    let mut buffer = [0; 128];
    let length = socket.recv(&mut buffer).expect("an answer");
    let text = std::str::from_utf8(&buffer[..length]).unwrap();
    let seen: SocketAddr = text.parse().unwrap();
    SocketAddr::new(seen.ip().to_canonical(), seen.port())
}

fn counts(relay: &BareRelay, listener: &str, what: &str) -> u64 {
    let all = relay.counters();
    let mut lines = all.as_array().unwrap().iter();
    let line = lines.find(|line| line["listener"] == listener);
    line.unwrap_or_else(|| panic!("{listener} in {all}"))[what]
        .as_u64()
        .unwrap()
}

#[test]
fn clients_from_other_hosts_are_seen_as_they_are() {
    World::test(|_| {
        let mut relay = BareRelay::start(&[false]);
        let targets = relay.sandbox("box", 1);
        servers::tcp("box", 80, tell_peer);
        udp_tell_peer("box", 53);
        relay.publish("8080:80", &targets);
        relay.publish("5353:53/udp", &targets);
        for host in [HOST, HOST6] {
            let (seen, client) = seen(connect("server", at(host, 8080)));
            assert_eq!(seen, client);
            let udp = udp_client("server", 0, at(host, 5353));
            assert_eq!(udp_seen(&udp), udp.local_addr().unwrap());
            assert_eq!(udp_seen(&udp), udp.local_addr().unwrap());
        }
        assert_eq!(counts(&relay, "*:8080/tcp", "accepted"), 2);
        assert_eq!(counts(&relay, "*:8080/tcp", "refused"), 0);
        assert!(counts(&relay, "*:8080/tcp", "bytes_out") > 20);
        assert_eq!(counts(&relay, "*:5353/udp", "accepted"), 2);
        assert_eq!(counts(&relay, "*:5353/udp", "bytes_in"), 36);
    });
}

#[test]
fn clients_on_the_host_are_seen_as_the_gateway() {
    World::test(|_| {
        let mut relay = BareRelay::start(&[false]);
        let targets = relay.sandbox("box", 1);
        servers::tcp("box", 80, tell_peer);
        udp_tell_peer("box", 53);
        relay.publish("8080:80", &targets);
        relay.publish("5353:53/udp", &targets);
        for (to, gateway) in [
            ("127.0.0.1", "10.89.1.1"),
            ("127.0.0.99", "10.89.1.1"),
            (HOST, "10.89.1.1"),
            ("::1", "fd00:89:1::1"),
            (HOST6, "fd00:89:1::1"),
        ] {
            let (seen, client) = seen(connect("host", at(to, 8080)));
            assert_eq!(seen, at(gateway, client.port()), "{to}");
            let udp = udp_client("host", 0, at(to, 5353));
            let port = udp.local_addr().unwrap().port();
            assert_eq!(udp_seen(&udp), at(gateway, port), "{to}");
        }
        // Its own port and a neighbour's, by the host's address: hairpin.
        let _neighbour = relay.sandbox("box2", 1);
        for from in ["box", "box2"] {
            for (to, gateway) in [(HOST, "10.89.1.1"), (HOST6, "fd00:89:1::1")] {
                let (seen, _) = seen(connect(from, at(to, 8080)));
                assert_eq!(seen.ip(), gateway.parse::<IpAddr>().unwrap());
                let udp = udp_client(from, 0, at(to, 5353));
                assert_eq!(udp_seen(&udp).ip(), gateway.parse::<IpAddr>().unwrap());
            }
        }
    });
}

#[test]
fn the_gateway_is_shown_where_that_is_wanted_or_the_only_way() {
    World::test(|_| {
        let mut relay = BareRelay::start(&[false, true]);
        let open = relay.sandbox("box", 1);
        let inner = relay.sandbox("inner", 2);
        servers::tcp("box", 80, tell_peer);
        servers::tcp("inner", 80, tell_peer);
        relay.publish_as("8080:80", &open, SourceAddress::Gateway);
        relay.publish("8081:80", &inner);
        relay.publish("8082:80", &open[..1]);
        let ip = |stream| seen(stream).0.ip().to_string();
        assert_eq!(ip(connect("server", at(HOST, 8080))), "10.89.1.1");
        assert_eq!(ip(connect("server", at(HOST, 8081))), "10.89.2.1");
        assert_eq!(ip(connect("server", at(HOST6, 8081))), "fd00:89:2::1");
        // An IPv6 client of a container without IPv6.
        assert_eq!(ip(connect("server", at(HOST6, 8082))), "10.89.1.1");
        assert_eq!(ip(connect("server", at(HOST, 8082))), "198.51.100.10");
    });
}

#[test]
fn one_client_port_towards_one_container_port_is_had_once() {
    World::test(|_| {
        let mut relay = BareRelay::start(&[false]);
        let targets = relay.sandbox("box", 1);
        let held = servers::Held::start("box", 81);
        servers::tcp("box", 80, tell_peer);
        udp_tell_peer("box", 53);
        for port in 0..3 {
            relay.publish(&format!("{}:80", 8080 + port), &targets);
            relay.publish(&format!("{}:81", 8090 + port), &targets);
            relay.publish(&format!("{}:53/udp", 5353 + port), &targets);
        }
        let first = connect_from("server", 5000, at(HOST, 8090));
        let second = connect_from("server", 5000, at(HOST, 8091));
        eventually(seconds(5), "both to arrive", || held.count() == 2);
        // Another container port is another conversation.
        let (seen, client) = seen(connect_from("server", 5000, at(HOST, 8080)));
        assert_eq!(seen, client);
        drop((first, second));
        // UDP: both are answered, each from the port that it asked.
        let udp = within("server", || {
            let socket = UdpSocket::bind("0.0.0.0:5000").unwrap();
            socket.set_read_timeout(Some(seconds(20))).unwrap();
            socket
        });
        let mut said = Vec::new();
        for port in [5353, 5354, 5355] {
            udp.send_to(b"?", at(HOST, port)).unwrap();
            let mut buffer = [0; 128];
            let (length, from) = udp.recv_from(&mut buffer).unwrap();
            assert_eq!(from, at(HOST, port));
            said.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        assert!(
            said[0].contains("198.51.100.10") && said[0].ends_with(":5000"),
            "{said:?}"
        );
        assert!(
            said[1..].iter().all(|text| text.contains("10.89.1.1")),
            "{said:?}"
        );
    });
}

#[test]
fn a_thousand_ports_are_ready_at_once() {
    World::builder().alone().test(|_| {
        let mut relay = BareRelay::start(&[false]);
        let targets = relay.sandbox("box", 1);
        servers::tcp("box", 1500, tell_peer);
        // Others may keep the machine busy: one undisturbed time of several will do, and what
        // binding alone takes says how busy it is.
        let bind = |port| listening(true, HostAddr::Any, port);
        let times = (0..5u16).map(|round| {
            let begin = Instant::now();
            let bound: Vec<_> = (30_000..31_000).map(bind).collect();
            let binding = begin.elapsed();
            drop(bound);
            let (first, last) = (9000 + round * 1000, 9999 + round * 1000);
            let begin = Instant::now();
            relay.publish(&format!("{first}-{last}:1000-1999"), &targets);
            let elapsed = begin.elapsed();
            let (seen, client) = seen(connect("server", at(HOST, first + 500)));
            assert_eq!(seen, client);
            (elapsed, binding)
        });
        let times: Vec<_> = times.collect();
        println!("1,000 ports, and binding alone: {times:?}");
        let quick = |(elapsed, binding): &(Duration, Duration)| {
            *elapsed < Duration::from_millis(100).max(*binding * 8)
        };
        assert!(times.iter().any(quick), "{times:?}");
    });
}

#[test]
fn many_clients_of_many_ports_are_all_served() {
    World::test(|_| {
        let mut relay = BareRelay::start(&[false]);
        let targets = relay.sandbox("box", 1);
        for port in 1000..1200 {
            servers::tcp("box", port, tell_peer);
        }
        relay.publish("8000-8199:1000-1199", &targets);
        std::thread::scope(|scope| {
            for worker in 0..10 {
                scope.spawn(move || {
                    for round in 0..50 {
                        for port in (8000..8200).skip(worker).step_by(10) {
                            let host = if round % 2 == 0 { HOST } else { HOST6 };
                            let (seen, client) = seen(connect("server", at(host, port)));
                            assert_eq!(seen, client);
                        }
                    }
                });
            }
        });
        let all = relay.counters();
        let accepted = all
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line["accepted"].as_u64());
        assert_eq!(accepted.flatten().sum::<u64>(), 200 * 50);
    });
}

#[test]
fn a_port_costs_one_descriptor_and_the_limit_is_told() {
    World::test(|_| {
        // A quarter is kept back.
        let mut relay = BareRelay::start_within(&[false], 1400);
        let targets = relay.sandbox("box", 1);
        servers::tcp("box", 1500, tell_peer);
        relay.publish("9000-9999:1000-1999", &targets);
        let more: Vec<_> = (0..60)
            .map(|n| listening(true, HostAddr::Any, 10_000 + n))
            .collect();
        let more: Vec<_> = more.iter().map(AsFd::as_fd).collect();
        let answer = relay.offer(&more);
        assert!(
            answer.contains("no room for 60") && answer.contains("ulimit"),
            "{answer}"
        );
        // Those that are there work on, and so does a client of theirs.
        let (seen, client) = seen(connect("server", at(HOST, 9500)));
        assert_eq!(seen, client);
        assert_eq!(relay.offer(&more[..2]), "ok");
        // Nobody but a listener is one.
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(
            relay
                .offer(&[file.as_fd()])
                .contains("published port's socket")
        );
    });
}

#[test]
fn published_addresses_are_those_given() {
    World::test(|_| {
        let mut relay = BareRelay::start(&[false]);
        let targets = relay.sandbox("box", 1);
        servers::tcp("box", 80, tell_peer);
        relay.publish("127.0.0.1:8080:80", &targets);
        relay.publish("[::]:8081:80", &targets);
        let refused = |from: &str, to: SocketAddr| {
            let error = within(from, || TcpStream::connect(to)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
        };
        refused("server", at(HOST, 8080));
        refused("server", at(HOST, 8081));
        assert!(seen(connect("host", at("127.0.0.1", 8080))).0.port() > 0);
        assert!(seen(connect("server", at(HOST6, 8081))).0.port() > 0);
    });
}

#[test]
fn a_sandbox_of_another_network_cannot_answer_for_a_container() {
    World::test(|_| {
        let mut relay = BareRelay::start(&[false, false]);
        let targets = relay.sandbox("box", 1);
        let _own = relay.sandbox("evil", 2);
        udp_tell_peer("box", 53);
        relay.publish("5353:53/udp", &targets);
        for (host, target) in [HOST, HOST6].iter().zip(&targets) {
            let client = udp_client("server", 0, at(host, 5353));
            assert_eq!(udp_seen(&client), client.local_addr().unwrap());
            // Nothing but the flow's tie to its bridge stands in the way here: the rules against
            // forged sources are the helper's.
            let options = if target.is_ipv4() {
                "/32"
            } else {
                "/128 nodad"
            };
            let forge = format!("addr add {target}{options} dev eth0\n");
            ip(Some("evil"), &forge);
            let evil = within("evil", || UdpSocket::bind((*target, 53))).unwrap();
            for _ in 0..5 {
                evil.send_to(b"forged", client.local_addr().unwrap())
                    .unwrap();
            }
            client
                .set_read_timeout(Some(Duration::from_millis(300)))
                .unwrap();
            let heard = client.recv(&mut [0; 64]);
            assert!(heard.is_err(), "{target}: {heard:?}");
            client.set_read_timeout(Some(seconds(20))).unwrap();
            assert_eq!(udp_seen(&client), client.local_addr().unwrap());
        }
    });
}
