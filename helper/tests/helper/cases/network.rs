//! What containers see of the bridges.

use super::{refused, shut_down, with_bridge};
use crate::world::*;
use ipnet::IpNet;
use mossnet_helper::request::{
    Event, ExitStatus, FailureKind, Inventory, KernelLink, ProcessState, Reply, Request, UplinkKind,
};
use std::fs;

pub fn sandboxes_on_a_bridge() {
    let (world, mut client) = with_bridge();
    let _output = create(&mut client, sandbox(2, &["sleep", "1000"]));
    client.done(Request::Attach(endpoint(2)));
    client.done(Request::StartSandbox { id: id(2) });
    // No wait anywhere: the first packet must get through.
    let script = "busybox ping -c 1 -W 1 10.89.0.2 && busybox ping -c 1 -W 1 10.89.0.1 && \
                  busybox ping -c 1 -W 1 fd00:89::2 && busybox ping -c 1 -W 1 fd00:89::1 && \
                  cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu \
                  /proc/sys/net/ipv4/tcp_congestion_control; busybox ip route";
    let text = run(&mut client, 3, script);
    assert_eq!(text.matches("1 packets received").count(), 4, "{text}");
    assert!(text.contains("\n02:42:0a:59:00:03\n1500\nreno\n"), "{text}");
    assert!(text.contains("default via 10.89.0.1 dev eth0"), "{text}");
    let exited = Event::Exited {
        id: id(3),
        status: ExitStatus::Code(0),
    };
    assert_eq!(client.event(), exited);

    let found = inventory(&mut client);
    assert_eq!(found.bridges, [name(BRIDGE)]);
    let endpoints = [2, 3].map(|n| (endpoint(n).router_ifname, Some(name(BRIDGE))));
    assert_eq!(found.endpoints, endpoints);
    let states: Vec<_> = found
        .processes
        .iter()
        .map(|process| process.state)
        .collect();
    let ended = ProcessState::Exited(ExitStatus::Code(0));
    assert_eq!(states, [ProcessState::Running, ended]);

    client.done(Request::Signal {
        id: id(2),
        signal: libc::SIGKILL,
    });
    assert_eq!(
        client.event(),
        Event::Exited {
            id: id(2),
            status: ExitStatus::Signal(9)
        }
    );
    for number in [2, 3] {
        client.done(Request::Detach {
            router_ifname: endpoint(number).router_ifname,
        });
        client.done(Request::Forget { id: id(number) });
    }
    client.done(Request::RemoveBridge { name: name(BRIDGE) });
    assert_eq!(inventory(&mut client), Inventory::default());
    shut_down(world, client);
}

pub fn networks_are_isolated() {
    let (world, mut client) = with_bridge();
    let mut other = bridge();
    other.name = name("br-other");
    other.mac = "02:6d:00:00:00:02".parse().unwrap();
    other.addresses = vec![
        "10.89.1.1/24".parse().unwrap(),
        "fd00:90::1/64".parse().unwrap(),
    ];
    client.done(Request::Bridge(other.clone()));
    let mut rules = network(false);
    rules.bridge = other.name.clone();
    rules.subnets = other.addresses.iter().map(IpNet::trunc).collect();
    rules.gateways = other.addresses.iter().map(IpNet::addr).collect();
    client.done(Request::Ruleset {
        networks: vec![network(false), rules],
    });
    let _output = create(&mut client, sandbox(2, &["sleep", "1000"]));
    let mut there = endpoint(2);
    there.bridge = other.name;
    there.addresses = vec![
        "10.89.1.2/24".parse().unwrap(),
        "fd00:90::2/64".parse().unwrap(),
    ];
    there.default_routes = vec!["10.89.1.1".parse().unwrap(), "fd00:90::1".parse().unwrap()];
    client.done(Request::Attach(there));
    client.done(Request::StartSandbox { id: id(2) });
    // A container of the other network, and its gateway: refused at once.
    let script = "for a in 10.89.1.2 10.89.1.1; do busybox nc -w 5 $a 53 2>&1; done; \
                  for a in fd00:90::2 fd00:90::1; do busybox nc -w 5 $a 53 2>&1; done; \
                  busybox nc -w 5 10.89.0.1 53 2>&1";
    let text = run(&mut client, 3, script);
    assert_eq!(text.matches("No route to host").count(), 2, "{text}");
    assert_eq!(text.matches("Permission denied").count(), 2, "{text}");
    // The own gateway answers for itself: nothing listens there in this test.
    assert_eq!(text.matches("Connection refused").count(), 1, "{text}");
    shut_down(world, client);
}

