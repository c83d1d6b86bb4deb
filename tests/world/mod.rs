//! The test internet: every test runs in namespaces of its own, as an unprivileged user, on real
//! packets, with real programs, and leaves nothing behind whatever happens in it.
//!
//! ```text
//!   host (mossnet, default route) ─ veth ─ isp (router; failing prefixes) ─ veth ─ server
//! ```
//!
//! A test is `World::test(|world| …)`, or a [`Builder`] first. The body runs as uid 1000 in a user
//! namespace where it may do everything; mossnet is started in it without any capability, so that
//! it is exactly an unprivileged user.
//!
//! * `enter`: re-execution, uid, deadline. `turn`: who measures runs alone. `netns`: the topology. `command`: programs under test.
//! * `servers`, `dns`: what answers at the other end. `inspect`: processes, descriptors, leaks.
//! * `granted`: what an administrator has installed and granted.
//! * `rates`: how fast a stream is.
//! * `networks`: words of tests about networks, and a picture of all there is.

pub mod bare_relay;
pub mod command;
pub mod dns;
pub mod enter;
pub mod granted;
pub mod inspect;
pub mod netns;
pub mod networks;
pub mod rates;
pub mod servers;
pub mod turn;

pub use command::{Cmd, Output, Running};
pub use enter::Powers;
pub use netns::*;

use nix::mount::{MsFlags, mount};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the world is like.
#[derive(Debug, Clone)]
pub struct Builder {
    ipv4: bool,
    ipv6: bool,
    ping: bool,
    tun: bool,
    alone: bool,
    powers: Powers,
    resolv_conf: String,
    deadline: Duration,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            ipv4: true,
            ipv6: true,
            ping: true,
            tun: false,
            alone: false,
            powers: Powers::User,
            resolv_conf: String::new(),
            deadline: Duration::from_secs(90),
        }
    }
}

impl Builder {
    /// Whether the outside world speaks IPv4 (it does).
    pub fn ipv4(mut self, on: bool) -> Self {
        self.ipv4 = on;
        self
    }

    /// Whether the host and the outside world speak IPv6 (they do).
    pub fn ipv6(mut self, on: bool) -> Self {
        self.ipv6 = on;
        self
    }

    /// Whether the host allows ping sockets (it does).
    pub fn ping(mut self, on: bool) -> Self {
        self.ping = on;
        self
    }

    /// Whether /dev/net/tun is to be usable, for the peers that need it (it is not).
    pub fn tun(mut self) -> Self {
        self.tun = true;
        self
    }

    /// In the machine's own user namespace, as its root; mossnet is run by uid 1000 all the same. Skipped
    /// where the test has not been started by root.
    pub fn privileged(mut self) -> Self {
        self.powers = Powers::Root;
        self
    }

    /// Runs while no other test does: it measures.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// The host's /etc/resolv.conf; names the server otherwise.
    pub fn resolv_conf(mut self, text: &str) -> Self {
        text.clone_into(&mut self.resolv_conf);
        self
    }

    /// How long the whole test may take (90 s).
    pub fn deadline(mut self, seconds: u64) -> Self {
        self.deadline = Duration::from_secs(seconds);
        self
    }

    /// Runs `body` in such a world. To be called once in a test function, first thing.
    pub fn test<F: FnOnce(&World)>(self, body: F) {
        self.test_as(&enter::test_name::<F>(), body);
    }

    /// The same for a test of that name, whose function has its body from another.
    pub fn test_as(self, name: &str, body: impl FnOnce(&World)) {
        enter::enter(self.deadline, name, self.alone, self.powers, || {
            self.run_here(body);
        });
    }

    /// Builds the world around the current process, which is inside already, and runs `body`.
    pub fn run_here<F: FnOnce(&World)>(&self, body: F) {
        let world = World::build(self);
        body(&world);
        world.check_leftovers();
    }
}

/// The world, seen from inside.
pub struct World {
    tun: bool,
    powers: Powers,
}

/// mossnet's `--root` in the world.
pub const ROOT: &str = "/run/world/root";

impl World {
    /// Runs `body` in a world with everything in it.
    pub fn test<F: FnOnce(&World)>(body: F) {
        Builder::default().test(body);
    }

