//! Debian's podman 4.3 without root, with our netavark and aardvark-dns: what its users do, and what
//! happens to them. Networks live in namespaces of podman's; only loopback ports are the machine's.

use crate::world::{Cmd, enter, eventually, inspect, installed, seconds};
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// slirp4netns, with the tun device that the tests have.
const SLIRP: &str = "#!/bin/sh
exec unshare -m sh -c 'mount --bind TUN /dev/net/tun && exec slirp4netns \"$@\"' slirp4netns \"$@\"
";

/// crun refuses to work where cgroups of both versions are mounted together; it does not see the second.
const CRUN: &str = "#!/bin/sh
[ -d /sys/fs/cgroup/unified ] || exec crun \"$@\"
exec unshare -m sh -c 'mount -t tmpfs none /sys/fs/cgroup/unified && exec crun \"$@\"' crun \"$@\"
";

/// A web server that says `hello`, and an echo of datagrams.
const SERVE: &str =
    "mkdir /srv; echo hello >/srv/x; /busybox httpd -p '[::]:80' -h /srv; exec python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((\"\", 90))
while True:
    s.sendto(*s.recvfrom(99))'";

/// For containers: what the image has links to.
pub(super) const PROGRAMS: &str = "-v=/usr:/usr:ro";
const FETCH: &str = "curl -sS -m 20 http://web/x";

/// Podman with a home and a runtime directory of its own, and the image `bb`: busybox, with the
/// programs of this machine.
pub(super) struct Podman {
    directory: tempfile::TempDir,
}

impl Podman {
    /// Says that the test is skipped where something is missing.
    pub(super) fn find(test: &str) -> Option<Self> {
        let test = format!("subids::{test}");
        super::first_subordinate_id(&test)?;
        let programs = ["podman", "crun", "slirp4netns", "busybox", "nft", "curl"];
        if let Some(missing) = programs.iter().find(|program| !installed(program)) {
            enter::skip_outside(&test, &format!("{missing} is not installed"));
            return None;
        }
        let tun = std::env::var("MOSSNET_TEST_TUN").unwrap_or("/dev/net/tun".to_owned());
        if fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&tun)
            .is_err()
        {
            enter::skip_outside(&test, &format!("{tun} cannot be opened"));
            return None;
        }
        let podman = Self {
            directory: tempfile::tempdir().expect("a directory"),
        };
        podman.furnish(&tun);
        // With none of our programs in it: a machine whose cgroups or mounts podman cannot use is not ours.
        let alone = ["run", "--rm", "--network", "none", "bb", "/busybox", "true"];
        let output = podman.podman(&alone).run();
        if output.code != 0 {
            let reason = output.stderr.lines().last().unwrap_or_default().to_owned();
            enter::skip_here(&test, &format!("podman runs no container here: {reason}"));
            return None;
        }
        Some(podman)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn furnish(&self, tun: &str) {
        for name in ["home/.config/containers", "run", "bin", "image/usr"] {
            fs::create_dir_all(self.path(name)).expect("a directory");
        }
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(self.path("run"), private).expect("a private directory");
        self.program("slirp4netns", &SLIRP.replace("TUN", tun));
        self.program("crun", CRUN);
        let bin = self.path("bin");
        let conf = format!(
            "[engine]\ncgroup_manager = 'cgroupfs'\nevents_logger = 'file'\nruntime = 'crun'\n\
             network_cmd_path = '{0}/slirp4netns'\n[engine.runtimes]\ncrun = ['{0}/crun']\n\
             [containers]\nlog_driver = 'k8s-file'\n[network]\nnetwork_backend = 'netavark'\n",
            bin.display()
        );
        let containers = self.path("home/.config/containers");
        fs::write(containers.join("containers.conf"), conf).expect("a configuration");
        let storage = format!(
            "[storage]\ndriver = 'vfs'\nrunroot = '{}'\ngraphroot = '{}'\n",
            self.path("run/containers").display(),
            self.path("home/.local/share/containers/storage").display()
        );
        fs::write(containers.join("storage.conf"), storage).expect("a configuration");
        let image = "cp \"$(command -v busybox)\" image/busybox
            for name in bin sbin lib lib64; do ln -s usr/$name image/$name; done
            printf '#!/busybox sh\\nexec /busybox sleep 100000\\n' >image/pause; chmod 755 image/pause
            tar -C image -cf image.tar .";
        self.cmd(["sh", "-ec", image]).ok();
        self.mossnet(["podman", "install"]).ok();
        self.podman(&["import", "image.tar", "bb"]).ok();
    }

