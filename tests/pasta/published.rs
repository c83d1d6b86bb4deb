//! Ports of the host that lead into the namespace.

use super::{Script, WHO, asked, asked_udp, sh};
use crate::world::{SERVER, SERVER6, World, eventually, installed, seconds};

#[test]
fn clients_are_who_they_are() {
    World::test(|world| {
        if !installed("python3") {
            return;
        }
        let script = Script::start(
            world,
            &format!(
                r#"{WHO}
                podmans -t 8080-8080:80-80 -t 127.0.0.1/8081:80 -t 9000-9002:9010-9012,~9001 -u 5300:53 -T none -U none
                serve tcp/80/0.0.0.0 tcp/80/:: tcp/9010/0.0.0.0 tcp/9012/0.0.0.0 udp/53/0.0.0.0 udp/53/::
                echo up; read -r _; kill $server"#
            ),
        );
        let from_server = |to: &str| asked("server", to).map_err(|error| error.kind());
        let client = || Ok(SERVER.to_owned());
        assert_eq!(from_server("203.0.113.2:8080"), client());
        assert_eq!(from_server("203.0.113.2:9000"), client());
        assert_eq!(from_server("203.0.113.2:9002"), client());
        let refused = Err(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(from_server("203.0.113.2:9001"), refused);
        assert_eq!(from_server("203.0.113.2:8081"), refused);
        let six = from_server("[2001:db8:113::2]:8080");
        assert_eq!(six, Ok(SERVER6.to_owned()));
        assert_eq!(asked_udp("server", "203.0.113.2:5300"), SERVER);
        assert_eq!(asked_udp("server", "[2001:db8:113::2]:5300"), SERVER6);
        // The host has the namespace's own address, and is shown as the gateway.
        for to in ["127.0.0.1:8080", "127.0.0.1:8081", "203.0.113.2:8080"] {
            assert_eq!(asked("host", to).expect("an answer"), "203.0.113.1", "{to}");
        }
        assert_eq!(asked_udp("host", "127.0.0.1:5300"), "203.0.113.1");
        script.end();
    });
}

/// `auto`: a service in the namespace has the host's port as long as it listens.
#[test]
fn ports_follow_their_services() {
    World::test(|world| {
        if !installed("python3") {
            return;
        }
        let script = Script::start(
            world,
            &format!(
                r#"{WHO}
                podmans -T none -U none
                serve tcp/7070/0.0.0.0 udp/7071/0.0.0.0 tcp/7072/127.0.0.1
                echo up; read -r _; kill $server; echo down; read -r _"#
            ),
        );
        eventually(seconds(20), "the port leads in", || {
            asked("server", "203.0.113.2:7070").is_ok_and(|seen| seen == SERVER)
        });
        assert_eq!(asked_udp("server", "203.0.113.2:7071"), SERVER);
        // Only the namespace's own loopback has it.
        assert!(asked("server", "203.0.113.2:7072").is_err());
        let Script(mut running) = script;
        running.write(b"\n");
        running.expect("down\n");
        eventually(seconds(20), "the port is closed", || {
            let closed = asked("server", "203.0.113.2:7070");
            closed.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
        });
        Script(running).end();
    });
}

#[test]
fn a_port_that_is_taken_is_said_and_nothing_is_left() {
    World::test(|world| {
        let _taken = std::net::TcpListener::bind("127.0.0.1:8099").expect("bind");
        let script = r#"
            if podmans -t 8090,8099 -u none -T none -U none 2>/run/p/err; then exit 9; fi
            cat /run/p/err >&2
            inside ip -o link | grep -v ': lo:' || true"#;
        let output = sh(world, script).run().expect_code(0);
        assert_eq!(output.stderr.lines().count(), 1, "{output}");
        assert!(output.stderr.contains("tcp port 8099"), "{output}");
        assert_eq!(output.stdout.trim(), "", "{output}");
        let free = std::net::TcpListener::bind("0.0.0.0:8090");
        assert!(free.is_ok(), "{free:?}");
    });
}

/// Whatever is free, with the exception that is made.
#[test]
fn all_ports_but_some() {
    World::test(|world| {
        if !installed("python3") {
            return;
        }
        let script = Script::start(
            world,
            &format!(
                r#"{WHO}
                podmans -t ~1-7000,~7101-32767,~7050 -u none -T none -U none
                serve tcp/7001/0.0.0.0 tcp/7050/0.0.0.0 tcp/7100/0.0.0.0
                echo up; read -r _; kill $server"#
            ),
        );
        for port in [7001, 7100] {
            let seen = asked("server", &format!("203.0.113.2:{port}"));
            assert_eq!(seen.expect("an answer"), SERVER, "{port}");
        }
        assert!(asked("server", "203.0.113.2:7050").is_err());
        script.end();
    });
}
