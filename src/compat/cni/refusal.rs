//! Errors as a CNI runtime reads them: a code of the specification, a message, and what to do next.

use crate::api::client::ClientError;
use crate::compat::running::NoDaemon;
use crate::error::one_line;
use serde::Serialize;

/// Codes of the specification (section 5), and ours from 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Code {
    IncompatibleVersion = 1,
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Decode = 6,
    InvalidConfig = 7,
    TryAgain = 11,
    Unavailable = 50,
    /// The daemon refused or failed.
    Refused = 100,
    /// What there is is not what was made.
    Drift = 101,
}

/// An error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) details: Option<String>,
}

/// As it is printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Printed<'a> {
    cni_version: &'a str,
    code: u32,
    msg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a str>,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: None,
        }
    }

    #[must_use]
    pub(super) fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// The configuration says something that cannot be.
    pub(super) fn config(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidConfig, message)
    }

    /// The JSON for standard output.
    pub(super) fn json(&self, version: &str) -> String {
        let printed = Printed {
            cni_version: version,
            code: self.code as u32,
            msg: &self.message,
            details: self.details.as_deref(),
        };
        serde_json::to_string(&printed).unwrap_or_default()
    }
}

impl From<NoDaemon> for Refusal {
    fn from(error: NoDaemon) -> Self {
        let hint = error.hint();
        let refusal = Self::new(Code::TryAgain, one_line(&error));
        match hint {
            Some(hint) => refusal.with_details(hint),
            None => refusal,
        }
    }
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Refused { status: 400, .. } => Code::InvalidConfig,
            ClientError::Connect { .. } | ClientError::Silent(_) | ClientError::Broken { .. } => {
                Code::TryAgain
            }
            _ => Code::Refused,
        };
        let refusal = Self::new(code, one_line(&error));
        match error.hint() {
            Some(hint) => refusal.with_details(hint),
            None => refusal,
        }
    }
}
