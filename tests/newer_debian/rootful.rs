//! Podman as root: its networks are the host's own, and ports lead to containers by rules alone.

use super::outside::outside;
use super::{SERVE, echoes, hello, soon, test_as};
use crate::publish::{HOST, HOST6};
use crate::world::dns::Dns;
use crate::world::{SERVER, servers};

#[test]
fn networks_names_ports_and_the_way_out() {
    test_as(true, |_, podman| {
        Dns::start("server");
        servers::http("server", 80);
        servers::udp_echo("server", 9000);
        let status = podman.cmd(["mossnet", "podman", "status"]).ok();
        assert!(
            status.contains("/usr/local/lib/mossnet/podman/netavark (mossnet)"),
            "{status}"
        );
        podman.network(&["--ipv6", "six"]);
        podman.network(&["--internal", "inner"]);
        podman.detached(
            "web",
            &["--network=six", "-p=8080:80", "-p=9001:90/udp"],
            SERVE,
        );
        podman.podman(&["network", "connect", "inner", "web"]).ok();
        let serves = || {
            for from in ["server", "host"] {
                soon(&format!("web serves {from}"), || {
                    hello(from, &format!("{HOST}:8080"))
                        && hello(from, &format!("[{HOST6}]:8080"))
                        && echoes(from, &format!("{HOST}:9001"))
                });
            }
            soon("web serves the loopback", || {
                hello("host", "127.0.0.1:8080")
            });
        };
        serves();
        let fetch = "curl -sS -m 20 http://web/x && ";
        let seen = podman.run(&["--network=six"], &format!("{fetch}{}", outside()));
        assert_eq!(seen, "hello\nthere\n");
        let seen = podman.run(&[], &format!("curl -sS -m 20 http://{SERVER}/"));
        assert_eq!(
            seen, "203.0.113.2",
            "the default network, as the server sees it"
        );
        let inner = format!("{fetch} ip route");
        let seen = podman.run(&["--network=inner"], &inner);
        assert!(
            seen.starts_with("hello\n") && !seen.contains("default"),
            "{seen}"
        );
        podman.sh("nft flush ruleset").ok();
        podman.podman(&["network", "reload", "web"]).ok();
        serves();
        podman.podman(&["restart", "-t", "0", "web"]).ok();
        serves();
        podman.podman(&["rm", "-f", "-t", "0", "web"]).ok();
        podman.cmd(["mossnet", "podman", "uninstall"]).ok();
        podman
            .cmd(["test", "!", "-e", "/etc/containers/containers.conf.d"])
            .ok();
    });
}
