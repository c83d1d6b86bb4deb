//! Why ports are not published, in the words that end up in podman's error message.

use crate::kernel::listeners::BindError;
use crate::relay::publish::alone::AloneError;
use crate::relay::sandbox::SandboxError;
use mossnet_helper::request::Failure;
use std::io;
use std::path::PathBuf;

/// Why.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There are none.
    #[error("too many arguments: podman starts this, with JSON on standard input")]
    Arguments,
    /// Standard input.
    #[error("read standard input")]
    Read(#[source] io::Error),
    /// It is too long.
    #[error("standard input has more than {0} bytes")]
    TooLong(usize),
    /// It is no JSON, or not of this kind.
    #[error("standard input is not what podman writes: {0}")]
    Json(#[source] serde_json::Error),
    /// A field that must be there.
    #[error("missing {0}")]
    Missing(&'static str),
    /// One for two purposes.
    #[error("descriptor {0} is both ExitFD and ReadyFD")]
    SameDescriptor(i32),
    /// It is not open.
    #[error("invalid {what}: descriptor {number}")]
    Descriptor {
        /// Which.
        what: &'static str,
        /// Its number.
        number: i32,
        /// Why.
        source: io::Error,
    },
    /// It becomes a file's name.
    #[error("container '{0}' is no id: letters, digits, '_' and '-'")]
    Container(String),
    /// No IP address, or one that nobody has.
    #[error("{what} '{value}' is no address")]
    Address {
        /// The field.
        what: &'static str,
        /// What it says.
        value: String,
    },
    /// Neither TCP nor UDP.
    #[error("protocol '{0}' is not supported without root: tcp and udp are")]
    Protocol(String),
    /// Zero, or beyond 65535.
    #[error(
        "host port {host_port} to container port {container_port}, {range} in a row: ports are 1 to 65535"
    )]
    Ports {
        /// The first.
        host_port: u16,
        /// What it leads to.
        container_port: u16,
        /// How many.
        range: u16,
    },
    /// A port cannot be had.
    #[error("{source}{}", hint(.source))]
    Bind {
        /// Why.
        source: BindError,
    },
    /// The container's network namespace.
    #[error("open network namespace {}", path.display())]
    Netns {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there and is something else.
    #[error("{} is not a network namespace of a container", .0.display())]
    NotNetns(PathBuf),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] Failure),
    /// The threads that serve.
    #[error(transparent)]
    Serve(#[from] AloneError),
    /// It could not lock itself in.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Anything else of the process.
    #[error("{what}")]
    Process {
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// "address already in use" is what podman, and who reads its messages, look for.
fn hint(error: &BindError) -> String {
    match error {
        BindError::InUse { .. } | BindError::NoneFree { .. } => {
            ": address already in use; publish another port".to_owned()
        }
        BindError::Forbidden { port, instead, .. } => {
            let other = instead.map_or_else(String::new, |port| format!("publish {port}, or "));
            format!(
                ": permission denied; {other}as root: sysctl net.ipv4.ip_unprivileged_port_start={port}"
            )
        }
        BindError::NoAddress(_) => "; see 'ip addr' for those that there are".to_owned(),
        BindError::Socket { .. } | BindError::Ports(_) => String::new(),
    }
}

/// For `map_err`.
pub fn process(what: &'static str) -> impl Fn(io::Error) -> Refusal {
    move |source| Refusal::Process { what, source }
}
