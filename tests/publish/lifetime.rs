//! How published connections begin and end, and what they survive.

use super::*;
use crate::connections::{controls, far_and_near};
use crate::world::installed;
use std::io::ErrorKind;

fn echoed(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
}

#[test]
fn a_container_that_refuses_resets_the_client() {
    World::test(|_| {
        let mut relay = BareRelay::start(&[false]);
        let targets = relay.sandbox("box", 1);
        relay.publish("8080:80", &targets);
        relay.publish("5353:53/udp", &targets);
        for host in [HOST, HOST6, "127.0.0.1"] {
            let begin = Instant::now();
            let from = if host == "127.0.0.1" {
                "host"
            } else {
                "server"
            };
            let to = at(host, 8080);
            // Or so early that connect(2) tells.
            let error = within(from, || TcpStream::connect(to))
                .and_then(|mut stream| stream.read(&mut [0; 1]))
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{host}");
            let elapsed = begin.elapsed();
            assert!(elapsed < seconds(5), "{host} {elapsed:?}");
        }
        // Whomever the container takes a client for, its ICMP error ends the client's flow.
        let clients = [("host", "127.0.0.1"), ("server", HOST), ("server", HOST6)];
        let clients = clients.map(|(from, to)| udp_client(from, 0, at(to, 5353)));
        for (client, refused) in clients.iter().zip(1..) {
            client.send(b"anybody?").unwrap();
            eventually(seconds(5), "the refusal to be counted", || {
                counts(&relay, "*:5353/udp", "refused") == refused
            });
        }
        let [udp, ..] = clients;
        assert_eq!(counts(&relay, "*:8080/tcp", "refused"), 3);
        assert_eq!(counts(&relay, "*:8080/tcp", "accepted"), 0);
        // Somebody listens now: the same client is served.
        servers::tcp("box", 80, tell_peer);
        udp_tell_peer("box", 53);
        let (seen, client) = seen(connect("server", at(HOST, 8080)));
        assert_eq!(seen, client);
        let port = udp.local_addr().unwrap().port();
        assert_eq!(udp_seen(&udp), at("10.89.1.1", port));
    });
}

#[test]
fn ports_come_and_go_and_connections_stay() {
    World::test(|_| {
        let mut relay = BareRelay::start(&[false]);
        let targets = relay.sandbox("box", 1);
        let _other = relay.sandbox("box2", 1);
        servers::tcp("box", 80, servers::echo);
        relay.publish("8080:80", &targets);
        let mut stream = connect("server", at(HOST, 8080));
        echoed(&mut stream, b"before");
        for port in 8081..8120 {
            relay.publish(&format!("{port}:80"), &targets);
            echoed(&mut stream, b"meanwhile");
        }
        relay.snapshot.publishes.clear();
        relay.listeners.clear();
        assert_eq!(relay.tell(), "ok");
        echoed(&mut stream, b"after");
        // The ports are free: another process can have them.
        eventually(seconds(5), "the ports to be closed", || {
            std::net::TcpListener::bind((HOST, 8080)).is_ok()
                && std::net::TcpListener::bind("[::]:8119").is_ok()
        });
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    });
}

#[test]
fn a_port_follows_its_container() {
    World::test(|_| {
        let mut relay = BareRelay::start(&[false, false]);
        let first = relay.sandbox("box", 1);
        let second = relay.sandbox("box2", 2);
        for (netns, word) in [("box", "one"), ("box2", "two")] {
            servers::tcp(netns, 80, move |mut stream| {
                let _ = stream.write_all(word.as_bytes());
            });
            udp_tell_peer(netns, 53);
        }
        relay.publish("8080:80", &first);
        relay.publish("5353:53/udp", &first);
        let said = || {
            let mut text = String::new();
            let mut stream = connect("server", at(HOST, 8080));
            stream.read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(said(), "one");
        let udp = udp_client("server", 0, at(HOST, 5353));
        udp_seen(&udp);
        for publish in &mut relay.snapshot.publishes {
            publish.targets = second.to_vec();
        }
        assert_eq!(relay.tell(), "ok");
        eventually(seconds(5), "the port to lead elsewhere", || said() == "two");
        assert_eq!(udp_seen(&udp), udp.local_addr().unwrap());
        assert_eq!(counts(&relay, "*:5353/udp", "accepted"), 2);
    });
}

#[test]
fn clients_wait_while_the_relay_is_restarted() {
    World::test(|_| {
        let mut relay = BareRelay::start(&[false]);
        let targets = relay.sandbox("box", 1);
        servers::tcp("box", 80, tell_peer);
        relay.publish("8080:80", &targets);
        assert!(seen(connect("server", at(HOST, 8080))).0.port() > 0);
        // Whom it had accepted would be lost with it.
        relay.kill();
        let waiting = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..20)
                .map(|_| scope.spawn(|| seen(connect("server", at(HOST, 8080)))))
                .collect();
            relay.start_again();
            let seen = clients.into_iter().map(|client| client.join().unwrap());
            seen.collect::<Vec<_>>()
        });
        assert!(waiting.iter().all(|(seen, client)| seen == client));
    });
}

