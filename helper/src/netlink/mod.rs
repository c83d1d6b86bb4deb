//! Links, addresses, routes: requests over the netlink sockets of `mossnet_netlink`.
//!
//! Attributes are written and read with `netlink_bindings`. A socket belongs to the network namespace in which it was opened, for ever.
//!
//! Sources: netlink(7), Documentation/userspace-api/netlink/intro.rst.

mod address;
mod bridge;
mod link;
mod offload;
mod routing;
mod shaping;
mod sub;

pub use address::{add_address, addresses, remove_address};
pub use bridge::NewBridge;
pub use link::{BridgePort, Gone, Link, LinkKind, Wire};
pub use mossnet_netlink::{Message, Refused};
pub use offload::Feature;
pub use routing::{
    DefaultRoute, PrefixRoute, Route, RouteKind, Way, add_neighbour, add_prefix_route, add_route,
    add_rule, default_routes, remove_route,
};
pub use shaping::Bucket;
pub use sub::{NewSub, SubKind};

use mossnet_netlink::Socket;
use netlink_bindings::utils::push_header;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// What the kernel refused, as the answer to a request.
pub trait Explain {
    /// As the answer to a request that wanted to do `what`.
    fn failure(self, what: impl fmt::Display) -> crate::request::Failure;
}

impl Explain for Refused {
    fn failure(self, what: impl fmt::Display) -> crate::request::Failure {
        let what = match self.words {
            Some(words) => format!("{what} ({words})"),
            None => what.to_string(),
        };
        crate::request::Failure::kernel(what, self.errno)
    }
}

/// A netlink socket in one network namespace.
#[derive(Debug)]
pub struct Netlink(Socket);

impl Netlink {
    /// A NETLINK_ROUTE socket in the calling thread's netns.
    pub fn route() -> nix::Result<Self> {
        Socket::route().map(Self)
    }

    /// The same, told of every change to a link (RTMGRP_LINK).
    pub fn link_changes() -> nix::Result<Self> {
        Socket::link_changes().map(Self)
    }

    /// The same, told of every change to a link, an address or a route.
    pub fn network_changes() -> nix::Result<Self> {
        Socket::network_changes().map(Self)
    }

    /// A NETLINK_NETFILTER socket in the calling thread's netns.
    pub fn netfilter() -> nix::Result<Self> {
        Socket::netfilter().map(Self)
    }

    /// A NETLINK_GENERIC socket in the calling thread's netns.
    pub fn generic() -> nix::Result<Self> {
        Socket::generic().map(Self)
    }

    /// Whether what has arrived tells that a link is gone. What could not be kept of it (ENOBUFS) is
    /// no error.
    pub fn heard_of(&mut self, gone: Gone) -> nix::Result<bool> {
        self.heard(|part| gone.is_said_by(part))
    }
}

impl Deref for Netlink {
    type Target = Socket;
    fn deref(&self) -> &Socket {
        &self.0
    }
}

impl DerefMut for Netlink {
    fn deref_mut(&mut self) -> &mut Socket {
        &mut self.0
    }
}

/// Append an attribute.
fn value(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    push_header(bytes, kind, value.len() as u16);
    bytes.extend(value);
}

/// Append an attribute that is a string, with the zero at its end.
fn text(bytes: &mut Vec<u8>, kind: u16, text: &str) {
    let mut terminated = text.as_bytes().to_vec();
    terminated.push(0);
    value(bytes, kind, &terminated);
}
