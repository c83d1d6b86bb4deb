//! `--uplink kernel`: traffic, what it is kept from, and what becomes of it.

use super::{GRANTS, world};
use crate::publish::ports::{tell, told};
use crate::publish::{HOST, HOST6, at, udp_client, udp_seen};
use crate::world::dns::Dns;
use crate::world::rates::{is_held_to, rate};
use crate::world::{
    SERVER, SERVER6, World, eventually, inspect, installed, ip, seconds, servers, within,
};
use std::net::TcpStream;

pub(super) fn prepared(world: &World) {
    world.grant(GRANTS);
    world.forward();
}

/// A network of both families, of the next granted prefixes.
pub(super) fn network(world: &World, name: &str) {
    let argv = ["network", "create", "--uplink", "kernel", "--ipv6", name];
    world.mossnet(argv).ok();
}

fn on<'a>(network: &'a str, argv: &[&'a str]) -> Vec<&'a str> {
    [&["run", "--rm", "--network", network, "--"], argv].concat()
}

#[test]
fn everything_leaves_by_the_host() {
    world().test(|world| {
        prepared(world);
        network(world, "fast");
        Dns::start("server");
        servers::http("server", 80);
        servers::udp_echo("server", 9000);
        let script = format!(
            "curl -sS http://{SERVER}/ && curl -sS 'http://[{SERVER6}]/' && \
             curl -sS http://www.test.example/ && \
             ping -c 1 -W 5 {SERVER} && ping -c 1 -W 5 {SERVER6}"
        );
        let seen = world.mossnet(on("fast", &["sh", "-c", &script])).ok();
        assert_eq!(seen.matches("1 received").count(), 2, "{seen}");
        let clients = "203.0.113.22001:db8:113::2203.0.113.2";
        assert!(seen.starts_with(clients), "{seen}");
        for server in [SERVER, SERVER6] {
            let ask = format!(
                "import socket\ns=socket.socket(socket.getaddrinfo('{server}',0)[0][0],socket.SOCK_DGRAM)\n\
                 s.settimeout(5)\ns.sendto(b'x'*4000,('{server}',9000))\nprint(len(s.recv(9999)))"
            );
            let length = world.mossnet(on("fast", &["python3", "-c", &ask])).ok();
            assert_eq!(length.trim(), "4000", "datagrams in fragments");
        }
        let length = 30_000_000;
        let script = format!("curl -sS http://{SERVER}/bytes/{length} | sha256sum");
        let received = world.mossnet(on("fast", &["sh", "-c", &script])).ok();
        let digest = servers::pattern_digest(length);
        assert_eq!(received.split(' ').next(), Some(digest.as_str()));
    });
}

#[test]
fn the_host_reaches_containers_and_nobody_else_does() {
    world().test(|world| {
        prepared(world);
        network(world, "fast");
        tell(world, "web", &["--network", "fast"]);
        for ipv6 in [false, true] {
            let address = world.address("web", ipv6);
            let (seen, stream) = told("host", at(&address, 80));
            assert_eq!(seen, stream.local_addr().unwrap(), "the host's own address");
            let udp = udp_client("host", 0, at(&address, 53));
            assert_eq!(udp_seen(&udp), udp.local_addr().unwrap());
            world.host(["ping", "-c", "1", "-W", "5", &address]).ok();
        }
        // Another host that knows the way.
        ip(Some("isp"), "route add 10.200.0.0/16 via 203.0.113.2\n");
        let address = world.address("web", false);
        let reached = within("server", || {
            TcpStream::connect_timeout(&at(&address, 80), seconds(2)).is_ok()
        });
        assert!(!reached, "reached from another host");
    });
}

#[test]
fn frames_take_the_short_way_and_the_long_one_works_too() {
    world().test(|world| {
        prepared(world);
        network(world, "fast");
        servers::http("server", 80);
        tell(world, "web", &["--network", "fast", "-p", "8080:80"]);
        let table = || inspect::in_router(["nft", "list", "table", "netdev", "mossnet"]).ok();
        let one = table();
        assert!(one.contains("chain out"), "{one}");
        assert!(one.contains("fwd to") && !one.contains("map @"), "{one}");
        let curl = format!("curl -sS --max-time 5 http://{SERVER}/ 'http://[{SERVER6}]/'");
        let works = || {
            let seen = world.mossnet(["exec", "web", "sh", "-c", &curl]).ok();
            assert!(seen.starts_with("203.0.113.2"), "{seen}");
            for host in [HOST, HOST6] {
                let (seen, stream) = told("server", at(host, 8080));
                assert_eq!(seen, stream.local_addr().unwrap());
            }
        };
        let bridged = || -> u64 {
            let links = inspect::in_router(["ip", "-j", "-s", "link", "show", "type", "bridge"]);
            let links: serde_json::Value = serde_json::from_str(&links.ok()).unwrap();
            let links = links.as_array().unwrap().iter();
            let packets = links.map(|link| link["stats64"]["rx"]["packets"].as_u64().unwrap_or(0));
            packets.sum()
        };
        let all_by_the_short_way = || {
            works();
            let before = bridged();
            for _ in 0..20 {
                works();
            }
            let short = bridged() - before;
            assert!(short < 60, "{short} frames passed the bridge");
        };
        all_by_the_short_way();
        // With more ports than are compared one by one.
        for _ in 0..4 {
            let run = ["run", "-d", "--network", "fast", "--", "sleep", "1000"];
            world.mossnet(run).ok();
        }
        let five = table();
        for map in ["map @at4", "map @at6"] {
            assert!(five.contains(map), "{map} in {five}");
        }
        all_by_the_short_way();
        inspect::in_router(["nft", "delete", "table", "netdev", "mossnet"]).ok();
        let before = bridged();
        works();
        assert!(bridged() > before + 4, "by the bridge");
    });
}

#[test]
fn networks_are_kept_apart() {
    world().test(|world| {
        prepared(world);
        network(world, "one");
        network(world, "two");
        world.mossnet(["network", "create", "plain"]).ok();
        tell(world, "web", &["--network", "one"]);
        tell(world, "inner", &["--network", "plain"]);
        let refused = |from: &str, address: &str| {
            let curl = ["curl", "-sS", "--max-time", "3", address];
            let answer = world.mossnet(on(from, &curl)).run();
            assert!(answer.code != 0, "{from} reaches {address}: {answer}");
        };
        let web = format!("http://{}/", world.address("web", false));
        let web6 = format!("http://[{}]/", world.address("web", true));
        let inner = format!("http://{}/", world.address("inner", false));
        for from in ["two", "plain", "bridge"] {
            refused(from, &web);
            refused(from, &web6);
        }
        refused("one", &inner);
        let list = ["nft", "list", "table", "netdev", "mossnet"];
        let table = inspect::in_router(list).ok();
        assert!(table.contains("chain out"), "{table}");
    });
}

#[test]
fn published_ports_keep_the_clients_address() {
    world().test(|world| {
        prepared(world);
        network(world, "fast");
        let flags = ["--network", "fast", "-p", "8080:80", "-p", "5353:53/udp"];
        tell(world, "web", &flags);
        let kept = |port: u16, udp: u16| {
            for host in [HOST, HOST6] {
                let (seen, stream) = told("server", at(host, port));
                assert_eq!(seen, stream.local_addr().unwrap());
                let socket = udp_client("server", 0, at(host, udp));
                assert_eq!(udp_seen(&socket), socket.local_addr().unwrap());
            }
        };
        kept(8080, 5353);
        // The host's own clients are served, too.
        for host in ["127.0.0.1", "::1", HOST, HOST6] {
            let (_, mut stream) = told("host", at(host, 8080));
            answers(&mut stream);
        }
        // The next daemon does not know where the sockets lead.
        inspect::kill_hard(&[inspect::the("daemon")]);
        world.mossnet(["ps"]).ok();
        kept(8080, 5353);
        world.mossnet(["port", "add", "web", "8081:80"]).ok();
        kept(8081, 5353);
        world.mossnet(["port", "rm", "web", "8080:80"]).ok();
        let gone = |host: &str| {
            within("server", || {
                TcpStream::connect_timeout(&at(host, 8080), seconds(2)).is_err()
            })
        };
        assert!(gone(HOST) && gone(HOST6));
        // Off the network, the port leads where the default route is then, or nowhere.
        world.mossnet(["network", "connect", "bridge", "web"]).ok();
        world.mossnet(["network", "disconnect", "fast", "web"]).ok();
        let (_, mut stream) = told("server", at(HOST, 8081));
        answers(&mut stream);
    });
}

fn answers(stream: &mut TcpStream) {
    use std::io::{Read, Write};
    stream.write_all(b"still there?").unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"still there?");
}

