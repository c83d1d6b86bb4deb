//! One sandbox, one change at a time: whoever makes, starts, connects, disconnects or discards a
//! sandbox holds its turn meanwhile.
//!
//! Invariant: a turn is taken before the lock of the link and before that of the model, never while
//! one of them is held; what ends by itself (the exit of a process) takes none.

use mossnet_helper::SandboxId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::OwnedMutexGuard;

/// Held turns are kept alive by their holders and those who wait.
type Turn = tokio::sync::Mutex<()>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<SandboxId, Weak<Turn>>>);

impl Turns {
    /// Resolves when nobody else changes this sandbox.
    pub(super) async fn take(&self, id: &SandboxId) -> OwnedMutexGuard<()> {
        self.turn(id).lock_owned().await
    }

    fn turn(&self, id: &SandboxId) -> Arc<Turn> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(id).and_then(Weak::upgrade) {
            return turn;
        }
        // Over is what nobody holds; looked for only when the table would grow.
        if turns.len() == turns.capacity() {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::default();
        turns.insert(id.clone(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_of_one_sandbox_come_one_after_another() {
        let turns = Turns::default();
        let id = |n: u8| SandboxId::from([n; 32]);
        let held = turns.take(&id(1)).await;
        let _other = turns.take(&id(2)).await;
        let first = id(1);
        let mut next = Box::pin(turns.take(&first));
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        drop(held);
        next.await;
        for n in 3..200 {
            drop(turns.take(&id(n)).await);
        }
        assert!(
            turns.0.lock().unwrap().len() < 100,
            "what is over is forgotten"
        );
    }
}
