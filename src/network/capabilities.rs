//! Which capabilities a sandbox's processes may have, in its own user namespace only.
//!
//! Docker's default set, `--cap-add` and `--cap-drop` as Docker combines them. Source:
//! capabilities(7).

use std::collections::BTreeSet;

/// A capability was misspelt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a capability")]
pub struct CapabilityError(String);

/// Docker's default set.
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What else Linux has.
const OTHERS: [&str; 27] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// The bounding set: Docker's default, less `drop`, plus `add`. `ALL` means all of them; dropping
/// all and adding some leaves those.
pub fn bounding_set(add: &[String], drop: &[String]) -> Result<Vec<String>, CapabilityError> {
    let mut set: BTreeSet<&'static str> = DEFAULT.into();
    for name in drop {
        match parse(name)? {
            Named::All => set.clear(),
            Named::One(capability) => drop_one(&mut set, capability),
        }
    }
    for name in add {
        match parse(name)? {
            Named::All => set.extend(DEFAULT.into_iter().chain(OTHERS)),
            Named::One(capability) => {
                set.insert(capability);
            }
        }
    }
    // `--cap-add ALL --cap-drop X` leaves X out.
    for name in drop {
        if let Named::One(capability) = parse(name)? {
            drop_one(&mut set, capability);
        }
    }
    Ok(set.into_iter().map(str::to_owned).collect())
}

fn drop_one(set: &mut BTreeSet<&'static str>, capability: &'static str) {
    set.remove(capability);
}

enum Named {
    All,
    One(&'static str),
}

fn parse(name: &str) -> Result<Named, CapabilityError> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == "ALL" {
        return Ok(Named::All);
    }
    let mut known = DEFAULT.into_iter().chain(OTHERS);
    let found = known.find(|capability| capability.strip_prefix("CAP_") == Some(bare));
    let error = || CapabilityError(name.to_owned());
    found.map(Named::One).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Vec<String> {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        bounding_set(&own(add), &own(drop)).unwrap()
    }

    #[test]
    fn sets_combine_as_in_docker() {
        assert_eq!(set(&[], &[]).len(), 14);
        assert_eq!(set(&["ALL"], &[]).len(), 41);
        assert_eq!(set(&["net_admin"], &["all"]), ["CAP_NET_ADMIN"]);
        assert!(!set(&["ALL"], &["CAP_SYS_ADMIN"]).contains(&"CAP_SYS_ADMIN".to_owned()));
        assert!(set(&["NET_ADMIN"], &[]).contains(&"CAP_NET_RAW".to_owned()));
        let error = bounding_set(&["NET_RAM".to_owned()], &[]).unwrap_err();
        assert_eq!(error.to_string(), "'NET_RAM' is not a capability");
    }
}