    /// A world that differs.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn build(plan: &Builder) -> Self {
        private_directories(plan.powers);
        let resolv_conf = match (plan.resolv_conf.as_str(), plan.ipv4) {
            ("", true) => format!("nameserver {SERVER}\nsearch test.example\n"),
            ("", false) => format!("nameserver {SERVER6}\nsearch test.example\n"),
            (text, _) => text.to_owned(),
        };
        lay_over("/etc/resolv.conf", &resolv_conf);
        lay_over("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
        lay_over("/etc/subuid", "");
        lay_over("/etc/subgid", "");
        let tun = plan.tun && usable_tun();
        netns::build(plan);
        let powers = plan.powers;
        Self { tun, powers }
    }

    /// `mossnet ARGS` in `host`, as an unprivileged user without any capability, with its own root.
    pub fn mossnet<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Cmd {
        self.mossnet_at(ROOT, args)
    }

    /// The same with another `--root`.
    pub fn mossnet_at<S: AsRef<OsStr>>(
        &self,
        root: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Cmd {
        let head = ["mossnet", "--root", root].map(OsStr::new);
        let args: Vec<_> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let args = args.iter().map(|arg| arg.as_os_str());
        self.user(head.into_iter().chain(args))
    }

    /// `mossnet ARGS` where only `path` is searched for programs.
    pub fn mossnet_with_path(&self, path: &str, args: &[&str]) -> Cmd {
        Cmd::new(["/usr/bin/setpriv", "--inh-caps=-all", "--ambient-caps=-all"])
            .then(["--", "/run/world/bin/mossnet", "--root", ROOT])
            .then(args)
            .env("PATH", path)
    }

    /// `mossnet run --rm -- ARGV`.
    pub fn run<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Cmd {
        let head = ["run", "--rm", "--"].map(|arg| OsStr::new(arg).to_owned());
        let argv = argv.into_iter().map(|arg| arg.as_ref().to_owned());
        self.mossnet(head.into_iter().chain(argv))
    }

    /// `mossnet run --rm -- sh -c SCRIPT`.
    pub fn sh(&self, script: &str) -> Cmd {
        self.run(["sh", "-c", script])
    }

    /// `mossnet run -d --name NAME -- ARGV`, to its success.
    #[track_caller]
    pub fn detached<S: AsRef<OsStr>>(&self, name: &str, argv: impl IntoIterator<Item = S>) {
        let head = ["run", "-d", "--name", name, "--"].map(|arg| OsStr::new(arg).to_owned());
        let argv = argv.into_iter().map(|arg| arg.as_ref().to_owned());
        self.mossnet(head.into_iter().chain(argv)).ok();
    }

    /// A program in `host` as the unprivileged user.
    pub fn user<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Cmd {
        let drop = ["setpriv", "--inh-caps=-all", "--ambient-caps=-all"];
        let change = ["--reuid=1000", "--regid=1000", "--clear-groups"];
        let change: &[&str] = match self.powers {
            Powers::User => &[],
            Powers::Root => &change,
        };
        Cmd::new(argv).under(drop.iter().chain(change).chain(&["--"]))
    }

    /// A program in `host` with every capability in the world.
    pub fn host<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Cmd {
        Cmd::new(argv)
    }

    /// A program in `server`.
    pub fn server<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Cmd {
        Cmd::new(argv).under(["nsenter", "--net=/run/netns/server", "--"])
    }

    /// True if /dev/net/tun was asked for and works.
    pub fn has_tun(&self) -> bool {
        self.tun
    }

    /// `mossnet inspect NAME`, the first element.
    #[track_caller]
    pub fn inspect(&self, name: &str) -> serde_json::Value {
        let text = self.mossnet(["inspect", name]).ok();
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON from inspect");
        match value {
            serde_json::Value::Array(mut all) => all.remove(0),
            one => one,
        }
    }

    /// The first IPv4 or IPv6 address of a sandbox, without its prefix length.
    #[track_caller]
    pub fn address(&self, name: &str, ipv6: bool) -> String {
        let info = self.inspect(name);
        let addresses = info["Endpoints"][0]["Addresses"]
            .as_array()
            .unwrap_or_else(|| panic!("no endpoint in {info}"));
        addresses
            .iter()
            .filter_map(|a| a.as_str())
            .find(|a| a.contains(':') == ipv6)
            .and_then(|a| a.split('/').next())
            .unwrap_or_else(|| panic!("no such address in {info}"))
            .to_owned()
    }
}

/// How many times longer than a machine of its own would need anything may take: tests run beside each
/// other, and beside whatever else the machine does.
pub const PATIENCE: u32 = 4;

/// Waits until `condition` holds; fails the test after a multiple of `limit`.
#[track_caller]
pub fn eventually(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit * PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Seconds.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// True if `program` is installed; says that the test is skipped otherwise.
pub fn installed(program: &str) -> bool {
    let found = command::PATH
        .split(':')
        .any(|directory| Path::new(directory).join(program).exists());
    if !found {
        let strict = std::env::var_os(enter::STRICT).is_some();
        assert!(!strict, "{} is set and {program} is missing", enter::STRICT);
        enter::skip(&format!("{program} is not installed"));
    }
    found
}

fn private_directories(powers: Powers) {
    let product = std::env::var_os(enter::PRODUCT).expect("path of the program under test");
    let program = fs::File::open(&product).expect("open the program under test");
    let itself = fs::File::open("/proc/self/exe").expect("open the own program");
    let tun = std::env::var_os(enter::TUN).and_then(|path| fs::File::open(path).ok());
    let helper = granted::program(powers);
    match powers {
        Powers::User => tmpfs("/run", "mode=0755,uid=1000,gid=1000"),
        Powers::Root => tmpfs("/run", "mode=0755"),
    }
    for directory in ["bin", "home", "etc"] {
        fs::create_dir_all(Path::new("/run/world").join(directory)).expect("make a directory");
    }
    fs::create_dir_all("/run/user/1000").expect("make a directory");
    fs::set_permissions("/run/user/1000", fs::Permissions::from_mode(0o700)).expect("close it");
    bind_file(&program, "/run/world/bin/mossnet");
    bind_file(&itself, "/run/world/bin/itself");
    if let Some(tun) = tun {
        bind_file(&tun, "/run/world/tun");
    }
    if let Some(helper) = helper {
        granted::install(helper);
        let places = ["/run/world", "/run/world/home", "/run/user/1000"];
        for place in places {
            std::os::unix::fs::chown(place, Some(1000), Some(1000)).expect("give it to the user");
        }
    }
    // The programs are reached by then: what lies in /tmp (a checkout, say) may vanish.
    tmpfs("/tmp", "mode=1777");
}

fn tmpfs(place: &str, options: &str) {
    mount(
        Some("tmpfs"),
        place,
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some(options),
    )
    .unwrap_or_else(|error| panic!("mount a tmpfs on {place}: {error}"));
}

fn bind_file(source: &fs::File, target: &str) {
    use std::os::fd::AsRawFd;
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    fs::write(target, "").expect("make a mount point");
    bind(Path::new(&source), Path::new(target));
}

fn bind(source: &Path, target: &Path) {
    let nothing: Option<&str> = None;
    mount(Some(source), target, nothing, MsFlags::MS_BIND, nothing).unwrap_or_else(|error| {
        panic!(
            "bind {} over {}: {error}",
            source.display(),
            target.display()
        );
    });
}

/// Shows `text` as the file `path` in this world; a file that the machine lacks stays absent.
pub fn lay_over(path: &str, text: &str) {
    let name = path.rsplit('/').next().unwrap_or(path);
    let source = Path::new("/run/world/etc").join(name);
    fs::write(&source, text).expect("write a file of the world");
    let target = match fs::read_link(path) {
        Ok(link) => Path::new("/etc").join(link),
        Err(_) => path.into(),
    };
    if !target.exists() {
        // A link into /run, such as systemd-resolved's, points to nothing in the private /run.
        let made = target.parent().map(fs::create_dir_all);
        if made.is_none_or(|made| made.is_err()) || fs::write(&target, "").is_err() {
            return;
        }
    }
    bind(&source, &target);
}

/// Puts a tun device that an unprivileged user may open at /dev/net/tun, if that can be had.
fn usable_tun() -> bool {
    let opens = |path: &str| {
        fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .is_ok()
    };
    let ours = Path::new("/run/world/tun");
    if !opens("/dev/net/tun") && ours.exists() && Path::new("/dev/net/tun").exists() {
        bind(ours, Path::new("/dev/net/tun"));
    }
    opens("/dev/net/tun")
}
