//! The host of one test.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Where the helper is installed.
pub const PROGRAM: &str = "/mnt/mossnet-helper";
/// What an admin runs.
const INSTALL: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../contrib/mossnet-helper/install"
);
/// What is installed.
const BUILT: &str = "/mnt/built";
/// Group that only the program's file has.
pub const GROUP: u32 = 990;
/// Group of both users, with grants of its own in some tests.
pub const SHARED: u32 = 991;
pub const ALICE: u32 = 1000;
pub const BOB: u32 = 1001;
pub const MALLORY: u32 = 1002;

/// Everything that the tests are about, for two users.
pub const GRANTS: &str = r#"
[[grant]]
user = "alice"
verbs = ["veth", "bridge", "uplink", "bind"]
bridges = [{ name = "br0", addresses = ["192.168.7.0/28", "fd00:7::/124"] }, { name = "nic0" }]
subnets = ["10.89.0.0/16", "fd00:89::/48"]
ports = ["80/tcp", "53/udp", "443-444/tcp"]
quota = { interfaces = 3, ports = 3, published-ports = 4, requests-per-minute = 6000 }

[[grant]]
user = 1001
verbs = ["veth", "uplink", "bridge"]
bridges = [{ name = "br0", addresses = ["192.168.7.16/28"] }]
subnets = ["10.89.0.0/16", "10.90.0.0/16"]
quota = { requests-per-minute = 6000 }
"#;

pub struct World {
    lines: Arc<Mutex<Vec<String>>>,
}

/// Root, in the machine's own user namespace.
pub fn is_possible() -> bool {
    let initial = "user:[4026531837]";
    let own = fs::read_link("/proc/self/ns/user").is_ok_and(|link| link.as_os_str() == initial);
    own && nix::unistd::geteuid().is_root()
}

impl World {
    pub fn enter() -> Self {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("namespaces");
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("private mounts");
        let built = std::env::var("MOSSNET_SETUID_PROGRAM");
        let built = built.unwrap_or_else(|_| env!("CARGO_BIN_EXE_mossnet-helper").to_owned());
        let built = coverage::redirect(fs::read(built).expect("the program"));
        for place in ["/etc", "/run", "/mnt"] {
            tmpfs(place);
        }
        devices();
        fs::write(BUILT, built).expect("the program");
        coverage::prepare();
        let passwd = "root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\nbob:x:1001:1001::/:/bin/sh\nmallory:x:1002:1002::/:/bin/sh\n";
        fs::write("/etc/passwd", passwd).expect("users");
        let group = "root:x:0:\nalice:x:1000:\nmossnet:x:990:\nshared:x:991:alice,bob\n";
        fs::write("/etc/group", group).expect("groups");
        fs::create_dir("/etc/mossnet").expect("a directory");
        let log = UnixDatagram::bind("/dev/log").expect("a log");
        fs::set_permissions("/dev/log", fs::Permissions::from_mode(0o666)).expect("a log");
        let world = Self {
            lines: Arc::default(),
        };
        let lines = Arc::clone(&world.lines);
        // Read at once: there is room for a few lines only.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = log.recv(&mut buffer) {
                let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
                lines.lock().expect("the lines").push(line);
            }
        });
        world.install_with_capabilities();
        world.grant(GRANTS);
        ip("link set lo up");
        sysctl("net/ipv4/ip_forward", "1");
        sysctl("net/ipv6/conf/all/forwarding", "1");
        world
    }

    pub fn install_with_capabilities(&self) {
        run(Command::new(INSTALL).args([BUILT, PROGRAM]));
    }

    /// The other way to install it.
    pub fn install_setuid_root(&self) {
        fs::remove_dir_all("/run/mossnet").expect("removed");
        run(Command::new(INSTALL).args(["--setuid", BUILT, PROGRAM]));
    }

    pub fn grant(&self, text: &str) {
        let path = "/etc/mossnet/grants.toml";
        let _ = fs::remove_file(path);
        fs::write(path, text).expect("grants");
        set_mode(path, 0o644);
    }

    fn last_line(&self) -> String {
        let lines = self.lines.lock().expect("the lines");
        lines.last().cloned().unwrap_or_default()
    }

    /// The last line of the log says this, once it has been read.
    #[track_caller]
    pub fn expect_logged(&self, words: &str) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.last_line().contains(words) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let last = self.last_line();
        assert!(last.contains(words), "{words:?} is not in {last:?}");
        assert!(!last.contains('\n'), "{last:?}");
    }

    /// A test leaves neither link nor table; the record is checked by its reconciliation.
    pub fn expect_nothing_left(&self) {
        // Namespaces that end take their links with them, in the kernel's own time.
        eventually("no link is left", || {
            let links = output(Command::new("ip").args(["-o", "link"]));
            !links.contains(" mnu") && !links.contains(" mnb")
        });
        // Root needs no grant for that.
        run(Command::new(PROGRAM).arg("gc"));
        let tables = output(Command::new("nft").args(["list", "tables"]));
        assert!(!tables.contains("mossnet"), "{tables}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        coverage::collect();
        if std::thread::panicking() {
            let lines = self.lines.lock().expect("the lines");
            let last = lines.iter().rev().take(5).rev();
            last.for_each(|line| eprintln!("log: {line}"));
        }
    }
}

