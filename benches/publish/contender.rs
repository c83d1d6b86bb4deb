//! Those who are compared: each leads the same ports of a host to a container.

use crate::hosts::{self, Host, inside};
use crate::load;
use crate::world::{self, Cmd, Running, World, enter, eventually, installed, ip, netns, seconds};
use std::collections::BTreeMap;
use std::path::Path;

pub const MOSSNET: &str = "mossnet run -p";
const OTHER_BUILD: &str = "mossnet, other build";
/// Where the other build keeps its things.
const OTHER_ROOT: &str = "/run/world/other";
const PASTA_LARGE: &str = "pasta -t, MTU 65520";
const PASTA_USUAL: &str = "pasta -t, MTU 1500";
/// Both kinds of pasta.
pub const PASTA: [&str; 2] = [PASTA_LARGE, PASTA_USUAL];
const INSIDE: &str = "rootlessport, as podman's";
const ACROSS: &str = "rootlessport, over a bridge";
/// Both kinds of rootlessport.
pub const ROOTLESSPORT: [&str; 2] = [INSIDE, ACROSS];

/// The program of rootlesskit's builtin port driver, as podman ships it.
const PROGRAM: &str = "/usr/lib/podman/rootlessport";

/// Ports of the servers: first and last of TCP, iperf3's, UDP.
const TCP: [u16; 2] = [7100, 7107];
const IPERF3: u16 = 5201;
const UDP: u16 = crate::load::UDP_PORT;

/// A host whose ports lead to a container.
pub struct Contender {
    /// As shown in the table.
    pub name: &'static str,
    target: String,
    _alive: Vec<Running>,
}

impl Contender {
    /// Starts the servers in the container.
    fn new(name: &'static str, target: String, prefix: &[String], alive: Vec<Running>) -> Self {
        let mut all = hosts::serve(prefix);
        all.extend(alive);
        Self {
            name,
            target,
            _alive: all,
        }
    }

    /// Rate of the streams together in Gbit/s; nothing when it failed.
    pub fn iperf3(&self, duration: u64, flags: &str) -> Option<f64> {
        let duration = duration.to_string();
        let argv = ["iperf3", "-J", "-t", &duration, "-c", &self.target];
        let mut last = String::new();
        for _ in 0..5 {
            let argv = argv.into_iter().chain(flags.split_whitespace());
            let output = hosts::as_client(argv).timeout(seconds(60)).run();
            let report: serde_json::Value = serde_json::from_str(&output.stdout).ok()?;
            if let Some(rate) = report["end"]["sum_received"]["bits_per_second"].as_f64() {
                return Some(rate / 1e9);
            }
            // The one server may still be busy with the end of the last test.
            last = report["error"].to_string();
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        println!("{}: iperf3 {flags}: {last}", self.name);
        None
    }

    /// Rate of exchanges or connections, per second; nothing when it failed.
    pub fn load(&self, kind: &str, count: u32, duration: u64) -> Option<f64> {
        self.generate(kind, count, duration).get("rate").copied()
    }

    /// Datagrams that arrived per second, and how many per cent did not.
    pub fn datagrams(&self, kind: &str, bytes: u32, duration: u64) -> Option<(f64, f64)> {
        let numbers = self.generate(kind, bytes, duration);
        Some((*numbers.get("rate")?, *numbers.get("lost")?))
    }

    fn generate(&self, kind: &str, number: u32, duration: u64) -> BTreeMap<String, f64> {
        let (number, duration) = (number.to_string(), duration.to_string());
        let argv = [
            "/run/world/bin/itself",
            "load",
            kind,
            &self.target,
            &number,
            &duration,
        ];
        let output = hosts::as_client(argv).timeout(seconds(60)).run();
        if output.code != 0 {
            println!("{}: {output}", self.name);
        }
        load::parse(&output.stdout)
    }
}

/// Every contender that can be had here and that `only` names (all, if it is empty).
pub fn all(world: &World, only: &str) -> Vec<Contender> {
    hosts::client();
    let wanted = |name: &str| only.is_empty() || only.split(',').any(|part| name.starts_with(part));
    let mut found = Vec::new();
    let mut add = |name: &'static str, make: &dyn Fn(&'static str) -> Option<Contender>| {
        if wanted(name) {
            found.extend(make(name));
        }
    };
    add("native veth", &|name| Some(native(name)));
    add("native, routed to a bridge", &|name| Some(routed(name)));
    add(MOSSNET, &|name| {
        mossnet(world, name, Host::world(), "mossnet", world::ROOT)
    });
    if let Ok(program) = std::env::var("MOSSNET_BENCH_OTHER_BUILD") {
        add(OTHER_BUILD, &|name| {
            mossnet(world, name, Host::new(7), &program, OTHER_ROOT)
        });
    }
    add(PASTA_LARGE, &|name| pasta(world, name, 3, "65520"));
    add(PASTA_USUAL, &|name| pasta(world, name, 4, "1500"));
    add(INSIDE, &|name| rootlessport(world, name, 5, "container"));
    add(ACROSS, &|name| rootlessport(world, name, 6, "bridge"));
    found
}

