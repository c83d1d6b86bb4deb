//! Sandboxes that die with the connection that made them unless they are started: a client that is
//! killed between making and starting one leaves nothing behind.

use super::control::Control;
use super::types::SandboxState;
use mossnet_helper::SandboxId;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::warn;

/// What one connection holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Arc<Mutex<Holding>>);

#[derive(Debug, Default)]
struct Holding {
    /// The connection is closed; what comes now comes too late.
    closed: bool,
    sandboxes: Vec<SandboxId>,
}

impl Held {
    /// Ties `id` to the connection; discards it at once where that is closed already.
    pub(super) async fn add<C: Control>(&self, id: SandboxId, control: &C) {
        let late = {
            let mut holding = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !holding.closed {
                holding.sandboxes.push(id.clone());
            }
            holding.closed
        };
        if late {
            discard(&id, control).await;
        }
    }

    /// The connection closed: removes what was not started.
    pub(super) async fn close<C: Control>(&self, control: &C) {
        let sandboxes = {
            let mut holding = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            holding.closed = true;
            std::mem::take(&mut holding.sandboxes)
        };
        for id in sandboxes {
            discard(&id, control).await;
        }
    }
}

async fn discard<C: Control>(id: &SandboxId, control: &C) {
    // Gone already is as good.
    let Ok(info) = control.inspect(id.as_str()).await else {
        return;
    };
    if info.state != SandboxState::Created {
        return;
    }
    if let Err(error) = control.remove(id.as_str(), true).await {
        warn!(sandbox.id = id.short(), %error, "abandoned sandbox not removed");
    }
}
