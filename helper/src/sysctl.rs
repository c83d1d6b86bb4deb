//! Kernel parameters of the router netns (those of sandboxes: `sandbox::netview`).
//!
//! A thread sees the /proc/sys/net of the network namespace it is in, so all of this runs inside
//! [`crate::namespace::in_netns`]. Parameters that the data path depends on must be writable;
//! the others are tuning or hygiene, and older kernels may lack them.
//!
//! Sources: Documentation/networking/ip-sysctl.rst; design.md section 4 for the reasons.

use crate::request::Failure;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// (path under /proc/sys/net, value)
type Parameter<'a> = (&'a str, &'a str);

/// Router netns: without these nothing is forwarded. rp_filter must be off before links are made,
/// which copy `default`.
const ROUTER_NEEDED: &[Parameter] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
];

/// Router netns, IPv6.
const ROUTER_NEEDED_V6: &[Parameter] = &[
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
];

/// Router netns: tuning and hygiene. arp_ignore keeps a container from reaching the gateway of
/// another network; reno, because these legs are lossless and bbr halves their speed; no TIME_WAIT,
/// because no segment is ever late on them, and it would keep a client's port from being used again;
/// keep-alive times, so that the relay need not set them for each socket; buffers no larger than a
/// bridge needs, so that a stalled stream holds little of the host's memory for TCP.
const ROUTER_WANTED: &[Parameter] = &[
    ("ipv4/tcp_congestion_control", "reno"),
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/tcp_tw_reuse", "1"),
    ("ipv4/tcp_max_tw_buckets", "0"),
    ("ipv4/tcp_no_metrics_save", "1"),
    ("ipv4/tcp_keepalive_time", "120"),
    ("ipv4/tcp_keepalive_intvl", "15"),
    ("ipv4/tcp_keepalive_probes", "4"),
    ("ipv4/tcp_rmem", "4096 131072 4194304"),
    ("ipv4/tcp_notsent_lowat", "524288"),
    ("ipv4/tcp_max_syn_backlog", "65536"),
    ("core/somaxconn", "65535"),
    ("ipv4/conf/all/arp_ignore", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
];

/// br_netfilter would run prerouting at bridge level and lose the socket that tproxy assigned.
/// Present only while that module is loaded, which can happen at any time.
const BRIDGE_NETFILTER: &[Parameter] = &[
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
    ("bridge/bridge-nf-call-arptables", "0"),
];

/// Whether the kernel speaks IPv6 at all (it may be booted with ipv6.disable=1).
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Prepare the router netns, before any link is made in it.
pub fn prepare_router(ipv6: bool) -> Result<(), Failure> {
    require(ROUTER_NEEDED)?;
    if ipv6 {
        require(ROUTER_NEEDED_V6)?;
    }
    wish(ROUTER_WANTED);
    wish(BRIDGE_NETFILTER);
    Ok(())
}

/// Keep br_netfilter out; repeated whenever a bridge is made, since the module may have come.
pub fn keep_bridges_plain() {
    wish(BRIDGE_NETFILTER);
}

/// Give a link of the router netns IPv6, or take it away; `default`: links to come.
pub fn set_ipv6(link: &str, enabled: bool) -> Result<(), Failure> {
    let value = if enabled { "0" } else { "1" };
    let name = format!("ipv6/conf/{link}/disable_ipv6");
    require(&[(&name, value)])
}

/// Have a link of the netns of this thread announce its addresses when it comes up.
pub fn announce(link: &str) {
    let ipv4 = format!("ipv4/conf/{link}/arp_notify");
    let ipv6 = format!("ipv6/conf/{link}/ndisc_notify");
    wish(&[(&ipv4, "1"), (&ipv6, "1")]);
}

/// In a netns that another runtime made: no addresses and routes from whoever calls itself a router, on links
/// that are still to come; and no second of looking for duplicates, since IPAM keeps addresses unique.
pub fn distrust_routers() {
    wish(&[
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
    ]);
}

/// Have connection tracking of the netns of this thread remember conversations in datagrams for longer than the
/// relay does (RFC 4787: two minutes).
pub fn remember_datagrams() {
    wish(&[
        ("netfilter/nf_conntrack_udp_timeout", "130"),
        ("netfilter/nf_conntrack_udp_timeout_stream", "130"),
    ]);
}

/// Have a netns that is not ours forward what passes through.
pub fn forward(ipv6: bool) -> Result<(), Failure> {
    require(&[("ipv4/ip_forward", "1")])?;
    match ipv6 {
        true => require(&[("ipv6/conf/all/forwarding", "1")]),
        false => Ok(()),
    }
}

/// Whether br_netfilter translates addresses within bridges of the netns of this thread.
pub fn bridges_translate() -> bool {
    let read = fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
    read.is_ok_and(|value| value.trim() == "1")
}

/// A bridge of a netns that is not ours: no addresses from rogue routers, and its own loopback may be the
/// source of what goes to a container's port.
pub fn prepare_foreign_bridge(bridge: &str) {
    let name = |family: &str, what: &str| format!("{family}/conf/{bridge}/{what}");
    wish(&[
        (&name("ipv4", "route_localnet"), "1"),
        (&name("ipv6", "accept_ra"), "0"),
        (&name("ipv6", "accept_dad"), "0"),
    ]);
}

/// A container's end: announced at once, answers wherever they come from, no addresses from rogue routers
/// (CVE-2020-13401).
pub fn prepare_guest(link: &str) {
    let name = |family: &str, what: &str| format!("{family}/conf/{link}/{what}");
    wish(&[
        (&name("ipv4", "arp_notify"), "1"),
        (&name("ipv4", "rp_filter"), "2"),
        (&name("ipv6", "ndisc_notify"), "1"),
        (&name("ipv6", "autoconf"), "0"),
        (&name("ipv6", "accept_ra"), "0"),
    ]);
}

fn require(parameters: &[Parameter]) -> Result<(), Failure> {
    for parameter in parameters {
        write(parameter).map_err(|error| {
            let (name, value) = parameter;
            Failure::kernel(format!("write {value} to /proc/sys/net/{name}"), error)
        })?;
    }
    Ok(())
}

fn wish(parameters: &[Parameter]) {
    for parameter in parameters {
        match write(parameter) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let (name, value) = parameter;
                eprintln!("helper: write {value} to /proc/sys/net/{name}: {error}");
            }
        }
    }
}

fn write((name, value): &Parameter) -> io::Result<()> {
    let path: PathBuf = Path::new("/proc/sys/net").join(name);
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
}
