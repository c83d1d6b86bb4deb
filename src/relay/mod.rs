//! Placeholder, replaced below.

pub mod flows;
pub mod wire;
