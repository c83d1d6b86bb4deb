//! What leaves the namespace: to the world, to the host, to its resolvers.

use super::{ASK, sh, who};
use crate::world::dns::Dns;
use crate::world::{SERVER, SERVER6, World, installed};

#[test]
fn to_the_world() {
    World::test(|world| {
        if !installed("python3") {
            return;
        }
        who("server", SERVER, 7000);
        who("server", SERVER6, 7000);
        // A neighbour of the host's is none of the namespace's, and is reached all the same.
        let words =
            format!("tcp/7000/{SERVER} udp/7000/{SERVER} tcp/7000/{SERVER6} udp/7000/{SERVER6}");
        let script = format!(
            "{ASK}\npodmans $quiet_ports\nask {words}
            for to in {SERVER} {SERVER6} 203.0.113.1 2001:db8:113::1; do inside ping -c 1 -W 10 $to >/dev/null; done"
        );
        let text = sh(world, &script).ok();
        let host = "203.0.113.2";
        let host6 = "2001:db8:113::2";
        for (word, seen) in words.split(' ').zip([host, host, host6, host6]) {
            assert!(
                text.contains(&format!("{word} {seen}\n")),
                "{word} in {text}"
            );
        }
    });
}

#[test]
fn to_the_host() {
    World::test(|world| {
        if !installed("python3") {
            return;
        }
        who("host", "127.0.0.1", 7000);
        who("host", "::1", 7000);
        who("host", "203.0.113.2", 7000);
        let gateway = "tcp/7000/203.0.113.1 udp/7000/203.0.113.1 tcp/7000/2001:db8:113::1 tcp/7009/203.0.113.1";
        let script = format!(
            r#"{ASK}
            pasta $quiet_ports -q --netns /run/p/ns; ask {gateway}; echo closed
            new ns2; inside() {{ nsenter --net=/run/p/ns2 "$@"; }}
            pasta $quiet_ports --no-map-gw --map-guest-addr 169.254.1.2 --map-host-loopback 169.254.1.3 \
                -q --netns /run/p/ns2
            ask tcp/7000/203.0.113.1 tcp/7000/169.254.1.2 tcp/7000/169.254.1.3 udp/7000/169.254.1.3"#
        );
        let text = sh(world, &script).ok();
        let (by_gateway, by_others) = text.split_once("closed\n").expect("both");
        for line in [
            "tcp/7000/203.0.113.1 127.0.0.1",
            "udp/7000/203.0.113.1 127.0.0.1",
            "tcp/7000/2001:db8:113::1 ::1",
            "tcp/7009/203.0.113.1 refused",
        ] {
            assert!(by_gateway.contains(line), "{line} in {text}");
        }
        for line in [
            // The gateway itself, which is the isp here and serves nobody.
            "tcp/7000/203.0.113.1 refused",
            "tcp/7000/169.254.1.2 203.0.113.2",
            "tcp/7000/169.254.1.3 127.0.0.1",
            "udp/7000/169.254.1.3 127.0.0.1",
        ] {
            assert!(by_others.contains(line), "{line} in {text}");
        }
    });
}

#[test]
fn names_are_the_hosts() {
    World::test(|world| {
        if !installed("python3") {
            return;
        }
        let dns = Dns::start("server");
        let script = r#"
            podmans $quiet_ports --dns-forward 169.254.1.1
            echo "nameserver 169.254.1.1" >/run/p/resolv.conf
            mount --bind /run/p/resolv.conf "$(readlink -f /etc/resolv.conf)"
            inside getent ahostsv4 www.test.example | head -n 1"#;
        let text = sh(world, script).ok();
        assert!(text.starts_with(SERVER), "{text}");
        let asked = dns.asked();
        assert!(
            asked
                .iter()
                .any(|name| name.starts_with("www.test.example")),
            "{asked:?}"
        );
    });
}

#[test]
fn what_is_withheld_does_not_leave() {
    World::test(|world| {
        if !installed("python3") {
            return;
        }
        who("server", SERVER, 7000);
        let script = format!(
            "{ASK}\npodmans $quiet_ports --no-udp --no-icmp
            sed -i 's/settimeout(10)/settimeout(1)/' /run/p/ask.py
            ask tcp/7000/{SERVER} udp/7000/{SERVER}
            if inside ping -c 1 -W 1 {SERVER} >/dev/null; then echo pong; fi"
        );
        let text = sh(world, &script).ok();
        assert!(
            text.contains(&format!("tcp/7000/{SERVER} 203.0.113.2")),
            "{text}"
        );
        assert!(
            text.contains(&format!("udp/7000/{SERVER} silence")),
            "{text}"
        );
        assert!(!text.contains("pong"), "{text}");
    });
}

