//! The limit of open files: each sandbox costs the helper a handful of descriptors, so its own soft
//! limit is raised to the hard one, and children get back what the user had set.
//!
//! Sources: getrlimit(2).

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::OnceLock;

/// Soft limit before [`raise`].
static INHERITED: OnceLock<u64> = OnceLock::new();

/// Raise the soft limit to the hard one.
pub fn raise() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    if INHERITED.set(soft).is_ok() {
        // Without it, fewer sandboxes fit.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Put the inherited soft limit back, in a child before it executes something. System calls only.
pub fn restore() {
    let (Some(soft), Ok((_, hard))) = (INHERITED.get(), getrlimit(Resource::RLIMIT_NOFILE)) else {
        return;
    };
    let _ = setrlimit(Resource::RLIMIT_NOFILE, *soft, hard);
}
