//! Ports of host bridges.

use crate::traffic::{address, at, expect_no_datagram, seen_by_datagram, serve_datagrams};
use crate::user::{Netns, asking, bridge, expect_denied, release};
use crate::world::{ALICE, BOB, World, ip, output, run};
use mossnet_setuid::CallError;
use mossnet_setuid::request::Unavailable;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Prints what arrives at the bridge, until the given frame.
const LISTEN: &str = "
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(('br0', 3))
s.settimeout(20)
print('ready', flush=True)
frame = ''
while frame != sys.argv[1]:
    frame = s.recv(2048).hex()
    print(frame, flush=True)
";
/// Sends frames as they are.
const SEND: &str = "
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('eth0', 0))
for frame in sys.argv[1:]:
    s.send(bytes.fromhex(frame))
";

fn host_bridge() {
    ip("link add br0 type bridge mcast_snooping 0");
    ip("addr add 192.168.7.254/24 dev br0");
    ip("addr add fd00:7::ff/64 dev br0 nodad");
    ip("link set br0 up");
    ip("link add br1 type bridge");
}

pub fn refusals(world: &World) {
    host_bridge();
    let netns = Netns::of(ALICE);
    let ask = |wanted| asking(ALICE, |helper| helper.bridge(wanted, netns.fd()));
    expect_denied(ask(bridge("br1", &[])));
    world.expect_logged("the bridge br1 is not granted");
    expect_denied(ask(bridge("br9", &[])));
    // As a physical interface, which a careless grant lists as a bridge.
    ip("link add nic0 type veth peer name nic1");
    expect_denied(ask(bridge("nic0", &[])));
    world.expect_logged("nic0 is not a bridge");
    ip("link del nic0");
    let absent = ask(bridge("nic0", &[]));
    assert!(
        matches!(absent, Err(CallError::Unavailable(Unavailable::Absent))),
        "{absent:?}"
    );
    for addresses in [
        &["192.168.7.16/32"][..],
        &["192.168.7.3/32", "192.168.8.1/32"],
        &["fd00:8::1/128"],
    ] {
        expect_denied(ask(bridge("br0", addresses)));
        world.expect_logged("an address is not granted on the bridge br0");
    }
    netns.ip("link add eth0 type bridge");
    let taken = ask(bridge("br0", &["192.168.7.3/32"]));
    assert!(
        matches!(taken, Err(CallError::Unavailable(Unavailable::InUse))),
        "{taken:?}"
    );
    netns.ip("link del eth0");
    let (port, _, mtu) = ask(bridge("br0", &["192.168.7.3/32"])).expect("a port");
    assert_eq!(mtu, 1500);
    let shown = output(Command::new("ip").args(["-d", "link", "show", port.name.as_str()]));
    for word in ["master br0", "isolated on", "guard on", "root_block on"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    // An address is one port's.
    let again = ask(bridge("br0", &["192.168.7.3/32"]));
    assert!(
        matches!(again, Err(CallError::Unavailable(Unavailable::InUse))),
        "{again:?}"
    );
    expect_denied(release(BOB, &port));
    release(ALICE, &port).expect("released");
}

pub fn a_port_sends_as_itself_only(_world: &World) {
    host_bridge();
    serve_datagrams(at("192.168.7.254:7000"));
    serve_datagrams(at("[fd00:7::ff]:7000"));
    let netns = Netns::of(ALICE);
    let wanted = bridge("br0", &["192.168.7.3/32", "fd00:7::3/128"]);
    let made = asking(ALICE, |helper| helper.bridge(wanted, netns.fd()));
    let (port, mac, _) = made.expect("a port");
    for words in [
        "link set eth0 up",
        "addr add 192.168.7.3/24 dev eth0",
        "addr add 192.168.7.4/24 dev eth0",
        "addr add fd00:7::3/64 dev eth0 nodad",
        "addr add fd00:7::4/64 dev eth0 nodad",
    ] {
        netns.ip(words);
    }
    let host = |from: &str| {
        if from.contains(':') {
            "[fd00:7::ff]:7000"
        } else {
            "192.168.7.254:7000"
        }
    };
    let own = |from: &str| {
        let seen = netns.inside(|| seen_by_datagram(address(from), at(host(from))));
        assert_eq!(seen.as_deref(), Some(from));
    };
    let forged = |from: &str| netns.inside(|| expect_no_datagram(address(from), at(host(from))));
    own("192.168.7.3");
    own("fd00:7::3");
    forged("192.168.7.4");
    forged("fd00:7::4");
    frames(&netns, mac.octets());
    netns.ip("link set eth0 down");
    netns.ip("link set eth0 address 02:00:00:00:00:99");
    netns.ip("link set eth0 up");
    forged("192.168.7.3");
    netns.ip("link set eth0 down");
    netns.ip(&format!("link set eth0 address {mac}"));
    netns.ip("link set eth0 up");
    own("192.168.7.3");
    release(ALICE, &port).expect("released");
    let tables = output(Command::new("nft").args(["list", "tables"]));
    assert!(!tables.contains("mossnet"), "{tables}");
}

/// Frames as no kernel sends them by itself, then one that passes: what came before it has had its turn.
fn frames(netns: &Netns, mac: [u8; 6]) {
    let ll = link_local(mac);
    let other = link_local([2, 0, 0, 0, 0, 9]);
    let arp = |sender: [u8; 4], sender_mac: [u8; 6]| {
        let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1];
        body.extend(sender_mac);
        body.extend(sender);
        body.extend([0; 6]);
        body.extend([192, 168, 7, 200]);
        ethernet(mac, libc::ETH_P_ARP, &body)
    };
    let advertises = |from: [u8; 16], target: [u8; 16]| {
        let mut body = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
        body.extend(target);
        ethernet(mac, libc::ETH_P_IPV6, &ipv6(from, 58, &body))
    };
    let mut fragment = vec![58, 0, 0, 0, 0, 0, 0, 1];
    fragment.extend([134; 24]);
    let mut udp = vec![0, 67, 0, 68, 0, 8, 0, 0];
    udp.resize(8, 0);
    let wrong = [
        // A router advertisement, a redirect, a hidden one, somebody else's address.
        ethernet(
            mac,
            libc::ETH_P_IPV6,
            &ipv6(ll, 58, &[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
        ),
        ethernet(mac, libc::ETH_P_IPV6, &ipv6(ll, 58, &[137; 40])),
        ethernet(mac, libc::ETH_P_IPV6, &ipv6(ll, 44, &fragment)),
        advertises(ll, other),
        advertises(other, other),
        // A DHCP server, a VLAN, spanning tree, foreign ARP.
        ethernet(mac, libc::ETH_P_IP, &ipv4([192, 168, 7, 3], &udp)),
        ethernet(mac, libc::ETH_P_8021Q, &[0, 5, 8, 0, 0x45, 0, 0, 0]),
        ethernet(mac, 38, &[0x42, 0x42, 3, 0, 0, 0, 0, 0]),
        arp([192, 168, 7, 4], mac),
        arp([192, 168, 7, 3], [2, 0, 0, 0, 0, 9]),
        ethernet([2, 0, 0, 0, 0, 9], libc::ETH_P_ARP, &[0; 28]),
    ];
    let right = [advertises(ll, ll), arp([192, 168, 7, 3], mac)];
    let hex = |frame: &Vec<u8>| {
        frame
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let last = hex(&right[1]);
    let mut listener = Command::new("python3");
    listener.args(["-c", LISTEN, &last]).stdout(Stdio::piped());
    let mut listener = listener.spawn().expect("python3");
    let mut lines = BufReader::new(listener.stdout.take().expect("its output")).lines();
    assert_eq!(lines.next().expect("a line").expect("a line"), "ready");
    let sent = wrong.iter().chain(&right).map(hex);
    run(netns.enter("python3").args(["-c", SEND]).args(sent));
    let known: Vec<String> = wrong.iter().chain(&right).map(hex).collect();
    let passed: Vec<String> = lines
        .map_while(Result::ok)
        .filter(|line| known.contains(line))
        .collect();
    listener.wait().expect("its end");
    assert_eq!(passed, [hex(&right[0]), last], "nothing else passes");
}

fn ethernet(from: [u8; 6], kind: libc::c_int, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(from);
    frame.extend((kind as u16).to_be_bytes());
    frame.extend(body);
    frame.resize(frame.len().max(60), 0);
    frame
}

fn ipv6(from: [u8; 16], next: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, body.len() as u8, next, 255];
    packet.extend(from);
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend(body);
    packet
}

fn ipv4(from: [u8; 4], udp: &[u8]) -> Vec<u8> {
    let length = 20 + udp.len() as u8;
    let mut packet = vec![0x45, 0, 0, length, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(from);
    packet.extend([255; 4]);
    packet.extend(udp);
    let sum: u32 = packet[..20]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn link_local(mac: [u8; 6]) -> [u8; 16] {
    let [a, b, c, d, e, f] = mac;
    [
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ]
}

pub fn ports_are_isolated(_world: &World) {
    host_bridge();
    let (alice, bob) = (Netns::of(ALICE), Netns::of(BOB));
    let ask = |uid, address: &str, netns: &Netns| {
        let wanted = bridge("br0", &[&format!("{address}/32")]);
        let made = asking(uid, |helper| helper.bridge(wanted, netns.fd()));
        netns.ip("link set eth0 up");
        netns.ip(&format!("addr add {address}/24 dev eth0"));
        made.expect("a port").0
    };
    let one = ask(ALICE, "192.168.7.3", &alice);
    let other = ask(BOB, "192.168.7.20", &bob);
    serve_datagrams(at("192.168.7.254:7000"));
    alice.inside(|| serve_datagrams(at("192.168.7.3:7000")));
    for (netns, own) in [(&alice, "192.168.7.3"), (&bob, "192.168.7.20")] {
        let seen = netns.inside(|| seen_by_datagram(address(own), at("192.168.7.254:7000")));
        assert_eq!(seen.as_deref(), Some(own));
    }
    bob.inside(|| expect_no_datagram(address("192.168.7.20"), at("192.168.7.3:7000")));
    release(ALICE, &one).expect("released");
    release(BOB, &other).expect("released");
}