fn by_netns(name: &str) -> Vec<String> {
    let path = format!("--net=/run/netns/{name}");
    vec!["nsenter".to_owned(), path, "--".to_owned()]
}

/// The server's netns at the other end of the client's cable: the bare kernel.
fn native(name: &'static str) -> Contender {
    let host = Host::new(1);
    let prefix = by_netns(host.netns());
    Contender::new(name, host.address(), &prefix, Vec::new())
}

/// The kernel's own way to a container on a bridge, which takes root, and a client that knows a
/// route to the container's address.
fn routed(name: &'static str) -> Contender {
    let host = Host::new(2);
    ip(None, "netns add routed\n");
    ip(
        Some(host.netns()),
        "link add br0 type bridge\naddr add 10.90.0.1/24 dev br0\nlink set br0 up\n\
         link add ve0 type veth peer name eth0 netns routed\nlink set ve0 master br0 up\n",
    );
    ip(
        Some("routed"),
        "link set lo up\naddr add 10.90.0.2/24 dev eth0\nlink set eth0 up\n\
         route add default via 10.90.0.1\n",
    );
    netns::within(host.netns(), || netns::sysctl("net/ipv4/ip_forward", "1"));
    ip(
        Some("server"),
        &format!("route add 10.90.0.0/24 via {}\n", host.address()),
    );
    let prefix = by_netns("routed");
    Contender::new(name, "10.90.0.2".to_owned(), &prefix, Vec::new())
}

/// `program`: mossnet, or a path of another build of it. `root`: one that no other has.
fn mossnet(
    world: &World,
    name: &'static str,
    host: Host,
    program: &str,
    root: &str,
) -> Option<Contender> {
    let [first, last] = TCP;
    let publishes = [
        format!("{first}-{last}:{first}-{last}"),
        format!("{IPERF3}:{IPERF3}"),
        format!("{UDP}:{UDP}/udp"),
    ];
    let publishes = publishes.iter().flat_map(|publish| ["-p", publish]);
    let head = [program, "--root", root, "run", "-d", "--name", "bench"].into_iter();
    let argv = head.chain(publishes).chain(["--", "sleep", "100000"]);
    let started = host.user(world, argv).run();
    if started.code != 0 {
        enter::skip(&format!("{name}: {started}"));
        return None;
    }
    // Entered from outside: `mossnet exec` is not what is measured.
    let inspect = [program, "--root", root, "inspect", "bench"];
    let text = host.user(world, inspect).ok();
    let info: serde_json::Value = serde_json::from_str(&text).expect("JSON from inspect");
    let pid = info[0]["Pid"].as_i64().expect("a pid");
    Some(Contender::new(
        name,
        host.address(),
        &inside(pid),
        Vec::new(),
    ))
}

