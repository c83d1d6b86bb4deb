//! The tests.

use crate::client::Client;
use crate::world::*;
use mossnet_helper::request::{
    Event, ExitStatus, Failure, FailureKind, Inventory, ProcessState, Reply, Request, SandboxNetns,
    UplinkKind, UplinkSpec,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Read;

/// Needs a /dev/net/tun that everyone may use.
pub const EXTERNAL: &str = "external_uplinks";
/// Needs an administrator who forbids user namespaces.
pub const FORBIDDEN: &str = "user_namespaces_forbidden";

pub const ALL: &[(&str, fn())] = &[
    ("sandboxes_on_a_bridge", sandboxes_on_a_bridge),
    (
        "root_in_a_sandbox_has_no_power_over_the_router",
        no_power_over_the_router,
    ),
    ("requests_repeat_safely", requests_repeat_safely),
    ("failures_leave_nothing", failures_leave_nothing),
    ("uplinks_that_fail", uplinks_that_fail),
    (EXTERNAL, external_uplinks),
    (FORBIDDEN, user_namespaces_forbidden),
    ("bad_requests_are_answered", bad_requests_are_answered),
    ("bridges_change_in_place", bridges_change_in_place),
    (
        "relay_is_started_and_restarted",
        relay_is_started_and_restarted,
    ),
    (
        "a_new_daemon_finds_everything",
        a_new_daemon_finds_everything,
    ),
    ("one_helper_for_each_socket", one_helper_for_each_socket),
    ("sigterm_ends_everything", sigterm_ends_everything),
    ("death_ends_everything", death_ends_everything),
    ("capabilities_are_trimmed", capabilities_are_trimmed),
    ("many_sandboxes", many_sandboxes),
];

/// A bridge with its rules.
fn with_bridge() -> (World, Client) {
    let world = World::new();
    let mut client = world.connect();
    client.done(Request::Bridge(bridge()));
    client.done(Request::Ruleset {
        networks: vec![network(false)],
    });
    (world, client)
}

fn shut_down(world: World, mut client: Client) {
    client.done(Request::Shutdown);
    assert_eq!(client.frame(), None);
    world.ended();
}

fn refused(client: &mut Client, request: Request, kind: FailureKind) -> Failure {
    let what = format!("{request:?}");
    let failure = client.ask(request).expect_err(&what);
    assert_eq!(failure.kind, kind, "{what}: {failure}");
    failure
}

fn sandboxes_on_a_bridge() {
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

fn no_power_over_the_router() {
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

fn requests_repeat_safely() {
    let (world, mut client) = with_bridge();
    for _ in 0..2 {
        client.done(Request::Bridge(bridge()));
        client.done(Request::Ruleset {
            networks: vec![network(true), network(false)],
        });
        client.done(Request::Detach {
            router_ifname: name("ve-none"),
        });
        client.done(Request::Forget { id: id(9) });
        client.done(Request::StopUplink {
            kind: UplinkKind::Pasta,
        });
    }
    for _ in 0..2 {
        client.done(Request::RemoveBridge { name: name(BRIDGE) });
    }
    assert_eq!(inventory(&mut client), Inventory::default());
    shut_down(world, client);
}

fn failures_leave_nothing() {
    let (world, mut client) = with_bridge();
    let _output = create(&mut client, sandbox(2, &["sleep", "1000"]));
    let before = inventory(&mut client);

    let mut nowhere = endpoint(2);
    nowhere.bridge = name("br-none");
    refused(&mut client, Request::Attach(nowhere), FailureKind::NotFound);
    refused(
        &mut client,
        Request::Attach(endpoint(7)),
        FailureKind::NotFound,
    );
    // No address can reach this gateway: the veth is there already when that is found out.
    let mut stray = endpoint(2);
    stray.default_routes = vec!["224.0.0.1".parse().unwrap()];
    refused(&mut client, Request::Attach(stray), FailureKind::Kernel);
    let mut bad_bridge = bridge();
    bad_bridge.name = name("br-bad");
    bad_bridge.addresses = vec!["255.255.255.255/32".parse().unwrap()];
    assert!(client.ask(Request::Bridge(bad_bridge)).is_err());
    assert_eq!(inventory(&mut client), before);

    client.done(Request::Attach(endpoint(2)));
    refused(
        &mut client,
        Request::Attach(endpoint(2)),
        FailureKind::Exists,
    );
    let mut again = endpoint(2);
    again.router_ifname = name("ve-other");
    refused(&mut client, Request::Attach(again), FailureKind::Exists);
    assert_eq!(inventory(&mut client).endpoints.len(), 1);

    let mut host = sandbox(3, &["true"]);
    host.netns = SandboxNetns::Host;
    let _output = create(&mut client, host);
    refused(
        &mut client,
        Request::Attach(endpoint(3)),
        FailureKind::Invalid,
    );

    shut_down(world, client);
}

fn uplinks_that_fail() {
    let (world, mut client) = with_bridge();
    let absent = UplinkSpec {
        kind: UplinkKind::Pasta,
        program: "/no/such".into(),
    };
    let failure = refused(
        &mut client,
        Request::StartUplink(absent),
        FailureKind::Kernel,
    );
    assert_eq!(failure.errno, Some(libc::ENOENT));
    let fails = UplinkSpec {
        kind: UplinkKind::Slirp,
        program: "/bin/false".into(),
    };
    let failure = refused(
        &mut client,
        Request::StartUplink(fails),
        FailureKind::Kernel,
    );
    assert!(
        failure.what.contains("slirp4netns ended at once"),
        "{failure}"
    );
    assert!(inventory(&mut client).uplinks.is_empty());
    shut_down(world, client);
}

fn bad_requests_are_answered() {
    let (world, mut client) = with_bridge();
    let newer = Request::Hello { version: u32::MAX };
    refused(&mut client, newer, FailureKind::Invalid);
    for json in ["", "{}", "[]", "\"inventory\"", "\u{0}"] {
        client.send(json.as_bytes(), &stdio().0);
        assert_eq!(
            client.reply().unwrap_err().kind,
            FailureKind::Invalid,
            "{json}"
        );
    }
    // The descriptors of the requests before are nobody's.
    let bare = Request::CreateSandbox(Box::new(sandbox(2, &["true"])));
    refused(&mut client, bare, FailureKind::Invalid);
    for foreign in ["up0", "lo", "eth0", "br-*", "br-"] {
        let request = Request::RemoveBridge {
            name: name(foreign),
        };
        refused(&mut client, request, FailureKind::Invalid);
        let request = Request::Detach {
            router_ifname: name(foreign),
        };
        refused(&mut client, request, FailureKind::Invalid);
    }
    let signal = Request::Signal {
        id: id(2),
        signal: 9,
    };
    refused(&mut client, signal, FailureKind::NotFound);
    let start = Request::StartSandbox { id: id(2) };
    refused(&mut client, start, FailureKind::NotFound);
    shut_down(world, client);
}

fn bridges_change_in_place() {
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

fn relay_is_started_and_restarted() {
    let (world, mut client) = with_bridge();
    let snapshot = |text: &str| Request::RelaySnapshot {
        snapshot: text.to_owned(),
    };
    assert_eq!(inventory(&mut client).relay_pid, None);
    let failure = refused(&mut client, snapshot("refuse"), FailureKind::Invalid);
    assert!(failure.what.contains("it says refuse"), "{failure}");
    client.done(snapshot("first"));
    client.done(snapshot(&"x".repeat(1 << 20)));
    let first = inventory(&mut client).relay_pid.unwrap();
    // The second time it waits before it is started again.
    let mut last = first;
    for _ in 0..2 {
        kill(Pid::from_raw(last.cast_signed()), Signal::SIGKILL).unwrap();
        assert_eq!(
            client.event(),
            Event::RelayRestarted {
                status: ExitStatus::Signal(9)
            }
        );
        let next = inventory(&mut client).relay_pid.unwrap();
        assert_ne!(next, last);
        last = next;
    }
    let failure = refused(&mut client, snapshot("die"), FailureKind::Kernel);
    assert!(failure.what.contains("relay ended"), "{failure}");
    // The snapshot before, which was good, is what it is started with again.
    assert_eq!(
        client.event(),
        Event::RelayRestarted {
            status: ExitStatus::Code(1)
        }
    );
    client.done(snapshot("third"));
    shut_down(world, client);
}

fn a_new_daemon_finds_everything() {
    let (world, mut client) = with_bridge();
    let mut output = create(&mut client, sandbox(2, &["cat"]));
    client.done(Request::Attach(endpoint(2)));
    let before = inventory(&mut client);
    drop(client);
    let mut client = world.connect();
    assert_eq!(inventory(&mut client), before);
    // A second connection takes over from the first.
    let mut second = world.connect();
    assert_eq!(client.frame(), None);
    second.done(Request::StartSandbox { id: id(2) });
    drop(second);
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    // It ended while nobody was listening (or just after), and is remembered.
    let mut third = world.connect();
    let state = inventory(&mut third).processes[0].state;
    if state == ProcessState::Running {
        assert!(matches!(third.event(), Event::Exited { .. }));
    }
    let state = inventory(&mut third).processes[0].state;
    assert_eq!(state, ProcessState::Exited(ExitStatus::Code(0)));
    shut_down(world, third);
}

fn one_helper_for_each_socket() {
    let (world, client) = with_bridge();
    let (mut second, line) = start(&world.socket);
    assert!(!second.wait().unwrap().success());
    let failure: Failure = serde_json::from_str(&line).unwrap();
    assert_eq!(failure.kind, FailureKind::Exists, "{failure}");
    shut_down(world, client);
}

/// Of the sandbox and of the relay.
fn two_children(client: &mut Client) -> [u32; 2] {
    let _output = create(client, sandbox(2, &["sleep", "1000"]));
    client.done(Request::Attach(endpoint(2)));
    client.done(Request::StartSandbox { id: id(2) });
    client.done(Request::RelaySnapshot {
        snapshot: "x".to_owned(),
    });
    let found = inventory(client);
    [found.processes[0].pid, found.relay_pid.unwrap()]
}

/// Wait for the end of processes that are nobody's children here.
fn wait_for_end(pids: [u32; 2]) {
    for pid in pids {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
        {
            assert!(std::time::Instant::now() < deadline, "{pid} lives");
            std::thread::yield_now();
        }
    }
}

fn sigterm_ends_everything() {
    let (world, mut client) = with_bridge();
    let children = two_children(&mut client);
    kill(
        Pid::from_raw(world.child.id().cast_signed()),
        Signal::SIGTERM,
    )
    .unwrap();
    while client.frame().is_some() {}
    wait_for_end(children);
    world.ended();
}

fn death_ends_everything() {
    let (mut world, mut client) = with_bridge();
    let children = two_children(&mut client);
    world.child.kill().unwrap();
    world.child.wait().unwrap();
    wait_for_end(children);
    // The stale socket is in nobody's way.
    let (child, line) = start(&world.socket);
    assert_eq!(line, "ready\n");
    world.child = child;
    let client = world.connect();
    shut_down(world, client);
}

fn capabilities_are_trimmed() {
    let (world, client) = with_bridge();
    let status = fs::read_to_string(format!("/proc/{}/status", world.child.id())).unwrap();
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(field("CapEff:"), 0);
    assert_eq!(field("CapPrm:"), field("CapBnd:"));
    assert_eq!(field("CapPrm:").count_ones(), 16);
    assert!(status.contains("Threads:\t1\n"), "{status}");
    shut_down(world, client);
}

fn many_sandboxes() {
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

fn external_uplinks() {
    if fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .is_err()
    {
        println!("note: /dev/net/tun is not for us; external_uplinks is skipped");
        return;
    }
    let (world, mut client) = with_bridge();
    for (kind, program) in [
        (UplinkKind::Pasta, "/usr/bin/pasta"),
        (UplinkKind::Slirp, "/usr/bin/slirp4netns"),
    ] {
        if !fs::exists(program).unwrap() {
            println!("note: {program} is not installed");
            continue;
        }
        let mut rules = network(false);
        rules.uplink = kind;
        client.done(Request::Ruleset {
            networks: vec![rules],
        });
        let start = Request::StartUplink(UplinkSpec {
            kind,
            program: program.into(),
        });
        client.done(start.clone());
        client.done(start.clone());
        assert_eq!(inventory(&mut client).uplinks, [kind]);
        let helper = world.child.id();
        let children = format!("/proc/{helper}/task/{helper}/children");
        let children = fs::read_to_string(children).unwrap();
        // One that was stopped may still be there, before it.
        let child = children
            .split_whitespace()
            .next_back()
            .unwrap()
            .parse()
            .unwrap();
        kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
        let status = ExitStatus::Signal(9);
        assert_eq!(client.event(), Event::UplinkExited { kind, status });
        client.done(start);
        client.done(Request::StopUplink { kind });
        client.done(Request::StopUplink { kind });
        assert!(inventory(&mut client).uplinks.is_empty());
    }
    shut_down(world, client);
}

fn user_namespaces_forbidden() {
    let directory = std::env::temp_dir().join(format!("mossnet-helper-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let (mut child, line) = start(&directory.join("helper.sock"));
    assert!(!child.wait().unwrap().success());
    let failure: Failure = serde_json::from_str(&line).unwrap();
    assert!(
        failure.what.contains("sysctl -w user.max_user_namespaces="),
        "{failure}"
    );
    assert_eq!(failure.errno, Some(libc::ENOSPC));
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    fs::remove_dir(&directory).unwrap();
}
