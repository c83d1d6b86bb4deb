//! Bad input: one error as JSON, exit code 1, nothing left.

use super::{Bench, container, network};
use serde_json::{Value, json};

fn good() -> Value {
    let request = container(
        "web",
        5,
        &[(1, network("a", 1, json!({"dns_enabled": true})))],
    );
    let mut request = request;
    request["port_mappings"] = json!([
        {"host_ip": "", "container_port": 80, "host_port": 8080, "range": 1, "protocol": "tcp"},
    ]);
    request
}

fn with(pointer: &str, value: Value) -> String {
    let mut request = good();
    *request.pointer_mut(pointer).expect("a place") = value;
    request.to_string()
}

/// Input, and words of the error.
fn bad() -> Vec<(String, &'static str)> {
    let whole = good().to_string();
    let mut bad = vec![
        (String::new(), "EOF"),
        ("[]".to_owned(), "invalid"),
        ("nonsense".to_owned(), "expected"),
        (format!("{whole} {whole}"), "trailing"),
        (
            format!("{}{whole}", " ".repeat(10 << 20)),
            "more than 8388608 bytes",
        ),
        (with("/container_id", json!(3)), "expected a string"),
        (with("/networks", json!("x")), "a map of networks"),
        (
            with("/networks/a/static_ips", json!(["10.77.1.500"])),
            "invalid IP",
        ),
        (with("/network_info/a/subnets", json!({})), "invalid type"),
        (
            with("/network_info/a/driver", json!("foo")),
            "unknown network driver foo",
        ),
        (
            with("/network_info/a/network_interface", json!("lo")),
            "lo is not a bridge",
        ),
        (
            with("/network_info/a/subnets/0/gateway", json!("10.77.1.5")),
            "10.77.1.5",
        ),
        (
            with("/network_info/a/ipam_options", json!({"driver": "dhcp"})),
            "no DHCP proxy",
        ),
        (with("/networks/a/interface_name", json!("lo")), "lo"),
        (
            with("/port_mappings/0/protocol", json!("foo")),
            "unknown protocol 'foo'",
        ),
        (
            with("/port_mappings/0/host_ip", json!("x")),
            "not an address",
        ),
        (with("/port_mappings/0/host_port", json!(70000)), "70000"),
    ];
    // Within a key, a string, a number, at the end.
    for part in 1..20 {
        bad.push((whole[..whole.len() * part / 20].to_owned(), "EOF"));
    }
    // Only what podman would call wrong: a gateway that is the container's own address is its business.
    bad.retain(|(text, _)| !text.contains("\"gateway\":\"10.77.1.5\""));
    bad
}

#[test]
fn one_error_and_nothing_left() {
    let bench = Bench::new();
    let bad = bad();
    for (index, (text, _)) in bad.iter().enumerate() {
        bench.write(&format!("bad{index}"), text);
    }
    let script = format!(
        "for n in $(seq 0 {}); do\n $MOSSNET netavark -c /run/net setup /run/netns/one <bad$n.json 2>/run/err && exit 9\n [ $? = 1 ]\n [ ! -s /run/err ]\n done\n nothing_left",
        bad.len() - 1
    );
    let output = bench.sh(&script).expect_code(0);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.len(), bad.len(), "{output}");
    for ((text, words), line) in bad.iter().zip(lines) {
        let answer: Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        let only = answer.as_object().map(serde_json::Map::len);
        let error = answer["error"].as_str().unwrap_or_default();
        let text = &text[..text.len().min(300)];
        assert!(
            only == Some(1) && error.contains(words),
            "{words}: {line}: {text}"
        );
    }
}

