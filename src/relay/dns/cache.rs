//! Answers of outside resolvers, kept for as long as they hold.
//!
//! Place: between `server` and `upstream`. Pure; the clock is passed in. Invariants: bounded in
//! entries and bytes; networks do not share entries (their keys begin with it), so none learns what another
//! asks; the whole is thrown away when the resolvers change (`server`). Kept briefly at most: after a VPN comes
//! up the same name often has another address, and whoever resolves for the host caches too.
//!
//! Sources: RFC 2181 §5.2, RFC 2308, RFC 8767 §4 (caps).

use super::message::age;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Entries at most.
const MAX_ENTRIES: usize = 1024;
/// Largest answer kept, bytes; together 4 MiB at most.
const MAX_ANSWER: usize = 4096;
/// Longest that anything is kept.
const MAX_AGE: Duration = Duration::from_secs(60);

/// As [`super::message::ClientQuery::cache_key`] gives it.
type Key = Rc<[u8]>;

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
    answer: Box<[u8]>,
    /// Seconds.
    ttl: u32,
    stored: Instant,
}

impl Entry {
    fn holds(&self, now: Instant) -> bool {
        let ttl = Duration::from_secs(self.ttl.into()).min(MAX_AGE);
        now.saturating_duration_since(self.stored) < ttl
    }
}

impl Cache {
    /// A kept answer, its TTLs counted down.
    pub fn get(&self, key: &[u8], now: Instant) -> Option<Vec<u8>> {
        let entry = self.entries.get(key).filter(|entry| entry.holds(now))?;
        let seconds = now.saturating_duration_since(entry.stored).as_secs();
        let mut answer = entry.answer.to_vec();
        age(&mut answer, u32::try_from(seconds).unwrap_or(u32::MAX));
        Some(answer)
    }

    /// Keeps an answer for `ttl` seconds, making room at the expense of the oldest.
    pub fn put(&mut self, key: &Key, answer: &[u8], ttl: u32, now: Instant) {
        if ttl == 0 || answer.len() > MAX_ANSWER {
            return;
        }
        while self.order.len() >= MAX_ENTRIES {
            self.evict_oldest();
        }
        self.order.push_back((Rc::clone(key), now));
        let entry = Entry {
            answer: answer.into(),
            ttl,
            stored: now,
        };
        self.entries.insert(Rc::clone(key), entry);
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

    fn key(bytes: &[u8]) -> Key {
        bytes.into()
    }

    /// An answer with one record without a name, and its TTL.
    fn answer(ttl: u32) -> Vec<u8> {
        let mut answer = vec![0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0];
        answer.extend([0, 0, 1, 0, 1]);
        answer.extend([0, 0, 1, 0, 1]);
        answer.extend(ttl.to_be_bytes());
        answer.extend([0, 4, 192, 0, 2, 1]);
        answer
    }

    #[test]
    fn an_answer_holds_for_its_ttl_and_counts_down() {
        let start = Instant::now();
        let mut cache = Cache::default();
        cache.put(&key(&[1]), &answer(10), 10, start);
        let later = cache.get(&[1], start + Duration::from_secs(4));
        assert_eq!(later.unwrap(), answer(6));
        assert_eq!(cache.get(&[1], start + Duration::from_secs(10)), None);
        assert_eq!(cache.get(&[2], start), None);
    }

    #[test]
    fn nothing_is_kept_longer_than_the_cap_or_for_no_time() {
        let start = Instant::now();
        let mut cache = Cache::default();
        cache.put(&key(&[1]), &answer(86_400), 86_400, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(cache.get(&[1], at(59)).is_some());
        assert!(cache.get(&[1], at(60)).is_none());
        cache.put(&key(&[2]), &answer(0), 0, start);
        assert!(cache.get(&[2], start).is_none());
    }

    #[test]
    fn it_stays_bounded() {
        let start = Instant::now();
        let mut cache = Cache::default();
        for n in 0..5000u32 {
            let now = start + Duration::from_micros(n.into());
            cache.put(&key(&n.to_be_bytes()), &[0; 4], 60, now);
            cache.put(&key(b"hot"), &[0; 4], 60, now);
        }
        cache.put(&key(b"big"), &[0; 5000], 60, start);
        assert!(cache.entries.len() <= MAX_ENTRIES && cache.order.len() <= MAX_ENTRIES);
        assert!(cache.get(b"hot", start).is_some());
        assert!(cache.get(b"big", start).is_none());
    }
}
