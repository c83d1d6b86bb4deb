//! Debian's netavark, and mossnet in its place, called as podman calls it without root: in a user and network
//! namespace of its own, with one network as JSON on stdin, aardvark-dns off.
//!
//! Netavark in three ways: with the firewall it takes by default (iptables); the same together with the `ip netns
//! add` and `delete` that somebody must do for it; and on an internal network, for which it makes no
//! firewall rules (version 1.4 knows no `NETAVARK_FW=none`).

use crate::Contender;
use crate::caller::Caller;
use crate::world::{Cmd, World, enter};
use serde_json::json;
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// What an endpoint for a network namespace that is there is compared with.
pub const USUAL: &str = "netavark";
/// What a network namespace with its endpoint is compared with.
pub const WITH_NETNS: &str = "netavark and ip netns add, delete";
const INTERNAL: &str = "netavark, no firewall";

/// mossnet in its place; its goal, as a part of what netavark takes.
pub const DROP_IN: &str = "mossnet as netavark";
pub const DROP_IN_GOAL: f64 = 0.5;

/// Where distributions put it; podman does not look at PATH for it.
const PLACES: [&str; 4] = [
    "/usr/local/libexec/podman/netavark",
    "/usr/libexec/podman/netavark",
    "/usr/local/lib/podman/netavark",
    "/usr/lib/podman/netavark",
];

fn program() -> Option<&'static str> {
    PLACES.into_iter().find(|place| Path::new(place).exists())
}

/// What it says about itself; empty where it is missing.
pub fn version() -> String {
    let version = program().map(|program| Cmd::new([program, "--version"]).ok());
    version.unwrap_or_default().trim().to_owned()
}

struct Netavark {
    name: &'static str,
    /// In `/run/netns`.
    guest: String,
    program: Vec<&'static str>,
    config: String,
    caller: Rc<RefCell<Caller>>,
}

/// Both ways, where netavark and what it calls are installed.
pub fn all(world: &World) -> Vec<Box<dyn Contender>> {
    let Some(program) = program() else {
        enter::skip("netavark is not installed");
        return Vec::new();
    };
    if !crate::world::installed("iptables") {
        return Vec::new();
    }
    // As root of its own user namespace; a private /run for its state and the lock of iptables.
    let script =
        "mount --bind /run/world/netavark /run/netavark && ip link set lo up && exec \"$@\"";
    for directory in ["/run/world/netavark", "/run/netavark"] {
        std::fs::create_dir_all(directory).expect("make a directory");
    }
    let mut caller = Caller::start(&["unshare", "-Urnm", "sh", "-c", script, "caller"]);
    let status = world.host(["ip", "-V"]).ok();
    println!("netavark: {} ({})", version(), status.trim());
    for netns in [
        "resident0",
        "resident1",
        "resident2",
        "resident3",
        "guest0",
        "guest2",
        "guest3",
    ] {
        caller.call(&["ip", "netns", "add", netns], "");
    }
    let caller = Rc::new(RefCell::new(caller));
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    for (number, name) in [USUAL, WITH_NETNS, INTERNAL, DROP_IN]
        .into_iter()
        .enumerate()
    {
        let make = |host| Netavark {
            name,
            guest: format!("guest{number}"),
            program: match name {
                DROP_IN => vec!["/run/world/bin/mossnet", "netavark"],
                _ => vec![program],
            },
            config: config(number, host, name == INTERNAL),
            caller: Rc::clone(&caller),
        };
        // From here on the bridge has somebody on it, and stays.
        make(2).call("setup", &format!("/run/netns/resident{number}"));
        all.push(Box::new(make(3)));
    }
    all
}

/// What podman 4 writes to netavark's stdin for a container on one network.
fn config(network: usize, host: u8, internal: bool) -> String {
    let name = format!("net{network}");
    let id = format!("{:0>64}", format!("{network}{host}"));
    json!({
        "container_id": id,
        "container_name": format!("box{host}"),
        "networks": { &name: {
            "interface_name": "eth0",
            "static_ips": [format!("10.88.{network}.{host}")],
            "aliases": [&id[..12]],
        }},
        "network_info": { &name: {
            "name": name,
            "id": format!("{network:0>64}"),
            "driver": "bridge",
            "network_interface": format!("podman{network}"),
            "created": "2023-01-01T00:00:00Z",
            "subnets": [{
                "subnet": format!("10.88.{network}.0/24"),
                "gateway": format!("10.88.{network}.1"),
            }],
            "ipv6_enabled": false,
            "internal": internal,
            "dns_enabled": false,
            "ipam_options": { "driver": "host-local" },
        }},
    })
    .to_string()
}

impl Netavark {
    fn call(&self, act: &str, netns: &str) -> Duration {
        let flags = [
            "--config",
            match self.name {
                DROP_IN => "/run/netavark/mossnet",
                _ => "/run/netavark",
            },
            "--rootless",
            "true",
            "--aardvark-binary",
            "/usr/lib/podman/aardvark-dns",
            act,
            netns,
        ];
        let argv: Vec<&str> = self.program.iter().copied().chain(flags).collect();
        self.caller.borrow_mut().call(&argv, &self.config)
    }

    fn netns(&self, act: &str) -> Duration {
        let argv = ["ip", "netns", act, &self.guest];
        self.caller.borrow_mut().call(&argv, "")
    }

    fn makes_netns(&self) -> bool {
        self.name == WITH_NETNS
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.guest)
    }
}

impl Contender for Netavark {
    fn name(&self) -> &'static str {
        self.name
    }

    fn set_up(&mut self) -> Duration {
        let made = if self.makes_netns() {
            self.netns("add")
        } else {
            Duration::ZERO
        };
        made + self.call("setup", &self.path())
    }

    fn tear_down(&mut self) -> Duration {
        let gone = self.call("teardown", &self.path());
        if self.makes_netns() {
            gone + self.netns("delete")
        } else {
            gone
        }
    }
}
