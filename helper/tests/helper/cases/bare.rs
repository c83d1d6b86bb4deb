//! Bare sandboxes, endpoints that come to running sandboxes, default routes that move.

use super::{refused, shut_down, with_bridge};
use crate::client::Client;
use crate::world::*;
use mossnet_helper::request::{
    DefaultRoute, EndpointSpec, ExecSpec, FailureKind, ProcessState, Reply, Request, SandboxNetns,
    SandboxSpec,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};

pub fn bare_sandboxes() {
    let (world, mut client) = with_bridge();
    let fds = format!("/proc/{}/fd", world.child.id());
    let before = fs::read_dir(&fds).unwrap().count();
    let number = create_bare(&mut client, id(2));
    let seen = fs::read_link(format!("{fds}/{number}")).unwrap();
    assert!(seen.to_string_lossy().starts_with("net:["), "{seen:?}");
    client.done(Request::StartSandbox { id: id(2) });
    let found = inventory(&mut client);
    let process = &found.processes[0];
    assert_eq!((process.pid, process.netns_fd), (0, Some(number)));
    assert_eq!(process.state, ProcessState::Running);
    client.done(Request::Attach(endpoint(2)));
    // The same settings as in others.
    let text = run_joined(
        &mut client,
        id(2),
        "busybox ping -c 1 -W 1 10.89.0.1; busybox ping -c 1 -W 1 127.0.0.1; \
         cd /proc/sys/net; cat ipv4/tcp_congestion_control ipv4/ip_unprivileged_port_start \
         ipv6/conf/default/accept_ra ipv4/ip_forward",
    );
    assert_eq!(text.matches("1 packets received").count(), 2, "{text}");
    assert!(text.ends_with("reno\n0\n0\n0\n"), "{text}");

    let exec = ExecSpec {
        id: id(9),
        sandbox: id(2),
        process: sandbox(9, &["true"]).process.unwrap(),
    };
    let failure = client
        .ask_with(Request::Exec(Box::new(exec)), &stdio().0)
        .unwrap_err();
    assert!(failure.what.contains("is bare"), "{failure}");
    let signal = Request::Signal {
        id: id(2),
        signal: 9,
    };
    refused(&mut client, signal, FailureKind::Invalid);
    let mut wrong = sandbox(3, &[]);
    wrong.process = None;
    wrong.netns = SandboxNetns::Join(id(2));
    refused(
        &mut client,
        Request::CreateSandbox(Box::new(wrong.clone())),
        FailureKind::Invalid,
    );
    wrong.netns = SandboxNetns::Own;
    wrong.id = id(2);
    refused(
        &mut client,
        Request::CreateSandbox(Box::new(wrong)),
        FailureKind::Exists,
    );
    client.done(Request::Detach {
        router_ifname: endpoint(2).router_ifname,
    });
    client.done(Request::Forget { id: id(2) });
    assert_eq!(inventory(&mut client).processes, []);
    assert_eq!(fs::read_dir(&fds).unwrap().count(), before);
    shut_down(world, client);
}

/// Another runtime's network namespace: what is not ours to join is refused, and the rest is held, joined and
/// let go.
pub fn adopted_sandboxes() {
    let (world, mut client) = with_bridge();
    let fds = format!("/proc/{}/fd", world.child.id());
    let before = fs::read_dir(&fds).unwrap().count();
    let mut spec = sandbox(3, &[]);
    spec.process = None;
    spec.netns = SandboxNetns::Given;
    let adopt = |client: &mut Client, spec: &SandboxSpec, path: &str| {
        let netns = OwnedFd::from(fs::File::open(path).unwrap());
        client.ask_with(Request::CreateSandbox(Box::new(spec.clone())), &[netns])
    };
    let number = create_bare(&mut client, id(2));
    let router = router(&world);
    for (path, kind) in [
        ("/dev/null", FailureKind::Invalid),
        ("/proc/self/ns/mnt", FailureKind::Invalid),
        ("/proc/self/ns/net", FailureKind::Foreign),
        (router.as_str(), FailureKind::Invalid),
        (format!("{fds}/{number}").as_str(), FailureKind::Exists),
    ] {
        let failure = adopt(&mut client, &spec, path).unwrap_err();
        assert_eq!(failure.kind, kind, "{path}: {failure}");
    }
    let none = Request::CreateSandbox(Box::new(spec.clone()));
    refused(&mut client, none, FailureKind::Invalid);
    let mut with_process = sandbox(4, &["true"]);
    with_process.netns = SandboxNetns::Given;
    let failure = client
        .ask_with(Request::CreateSandbox(Box::new(with_process)), &stdio().0)
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);

    // One that a bare sandbox had: below ours, and nobody's once that is forgotten.
    let kept = fs::File::open(format!("{fds}/{number}")).unwrap();
    client.done(Request::Forget { id: id(2) });
    let path = format!("/proc/self/fd/{}", kept.as_raw_fd());
    assert!(matches!(
        adopt(&mut client, &spec, &path),
        Ok(Reply::Bare { netns_fd: 0.. })
    ));
    client.done(Request::Attach(endpoint(3)));
    let mut joined = sandbox(5, &["true"]);
    joined.netns = SandboxNetns::Join(id(3));
    let failure = client
        .ask_with(Request::CreateSandbox(Box::new(joined)), &stdio().0)
        .unwrap_err();
    assert!(failure.what.contains("another runtime's"), "{failure}");
    client.done(Request::Detach {
        router_ifname: endpoint(3).router_ifname,
    });
    client.done(Request::Forget { id: id(3) });
    assert_eq!(inventory(&mut client).processes, []);
    assert_eq!(fs::read_dir(&fds).unwrap().count(), before);
    shut_down(world, client);
}