#[test]
fn without_a_grant_one_line_says_what_to_do_and_nothing_changes() {
    world().test(|world| {
        world.forward();
        let create = |more: &[&str]| {
            let head = ["network", "create", "--uplink", "kernel"];
            world.mossnet([&head[..], more, &["fast"]].concat())
        };
        let refused = create(&[]).fails(1).expect_one_clear_line();
        refused
            .expect_text("does not grant")
            .expect_text("/etc/mossnet/grants.toml");
        let none = create(&[]).env("MOSSNET_HELPER", "");
        world.mossnet(["shutdown"]).ok();
        let refused = none.fails(1).expect_one_clear_line();
        refused.expect_text("mossnet-helper, which is not installed");
        world.mossnet(["shutdown"]).ok();
        prepared(world);
        let refused = create(&["--subnet", "10.77.0.0/24"]).fails(1);
        refused
            .expect_one_clear_line()
            .expect_text("for 10.77.0.0/24")
            .expect_text("subnets = [\"10.77.0.0/24\"]");
        let refused = create(&["--internal"]).fails(1);
        refused
            .expect_one_clear_line()
            .expect_text("internal network");
        let run = ["run", "--rm", "--uplink", "kernel", "--", "true"];
        let refused = world.mossnet(run).fails(125).expect_one_clear_line();
        refused.expect_text("10.89.0.0/24");
        assert!(!world.mossnet(["network", "ls"]).ok().contains("fast"));
        assert!(world.host_uplinks().is_empty() && world.host_tables().is_empty());
        // Granted, and taken back: others go on.
        network(world, "fast");
        world.grant("");
        let run = on("fast", &["true"]);
        let refused = world.mossnet(run).fails(125).expect_one_clear_line();
        refused.expect_text("does not grant");
        world.run(["true"]).ok();
        assert!(world.host_uplinks().is_empty() && world.host_tables().is_empty());
    });
}

