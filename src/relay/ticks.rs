//! When a worker looks after what no event tells of: once a second, and once a minute where nothing happens.

use std::time::{Duration, Instant};

/// Time between ticks while there is traffic.
const TICK: Duration = Duration::from_secs(1);
/// After this long without an event every flow has timed out that ever will by itself.
const QUIET_AFTER: Duration = Duration::from_secs(180);
/// Time between ticks then.
const QUIET_TICK: Duration = Duration::from_secs(60);

/// One worker's ticks.
#[derive(Debug)]
pub struct Ticks {
    next: Instant,
    last_event: Instant,
}

impl Ticks {
    /// The first one comes in a second.
    pub fn from(now: Instant) -> Self {
        Self {
            next: now + TICK,
            last_event: now,
        }
    }

    /// How long a worker may wait that has something to do by itself after `patience`, if at all.
    pub fn wait(&self, now: Instant, patience: Option<Duration>) -> Duration {
        let until_tick = self.next.saturating_duration_since(now);
        patience.map_or(until_tick, |patience| patience.min(until_tick))
    }

    /// An event has come.
    pub fn event(&mut self, now: Instant) {
        self.last_event = now;
    }

    /// At the end of a round that began at `now`: whether it is time for a tick.
    pub fn is_due(&mut self, now: Instant) -> bool {
        if now >= self.next {
            let quiet = now.duration_since(self.last_event) >= QUIET_AFTER;
            self.next = now + if quiet { QUIET_TICK } else { TICK };
            return true;
        }
        if self.last_event == now {
            // The first event after a quiet time.
            self.next = self.next.min(now + TICK);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_tick_comes_every_second_and_every_minute_where_nothing_happens() {
        let begin = Instant::now();
        let mut ticks = Ticks::from(begin);
        assert!(!ticks.is_due(begin));
        assert_eq!(ticks.wait(begin, None), SECOND);
        assert_eq!(ticks.wait(begin, Some(SECOND / 2)), SECOND / 2);
        assert_eq!(ticks.wait(begin, Some(SECOND * 2)), SECOND);
        assert!(ticks.is_due(begin + SECOND));
        assert_eq!(ticks.wait(begin + SECOND, None), SECOND);
        let quiet = begin + QUIET_AFTER;
        assert!(ticks.is_due(quiet));
        assert_eq!(ticks.wait(quiet, None), QUIET_TICK);
        let first = quiet + 5 * SECOND;
        ticks.event(first);
        assert!(!ticks.is_due(first));
        assert_eq!(ticks.wait(first, None), SECOND);
        assert!(ticks.is_due(first + SECOND));
    }
}
