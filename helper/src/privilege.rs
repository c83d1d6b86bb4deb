//! Capabilities of the helper, in its own user namespace only.
//!
//! At start the bounding and permitted sets shrink to [`HELD`], and the effective set becomes
//! empty. Each class of request raises exactly what it needs for as long as it runs.
//!
//! Invariant: outside [`with`] the effective set is empty. The bounding set must equal the
//! permitted one: a child whose exec(2) gained capabilities would lose its PR_SET_PDEATHSIG
//! (prctl(2)) and outlive the helper.
//!
//! Sources: capabilities(7), user_namespaces(7).

use crate::request::Failure;
use crate::sys::process::drop_bounding_above;
use caps::{CapSet, Capability, CapsHashSet};

/// Everything that any request class needs, and Docker's default set for the processes that are
/// not behind a user namespace of their own (the relay, external uplinks).
const HELD: &[Capability] = &[
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_CHROOT,
];

/// What one class of request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Signals to processes of our own, and their ends.
    None,
    /// Links, addresses, routes, rules and nftables of the router netns.
    Network,
    /// The same, with a visit to a network namespace (setns(2) asks for CAP_SYS_ADMIN).
    Visit,
    /// Making sandboxes and entering them: id maps. Power over the namespaces nested in ours comes
    /// with owning them, not from the effective set.
    Sandbox,
}

impl Class {
    /// Its capabilities.
    fn capabilities(self) -> &'static [Capability] {
        match self {
            Self::None => &[],
            Self::Network => &[Capability::CAP_NET_ADMIN],
            Self::Visit => &[Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN],
            Self::Sandbox => &[
                Capability::CAP_SETFCAP,
                Capability::CAP_SETGID,
                Capability::CAP_SETUID,
            ],
        }
    }
}

/// Run `work` with the capabilities of `class` effective in this thread.
pub fn with<T>(class: Class, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    set_effective(class.capabilities())?;
    let result = work();
    set_effective(&[])?;
    result
}

/// Let this thread have the capabilities of `class` effective, and never any other.
pub fn keep_for_good(class: Class) -> Result<(), Failure> {
    set_effective(class.capabilities())?;
    let kept: CapsHashSet = class.capabilities().iter().copied().collect();
    caps::set(None, CapSet::Permitted, &kept).map_err(|e| refused("permitted", &e))
}

/// Shrink to [`HELD`]; called once, with all capabilities of the fresh user namespace.
pub fn shrink() -> Result<(), Failure> {
    let held: CapsHashSet = HELD.iter().copied().collect();
    let mut last = 0;
    for capability in caps::all() {
        last = last.max(capability.index());
        // One that this kernel lacks needs no dropping.
        let bounding = caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false);
        if bounding && !held.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(|e| refused("bounding", &e))?;
        }
    }
    drop_bounding_above(last);
    set_effective(&[])?;
    caps::set(None, CapSet::Permitted, &held).map_err(|e| refused("permitted", &e))
}

/// Replace the effective set of this thread.
fn set_effective(capabilities: &[Capability]) -> Result<(), Failure> {
    let set: CapsHashSet = capabilities.iter().copied().collect();
    caps::set(None, CapSet::Effective, &set).map_err(|e| refused("effective", &e))
}

fn refused(set: &str, error: &caps::errors::CapsError) -> Failure {
    Failure::kernel(
        format!("change the {set} capabilities ({error})"),
        std::io::Error::last_os_error(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_within_what_is_held() {
        let classes = [Class::None, Class::Network, Class::Visit, Class::Sandbox];
        for class in classes {
            for capability in class.capabilities() {
                assert!(HELD.contains(capability), "{class:?} needs {capability}");
            }
        }
    }
}
