//! What an admin has installed and granted: `mossnet-helper` and its grants for this user.
//!
//! Sources: capabilities(7) (file capabilities; `security.capability` is struct vfs_cap_data of
//! linux/capability.h).

use super::Row;
use crate::error::one_line;
use crate::sys::installed;
use ipnet::IpNet;
use mossnet_setuid::client::{CallError, PLACES};
use mossnet_setuid::request::{Grants, Used, Verb};
use std::fmt::Display;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Bits of capabilities that it wants.
const WANTED: [(u32, &str); 3] = [
    (10, "cap_net_bind_service"),
    (12, "cap_net_admin"),
    (21, "cap_sys_admin"),
];
/// VFS_CAP_FLAGS_EFFECTIVE.
const EFFECTIVE: u32 = 1;
const SETUID: u32 = 0o4000;

/// The installed program, and what it answers.
#[derive(Debug, Clone)]
pub struct Installed {
    /// Where it is.
    pub program: PathBuf,
    /// With which privilege.
    pub privilege: String,
    /// What it grants; `None`: nothing at all. An error: why it does not say.
    pub grants: Result<Option<Grants>, String>,
}

impl Installed {
    /// Looks for it, and asks it.
    pub fn find() -> Option<Self> {
        let helper = installed::helper()?;
        let grants = match helper.query() {
            Ok(grants) => Ok(Some(grants)),
            Err(CallError::Denied) => Ok(None),
            Err(error) => Err(one_line(&error)),
        };
        Some(Self {
            program: helper.program().to_path_buf(),
            privilege: privilege(helper.program()),
            grants,
        })
    }

    fn granted(&self) -> Option<&Grants> {
        self.grants.as_ref().ok()?.as_ref()
    }
}

/// As ls(1) and getcap(8) would tell.
fn privilege(program: &Path) -> String {
    let mode = std::fs::metadata(program).map(|found| found.permissions().mode());
    if mode.is_ok_and(|mode| mode & SETUID != 0) {
        return "setuid root".to_owned();
    }
    let mut data = [0; 64];
    let length = rustix::fs::getxattr(program, "security.capability", &mut data[..]).unwrap_or(0);
    let word = |index: usize| {
        let bytes = data.get(index * 4..index * 4 + 4)?;
        <[u8; 4]>::try_from(bytes).ok().map(u32::from_le_bytes)
    };
    match (length, word(0), word(1)) {
        (8.., Some(flags), Some(permitted)) => {
            let has = |(bit, _): &&(u32, &str)| permitted & 1 << bit != 0;
            let names: Vec<_> = WANTED.iter().filter(has).map(|(_, name)| *name).collect();
            let effective = if flags & EFFECTIVE != 0 { "+ep" } else { "+p" };
            format!("{}{effective}", names.join(","))
        }
        _ => "without capabilities".to_owned(),
    }
}

/// Whether one of the usual low ports is granted, and which are.
pub(super) fn ports(installed: Option<&Installed>) -> Option<String> {
    let grants = installed?.granted()?;
    (!grants.ports.is_empty()).then(|| list(&grants.ports))
}

pub(super) fn row(installed: Option<&Installed>) -> Row {
    const CHECK: &str = "mossnet-helper";
    let brings = "an admin can grant by it: --uplink kernel (the speed of a rootful bridge, containers reached by address), low ports, host bridges";
    let Some(installed) = installed else {
        let found = format!("not installed ({}); {brings}", PLACES[0]);
        return Row::ok(CHECK, found, brings);
    };
    let place = format!("{}, {}", installed.program.display(), installed.privilege);
    let grants = match &installed.grants {
        Ok(Some(grants)) => grants,
        Ok(None) => {
            let found = format!("{place}: grants nothing (/etc/mossnet/grants.toml); {brings}");
            return Row::ok(CHECK, found, brings);
        }
        Err(reason) => {
            let found = format!("{place}: {reason}");
            let means = "what an admin grants by it cannot be had; all else works";
            return Row::degraded(CHECK, found, means).mend("sudo mossnet-helper check");
        }
    };
    let found = format!("{place}: grants {}", told(grants));
    match unforwarded(grants) {
        Some((family, switch)) => {
            let found = format!("{found}; {switch} = 0");
            let means = match family {
                "IPv4" => "--uplink kernel is granted, but this host forwards no IPv4",
                _ => "--uplink kernel is granted, but this host forwards no IPv6",
            };
            Row::degraded(CHECK, found, means).mend(format!("sudo sysctl -w {switch}=1"))
        }
        None => Row::ok(CHECK, found, "used where a network or a port asks for it"),
    }
}