    pub(super) fn program(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, text).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }

    pub(super) fn cmd<const N: usize>(&self, argv: [&str; N]) -> Cmd {
        let home = self.path("home");
        Cmd::new(argv)
            .directory(self.directory.path())
            .env("HOME", &home)
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_CONFIG_HOME", home.join(".config"))
            .env("XDG_DATA_HOME", home.join(".local/share"))
            .env("TMPDIR", self.directory.path())
            .timeout(seconds(60))
    }

    pub(super) fn mossnet<const N: usize>(&self, words: [&str; N]) -> Cmd {
        self.cmd([env!("CARGO_BIN_EXE_mossnet")]).then(words)
    }

    pub(super) fn podman(&self, words: &[&str]) -> Cmd {
        self.cmd(["podman"]).then(words)
    }

    /// Runs `sh -c SCRIPT` in a new container with these options; what it prints.
    #[track_caller]
    pub(super) fn run(&self, options: &[&str], script: &str) -> String {
        let words = [
            &["run", "--rm", PROGRAMS],
            options,
            &["bb", "sh", "-c", script],
        ]
        .concat();
        self.podman(&words).ok()
    }

    /// Starts a container that goes on.
    #[track_caller]
    pub(super) fn start(&self, name: &str, options: &[&str], script: &str) {
        let begin = ["run", "-d", "--name", name, PROGRAMS];
        let words = [&begin, options, &["bb", "sh", "-c", script]].concat();
        self.podman(&words).ok();
    }

    /// Processes of this one's: their arguments, environment or mounts say so.
    fn processes(&self) -> Vec<i32> {
        let place = self.directory.path().display().to_string();
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let ours = |pid: &i32| {
            ["cmdline", "environ", "mountinfo"].iter().any(|file| {
                let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                String::from_utf8_lossy(&text).contains(&place)
            })
        };
        pids.filter(ours).collect()
    }

    fn is_running(&self, program: &str) -> bool {
        self.processes().iter().any(|pid| {
            let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(program)
        })
    }

    /// Removes every container, and waits until nothing tells of them.
    #[track_caller]
    pub(super) fn ends_clean(&self) {
        self.podman(&["pod", "rm", "-fa", "-t", "0"]).ok();
        self.podman(&["rm", "-fa", "-t", "0"]).ok();
        eventually(seconds(15), "processes and files are gone", || {
            !self.is_running("aardvark-dns")
                && !self.is_running("slirp4netns")
                && !self.path("run/containers/networks/mossnet.json").exists()
                && self.has_no("run/containers/networks/aardvark-dns")
                && self.has_no("run/netns")
        });
    }

    pub(super) fn has_no(&self, entries: &str) -> bool {
        let entries = fs::read_dir(self.path(entries));
        entries.map_or(true, |mut entries| entries.next().is_none())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.podman(&["ps", "-a"]).run());
            let look = "find run/netns run/containers/networks; tail -n 99 run/containers/networks/aardvark-dns/*; ps -eo pid,args | grep $PWD; true";
            eprintln!("{}", self.cmd(["sh", "-c", look]).run());
        }
        let _ = self.podman(&["pod", "rm", "-fa", "-t", "0"]).run();
        let _ = self.podman(&["rm", "-fa", "-t", "0"]).run();
        let home = self.path("home");
        let _ = self
            .podman(&["unshare", "rm", "-rf", &home.to_string_lossy()])
            .run();
        inspect::kill_hard(&self.processes());
    }
}

/// A port of the loopback that is free for now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its number").port()
}

