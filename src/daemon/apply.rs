//! Performs a plan; on failure takes back what was done. Teardown goes on and reports everything.

use crate::kernel::helper::{Helper, HelperError};
use crate::network::plan::Plan;
use mossnet_helper::request::Request;
use std::os::fd::OwnedFd;
use tracing::warn;

/// Performs the steps in order; `stdio` goes to the process that the plan makes. Returns that
/// process's id. After a failure every step that was tried is undone, the last first.
pub(super) async fn perform(
    helper: &Helper,
    plan: Plan,
    stdio: [OwnedFd; 3],
) -> Result<u32, HelperError> {
    let mut stdio = Some(stdio);
    let mut undo = Vec::new();
    let mut pid = 0;
    for step in plan.steps {
        undo.extend(step.undo);
        let done = match step.request {
            Request::CreateSandbox(_) => {
                let fds = stdio.take().map(Vec::from).unwrap_or_default();
                helper
                    .create(step.request, fds)
                    .await
                    .map(|made| pid = made)
            }
            request => helper.call(request).await.map(drop),
        };
        if let Err(error) = done {
            undo.reverse();
            teardown(helper, undo).await;
            return Err(error);
        }
    }
    Ok(pid)
}

/// Performs every request, whatever becomes of the others. What is gone already is success; what
/// fails is logged and found again by the next reconciliation.
pub(super) async fn teardown(helper: &Helper, requests: Vec<Request>) {
    for request in requests {
        let what = format!("{request:?}");
        match helper.call(request).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            // Everything ended with it.
            Err(HelperError::Gone) => return,
            Err(error) => warn!(request = what, %error, "teardown step failed"),
        }
    }
}