/// `-T` and `-U`: the namespace's loopback leads to the host's.
#[test]
fn by_ports_of_its_loopback() {
    World::test(|world| {
        if !installed("python3") {
            return;
        }
        for address in ["127.0.0.1", "::1"] {
            who("host", address, 7000);
            who("host", address, 7001);
        }
        let words = "tcp/7000/127.0.0.1 tcp/80/127.0.0.1 tcp/7000/::1 udp/81/127.0.0.1 udp/81/::1 tcp/79/127.0.0.1";
        let script = format!(
            "{ASK}\npodmans -t none -u none -T 7000,80:7001 -U 81:7001
            ask {words}
            pid=$(cat /run/p/pid); umount /run/p/ns; rm /run/p/ns; until_true gone $pid"
        );
        let text = sh(world, &script).ok();
        let seen = [
            "127.0.0.1",
            "127.0.0.1",
            "::1",
            "127.0.0.1",
            "::1",
            "refused",
        ];
        for (word, seen) in words.split(' ').zip(seen) {
            assert!(
                text.contains(&format!("{word} {seen}\n")),
                "{word} {seen} in {text}"
            );
        }
    });
}

/// `auto`: what the host's loopback has comes, and goes.
#[test]
fn by_ports_that_follow_the_host() {
    World::test(|world| {
        if !installed("python3") {
            return;
        }
        who("host", "127.0.0.1", 7005);
        let script = format!(
            r#"{ASK}
            podmans -t none -u none -T auto -U auto
            answers() {{ ask "$1" | grep -q ' 127.0.0.1$'; }}
            until_true answers tcp/7005/127.0.0.1
            until_true answers udp/7005/127.0.0.1
            python3 -c 'import socket,time; s=socket.socket(); s.bind(("127.0.0.1", 7006)); s.listen(); time.sleep(60)' & late=$!
            listened() {{ inside ss -Hltn "sport = :7006" | grep -q .; }}
            until_true listened
            kill $late; unlistened() {{ ! listened; }}; until_true unlistened"#
        );
        sh(world, &script)
            .timeout(std::time::Duration::from_secs(60))
            .ok();
    });
}

/// `-o`: from another address of the host's.
#[test]
fn by_the_address_that_is_said() {
    World::test(|world| {
        if !installed("python3") {
            return;
        }
        who("server", SERVER, 7000);
        crate::world::ip(None, "addr add 203.0.113.3/24 dev eth0\n");
        let words = format!("tcp/7000/{SERVER} udp/7000/{SERVER}");
        let script = format!(
            "{ASK}\npodmans $quiet_ports -a 203.0.113.2 -o 203.0.113.3 --outbound-if4 eth0
            ask {words}; inside ping -c 1 -W 10 {SERVER} >/dev/null"
        );
        let text = sh(world, &script).ok();
        for word in words.split(' ') {
            assert!(
                text.contains(&format!("{word} 203.0.113.3\n")),
                "{word} in {text}"
            );
        }
    });
}

/// `-p`: what goes to and fro is in a file.
#[test]
fn packets_are_written() {
    World::test(|world| {
        let path = "/run/world/home/packets";
        let script = format!(
            "podmans $quiet_ports -p {path}
            inside ping -p 6d6f7373 -c 2 -i 0.2 -W 10 {SERVER} >/dev/null
            all() {{ [ \"$(grep -aoE '(moss){{8}}' {path} | wc -l)\" -ge 4 ]; }}
            until_true all; pid=$(cat /run/p/pid); kids=$(cat /proc/$pid/task/$pid/children)
            kill -9 $pid; for each in $kids; do until_true gone $each; done"
        );
        sh(world, &script).ok();
        let written = crate::capture::file::File::read(path);
        let echoes: Vec<_> = written
            .packets
            .iter()
            .filter(|packet| packet.protocol() == 1)
            .map(|packet| (packet.addresses(), packet.inward))
            .collect();
        let host = "203.0.113.2".to_owned();
        let there = ([host.clone(), SERVER.to_owned()], false);
        let back = ([SERVER.to_owned(), host], true);
        assert_eq!(echoes, [there.clone(), back.clone(), there, back]);
        assert_eq!(written.interfaces[0].name, "eth0");
    });
}
