//! Unprivileged users, and the namespaces that they make.

use crate::world::{PROGRAM, run};
use mossnet_setuid::client::CallError;
use mossnet_setuid::request::{Bridge, Made, Uplink, UplinkMade, Veth};
use mossnet_setuid::{Helper, IfName};
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// The helper, as a user would find it.
pub fn helper() -> Helper {
    Helper::at(PROGRAM)
}

/// Run `body` as a user with these supplementary groups: what it executes has nothing of root.
pub fn as_user<T>(uid: u32, groups: &[u32], body: impl FnOnce() -> T) -> T {
    let (root, root_group) = (Uid::from_raw(0), Gid::from_raw(0));
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).expect("groups");
    setresgid(group, group, root_group).expect("gid");
    setresuid(user, user, root).expect("uid");
    let result = body();
    setresuid(root, root, root).expect("uid");
    setresgid(root_group, root_group, root_group).expect("gid");
    result
}

/// As a user without further groups, with the helper.
pub fn asking<T>(uid: u32, body: impl FnOnce(&Helper) -> T) -> T {
    as_user(uid, &[], || body(&helper()))
}

/// A network namespace that a user has made in a user namespace of its own, for as long as this lives.
pub struct Netns {
    holder: Child,
    file: File,
}

impl Netns {
    pub fn of(uid: u32) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net"]);
        command.uid(uid).gid(uid);
        Self::held_by(command)
    }

    /// Root's own: another host.
    pub fn remote() -> Self {
        let mut command = Command::new("unshare");
        command.arg("--net");
        Self::held_by(command)
    }

    fn held_by(mut command: Command) -> Self {
        command.args(["sh", "-c", "echo made; exec sleep 1000"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut holder = command.spawn().expect("unshare");
        let mut line = String::new();
        let output = holder.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "made\n");
        let file = File::open(format!("/proc/{}/ns/net", holder.id())).expect("a namespace");
        Self { holder, file }
    }

    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// End the process that holds it; the descriptor is left.
    pub fn kill(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }

    /// ip(8) in it.
    #[track_caller]
    pub fn ip(&self, words: &str) {
        let mut command = self.enter("ip");
        run(command.args(words.split(' ')));
    }

    pub fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid()));
        command.arg(program);
        command
    }

    /// Run `body` in it, in a thread of its own.
    pub fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.fd(), CloneFlags::CLONE_NEWNET).expect("the namespace");
                body()
            });
            thread.join().expect("the thread")
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn name(text: &str) -> IfName {
    text.parse().expect("a name")
}

pub fn uplink(subnets: &[&str]) -> Uplink {
    Uplink {
        inside: name("host0"),
        mtu: 1500,
        subnets: subnets
            .iter()
            .map(|net| net.parse().expect("a prefix"))
            .collect(),
    }
}

pub fn bridge(bridge: &str, addresses: &[&str]) -> Bridge {
    Bridge {
        bridge: name(bridge),
        inside: name("eth0"),
        addresses: addresses
            .iter()
            .map(|net| net.parse().expect("an address"))
            .collect(),
    }
}

pub fn veth(first: &str, second: &str) -> Veth {
    Veth {
        first: name(first),
        second: name(second),
        mtu: 1500,
    }
}

/// An uplink, with the router's end set up as the daemon does, and a container's addresses in the router
/// netns itself.
#[track_caller]
pub fn connected(uid: u32, router: &Netns, subnets: &[&str], addresses: &[&str]) -> UplinkMade {
    let made = asking(uid, |helper| helper.uplink(uplink(subnets), router.fd()));
    let made = made.expect("an uplink");
    let mac = made.host_mac;
    router.ip("link set lo up");
    router.ip("link set host0 up");
    for address in addresses {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        router.ip(&format!("addr add {address} dev lo{nodad}"));
    }
    router.ip(&format!(
        "neigh replace 169.254.79.1 lladdr {mac} dev host0 nud permanent"
    ));
    router.ip("route add default via 169.254.79.1 dev host0 onlink");
    router.ip(&format!(
        "neigh replace fe80::79:1 lladdr {mac} dev host0 nud permanent"
    ));
    router.ip("-6 route add default via fe80::79:1 dev host0 onlink");
    made
}

#[track_caller]
pub fn expect_denied<T: std::fmt::Debug>(result: Result<T, CallError>) {
    assert!(matches!(result, Err(CallError::Denied)), "{result:?}");
}

pub fn release(uid: u32, made: &Made) -> Result<(), CallError> {
    asking(uid, |helper| helper.release(made.clone()))
}
