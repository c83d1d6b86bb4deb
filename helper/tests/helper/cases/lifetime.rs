//! Who ends when, and who goes on.

use super::{shut_down, with_bridge};
use crate::client::Client;
use crate::world::*;
use mossnet_helper::request::{Event, ExitStatus, Failure, FailureKind, ProcessState, Request};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;

pub fn relay_is_started_and_restarted() {
    let (world, mut client) = with_bridge();
    assert_eq!(inventory(&mut client).relay_pid, None);
    let failure = client.load("refuse", Vec::new()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert!(failure.what.contains("it says refuse"), "{failure}");
    client.load("first", Vec::new()).unwrap();
    client.load(&"x".repeat(1 << 20), Vec::new()).unwrap();
    // A file that its writer could change meanwhile is none to keep.
    let listeners = Vec::new();
    let open: OwnedFd = File::open("/dev/null").unwrap().into();
    let loose = client.ask_with(Request::RelaySnapshot { listeners }, &[open]);
    assert!(loose.unwrap_err().what.contains("sealed memfd"));
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
    let failure = client.load("die", Vec::new()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Kernel);
    assert!(failure.what.contains("relay ended"), "{failure}");
    // The snapshot before, which was good, is what it is started with again.
    assert_eq!(
        client.event(),
        Event::RelayRestarted {
            status: ExitStatus::Code(1)
        }
    );
    client.load("third", Vec::new()).unwrap();
    shut_down(world, client);
}

pub fn a_new_daemon_finds_everything() {
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

pub fn one_helper_for_each_socket() {
    let (world, client) = with_bridge();
    let (mut second, line) = start(&world.socket);
    assert!(!second.wait().unwrap().success());
    let failure: Failure = serde_json::from_str(&line).unwrap();
    assert_eq!(failure.kind, FailureKind::Exists, "{failure}");
    shut_down(world, client);
}

fn two_children(client: &mut Client) -> [u32; 2] {
    let _output = create(client, sandbox(2, &["sleep", "1000"]));
    client.done(Request::Attach(endpoint(2)));
    client.done(Request::StartSandbox { id: id(2) });
    client.load("x", Vec::new()).unwrap();
    let found = inventory(client);
    [found.processes[0].pid, found.relay_pid.unwrap()]
}

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

pub fn sigterm_ends_everything() {
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

pub fn death_ends_everything() {
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

pub fn capabilities_are_trimmed() {
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

pub fn user_namespaces_forbidden() {
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
