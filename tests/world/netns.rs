//! The topology: netns `host` (the test's own, where mossnet runs) ─ `isp` (a router) ─ `server`.
//!
//! `isp` routes the documentation prefixes to `server`, and four more that each fail in their own
//! way. Threads enter a netns by setns(2); sockets that they make there work for every thread.

use super::Builder;
use super::command::Cmd;
use nix::sched::{CloneFlags, setns};
use std::fmt::Write as _;
use std::fs;

/// Addresses of the server netns. The first is where DNS is served.
pub const SERVER: &str = "198.51.100.10";
/// The same over IPv6.
pub const SERVER6: &str = "2001:db8:100::10";
/// A second address of the server.
pub const SERVER_B: &str = "198.51.100.11";
/// Its router, one hop from the host.
pub const ISP: &str = "203.0.113.1";
/// The same over IPv6.
pub const ISP6: &str = "2001:db8:113::1";
/// Packets to here vanish.
pub const BLACK_HOLE: &str = "192.0.2.1";
/// The same over IPv6.
pub const BLACK_HOLE6: &str = "2001:db8:b::1";
/// The router answers: administratively prohibited.
pub const PROHIBITED: &str = "192.0.2.65";
/// The router answers: host unreachable.
pub const UNREACHABLE: &str = "192.0.2.129";
/// The same over IPv6 (address unreachable).
pub const UNREACHABLE6: &str = "2001:db8:c::1";
/// The router has no route: net unreachable.
pub const UNROUTED: &str = "192.0.2.193";
/// The same over IPv6 (no route).
pub const UNROUTED6: &str = "2001:db8:d::1";

/// Runs `act` in netns `name`; `host` is where the test itself is.
pub fn within<T: Send>(name: &str, act: impl FnOnce() -> T + Send) -> T {
    if name == "host" {
        return act();
    }
    let path = format!("/run/netns/{name}");
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let netns = fs::File::open(&path).expect("a netns of this world");
            setns(netns, CloneFlags::CLONE_NEWNET).expect("enter the netns");
            act()
        });
        thread.join().expect("thread in a netns")
    })
}

/// Writes a sysctl of the current netns; absent ones (a kernel without IPv6) are left.
pub fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/{name}");
    if fs::exists(&path).unwrap_or(false)
        && let Err(error) = fs::write(&path, value)
    {
        panic!("write '{value}' to {path}: {error}");
    }
}

/// One `ip` command a line, in netns `name` or here.
pub fn ip(name: Option<&str>, lines: &str) {
    let mut argv = vec!["ip"];
    if let Some(name) = name {
        argv.extend(["-netns", name]);
    }
    argv.extend(["-batch", "-"]);
    let _ = Cmd::new(argv).stdin(lines).ok();
}

/// Takes effect on links made later: no advertisements, and no second of looking for duplicates,
/// during which nothing is sent.
fn settle_ipv6() {
    for scope in ["all", "default"] {
        sysctl(&format!("net/ipv6/conf/{scope}/accept_ra"), "0");
        sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0");
    }
}

pub(super) fn build(plan: &Builder) {
    let disabled = if plan.ipv6 { "0" } else { "1" };
    for scope in ["all", "default"] {
        sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), disabled);
    }
    settle_ipv6();
    // A new netns allows nobody; only ids that are mapped in the user namespace can be written.
    if plan.ping {
        sysctl("net/ipv4/ping_group_range", "1000 1000");
    }
    ip(None, "netns add isp\nnetns add server\nlink set lo up\n");
    within("isp", || {
        settle_ipv6();
        for name in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            sysctl(name, "1");
        }
        // Errors are part of what is tested: none may be lost to a rate limit.
        sysctl("net/ipv4/icmp_ratelimit", "0");
        sysctl("net/ipv6/icmp/ratelimit", "0");
    });
    within("server", || {
        settle_ipv6();
        sysctl("net/ipv4/icmp_ratelimit", "0");
        sysctl("net/ipv6/icmp/ratelimit", "0");
        sysctl("net/core/somaxconn", "8192");
        sysctl("net/ipv4/tcp_max_syn_backlog", "8192");
    });
    ip(
        None,
        "link add eth0 type veth peer name host netns isp\nlink set eth0 up\n",
    );
    let mut lines = Lines::default();
    if plan.ipv4 {
        lines.add_ipv4();
    }
    if plan.ipv6 {
        lines.add_ipv6();
    }
    ip(Some("isp"), &lines.isp);
    ip(Some("server"), &lines.server);
    ip(None, &lines.host);
}

/// `ip` commands for each netns.
struct Lines {
    host: String,
    isp: String,
    server: String,
}

impl Default for Lines {
    fn default() -> Self {
        let isp = "link set lo up\nlink set host up\n\
                   link add server type veth peer name eth0 netns server\nlink set server up\n";
        Self {
            host: String::new(),
            isp: isp.to_owned(),
            server: "link set lo up\nlink set eth0 up\n".to_owned(),
        }
    }
}

impl Lines {
    fn add_ipv4(&mut self) {
        self.host
            .push_str("addr add 203.0.113.2/24 dev eth0\nroute add default via 203.0.113.1\n");
        self.isp.push_str(
            "addr add 203.0.113.1/24 dev host\naddr add 198.51.100.1/24 dev server\n\
             route add blackhole 192.0.2.0/26\nroute add prohibit 192.0.2.64/26\n\
             route add unreachable 192.0.2.128/26\n",
        );
        for address in [SERVER, SERVER_B] {
            let _ = writeln!(self.server, "addr add {address}/24 dev eth0");
        }
        self.server.push_str("route add default via 198.51.100.1\n");
    }

    fn add_ipv6(&mut self) {
        self.host.push_str(
            "addr add 2001:db8:113::2/64 dev eth0 nodad\n\
             route add default via 2001:db8:113::1\n",
        );
        self.isp.push_str(
            "addr add 2001:db8:113::1/64 dev host nodad\n\
             addr add 2001:db8:100::1/64 dev server nodad\n\
             route add blackhole 2001:db8:b::/64\nroute add prohibit 2001:db8:a::/64\n\
             route add unreachable 2001:db8:c::/64\n",
        );
        let _ = writeln!(self.server, "addr add {SERVER6}/64 dev eth0 nodad");
        self.server
            .push_str("route add default via 2001:db8:100::1\n");
    }
}
