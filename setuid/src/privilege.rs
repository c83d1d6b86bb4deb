//! The capabilities of this program, which are effective only around the system call that needs them.
//!
//! Invariant: outside [`with`] the effective set is empty. Permitted are [`HELD`] and nothing else;
//! the inheritable and ambient sets are empty, and no_new_privs is set.
//!
//! CAP_SYS_ADMIN is not among them: links are made in, found in and removed from callers' namespaces by
//! requests of rtnetlink that name the namespace, so this program enters none.
//!
//! Sources: capabilities(7), user_namespaces(7).

use caps::{CapSet, Capability, CapsHashSet};

/// Everything that any request needs.
const HELD: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_BIND_SERVICE];

/// A set of capabilities could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("change the {set:?} capabilities: {reason}")]
pub struct PrivilegeError {
    set: CapSet,
    reason: caps::errors::CapsError,
}

type Result<T> = std::result::Result<T, PrivilegeError>;

/// Run `work` with `capability` effective. Where it cannot be dropped again, nothing goes on.
pub fn with<T>(capability: Capability, work: impl FnOnce() -> T) -> Result<T> {
    set(CapSet::Effective, &[capability])?;
    let result = work();
    set(CapSet::Effective, &[])?;
    Ok(result)
}

/// Shrink to [`HELD`], none of it effective. An error: the program was not installed with all of it.
pub fn shrink() -> Result<()> {
    set(CapSet::Effective, &[])?;
    set(CapSet::Inheritable, &[])?;
    set(CapSet::Ambient, &[])?;
    set(CapSet::Permitted, &HELD)
}

fn set(set: CapSet, capabilities: &[Capability]) -> Result<()> {
    let wanted: CapsHashSet = capabilities.iter().copied().collect();
    caps::set(None, set, &wanted).map_err(|reason| PrivilegeError { set, reason })
}
