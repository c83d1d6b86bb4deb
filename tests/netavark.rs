//! The netavark and aardvark-dns drop-ins by themselves, as podman calls them: root of a user namespace,
//! in a network namespace of their own, containers in others. With podman: `subids::podman`.

mod answers;
mod names;
mod packets;
mod refusals;
mod shared;

use crate::world::{Cmd, Output, seconds};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// What every script begins with. Namespaces `one`, `two` and `three` are containers.
const PROLOGUE: &str = r#"
mount -t tmpfs none /run
mkdir /run/netns /run/net
ip link set lo up
for guest in one two three; do ip netns add "$guest"; done
netavark() { "$MOSSNET" netavark --config /run/net "$@"; }
setup() { netavark setup "/run/netns/$1" <"$2.json" >/run/out || { cat /run/out; return 1; }; }
teardown() { netavark teardown "/run/netns/$1" <"$2.json"; }
# Unlike "!", it ends a script that goes by set -e.
fails() { if "$@"; then return 1; fi; }
says() { grep -q -- "$1" /run/out || { cat /run/out; return 1; }; }
inside() { guest=$1; shift; ip netns exec "$guest" "$@"; }
# Waits for a condition, 10 s at most.
until_true() { n=0; until "$@" >/dev/null 2>&1; do n=$((n + 1)); [ "$n" -lt 200 ] || return 1; sleep 0.05; done; }
servers() { for p in /proc/[0-9]*; do grep -aqs '^aardvark-dns' "$p/cmdline" && echo "${p#/proc/}"; done; true; }
quiet() { test -z "$(servers)"; }
# Fails, and says what is left, unless nothing is.
nothing_left() {
    until_true quiet || { echo "server left: $(servers)"; return 1; }
    left=$({ ip -o link | grep -v ': lo:' || true; nft list tables; find /run/net -type f ! -name aardvark.lock; })
    [ -z "$left" ] || { echo "left: $left"; return 1; }
    for guest in one two three; do
        links=$(inside "$guest" ip -o link | grep -v ': lo:') || continue
        echo "left in $guest: $links"; return 1
    done
}
"#;

/// A directory of requests, and a shell beside them.
pub struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory }
    }

    /// Writes `NAME.json`.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path().join(format!("{name}.json"));
        fs::write(path, text).expect("write a request");
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a script in namespaces of its own; it fails at the first command that does, and stderr says
    /// which.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Output {
        let script = format!("{PROLOGUE}\n{script}");
        // What is left of processes ends with the first of them.
        let unshare = ["unshare", "-Urnmpf", "--mount-proc", "--kill-child"];
        let argv = unshare.into_iter().chain(["sh", "-exuc", script.as_str()]);
        let cmd = Cmd::new(argv).directory(self.path()).timeout(seconds(60));
        cmd.env("MOSSNET", env!("CARGO_BIN_EXE_mossnet")).run()
    }

    /// The same, which must succeed.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        self.sh(script).expect_code(0).stdout
    }
}

/// A network `NAME` on the bridge `podmanN`, 10.77.N.0/24 and fd00:77:N::/64.
pub fn network(name: &str, n: u8, more: Value) -> Value {
    let mut network = json!({
        "name": name,
        "id": format!("{n:0>64}"),
        "driver": "bridge",
        "network_interface": format!("podman{n}"),
        "subnets": [
            {"subnet": format!("10.77.{n}.0/24"), "gateway": format!("10.77.{n}.1")},
            {"subnet": format!("fd00:77:{n}::/64"), "gateway": format!("fd00:77:{n}::1")},
        ],
        "ipv6_enabled": true,
        "internal": false,
        "dns_enabled": false,
        "ipam_options": {"driver": "host-local"},
    });
    merge(&mut network, more);
    network
}

/// A container with the host number `host` on these networks.
pub fn container(name: &str, host: u8, networks: &[(u8, Value)]) -> Value {
    let id = format!("{name:x<64}");
    let mut request = json!({
        "container_id": id, "container_name": name, "networks": {}, "network_info": {},
    });
    for (index, (n, network)) in networks.iter().enumerate() {
        let key = network["name"].as_str().expect("a name");
        request["networks"][key] = json!({
            "interface_name": format!("eth{index}"),
            "static_ips": [format!("10.77.{n}.{host}"), format!("fd00:77:{n}::{host:x}")],
            "aliases": [format!("alias-{name}"), &id[..12]],
        });
        request["network_info"][key] = network.clone();
    }
    request
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
