//! Answers of outside resolvers, kept for as long as they hold.
//!
//! Place: between `server` and `upstream`. Pure; the clock is passed in. Invariants: bounded in
//! entries and bytes; networks do not share entries, so none learns what another asks; the whole is
//! thrown away when the resolvers change (`server`). Kept briefly at most: after a VPN comes up the
//! same name often has another address, and whoever resolves for the host caches too.
//!
//! Sources: RFC 2181 §5.2, RFC 2308, RFC 8767 §4 (caps).

use super::message::{Lifetime, age};
use mossnet_helper::IfName;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Entries at most.
const MAX_ENTRIES: usize = 1024;
/// Largest answer kept, bytes; together 4 MiB at most.
const MAX_ANSWER: usize = 4096;
/// Longest that anything is kept.
const MAX_AGE: Duration = Duration::from_secs(60);

type Key = (IfName, Vec<u8>);

/// The cache.
#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Key, Entry>,
    /// Keys in order of arrival, each with the arrival it stands for: an entry replaced since then
    /// is not evicted by its predecessor's place in the queue.
    order: VecDeque<(Key, Instant)>,
}

#[derive(Debug)]
struct Entry {
    answer: Vec<u8>,
    lifetime: Lifetime,
    stored: Instant,
}

impl Entry {
    fn holds(&self, now: Instant) -> bool {
        let ttl = Duration::from_secs(self.lifetime.ttl.into()).min(MAX_AGE);
        now.saturating_duration_since(self.stored) < ttl
    }
}

impl Cache {
    /// A kept answer, its TTLs counted down.
    pub fn get(&self, network: &IfName, key: &[u8], now: Instant) -> Option<Vec<u8>> {
        let entry = self.entries.get(&(network.clone(), key.to_vec()))?;
        if !entry.holds(now) {
            return None;
        }
        let seconds = now.saturating_duration_since(entry.stored).as_secs();
        let mut answer = entry.answer.clone();
        age(
            &mut answer,
            &entry.lifetime,
            u32::try_from(seconds).unwrap_or(u32::MAX),
        );
        Some(answer)
    }

    /// Keeps an answer, making room at the expense of the oldest.
    pub fn put(
        &mut self,
        network: &IfName,
        key: Vec<u8>,
        answer: &[u8],
        lifetime: Lifetime,
        now: Instant,
    ) {
        if lifetime.ttl == 0 || answer.len() > MAX_ANSWER {
            return;
        }
        while self.order.len() >= MAX_ENTRIES {
            self.evict_oldest();
        }
        let key = (network.clone(), key);
        self.order.push_back((key.clone(), now));
        let answer = answer.to_vec();
        self.entries.insert(
            key,
            Entry {
                answer,
                lifetime,
                stored: now,
            },
        );
    }

    fn evict_oldest(&mut self) {
        if let Some((key, stored)) = self.order.pop_front()
            && self
                .entries
                .get(&key)
                .is_some_and(|entry| entry.stored == stored)
        {
            self.entries.remove(&key);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(n: u8) -> IfName {
        format!("br-{n}").parse().unwrap()
    }
    fn lifetime(ttl: u32) -> Lifetime {
        Lifetime {
            ttl,
            ttl_offsets: vec![0],
        }
    }

    #[test]
    fn an_answer_holds_for_its_ttl_and_counts_down() {
        let start = Instant::now();
        let mut cache = Cache::default();
        cache.put(
            &bridge(0),
            vec![1],
            &10u32.to_be_bytes(),
            lifetime(10),
            start,
        );
        let later = cache.get(&bridge(0), &[1], start + Duration::from_secs(4));
        assert_eq!(later.unwrap(), 6u32.to_be_bytes());
        assert_eq!(
            cache.get(&bridge(0), &[1], start + Duration::from_secs(10)),
            None
        );
        assert_eq!(cache.get(&bridge(1), &[1], start), None);
        assert_eq!(cache.get(&bridge(0), &[2], start), None);
    }

    #[test]
    fn nothing_is_kept_longer_than_the_cap_or_for_no_time() {
        let start = Instant::now();
        let mut cache = Cache::default();
        cache.put(&bridge(0), vec![1], &[0; 4], lifetime(86_400), start);
        assert!(
            cache
                .get(&bridge(0), &[1], start + Duration::from_secs(59))
                .is_some()
        );
        assert!(
            cache
                .get(&bridge(0), &[1], start + Duration::from_secs(60))
                .is_none()
        );
        cache.put(&bridge(0), vec![2], &[0; 4], lifetime(0), start);
        assert!(cache.get(&bridge(0), &[2], start).is_none());
    }

    #[test]
    fn it_stays_bounded() {
        let start = Instant::now();
        let mut cache = Cache::default();
        for n in 0..5000u32 {
            let now = start + Duration::from_micros(n.into());
            cache.put(
                &bridge(0),
                n.to_be_bytes().to_vec(),
                &[0; 4],
                lifetime(60),
                now,
            );
            cache.put(&bridge(0), b"hot".to_vec(), &[0; 4], lifetime(60), now);
        }
        cache.put(&bridge(0), b"big".to_vec(), &[0; 5000], lifetime(60), start);
        assert!(cache.entries.len() <= MAX_ENTRIES && cache.order.len() <= MAX_ENTRIES);
        assert!(cache.get(&bridge(0), b"hot", start).is_some());
        assert!(cache.get(&bridge(0), b"big", start).is_none());
    }
}
