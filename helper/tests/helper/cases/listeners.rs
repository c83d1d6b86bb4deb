//! Sockets of published ports: kept for every relay, by key, in as many messages as it takes, and
//! never more descriptors than what is wanted.

use super::{shut_down, with_bridge};
use crate::client::Client;
use crate::world::*;
use mossnet_helper::request::{Event, Failure, FailureKind, MAX_LISTENERS, Request};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::fd::OwnedFd;

/// More than one message carries.
const MANY: usize = MAX_LISTENERS + 50;

fn keys(from: usize, count: usize) -> Vec<String> {
    let ports = from..from + count;
    ports.map(|port| format!("*:{port}/tcp")).collect()
}

fn descriptors(count: usize) -> Vec<OwnedFd> {
    let null = |_| File::open("/dev/null").unwrap().into();
    (0..count).map(null).collect()
}

fn want(client: &mut Client, listeners: Vec<String>, has: usize) -> Result<(), Failure> {
    client.load(&format!("has {has}"), listeners).map(drop)
}

fn open_in(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

pub fn listeners_are_kept_for_every_relay() {
    let (world, mut client) = with_bridge();
    want(&mut client, Vec::new(), 0).unwrap();
    let helper = world.child.id();
    let before = open_in(helper);
    let all = keys(8000, MANY);
    for chunk in all.chunks(MAX_LISTENERS) {
        let request = Request::Listeners {
            keys: chunk.to_vec(),
        };
        client.ask_with(request, &descriptors(chunk.len())).unwrap();
    }
    assert_eq!(inventory(&mut client).listeners.len(), MANY);
    want(&mut client, all.clone(), MANY).unwrap();
    // Another one gets them all again.
    let relay = inventory(&mut client).relay_pid.unwrap();
    kill(Pid::from_raw(relay.cast_signed()), Signal::SIGKILL).unwrap();
    assert!(matches!(client.event(), Event::RelayRestarted { .. }));
    assert_eq!(open_in(helper), before + MANY);
    // A key that nobody has brought: nothing changes.
    let failure = want(&mut client, keys(7000, 1), 0).unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotFound);
    assert!(failure.what.contains("*:7000/tcp"), "{failure}");
    assert_eq!(inventory(&mut client).listeners.len(), MANY);
    // What it has is not sent again; what no snapshot names is closed.
    want(&mut client, all[..3].to_vec(), MANY).unwrap();
    assert_eq!(inventory(&mut client).listeners, all[..3]);
    assert_eq!(open_in(helper), before + 3);
    // Descriptors that do not fit their keys, or that nobody asked for, are closed.
    for (keys, count) in [(keys(9000, 2), 1), (Vec::new(), 1), (keys(9000, 0), 5)] {
        let request = Request::Listeners { keys };
        let failure = client.ask_with(request, &descriptors(count)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
    }
    client
        .ask_with(Request::Inventory, &descriptors(MAX_LISTENERS))
        .unwrap();
    assert_eq!(open_in(helper), before + 3);
    shut_down(world, client);
}
