//! `run` and `exec`: their flags, and what they ask of the daemon. All that can be judged without a
//! daemon is judged here, so that a wrong flag never starts one.

use super::environment::{self, EnvironmentError};
use super::names;
use super::ports::PublishArgs;
use super::run_network::{NetworkArgs, NetworkFlagError};
use super::value;
use crate::api::types::{ExecCreate, SandboxCreate, Stdio, Uplink};
use clap::{ArgAction, Args};
use std::path::PathBuf;

/// Why flags do not go together, or name what cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// Docker's own words.
    #[error("the input device is not a TTY")]
    NotATerminal,
    /// Networks do not go together, or not with another flag.
    #[error(transparent)]
    Network(#[from] NetworkFlagError),
    /// `--rootfs` must be a directory.
    #[error("--rootfs {}", path.display())]
    Rootfs {
        /// As given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `-e`, `--env-file`.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
}

impl FlagError {
    /// What to do next.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotATerminal => Some("leave -t out where input comes from a pipe or a file"),
            Self::Network(error) => error.hint(),
            Self::Rootfs { .. } => Some("give a directory that holds a root file system"),
            Self::Environment(_) => None,
        }
    }
}

/// `run`.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_long_help = "Examples:\n  \
        mossnet run -- curl https://example.org\n  \
        mossnet run -it --rm --name lab -- bash\n  \
        mossnet run -dit --name shell -- sh\n  \
        mossnet run -d --name web --ip 10.89.0.80 -- busybox httpd -f -p 80\n  \
        mossnet run -d -p 8080:80 -p 127.0.0.1:5353:53/udp -- CMD\n  \
        mossnet run --host-ports 5432 -- psql -h host.mossnet.internal\n  \
        mossnet run --network mynet:ip=192.168.0.9,alias=db --network bridge -- ip addr\n  \
        mossnet run --network container:web -- ss -tln"
)]
pub struct RunArgs {
    /// Do not wait: print the id and leave the command running, its output going to the log.
    #[arg(short, long)]
    pub detach: bool,
    /// Standard streams.
    #[command(flatten)]
    pub streams: StreamArgs,
    /// Remove the sandbox when its command has ended.
    #[arg(long = "rm")]
    pub remove: bool,
    /// Name of the sandbox; made up when absent.
    #[arg(long, value_parser = value::name)]
    pub name: Option<String>,
    /// Host name inside; the short id when absent.
    #[arg(short = 'h', long, value_name = "NAME", value_parser = value::hostname)]
    pub hostname: Option<String>,
    /// Addresses and names.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Ports on the host.
    #[command(flatten)]
    pub ports: PublishArgs,
    /// Environment and working directory.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Use DIR as the root directory instead of the file system of this machine.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub rootfs: Option<PathBuf>,
    /// Add a capability (within the sandbox only), or ALL.
    #[arg(long, value_name = "CAP", value_parser = value::capability)]
    pub cap_add: Vec<String>,
    /// Drop a capability, or ALL.
    #[arg(long, value_name = "CAP", value_parser = value::capability)]
    pub cap_drop: Vec<String>,
    /// Print help.
    #[arg(long, action = ArgAction::Help)]
    pub help: Option<bool>,
    /// The command and its arguments.
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true, value_hint = clap::ValueHint::CommandWithArguments)]
    pub command: Vec<String>,
}

/// `-i` and `-t`.
#[derive(Debug, Clone, Copy, Args)]
pub struct StreamArgs {
    /// Connect standard input; with -d, keep it open.
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal; with -d, what it prints there goes to the log.
    #[arg(short, long)]
    pub tty: bool,
}

/// Environment and working directory of a command.
#[derive(Debug, Args)]
pub struct ProcessArgs {
    /// Set an environment variable; NAME alone passes ours on. May be repeated.
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = value::given)]
    pub env: Vec<String>,
    /// Read environment variables from a file, one NAME=VALUE a line; may be repeated.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub env_file: Vec<PathBuf>,
    /// Working directory inside.
    #[arg(short, long, value_name = "DIR", value_parser = value::workdir)]
    pub workdir: Option<PathBuf>,
}

