//! Conversations in clients' names, of all workers: the same two addresses must not meet twice.
//!
//! The kernel would let two UDP sockets have the same, and knows nothing of framed flows.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All of one protocol.
#[derive(Debug, Clone, Default)]
pub struct Conversations(Arc<Mutex<HashSet<(SocketAddr, SocketAddr)>>>);

impl Conversations {
    /// Takes one, if nobody has it: a client's address and a container's.
    pub fn reserve(&self, between: (SocketAddr, SocketAddr)) -> Option<Reservation> {
        self.lock().insert(between).then(|| Reservation {
            conversations: self.clone(),
            between,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(SocketAddr, SocketAddr)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A conversation, free again when dropped.
#[derive(Debug)]
pub struct Reservation {
    conversations: Conversations,
    between: (SocketAddr, SocketAddr),
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.conversations.lock().remove(&self.between);
    }
}
