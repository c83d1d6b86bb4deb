//! Those who are compared: a container each, with a way to the same server.

use crate::load;
use crate::world::{Cmd, Running, World, ip, netns, seconds};

pub const ROOTFUL: &str = "rootful bridge, masquerade";
pub const KERNEL: &str = "mossnet --uplink kernel";
const RELAY: &str = "mossnet, relay";

/// Processors of the client and of the server, for `taskset -c`. Where the scheduler puts them, which is
/// nobody's merit, makes a difference of a half.
const CLIENT: &str = "0";
const SERVER: &str = "1";

const GRANTS: &str =
    "[[grant]]\nuser = 1000\nverbs = [\"uplink\"]\nsubnets = [\"10.200.0.0/16\"]\n";

/// A container with a way to the server.
pub struct Contender {
    /// As shown in the table.
    pub name: &'static str,
    target: &'static str,
    prefix: Vec<String>,
}

impl Contender {
    fn new(name: &'static str, target: &'static str, prefix: &str) -> Self {
        let prefix = prefix.split(' ').map(str::to_owned).collect();
        let contender = Self {
            name,
            target,
            prefix,
        };
        let script = "cd /proc/sys/net/ipv4; echo 1024 65535 > ip_local_port_range; \
                      echo 1 > tcp_tw_reuse; echo reno > tcp_congestion_control; \
                      test $(cat tcp_congestion_control) = reno";
        Cmd::new(["sh", "-c", script]).under(&contender.prefix).ok();
        contender
    }

    /// Its rate: per second, or of streams in Gbit/s; nothing when it failed.
    pub fn load(&self, kind: &str, count: usize, duration: f64) -> Option<f64> {
        let (count, duration) = (count.to_string(), duration.to_string());
        let argv = [
            "taskset",
            "-c",
            CLIENT,
            "/run/world/bin/itself",
            "load",
            kind,
            self.target,
            &count,
            &duration,
        ];
        let output = Cmd::new(argv)
            .under(&self.prefix)
            .timeout(seconds(60))
            .run();
        if output.code != 0 {
            println!("{}: {output}", self.name);
        }
        load::parse(&output.stdout).get("rate").copied()
    }
}

/// A cable from the server to a netns, or to the world's own.
fn cable(number: u8, place: Option<&str>) {
    let target = place.map_or_else(|| std::process::id().to_string(), str::to_owned);
    ip(
        Some("server"),
        &format!(
            "link add bench{number} type veth peer name bench netns {target}\n\
             addr add 198.18.{number}.2/24 dev bench{number}\nlink set bench{number} up\n"
        ),
    );
    let here = format!("addr add 198.18.{number}.1/24 dev bench\nlink set bench up\n");
    ip(place, &here);
}

/// Everybody, and the server.
pub fn all(world: &World) -> Vec<Contender> {
    world.grant(GRANTS);
    world.forward();
    cable(0, None);
    netns::within("server", || {
        netns::sysctl("net/ipv4/ip_local_port_range", "1024 65535");
        netns::sysctl("net/ipv4/tcp_tw_reuse", "1");
        netns::sysctl("net/ipv4/tcp_congestion_control", "reno");
    });
    netns::sysctl("net/ipv4/ip_local_port_range", "1024 65535");
    netns::sysctl("net/ipv4/tcp_tw_reuse", "1");
    forget_connections();
    serve(world);
    vec![
        rootful(),
        mossnet(world, KERNEL, "fast", &["--uplink", "kernel"]),
        mossnet(world, RELAY, "plain", &[]),
    ]
}

/// In the netns of a host: connections that have ended would fill the table of those that are tracked.
fn forget_connections() {
    netns::sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "5");
}

/// Ends with the world.
fn serve(world: &World) {
    let server = world.server(["taskset", "-c", SERVER, "/run/world/bin/itself", "serve"]);
    let mut running: Running = server.timeout(seconds(86_400)).start();
    running.expect("serves");
    std::mem::forget(running);
}

/// What an administrator's container engine makes, and nothing else.
fn rootful() -> Contender {
    ip(None, "netns add rootful\nnetns add box\n");
    cable(1, Some("rootful"));
    ip(
        Some("rootful"),
        "link set lo up\nlink add br0 type bridge\naddr add 10.90.0.1/24 dev br0\nlink set br0 up\n\
         link add ve0 type veth peer name eth0 netns box\nlink set ve0 master br0 up\n",
    );
    ip(
        Some("box"),
        "link set lo up\naddr add 10.90.0.2/24 dev eth0\nlink set eth0 up\n\
         route add default via 10.90.0.1\n",
    );
    netns::within("rootful", || {
        netns::sysctl("net/ipv4/ip_forward", "1");
        forget_connections();
    });
    let rules = "table ip engine {\n\
        chain after { type nat hook postrouting priority srcnat;\n\
        ip saddr 10.90.0.0/24 oifname != \"br0\" masquerade\n}\n\
        chain through { type filter hook forward priority filter; policy drop;\n\
        ct state established,related accept\niifname \"br0\" accept\n}\n}\n";
    let load = Cmd::new(["nft", "-f", "-"]).stdin(rules);
    load.under(["nsenter", "--net=/run/netns/rootful", "--"])
        .ok();
    Contender::new(ROOTFUL, "198.18.1.2", "nsenter --net=/run/netns/box --")
}

fn mossnet(world: &World, name: &'static str, network: &str, flags: &[&str]) -> Contender {
    let create = [&["network", "create"], flags, &[network]].concat();
    world.mossnet(create).ok();
    let run = ["run", "-d", "--name", network, "--network", network];
    world.mossnet(run).then(["--", "sleep", "100000"]).ok();
    // Entered from outside: `mossnet exec` is not what is measured.
    let pid = world.inspect(network)["Pid"].as_i64().expect("a pid");
    let prefix = format!("nsenter -t {pid} --user --net --preserve-credentials --");
    Contender::new(name, "198.18.0.2", &prefix)
}
