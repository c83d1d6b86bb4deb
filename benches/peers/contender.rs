//! Those who are compared: each is a netns with a way to the same server.

use crate::TARGET;
use crate::load::{self, GRACE, Measured};
use crate::world::{Cmd, ROOT, Running, World, eventually, inspect, ip, netns, seconds};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::time::Duration;

/// Where the other builds are named.
pub const OTHER_BUILDS: &str = "MOSSNET_BENCH_OTHER_BUILDS";

/// A product at one setting.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// As shown in the table.
    pub name: &'static str,
    pub product: Product,
    pub mtu: u32,
    /// Takes part in the rows of TCP streams only.
    pub streams_only: bool,
    /// Another build of mossnet: its program.
    pub program: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Product {
    Native,
    Mossnet,
    Pasta,
    Slirp4netns,
    Rootlesskit,
    Bypass4netns,
}

const fn kind(name: &'static str, product: Product, mtu: u32, streams_only: bool) -> Kind {
    Kind {
        name,
        product,
        mtu,
        streams_only,
        program: None,
    }
}

/// Everybody, in the order of the columns. The first is the measure of all others.
pub static ALL: LazyLock<Vec<Kind>> =
    LazyLock::new(|| USUAL.into_iter().chain(other_builds()).collect());

/// Other builds of mossnet, `NAME=PROGRAM` with commas. A handful, kept as long as we run.
fn other_builds() -> Vec<Kind> {
    let text = std::env::var(OTHER_BUILDS).unwrap_or_default();
    let text: &'static str = text.leak();
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let other = |(name, program): (&str, &'static str)| Kind {
        program: Some(program),
        ..kind(
            format!("mossnet {name}").leak(),
            Product::Mossnet,
            1500,
            false,
        )
    };
    pairs.map(other).collect()
}

const USUAL: [Kind; 10] = [
    kind("native veth", Product::Native, 1500, false),
    kind("mossnet", Product::Mossnet, 1500, false),
    kind("pasta, MTU 65520", Product::Pasta, 65520, false),
    kind("pasta, MTU 1500", Product::Pasta, 1500, false),
    kind("slirp4netns, MTU 65520", Product::Slirp4netns, 65520, false),
    kind(
        "rootlesskit, slirp4netns",
        Product::Rootlesskit,
        65520,
        false,
    ),
    kind("bypass4netns", Product::Bypass4netns, 1500, false),
    kind("slirp4netns, MTU 1500", Product::Slirp4netns, 1500, true),
    kind("native veth, MTU 65520", Product::Native, 65520, true),
    kind("mossnet, MTU 65520", Product::Mossnet, 65520, true),
];

impl Kind {
    /// mossnet's program, as the world knows it.
    fn program(&self) -> &'static str {
        self.program.unwrap_or("/run/world/bin/mossnet")
    }

    /// mossnet's `--root`: each build has its own.
    pub fn root(&self) -> String {
        match self.program {
            None => ROOT.to_owned(),
            Some(_) => format!("/run/world/{}", self.name.replace(' ', "-")),
        }
    }

    /// `mossnet ARGS` of this build.
    pub fn mossnet(&self, world: &World, root: &str, args: &[&str]) -> Cmd {
        world.user([self.program(), "--root", root]).then(args)
    }

    /// Ends all that mossnet has started.
    pub fn shut_down(&self, world: &World) {
        if self.product == Product::Mossnet {
            let _ = self
                .mossnet(world, &self.root(), &["shutdown", "--all"])
                .run();
        }
    }
}

/// A netns with a way to the server.
pub struct Contender {
    pub kind: Kind,
    prefix: Vec<String>,
    target: String,
    resolver: String,
    /// The process whose descendants carry the traffic, with itself.
    carrier: Option<i32>,
    alive: Vec<Running>,
}

/// What `act` gives; its panic as a reason.
pub fn guarded<T>(act: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(one_line(text.unwrap_or("panicked")))
    })
}

/// A reason short enough for a list.
pub fn one_line(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").chars().take(300).collect()
}

