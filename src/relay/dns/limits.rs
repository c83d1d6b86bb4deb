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
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::rc::Rc;

/// Slots of one kind.
#[derive(Debug, Clone)]
pub struct Limits {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    total: usize,
    per_client: usize,
    used: Cell<usize>,
    networks: RefCell<HashMap<IfName, Rc<Network>>>,
}

/// What the clients of one network hold.
#[derive(Debug)]
struct Network {
    used: Cell<usize>,
    clients: RefCell<HashMap<IpAddr, usize>>,
}

/// One slot, free again when dropped.
#[derive(Debug)]
pub struct Slot {
    shared: Rc<Shared>,
    network: Rc<Network>,
    client: IpAddr,
}

impl Limits {
    /// `total` slots for everybody, at most `per_client` for one address.
    pub fn new(total: usize, per_client: usize) -> Self {
        Self {
            shared: Rc::new(Shared {
                total,
                per_client,
                used: Cell::new(0),
                networks: RefCell::default(),
            }),
        }
    }

    /// A slot for `client` of the network with this bridge, or `None` where it has its share.
    pub fn take(&self, network: &IfName, client: IpAddr) -> Option<Slot> {
        let shared = &self.shared;
        let free = shared.total.saturating_sub(shared.used.get());
        let network = shared.network(network);
        {
            let mut clients = network.clients.borrow_mut();
            let of_client = clients.entry(client).or_default();
            // The share of the network that other clients of it have left.
            let free_in_network = free.saturating_sub(network.used.get());
            if free_in_network == 0 || *of_client >= shared.per_client.min(free_in_network) {
                if *of_client == 0 {
                    clients.remove(&client);
                }
                return None;
            }
            *of_client += 1;
        }
        network.used.set(network.used.get() + 1);
        shared.used.set(shared.used.get() + 1);
        Some(Slot {
            shared: Rc::clone(shared),
            network,
            client,
        })
    }

    #[cfg(test)]
    fn used(&self) -> usize {
        self.shared.used.get()
    }
}

impl Shared {
    fn network(&self, name: &IfName) -> Rc<Network> {
        let mut networks = self.networks.borrow_mut();
        if let Some(network) = networks.get(name) {
            return Rc::clone(network);
        }
        // Those that are gone, or hold nothing, are as if they had never been.
        networks.retain(|_, network| network.used.get() > 0);
        let network = Rc::new(Network {
            used: Cell::new(0),
            clients: RefCell::default(),
        });
        networks.insert(name.clone(), Rc::clone(&network));
        network
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut clients = self.network.clients.borrow_mut();
        if let Entry::Occupied(mut count) = clients.entry(self.client) {
            *count.get_mut() -= 1;
            // Holders of nothing are forgotten, so that the table stays as small as its use.
            if *count.get() == 0 {
                count.remove();
            }
        }
        let less = |used: &Cell<usize>| used.set(used.get().saturating_sub(1));
        less(&self.network.used);
        less(&self.shared.used);
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
        let clients = |limits: &Limits| limits.shared.network(&bridge(0)).clients.borrow().len();
        assert_eq!(clients(&limits), 0);
        assert_eq!(greedy(&limits, 0, 1).len(), 4);
        // Nor is anything kept of those who were refused, or of networks that hold nothing.
        let full = Limits::new(0, 4);
        assert!(full.take(&bridge(0), client(1)).is_none());
        assert_eq!(clients(&full), 0);
        for network in 0..20 {
            drop(limits.take(&bridge(network), client(1)));
        }
        assert!(limits.shared.networks.borrow().len() <= 2);
    }
}
