//! Every error of the layers below, as a refusal that a user can act on.
//!
//! Invariant: one message that says what failed, on what and why, a hint wherever one can act, and
//! Docker's exit codes: 127 for a command that is not there, 126 for one that cannot run, else 125.

use crate::api::control::Refusal;
use crate::error::{EXIT_CANNOT_EXECUTE, EXIT_NOT_FOUND, one_line};
use crate::ipam::{AddressError, PoolError};
use crate::kernel::helper::HelperError;
use crate::kernel::host::HostError;
use crate::network::capabilities::CapabilityError;
use crate::network::names::NameError;
use crate::network::resolv::ResolvError;
use crate::network::subnet::SubnetError;
use crate::state::StateError;
use mossnet_helper::request::{Failure, FailureKind};
use nix::errno::Errno;
use std::path::{Path, PathBuf};

/// The request makes no sense.
pub(super) fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(400, message)
}

/// It names something that is not there.
pub(super) fn unknown(message: impl Into<String>) -> Refusal {
    Refusal::new(404, message)
}

/// It contradicts something that is there.
pub(super) fn conflict(message: impl Into<String>) -> Refusal {
    Refusal::new(409, message)
}

/// It could not be done.
pub(super) fn failed(message: impl Into<String>) -> Refusal {
    Refusal::new(500, message)
}

/// A file or directory of ours cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub(super) struct FileError {
    action: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

impl FileError {
    /// For `map_err`.
    pub(super) fn on(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self {
            action,
            path,
            source,
        }
    }
}

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Self {
        failed(one_line(&error)).with_hint("check the directory's permissions and free space")
    }
}

impl From<StateError> for Refusal {
    fn from(error: StateError) -> Self {
        failed(one_line(&error)).with_hint(error.hint())
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        malformed(error.to_string())
    }
}

impl From<CapabilityError> for Refusal {
    fn from(error: CapabilityError) -> Self {
        malformed(error.to_string()).with_hint("capabilities(7) lists them")
    }
}

impl From<SubnetError> for Refusal {
    fn from(error: SubnetError) -> Self {
        malformed(error.to_string())
    }
}

impl From<mossnet_helper::NameError> for Refusal {
    fn from(error: mossnet_helper::NameError) -> Self {
        malformed(error.to_string())
    }
}

impl From<ResolvError> for Refusal {
    fn from(error: ResolvError) -> Self {
        malformed(error.to_string()).with_hint(error.hint())
    }
}

impl From<HostError> for Refusal {
    fn from(error: HostError) -> Self {
        if let HostError::NoInterface(_) = error {
            return malformed(error.to_string()).with_hint("'ip link' lists them");
        }
        failed(one_line(&error))
    }
}

impl From<PoolError> for Refusal {
    fn from(error: PoolError) -> Self {
        let status = match error {
            PoolError::Exhausted { .. } => 409,
            PoolError::Malformed(_) => 400,
        };
        Refusal::new(status, error.to_string()).with_hint(error.hint())
    }
}

impl From<AddressError> for Refusal {
    fn from(error: AddressError) -> Self {
        let status = match error {
            AddressError::InUse { .. } | AddressError::Exhausted { .. } => 409,
            AddressError::Outside { .. } | AddressError::Reserved { .. } => 400,
        };
        Refusal::new(status, error.to_string()).with_hint(error.hint())
    }
}

impl From<HelperError> for Refusal {
    fn from(error: HelperError) -> Self {
        let hint = match &error {
            HelperError::Refused(failure) => return failure_refusal(failure),
            HelperError::Launch { .. } | HelperError::Connect { .. } => {
                "helper.log in the runtime directory (`mossnet info`) may say why".to_owned()
            }
            HelperError::Version { pid, .. } => format!(
                "end the sandboxes with the mossnet that started them, or all at once: kill {pid}"
            ),
            HelperError::Snapshot(_) => {
                "check free memory and the limit of open files (ulimit -n)".to_owned()
            }
            HelperError::Gone | HelperError::OutOfTurn => {
                "try again; helper.log in the runtime directory may say why".to_owned()
            }
        };
        failed(one_line(&error)).with_hint(hint)
    }
}

fn failure_refusal(failure: &Failure) -> Refusal {
    let message = failure.to_string();
    let errno = failure.errno.map(Errno::from_raw);
    match failure.kind {
        FailureKind::Exec => {
            let mut refusal = malformed(message);
            let not_found = errno == Some(Errno::ENOENT);
            refusal.body.exit_code = if not_found {
                EXIT_NOT_FOUND
            } else {
                EXIT_CANNOT_EXECUTE
            };
            let hint = match errno {
                Some(Errno::ENOENT) => Some("check the command's name and PATH in the sandbox"),
                Some(Errno::EACCES) => Some("check that it is an executable file"),
                Some(Errno::ENOEXEC) => Some("check that it is a program for this machine"),
                Some(_) | None => None,
            };
            match hint {
                Some(hint) => refusal.with_hint(hint),
                None => refusal,
            }
        }
        FailureKind::Invalid => malformed(message),
        FailureKind::NotFound => unknown(message),
        FailureKind::Exists => conflict(message),
        FailureKind::Foreign => malformed(message).with_hint(
            "run the other runtime inside 'mossnet unshare', so that its namespaces are below mossnet's",
        ),
        FailureKind::Setup | FailureKind::Kernel => {
            failed(message).with_hint("`mossnet doctor` says what this machine lacks")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_failures_have_dockers_exit_codes() {
        let exec = |errno: Errno| {
            let failure = Failure {
                what: "execute 'x'".into(),
                errno: Some(errno as i32),
                kind: FailureKind::Exec,
            };
            Refusal::from(HelperError::Refused(failure)).body
        };
        let missing = exec(Errno::ENOENT);
        assert_eq!(missing.exit_code, 127);
        assert!(
            missing.message.starts_with("execute 'x': No such file"),
            "{missing:?}"
        );
        assert_eq!(exec(Errno::EACCES).exit_code, 126);
        assert_eq!(exec(Errno::ENOEXEC).exit_code, 126);
    }

    #[test]
    fn the_kernels_refusals_point_to_the_doctor() {
        let failure = Failure {
            what: "make a user namespace".into(),
            errno: Some(Errno::EPERM as i32),
            kind: FailureKind::Kernel,
        };
        let refusal = Refusal::from(HelperError::Refused(failure));
        assert_eq!((refusal.status, refusal.body.exit_code), (500, 125));
        assert!(refusal.body.hint.unwrap().contains("doctor"));
    }
}
