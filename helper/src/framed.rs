//! Framed flows: short TCP flows that the relay speaks itself, frame by frame, with a container. What
//! helper and relay must agree on for them.
//!
//! The relay sees what a container sends by a tap at the endpoint's port in the router netns. The kernel
//! sees it too, knows of no such connection, and would answer with RST. So each frame of the relay bears
//! one fixed value as its timestamp (TSval), which the container's TCP gives back as the echoed one
//! (TSecr) in every segment; and the guard (`ruleset::guard`) drops what bears it, behind the tap. No
//! state is shared, nothing needs to be in step.
//!
//! Linux puts the option first into each segment of an established connection, behind two NOPs. A SYN
//! begins with another option, and so does what a stack that orders them otherwise sends: the relay is
//! not to frame a flow whose peer does.
//!
//! A connection that is not framed meets the value once in 2^30 segments by chance, or where its peer
//! means it to: then it is delayed, or harms itself.
//!
//! Sources: RFC 7323 sections 3.2 and 3.3, appendix A; net/ipv4/tcp_output.c (tcp_options_write).

use crate::names::MacAddr;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The timestamp of every frame of the relay, but for the bits that [`FRAMED_MASK`] leaves out.
pub const FRAMED_TIMESTAMP: u32 = 0x6d6f_7300;

/// Which bits of it count. The two others say which of at most four workers has the flow.
pub const FRAMED_MASK: u32 = 0xffff_fffc;

/// Where an endpoint is, seen from the router netns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointPlace {
    /// Interface index of its port, the router side of the veth pair.
    pub port: u32,
    /// MAC address of the sandbox's side.
    pub mac: MacAddr,
    /// Its addresses, but for link-local ones: those are several endpoints' on several bridges.
    pub addresses: Vec<IpAddr>,
}
