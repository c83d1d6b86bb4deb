//! Published ports: what `-p` means, which wishes collide, and what becomes of a range; and which
//! ports of the host's loopback are open to a sandbox (`loopback`).
//!
//! Path: `cli` and `compat` parse here; `daemon` checks for conflicts and chooses ports; the relay
//! reads the same types from its snapshot. Pure. Invariants: no port is 0; a range has as many host
//! ports as container ports; an address is kept in one way only (IPv4-mapped IPv6 is IPv4).
//!
//! Sources: docker-run(1) `--publish`, go-connections `nat/parse.go` (what is accepted, not how).

mod change;
mod conflict;
mod loopback;
mod parse;
mod types;

#[cfg(test)]
pub(crate) use change::tests::published;
pub use change::{HostChoice, Published};
pub use conflict::{Claim, conflict};
pub use loopback::{HostLoopback, PortSet};
pub use parse::PortError;
pub use types::{HostAddr, HostPorts, Port, PortRange, Proto, Publish, PublishSpec, SourceAddress};

#[cfg(test)]
mod tests;
