//! What an endpoint may send.

use super::{shut_down, with_bridge};
use crate::client::Client;
use crate::world::*;
use ipnet::IpNet;
use mossnet_helper::SandboxId;
use mossnet_helper::request::{BridgeSpec, EndpointSpec, NetworkRules, Reply, Request};
use std::io::{BufRead, BufReader, Read};

/// Sends and hears frames; see there for which must arrive.
const FRAMES: &str = include_str!("frames.py");

/// The names of the frames that arrive at endpoint 2 when endpoint 3 sends all of them.
fn arriving(client: &mut Client) -> Vec<String> {
    let output = create(client, sandbox(2, &["python3", "-c", FRAMES, "listen"]));
    client.done(Request::Attach(endpoint(2)));
    client.done(Request::StartSandbox { id: id(2) });
    let mut heard = BufReader::new(output);
    let mut line = String::new();
    heard.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let arguments = ["02:42:0a:59:00:03", "10.89.0.3", "fd00:89::3"];
    let send = [&["python3", "-c", FRAMES, "send"][..], &arguments].concat();
    let mut output = create(client, sandbox(3, &send));
    client.done(Request::Attach(endpoint(3)));
    client.done(Request::StartSandbox { id: id(3) });
    let mut words = String::new();
    output.read_to_string(&mut words).unwrap();
    assert_eq!(words, "");
    let mut text = String::new();
    heard.read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The names of the frames that must arrive.
fn expected() -> Vec<String> {
    let names = FRAMES.split("yield \"").skip(1);
    let names = names.filter_map(|rest| rest.split('"').next());
    names
        .filter(|name| name.starts_with("ok"))
        .map(str::to_owned)
        .collect()
}

pub fn only_own_addresses_are_sent() {
    let (world, mut client) = with_bridge();
    let hello = client.ask(Request::Hello {
        version: mossnet_helper::request::PROTOCOL_VERSION,
    });
    assert!(
        matches!(
            hello,
            Ok(Reply::Hello {
                anti_spoofing: true,
                ..
            })
        ),
        "{hello:?}: this kernel lacks nftables for bridges"
    );
    assert_eq!(arriving(&mut client), expected());

    // Detached, nothing of them is left in the sets.
    let elements = || {
        in_router(&world, "nft list table bridge mossnet")
            .matches("02:42:")
            .count()
    };
    assert_eq!(elements(), 8);
    for number in [2, 3] {
        client.done(Request::Detach {
            router_ifname: endpoint(number).router_ifname,
        });
    }
    assert_eq!(elements(), 0);

    // Somebody emptied the table meanwhile: the next endpoint brings it back, for all.
    for number in [4, 5] {
        create_bare(&mut client, id(number));
    }
    client.done(Request::Attach(endpoint(4)));
    in_router(&world, "nft delete table bridge mossnet");
    client.done(Request::Attach(endpoint(5)));
    assert_eq!(elements(), 8);
    in_router(&world, "nft flush set bridge mossnet own4");
    client.done(Request::Detach {
        router_ifname: endpoint(5).router_ifname,
    });
    assert_eq!(elements(), 4);
    // One that went with its sandbox is noticed.
    client.done(Request::Forget { id: id(4) });
    while !inventory(&mut client).endpoints.is_empty() {
        std::thread::yield_now();
    }
    inventory(&mut client);
    assert_eq!(elements(), 0);
    shut_down(world, client);
}

/// The second network: two prefixes of each family.
fn other_network() -> (BridgeSpec, NetworkRules) {
    let mut other = bridge();
    other.name = name("br-other");
    other.mac = "02:6d:00:00:00:02".parse().unwrap();
    other.addresses = [
        "10.90.0.1/24",
        "10.91.0.1/24",
        "fd00:90::1/64",
        "fd00:91::1/64",
    ]
    .map(|text| text.parse().unwrap())
    .to_vec();
    let mut rules = network(false);
    rules.bridge = other.name.clone();
    rules.subnets = other.addresses.iter().map(IpNet::trunc).collect();
    rules.gateways = other.addresses.iter().map(IpNet::addr).collect();
    (other, rules)
}

/// On the other network, as `eth1` of a sandbox that has an `eth0` already.
fn second_endpoint(sandbox: SandboxId, number: u8) -> EndpointSpec {
    EndpointSpec {
        sandbox,
        bridge: name("br-other"),
        router_ifname: name(&format!("ve-other{number}")),
        ifname: name("eth1"),
        mac: [2, 0x42, 10, 90, 0, number].try_into().unwrap(),
        addresses: [
            format!("10.90.0.{number}/24"),
            format!("10.91.0.{number}/24"),
            format!("fd00:90::{number:x}/64"),
            format!("fd00:91::{number:x}/64"),
        ]
        .map(|text| text.parse().unwrap())
        .to_vec(),
        default_routes: Vec::new(),
        ..endpoint(number)
    }
}

pub fn multi_homed_sandboxes_do_not_forward() {
    let (world, mut client) = with_bridge();
    let (other, rules) = other_network();
    client.done(Request::Bridge(other));
    client.done(Request::Ruleset {
        networks: vec![network(false), rules],
    });
    // Between the two: root in it has switched forwarding on.
    let mut spec = sandbox(
        2,
        &[
            "sh",
            "-c",
            "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding; \
           echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; \
           cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding; exec sleep 1000",
        ],
    );
    spec.capabilities.push("CAP_NET_ADMIN".to_owned());
    let output = create(&mut client, spec);
    client.done(Request::Attach(endpoint(2)));
    client.done(Request::StartSandbox { id: id(2) });
    let mut said = BufReader::new(output).lines().map(Result::unwrap);
    let forwarding: Vec<String> = said.by_ref().take(4).collect();
    assert_eq!(forwarding, ["0", "0", "1", "1"]);
    client.done(Request::Attach(second_endpoint(id(2), 2)));
    for number in [3, 4] {
        create_bare(&mut client, id(number));
    }
    client.done(Request::Attach(endpoint(3)));
    client.done(Request::Attach(EndpointSpec {
        ifname: name("eth0"),
        ..second_endpoint(id(4), 4)
    }));
    // Each side routes by the one between, which itself reaches both.
    let lead = |client: &mut Client, number: u8, script: &str| {
        let mut spec = sandbox(240, &["sh", "-c", script]);
        spec.capabilities.push("CAP_NET_ADMIN".to_owned());
        spec.netns = mossnet_helper::request::SandboxNetns::Join(id(number));
        let mut output = create(client, spec);
        client.done(Request::StartSandbox { id: id(240) });
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        client.done(Request::Forget { id: id(240) });
        text
    };
    let back =
        "ip route add 10.89.0.0/24 via 10.90.0.2 && ip route add fd00:89::/64 via fd00:90::2";
    assert_eq!(lead(&mut client, 4, back), "");
    let there = "ip route add 10.90.0.0/24 via 10.89.0.2 && ip route add fd00:90::/64 via fd00:89::2 && \
                 for a in 10.89.0.2 fd00:89::2 10.90.0.4 fd00:90::4; do busybox ping -c 1 -W 1 $a; done";
    let text = lead(&mut client, 3, there);
    assert_eq!(text.matches("1 packets received").count(), 2, "{text}");
    // The way itself is good: it is the guard that closes it.
    in_router(&world, "nft delete table bridge mossnet");
    let far = "for a in 10.90.0.4 fd00:90::4; do busybox ping -c 1 -W 2 $a; done";
    let text = run_joined(&mut client, id(3), far);
    assert_eq!(text.matches("1 packets received").count(), 2, "{text}");
    let both = "for a in 10.89.0.3 fd00:89::3 10.90.0.4 10.91.0.4 fd00:90::4 fd00:91::4; do \
                busybox ping -c 1 -W 1 $a; done";
    let text = run_joined(&mut client, id(2), both);
    assert_eq!(text.matches("1 packets received").count(), 6, "{text}");
    shut_down(world, client);
}

pub fn several_prefixes_are_isolated() {
    let (world, mut client) = with_bridge();
    let (other, rules) = other_network();
    client.done(Request::Bridge(other));
    client.done(Request::Ruleset {
        networks: vec![network(false), rules],
    });
    create_bare(&mut client, id(2));
    client.done(Request::Attach(second_endpoint(id(2), 2)));
    create_bare(&mut client, id(3));
    client.done(Request::Attach(endpoint(3)));
    let script = "for a in 10.90.0.2 10.91.0.2 fd00:90::2 fd00:91::2 10.90.0.1 10.91.0.1 fd00:90::1 \
                  fd00:91::1; do busybox nc -w 5 $a 53 2>&1; busybox ping -c 1 -W 1 $a; done";
    let text = run_joined(&mut client, id(3), script);
    assert_eq!(text.matches("No route to host").count(), 4, "{text}");
    assert_eq!(text.matches("Permission denied").count(), 4, "{text}");
    assert!(!text.contains("1 packets received"), "{text}");
    shut_down(world, client);
}
