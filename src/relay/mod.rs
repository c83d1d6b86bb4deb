//! The data plane, in a process of its own: everything that reads bytes chosen by a container or a
//! remote peer.

pub mod budget;
pub mod dns;
pub mod event_loop;
pub mod gate;
pub mod rules;
pub mod slots;
pub mod socket_pool;
pub mod wire;
pub mod worker;
