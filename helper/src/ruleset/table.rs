//! The tables there are, and what the kernel calls them.

use std::borrow::Cow;

/// Name of our tables in the router netns.
const TABLE: &str = "mossnet";
/// Name of the netavark drop-in's, which may share that netns with them.
const PODMAN_TABLE: &str = "mossnet-podman";
/// Name of the rootlessport drop-in's, but for the process.
const PORTS_TABLE: &str = "mossnet-port";

/// Families of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFamily {
    /// Packets of the IP layer, both versions.
    Inet,
    /// Frames that enter a bridge.
    Bridge,
    /// Frames that come in by an interface, before anybody else sees them.
    Netdev,
    /// Packets of the IP layer, in the table of the netavark drop-in.
    Podman,
    /// Packets of the IP layer, in a table of one process of the rootlessport drop-in, which goes with it.
    Ports(u32),
}

impl TableFamily {
    /// What the kernel calls the table.
    pub fn table(self) -> Cow<'static, str> {
        match self {
            Self::Inet | Self::Bridge | Self::Netdev => TABLE.into(),
            Self::Podman => PODMAN_TABLE.into(),
            Self::Ports(process) => format!("{PORTS_TABLE}-{process}").into(),
        }
    }

    /// Whether it goes with the socket that made it.
    pub fn is_owned(self) -> bool {
        matches!(self, Self::Ports(_))
    }
}
