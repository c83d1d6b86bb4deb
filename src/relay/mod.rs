//! Placeholder, replaced below.

pub mod wire;