fn told(grants: &Grants) -> String {
    let mut told = Vec::new();
    for verb in &grants.verbs {
        told.push(match verb {
            Verb::Veth => "veth".to_owned(),
            Verb::Bridge => format!("bridge {}", list(&grants.bridges)),
            Verb::Uplink => format!("--uplink kernel for {}", list(&grants.subnets)),
            Verb::Bind => format!("ports {}", list(&grants.ports)),
        });
    }
    let used = |used: Used, what: &str| format!("{} of {} {what}", used.now, used.most);
    told.push(format!(
        "used: {}, {}, {}",
        used(grants.interfaces, "links"),
        used(grants.bound, "low ports"),
        used(grants.published, "published ports")
    ));
    told.join("; ")
}

/// The first family of a granted subnet that the host does not forward, and the switch.
fn unforwarded(grants: &Grants) -> Option<(&'static str, &'static str)> {
    let wants = |v4: bool| {
        let is = |subnet: &IpNet| subnet.addr().is_ipv4() == v4;
        grants.verbs.contains(&Verb::Uplink) && grants.subnets.iter().any(is)
    };
    match (grants.forwards4, grants.forwards6) {
        (false, _) if wants(true) => Some(("IPv4", "net.ipv4.ip_forward")),
        (_, false) if wants(false) => Some(("IPv6", "net.ipv6.conf.all.forwarding")),
        _ => None,
    }
}

fn list<T: Display>(all: &[T]) -> String {
    let texts: Vec<_> = all.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::doctor::Status;
    use mossnet_setuid::request::{PortRange, Protocol};
    use std::num::NonZeroU16;

    fn installed(grants: Result<Option<Grants>, String>) -> Installed {
        Installed {
            program: "/usr/libexec/mossnet-helper".into(),
            privilege: "cap_net_admin+ep".to_owned(),
            grants,
        }
    }

    fn grants() -> Grants {
        Grants {
            verbs: vec![Verb::Uplink, Verb::Bind],
            subnets: vec!["10.200.0.0/16".parse().unwrap()],
            ports: vec![PortRange {
                protocol: Protocol::Tcp,
                first: NonZeroU16::new(80).unwrap(),
                last: NonZeroU16::new(90).unwrap(),
            }],
            interfaces: Used { most: 8, now: 1 },
            forwards4: true,
            ..Grants::default()
        }
    }

    #[test]
    fn what_is_granted_is_told() {
        let mut have = grants();
        let told = row(Some(&installed(Ok(Some(have.clone())))));
        assert_eq!(told.status, Status::Ok);
        for part in [
            "--uplink kernel for 10.200.0.0/16",
            "80-90/tcp",
            "1 of 8 links",
            "cap_net_admin+ep",
        ] {
            assert!(told.found.contains(part), "{}", told.found);
        }
        have.forwards4 = false;
        let told = row(Some(&installed(Ok(Some(have.clone())))));
        assert_eq!(told.status, Status::Degraded);
        let mend = "sudo sysctl -w net.ipv4.ip_forward=1";
        assert_eq!(told.mend.as_deref(), Some(mend));
        let ports = ports(Some(&installed(Ok(Some(have)))));
        assert_eq!(ports.as_deref(), Some("80-90/tcp"));
    }

    #[test]
    fn what_it_would_bring_is_told_where_there_is_nothing() {
        for (have, part) in [
            (None, "not installed (/usr/libexec/mossnet-helper)"),
            (Some(installed(Ok(None))), "grants nothing"),
        ] {
            let told = row(have.as_ref());
            assert_eq!(told.status, Status::Ok);
            assert!(told.found.contains(part), "{}", told.found);
            assert!(told.found.contains("--uplink kernel"), "{}", told.found);
        }
        let broken = row(Some(&installed(Err("gave no answer".to_owned()))));
        assert_eq!(broken.status, Status::Degraded);
    }

    #[test]
    fn a_file_without_capabilities_is_seen_as_such() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(privilege(file.path()), "without capabilities");
        let setuid = std::fs::Permissions::from_mode(0o4755);
        std::fs::set_permissions(file.path(), setuid).unwrap();
        assert_eq!(privilege(file.path()), "setuid root");
    }
}