impl Contender {
    /// Starts one; why it cannot be had, otherwise.
    pub fn start(world: &World, kind: Kind) -> Result<Self, String> {
        guarded(|| {
            let contender = match kind.product {
                Product::Native => Ok(native(kind)),
                Product::Mossnet => mossnet(world, kind),
                Product::Pasta | Product::Slirp4netns => peer(world, kind),
                Product::Rootlesskit => rootlesskit(world, kind),
                Product::Bypass4netns => Err(bypass4netns()),
            }?;
            contender.tune();
            Ok(contender)
        })
    }

    /// Many ports and their early reuse in the contender's netns; reno.
    fn tune(&self) {
        let script = "cd /proc/sys/net/ipv4; echo 1024 65535 > ip_local_port_range; \
                      echo 1 > tcp_tw_reuse";
        Cmd::new(["sh", "-c", script]).under(&self.prefix).ok();
        self.congestion_control("reno");
    }

    /// Sets it for sockets that are made in the container from now on.
    pub fn congestion_control(&self, name: &str) {
        let script = "cd /proc/sys/net/ipv4; echo $1 > tcp_congestion_control; \
                      test $(cat tcp_congestion_control) = $1";
        Cmd::new(["sh", "-c", script, "-", name])
            .under(&self.prefix)
            .ok();
    }

    /// A load generator in the container.
    pub fn generator(&self, kind: &str, number: usize, duration: Duration) -> Cmd {
        let address = if kind == "names" {
            &self.resolver
        } else {
            &self.target
        };
        let (number, time) = (number.to_string(), duration.as_secs_f64().to_string());
        let argv = [
            "/run/world/bin/itself",
            "load",
            kind,
            address,
            &number,
            &time,
        ];
        let limit = duration + GRACE + seconds(5);
        Cmd::new(argv).under(&self.prefix).timeout(limit)
    }

    /// Runs a load to its end.
    pub fn load(&self, kind: &str, number: usize, duration: Duration) -> Measured {
        guarded(|| {
            let output = self.generator(kind, number, duration).run();
            if output.code == 0 {
                return Ok(load::parse(&output.stdout));
            }
            let last = output.stderr.lines().last().unwrap_or_default();
            Err(one_line(&format!("{last} (exit code {})", output.code)))
        })
    }

    /// Processes that carry the traffic.
    pub fn carriers(&self) -> Vec<i32> {
        match (self.kind.product, self.carrier) {
            (Product::Mossnet, _) => ["relay", "helper", "remover", "daemon"]
                .iter()
                .flat_map(|role| inspect::processes_of(self.kind.program(), role))
                .collect(),
            (_, Some(pid)) => crate::usage::descendants(pid),
            (_, None) => Vec::new(),
        }
    }

    /// Processes that hold what a flow needs.
    pub fn holders(&self) -> Vec<i32> {
        match self.kind.product {
            Product::Mossnet => inspect::processes_of(self.kind.program(), "relay"),
            _ => self.carriers(),
        }
    }

    /// Whether all that carries it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.alive.iter_mut().all(Running::is_alive)
    }
}

/// Cables from the host and from the native containers to the server, and what peers find there.
pub fn prepare(outside: Option<&str>) {
    let cable = |here: Option<&str>, name: &str, number: u32, mtu: u32| {
        let place = here.map_or(String::new(), |netns| format!(" netns {netns}"));
        ip(
            Some("server"),
            &format!(
                "link add {name} mtu {mtu} type veth peer name bench mtu {mtu}{}\n\
                 addr add 198.18.{number}.2/24 dev {name}\nlink set {name} up\n",
                // The world's own netns has no name; its processes have.
                if here.is_some() {
                    place
                } else {
                    format!(" netns {}", std::process::id())
                }
            ),
        );
        ip(
            here,
            &format!(
                "addr add 198.18.{number}.1/24 dev bench\nlink set bench up\nlink set lo up\n"
            ),
        );
    };
    ip(None, "netns add native1500\nnetns add native65520\n");
    cable(None, "bench", 0, 1500);
    cable(Some("native1500"), "usual", 1, 1500);
    cable(Some("native65520"), "large", 2, 65520);
    for name in ["host", "server"] {
        netns::within(name, || {
            netns::sysctl("net/ipv4/ip_local_port_range", "1024 65535");
            netns::sysctl("net/ipv4/tcp_tw_reuse", "1");
            if let Some(name) = outside {
                netns::sysctl("net/ipv4/tcp_congestion_control", name);
            }
        });
    }
}