pub fn no_power_over_the_router() {
    let (world, mut client) = with_bridge();
    let helper = world.child.id();
    let script = format!(
        "busybox ip link add dummy0 type dummy 2>&1; nsenter --net=/proc/{helper}/ns/net true; \
         nsenter -t 1 --user true; ls /proc/{helper}; id -u; busybox ip link set eth0 down"
    );
    let text = run(&mut client, 2, &script);
    let denied = text.matches("Operation not permitted").count();
    assert!(denied >= 1 && !text.contains("dummy0:"), "{text}");
    assert!(text.contains("No such file"), "{text}");
    assert_eq!(inventory(&mut client).bridges, [name(BRIDGE)]);
    shut_down(world, client);
}

pub fn bridges_change_in_place() {
    let (world, mut client) = with_bridge();
    let mut changed = bridge();
    changed.addresses = vec!["10.89.0.254/24".parse().unwrap()];
    changed.mtu = 9000;
    client.done(Request::Bridge(changed));
    let script = "busybox ping -c 1 -W 1 10.89.0.254; busybox ping -c 1 -W 1 10.89.0.1";
    let mut rules = network(false);
    rules.gateways = vec!["10.89.0.254".parse().unwrap()];
    client.done(Request::Ruleset {
        networks: vec![rules],
    });
    let text = run(&mut client, 2, script);
    assert_eq!(text.matches("1 packets received").count(), 1, "{text}");
    shut_down(world, client);
}

pub fn many_sandboxes() {
    let (world, mut client) = with_bridge();
    let fds = format!("/proc/{}/fd", world.child.id());
    let count = || fs::read_dir(&fds).unwrap().count();
    let _ = run(&mut client, 200, "true");
    client.done(Request::Forget { id: id(200) });
    let before = count();
    let outputs: Vec<_> = (2..150)
        .map(|number| {
            let output = create(&mut client, sandbox(number, &["sleep", "1000"]));
            client.done(Request::Attach(endpoint(number)));
            client.done(Request::StartSandbox { id: id(number) });
            output
        })
        .collect();
    assert_eq!(inventory(&mut client).endpoints.len(), outputs.len());
    for number in 2..150 {
        client.done(Request::Forget { id: id(number) });
    }
    assert!(matches!(
        client.ask(Request::Inventory),
        Ok(Reply::Inventory(_))
    ));
    assert_eq!(count(), before);
    shut_down(world, client);
}

/// Both ends are in the router netns: who has put one there is none of the helper's business.
pub fn networks_leave_by_the_hosts_link() {
    let (world, mut client) = with_bridge();
    let link = KernelLink {
        ifname: name("kern0"),
        host_mac: "02:00:00:00:00:01".parse().unwrap(),
        router_mac: "02:00:00:00:00:02".parse().unwrap(),
        addresses: vec!["169.254.79.2/30".parse().unwrap()],
        gateways: vec![
            "169.254.79.1".parse().unwrap(),
            "fe80::79:1".parse().unwrap(),
        ],
    };
    let absent = Request::KernelUplink(link.clone());
    refused(&mut client, absent, FailureKind::NotFound);
    let mut other = link.clone();
    other.ifname = name("up0");
    refused(
        &mut client,
        Request::KernelUplink(other),
        FailureKind::Invalid,
    );

    in_router(
        &world,
        "ip link add kern0 type veth peer name host && ip link set host up",
    );
    let mut rules = network(false);
    rules.uplink = UplinkKind::Kernel;
    client.done(Request::Ruleset {
        networks: vec![rules],
    });
    for _ in 0..2 {
        client.done(Request::KernelUplink(link.clone()));
    }
    assert_eq!(inventory(&mut client).uplinks, [UplinkKind::Kernel]);
    for family in ["-4", "-6"] {
        let routes = in_router(&world, &format!("ip {family} route show table 104"));
        assert!(routes.contains("dev kern0"), "{family}: {routes}");
    }
    let fast = "nft list table netdev mossnet || true";
    assert!(!in_router(&world, fast).contains("chain out"));
    let _output = create(&mut client, sandbox(2, &["sleep", "1000"]));
    client.done(Request::Attach(endpoint(2)));
    let table = in_router(&world, fast);
    for part in ["chain out", "chain arrive", "fwd to \"kern0\"", "10.89.0.2"] {
        assert!(table.contains(part), "{part} in {table}");
    }
    client.done(Request::Detach {
        router_ifname: endpoint(2).router_ifname,
    });
    assert!(!in_router(&world, fast).contains("chain out"));
    for _ in 0..2 {
        let kind = UplinkKind::Kernel;
        client.done(Request::StopUplink { kind });
    }
    assert!(inventory(&mut client).uplinks.is_empty());
    shut_down(world, client);
}