#[test]
fn so_it_is_with_bad_arguments_and_namespaces() {
    let bench = Bench::new();
    bench.write("web", good().to_string());
    let script = r#"
        refuses() { fails "$@" <web.json >/run/out; [ "$(grep -c '^{"error":"' /run/out)" = 1 ] && [ "$(wc -l </run/out)" = 1 ]; }
        touch /run/file
        refuses netavark setup /run/netns/none && says 'No such file'
        refuses netavark setup /run/file && says 'not a network namespace'
        refuses netavark setup && says NETNS
        refuses netavark && refuses netavark foo && refuses netavark --foo setup /run/netns/one
        refuses netavark --firewall-driver foo setup /run/netns/one && says "'foo'"
        refuses env NETAVARK_DNS_PORT=x "$MOSSNET" netavark -c /run/net setup /run/netns/one
        refuses netavark -f /none setup /run/netns/one && says '/none'
        refuses netavark -c /dev/null/x setup /run/netns/one
        refuses netavark update a --network-dns-servers 192.0.2.1 && says 'no name server'
        refuses netavark update ../x --network-dns-servers 192.0.2.1
        # A port that somebody else has taken the name of, inside.
        inside two ip link add eth0 type bridge
        refuses netavark setup /run/netns/two && says eth0
        inside two ip link del eth0
        # Without a netns there is nothing to do, and that is no error.
        netavark teardown /run/netns/none <web.json
        nothing_left
    "#;
    bench.ok(script);
}

/// What podman 6 asks `create` for.
fn asked() -> Value {
    json!({
        "network": {
            "name": "lab", "id": format!("{:0>64}", 7), "driver": "bridge",
            "internal": false, "dns_enabled": true, "ipv6_enabled": true,
        },
        "used": {"interfaces": [], "names": {"podman": "2f"}, "subnets": ["10.89.0.0/24"]},
        "options": {
            "subnet_pools": [{"base": "10.89.0.0/16", "size": 24}],
            "default_interface_name": "podman", "check_used_subnets": true,
        },
    })
}

#[test]
fn new_networks_are_completed_or_refused_by_one_error() {
    let bench = Bench::new();
    let whole = asked().to_string();
    bench.write("good", &whole);
    let with = |pointer: &str, value: Value| {
        let mut request = asked();
        *request.pointer_mut(pointer).expect("a place") = value;
        request.to_string()
    };
    let mut bad = vec![
        (String::new(), "EOF"),
        ("[]".to_owned(), "invalid"),
        (format!("{whole} {whole}"), "trailing"),
        (
            format!("{}{whole}", " ".repeat(10 << 20)),
            "more than 8388608 bytes",
        ),
        (with("/network/driver", json!("foo")), "driver foo"),
        (with("/network/name", json!("podman")), "already exists"),
        (with("/network/name", json!("../x")), "'../x'"),
        (with("/network/dns_enabled", json!(7)), "invalid type"),
        (with("/used/subnets", json!(["10.0.0.0/8"])), "no free"),
        (with("/options/subnet_pools/0/size", json!(-1)), "-1"),
    ];
    for part in 1..20 {
        bad.push((whole[..whole.len() * part / 20].to_owned(), "EOF"));
    }
    for (index, (text, _)) in bad.iter().enumerate() {
        bench.write(&format!("bad{index}"), text);
    }
    let script = format!(
        "ip link add podman1 type bridge\n netavark create <good.json\n netavark create -f good.json\n
         ip link del podman1
         for n in $(seq 0 {}); do\n $MOSSNET netavark create <bad$n.json 2>/run/err && exit 9\n [ ! -s /run/err ]\n done
         fails netavark -f /none create\n nothing_left",
        bad.len() - 1
    );
    let said = bench.ok(&script);
    let mut lines = said.lines().map(|line| -> Value {
        serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))
    });
    for _ in 0..2 {
        let made = lines.next().expect("a network");
        assert_eq!(made["network_interface"], "podman2", "1 is taken: {made}");
        assert_eq!(made["subnets"][0]["subnet"], "10.89.1.0/24", "{made}");
        assert_eq!(made["subnets"][0]["gateway"], "10.89.1.1", "{made}");
        let second = made["subnets"][1]["subnet"].as_str();
        assert!(second.is_some_and(|six| six.starts_with("fd")), "{made}");
    }
    bad.push((String::new(), "/none"));
    for (text, words) in &bad {
        let answer = lines.next().expect("an answer");
        let only = answer.as_object().map(serde_json::Map::len);
        let error = answer["error"].as_str().unwrap_or_default();
        let text = &text[..text.len().min(300)];
        assert!(
            only == Some(1) && error.contains(words),
            "{words}: {answer}: {text}"
        );
    }
}
