//! `mossnet-helper`, which an admin installs with privilege and governs with `/etc/mossnet/grants.toml`;
//! and what a program needs to ask it (`request`, `client`).
//!
//! The program performs one request and ends. The way of a request:
//! `startup` (nothing is inherited: environment, descriptors, capabilities) → `channel`, `wire` (one
//! datagram with descriptors) → `caller` (real ids) → `policy` (the grants) → `namespace` (whose is it?)
//! → `record` (quota, under a lock, in step with the kernel) → `act` (one module for each verb, each
//! kernel object made under the one capability that it needs: `privilege`) → `audit`.
//!
//! Invariant: nothing that the caller controls is trusted, but for data that `wire` has checked and
//! descriptors that the kernel vouches for. No path, no pid, no environment, no locale, no name service,
//! no thread, no other program, nothing from a network. Whatever fails, fails closed.

pub mod accounts;
mod act;
mod attribute;
mod audit;
pub mod caller;
pub mod channel;
pub mod client;
mod kernel;
mod namespace;
pub mod policy;
mod privilege;
pub mod program;
mod record;
pub mod request;
mod startup;
mod sys;
mod trusted;
pub mod wire;

pub use client::{CallError, Helper};
pub use mossnet_netlink::{IfName, MacAddr};
