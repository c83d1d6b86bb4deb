//! The words of the command line. One table (clap) feeds parser, help, man pages and completions.

use super::capture::CaptureArgs;
use super::create_args::{ExecArgs, RunArgs};
use super::listing;
use super::names;
use super::netns::NetnsCommand;
use super::network_args::NetworkCommand;
use super::ports::PortArgs;
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
        mossnet run -d --name web -p 8080:80 -- busybox httpd -f -p 80\n  \
        mossnet exec web -- ip addr\n  \
        mossnet stop web\n  \
        mossnet doctor\n\n\
        Exit status: that of the command for 'run' and 'exec'; 125 when mossnet itself failed or \
        was misused, 126 when the command cannot be executed, 127 when it was not found; 1 when \
        another subcommand failed."
)]
pub struct Cli {
    /// Which daemon is meant.
    #[command(flatten)]
    pub(super) root: Root,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

// The option of every subcommand. (No documentation: clap would take it for that of the program.)
#[derive(Debug, Args)]
pub(super) struct Root {
    /// Keep all state and sockets below DIR: a daemon, networks and sandboxes of their own
    /// (environment: MOSSNET_ROOT).
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options", value_hint = clap::ValueHint::DirPath)]
    pub(super) root: Option<PathBuf>,
}

impl Cli {
    /// `--root`, or what the environment says; set but empty is unset.
    pub fn root(&self) -> Option<PathBuf> {
        self.root.root.clone().or_else(root_of_environment)
    }
}

/// What the environment says; set but empty is unset.
pub(super) fn root_of_environment() -> Option<PathBuf> {
    let root = std::env::var_os("MOSSNET_ROOT").filter(|root| !root.is_empty());
    root.map(PathBuf::from)
}

const CNI_EXAMPLE: &str = "Example, as root of 'mossnet unshare':\n  \
    conf='{\"cniVersion\": \"1.1.0\", \"name\": \"lab\", \"type\": \"mossnet-cni\"}'\n  \
    echo \"$conf\" | CNI_COMMAND=ADD CNI_CONTAINERID=demo CNI_IFNAME=eth0 \\\n    \
    CNI_NETNS=/proc/PID/ns/net mossnet cni";
const HOOK_EXAMPLE: &str = "Example, in config.json:\n  \
    \"annotations\": {\"org.mossnet.networks\": \"mynet\"},\n  \
    \"hooks\": {\"createRuntime\": [{\"path\": \"/usr/local/bin/mossnet\", \"args\": [\"mossnet-oci-hook\"]}]}";

const DAEMON_ENVIRONMENT: &str = "Environment, also of a command that starts a daemon:\n  \
    MOSSNET_POOL=172.30.0.0/16   prefixes for new networks, instead of 10.89.0.0/16\n  \
    MOSSNET_BUSY_POLL=0          how long the relay looks for the next event before it sleeps, while\n  \
    \x20                            they follow each other closely: 100 microseconds; 0: it sleeps at once\n  \
    MOSSNET_FRAMED=0             whether the relay itself speaks TCP with sandboxes as long as a flow is\n  \
    \x20                            short; 0: the kernel speaks all of it\n  \
    MOSSNET_LOG=debug            what is logged, of daemon, helper and relay";

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
    /// --format json prints one JSON object for each sandbox, on a line of its own. Fields of a
    /// template: ID, Command, RunningFor, Status, Ports, Networks, Addresses, Names, CreatedAt,
    /// State, ExitCode, Pid.
    Ps(PsArgs),
    /// Start sandboxes again that have ended: the same command, networks and, where it can be,
    /// addresses.
    Start(StartArgs),
    /// Stop sandboxes and start them again.
    Restart(RestartArgs),
    /// Stop sandboxes: SIGTERM, and SIGKILL when that does not help in time.
    Stop(StopArgs),
    /// Send a signal to the first process of sandboxes.
    Kill(KillArgs),
    /// Remove sandboxes that do not run.
    Rm(RmArgs),
    /// Wait until sandboxes have ended, and print their exit codes.
    Wait(Names),
    /// Show all there is to know about sandboxes and networks, as a JSON array.
    Inspect(InspectArgs),
    /// Print what a detached sandbox has written.
    Logs(LogsArgs),
    /// Make, change and look at networks.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Network {
        /// What to do.
        #[command(subcommand)]
        command: NetworkCommand,
    },
    /// Show, add and remove ports of a sandbox on the host.
    Port(PortArgs),
    /// Make network namespaces without a process, for those who bring their own.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Netns {
        /// What to do.
        #[command(subcommand)]
        command: NetnsCommand,
    },
    /// Show or write the packets of a sandbox, or of a network.
    ///
    /// Those of a sandbox are seen from its side: 'Out' it has sent, 'In' it receives. Those of a network come
    /// by its bridge, from one sandbox to another as well: 'In' from a sandbox, 'Out' from the gateway.
    /// Times are UTC. Packets are as large as the kernel carries them between namespaces, 64 KiB at most, and
    /// their checksums may still be missing. Ends by Ctrl-C, or when the sandbox or the network goes;
    /// endpoints that come later are not captured.
    #[command(after_long_help = "Examples:\n  \
        mossnet capture web\n  \
        mossnet capture --proto tcp --port 80 -c 20 web\n  \
        mossnet capture -w lab.pcapng --duration 1m lab\n  \
        mossnet capture -w - web | tcpdump -nr -")]
    Capture(CaptureArgs),
    /// Run a command where the bridges are: in mossnet's user namespace and router namespace.
    ///
    /// The file system is yours, /sys shows the router's interfaces, and you are root over the
    /// networks. For looking around: what is changed here, mossnet does not know of.
    #[command(after_long_help = "Examples:\n  \
        mossnet unshare ip addr\n  \
        mossnet unshare bridge link\n  \
        mossnet unshare")]
    Unshare(UnshareArgs),
    /// Have podman use mossnet for its networks.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Podman {
        /// What to do.
        #[command(subcommand)]
        command: PodmanCommand,
    },
    /// Check what this machine has, and say how to get what it lacks.
    Doctor(FormatArg),
    /// Run the daemon in the foreground, as for systemd.
    ///
    /// Other commands start a daemon by themselves when there is none.
    #[command(after_long_help = DAEMON_ENVIRONMENT)]
    Daemon(DaemonArgs),
    /// Show the daemon's processes and places.
    Info(FormatArg),
    /// End the daemon; sandboxes go on, and the next command starts a new one.
    Shutdown(ShutdownArgs),
    /// Print a completion script for a shell.
    ///
    /// Commands, flags, and the names of sandboxes and networks. For bash, in ~/.bashrc:
    /// source <(mossnet completion bash); for zsh, in ~/.zshrc, after compinit:
    /// source <(mossnet completion zsh); for fish, in config.fish:
    /// mossnet completion fish | source.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Be a CNI plugin, for a container runtime inside 'mossnet unshare'.
    ///
    /// A runtime starts it by the name mossnet-cni, a link to this program in its directory of plugins, tells
    /// it what to do by CNI_COMMAND and other variables, and gives it a network configuration on standard
    /// input. The answer, or an error, is JSON on standard output. Of a configuration without 'root' the
    /// daemon is that of --root.
    #[command(after_long_help = CNI_EXAMPLE)]
    Cni,
    /// Be an OCI hook, for crun or runc inside 'mossnet unshare'.
    ///
    /// A runtime starts it as createRuntime and poststop, perhaps by the name mossnet-oci-hook, and gives it
    /// the container's state on standard input. Annotations of the container say which networks it joins:
    /// org.mossnet.networks and others.
    #[command(after_long_help = HOOK_EXAMPLE)]
    OciHook,
    /// Be podman's netavark: 'mossnet podman install' has podman start it by that name.
    #[command(disable_help_flag = true)]
    Netavark(ForeignArgs),
    /// Be podman's aardvark-dns: 'mossnet podman install' has it started by that name.
    #[command(disable_help_flag = true)]
    AardvarkDns(ForeignArgs),
    /// Be podman's rootlessport: 'mossnet podman install' has podman start it by that name.
    #[command(disable_help_flag = true)]
    Rootlessport(ForeignArgs),
    /// Be pasta, for podman, rootlesskit or by hand: 'mossnet pasta --config-net -- COMMAND'.
    #[command(disable_help_flag = true)]
    Pasta(ForeignArgs),
    /// Write the manual pages into a directory.
    #[command(hide = true)]
    Man {
        /// The directory.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

/// `podman`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum PodmanCommand {
    /// Put mossnet's netavark, aardvark-dns, pasta and rootlessport first where podman looks for them: a drop-in in
    /// ~/.config/containers/containers.conf.d, and a directory of links.
    ///
    /// Containers that run stay as they are. Nothing that is there is overwritten. As root it is for
    /// root's podman.
    Install(FormatArg),
    /// Undo that.
    Uninstall(FormatArg),
    /// Say which programs podman would call.
    ///
    /// Exit status 0 if they are mossnet's, 1 if not.
    Status(FormatArg),
}

