//! Hosts, each a netns with a cable to the client; and containers, seen from outside.

use crate::world::{Cmd, Running, World, ip, netns, seconds};

/// Where the client sits.
const CLIENT: &str = "server";

/// A host. The number is part of its addresses.
pub struct Host {
    name: String,
    number: u8,
}

impl Host {
    /// The netns in which the world's user is anyhow.
    pub fn world() -> Self {
        let host = Self {
            name: "host".to_owned(),
            number: 0,
        };
        host.cable(None);
        host
    }

    /// A new one, with its default route through the client, by another address than it asks from:
    /// pasta takes what goes to its gateway for the host's loopback.
    pub fn new(number: u8) -> Self {
        let host = Self {
            name: format!("host{number}"),
            number,
        };
        ip(None, &format!("netns add {}\n", host.name));
        host.cable(Some(&host.name));
        let route = format!("link set lo up\nroute add default via 198.18.{number}.3\n");
        ip(Some(&host.name), &route);
        host
    }

    fn cable(&self, netns: Option<&str>) {
        let number = self.number;
        let place = netns.map(|name| format!("netns {name}"));
        ip(
            Some(CLIENT),
            &format!("link add bench{number} type veth peer name bench0 {}\n", {
                // The world's own netns has no name; its processes have.
                place.unwrap_or_else(|| format!("netns {}", std::process::id()))
            }),
        );
        let here = format!("addr add 198.18.{number}.1/24 dev bench0\nlink set bench0 up\n");
        ip(netns, &here);
        let there =
            format!("addr add 198.18.{number}.2/24 dev bench{number}\nlink set bench{number} up\n");
        ip(Some(CLIENT), &there);
        netns::within(&self.name, || {
            netns::sysctl("net/ipv4/ip_local_port_range", "1024 65535");
            netns::sysctl("net/ipv4/tcp_tw_reuse", "1");
            netns::sysctl("net/core/somaxconn", "8192");
            outside();
        });
    }

    /// Its name as a netns.
    pub fn netns(&self) -> &str {
        &self.name
    }

    /// Its address on the cable.
    pub fn address(&self) -> String {
        format!("198.18.{}.1", self.number)
    }

    /// A program of its unprivileged user.
    pub fn user<'a>(&self, world: &World, argv: impl IntoIterator<Item = &'a str>) -> Cmd {
        let cmd = world.user(argv).timeout(seconds(86_400));
        if self.name == "host" {
            return cmd;
        }
        let netns = format!("--net=/run/netns/{}", self.name);
        cmd.under(["nsenter", &netns, "--"])
    }
}

/// Prepares the client's netns.
pub fn client() {
    netns::within(CLIENT, || {
        netns::sysctl("net/ipv4/ip_local_port_range", "1024 65535");
        netns::sysctl("net/ipv4/tcp_tw_reuse", "1");
        outside();
    });
}

/// A program in the client's netns.
pub fn as_client<'a>(argv: impl IntoIterator<Item = &'a str>) -> Cmd {
    let netns = format!("--net=/run/netns/{CLIENT}");
    Cmd::new(argv).under(["nsenter", &netns, "--"])
}

/// The congestion control that was asked for.
fn outside() {
    if let Ok(name) = std::env::var("MOSSNET_BENCH_OUTSIDE") {
        netns::sysctl("net/ipv4/tcp_congestion_control", &name);
    }
}

/// Words to put before a program that shall run in a container's netns.
pub fn inside(pid: impl std::fmt::Display) -> Vec<String> {
    let line = format!("nsenter -t {pid} --user --net --preserve-credentials --");
    line.split(' ').map(str::to_owned).collect()
}

/// The servers of a container, with reno, and room for many connections.
pub fn serve(prefix: &[String]) -> Vec<Running> {
    let script = "cd /proc/sys/net; echo reno > ipv4/tcp_congestion_control; \
                  echo 8192 > core/somaxconn; echo 8192 > ipv4/tcp_max_syn_backlog; \
                  echo 1 > ipv4/tcp_tw_reuse; test $(cat ipv4/tcp_congestion_control) = reno";
    Cmd::new(["sh", "-c", script]).under(prefix).ok();
    let start = |argv: &[&str]| {
        let server = Cmd::new(argv).under(prefix);
        server.timeout(seconds(86_400)).start()
    };
    let mut own = start(&["/run/world/bin/itself", "serve"]);
    own.expect("serves");
    let mut iperf3 = start(&["iperf3", "--forceflush", "-s"]);
    iperf3.expect("listening");
    vec![own, iperf3]
}
