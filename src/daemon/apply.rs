//! Performs a plan; on failure takes back what was done. Teardown goes on and reports everything.

use crate::kernel::helper::{Helper, HelperError};
use crate::network::plan::Plan;
use mossnet_helper::request::Request;
use std::os::fd::OwnedFd;
use tracing::warn;

/// What a plan made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// No sandbox.
    Nothing,
    /// A sandbox with a process of this id.
    Process(u32),
    /// A sandbox without one: this descriptor of the helper is its network namespace.
    Netns(i32),
}

/// Performs the steps in order; `fds` go to the sandbox that the plan makes, if it makes one: streams of its
/// process, or the network namespace of an adopted one.
/// After a failure every step that was tried is undone, the last first.
pub(super) async fn perform(
    helper: &Helper,
    plan: Plan,
    fds: Vec<OwnedFd>,
) -> Result<Made, HelperError> {
    let mut fds = Some(fds);
    let mut undo = Vec::new();
    let mut made = Made::Nothing;
    for step in plan.steps {
        undo.extend(step.undo);
        let done = match step.request {
            Request::CreateSandbox(ref spec) if spec.process.is_none() => {
                let fds = fds.take().unwrap_or_default();
                let netns = helper.create_bare(step.request, fds).await;
                netns.map(|netns| made = Made::Netns(netns))
            }
            Request::CreateSandbox(_) => {
                let fds = fds.take().unwrap_or_default();
                let pid = helper.create(step.request, fds).await;
                pid.map(|pid| made = Made::Process(pid))
            }
            request => helper.call(request).await.map(drop),
        };
        if let Err(error) = done {
            undo.reverse();
            teardown(helper, undo).await;
            return Err(error);
        }
    }
    Ok(made)
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
