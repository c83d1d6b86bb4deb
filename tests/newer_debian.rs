//! The podman of a newer Debian, with our drop-ins, in the test world: what podman 4.3
//! (`subids`) does not do. `tests/newer-debian` makes such a Debian, MOSSNET_TEST_DEBIAN names it.
//!
//! Run by root, who pivots into the directory, in a mount namespace of its own, with a layer above it so that
//! nothing in it changes; podman is started by uid 1000, which has subordinate ids there, and once by root.
//! Its host is the world's `host`, the outside is `server`.

mod create;
mod networks;
mod outside;
mod rootful;

use crate::world::{Cmd, Running, World, enter, eventually, seconds};
use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

/// Names the directory.
const DEBIAN: &str = "MOSSNET_TEST_DEBIAN";
const HOLD: &str = include_str!("newer_debian/hold.sh");
/// Where the layer is, on a tmpfs.
const PLACE: &str = "/run/debian";

/// An image of busybox alone, `bb`; containers see this Debian's programs in /usr.
const IMAGE: &str = "mkdir -p /tmp/image/usr && cd /tmp && cp /bin/busybox image/busybox
    for name in bin sbin lib lib64; do ln -s usr/$name image/$name; done
    tar -C image -cf image.tar . && podman import -q image.tar bb";
const PROGRAMS: &str = "-v=/usr:/usr:ro";

/// A web server that says `hello`, and an echo of datagrams.
const SERVE: &str =
    "mkdir /srv; echo hello >/srv/x; /busybox httpd -p '[::]:80' -h /srv; exec python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((\"\", 90))
while True:
    s.sendto(*s.recvfrom(99))'";

/// Root's containers are not to leave control groups on the machine.
const ROOTS_CONF: &str = "/etc/containers/test.conf";
const NO_CGROUPS: &str =
    "[containers]\ncgroups = 'disabled'\n[engine]\ncgroup_manager = 'cgroupfs'\n";

/// Runs `body` with podman in a newer Debian; says that the test is skipped where there is none.
#[track_caller]
fn test<F: FnOnce(&World, &Podman)>(body: F) {
    test_as(false, body);
}

/// The same as this user, or as root.
#[track_caller]
fn test_as<F: FnOnce(&World, &Podman)>(root: bool, body: F) {
    let name = enter::test_name::<F>();
    let Some(directory) = std::env::var_os(DEBIAN) else {
        let reason = format!("no newer Debian: tests/newer-debian makes one, {DEBIAN} names it");
        enter::skip_here(&name, &reason);
        return;
    };
    let directory = Path::new(&directory).to_owned();
    let world = World::builder().privileged().deadline(300);
    world.test_as(&name, |world| {
        let podman = Podman::start(&directory, root);
        body(world, &podman);
        podman.ends_clean();
    });
}

/// Podman in there.
struct Podman {
    /// Whose mount namespace it is.
    holder: Running,
    root: bool,
}

impl Podman {
    #[track_caller]
    fn start(directory: &Path, root: bool) -> Self {
        let mark = directory.join(".mossnet-complete");
        let made = fs::read_to_string(&mark);
        let made = made.unwrap_or_else(|error| panic!("{}: {error}", mark.display()));
        println!("{}", made.trim());
        fs::create_dir(PLACE).expect("make a directory");
        Cmd::new(["mount", "-t", "tmpfs", "none", PLACE]).ok();
        let mut holder = Cmd::new(["unshare", "--mount", "sh", "-c", HOLD, "hold"])
            .then([
                directory.as_os_str(),
                PLACE.as_ref(),
                "/run/world/bin/mossnet".as_ref(),
            ])
            .timeout(seconds(600))
            .start();
        holder.expect("ready");
        let podman = Self { holder, root };
        if root {
            let write = format!("printf '%s' \"{NO_CGROUPS}\" >{ROOTS_CONF}");
            podman.sh(&write).ok();
        }
        podman.sh(IMAGE).ok();
        podman.sh("mossnet podman install").ok();
        podman
    }

