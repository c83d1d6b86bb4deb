//! The golden file says what the ruleset is; the kernel and nft(8), where they are there, that the
//! encoding means the same as the text.

use super::*;
use std::process::{Command, Stdio};

const BOTH: Families = Families { ipv6: true };

fn network(bridge: &str, subnets: &[&str], gateways: &[&str], uplink: UplinkKind) -> NetworkRules {
    NetworkRules {
        bridge: bridge.parse().unwrap(),
        subnets: subnets
            .iter()
            .map(|subnet| subnet.parse().unwrap())
            .collect(),
        gateways: gateways
            .iter()
            .map(|gateway| gateway.parse().unwrap())
            .collect(),
        internal: false,
        uplink,
    }
}

fn two_networks() -> Vec<NetworkRules> {
    vec![
        network(
            "br-0123456789ab",
            &["10.89.0.0/24", "fd00:89::/64"],
            &["10.89.0.1", "fd00:89::1"],
            UplinkKind::Relay,
        ),
        NetworkRules {
            internal: true,
            ..network(
                "br-ba9876543210",
                &["10.89.7.0/24"],
                &["10.89.7.1"],
                UplinkKind::Relay,
            )
        },
    ]
}

fn with_uplinks() -> Vec<NetworkRules> {
    let mut networks = two_networks();
    networks.push(network(
        "br-aaaaaaaaaaaa",
        &["10.1.0.0/16"],
        &["10.1.0.1"],
        UplinkKind::Pasta,
    ));
    networks.push(network(
        "br-bbbbbbbbbbbb",
        &["10.2.0.0/16"],
        &["10.2.0.1"],
        UplinkKind::Slirp,
    ));
    networks.push(network(
        "br-cccccccccccc",
        &["10.3.0.0/16"],
        &["10.3.0.1"],
        UplinkKind::None,
    ));
    networks
}

fn with_kernel() -> Vec<NetworkRules> {
    let mut networks = two_networks();
    networks.push(network(
        "br-dddddddddddd",
        &["10.4.0.0/16", "fd00:4::/64"],
        &["10.4.0.1", "fd00:4::1"],
        UplinkKind::Kernel,
    ));
    networks
}

#[test]
fn the_ruleset_is_the_golden_one() {
    for (file, golden, networks) in [
        (
            "ruleset.nft",
            include_str!("../../tests/golden/ruleset.nft"),
            two_networks(),
        ),
        (
            "ruleset-uplinks.nft",
            include_str!("../../tests/golden/ruleset-uplinks.nft"),
            with_uplinks(),
        ),
        (
            "ruleset-kernel.nft",
            include_str!("../../tests/golden/ruleset-kernel.nft"),
            with_kernel(),
        ),
    ] {
        is_golden(file, &ruleset(&networks, BOTH), golden);
    }
    let golden = include_str!("../../tests/golden/guard.nft");
    is_golden("guard.nft", &guard(&owners(), BOTH), golden);
    let golden = include_str!("../../tests/golden/podman.nft");
    is_golden("podman.nft", &of_podman(BOTH), golden);
    let golden = include_str!("../../tests/golden/ports.nft");
    let both = [of_ports(), ports_inside(8)];
    let text: String = both.iter().map(ToString::to_string).collect();
    is_golden_text("ports.nft", &text, golden);
}

fn of_ports() -> Ruleset {
    let targets = ["10.89.0.2", "fd00:89::2"].map(|text| text.parse().unwrap());
    ports_by_bridge(7, &targets, BOTH)
}

fn is_golden(file: &str, ruleset: &Ruleset, golden: &str) {
    is_golden_text(file, &ruleset.to_string(), golden);
}

fn is_golden_text(file: &str, text: &str, golden: &str) {
    if text != golden {
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, text).unwrap();
        panic!("tests/golden/{file} differs from {}", path.display());
    }
}

