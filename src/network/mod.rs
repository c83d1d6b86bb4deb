//! The network model: names, subnets, validation, and the plan of kernel objects. Pure.
//!
//! Job: say what networks, sandboxes and endpoints are, and which helper requests bring one about.
//! Path: `daemon::session` builds a [`plan::Plan`] here and `daemon::apply` performs it. Invariant:
//! a value of these types has been checked; nothing here touches an fd, a clock or the environment.
//!
//! * `names`: names of networks and sandboxes, and names that are made up.
//! * `subnet`: prefixes. `model`: [`Network`], [`Endpoint`]; `sandbox`: [`Sandbox`]; as they are
//!   stored.
//! * `host_loopback`: who may reach the host's loopback, and by which address.
//! * `options`: `-o key=value` of a network. `routes`: which endpoint leads outside.
//! * `calendar`: dates. `capabilities`: what a sandbox may do in its own user namespace.
//! * `plan`: a sandbox as an ordered list of requests, each with its undo.
//! * `publish`: published ports, as the relay and the holders of their sockets are told of them.
//! * `resolv`: resolv.conf(5) and hosts(5), the host's read, a sandbox's written.
//! * `rules`: what helper and relay are told of all networks together.
//! * `snapshot`: the relay's view (contract).

pub mod calendar;
pub mod capabilities;
pub mod host_loopback;
pub mod model;
pub mod names;
pub mod options;
pub mod plan;
pub mod publish;
pub mod resolv;
pub mod routes;
pub mod rules;
pub mod sandbox;
pub mod snapshot;
pub mod subnet;

pub use model::{Attachment, Endpoint, Network};
pub use names::{NetworkName, SandboxName};
pub use sandbox::{Adopted, LinkRecord, NetworkModeRecord, ProcessRef, Sandbox, SandboxPhase};
pub use subnet::{NetworkSubnet, Subnet};