#[test]
fn nothing_is_left_on_the_host() {
    world().test(|world| {
        prepared(world);
        network(world, "fast");
        let nothing = || world.host_uplinks().is_empty() && world.host_tables().is_empty();
        let start = || {
            let flags = ["--network", "fast", "-p", "8080:80"];
            tell(world, "web", &flags);
            assert_eq!(world.host_uplinks().len(), 1, "one uplink");
        };
        start();
        world.mossnet(["rm", "-f", "web"]).ok();
        eventually(seconds(10), "released with the last sandbox", nothing);
        start();
        world.mossnet(["network", "rm", "-f", "fast"]).ok();
        eventually(seconds(10), "released with the network", nothing);
        network(world, "fast");
        start();
        world.mossnet(["shutdown", "--all"]).ok();
        eventually(seconds(10), "released with everything", nothing);
    });
}

#[test]
fn whatever_is_killed_the_next_start_repairs() {
    world().test(|world| {
        prepared(world);
        network(world, "fast");
        servers::http("server", 80);
        let curl = format!("curl -sS --max-time 5 http://{SERVER}/");
        let works = || {
            let seen = world.mossnet(on("fast", &["sh", "-c", &curl])).ok();
            assert_eq!(seen, "203.0.113.2");
        };
        let fast = [
            "run",
            "-d",
            "--name",
            "web",
            "--network",
            "fast",
            "--",
            "sleep",
            "1000",
        ];
        world.mossnet(fast).ok();
        works();
        inspect::kill_hard(&[inspect::the("daemon")]);
        works();
        let before = world.host_uplinks();
        inspect::kill_hard(&[inspect::the("helper")]);
        eventually(seconds(10), "the link goes with the router", || {
            world.host_uplinks() != before
        });
        works();
        inspect::kill_everything();
        works();
        // An admin takes the link away under a running sandbox.
        world.mossnet(["rm", "-f", "web"]).run();
        world.mossnet(fast).ok();
        let [link] = &world.host_uplinks()[..] else {
            panic!("not one uplink");
        };
        world.host(["ip", "link", "del", link]).ok();
        eventually(seconds(10), "another link", || {
            !world.host_uplinks().is_empty()
        });
        let exec = ["exec", "web", "sh", "-c", &curl];
        eventually(seconds(10), "a way out again", || {
            world.mossnet(exec).run().code == 0
        });
        inspect::kill_everything();
        world.mossnet(["network", "rm", "-f", "fast"]).ok();
        eventually(seconds(10), "nothing is left", || {
            world.host_uplinks().is_empty() && world.host_tables().is_empty()
        });
    });
}

/// Frames that a limit has held back are not seen by the short way any more.
#[test]
fn rates_hold_at_the_kernels_speed_too() {
    world().deadline(180).test(|world| {
        if !installed("iperf3") {
            return;
        }
        prepared(world);
        network(world, "fast");
        let limited = "fast:rate_in=16mbit,rate_out=8mbit";
        let head = ["run", "-d", "--name", "web", "--network", limited];
        world.mossnet(head).then(["--", "sleep", "1000"]).ok();
        for (options, limit) in [("", 8e6), ("-R", 16e6)] {
            is_held_to(limit, || {
                let client = world.mossnet(["exec", "web", "--"]);
                rate(world.server(["env"]), client, SERVER, options)
            });
        }
        world.mossnet(["rm", "-f", "web"]).ok();
        world.mossnet(["network", "rm", "fast"]).ok();
    });
}
