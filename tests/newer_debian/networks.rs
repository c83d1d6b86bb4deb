//! Networks, names and ports between containers and from the host.

use super::{SERVE, echoes, hello, soon, test};

const FETCH: &str = "curl -sS -m 20 http://web/x";

#[test]
fn networks_names_and_ports() {
    test(|_, podman| {
        let status = podman.cmd(["mossnet", "podman", "status"]).ok();
        assert!(status.contains("network backend netavark"), "{status}");
        let seen = podman.run(&["--network=podman"], "ip -4 addr show eth0");
        assert!(seen.contains("inet 10.88."), "{seen}");
        podman.network(&["one"]);
        podman.network(&["two"]);
        let again = podman.podman(&["network", "create", "one"]).run();
        let again = again.expect_code(125).expect_text("already");
        assert!(again.stderr.lines().count() == 1, "{again}");
        let ports = ["-p=127.0.0.1:8080:80", "-p=127.0.0.1:9000:90/udp"];
        let options = ["--network=one", "--network-alias=www", ports[0], ports[1]];
        podman.detached("web", &options, SERVE);
        soon("the port leads to the container", || {
            hello("host", "127.0.0.1:8080")
        });
        soon("datagrams, too", || echoes("host", "127.0.0.1:9000"));
        let fetch = format!("{FETCH} && curl -sS -m 20 http://www.dns.podman/x");
        assert_eq!(podman.run(&["--network=one"], &fetch), "hello\nhello\n");
        // Onto another network and off again, while it runs.
        podman.podman(&["network", "connect", "two", "web"]).ok();
        assert_eq!(podman.run(&["--network=two"], FETCH), "hello\n");
        let inspected = podman.inspected("two");
        let containers = inspected["containers"].as_object();
        assert_eq!(containers.map(|all| all.len()), Some(1), "{inspected}");
        podman.podman(&["network", "disconnect", "two", "web"]).ok();
        let unknown = podman.run(&["--network=two"], "getent hosts web || echo unknown");
        assert_eq!(unknown, "unknown\n");
        podman.podman(&["network", "rm", "two"]).ok();
    });
}

#[test]
fn restarts_and_flushed_rules() {
    test(|_, podman| {
        podman.network(&["one"]);
        podman.detached("web", &["--network=one", "-p=127.0.0.1:8080:80"], SERVE);
        let serves = || hello("host", "127.0.0.1:8080");
        soon("it serves", serves);
        podman.podman(&["restart", "-t", "0", "web"]).ok();
        soon("it serves again", serves);
        let inside = ["unshare", "--rootless-netns", "nft"];
        let nft = |words: &[&str]| podman.podman(&[&inside, words].concat()).ok();
        let led = |wanted: bool| {
            let rules = nft(&["list", "ruleset"]);
            assert_eq!(rules.contains(" . 8080 : "), wanted, "{rules}");
        };
        led(true);
        nft(&["flush", "ruleset"]);
        led(false);
        podman.podman(&["network", "reload", "web"]).ok();
        led(true);
        soon("it serves after the rules were flushed", serves);
        assert_eq!(podman.run(&["--network=one"], FETCH), "hello\n");
        podman.podman(&["stop", "-t", "0", "web"]).ok();
        podman.podman(&["start", "web"]).ok();
        soon("it serves after a stop", serves);
    });
}

#[test]
fn internal_networks_and_both_families() {
    test(|_, podman| {
        podman.network(&["--internal", "inner"]);
        let subnets = ["--subnet=10.99.7.0/24", "--subnet=fd00:99:7::/64"];
        podman.network(&["--ipv6", subnets[0], subnets[1], "six"]);
        podman.detached("web", &["--network=inner", "--network=six"], SERVE);
        let seen = podman.run(
            &["--network=inner"],
            "ip route; curl -sS -m 20 --retry 9 --retry-connrefused http://web/x
             getent hosts www.test.example || echo unknown",
        );
        assert!(!seen.contains("default"), "{seen}");
        assert!(seen.ends_with("hello\nunknown\n"), "{seen}");
        let seen = podman.run(
            &[
                "--network=six",
                "--ip=10.99.7.77",
                "--ip6=fd00:99:7::77",
                "--mac-address=02:42:00:00:00:77",
            ],
            "ip addr show eth0; ip -6 route; curl -sS -6 -m 5 http://web/x",
        );
        for words in [
            "10.99.7.77/24",
            "fd00:99:7::77/64",
            "02:42:00:00:00:77",
            "default via fd00:99:7::1",
            "hello",
        ] {
            assert!(seen.contains(words), "{words}: {seen}");
        }
    });
}

#[test]
fn pods() {
    test(|_, podman| {
        podman.network(&["one"]);
        let create = ["pod", "create", "--name=pod", "--network=one"];
        let more = ["-p=127.0.0.1:8080:80", "--infra-image=bb"];
        let infra = ["--infra-command=/busybox sleep 100000"];
        podman
            .podman(&[&create[..], &more[..], &infra[..]].concat())
            .run();
        podman.detached("web", &["--pod=pod"], SERVE);
        soon("the pod's port leads to it", || {
            hello("host", "127.0.0.1:8080")
        });
        let neighbour = podman.run(&["--pod=pod"], "curl -sS -m 20 http://127.0.0.1/x");
        assert_eq!(neighbour, "hello\n");
        let other = podman.run(&["--network=one"], "curl -sS -m 20 http://pod/x");
        assert_eq!(other, "hello\n");
        podman.podman(&["pod", "restart", "pod"]).ok();
        soon("it serves again", || hello("host", "127.0.0.1:8080"));
    });
}

#[test]
fn networks_kept_apart_by_option() {
    test(|_, podman| {
        podman.network(&["-o=isolate=true", "-o=mtu=1400", "one"]);
        podman.network(&["-o=isolate=true", "two"]);
        podman.network(&["open"]);
        podman.detached("web", &["--network=one"], SERVE);
        let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = podman.podman(&["inspect", "-f", address, "web"]).ok();
        let fetch = format!(
            "curl -sS -m 20 --retry 9 --retry-connrefused http://{}/x",
            address.trim()
        );
        let seen = podman.run(&["--network=one"], &format!("ip link show eth0; {fetch}"));
        assert!(
            seen.contains("mtu 1400") && seen.ends_with("hello\n"),
            "{seen}"
        );
        assert_eq!(podman.run(&["--network=open"], &fetch), "hello\n");
        let fetch = format!("curl -s -m 2 http://{}/x || echo no", address.trim());
        assert_eq!(podman.run(&["--network=two"], &fetch), "no\n");
    });
}