/// Of interfaces that are not there, so that nft(8) lists their numbers.
fn owners() -> Vec<Owner> {
    let owner = |index: u32, addresses: &[&str]| Owner {
        index,
        mac: [2, 0x42, 10, 89, 0, index as u8].try_into().unwrap(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    };
    vec![
        owner(101, &["10.89.0.101", "fd00:89::65", "fe80::42:aff:fe59:65"]),
        owner(102, &["10.89.0.102"]),
    ]
}

fn of_podman(families: Families) -> Ruleset {
    let segment = |bridge: &str, internal, isolation, outbound: &[&str]| Segment {
        bridge: bridge.parse().unwrap(),
        internal,
        isolation,
        outbound: outbound.iter().map(|text| text.parse().unwrap()).collect(),
    };
    let forward = |host: Option<&str>, protocol: i32, host_port, target: &str| Forward {
        host_addr: host.map(|text| text.parse().unwrap()),
        protocol: protocol as u8,
        host_port,
        target: target.parse().unwrap(),
    };
    podman(
        &[
            segment("podman0", false, Isolation::None, &[]),
            segment(
                "podman1",
                false,
                Isolation::Isolated,
                &["192.0.2.7", "2001:db8::7"],
            ),
            segment("podman2", true, Isolation::Strict, &[]),
        ],
        &[
            forward(None, libc::IPPROTO_TCP, 8080, "10.88.0.2:80"),
            forward(None, libc::IPPROTO_TCP, 8080, "10.88.0.3:81"),
            forward(Some("0.0.0.0"), libc::IPPROTO_SCTP, 8080, "10.88.0.2:80"),
            forward(Some("127.0.0.1"), libc::IPPROTO_UDP, 53, "10.89.0.2:5353"),
            forward(None, libc::IPPROTO_TCP, 8080, "[fd00:89::2]:80"),
            forward(Some("::1"), libc::IPPROTO_TCP, 8081, "[fd00:89::2]:81"),
        ],
        families,
    )
}

#[test]
fn the_number_of_rules_does_not_depend_on_the_number_of_networks() {
    let count = |networks: &[NetworkRules]| {
        ruleset(networks, BOTH)
            .chains
            .iter()
            .map(|chain| chain.rules.len())
            .sum::<usize>()
    };
    assert_eq!(count(&two_networks()), count(&[]));
}

#[test]
fn without_ipv6_nothing_of_it_is_left() {
    let ipv4 = Families { ipv6: false };
    let rulesets = [
        ruleset(&with_uplinks(), ipv4),
        guard(&owners(), ipv4),
        of_podman(ipv4),
    ];
    for ruleset in rulesets {
        let text = ruleset.to_string().replace("!= ipv6-icmp", "");
        assert!(!text.contains("ip6") && !text.contains("ipv6"), "{text}");
    }
}

#[test]
fn subnets_that_overlap_or_touch_are_merged() {
    let networks = [
        network(
            "br-a",
            &["10.0.0.0/24", "10.0.1.0/24"],
            &[],
            UplinkKind::Relay,
        ),
        network(
            "br-b",
            &["10.0.0.128/25", "0.0.0.0/0"],
            &[],
            UplinkKind::Relay,
        ),
    ];
    assert_eq!(subnets(&networks).0, vec!["0.0.0.0/0".parse().unwrap()]);
    assert_eq!(
        subnets(&networks[..1]).0,
        vec!["10.0.0.0/23".parse().unwrap()]
    );
}

#[test]
fn a_refusal_names_the_rule() {
    let batch = encode(&ruleset(&two_networks(), BOTH));
    let named = (0..200).any(|n| batch.describe(n).contains("iifname \"up1\" drop"));
    assert!(named);
    assert_eq!(batch.describe(u32::MAX), "transaction");
}

/// Set in the child that lives in a fresh user and net namespace.
const INSIDE: &str = "MOSSNET_TEST_INSIDE";

#[test]
fn the_kernel_has_what_the_text_says() {
    if Command::new("nft")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        eprintln!("skipped: nft is not installed");
        return;
    }
    for (case, ruleset) in [
        ("two", ruleset(&two_networks(), BOTH)),
        ("uplinks", ruleset(&with_uplinks(), BOTH)),
        ("kernel", ruleset(&with_kernel(), BOTH)),
        ("podman", of_podman(BOTH)),
    ] {
        let listed = listed_in_a_child(case);
        let mut reference = Command::new("unshare");
        reference.args(["--user", "--map-root-user", "--net", "sh", "-c"]);
        reference.arg("printf '%s' \"$TEXT\" | nft -f - && nft list ruleset");
        reference.env("TEXT", without_nowhere(&ruleset.to_string()));
        let output = reference.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let expected = String::from_utf8(output.stdout).unwrap();
        assert!(expected.contains("tproxy") || expected.contains("dnat ip6"));
        assert_eq!(without_nowhere(&normal(&listed)), normal(&expected));
    }
}

