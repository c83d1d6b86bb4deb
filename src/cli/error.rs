//! What went wrong, as the user reads it: `mossnet: what failed on what: why`, and `hint: …`.

use super::capture::CaptureFlagError;
use super::create_args::FlagError;
use super::run_network::NetworkFlagError;
use super::template::TemplateError;
use crate::api::capture::CaptureError;
use crate::api::client::ClientError;
use crate::api::enter::EnterError;
use crate::api::port_types::PublishSpec;
use crate::error::{EXIT_FAILURE, one_line};
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The daemon refused, failed, or is not there.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Flags do not go together.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// Networks do not go together.
    #[error(transparent)]
    NetworkFlag(#[from] NetworkFlagError),
    /// A template that does not fit what it is to print.
    #[error("--format: {0}")]
    Template(TemplateError),
    /// `port NAME PORT` of one that is not.
    #[error("sandbox '{name}' does not publish port {port}")]
    NotPublished {
        /// The sandbox.
        name: String,
        /// The container port.
        port: PublishSpec,
    },
    /// The user's answer was not yes.
    #[error("nothing was removed: the answer was not 'y'")]
    Cancelled,
    /// `start -a` of several.
    #[error("start -a takes one sandbox: the output of several would be mixed")]
    AttachOne,
    /// `netns rm` of one that runs something.
    #[error("'{0}' is not a bare network namespace: a process runs in it")]
    HasProcess(String),
    /// Flags of `capture` do not go together.
    #[error(transparent)]
    CaptureFlag(#[from] CaptureFlagError),
    /// Nothing can be captured, or no more.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A namespace could not be entered.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// Standard output failed.
    #[error("write to standard output")]
    Output(#[source] io::Error),
    /// The terminal failed.
    #[error("{what}")]
    Terminal {
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file failed.
    #[error("{what} {}", path.display())]
    File {
        /// What failed.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Signals cannot be caught.
    #[error("listen for signals")]
    Signals(#[source] io::Error),
    /// An answer could not be printed as JSON.
    #[error("print as JSON")]
    Json(#[from] serde_json::Error),
    /// Neither sandbox nor network has this name.
    #[error("no sandbox and no network is called '{0}'")]
    Unknown(String),
    /// The event loop cannot be made.
    #[error("start")]
    Runtime(#[source] io::Error),
    /// `daemon` and `doctor` are not commands of this layer.
    #[error("this command is not part of the client")]
    NotHere,
}

impl CliError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Client(error) => error.hint(),
            Self::Flag(error) => error.hint().map(str::to_owned),
            Self::NetworkFlag(error) => error.hint().map(str::to_owned),
            Self::Template(error) => error.hint(),
            Self::Cancelled => Some("-f removes without a question".to_owned()),
            Self::AttachOne => {
                Some("start them without -a, and look at each by mossnet logs -f NAME".to_owned())
            }
            Self::NotPublished { name, .. } => {
                Some(format!("mossnet port {name} shows those that are"))
            }
            Self::HasProcess(name) => Some(format!("mossnet rm -f {name} ends and removes it")),
            Self::CaptureFlag(error) => error.hint().map(str::to_owned),
            Self::Capture(error) => error.hint(),
            Self::Enter(error) => error.hint().map(str::to_owned),
            Self::Unknown(_) => {
                Some("mossnet ps -a and mossnet network ls show those that exist".to_owned())
            }
            Self::Output(_)
            | Self::Terminal { .. }
            | Self::File { .. }
            | Self::Signals(_)
            | Self::Json(_)
            | Self::Runtime(_)
            | Self::NotHere => None,
        }
    }

    /// The reader of our output went away, which is its right.
    fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Prints it; `ours`: the exit codes of `run` and `exec`.
    pub(super) fn show(&self, ours: bool) -> ExitCode {
        if self.is_broken_pipe() {
            return ExitCode::SUCCESS;
        }
        self.print();
        ExitCode::from(self.code(ours))
    }

    pub(super) fn code(&self, ours: bool) -> u8 {
        match self {
            // Without a daemon no command can do anything: Docker's code for that, too.
            Self::Client(ClientError::Paths(_) | ClientError::Launch(_)) => EXIT_FAILURE,
            Self::Client(error) if ours => error.exit_code(),
            Self::Enter(error) => error.exit_code(),
            // As of every usage error.
            Self::CaptureFlag(_) => EXIT_FAILURE,
            Self::Capture(error) => error.exit_code(),
            _ if ours => EXIT_FAILURE,
            _ => 1,
        }
    }

    /// Prints it without ending the command.
    pub(super) fn print(&self) {
        print(self, self.hint().as_deref());
    }
}

/// Prints an error of another layer as this one prints its own.
pub fn report(error: &dyn Error, hint: Option<&str>) {
    print(error, hint);
}

fn print(error: &dyn Error, hint: Option<&str>) {
    eprintln!("mossnet: {}", one_line(error));
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
}
