//! IP address management: which prefix a new network gets, which address a new endpoint gets.
//!
//! Path: `daemon` asks here while it holds the model. Invariants: an address is never handed out
//! twice, never the gateway, the network or the broadcast address; a prefix never overlaps a
//! network's or one that the host routes. Pure: who holds what is passed in, so that an address is
//! free as soon as the record that held it is gone, and nothing can leak.
//! Sources: RFC 4193 (ULA), RFC 4291 §2.6.1 (subnet-router anycast).

mod addresses;
mod layout;
mod pools;

pub use addresses::{AddressError, Held, Wish, allocate};
pub use layout::{Layout, LayoutError};
pub use pools::{
    Overlap, Pool, PoolError, check_free, choose_subnet, parse_v4_pools, ula_pool, v4_pool,
};