/// Removals are performed by a process of their own; what becomes of it does not matter.
pub fn links_go_whoever_removes_them() {
    let (world, mut client) = with_bridge();
    create_bare(&mut client, id(2));
    let helper = world.child.id();
    let remover = || {
        let children = fs::read_to_string(format!("/proc/{helper}/task/{helper}/children"));
        let children = children.unwrap();
        let mut removers = children.split_whitespace().filter(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline"));
            line.is_ok_and(|line| line.ends_with("\0remover\0"))
        });
        removers.next().map(|pid| pid.parse::<i32>().unwrap())
    };
    let mut last = None;
    for round in 0..12 {
        // The same names again at once.
        client.done(Request::Attach(endpoint(2)));
        assert_eq!(inventory(&mut client).endpoints.len(), 1);
        if round % 4 == 3 {
            last = remover();
            kill(Pid::from_raw(last.unwrap()), Signal::SIGKILL).unwrap();
        }
        let router_ifname = endpoint(2).router_ifname;
        client.done(Request::Detach { router_ifname });
        assert_eq!(inventory(&mut client).endpoints, []);
    }
    assert!(remover().is_some_and(|pid| Some(pid) != last), "another");
    // With a bridge the ends on it go, too.
    client.done(Request::Attach(endpoint(2)));
    let name = bridge().name;
    client.done(Request::RemoveBridge { name });
    assert_eq!(inventory(&mut client).bridges, []);
    shut_down(world, client);
}

/// A further interface of a sandbox.
fn further(number: u8, ifname: &str) -> EndpointSpec {
    EndpointSpec {
        router_ifname: name(&format!("ve-{ifname}")),
        ifname: name(ifname),
        mac: [2, 0x42, 10, 89, 1, number].try_into().unwrap(),
        addresses: vec![format!("10.89.0.{}/24", number + 100).parse().unwrap()],
        default_routes: Vec::new(),
        ..endpoint(number)
    }
}

/// Let a sandbox's process do a script with power over its network.
fn within(client: &mut Client, script: &str) -> String {
    let mut spec = sandbox(240, &["sh", "-c", script]);
    spec.capabilities.push("CAP_NET_ADMIN".to_owned());
    spec.netns = SandboxNetns::Join(id(2));
    let mut output = create(client, spec);
    client.done(Request::StartSandbox { id: id(240) });
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    client.done(Request::Forget { id: id(240) });
    text
}

pub fn endpoints_of_running_sandboxes() {
    let (world, mut client) = with_bridge();
    let _output = create(&mut client, sandbox(2, &["sleep", "1000"]));
    client.done(Request::Attach(endpoint(2)));
    client.done(Request::StartSandbox { id: id(2) });
    client.done(Request::Attach(further(2, "eth1")));
    let text = within(&mut client, "busybox ping -c 1 -W 1 -I eth1 10.89.0.1");
    assert!(text.contains("1 packets received"), "{text}");
    // The name is taken, by an endpoint or by the user.
    let mut again = further(2, "eth1");
    again.router_ifname = name("ve-again");
    again.mac = "02:42:0a:59:02:02".parse().unwrap();
    let before = inventory(&mut client);
    refused(
        &mut client,
        Request::Attach(again.clone()),
        FailureKind::Exists,
    );
    assert_eq!(inventory(&mut client), before);
    assert_eq!(
        within(&mut client, "ip link add eth2 type veth peer name own"),
        ""
    );
    again.ifname = name("eth2");
    refused(&mut client, Request::Attach(again), FailureKind::Exists);
    assert_eq!(inventory(&mut client), before);
    // The user deletes the interface: that is as good as detached.
    assert_eq!(within(&mut client, "ip link delete eth1"), "");
    client.done(Request::Detach {
        router_ifname: name("ve-eth1"),
    });
    client.done(Request::Attach(further(2, "eth1")));
    let text = within(&mut client, "busybox ping -c 1 -W 1 -I eth1 10.89.0.1");
    assert!(text.contains("1 packets received"), "{text}");
    shut_down(world, client);
}

fn route(gateway: &str, ifname: &str) -> DefaultRoute {
    DefaultRoute {
        gateway: gateway.parse().unwrap(),
        ifname: name(ifname),
    }
}