/// `exec`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
        mossnet exec web ip addr\n  \
        mossnet exec -it web -- sh")]
pub struct ExecArgs {
    /// Do not wait for the command; its output goes nowhere.
    #[arg(short, long)]
    pub detach: bool,
    /// Standard streams.
    #[command(flatten)]
    pub streams: StreamArgs,
    /// Environment and working directory.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Name, id, or unambiguous beginning of an id (4 digits at least).
    #[arg(value_name = "NAME", value_parser = value::given, add = names::running())]
    pub sandbox: String,
    /// The command and its arguments.
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true, value_hint = clap::ValueHint::CommandWithArguments)]
    pub command: Vec<String>,
}

impl StreamArgs {
    fn check(self, detach: bool) -> Result<Stdio, FlagError> {
        let attached = !detach;
        if attached
            && self.interactive
            && self.tty
            && !std::io::IsTerminal::is_terminal(&std::io::stdin())
        {
            return Err(FlagError::NotATerminal);
        }
        Ok(if detach {
            Stdio::Detached
        } else {
            Stdio::Attached
        })
    }
}

impl ProcessArgs {
    /// The environment in order, the last of each name; a terminal brings our TERM along.
    fn environment(&self, tty: bool) -> Result<Vec<(String, String)>, FlagError> {
        let own = |name: &str| std::env::var_os(name);
        let mut env = Vec::new();
        if tty && let Ok(term) = std::env::var("TERM") {
            env.push(("TERM".to_owned(), term));
        }
        for path in &self.env_file {
            env.extend(environment::read_file(path, own)?);
        }
        env.extend(environment::from_flags(&self.env, own)?);
        Ok(environment::last_of_each(env))
    }
}

impl RunArgs {
    /// What to ask of the daemon.
    pub fn request(&self) -> Result<SandboxCreate, FlagError> {
        let stdio = self.streams.check(self.detach)?;
        let network = &self.network;
        Ok(SandboxCreate {
            name: self.name.clone(),
            hostname: self.hostname.clone(),
            network: network.mode()?,
            links: network.link.clone(),
            dns: network.dns.clone(),
            dns_search: network.dns_search.clone(),
            add_host: network.add_host.clone(),
            env: self.process.environment(self.streams.tty)?,
            workdir: self.process.workdir.clone(),
            caller_dir: std::env::current_dir().ok(),
            caller_home: std::env::home_dir().filter(|home| home.is_absolute()),
            rootfs: self.rootfs()?,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            command: self.command.clone(),
            stdio,
            interactive: self.streams.interactive,
            tty: self.streams.tty,
            auto_remove: self.remove,
            uplink: network.uplink.map(Uplink::from),
            publish: self.ports.request(),
            publish_all: self.ports.publish_all,
            expose: self.ports.expose.clone(),
            host_loopback: network.host.wish(),
        })
    }

    /// The daemon has another working directory: absolute, and a directory.
    fn rootfs(&self) -> Result<Option<PathBuf>, FlagError> {
        let Some(path) = &self.rootfs else {
            return Ok(None);
        };
        let failed = |source| FlagError::Rootfs {
            path: path.clone(),
            source,
        };
        let whole = path.canonicalize().map_err(failed)?;
        if !whole.is_dir() {
            return Err(failed(std::io::ErrorKind::NotADirectory.into()));
        }
        Ok(Some(whole))
    }
}

impl ExecArgs {
    /// What to ask of the daemon.
    pub fn request(&self) -> Result<ExecCreate, FlagError> {
        let stdio = self.streams.check(self.detach)?;
        Ok(ExecCreate {
            command: self.command.clone(),
            env: self.process.environment(self.streams.tty)?,
            workdir: self.process.workdir.clone(),
            interactive: self.streams.interactive,
            tty: self.streams.tty,
            stdio,
        })
    }
}

#[cfg(test)]
#[path = "create_args_tests.rs"]
mod tests;