/// Words to put before a program that shall run in the netns of process `pid`.
fn inside(pid: i64) -> Vec<String> {
    let line = format!("nsenter -t {pid} --user --net --preserve-credentials --");
    line.split(' ').map(str::to_owned).collect()
}

fn native(kind: Kind) -> Contender {
    let line = format!("nsenter --net=/run/netns/native{} --", kind.mtu);
    let target = if kind.mtu == 1500 {
        "198.18.1.2"
    } else {
        "198.18.2.2"
    };
    Contender {
        kind,
        prefix: line.split(' ').map(str::to_owned).collect(),
        target: target.to_owned(),
        resolver: target.to_owned(),
        carrier: None,
        alive: Vec::new(),
    }
}

fn mossnet(world: &World, kind: Kind) -> Result<Contender, String> {
    let network = format!("mtu{}", kind.mtu);
    let name = format!("bench{}", kind.mtu);
    let root = kind.root();
    let mossnet = |args: &[&str]| kind.mossnet(world, &root, args);
    let done = |output: crate::world::Output| match output.code {
        0 => Ok(output.stdout),
        _ => Err(one_line(&output.stderr)),
    };
    let _ = mossnet(&["rm", "-f", &name]).run();
    if mossnet(&["network", "inspect", &network]).run().code != 0 {
        let option = format!("mtu={}", kind.mtu);
        done(mossnet(&["network", "create", "-o", &option, &network]).run())?;
    }
    let holder = ["--", "sleep", "100000"];
    let start = ["run", "-d", "--name", &name, "--network", &network];
    done(mossnet(&start).then(holder).run())?;
    let files = done(mossnet(&["exec", &name, "cat", "/etc/resolv.conf"]).run())?;
    let mut words = files
        .split_whitespace()
        .skip_while(|word| *word != "nameserver");
    let resolver = words
        .nth(1)
        .ok_or("no name server in resolv.conf")?
        .to_owned();
    // Entered from outside: `mossnet exec` is not what is measured.
    let told = done(mossnet(&["inspect", &name]).run())?;
    let told: serde_json::Value = serde_json::from_str(&told).map_err(|e| e.to_string())?;
    let pid = told[0]["Pid"].as_i64().ok_or("no pid")?;
    Ok(Contender {
        kind,
        prefix: inside(pid),
        target: TARGET.to_owned(),
        resolver,
        carrier: None,
        alive: Vec::new(),
    })
}

/// The command by which a peer gives the netns of process `pid` a way out.
pub fn peer_command(kind: Kind, pid: i32) -> String {
    let mtu = kind.mtu;
    match kind.product {
        // Without forwarded ports, for which it would look every second.
        Product::Pasta => format!(
            "pasta -f -q --config-net -m {mtu} -t none -u none -T none -U none \
             --dns-forward {PASTA_RESOLVER} {pid}"
        ),
        _ => format!("slirp4netns --configure --mtu={mtu} {pid} tap0"),
    }
}

/// Begins a session. Where the kernel groups processes by session (sched_autogroup, sched(7)), what carries the
/// traffic has its share beside the load generator's then, as mossnet's has, which begins its own.
const ALONE: &str = "setsid";

/// What pasta forwards to the host's name server.
const PASTA_RESOLVER: &str = "169.254.53.53";

/// Why a peer cannot be had.
pub fn obstacle(world: &World, program: &str) -> Option<String> {
    let found = crate::world::command::PATH
        .split(':')
        .any(|directory| std::path::Path::new(directory).join(program).exists());
    match (found, world.has_tun()) {
        (false, _) => Some(format!("{program} is not installed")),
        (_, false) => Some("/dev/net/tun cannot be opened by an unprivileged user".to_owned()),
        _ => None,
    }
}

