//! A bounded table of flows: by key, by id, and by who owns them, least recently used first.
//!
//! On the path: udp | icmp → **flows**. Invariants: a client never has more than its limit and the
//! table never more than its own; room is made at the expense of whoever has most, never of a
//! client that has little. Every operation but `sweep` costs the same whatever the table holds
//! (finding the largest client looks at each client once).
//!
//! Sources: RFC 4787 §4.3 (time-outs), RFC 7857 §3 (per-client limits).

use super::event_loop::{GENERATION_MASK, Key};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Most flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one client address.
    pub per_client: usize,
    /// In all.
    pub total: usize,
}

/// The table. `K` is the key, `F` what is known of a flow.
pub struct Flows<K, F> {
    slots: Vec<Slot<K, F>>,
    free: Vec<u32>,
    by_key: HashMap<K, u32>,
    clients: HashMap<IpAddr, Client>,
    limits: Limits,
}

struct Slot<K, F> {
    generation: u32,
    entry: Option<Entry<K, F>>,
}

struct Entry<K, F> {
    key: K,
    client: IpAddr,
    flow: F,
    last_seen: Instant,
    older: Option<u32>,
    newer: Option<u32>,
}

#[derive(Default)]
struct Client {
    count: usize,
    oldest: Option<u32>,
    newest: Option<u32>,
}

