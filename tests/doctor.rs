//! The doctor's probe on the machine that runs the tests: what it says works is what mossnet uses.

#![allow(clippy::expect_used)]

use mossnet::api::doctor::probe::{Probe, Try};
use std::process::Command;

/// Runs `mossnet probe`, here or where `wrap` puts it.
fn probe(wrap: &[&str]) -> Probe {
    let binary = env!("CARGO_BIN_EXE_mossnet");
    let words: Vec<_> = wrap.iter().copied().chain([binary, "probe"]).collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .expect("start the probe");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("one line of JSON")
}

#[test]
fn everything_that_mossnet_asks_of_the_kernel_works_here() {
    let probe = probe(&[]);
    if !probe.user_namespace.works() || !probe.id_map.works() {
        assert_eq!(probe.bridge, Try::NotTried);
        eprintln!("skipped: no user namespaces on this machine: {probe:?}");
        return;
    }
    for attempt in [
        &probe.net_namespace,
        &probe.bridge,
        &probe.veth,
        &probe.nft_tproxy,
        &probe.packet_socket,
        &probe.bandwidth,
        &probe.nested_user_namespace,
    ] {
        assert!(attempt.works(), "{attempt}");
    }
}

#[test]
fn a_limit_of_no_namespaces_is_found_out() {
    // In a user namespace of our own the limit is ours to set (namespaces(7)).
    let forbid = |limit: &str| {
        let script = format!("echo 0 > /proc/sys/user/{limit} && exec \"$@\"");
        probe(&[
            "unshare",
            "--user",
            "--map-root-user",
            "sh",
            "-c",
            &script,
            "sh",
        ])
    };
    let works = Command::new("unshare")
        .args(["--user", "--map-root-user", "true"])
        .status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("skipped: unshare(1) makes no user namespace here");
        return;
    }
    let users = forbid("max_user_namespaces");
    assert_eq!(
        users.user_namespace.errno(),
        Some(nix::errno::Errno::ENOSPC)
    );
    assert_eq!(users.net_namespace, Try::NotTried);
    let nets = forbid("max_net_namespaces");
    assert!(nets.user_namespace.works());
    assert_eq!(nets.net_namespace.errno(), Some(nix::errno::Errno::ENOSPC));
    assert_eq!(nets.veth, Try::NotTried);
}