/// nft(8) would lose a table of its own as it ends: the reference is the text itself.
#[test]
fn the_kernel_has_the_ports_that_the_text_says() {
    if Command::new("nft").arg("--version").output().is_err() {
        eprintln!("skipped: nft is not installed");
        return;
    }
    for (case, ruleset) in [("ports", of_ports()), ("inside", ports_inside(8))] {
        let listed = listed_in_a_child(case);
        // nft(8) names the program beside it, and leaves out the length of a whole address.
        let name = format!("table inet {} {{", ruleset.table.table());
        assert!(listed.contains(&name), "{listed}");
        let text = ruleset.to_string().replace("/32", "").replace("/128", "");
        let body = |text: &str| normal(text.split_once("\tflags owner\n").unwrap().1);
        assert_eq!(body(&listed), body(&text));
    }
}

/// nft(8) lists an empty name, but does not take it.
fn without_nowhere(text: &str) -> String {
    let pair = |n| format!("\"\" . \"podman{n}\"");
    (0..3).map(pair).fold(text.to_owned(), |text, pair| {
        let text = text.replace(&format!(", {pair}"), "");
        text.replace(&format!("{pair}, "), "")
    })
}

/// nft(8) refuses to compare what it takes for an integer with a set of addresses, which the kernel
/// does not mind; so the listing of the guard is compared with the text itself.
#[test]
fn the_kernel_has_the_guard_that_the_text_says() {
    if Command::new("nft").arg("--version").output().is_err() {
        eprintln!("skipped: nft is not installed");
        return;
    }
    // In nft(8)'s words: it leaves out what it takes another match to imply, and does not know that
    // `neighbours` sees IPv6 only.
    let mut text = guard(&owners(), BOTH).to_string();
    for (ours, theirs) in [
        ("meta l4proto udp udp sport", "udp sport"),
        (
            "icmpv6 type 135 ip6 saddr ::",
            "icmpv6 type 135 @nh,64,128 0x0",
        ),
        (
            " ip6 saddr @own6 ip6 length 32",
            " @nh,64,128 @own6 @nh,32,16 0x20",
        ),
        (
            " ip6 saddr @own6 ip6 length 24",
            " @nh,64,128 @own6 @nh,32,16 0x18",
        ),
        (
            "136 iif . ether saddr . ip6 saddr",
            "136 iif . ether saddr . @nh,64,128",
        ),
        ("ip6 length 32", "@nh,32,16 0x20"),
        ("ip6 length 24", "@nh,32,16 0x18"),
        ("type 135", "type nd-neighbor-solicit"),
        ("type 136", "type nd-neighbor-advert"),
        ("type 143", "type mld2-listener-report"),
        ("ether type ip6 ", ""),
        ("ether type ip ", ""),
        ("ether type arp ", ""),
    ] {
        text = text.replace(ours, theirs);
    }
    assert_eq!(normal(&listed_in_a_child("guard")), normal(&text));
}