fn pasta(world: &World, name: &'static str, number: u8, mtu: &str) -> Option<Contender> {
    if !world.has_tun() {
        enter::skip(&format!(
            "{name}: /dev/net/tun cannot be opened by an unprivileged user"
        ));
        return None;
    }
    if !installed("pasta") {
        return None;
    }
    let host = Host::new(number);
    let script = "ip link set lo up; echo made; exec sleep 100000";
    let mut holder = host
        .user(world, ["unshare", "-Urn", "sh", "-c", script])
        .start();
    holder.expect("made");
    let pid = holder.pid();
    let [first, last] = TCP;
    let line = format!(
        "pasta -f -q --config-net -m {mtu} -t {first}-{last},{IPERF3} -u {UDP} -T none -U none {pid}"
    );
    // A session of its own, as mossnet's: where the kernel groups processes by it (sched(7)), the
    // carriers' shares are alike.
    let running = host.user(world, ["setsid"]).then(line.split(' ')).start();
    let prefix = inside(pid);
    eventually(seconds(10), "a default route by pasta", || {
        let routes = Cmd::new(["ip", "-4", "route", "show", "default"]).under(&prefix);
        !routes.run().stdout.is_empty()
    });
    Some(Contender::new(
        name,
        host.address(),
        &prefix,
        vec![holder, running],
    ))
}

/// Namespaces as rootless podman makes them: one for bridges, one for the container, both under one
/// user namespace; then rootlessport on the host's side of it. `$1` is where its other half sits.
const SET_UP: &str = "set -e
mount -t tmpfs tmpfs /run/netns
for name in bridge container; do
    touch /run/netns/$name
    unshare --net=/run/netns/$name true
done
ip -n bridge -batch - <<END
link set lo up
link add br0 type bridge
addr add 10.88.0.1/16 dev br0
link set br0 up
link add ve0 type veth peer name eth0 netns container
link set ve0 master br0 up
END
ip -n container -batch - <<END
link set lo up
addr add 10.88.0.2/16 dev eth0
link set eth0 up
route add default via 10.88.0.1
END
mkdir -p /tmp/$1
nsenter --net=/run/netns/container sleep 100000 &
echo container $! is made
exec 3< <(exec sleep 100000)
exec /usr/lib/podman/rootlessport 4>&1
";

/// podman's program, given what podman 4.3 gives it (pkg/rootlessport: a configuration on stdin).
fn rootlessport(
    world: &World,
    name: &'static str,
    number: u8,
    place: &'static str,
) -> Option<Contender> {
    if !Path::new(PROGRAM).exists() {
        enter::skip(&format!("{name}: {PROGRAM} (package podman) is not there"));
        return None;
    }
    let host = Host::new(number);
    let port = |first: u16, last: u16, protocol: &str| {
        serde_json::json!({
            "host_ip": "", "host_port": first, "container_port": first,
            "range": last - first + 1, "protocol": protocol,
        })
    };
    let [first, last] = TCP;
    let config = serde_json::json!({
        "Mappings": [
            port(first, last, "tcp"), port(IPERF3, IPERF3, "tcp"), port(UDP, UDP, "udp"),
        ],
        "NetNSPath": format!("/run/netns/{place}"),
        "ExitFD": 3, "ReadyFD": 4,
        "TmpDir": format!("/tmp/{place}"),
        "ChildIP": "10.88.0.2",
        "ContainerID": place,
        "RootlessCNI": false,
    });
    let argv = [
        "setsid", "unshare", "-Ur", "--mount", "bash", "-c", SET_UP, "-", place,
    ];
    let mut running = host.user(world, argv).stdin(config.to_string()).start();
    running.expect("is made");
    let text = running.stdout();
    let pid = text
        .split(' ')
        .nth(1)
        .expect("the container's pid")
        .to_owned();
    // It writes a 1 when it is ready.
    running.expect("is made\n1");
    Some(Contender::new(
        name,
        host.address(),
        &inside(pid),
        vec![running],
    ))
}
