//! mossnet: rootless container networking.
//!
//! Map of the tree. A command: [`cli`] → [`api`] → `daemon::session` → [`network`] + [`ipam`]
//! (plan) → `daemon::apply` → [`kernel`] → helper (crate `mossnet_helper`), [`state`] on
//! commit. A packet: `relay::event_loop` → `gate` → `flow` → `tcp` | `udp` | `icmp` → [`sys`].
//! What another runtime calls by a name of its own: [`compat`] → `mossnet_helper::foreign`.
//!
//! Other runtimes' dialects, to requests of [`api`]: [`compat`].
//!
//! Layers, checked by `tests/layers.rs`: [`cli`] and [`compat`] see only [`api`], [`error`] and [`log`]
//! ([`compat`] the relay, too, and what that needs);
//! [`network`], [`ipam`], [`ports`] and [`wire`] are pure; [`kernel`] sees model types and [`sys`];
//! [`relay`] sees model types and [`sys`]; only [`daemon`] touches [`state`].

pub mod api;
pub mod cli;
pub mod compat;
pub mod daemon;
pub mod error;
pub mod ipam;
pub mod kernel;
pub mod log;
pub mod network;
pub mod ports;
pub mod relay;
pub mod state;
pub mod sys;
pub mod wire;

pub use api::doctor;
