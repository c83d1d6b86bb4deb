//! The network model: names, subnets, validation, and the plan of kernel objects. Pure.

pub mod resolv;
pub mod snapshot;