/// What nft(8) lists of the tables that a child has made in a fresh netns.
fn listed_in_a_child(case: &str) -> String {
    let mut child = Command::new("unshare");
    child.args(["--user", "--map-root-user", "--net"]);
    child.arg(std::env::current_exe().unwrap());
    child.args([
        "--exact",
        "ruleset::tests::applied_and_listed",
        "--nocapture",
        "--ignored",
    ]);
    let output = child.env(INSIDE, case).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{listed}{words}");
    listed
}

/// The table alone, elements of sets in order, one line each.
fn normal(listing: &str) -> String {
    let table = &listing[listing.find("table ").unwrap_or(0)..];
    let table = &table[..table.rfind("\n}").map_or(table.len(), |at| at + 2)];
    let table = table.replace("\n\n}", "\n}");
    let mut parts: Vec<String> = Vec::new();
    for (index, part) in table.split("elements = {").enumerate() {
        if index == 0 {
            parts.push(part.to_owned());
            continue;
        }
        let (elements, rest) = part.split_once('}').unwrap();
        let mut elements: Vec<&str> = elements.split(',').map(str::trim).collect();
        elements.sort_unstable();
        parts.push(format!("{{ {} }}{rest}", elements.join(", ")));
    }
    parts.concat()
}

#[test]
#[ignore = "runs inside a namespace, started by the test above"]
fn applied_and_listed() {
    let mut netfilter = Netlink::netfilter().unwrap();
    let networks = match std::env::var(INSIDE).as_deref() {
        Ok("two") => two_networks(),
        Ok("kernel") => with_kernel(),
        Ok("guard") => {
            // One from the start, others come and go.
            let [first, second] = <[Owner; 2]>::try_from(owners()).unwrap();
            let mut third = second.clone();
            third.index = 103;
            apply(&mut netfilter, &guard(&[first, third.clone()], BOTH)).unwrap();
            change_owners(&mut netfilter, &[third.clone()], &[second], BOTH).unwrap();
            let absent = change_owners(&mut netfilter, &[third], &[], BOTH).unwrap_err();
            assert_eq!(absent.errno, Some(libc::ENOENT), "{absent}");
            return list();
        }
        Ok("ports") => return owned(&mut netfilter, &of_ports()),
        Ok("inside") => return owned(&mut netfilter, &ports_inside(8)),
        Ok("podman") => {
            remove(&mut netfilter, &of_podman(BOTH)).unwrap();
            apply(&mut netfilter, &of_podman(BOTH)).unwrap();
            remove(&mut netfilter, &of_podman(BOTH)).unwrap();
            list();
            apply(&mut netfilter, &podman(&[], &[], BOTH)).unwrap();
            apply(&mut netfilter, &of_podman(BOTH)).unwrap();
            return list();
        }
        _ => with_uplinks(),
    };
    let wanted = ruleset(&networks, BOTH);
    // Twice: the second transaction replaces the first.
    apply(&mut netfilter, &ruleset(&[], BOTH)).unwrap();
    apply(&mut netfilter, &wanted).unwrap();
    list();
}

/// Twice, and a flush by somebody else between, before it is listed; and nothing is left of it without its
/// socket.
fn owned(netfilter: &mut Netlink, ruleset: &Ruleset) {
    apply(netfilter, ruleset).unwrap();
    let flushed = Command::new("nft").args(["flush", "ruleset"]).status();
    assert!(flushed.unwrap().success());
    apply(netfilter, ruleset).unwrap();
    list();
    let mut other = Netlink::netfilter().unwrap();
    let theirs = apply(&mut other, ruleset).unwrap_err();
    assert_eq!(theirs.errno, Some(libc::EPERM), "{theirs}");
    *netfilter = other;
    let left = Command::new("nft").args(["list", "ruleset"]).output();
    assert_eq!(String::from_utf8_lossy(&left.unwrap().stdout), "");
}

fn list() {
    let listed = Command::new("nft").args(["list", "ruleset"]).status();
    assert!(listed.unwrap().success());
}