fn echoes(port: u16) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let patience = Duration::from_secs(2);
    socket.set_read_timeout(Some(patience)).expect("a timeout");
    let mut answer = [0; 16];
    socket.send_to(b"ping", ("127.0.0.1", port)).is_ok()
        && socket
            .recv(&mut answer)
            .is_ok_and(|length| &answer[..length] == b"ping")
}

#[test]
fn networks_names_and_ports() {
    let Some(podman) = Podman::find("podman::networks_names_and_ports") else {
        return;
    };
    assert!(
        podman
            .run(&["--network=podman"], "ip -4 addr show eth0")
            .contains("inet 10.88.")
    );
    podman.podman(&["network", "create", "a"]).ok();
    podman.podman(&["network", "create", "b"]).ok();
    let (tcp, udp) = (free_port(), free_port());
    let ports = [
        format!("-p=127.0.0.1:{tcp}:80"),
        format!("-p=127.0.0.1:{udp}:90/udp"),
    ];
    let options = ["--network=a", "--network-alias=www", &ports[0], &ports[1]];
    podman.start("web", &options, SERVE);
    let url = format!("http://127.0.0.1:{tcp}/x");
    let serves = || podman.cmd(["curl", "-s", "-m", "2", &url]).run().stdout == "hello\n";
    eventually(seconds(10), "the port leads to the container", serves);
    eventually(seconds(10), "datagrams, too", || echoes(udp));
    let fetch = "curl -sS -m 20 http://web/x && curl -sS -m 20 http://www.dns.podman/x";
    assert_eq!(podman.run(&["--network=a"], fetch), "hello\nhello\n");
    // Onto another network and off again, while it runs.
    podman.podman(&["network", "connect", "b", "web"]).ok();
    assert_eq!(podman.run(&["--network=b"], FETCH), "hello\n");
    podman.podman(&["network", "disconnect", "b", "web"]).ok();
    assert_eq!(
        podman.run(&["--network=b"], "getent hosts web || echo unknown"),
        "unknown\n"
    );
    // A restart, and rules that somebody has flushed.
    podman.podman(&["restart", "-t", "0", "web"]).ok();
    eventually(seconds(10), "it serves again", serves);
    let inside = ["unshare", "--rootless-netns", "nft"];
    let nft = |words: &[&str]| podman.podman(&[&inside, words].concat()).ok();
    assert!(nft(&["list", "ruleset"]).contains("table inet mossnet-podman"));
    nft(&["flush", "ruleset"]);
    podman.podman(&["network", "reload", "web"]).ok();
    assert!(nft(&["list", "ruleset"]).contains(&format!("tcp . {tcp} : ")));
    assert_eq!(podman.run(&["--network=a"], fetch), "hello\nhello\n");
    podman.ends_clean();
}

#[test]
fn internal_networks_and_both_families() {
    let Some(podman) = Podman::find("podman::internal_networks_and_both_families") else {
        return;
    };
    podman
        .podman(&["network", "create", "--internal", "inner"])
        .ok();
    let subnets = ["--subnet=10.99.7.0/24", "--subnet=fd00:99:7::/64"];
    let create = ["network", "create", "--ipv6", subnets[0], subnets[1], "six"];
    podman.podman(&create).ok();
    podman.start("web", &["--network=inner", "--network=six"], SERVE);
    let seen = podman.run(
        &["--network=inner"],
        "ip route; curl -sS -m 20 http://web/x; getent hosts www.example.com || echo unknown",
    );
    assert!(!seen.contains("default"), "{seen}");
    assert!(seen.ends_with("hello\nunknown\n"), "{seen}");
    let seen = podman.run(
        &[
            "--network=six",
            "--ip=10.99.7.77",
            "--ip6=fd00:99:7::77",
            "--mac-address=02:42:00:00:00:77",
        ],
        "ip addr show eth0; ip -6 route; curl -sS -6 -m 20 http://web/x",
    );
    for words in [
        "10.99.7.77/24",
        "fd00:99:7::77/64",
        "02:42:00:00:00:77",
        "default via fd00:99:7::1",
        "hello",
    ] {
        assert!(seen.contains(words), "{words}: {seen}");
    }
    podman.ends_clean();
}

