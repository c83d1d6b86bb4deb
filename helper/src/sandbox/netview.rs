//! The network settings of a new network namespace, made by the child in it: loopback up, and the
//! sysctls that a container expects. Addresses and routes come with its endpoints.
//!
//! Sources: ip-sysctl.rst in the kernel's documentation, icmp(7).

use crate::request::Failure;
use crate::sandbox::channel::setup;
use crate::sys::loopback;
use std::fs;
use std::io;

/// Settings, relative to /proc/sys/net. Much of IPv4 is copied from the host: a sandbox with several
/// networks must not route between them as a host with containers does, nor lose what comes in by
/// another network than its default route's (rp_filter 1; 2 would let it pass as well, and look up one route more
/// for each datagram). reno: the veth legs are lossless, and bbr is slow on them.
/// Router advertisements of another container must not change routes (CVE-2020-13401). IPAM keeps
/// addresses unique, so duplicate address detection would only delay.
const SYSCTLS: [(&str, &str); 14] = [
    ("ipv4/ip_forward", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/arp_notify", "0"),
    ("ipv4/conf/default/arp_notify", "0"),
    ("ipv4/tcp_congestion_control", "reno"),
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv6/conf/all/forwarding", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
];

/// Prepare the namespace that this process is in. `groups` is the number of group ids that are
/// mapped: all of them may send ICMP echo. A setting that this kernel does not have is left.
pub fn prepare(groups: u32, warnings: &mut Vec<String>) -> Result<(), Failure> {
    loopback::bring_up().map_err(|e| setup("bring loopback up", e))?;
    let ping = format!("0 {}", groups.saturating_sub(1));
    let settings = SYSCTLS
        .into_iter()
        .chain([("ipv4/ping_group_range", &*ping)]);
    for (name, value) in settings {
        match fs::write(format!("/proc/sys/net/{name}"), value) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                warnings.push(format!("sysctl {name} = {value} in the sandbox: {e}"));
            }
            _ => {}
        }
    }
    Ok(())
}