#[test]
fn ends_of_connections_pass_both_ways() {
    World::test(|_| {
        let mut relay = BareRelay::start(&[false]);
        let targets = relay.sandbox("box", 1);
        servers::tcp("box", 80, servers::count_until_eof);
        servers::tcp("box", 81, |stream| servers::reset(stream, 3));
        let ends = servers::report_ends("box", 82);
        relay.publish("8080-8082:80-82", &targets);
        let mut counted = connect("server", at(HOST, 8080));
        counted.write_all(&vec![0; 3 << 20]).unwrap();
        counted.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        counted.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("got {} bytes\n", 3 << 20));
        assert_eq!(counts(&relay, "*:8080/tcp", "bytes_in"), 3 << 20);
        let mut reset = connect("server", at(HOST, 8081));
        reset.write_all(b"abc").unwrap();
        let error = reset.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let client = connect("server", at(HOST, 8082));
        socket2::SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        let mut ready = [0; 6];
        (&client).read_exact(&mut ready).unwrap();
        drop(client);
        assert_eq!(ends.recv_timeout(seconds(20)).unwrap(), "ConnectionReset");
    });
}

#[test]
fn a_container_that_does_not_answer_holds_up_nobody() {
    World::test(|_| {
        let mut relay = BareRelay::start(&[false]);
        let targets = relay.sandbox("box", 1);
        servers::tcp("box", 80, tell_peer);
        relay.publish("8080:80", &targets);
        relay.publish("8081:80", &["10.89.1.250".parse().unwrap()]);
        let mut waiting = connect("server", at(HOST, 8081));
        let leaving = connect("server", at(HOST, 8081));
        socket2::SockRef::from(&leaving)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(leaving);
        eventually(seconds(2), "the one that left to be counted", || {
            counts(&relay, "*:8081/tcp", "refused") == 1
        });
        let (seen, client) = seen(connect("server", at(HOST, 8080)));
        assert_eq!(seen, client);
        waiting.set_read_timeout(Some(seconds(15))).unwrap();
        let error = waiting.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(counts(&relay, "*:8081/tcp", "refused"), 2);
    });
}

#[test]
fn a_container_that_answers_late_is_waited_for() {
    World::test(|_| {
        let mut relay = BareRelay::start(&[false]);
        let targets = relay.sandbox("box", 1);
        servers::tcp("box", 80, servers::echo);
        relay.publish("8080:80", &targets);
        ip(Some("box"), "link set eth0 down\n");
        let mut stream = connect("server", at(HOST, 8080));
        stream.write_all(b"early").unwrap();
        ip(
            Some("box"),
            "link set eth0 up\nroute add default via 10.89.1.1\n",
        );
        let mut back = [0; 5];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"early");
        echoed(&mut stream, b"and later");
        assert_eq!(counts(&relay, "*:8080/tcp", "accepted"), 1);
    });
}

#[test]
fn a_stalled_client_delays_nobody() {
    World::test(|_| {
        let mut relay = BareRelay::start(&[false]);
        let targets = relay.sandbox("box", 1);
        servers::tcp("box", 80, |mut stream| {
            let _ = stream.write_all(&vec![b'x'; 8 << 20]);
        });
        servers::tcp("box", 81, servers::echo);
        relay.publish("8080:80", &targets);
        relay.publish("8081:81", &targets);
        // Take nothing (zero window), and say nothing.
        let _full: Vec<_> = (0..20).map(|_| connect("server", at(HOST, 8080))).collect();
        let _idle: Vec<_> = (0..20).map(|_| connect("server", at(HOST, 8081))).collect();
        let begin = Instant::now();
        for _ in 0..20 {
            echoed(&mut connect("server", at(HOST, 8081)), b"hello");
        }
        assert!(begin.elapsed() < seconds(20), "{:?}", begin.elapsed());
    });
}

#[test]
fn the_hosts_congestion_control_rules_clients_elsewhere_only() {
    if !installed("tc") {
        return;
    }
    World::test(|world| {
        let (own, near) = far_and_near();
        let mut relay = BareRelay::start(&[false]);
        let targets = relay.sandbox("box", 1);
        servers::tcp("box", 80, servers::echo);
        relay.publish("8080:80", &targets);
        relay.publish("8081:80", &targets);
        let client = |port| {
            let mut stream = connect("server", at(HOST, port));
            echoed(&mut stream, b"here?");
            stream
        };
        let _here: Vec<TcpStream> = (0..20).map(|_| client(8080)).collect();
        // As far as the moon: each packet takes a tenth of a second.
        let slow = "tc qdisc add dev eth0 root tbf rate 8kbit burst 100 latency 10s";
        world.server(slow.split(' ')).ok();
        let _far = client(8081);
        let found = controls(world, ["state", "established", "sport", ":8080"]);
        assert_eq!(found.len(), 20);
        // Where others keep the machine busy, a handshake may take its time even here.
        assert!(found.contains(&near), "{found:?}");
        let found = controls(world, ["state", "established", "sport", ":8081"]);
        assert_eq!(found, [own]);
    });
}
