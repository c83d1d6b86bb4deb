//! Ways out of the router netns, behind one trait: our relay, an installed pasta or slirp4netns,
//! or none.
//!
//! Invariant: the programs are run by the helper in the router netns, at most one of each kind,
//! and only while a network needs it.

use super::refusal::failed;
use crate::api::control::Refusal;
use crate::api::types;
use mossnet_helper::request::{UplinkKind, UplinkSpec};
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why an uplink cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum UplinkError {
    /// The program is not there.
    #[error("`--uplink {uplink}` needs the program {program}, which is not in PATH")]
    NotInstalled {
        uplink: &'static str,
        program: &'static str,
        package: &'static str,
    },
    /// The program needs a tap device.
    #[error("`--uplink {uplink}` needs {TUN}, which cannot be opened: {source}")]
    NoTun {
        uplink: &'static str,
        source: io::Error,
    },
}

impl UplinkError {
    fn hint(&self) -> String {
        match self {
            Self::NotInstalled { package, .. } => format!(
                "install it (Debian: apt-get install {package}), or leave --uplink out: relay needs no program"
            ),
            Self::NoTun { .. } => {
                "load the module (modprobe tun), or leave --uplink out: relay needs no device"
                    .into()
            }
        }
    }
}

impl From<UplinkError> for Refusal {
    fn from(error: UplinkError) -> Self {
        failed(error.to_string()).with_hint(error.hint())
    }
}

const TUN: &str = "/dev/net/tun";

/// Where programs are sought without PATH.
const USUAL_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// A way out of the router netns.
pub(super) trait Uplink: Send + Sync {
    /// Checks that it can be used on this machine; what the helper must run for it, if anything.
    fn prepare(&self) -> Result<Option<UplinkSpec>, UplinkError>;
}

/// mossnet's own userspace NAT: part of the relay, which runs anyway.
struct Relay;

/// No way out.
struct Nothing;

/// An installed user-mode network stack with a tap device.
struct Program {
    kind: UplinkKind,
    /// As in `--uplink`.
    uplink: &'static str,
    program: &'static str,
    package: &'static str,
}

impl Uplink for Relay {
    fn prepare(&self) -> Result<Option<UplinkSpec>, UplinkError> {
        Ok(None)
    }
}

impl Uplink for Nothing {
    fn prepare(&self) -> Result<Option<UplinkSpec>, UplinkError> {
        Ok(None)
    }
}

impl Uplink for Program {
    fn prepare(&self) -> Result<Option<UplinkSpec>, UplinkError> {
        let uplink = self.uplink;
        let path = std::env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into());
        let program = find_program(self.program, &path).ok_or(UplinkError::NotInstalled {
            uplink,
            program: self.program,
            package: self.package,
        })?;
        let opened = OpenOptions::new().read(true).write(true).open(TUN);
        opened.map_err(|source| UplinkError::NoTun { uplink, source })?;
        let kind = self.kind;
        Ok(Some(UplinkSpec { kind, program }))
    }
}

/// The uplink of this kind.
pub(super) fn uplink(kind: UplinkKind) -> &'static dyn Uplink {
    const PASTA: Program = Program {
        kind: UplinkKind::Pasta,
        uplink: "pasta",
        program: "pasta",
        package: "passt",
    };
    const SLIRP: Program = Program {
        kind: UplinkKind::Slirp,
        uplink: "slirp",
        program: "slirp4netns",
        package: "slirp4netns",
    };
    match kind {
        UplinkKind::Relay => &Relay,
        UplinkKind::Pasta => &PASTA,
        UplinkKind::Slirp => &SLIRP,
        UplinkKind::Kernel | UplinkKind::None => &Nothing,
    }
}

/// First executable of this name in `path`.
fn find_program(name: &str, path: &OsStr) -> Option<PathBuf> {
    let absolute = std::env::split_paths(path).filter(|directory| directory.is_absolute());
    absolute
        .map(|directory| directory.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    let metadata = std::fs::metadata(file);
    metadata.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// From the API's word.
pub(super) fn kind_of(uplink: types::Uplink) -> UplinkKind {
    match uplink {
        types::Uplink::Relay => UplinkKind::Relay,
        types::Uplink::Pasta => UplinkKind::Pasta,
        types::Uplink::Slirp => UplinkKind::Slirp,
        types::Uplink::Kernel => UplinkKind::Kernel,
        types::Uplink::None => UplinkKind::None,
    }
}

/// To the API's word.
pub(super) fn word_for(kind: UplinkKind) -> types::Uplink {
    match kind {
        UplinkKind::Relay => types::Uplink::Relay,
        UplinkKind::Pasta => types::Uplink::Pasta,
        UplinkKind::Slirp => types::Uplink::Slirp,
        UplinkKind::Kernel => types::Uplink::Kernel,
        UplinkKind::None => types::Uplink::None,
    }
}

/// As in `--uplink`.
pub(super) fn name_of(kind: UplinkKind) -> &'static str {
    match kind {
        UplinkKind::Relay => "relay",
        UplinkKind::Pasta => "pasta",
        UplinkKind::Slirp => "slirp",
        UplinkKind::Kernel => "kernel",
        UplinkKind::None => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_path_only_if_executable() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mossnet-test-stack");
        std::fs::write(&file, "").unwrap();
        let find = || find_program("mossnet-test-stack", directory.path().as_os_str());
        assert_eq!(find(), None);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(find(), Some(file));
    }

    #[test]
    fn every_kind_is_itself() {
        for kind in [
            UplinkKind::Relay,
            UplinkKind::Pasta,
            UplinkKind::Slirp,
            UplinkKind::Kernel,
            UplinkKind::None,
        ] {
            assert_eq!(kind_of(word_for(kind)), kind);
        }
    }
}
