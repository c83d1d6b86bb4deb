//! The forms of `-p`, what each binds, and all or nothing through the API.

use super::load::{PATIENCE, expect_own, lines, say};
use super::ports::{end, line, tell};
use super::*;
use crate::world::{ROOT, SERVER};

/// One line there and back, by a client of another host.
fn served(to: SocketAddr, leads_to: u16) {
    let mut stream = connect("server", to);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    say(&mut stream, "hello");
    expect_own(&mut stream, leads_to, "hello");
}

fn refused(from: &str, to: SocketAddr) {
    let error = within(from, || TcpStream::connect(to)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
}

#[test]
fn every_form_binds_what_it_says() {
    World::test(|world| {
        let flags = [
            "-p 8000-8010:1000-1010 -p [::]:8020:1020 -p 0.0.0.0:8021:1021",
            &format!("-p {HOST}:8022:1022 -p [{HOST6}]:8023:1023 -p 1024"),
            "-P --expose 1025-1026",
        ];
        lines(world, "web", &flags.join(" "));
        for (port, leads_to) in (8000..=8010).zip(1000..) {
            served(at(HOST, port), leads_to);
            served(at(HOST6, port), leads_to);
        }
        refused("server", at(HOST, 8011));
        for (port, yes, no) in [
            (8020, HOST6, HOST),
            (8021, HOST, HOST6),
            (8022, HOST, HOST6),
            (8023, HOST6, HOST),
        ] {
            served(at(yes, port), port - 7000);
            refused("server", at(no, port));
        }
        refused("host", at("127.0.0.1", 8022));
        refused("host", at("::1", 8023));
        // Free ones are chosen, shown, and the same for both families.
        for leads_to in 1024..=1026 {
            let shown = world.mossnet(["port", "web", &leads_to.to_string()]).ok();
            let port = shown.lines().find_map(|line| line.strip_prefix("0.0.0.0:"));
            let port = port.unwrap().parse().unwrap();
            assert_eq!(shown, format!("0.0.0.0:{port}\n[::]:{port}\n"));
            served(at(HOST, port), leads_to);
            served(at(HOST6, port), leads_to);
        }
        end(world);
    });
}

/// Method, JSON body: status of the answer, and the answer.
fn ask_api(world: &World, method: &str, body: &str) -> (u16, String) {
    let socket = format!("{ROOT}/run/api.sock");
    let head = ["curl", "-sS", "--unix-socket", &socket, "-X", method];
    let tail = ["-H", "Content-Type: application/json", "-d", body];
    let path = "http://mossnet/v1/sandboxes/web/ports";
    let said = world
        .user(head)
        .then(tail)
        .then(["-w", "\n%{http_code}", path]);
    let said = said.ok();
    let (text, code) = said.trim_end().rsplit_once('\n').unwrap_or(("", &said));
    (code.trim().parse().unwrap(), text.to_owned())
}

#[test]
fn the_api_changes_all_ports_or_none() {
    World::test(|world| {
        lines(world, "web", "-p 8000:1000");
        let free = |port: u16| std::net::TcpListener::bind((HOST, port)).is_ok();
        let taken = std::net::TcpListener::bind((HOST, 8003)).unwrap();
        for (ports, word) in [
            (r#"["8001:1001", "8002:1002", "8003:1003"]"#, "8003"),
            (
                r#"["8001:1001", "53:53/udp"]"#,
                "ip_unprivileged_port_start",
            ),
            (r#"["8001:1001", "8000:1002"]"#, "8000"),
        ] {
            let (code, said) = ask_api(world, "POST", &format!("{{\"ports\":{ports}}}"));
            assert!(code >= 400 && said.contains(word), "{code} {said}");
            assert!(free(8001) && free(8002), "something of {ports} stays");
        }
        drop(taken);
        let all = r#"{"ports":["8001:1001","8002-8003:1002-1003"]}"#;
        let (code, said) = ask_api(world, "POST", all);
        assert_eq!(code, 200, "{said}");
        for port in 8000..=8003 {
            served(at(HOST, port), port - 7000);
        }
        let (code, said) = ask_api(world, "DELETE", r#"{"ports":["8001:1001","8009:1009"]}"#);
        assert!(code >= 400 && said.contains("8009"), "{code} {said}");
        served(at(HOST, 8001), 1001);
        let (code, said) = ask_api(world, "DELETE", all);
        assert!(code < 300, "{code} {said}");
        assert!((8001..=8003).all(free));
        served(at(HOST6, 8000), 1000);
        end(world);
    });
}

#[test]
fn a_client_whose_port_is_taken_is_shown_as_the_gateway_and_that_is_logged_once() {
    World::test(|world| {
        tell(world, "web", &["-p", "8080:80", "-p", "8081:80"]);
        let port = 5000;
        let mut first = connect_from("server", port, at(HOST, 8080));
        let seen: SocketAddr = line(&mut first).parse().unwrap();
        assert_eq!(seen, at(SERVER, port));
        for turn in 0..3 {
            let mut second = connect_from("server", port, at(HOST, 8081));
            let seen: SocketAddr = line(&mut second).parse().unwrap();
            assert_eq!(seen.ip(), at("10.89.0.1", 0).ip());
            // Later ones may come before the relay has heard of the end of the one before, whose
            // port at the gateway is not free until then.
            assert!(turn > 0 || seen.port() == port, "{seen}");
            socket2::SockRef::from(&second)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
        let log = std::fs::read_to_string(format!("{ROOT}/run/helper.log")).unwrap();
        let told = "the container sees the gateway's address instead of the client's";
        assert_eq!(log.matches(told).count(), 1, "{log}");
        assert!(log.contains("port_taken"), "{log}");
        drop(first);
        end(world);
    });
}
