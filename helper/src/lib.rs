//! The capability-scoped part of mossnet: the *helper*.
//!
//! The helper owns one unprivileged user namespace and, in it, the *router netns* that holds every
//! bridge. It performs a closed set of typed requests (`request`) that arrive on a unix socket
//! from the daemon, validates each one, and reads nothing that comes from a network. It outlives
//! and restarts the relay, and outlives the daemon.
//!
//! Map, in the order in which a request passes through:
//! `serve` (the socket and the event loop) → `act` (one request class each, with exactly the
//! capabilities it needs, see `privilege`) → `router`, `netlink`, `ruleset`, `namespace`, `sandbox`
//! (kernel objects), `relay` and `uplink` (child processes) → `sys` (the only unsafe code). What the relay says
//! unasked goes through `rush`; what it must know of frames is in `framed`.

pub mod act;
pub mod alone;
pub mod bandwidth;
mod failure;
pub mod foreign;
pub mod framed;
mod idmap;
pub mod limits;
pub mod namespace;
pub mod netlink;
pub mod peer;
pub mod ports;
pub mod privilege;
pub mod relay;
pub mod remover;
pub mod request;
pub mod router;
pub mod ruleset;
pub mod rush;
pub mod sandbox;
pub mod sealed;
pub mod serve;
mod sys;
pub mod sysctl;
mod unsent;
pub mod uplink;

pub use mossnet_netlink::names;
pub use mossnet_netlink::{IfName, MacAddr, NameError, SandboxId};
