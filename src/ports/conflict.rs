//! Which publishes cannot be there together.

use super::types::{HostAddr, PortRange, Proto, Publish};

/// Host ports that something has, or wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Protocol.
    pub proto: Proto,
    /// Where on the host.
    pub host_addr: HostAddr,
    /// Which ports.
    pub host_ports: PortRange,
}

impl From<&Publish> for Claim {
    fn from(publish: &Publish) -> Self {
        Self {
            proto: publish.proto(),
            host_addr: publish.host_addr(),
            host_ports: publish.host_ports(),
        }
    }
}

impl Claim {
    /// Whether the kernel would refuse the second of the two.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.proto == other.proto
            && self.host_addr.overlaps(other.host_addr)
            && self.host_ports.overlaps(other.host_ports)
    }
}

/// The first of `held` that stands in the way of `wish`.
pub fn conflict<'a, T>(
    wish: &Claim,
    held: impl IntoIterator<Item = &'a T>,
    claim: impl Fn(&T) -> Claim,
) -> Option<&'a T> {
    held.into_iter().find(|held| wish.conflicts(&claim(held)))
}