impl<K: Hash + Eq + Clone, F> Flows<K, F> {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            clients: HashMap::new(),
            limits,
        }
    }

    /// How many flows there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The flow of a key.
    pub fn find(&self, key: &K) -> Option<Key> {
        let index = *self.by_key.get(key)?;
        let generation = self.slots.get(index as usize)?.generation;
        Some(Key {
            slot: index,
            generation,
        })
    }

    /// The flow that lives at a place in the table.
    pub fn at(&self, index: u32) -> Option<Key> {
        let slot = self.slots.get(index as usize)?;
        slot.entry.as_ref().map(|_| Key {
            slot: index,
            generation: slot.generation,
        })
    }

    /// A flow, while it lives.
    pub fn get(&self, id: Key) -> Option<&F> {
        Some(&self.entry(id)?.flow)
    }

    /// A flow, while it lives.
    pub fn get_mut(&mut self, id: Key) -> Option<&mut F> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        let entry = slot
            .entry
            .as_mut()
            .filter(|_| slot.generation == id.generation)?;
        Some(&mut entry.flow)
    }

    /// Which flow has to go before `client` may have another one.
    pub fn victim(&self, client: IpAddr) -> Option<Key> {
        let own = self.clients.get(&client);
        if own.is_some_and(|own| own.count >= self.limits.per_client) {
            self.at(own?.oldest?)
        } else if self.len() >= self.limits.total {
            self.oldest_of_largest()
        } else {
            None
        }
    }

    /// The least recently used flow of the client that has most: the one to go when something
    /// that all share runs out.
    pub fn oldest_of_largest(&self) -> Option<Key> {
        let largest = self.clients.values().max_by_key(|client| client.count)?;
        self.at(largest.oldest?)
    }

    /// Adds a flow; one that had the key already is returned.
    pub fn insert(&mut self, key: K, client: IpAddr, flow: F, now: Instant) -> (Key, Option<F>) {
        let replaced = self.find(&key).and_then(|old| self.remove(old));
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                entry: None,
            });
            // File descriptors run out long before 2^32 flows.
            (self.slots.len() - 1) as u32
        });
        let mut generation = 0;
        if let Some(slot) = self.slots.get_mut(index as usize) {
            generation = slot.generation;
            slot.entry = Some(Entry {
                key: key.clone(),
                client,
                flow,
                last_seen: now,
                older: None,
                newer: None,
            });
        }
        self.by_key.insert(key, index);
        self.link(index, client);
        (
            Key {
                slot: index,
                generation,
            },
            replaced,
        )
    }

    /// Notes that a flow is in use: it is its client's newest now.
    pub fn touch(&mut self, id: Key, now: Instant) {
        if self.entry(id).is_none() {
            return;
        }
        let Some(entry) = self.entry_mut(id.slot) else {
            return;
        };
        entry.last_seen = now;
        let client = entry.client;
        if self
            .clients
            .get(&client)
            .is_some_and(|client| client.newest != Some(id.slot))
        {
            self.unlink(id.slot);
            self.link(id.slot, client);
        }
    }

    /// Takes a flow out.
    pub fn remove(&mut self, id: Key) -> Option<F> {
        self.entry(id)?;
        self.unlink(id.slot);
        let slot = self.slots.get_mut(id.slot as usize)?;
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        let entry = slot.entry.take()?;
        self.by_key.remove(&entry.key);
        self.free.push(id.slot);
        Some(entry.flow)
    }

    /// Flows that have been idle for as long as `timeout` says.
    pub fn sweep(&self, now: Instant, timeout: impl Fn(&F) -> Duration) -> Vec<Key> {
        let mut idle = Vec::new();
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(entry) = &slot.entry else { continue };
            if now.saturating_duration_since(entry.last_seen) >= timeout(&entry.flow) {
                idle.push(Key {
                    slot: index as u32,
                    generation: slot.generation,
                });
            }
        }
        idle
    }

    /// All flows.
    pub fn ids(&self) -> impl Iterator<Item = Key> {
        (0..self.slots.len() as u32).filter_map(|index| self.at(index))
    }

    fn entry(&self, id: Key) -> Option<&Entry<K, F>> {
        let slot = self.slots.get(id.slot as usize)?;
        slot.entry
            .as_ref()
            .filter(|_| slot.generation == id.generation)
    }

    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<K, F>> {
        self.slots.get_mut(index as usize)?.entry.as_mut()
    }

    /// Puts a flow at the new end of its client's list.
    fn link(&mut self, index: u32, client: IpAddr) {
        let list = self.clients.entry(client).or_default();
        let before = list.newest.replace(index);
        list.oldest = list.oldest.or(Some(index));
        list.count += 1;
        if let Some(entry) = self.entry_mut(index) {
            (entry.older, entry.newer) = (before, None);
        }
        if let Some(before) = before.and_then(|before| self.entry_mut(before)) {
            before.newer = Some(index);
        }
    }

    /// Takes a flow out of its client's list.
    fn unlink(&mut self, index: u32) {
        let Some(entry) = self.entry_mut(index) else {
            return;
        };
        let (older, newer, client) = (entry.older.take(), entry.newer.take(), entry.client);
        if let Some(older) = older.and_then(|older| self.entry_mut(older)) {
            older.newer = newer;
        }
        if let Some(newer) = newer.and_then(|newer| self.entry_mut(newer)) {
            newer.older = older;
        }
        let Some(list) = self.clients.get_mut(&client) else {
            return;
        };
        if list.oldest == Some(index) {
            list.oldest = newer;
        }
        if list.newest == Some(index) {
            list.newest = older;
        }
        list.count -= 1;
        if list.count == 0 {
            self.clients.remove(&client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        per_client: 4,
        total: 6,
    };

    fn client(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    /// Adds as the relay does: the victim goes first.
    fn add(flows: &mut Flows<u32, u32>, key: u32, owner: u8, now: Instant) -> Option<u32> {
        let victim = flows.victim(client(owner));
        let gone = victim.and_then(|victim| flows.remove(victim));
        flows.insert(key, client(owner), key, now);
        gone
    }

    #[test]
    fn a_client_at_its_limit_loses_its_own_oldest() {
        let (mut flows, now) = (Flows::new(LIMITS), Instant::now());
        add(&mut flows, 100, 2, now);
        for key in 0..4 {
            assert_eq!(add(&mut flows, key, 1, now), None);
        }
        flows.touch(flows.find(&0).unwrap(), now);
        assert_eq!(add(&mut flows, 4, 1, now), Some(1));
        assert!(flows.find(&100).is_some() && flows.find(&0).is_some());
    }

    #[test]
    fn a_full_table_takes_from_who_has_most() {
        let (mut flows, now) = (Flows::new(LIMITS), Instant::now());
        add(&mut flows, 100, 2, now);
        add(&mut flows, 101, 3, now);
        for key in 0..4 {
            add(&mut flows, key, 1, now);
        }
        assert_eq!(add(&mut flows, 102, 4, now), Some(0));
        assert_eq!(flows.len(), 6);
    }

    #[test]
    fn idle_flows_are_swept_by_the_clock_passed_in() {
        let (mut flows, start) = (Flows::new(LIMITS), Instant::now());
        for key in 0..3 {
            add(&mut flows, key, 1, start);
        }
        let timeout = |key: &u32| Duration::from_secs(if *key == 0 { 10 } else { 120 });
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(flows.sweep(later(9), timeout).is_empty());
        assert_eq!(flows.sweep(later(10), timeout), [flows.find(&0).unwrap()]);
        flows.touch(flows.find(&1).unwrap(), later(100));
        let idle = flows.sweep(later(130), timeout);
        assert_eq!(idle, [flows.find(&0).unwrap(), flows.find(&2).unwrap()]);
    }

    #[test]
    fn old_ids_do_not_reach_new_flows() {
        let (mut flows, now) = (Flows::new(LIMITS), Instant::now());
        let (old, _) = flows.insert(1, client(1), 10, now);
        assert_eq!(flows.remove(old), Some(10));
        let (new, replaced) = flows.insert(2, client(1), 20, now);
        assert_eq!((old.slot, replaced), (new.slot, None));
        flows.touch(old, now);
        assert!(flows.get(old).is_none() && flows.get_mut(old).is_none());
        assert!(flows.remove(old).is_none());
        assert_eq!(flows.insert(2, client(1), 30, now).1, Some(20));
    }

    proptest! {
        /// Against a plain list: the same flows, in the same order of use.
        #[test]
        fn agrees_with_a_list(steps in prop::collection::vec((0u8..3, 0u32..12, 0u8..3), 0..200)) {
            let (mut flows, now) = (Flows::new(Limits { per_client: 3, total: 5 }), Instant::now());
            let mut list: Vec<(u32, u8)> = Vec::new();
            for (action, key, owner) in steps {
                let known = list.iter().position(|(known, _)| *known == key);
                match (action, known) {
                    (0, None) => {
                        if let Some(gone) = add(&mut flows, key, owner, now) {
                            list.retain(|(key, _)| *key != gone);
                        }
                        list.push((key, owner));
                    }
                    (1, Some(at)) => {
                        flows.remove(flows.find(&key).unwrap());
                        list.remove(at);
                    }
                    (_, Some(at)) => {
                        flows.touch(flows.find(&key).unwrap(), now);
                        let entry = list.remove(at);
                        list.push(entry);
                    }
                    (_, None) => prop_assert!(flows.find(&key).is_none()),
                }
                prop_assert!(list.len() <= 5 && flows.len() == list.len());
                for owner in 0..3 {
                    let own: Vec<_> = list.iter().filter(|(_, of)| *of == owner).collect();
                    prop_assert!(own.len() <= 3);
                    if own.len() == 3 {
                        let victim = flows.victim(client(owner)).unwrap();
                        prop_assert_eq!(flows.get(victim), Some(&own[0].0));
                    }
                }
            }
        }
    }
}
