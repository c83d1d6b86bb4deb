//! Settings of the host's network namespace under /proc/sys/net (proc(5), ip-sysctl.rst).

use super::{KernelError, Result};
use crate::privilege;
use caps::Capability;
use ipnet::IpNet;
use mossnet_netlink::IfName;
use std::fs;

/// Both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of a prefix.
    pub fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

/// The host forwards packets of this family. An unreadable setting counts as no.
pub fn forwards(family: Family) -> bool {
    let path = match family {
        Family::V4 => "/proc/sys/net/ipv4/ip_forward",
        Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
    };
    fs::read_to_string(path).is_ok_and(|value| value.trim() == "1")
}

/// The kernel has IPv6.
pub fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}

/// What an uplink's link is set to before it is up: it believes nothing that comes in by it. Whose sources are
/// forged, `nft::host` finds out for both families; rp_filter would look up one route more for each packet.
const UPLINK_V4: [(&str, &str); 4] = [
    ("forwarding", "1"),
    ("accept_redirects", "0"),
    ("send_redirects", "0"),
    ("rp_filter", "0"),
];
const UPLINK_V6: [(&str, &str); 6] = [
    ("disable_ipv6", "0"),
    ("addr_gen_mode", "1"),
    ("accept_ra", "0"),
    ("autoconf", "0"),
    ("accept_redirects", "0"),
    ("forwarding", "1"),
];

/// Prepare the host's end of an uplink; without IPv6 behind it, it has none.
pub fn prepare_uplink(link: &IfName, ipv6: bool) -> Result<()> {
    set_all(link, "ipv4", &UPLINK_V4)?;
    if ipv6 {
        return set_all(link, "ipv6", &UPLINK_V6);
    }
    without_ipv6(link)
}

/// The host itself speaks neither family on a bridge port: the bridge does.
pub fn prepare_port(link: &IfName) -> Result<()> {
    without_ipv6(link)
}

fn without_ipv6(link: &IfName) -> Result<()> {
    match set_all(link, "ipv6", &[("disable_ipv6", "1")]) {
        // A kernel without IPv6.
        Err(KernelError::Setting { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        other => other,
    }
}

/// `link` is a name that this program made: it has no '/' and no '.'.
fn set_all(link: &IfName, family: &str, settings: &[(&str, &str)]) -> Result<()> {
    for (setting, value) in settings {
        let path = format!("/proc/sys/net/{family}/conf/{link}/{setting}");
        let written = privilege::with(Capability::CAP_NET_ADMIN, || fs::write(&path, value))?;
        written.map_err(|source| KernelError::Setting { path, source })?;
    }
    Ok(())
}
