//! How many descriptors flows may hold, in all threads together.
//!
//! Invariant: what is kept back is enough for the relay to go on serving the flows that it has.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// DNS (its quota is some 3,300), pipes, the stock of the socket pool, listeners, epoll sets.
const KEPT_BACK: usize = 4096;

/// The limit is told at most this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Counts descriptors against the process's limit.
#[derive(Debug)]
pub struct FdBudget {
    limit: usize,
    taken: AtomicUsize,
    complained: Mutex<Option<Instant>>,
}

impl FdBudget {
    /// `nofile`: RLIMIT_NOFILE of the process.
    pub fn new(nofile: u64) -> Self {
        let nofile = usize::try_from(nofile).unwrap_or(usize::MAX);
        Self {
            // With a small limit, a quarter of it must do.
            limit: nofile - KEPT_BACK.min(nofile / 4),
            taken: AtomicUsize::new(0),
            complained: Mutex::new(None),
        }
    }

    /// Descriptors that flows may hold.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Takes `count`, to be given back with [`release`](Self::release). `false` at the limit.
    #[must_use]
    pub fn take(&self, count: usize, now: Instant) -> bool {
        let before = self.taken.fetch_add(count, Ordering::Relaxed);
        if before.saturating_add(count) <= self.limit {
            return true;
        }
        self.taken.fetch_sub(count, Ordering::Relaxed);
        self.complain(now);
        false
    }

    /// Gives back.
    pub fn release(&self, count: usize) {
        self.taken.fetch_sub(count, Ordering::Relaxed);
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn complain(&self, now: Instant) {
        let mut last = self
            .complained
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now.duration_since(last) >= COMPLAINT_INTERVAL) {
            *last = Some(now);
            tracing::warn!(
                fd.limit = self.limit,
                "descriptor limit reached, new flows are refused; raise the hard limit of open files (ulimit -Hn)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_and_what_is_released_can_be_taken() {
        let now = Instant::now();
        let budget = FdBudget::new(1024);
        assert_eq!(budget.limit(), 768);
        assert!(budget.take(767, now));
        assert!(!budget.take(2, now));
        assert!(budget.take(1, now));
        budget.release(2);
        assert!(budget.take(2, now));
        assert_eq!(budget.taken(), 768);
        assert_eq!(FdBudget::new(1 << 20).limit(), (1 << 20) - KEPT_BACK);
    }
}