/// What a program understands whose place this one takes.
#[derive(Debug, Args)]
pub struct ForeignArgs {
    /// Its own arguments; --help shows them.
    #[arg(
        value_name = "ARG",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub words: Vec<std::ffi::OsString>,
}

/// Sandboxes to work on.
#[derive(Debug, Args)]
pub struct Names {
    /// Names, ids, or unambiguous beginnings of ids (4 digits at least).
    #[arg(value_name = "NAME", required = true, value_parser = value::given, add = names::sandboxes())]
    pub names: Vec<String>,
}

/// `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// json, or a template such as '{{.State}}'.
    #[arg(short, long, value_name = "FORMAT", value_parser = listing::inspect_format)]
    pub format: Option<listing::Format>,
    /// Names, ids, or unambiguous beginnings of ids (4 digits at least).
    #[arg(value_name = "NAME", required = true, value_parser = value::given, add = names::anything())]
    pub names: Vec<String>,
}

/// How a list is printed.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only ids.
    #[arg(short, long)]
    pub quiet: bool,
    /// Whole ids, and all else that is shortened.
    #[arg(long)]
    pub no_trunc: bool,
    /// table, json, or a template such as '{{.ID}} {{json .}}' or 'table {{.ID}}\t{{.Name}}'.
    #[arg(long, value_name = "FORMAT", value_parser = listing::format, default_value = "table")]
    pub format: listing::Format,
}

