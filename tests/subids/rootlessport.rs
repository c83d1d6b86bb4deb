//! Published ports of Debian's podman 4.3 without root, by our rootlessport, with clients on another host.
//!
//! Podman listens in the machine's own network namespace, where no test may have a second host. So podman finds
//! a script in the place of rootlessport, which enters a namespace that is *the host* here, joined to one that
//! is the remote host, and then is rootlessport.

use super::podman::{PROGRAMS, Podman};
use crate::world::{eventually, seconds};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Makes the two hosts, in podman's user namespace.
const HOSTS: &str = "
new() {
    unshare -n sleep 100000 >/dev/null 2>&1 &
    until [ \"$(readlink /proc/$!/ns/net)\" != \"$(readlink /proc/$$/ns/net)\" ]; do sleep 0.05; done
    echo $! >$1
}
new host; new remote
on() { nsenter -t $(cat $1) -n ip $2; }
on host 'link set lo up'; on remote 'link set lo up'
on host \"link add h0 type veth peer name r0 netns /proc/$(cat remote)/ns/net\"
on host 'addr add 203.0.113.1/24 dev h0'; on host 'addr add 2001:db8::1/64 dev h0 nodad'
on remote 'addr add 203.0.113.7/24 dev r0'; on remote 'addr add 2001:db8::7/64 dev r0 nodad'
on host 'link set h0 up'; on remote 'link set r0 up'
";

/// A service that says whom it takes its client for: TCP at port 80, UDP at 90 and 91, both families or IPv4 only.
const WHO: &str = "exec python3 -c '
import socket, sys, threading
v4 = len(sys.argv) > 1
def at(kind, port):
    s = socket.socket(socket.AF_INET if v4 else socket.AF_INET6, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((\"0.0.0.0\" if v4 else \"::\", port))
    return s
def who(address):
    return address[0].replace(\"::ffff:\", \"\").encode()
def datagrams(port):
    s = at(socket.SOCK_DGRAM, port)
    while True:
        _, address = s.recvfrom(99)
        s.sendto(who(address), address)
for port in 90, 91:
    threading.Thread(target=datagrams, args=(port,)).start()
s = at(socket.SOCK_STREAM, 80)
s.listen(99)
while True:
    client, address = s.accept()
    client.sendall(who(address))
    client.close()' ";

/// Asks once by TCP, and as often as it takes by UDP: the first datagram may be lost.
const ASK: &str = "exec python3 -c '
import socket, sys
kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == \"tcp\":
    s = socket.create_connection((host, port), 10)
    s.settimeout(10)
    print(s.recv(99).decode())
else:
    s = socket.socket(socket.AF_INET6 if \":\" in host else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(1)
    for _ in range(20):
        try:
            s.sendto(b\"?\", (host, port))
            print(s.recv(99).decode())
            break
        except OSError:
            pass' ";

const V4: &str = "203.0.113.1";
const V6: &str = "2001:db8::1";
const REMOTE_V4: &str = "203.0.113.7";
const REMOTE_V6: &str = "2001:db8::7";

/// Podman, with two hosts.
struct Hosts(Podman);

impl Hosts {
    fn find(test: &str) -> Option<Self> {
        let podman = Podman::find(test)?;
        let script = format!("cd {}\n{HOSTS}", podman.path("").display());
        podman.podman(&["unshare", "sh", "-ec", &script]).ok();
        let own = podman.path("home/.local/share/mossnet/podman/rootlessport");
        let place = podman.path("hosts");
        fs::create_dir(&place).expect("a directory");
        let enter = format!(
            "#!/bin/sh\nexec nsenter -t $(cat {}) -n {} \"$@\"\n",
            podman.path("host").display(),
            own.display()
        );
        let program = place.join("rootlessport");
        fs::write(&program, enter).expect("a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
        let hosts = Self(podman);
        hosts.look_first(&[&place, own.parent().expect("a directory")]);
        Some(hosts)
    }

    /// Where podman looks for its programs, before the usual places.
    fn look_first(&self, places: &[&Path]) {
        let own: String = places
            .iter()
            .map(|place| format!("'{}', ", place.display()))
            .collect();
        let conf = format!(
            "[engine]\nhelper_binaries_dir = [{own}'/usr/lib/podman', '/usr/libexec/podman']\n"
        );
        let drop_in = "home/.config/containers/containers.conf.d/60-hosts.conf";
        fs::write(self.0.path(drop_in), conf).expect("a configuration");
    }

    /// From now on networks are netavark's.
    fn calls_netavark(&self) {
        self.look_first(&[&self.0.path("hosts")]);
    }

    /// Runs `sh -c SCRIPT` on a host; what it prints.
    #[track_caller]
    fn on(&self, host: &str, script: &str) -> String {
        let pid = fs::read_to_string(self.0.path(host)).expect("its process");
        let enter = ["unshare", "nsenter", "-t", pid.trim(), "-n", "sh", "-c"];
        let output = self.0.podman(&[&enter[..], &[script]].concat()).run();
        output.stdout.trim().to_owned()
    }

    /// Whom the service takes somebody for who asks from there.
    #[track_caller]
    fn seen(&self, from: &str, kind: &str, at: &str, port: u16) -> String {
        self.on(from, &format!("{ASK} {kind} {at} {port}"))
    }

    /// Until remote clients are known by this address at a TCP port.
    #[track_caller]
    fn serves(&self, at: &str, port: u16, as_whom: &str) {
        let what = format!("{at} port {port} shows {as_whom}");
        eventually(seconds(20), &what, || {
            self.seen("remote", "tcp", at, port) == as_whom
        });
    }

    fn is_closed(&self, port: u16) -> bool {
        let listening = self.on("host", &format!("ss -Hltn sport = :{port}"));
        listening.is_empty()
    }

    /// TCP, and each port of a range of UDP, in both families, from the remote host.
    #[track_caller]
    fn keeps_addresses(&self) {
        self.serves(V4, 8080, REMOTE_V4);
        self.serves(V6, 8080, REMOTE_V6);
        for port in [8090, 8091] {
            assert_eq!(self.seen("remote", "udp", V4, port), REMOTE_V4);
            assert_eq!(self.seen("remote", "udp", V6, port), REMOTE_V6);
        }
    }

    /// The process id of the one rootlessport that listens.
    fn process(&self) -> i32 {
        let look = "for p in /proc/[0-9]*; do
            [ \"$(cat $p/comm 2>/dev/null)\" = rootlessport ] || continue
            [ \"$(readlink $p/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ] && echo ${p#/proc/}
        done";
        let found = self.on("host", look);
        found
            .parse()
            .unwrap_or_else(|_| panic!("one process: {found}"))
    }

    fn tables(&self) -> String {
        let nft = ["unshare", "--rootless-netns", "nft", "list", "tables"];
        self.0.podman(&nft).ok()
    }

    #[track_caller]
    fn ends_clean(&self) {
        self.0.ends_clean();
        self.ports_are_gone();
    }

    #[track_caller]
    fn ports_are_gone(&self) {
        eventually(seconds(15), "no port is open, no socket is left", || {
            self.on("host", "ss -Hltun").is_empty() && self.0.has_no("run/libpod/tmp/rp")
        });
    }
}

const PORTS: [&str; 2] = ["-p=8080:80", "-p=8090-8091:90-91/udp"];
const SUBNETS: [&str; 2] = ["--subnet=10.99.8.0/24", "--subnet=fd00:99:8::/64"];

fn two_families(hosts: &Hosts) {
    let create = ["network", "create", "--ipv6", SUBNETS[0], SUBNETS[1], "six"];
    hosts.0.podman(&create).ok();
}

#[test]
fn clients_keep_their_addresses() {
    let Some(hosts) = Hosts::find("rootlessport::clients_keep_their_addresses") else {
        return;
    };
    let podman = &hosts.0;
    two_families(&hosts);
    podman.podman(&["network", "create", "other"]).ok();
    podman.start("web", &["--network=six", PORTS[0], PORTS[1]], WHO);
    hosts.keeps_addresses();
    // The host itself is somebody on the container's network.
    for at in ["127.0.0.1", V4] {
        assert_eq!(hosts.seen("host", "tcp", at, 8080), "10.99.8.1");
        assert_eq!(hosts.seen("host", "udp", at, 8090), "10.99.8.1");
    }
    assert_eq!(hosts.seen("host", "tcp", "::1", 8080), "fd00:99:8::1");
    // Another container beside it, on another network.
    podman.start("two", &["--network=other", "-p=8081:80"], WHO);
    hosts.serves(V4, 8081, REMOTE_V4);
    // A port that is taken: podman says so, and nothing is left of that container.
    let taken = [
        "run",
        "-d",
        "--name=late",
        PROGRAMS,
        "--network=other",
        "-p=8080:80",
        "bb",
        "sh",
    ];
    let refused = podman.podman(&taken).fails(126);
    refused.expect_text("address already in use");
    podman.podman(&["rm", "-f", "-t", "0", "late"]).ok();
    hosts.keeps_addresses();
    podman.podman(&["rm", "-f", "-t", "0", "two"]).ok();
    eventually(seconds(15), "the port is closed", || hosts.is_closed(8081));
    hosts.ends_clean();
}

#[test]
fn networks_and_containers_come_and_go() {
    let Some(hosts) = Hosts::find("rootlessport::networks_and_containers_come_and_go") else {
        return;
    };
    let podman = &hosts.0;
    two_families(&hosts);
    podman.podman(&["network", "create", "other"]).ok();
    // It keeps podman's namespace of bridges.
    podman.start("resident", &["--network=other"], "exec sleep 100000");
    podman.start("web", &["--network=six", PORTS[0], PORTS[1]], WHO);
    hosts.keeps_addresses();
    // Podman says the new address each time.
    podman.podman(&["network", "connect", "other", "web"]).ok();
    hosts.keeps_addresses();
    podman.podman(&["network", "disconnect", "six", "web"]).ok();
    hosts.serves(V4, 8080, REMOTE_V4);
    podman.podman(&["network", "connect", "six", "web"]).ok();
    podman
        .podman(&["network", "disconnect", "other", "web"])
        .ok();
    hosts.keeps_addresses();
    // Nobody flushes what is ours, and podman may make all of its own anew.
    let inside = ["unshare", "--rootless-netns", "nft", "flush", "ruleset"];
    podman.podman(&inside).ok();
    hosts.keeps_addresses();
    podman.podman(&["network", "reload", "web"]).ok();
    hosts.keeps_addresses();
    podman.podman(&["restart", "-t", "0", "web"]).ok();
    hosts.keeps_addresses();
    // Killed, it leaves nothing that is in the way.
    assert!(hosts.tables().contains("mossnet-port"));
    hosts.on("host", &format!("kill -9 {}", hosts.process()));
    eventually(seconds(10), "its ports are closed", || {
        hosts.is_closed(8080)
    });
    assert!(!hosts.tables().contains("mossnet-port"));
    podman.podman(&["restart", "-t", "0", "web"]).ok();
    hosts.keeps_addresses();
    podman.podman(&["stop", "-t", "0", "web"]).ok();
    eventually(seconds(10), "its ports are closed", || {
        hosts.is_closed(8080)
    });
    podman.podman(&["start", "web"]).ok();
    hosts.keeps_addresses();
    // Alone, it loses podman's namespace of bridges as it leaves a network, and gets another one.
    podman.podman(&["rm", "-f", "-t", "0", "resident"]).ok();
    podman.podman(&["network", "connect", "other", "web"]).ok();
    podman.podman(&["network", "disconnect", "six", "web"]).ok();
    hosts.serves(V4, 8080, REMOTE_V4);
    podman.podman(&["network", "connect", "six", "web"]).ok();
    let leave = ["network", "disconnect", "other", "web"];
    podman.podman(&leave).ok();
    hosts.keeps_addresses();
    // What podman has lost with the first namespace is its own affair, the ports are ours.
    podman.podman(&["rm", "-f", "-t", "0", "web"]).ok();
    hosts.ports_are_gone();
}

#[test]
fn without_a_network_and_in_pods() {
    let Some(hosts) = Hosts::find("rootlessport::without_a_network_and_in_pods") else {
        return;
    };
    let podman = &hosts.0;
    let options = ["--network=slirp4netns:enable_ipv6=true", PORTS[0], PORTS[1]];
    podman.start("web", &options, WHO);
    hosts.keeps_addresses();
    // slirp4netns's gateway.
    assert_eq!(hosts.seen("host", "tcp", "127.0.0.1", 8080), "10.0.2.2");
    podman.podman(&["rm", "-f", "-t", "0", "web"]).ok();
    eventually(seconds(15), "the port is closed", || hosts.is_closed(8080));
    // A service at IPv4 alone: who comes by IPv6 is led there, as somebody else.
    podman.start("old", &options, &format!("{WHO} v4"));
    hosts.serves(V4, 8080, REMOTE_V4);
    hosts.serves(V6, 8080, "10.0.2.2");
    assert_eq!(hosts.seen("remote", "udp", V6, 8090), "10.0.2.2");
    assert_eq!(hosts.seen("remote", "udp", V4, 8090), REMOTE_V4);
    podman.podman(&["rm", "-f", "-t", "0", "old"]).ok();
    eventually(seconds(15), "the port is closed", || hosts.is_closed(8080));
    two_families(&hosts);
    let infra = [
        "--infra-image=bb",
        "--infra-command=/pause",
        "--network=six",
    ];
    let pod = ["pod", "create", "--name=pod"];
    podman.podman(&[&pod[..], &PORTS, &infra].concat()).ok();
    podman.start("member", &["--pod=pod"], WHO);
    hosts.keeps_addresses();
    hosts.ends_clean();
}

#[test]
fn beside_netavark_and_in_user_namespaces() {
    let Some(hosts) = Hosts::find("rootlessport::beside_netavark_and_in_user_namespaces") else {
        return;
    };
    let podman = &hosts.0;
    two_families(&hosts);
    // Owned by another user namespace, below podman's. (Podman 4.3 leaves the first one's file, whoever makes
    // its networks.)
    for network in ["--network=six", "--network=slirp4netns:enable_ipv6=true"] {
        let options = [network, "--userns=keep-id", "--user=0", PORTS[0], PORTS[1]];
        podman.start("web", &options, WHO);
        hosts.keeps_addresses();
        podman.podman(&["rm", "-f", "-t", "0", "web"]).ok();
        eventually(seconds(15), "the port is closed", || hosts.is_closed(8080));
    }
    hosts.ports_are_gone();
    // netavark itself, whose rules are iptables'.
    hosts.calls_netavark();
    podman.start("web", &["--network=six", PORTS[0], PORTS[1]], WHO);
    hosts.keeps_addresses();
    podman.podman(&["network", "reload", "web"]).ok();
    hosts.keeps_addresses();
    podman.podman(&["rm", "-f", "-t", "0", "web"]).ok();
    hosts.ports_are_gone();
}
