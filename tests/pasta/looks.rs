//! What the namespace looks like: as the host, as pasta makes it.

use super::sh;
use crate::world::{World, installed};
use serde_json::Value;
use std::collections::BTreeSet;

const SHOW: &str = "inside ip -j addr; inside ip -j route; inside ip -6 -j route";

/// Addresses and routes as `ip -j` gives them, without what differs between a tap and a veth.
fn seen(text: &str) -> BTreeSet<String> {
    let mut lines = text.lines().filter(|line| line.starts_with('['));
    let mut next = || -> Vec<Value> {
        let line = lines.next().expect("an answer of ip");
        serde_json::from_str(line).expect("JSON")
    };
    let mut found = BTreeSet::new();
    for link in next() {
        let up = link["flags"]
            .as_array()
            .expect("flags")
            .contains(&"UP".into());
        found.insert(format!("{} mtu {} up {up}", link["ifname"], link["mtu"]));
        for address in link["addr_info"].as_array().expect("addresses") {
            // The link-local ones follow from MAC addresses.
            if address["scope"] != "link" {
                let (of, net) = (&link["ifname"], &address["local"]);
                let length = &address["prefixlen"];
                found.insert(format!("{of} {net}/{length} {}", address["scope"]));
            }
        }
    }
    let routes: Vec<Value> = next().into_iter().chain(next()).collect();
    for route in routes {
        let (to, via, by) = (&route["dst"], &route["gateway"], &route["dev"]);
        // The kernel's own follow from addresses.
        if route["dst"] == "default" {
            found.insert(format!("{to} via {via} dev {by}"));
        }
    }
    found
}

#[test]
fn as_the_host() {
    World::test(|world| {
        let script = format!("podmans $quiet_ports; {SHOW}; cat /run/p/pid");
        let text = sh(world, &script).ok();
        let expected = [
            "\"eth0\" \"203.0.113.2\"/24 \"global\"",
            "\"eth0\" \"2001:db8:113::2\"/64 \"global\"",
            "\"eth0\" mtu 65520 up true",
            "\"default\" via \"203.0.113.1\" dev \"eth0\"",
            "\"default\" via \"2001:db8:113::1\" dev \"eth0\"",
        ];
        let seen = seen(&text);
        for line in expected {
            assert!(seen.contains(line), "{line} in {seen:#?}");
        }
    });
}

/// The same words to both: the same addresses and routes.
#[test]
fn as_pasta_makes_it() {
    World::builder().tun().test(|world| {
        if !installed("pasta") || !world.has_tun() {
            return;
        }
        for words in [
            "",
            "-4",
            "-I tap0 -m 1400",
            "-4 -a 10.0.2.100 -n 24 -g 10.0.2.2 --dns-forward 10.0.2.3",
            "-i eth0 --no-map-gw",
        ] {
            // Theirs does without logs; IPv6 takes it a moment.
            let script = format!(
                r#"
                pasta {words} $quiet_ports -q --netns /run/p/ns
                echo ours; {SHOW}
                new other
                /usr/bin/pasta --config-net {words} $quiet_ports -q -l /run/p/log --netns /run/p/other
                echo theirs
                inside() {{ nsenter --net=/run/p/other "$@"; }}
                {SHOW}"#
            );
            let text = sh(world, &script).ok();
            let (ours, theirs) = text.split_once("theirs").expect("both");
            assert_eq!(seen(ours), seen(theirs), "pasta {words}");
        }
    });
}

#[test]
fn rootlesskits_words() {
    World::test(|world| {
        let script = format!(
            r#"
            unshare -U -r -n sleep 100 & child=$!
            until_true sh -c "! [ /proc/$child/ns/net -ef /proc/self/ns/net ]"
            mossnet pasta --stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 \
                --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 --no-map-gw --ipv4-only \
                --tcp-ports=none --udp-ports=none $child
            inside() {{ nsenter -t $child -U --preserve-credentials -n "$@"; }}
            {SHOW}; kill $child"#
        );
        let text = sh(world, &script).ok();
        let seen = seen(&text);
        for line in [
            "\"tap0\" \"10.0.2.100\"/24 \"global\"",
            "\"default\" via \"10.0.2.2\" dev \"tap0\"",
        ] {
            assert!(seen.contains(line), "{line} in {seen:#?}");
        }
        assert!(!text.contains("2001:db8"), "{text}");
    });
}
