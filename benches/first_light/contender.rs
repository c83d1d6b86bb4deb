//! Those who are compared: each is a netns with a way to the same server.

use crate::TARGET;
use crate::world::{Cmd, Running, World, enter, eventually, ip, netns, seconds};

/// The server's address on the native contender's own cable.
const NATIVE_TARGET: &str = "198.18.1.2";

/// A netns with a way to the server.
pub struct Contender {
    /// As shown in the table.
    pub name: &'static str,
    prefix: Vec<String>,
    target: &'static str,
    _alive: Vec<Running>,
}

impl Contender {
    fn command<'a>(&self, argv: impl IntoIterator<Item = &'a str>) -> Cmd {
        Cmd::new(argv).under(&self.prefix).timeout(seconds(60))
    }

    /// Rate of one stream in Gbit/s; nothing when it failed.
    pub fn iperf3(&self, duration: u64, direction: &str) -> Option<f64> {
        let duration = duration.to_string();
        let argv = ["iperf3", "-J", "-t", &duration, "-c", self.target];
        let extra = direction.split_whitespace();
        let mut last = String::new();
        for _ in 0..5 {
            let output = self.command(argv.into_iter().chain(extra.clone())).run();
            let report: serde_json::Value = serde_json::from_str(&output.stdout).ok()?;
            if let Some(rate) = report["end"]["sum_received"]["bits_per_second"].as_f64() {
                return Some(rate / 1e9);
            }
            // The one server may still be busy with the end of the last test.
            last = report["error"].to_string();
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        println!("{}: iperf3 {direction}: {last}", self.name);
        None
    }

    /// Rate of the load generator, per second; nothing when it failed.
    pub fn load(&self, kind: &str, count: u32, duration: u64) -> Option<f64> {
        let (count, duration) = (count.to_string(), duration.to_string());
        let argv = [
            "/run/world/bin/itself",
            "load",
            kind,
            self.target,
            &count,
            &duration,
        ];
        let output = self.command(argv).run();
        if output.code != 0 {
            println!("{}: {output}", self.name);
        }
        output.stdout.trim().parse().ok()
    }
}

/// Every contender that can be had here and that `only` names (all, if it is empty).
pub fn all(world: &World, only: &str) -> Vec<Contender> {
    ip(
        None,
        "link add bench type veth peer name bench netns server\n\
         addr add 198.18.0.1/24 dev bench\nlink set bench up\n",
    );
    ip(
        Some("server"),
        "addr add 198.18.0.2/24 dev bench\nlink set bench up\n",
    );
    let ports = "1024 65535";
    for name in ["host", "server"] {
        netns::within(name, || {
            netns::sysctl("net/ipv4/ip_local_port_range", ports);
            netns::sysctl("net/ipv4/tcp_tw_reuse", "1");
            if let Ok(name) = std::env::var("MOSSNET_BENCH_OUTSIDE") {
                netns::sysctl("net/ipv4/tcp_congestion_control", &name);
            }
        });
    }
    let wanted = |name: &str| only.is_empty() || only.split(',').any(|part| name.starts_with(part));
    let mut found = Vec::new();
    let mut add = |name: &'static str, make: &dyn Fn() -> Option<Contender>| {
        if wanted(name) {
            found.extend(make());
        }
    };
    add("native veth", &|| Some(native()));
    add("mossnet", &|| mossnet(world));
    add("pasta, MTU 65520", &|| {
        pasta(world, "pasta, MTU 65520", "65520")
    });
    add("pasta, MTU 1500", &|| {
        pasta(world, "pasta, MTU 1500", "1500")
    });
    add("slirp4netns, MTU 65520", &|| slirp4netns(world));
    found
}

/// Reno, many ports and their early reuse in the contender's netns.
fn tune(prefix: &[String]) {
    let script = "cd /proc/sys/net/ipv4; echo reno > tcp_congestion_control; \
                  echo 1024 65535 > ip_local_port_range; echo 1 > tcp_tw_reuse; \
                  test $(cat tcp_congestion_control) = reno";
    Cmd::new(["sh", "-c", script]).under(prefix).ok();
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn native() -> Contender {
    ip(
        None,
        "netns add native\nlink add native type veth peer name eth0 netns native\n\
         link set native netns server\n",
    );
    ip(
        Some("native"),
        "link set lo up\naddr add 198.18.1.1/24 dev eth0\nlink set eth0 up\n",
    );
    ip(
        Some("server"),
        "addr add 198.18.1.2/24 dev native\nlink set native up\n",
    );
    let prefix = words("nsenter --net=/run/netns/native --");
    tune(&prefix);
    Contender {
        name: "native veth",
        prefix,
        target: NATIVE_TARGET,
        _alive: Vec::new(),
    }
}

fn mossnet(world: &World) -> Option<Contender> {
    let started = world
        .mossnet(["run", "-d", "--name", "bench", "--", "sleep", "100000"])
        .run();
    if started.code != 0 {
        enter::skip(&format!("mossnet: {started}"));
        return None;
    }
    // The netns of the sandbox, entered from outside: `mossnet exec` is not what is measured.
    let pid = world.inspect("bench")["Pid"].as_i64().expect("a pid");
    let prefix = words(&format!(
        "nsenter -t {pid} --user --net --preserve-credentials --"
    ));
    tune(&prefix);
    Some(Contender {
        name: "mossnet",
        prefix,
        target: TARGET,
        _alive: Vec::new(),
    })
}

/// A netns in a user namespace of its own, as a rootless runtime makes it.
fn empty_netns(world: &World) -> (Running, i32) {
    let mut holder = world
        .user([
            "unshare",
            "-Urn",
            "sh",
            "-c",
            "ip link set lo up; echo made; exec sleep 100000",
        ])
        .timeout(seconds(86_400))
        .start();
    holder.expect("made");
    let pid = holder.pid();
    (holder, pid)
}

/// Starts a peer that gives the netns of process `pid` a way out, and waits until there is one.
fn peer(world: &World, name: &'static str, make: impl Fn(i32) -> String) -> Option<Contender> {
    if !world.has_tun() {
        enter::skip(&format!(
            "{name}: /dev/net/tun cannot be opened by an unprivileged user"
        ));
        return None;
    }
    let (holder, pid) = empty_netns(world);
    let line = make(pid);
    let program = line.split(' ').next().expect("a program");
    if !crate::world::installed(program) {
        return None;
    }
    let running = world.user(line.split(' ')).timeout(seconds(86_400)).start();
    let prefix = words(&format!(
        "nsenter -t {pid} --user --net --preserve-credentials --"
    ));
    eventually(seconds(10), "a default route by the peer", || {
        let routes = Cmd::new(["ip", "-4", "route", "show", "default"])
            .under(&prefix)
            .run();
        !routes.stdout.is_empty()
    });
    tune(&prefix);
    Some(Contender {
        name,
        prefix,
        target: TARGET,
        _alive: vec![holder, running],
    })
}

fn pasta(world: &World, name: &'static str, mtu: &str) -> Option<Contender> {
    peer(world, name, |pid| {
        format!("pasta -f -q --config-net -m {mtu} {pid}")
    })
}

fn slirp4netns(world: &World) -> Option<Contender> {
    peer(world, "slirp4netns, MTU 65520", |pid| {
        format!("slirp4netns --configure --mtu=65520 {pid} tap0")
    })
}
