//! Until a new endpoint can be reached.
//!
//! The kernel acts upon some of what it is told later, on a busy machine some tenths of a second, and
//! what comes meanwhile is lost: the sender tries again after a second. Nothing fails where it takes
//! longer than here is waited.
//!
//! Sources: linkwatch (net/core/link_watch.c), RFC 4291 section 2.7.1.

use crate::names::IfName;
use crate::netlink::Explain;
use crate::netlink::{Link, Netlink, Refused};
use crate::request::Failure;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// How long to wait for each.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often what cannot be waited for is looked at.
const INTERVAL: Duration = Duration::from_micros(500);
/// The multicast groups of the calling thread's netns.
const GROUPS: &str = "/proc/thread-self/net/igmp6";

/// News of links.
pub(crate) fn changes() -> Result<Netlink, Failure> {
    Netlink::link_changes().map_err(|e| Failure::kernel("open rtnetlink", e))
}

/// Waits until a link that is up has noticed its carrier. Before, a bridge takes nothing from the port,
/// an interface throws away what it is to send, and IPv6 is not there. To ask about the link hastens
/// it (since Linux 6.8), so that mostly nobody waits.
pub(crate) fn carrier(
    route: &mut Netlink,
    name: &IfName,
    changes: impl FnOnce() -> Result<Netlink, Failure>,
) -> Result<(), Failure> {
    let failed = |refused: Refused| refused.failure(format!("look at {name}"));
    // One that is not there has gone with its sandbox.
    let waits = |link: Link| !link.running;
    if !route
        .link(name.as_str())
        .map_err(failed)?
        .is_some_and(waits)
    {
        return Ok(());
    }
    let deadline = Instant::now() + PATIENCE;
    let waited = changes()?.wait_link(name.as_str(), deadline, |link| link.running);
    waited.map(drop).map_err(failed)
}

/// Waits, in the calling thread's netns, until questions for the neighbours with these addresses are
/// heard. An address takes part in neighbour discovery from a work queue on.
pub(crate) fn solicited(addresses: impl Iterator<Item = IpAddr>) {
    let groups: Vec<String> = addresses.filter_map(solicited_group).collect();
    let deadline = Instant::now() + PATIENCE;
    while !groups.is_empty() && Instant::now() < deadline {
        let Ok(joined) = std::fs::read_to_string(GROUPS) else {
            return;
        };
        if groups.iter().all(|group| joined.contains(group.as_str())) {
            return;
        }
        std::thread::sleep(INTERVAL);
    }
}

/// ff02::1:ff00:0/104 and the last 24 bits of an IPv6 address, as [`GROUPS`] has it.
fn solicited_group(address: IpAddr) -> Option<String> {
    let IpAddr::V6(address) = address else {
        return None;
    };
    let [.., high, low] = address.segments();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low);
    Some(group.octets().iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_written_as_the_kernel_does() {
        let group = |text: &str| solicited_group(text.parse().unwrap());
        let expected = "ff0200000000000000000001ff5a0002";
        assert_eq!(group("fd00:89::125a:2").as_deref(), Some(expected));
        assert_eq!(group("10.89.0.2"), None);
        // Everybody is in the first one.
        let joined = std::fs::read_to_string(GROUPS).unwrap_or_default();
        assert!(joined.is_empty() || joined.contains("ff0200000000000000000000000000"));
    }
}
