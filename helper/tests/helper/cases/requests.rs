//! Requests that repeat, fail, or are nonsense; external uplinks.

use super::{EXTERNAL, refused, shut_down, with_bridge};
use crate::harness;
use crate::world::*;
use mossnet_helper::request::{
    Event, ExitStatus, FailureKind, Inventory, Request, SandboxNetns, UplinkKind, UplinkSpec,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

pub fn requests_repeat_safely() {
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

pub fn failures_leave_nothing() {
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

pub fn uplinks_that_fail() {
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

pub fn external_uplinks() {
    let (world, mut client) = with_bridge();
    for (kind, program) in [
        (UplinkKind::Pasta, "/usr/bin/pasta"),
        (UplinkKind::Slirp, "/usr/bin/slirp4netns"),
    ] {
        if !fs::exists(program).unwrap() {
            harness::skip(EXTERNAL, &format!("{program} is not installed"));
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

pub fn bad_requests_are_answered() {
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
