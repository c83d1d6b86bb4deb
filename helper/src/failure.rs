//! Why a request was not performed, as it travels to the daemon.

use serde::{Deserialize, Serialize};

/// A request that was not performed. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}{}", errno.map(|e| format!(": {}", std::io::Error::from_raw_os_error(e))).unwrap_or_default())]
pub struct Failure {
    /// What failed, on what: `create veth ve-0123456789 on bridge br-0123`.
    pub what: String,
    /// The system call's error number, where one was at fault (errno(3)).
    pub errno: Option<i32>,
    /// Class of the failure.
    pub kind: FailureKind,
}

/// Class of a failure, for what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request itself is malformed or out of range.
    Invalid,
    /// It names a sandbox, process or interface that does not exist.
    NotFound,
    /// It names something that exists already.
    Exists,
    /// The command could not be executed: exit 127 for ENOENT, 126 for anything else.
    Exec,
    /// Setting up the sandbox's file system or namespaces failed.
    Setup,
    /// It names a namespace over which our user namespace has no power.
    Foreign,
    /// The kernel refused, or lacks what is needed.
    Kernel,
}

impl Failure {
    /// The request itself is at fault.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            errno: None,
            kind: FailureKind::Invalid,
        }
    }

    /// It names something that does not exist.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            errno: None,
            kind: FailureKind::NotFound,
        }
    }

    /// It names something that exists already.
    pub fn exists(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            errno: None,
            kind: FailureKind::Exists,
        }
    }

    /// The kernel refused; `error` is an [`std::io::Error`] or a `nix` error number.
    pub fn kernel(what: impl Into<String>, error: impl Into<std::io::Error>) -> Self {
        let (what, error) = (what.into(), error.into());
        let errno = error.raw_os_error();
        let what = match errno {
            Some(_) => what,
            // Of the standard library: a socket path that is too long, say.
            None => format!("{what}: {error}"),
        };
        Self {
            what,
            errno,
            kind: FailureKind::Kernel,
        }
    }

    /// The same failure, as another class.
    #[must_use]
    pub fn of_kind(mut self, kind: FailureKind) -> Self {
        self.kind = kind;
        self
    }
}
