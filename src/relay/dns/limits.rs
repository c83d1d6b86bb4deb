//! How much one client, and one network, may have under way at once.
//!
//! Place: asked before a query is forwarded and before a TCP connection is kept. Pure. Invariant:
//! whatever one client or network does, a newcomer finds room (CVE-2024-8418, CVE-2026-35406).
//!
//! A holder may have at most as many slots as are still free at its level ("dynamic thresholds",
//! Choudhury and Hahne 1998): alone it gets half, with n greedy ones each gets 1/(n+1) of the
//! whole, and the rest stays free for those who come. Sandboxes can forge addresses within their
//! network but not the network, hence the two levels.

use mossnet_helper::IfName;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::rc::Rc;

/// Slots of one kind.
#[derive(Debug, Clone)]
pub struct Limits {
    shared: Rc<RefCell<Shared>>,
}

#[derive(Debug)]
struct Shared {
    total: usize,
    per_client: usize,
    used: usize,
    by_network: HashMap<IfName, usize>,
    by_client: HashMap<(IfName, IpAddr), usize>,
}

/// One slot, free again when dropped.
#[derive(Debug)]
pub struct Slot {
    shared: Rc<RefCell<Shared>>,
    client: (IfName, IpAddr),
}

impl Limits {
    /// `total` slots for everybody, at most `per_client` for one address.
    pub fn new(total: usize, per_client: usize) -> Self {
        Self {
            shared: Rc::new(RefCell::new(Shared {
                total,
                per_client,
                used: 0,
                by_network: HashMap::new(),
                by_client: HashMap::new(),
            })),
        }
    }

    /// A slot for `client` of the network with this bridge, or `None` where it has its share.
    pub fn take(&self, network: &IfName, client: IpAddr) -> Option<Slot> {
        let mut shared = self.shared.borrow_mut();
        let key = (network.clone(), client);
        let of_network = shared.by_network.get(network).copied().unwrap_or(0);
        let of_client = shared.by_client.get(&key).copied().unwrap_or(0);
        let free = shared.total.saturating_sub(shared.used);
        // The share of the network that other clients of it have left.
        let free_in_network = free.saturating_sub(of_network);
        if of_network >= free || of_client >= shared.per_client.min(free_in_network) {
            return None;
        }
        shared.used += 1;
        *shared.by_network.entry(network.clone()).or_default() += 1;
        *shared.by_client.entry(key.clone()).or_default() += 1;
        Some(Slot {
            shared: Rc::clone(&self.shared),
            client: key,
        })
    }

    #[cfg(test)]
    fn used(&self) -> usize {
        self.shared.borrow().used
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut shared = self.shared.borrow_mut();
        shared.used = shared.used.saturating_sub(1);
        release(&mut shared.by_network, &self.client.0);
        release(&mut shared.by_client, &self.client);
    }
}

/// Counts one down and forgets holders of nothing, so that the table stays as small as its use.
fn release<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(n: u8) -> IfName {
        format!("br-{n}").parse().unwrap()
    }
    fn client(n: u8) -> IpAddr {
        [10, 89, 0, n].into()
    }
    fn greedy(limits: &Limits, network: u8, host: u8) -> Vec<Slot> {
        std::iter::from_fn(|| limits.take(&bridge(network), client(host))).collect()
    }

    #[test]
    fn one_client_never_takes_it_all() {
        let limits = Limits::new(100, 1000);
        let first = greedy(&limits, 0, 1);
        assert!(!first.is_empty() && first.len() <= 50, "{}", first.len());
        let second = greedy(&limits, 0, 2);
        assert!(!second.is_empty());
        // Nor does a network, whatever addresses its sandboxes forge.
        let _forged: Vec<_> = (3..200).flat_map(|host| greedy(&limits, 0, host)).collect();
        assert!(limits.used() <= 50);
        assert!(greedy(&limits, 1, 1).len() >= 10);
    }

    #[test]
    fn the_per_client_limit_holds_and_slots_come_back() {
        let limits = Limits::new(100, 4);
        let slots = greedy(&limits, 0, 1);
        assert_eq!(slots.len(), 4);
        assert!(limits.take(&bridge(0), client(2)).is_some());
        drop(slots);
        assert_eq!(limits.used(), 0);
        assert!(limits.shared.borrow().by_client.is_empty());
        assert!(limits.shared.borrow().by_network.is_empty());
        assert_eq!(greedy(&limits, 0, 1).len(), 4);
    }
}