fn tmpfs(place: &str) {
    let options = Some("mode=755");
    mount(
        Some("tmpfs"),
        place,
        Some("tmpfs"),
        MsFlags::empty(),
        options,
    )
    .expect("tmpfs");
}

/// A /dev with the least that programs want, and room for a log.
fn devices() {
    tmpfs("/dev");
    for (name, minor) in [
        ("null", 3),
        ("zero", 5),
        ("full", 7),
        ("random", 8),
        ("urandom", 9),
    ] {
        let path = format!("/dev/{name}");
        let mode = Mode::from_bits_truncate(0o666);
        mknod(Path::new(&path), SFlag::S_IFCHR, mode, makedev(1, minor)).expect("a device");
        set_mode(&path, 0o666);
    }
    symlink("/proc/self/fd", "/dev/fd").expect("a link");
}

pub fn set_mode(path: &str, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

pub fn sysctl(path: &str, value: &str) {
    fs::write(format!("/proc/sys/{path}"), value).expect(path);
}

#[track_caller]
pub fn run(command: &mut Command) {
    let status = command.status().expect("a command");
    assert!(status.success(), "{command:?}: {status}");
}

#[track_caller]
pub fn output(command: &mut Command) -> String {
    let output = command.output().expect("a command");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {output:?}");
    text
}

#[track_caller]
pub fn ip(words: &str) {
    run(Command::new("ip").args(words.split(' ')));
}

/// This is a run of setuid/coverage.sh.
pub fn is_instrumented() -> bool {
    std::env::var_os(coverage::WANTED).is_some()
}

/// Waits until `done` holds.
#[track_caller]
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "not within 20 seconds: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Where setuid/coverage.sh has built an instrumented program, its counters are kept: it clears its
/// environment, so that the name of their file is put into its copy.
mod coverage {
    use super::{fs, set_mode};
    use std::path::Path;

    pub const WANTED: &str = "MOSSNET_SETUID_COVERAGE";
    const PLACE: &str = "/mnt/counters";
    const DEFAULT: &[u8] = b"default_%m_%p.profraw\0";
    const OURS: &[u8] = b"/mnt/counters/%p\0\0\0\0\0\0";

    pub fn redirect(mut program: Vec<u8>) -> Vec<u8> {
        assert_eq!(DEFAULT.len(), OURS.len());
        if super::is_instrumented() {
            let mut windows = program.windows(DEFAULT.len());
            let at = windows.position(|window| window == DEFAULT);
            let at = at.expect("an instrumented program");
            program[at..at + OURS.len()].copy_from_slice(OURS);
        }
        program
    }

    pub fn prepare() {
        if super::is_instrumented() {
            fs::create_dir(PLACE).expect("a directory");
            set_mode(PLACE, 0o1777);
        }
    }

    pub fn collect() {
        let Some(directory) = std::env::var_os(WANTED) else {
            return;
        };
        for entry in fs::read_dir(PLACE).into_iter().flatten().flatten() {
            let case = std::process::id();
            let name = format!("{case}-{}.profraw", entry.file_name().to_string_lossy());
            fs::copy(entry.path(), Path::new(&directory).join(name)).expect("a copy");
        }
    }
}