    /// A program there, as the user or as root.
    fn cmd<S: AsRef<std::ffi::OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Cmd {
        let mounts = format!("--mount=/proc/{}/ns/mnt", self.holder.pid());
        let cmd = Cmd::new(["nsenter", mounts.as_str(), "--"]);
        let cmd = match self.root {
            true => cmd
                .env("HOME", "/root")
                .env("CONTAINERS_CONF_OVERRIDE", ROOTS_CONF),
            false => cmd
                .then(["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"])
                .env("HOME", "/home/user")
                .env("XDG_RUNTIME_DIR", "/run/user/1000"),
        };
        cmd.then(argv)
            .env("PATH", "/usr/local/bin:/usr/bin:/usr/sbin:/usr/lib/podman")
            .timeout(seconds(120))
    }

    fn sh(&self, script: &str) -> Cmd {
        self.cmd(["sh", "-ec", script])
    }

    fn podman(&self, words: &[&str]) -> Cmd {
        self.cmd(["podman"]).then(words)
    }

    /// `podman network create` with these words.
    #[track_caller]
    fn network(&self, words: &[&str]) {
        self.podman(&[&["network", "create"], words].concat()).ok();
    }

    /// Runs `sh -c SCRIPT` in a new container with these options; what it prints.
    #[track_caller]
    fn run(&self, options: &[&str], script: &str) -> String {
        let words = [
            &["run", "--rm", PROGRAMS],
            options,
            &["bb", "sh", "-c", script],
        ];
        self.podman(&words.concat()).ok()
    }

    /// Starts a container that goes on.
    #[track_caller]
    fn detached(&self, name: &str, options: &[&str], script: &str) {
        let begin = ["run", "-d", "--name", name, PROGRAMS];
        let words = [&begin, options, &["bb", "sh", "-c", script]].concat();
        self.podman(&words).ok();
    }

    /// What `podman network inspect` says.
    #[track_caller]
    fn inspected(&self, network: &str) -> serde_json::Value {
        let text = self.podman(&["network", "inspect", network]).ok();
        let mut all: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
        all.remove(0)
    }

    /// Removes every container, and waits until nothing tells of them.
    #[track_caller]
    fn ends_clean(&self) {
        self.podman(&["pod", "rm", "-fa", "-t", "0"]).ok();
        self.podman(&["rm", "-fa", "-t", "0"]).ok();
        let networks = match self.root {
            true => "/run/containers/networks",
            false => "/run/user/1000/containers/networks",
        };
        let look = format!(
            "find {networks}/aardvark-dns {networks}/mossnet.json {networks}/rootless-netns \
             -type f 2>/dev/null || true; cat /proc/[0-9]*/comm
             ip -o link show type bridge; nft list tables"
        );
        let mut left = String::new();
        let program = |line: &str| {
            [
                "aardvark",
                "pasta",
                "rootlessport",
                "conmon",
                "/run/",
                "table",
            ]
            .iter()
            .any(|begin| line.starts_with(begin))
                || line.contains(": podman")
        };
        let deadline = std::time::Instant::now() + seconds(20);
        while std::time::Instant::now() < deadline {
            left = self.sh(&look).run().stdout;
            if !left.lines().any(program) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("left: {left}");
    }
}

/// What a web server of a container says to whoever asks `at` from netns `from`.
fn hello(from: &str, at: &str) -> bool {
    let at: SocketAddr = at.parse().expect("an address");
    crate::world::within(from, || {
        use std::io::{Read, Write};
        let mut stream = TcpStream::connect_timeout(&at, seconds(2)).ok()?;
        stream.set_read_timeout(Some(seconds(2))).ok()?;
        stream.write_all(b"GET /x HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.ends_with("\r\n\r\nhello\n").then_some(())
    })
    .is_some()
}

/// Whether datagrams come back.
fn echoes(from: &str, at: &str) -> bool {
    let at: SocketAddr = at.parse().expect("an address");
    crate::world::within(from, || {
        let any: SocketAddr = match at {
            SocketAddr::V4(_) => "0.0.0.0:0".parse().expect("an address"),
            SocketAddr::V6(_) => "[::]:0".parse().expect("an address"),
        };
        let socket = UdpSocket::bind(any).ok()?;
        socket.set_read_timeout(Some(seconds(1))).ok()?;
        socket.connect(at).ok()?;
        socket.send(b"ping").ok()?;
        let mut answer = [0; 16];
        let length = socket.recv(&mut answer).ok()?;
        (&answer[..length] == b"ping").then_some(())
    })
    .is_some()
}

#[track_caller]
fn soon(what: &str, condition: impl FnMut() -> bool) {
    eventually(seconds(30), what, condition);
}
