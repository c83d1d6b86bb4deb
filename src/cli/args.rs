//! The words of the command line. One table (clap) feeds parser, help, man pages and completions.

use super::create_args::{ExecArgs, RunArgs};
use super::value;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Private networks for commands and containers, without root.
#[derive(Debug, Parser)]
#[command(
    name = "mossnet",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    long_about = "Private networks for commands and containers, without root.\n\n\
        'mossnet run -- CMD' runs CMD behind a virtual Ethernet cable on a private bridge, with an \
        address of its own, a name service, and a way out to the world over TCP, UDP and ICMP. \
        A daemon of your own starts on first use and ends when nothing is left to do.",
    after_long_help = "Examples:\n  \
        mossnet run -it -- sh\n  \
        mossnet run -d --name web -- busybox httpd -f -p 80\n  \
        mossnet exec web -- ip addr\n  \
        mossnet stop web\n  \
        mossnet doctor\n\n\
        Exit status: that of the command for 'run' and 'exec'; 125 when mossnet itself failed or \
        was misused, 126 when the command cannot be executed, 127 when it was not found; 1 when \
        another subcommand failed."
)]
pub struct Cli {
    /// Keep all state and sockets below DIR: a daemon, networks and sandboxes of their own
    /// (environment: MOSSNET_ROOT).
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options", value_hint = clap::ValueHint::DirPath)]
    root: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// `--root`, or what the environment says; set but empty is unset.
    pub fn root(&self) -> Option<PathBuf> {
        let environment = || std::env::var_os("MOSSNET_ROOT").filter(|root| !root.is_empty());
        self.root
            .clone()
            .or_else(|| environment().map(PathBuf::from))
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command in a network sandbox of its own.
    ///
    /// The command gets its own network, mount, pid, UTS and IPC namespaces, /etc/hosts and
    /// /etc/resolv.conf; the rest of the file system is yours, unless --rootfs says otherwise.
    /// Without -i its standard input is empty. SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and
    /// SIGUSR2 are passed on to it. It goes on if mossnet itself is killed; with -t its terminal
    /// is then hung up.
    Run(Box<RunArgs>),
    /// Run another command in a running sandbox.
    Exec(ExecArgs),
    /// List sandboxes.
    ///
    /// --format json prints one JSON object for each sandbox, on a line of its own.
    Ps(PsArgs),
    /// Stop sandboxes: SIGTERM, and SIGKILL when that does not help in time.
    Stop(StopArgs),
    /// Send a signal to the first process of sandboxes.
    Kill(KillArgs),
    /// Remove sandboxes that do not run.
    Rm(RmArgs),
    /// Wait until sandboxes have ended, and print their exit codes.
    Wait(Names),
    /// Show all there is to know about sandboxes and networks, as a JSON array.
    Inspect(Names),
    /// Print what a detached sandbox has written.
    Logs(LogsArgs),
    /// Look at networks.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Network {
        /// What to do.
        #[command(subcommand)]
        command: NetworkCommand,
    },
    /// Check what this machine has, and say how to get what it lacks.
    Doctor(FormatArg),
    /// Run the daemon in the foreground, as for systemd.
    ///
    /// Other commands start a daemon by themselves when there is none.
    Daemon(DaemonArgs),
    /// Show the daemon's processes and places.
    Info(FormatArg),
    /// End the daemon; sandboxes go on, and the next command starts a new one.
    Shutdown(ShutdownArgs),
    /// Print a completion script for a shell.
    ///
    /// For bash: mossnet completion bash > ~/.local/share/bash-completion/completions/mossnet
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory.
    #[command(hide = true)]
    Man {
        /// The directory.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

/// Sandboxes (or networks) to work on.
#[derive(Debug, Args)]
pub struct Names {
    /// Names, ids, or unambiguous beginnings of ids.
    #[arg(value_name = "NAME", required = true, value_parser = value::given)]
    pub names: Vec<String>,
}

/// `--format`.
#[derive(Debug, Args)]
pub struct FormatArg {
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// How a listing is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// `ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Also those that do not run.
    #[arg(short, long)]
    pub all: bool,
    /// Only ids.
    #[arg(short, long)]
    pub quiet: bool,
    /// Whole ids and commands.
    #[arg(long)]
    pub no_trunc: bool,
    /// How to print it.
    #[command(flatten)]
    pub format: FormatArg,
}

/// `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// How long to wait before SIGKILL.
    #[arg(short = 't', long = "time", alias = "timeout", value_name = "SECONDS", default_value_t = crate::api::types::STOP_TIMEOUT_SECONDS)]
    pub seconds: u64,
    /// Every sandbox that runs.
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
    /// Names, ids, or unambiguous beginnings of ids.
    #[arg(value_name = "NAME", required_unless_present = "all", value_parser = value::given)]
    pub names: Vec<String>,
}

/// `kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// By name or number: TERM, SIGTERM or 15.
    #[arg(short, long, default_value = "KILL", value_parser = value::signal)]
    pub signal: i32,
    /// The sandboxes.
    #[command(flatten)]
    pub names: Names,
}

/// `rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Also those that run, which are killed; those that do not exist are no error.
    #[arg(short, long)]
    pub force: bool,
    /// The sandboxes.
    #[command(flatten)]
    pub names: Names,
}

/// `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Go on printing until the sandbox ends.
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines.
    #[arg(short = 'n', long, value_name = "N", value_parser = value::tail, default_value = "all")]
    pub tail: value::Tail,
    /// Name, id, or unambiguous beginning of an id.
    #[arg(value_name = "NAME", value_parser = value::given)]
    pub name: String,
}

/// `network`.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// List networks.
    ///
    /// --format json prints one JSON object for each network, on a line of its own.
    #[command(visible_alias = "list")]
    Ls(NetworkLsArgs),
    /// Show all there is to know about networks, as a JSON array.
    Inspect(Names),
}

/// `network ls`.
#[derive(Debug, Args)]
pub struct NetworkLsArgs {
    /// Only ids.
    #[arg(short, long)]
    pub quiet: bool,
    /// Whole ids.
    #[arg(long)]
    pub no_trunc: bool,
    /// How to print it.
    #[command(flatten)]
    pub format: FormatArg,
}

/// `daemon`.
#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// End when nothing has run and nobody has asked for this long; 0: at once.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        env = "MOSSNET_IDLE",
        hide_env_values = true
    )]
    pub idle: u64,
    /// Leave the caller's session, and say 'ready' or what is wrong on standard output.
    #[arg(long, hide = true)]
    pub background: bool,
}

/// `shutdown`.
#[derive(Debug, Args)]
pub struct ShutdownArgs {
    /// Also end every sandbox and take down the networks.
    #[arg(long)]
    pub all: bool,
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