/// `start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Print what they write, and end with their exit status.
    #[arg(short, long)]
    pub attach: bool,
    /// The sandboxes.
    #[command(flatten)]
    pub names: Names,
}

/// `restart`.
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// How long to wait before SIGKILL.
    #[arg(short = 't', long = "time", alias = "timeout", value_name = "SECONDS", default_value_t = crate::api::types::STOP_TIMEOUT_SECONDS)]
    pub seconds: u64,
    /// The sandboxes.
    #[command(flatten)]
    pub names: Names,
}

/// `unshare`.
#[derive(Debug, Args)]
pub struct UnshareArgs {
    /// The command and its arguments; a shell when absent.
    #[arg(value_name = "CMD", trailing_var_arg = true, allow_hyphen_values = true, value_hint = clap::ValueHint::CommandWithArguments)]
    pub command: Vec<std::ffi::OsString>,
}

/// `--format`.
#[derive(Debug, Clone, Copy, Args)]
pub struct FormatArg {
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// How a report is printed.
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
    /// How to print them.
    #[command(flatten)]
    pub list: ListArgs,
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
    /// Names, ids, or unambiguous beginnings of ids (4 digits at least).
    #[arg(value_name = "NAME", required_unless_present = "all", value_parser = value::given, add = names::running())]
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
    /// Name, id, or unambiguous beginning of an id (4 digits at least).
    #[arg(value_name = "NAME", value_parser = value::given, add = names::sandboxes())]
    pub name: String,
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