fn peer(world: &World, kind: Kind) -> Result<Contender, String> {
    let program = if kind.product == Product::Pasta {
        "pasta"
    } else {
        "slirp4netns"
    };
    if let Some(obstacle) = obstacle(world, program) {
        return Err(obstacle);
    }
    // As a rootless runtime makes it: in a user namespace of its own.
    let script = "ip link set lo up; echo made; exec sleep 100000";
    let holder = world.user(["unshare", "-Urn", "sh", "-c", script]);
    let mut holder = holder.timeout(seconds(86_400)).start();
    holder.expect("made");
    let line = peer_command(kind, holder.pid());
    let words = line.split_whitespace();
    let running = world.user([ALONE]).then(words);
    let running = running.timeout(seconds(86_400)).start();
    let prefix = inside(i64::from(holder.pid()));
    wait_for_route(&prefix);
    let pasta = kind.product == Product::Pasta;
    Ok(Contender {
        kind,
        prefix,
        target: TARGET.to_owned(),
        resolver: if pasta { PASTA_RESOLVER } else { "10.0.2.3" }.to_owned(),
        carrier: Some(running.pid()),
        alive: vec![holder, running],
    })
}

fn wait_for_route(prefix: &[String]) {
    eventually(seconds(10), "a default route by the peer", || {
        let routes = Cmd::new(["ip", "-4", "route", "show", "default"]);
        !routes.under(prefix).run().stdout.is_empty()
    });
}

/// Starts rootlesskit (`$@`) with subordinate ids, which the world has not: newuidmap and newgidmap of
/// its own map the one id that there is. Only this mount namespace sees them.
const ROOTLESSKIT: &str = r#"set -e
dir=/run/world/rootlesskit
mkdir -p $dir
echo '#!/bin/sh
echo "$2 $3 $4" > /proc/$1/uid_map' > $dir/newuidmap
echo '#!/bin/sh
echo deny > /proc/$1/setgroups
echo "$2 $3 $4" > /proc/$1/gid_map' > $dir/newgidmap
chmod +x $dir/newuidmap $dir/newgidmap
echo 1000:100000:65536 > $dir/ids
mount --bind $dir/ids /etc/subuid
mount --bind $dir/ids /etc/subgid
export PATH=$dir:$PATH XDG_RUNTIME_DIR=/run/user/1000
exec setpriv --inh-caps=-all --ambient-caps=-all -- rootlesskit "$@"
"#;

/// rootlesskit, to which the command in its container is to be added.
pub fn rootlesskit_command(kind: Kind) -> Cmd {
    let mtu = format!("--mtu={}", kind.mtu);
    let words = ["unshare", "--mount", "sh", "-c", ROOTLESSKIT, "-"];
    Cmd::new(words).then(["--net=slirp4netns", &mtu])
}

/// rootlesskit's own way out is slirp4netns; what it adds is its set-up.
fn rootlesskit(world: &World, kind: Kind) -> Result<Contender, String> {
    for program in ["rootlesskit", "slirp4netns"] {
        if let Some(obstacle) = obstacle(world, program) {
            return Err(obstacle);
        }
    }
    let script = "echo made; exec sleep 100000";
    let running = rootlesskit_command(kind).then(["sh", "-c", script]);
    let mut running = running.timeout(seconds(86_400)).start();
    for _ in 0..100 {
        if running.stdout().contains("made") || !running.is_alive() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    if !running.stdout().contains("made") {
        let alive = running.is_alive();
        if alive {
            running.signal(nix::sys::signal::Signal::SIGKILL);
        }
        let output = running.wait();
        let last = output.stderr.lines().last().unwrap_or_default().to_owned();
        return Err(one_line(&format!("not started (alive: {alive}): {last}")));
    }
    let carrier = running.pid();
    let container = crate::usage::descendants(carrier);
    let sleeper = inspect::processes()
        .into_iter()
        .find(|process| container.contains(&process.pid) && process.line.starts_with("sleep"));
    let prefix = inside(i64::from(sleeper.ok_or("no container")?.pid));
    wait_for_route(&prefix);
    Ok(Contender {
        kind,
        prefix,
        target: TARGET.to_owned(),
        resolver: "10.0.2.3".to_owned(),
        carrier: Some(carrier),
        alive: vec![running],
    })
}

/// It catches the socket calls of an OCI container by a seccomp filter that the runtime sets, so that a
/// bare netns cannot have it.
fn bypass4netns() -> String {
    let found = crate::world::command::PATH.split(':').any(|directory| {
        std::path::Path::new(directory)
            .join("bypass4netns")
            .exists()
    });
    if found {
        "bypass4netns wants a container of an OCI runtime, which this benchmark does not start"
            .to_owned()
    } else {
        "bypass4netns is not installed".to_owned()
    }
}