#[test]
fn pods_and_builds() {
    let Some(podman) = Podman::find("podman::pods_and_builds") else {
        return;
    };
    podman.podman(&["network", "create", "a"]).ok();
    let port = free_port();
    let publish = format!("-p=127.0.0.1:{port}:80");
    let infra = ["--infra-image=bb", "--infra-command=/pause"];
    let create = [
        "pod",
        "create",
        "--name",
        "pod",
        "--network=a",
        &publish,
        infra[0],
        infra[1],
    ];
    podman.podman(&create).ok();
    podman.start("web", &["--pod=pod"], SERVE);
    let neighbour = podman.run(&["--pod=pod"], "curl -sS -m 20 http://127.0.0.1/x");
    assert_eq!(neighbour, "hello\n");
    let url = format!("http://127.0.0.1:{port}/x");
    assert_eq!(podman.cmd(["curl", "-s", "-m", "20", &url]).ok(), "hello\n");
    // What a build does at each RUN: podman 4.3 without root lets none of its own builds onto a network.
    let step = "ip -4 addr show eth0 | grep inet && curl -sS -m 20 -o /fetched http://pod/x";
    let run = [
        "run",
        "--name=step",
        PROGRAMS,
        "--network=a",
        "bb",
        "sh",
        "-c",
        step,
    ];
    let seen = podman.podman(&run).ok();
    assert!(seen.contains("inet 10.89."), "{seen}");
    podman.podman(&["commit", "-q", "step", "built"]).ok();
    let fetched = podman
        .podman(&["run", "--rm", PROGRAMS, "built", "cat", "/fetched"])
        .ok();
    assert_eq!(fetched, "hello\n");
    podman.ends_clean();
}

#[test]
fn kills_and_lost_directories() {
    let Some(podman) = Podman::find("podman::kills_and_lost_directories") else {
        return;
    };
    podman.podman(&["network", "create", "a"]).ok();
    podman.start("web", &["--network=a"], SERVE);
    // The process that watches a container.
    let conmon = podman
        .podman(&["inspect", "-f", "{{.State.ConmonPid}}", "web"])
        .ok();
    inspect::kill_hard(&[conmon.trim().parse().expect("a process id")]);
    podman.podman(&["rm", "-f", "-t", "0", "web"]).ok();
    assert_eq!(podman.run(&["--network=a"], "echo on"), "on\n");
    // Podman itself, while it starts a container. Another one keeps podman's own namespace, which podman
    // 4.3 cannot mend when it is killed while it makes that.
    podman.start("resident", &["--network=a"], SERVE);
    for delay in ["50", "150", "250", "350"] {
        let name = format!("--name=cut{delay}");
        let run = ["run", PROGRAMS, "--network=a", &name, "bb", "sleep", "100"];
        let running = podman.podman(&run).start();
        std::thread::sleep(Duration::from_millis(delay.parse().expect("a number")));
        inspect::kill_hard(&[running.pid()]);
        running.wait();
        // What podman itself can make of it then is its own affair.
        let _ = podman
            .podman(&["rm", "-f", "-i", "-t", "0", &name[7..]])
            .run();
        let other = podman.run(&["--network=a"], "echo on");
        assert_eq!(other, "on\n", "after {delay} ms");
    }
    // As after a reboot: no process, no runtime directory. Not before is everything gone: a podman that is
    // killed between its namespace and its record of that never tears it down.
    let _ = podman.podman(&["rm", "-fa", "-t", "0"]).run();
    podman.start("web", &["--network=a"], SERVE);
    inspect::kill_hard(&podman.processes());
    lose(&podman.path("run"));
    podman.podman(&["start", "web"]).ok();
    let fetch = FETCH;
    eventually(seconds(10), "it serves again", || {
        podman.run(&["--network=a"], fetch) == "hello\n"
    });
    podman.ends_clean();
    podman.mossnet(["podman", "uninstall"]).ok();
    assert!(
        !podman
            .path("home/.config/containers/containers.conf.d")
            .exists()
    );
}

/// Empties a directory.
fn lose(directory: &Path) {
    for entry in fs::read_dir(directory).expect("the directory").flatten() {
        let path = entry.path();
        let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
    }
}
