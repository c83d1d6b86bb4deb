//! The data plane, in a process of its own.

pub mod dns;
pub mod wire;