pub fn default_routes_move() {
    let (world, mut client) = with_bridge();
    create_bare(&mut client, id(2));
    client.done(Request::Attach(endpoint(2)));
    client.done(Request::Attach(further(2, "eth1")));
    let set = |routes: Vec<DefaultRoute>| Request::DefaultRoutes {
        sandbox: id(2),
        routes,
    };
    let show = |client: &mut Client| {
        within(client, "ip -4 route show default; ip -6 route show default")
            .lines()
            .map(|line| {
                line.split_whitespace()
                    .take(5)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect::<Vec<_>>()
    };
    let at_first = [
        "default via 10.89.0.1 dev eth0",
        "default via fd00:89::1 dev eth0",
    ];
    assert_eq!(show(&mut client), at_first);
    client.done(set(vec![
        route("10.89.0.1", "eth1"),
        route("fd00:90::1", "eth1"),
    ]));
    let moved = [
        "default via 10.89.0.1 dev eth1",
        "default via fd00:90::1 dev eth1",
    ];
    assert_eq!(show(&mut client), moved);
    // Whatever the user added that is a default goes, everything else stays.
    let added = "ip route add default via 10.89.0.1 dev eth0 metric 50 && \
                 ip route add unreachable default metric 900 && \
                 ip -6 route add default via fd00:89::1 dev eth0 metric 50 && \
                 ip route add default via 10.89.0.1 table 77 && \
                 ip route add 192.0.2.0/24 via 10.89.0.1 && ip -6 route add 2001:db8::/32 via fd00:89::1";
    assert_eq!(within(&mut client, added), "");
    client.done(set(vec![route("10.89.0.1", "eth0")]));
    assert_eq!(show(&mut client), ["default via 10.89.0.1 dev eth0"]);
    let rest = within(&mut client, "ip route show table 77; ip route; ip -6 route");
    for kept in [
        "default via 10.89.0.1 dev eth",
        "192.0.2.0/24",
        "2001:db8::/32",
    ] {
        assert!(rest.contains(kept), "{rest}");
    }
    client.done(set(Vec::new()));
    assert_eq!(show(&mut client), [""; 0]);
    client.done(set(Vec::new()));
    default_routes_that_cannot_be(&mut client);
    shut_down(world, client);
}

fn default_routes_that_cannot_be(client: &mut Client) {
    let set = |routes: Vec<DefaultRoute>| Request::DefaultRoutes {
        sandbox: id(2),
        routes,
    };
    refused(
        client,
        set(vec![route("10.89.0.1", "eth9")]),
        FailureKind::NotFound,
    );
    let two = vec![route("10.89.0.1", "eth0"), route("10.89.0.254", "eth1")];
    refused(client, set(two), FailureKind::Invalid);
    let nobody = Request::DefaultRoutes {
        sandbox: id(9),
        routes: Vec::new(),
    };
    refused(client, nobody, FailureKind::NotFound);
}

pub fn isolation_and_vlans() {
    let (world, mut client) = with_bridge();
    for number in [2, 3] {
        create_bare(&mut client, id(number));
        client.done(Request::Attach(endpoint(number)));
    }
    let ping = "busybox ping -c 1 -W 1 10.89.0.1; busybox ping -c 1 -W 1 10.89.0.3; \
                busybox ping -c 1 -W 1 fd00:89::1; busybox ping -c 1 -W 1 fd00:89::3";
    let answers = |client: &mut Client| {
        run_joined(client, id(2), ping)
            .matches("1 packets received")
            .count()
    };
    assert_eq!(answers(&mut client), 4);
    let mut spec = bridge();
    for (icc, expected) in [(false, 2), (true, 4), (false, 2)] {
        spec.icc = icc;
        client.done(Request::Bridge(spec.clone()));
        assert_eq!(answers(&mut client), expected);
    }
    // One that comes later is isolated too.
    client.done(Request::Detach {
        router_ifname: endpoint(3).router_ifname,
    });
    client.done(Request::Attach(endpoint(3)));
    assert_eq!(answers(&mut client), 2);

    spec.icc = true;
    spec.vlan = Some(7);
    match client.ask(Request::Bridge(spec.clone())) {
        Ok(_) => {
            assert_eq!(answers(&mut client), 4);
            let vlans = in_router(&world, "bridge vlan show");
            assert_eq!(
                vlans.matches("7 PVID Egress Untagged").count(),
                3,
                "{vlans}"
            );
        }
        Err(failure) => {
            let lacks = "the kernel lacks bridge VLAN filtering";
            assert!(failure.what.contains(lacks), "{failure}");
            let mut new = spec.clone();
            new.name = name("br-new");
            refused(&mut client, Request::Bridge(new), FailureKind::Kernel);
            assert_eq!(inventory(&mut client).bridges, [name(BRIDGE)]);
        }
    }
    spec.vlan = Some(4095);
    refused(&mut client, Request::Bridge(spec), FailureKind::Invalid);
    shut_down(world, client);
}
