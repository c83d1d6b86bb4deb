//! Docker-like words to API requests; tables, JSON, exit codes.
//!
//! `args`, `create_args`, `run_network`, `network_args`: the words (clap), with `host_loopback`, and
//! `value`, `attach` and `environment` for single values; `names`: what a shell may complete them to.
//! `attached`: a process whose streams and signals are ours, over a `terminal` or directly.
//! `create`: `run`, `exec`. `capture`: packets. `lifecycle`, `sandboxes`, `logs`, `inspect`, `networks`, `netns`, `ports`,
//! `process`: the rest. `listing`, with `table` and `template`, `age`, `graph`: how things are shown.
//! `manual`: completions and man pages.

mod age;
pub mod args;
pub mod attach;
mod attached;
pub mod capture;
mod create;
pub mod create_args;
mod environment;
mod error;
pub mod graph;
pub mod host_loopback;
mod inspect;
mod lifecycle;
pub mod listing;
mod logs;
mod manual;
mod names;
pub mod netns;
pub mod network_args;
pub mod network_filter;
mod networks;
pub mod ports;
mod process;
mod quick;
pub mod run_network;
mod sandboxes;
mod table;
pub mod template;
mod terminal;
mod usage;
pub mod value;

pub use args::{Cli, Command, DaemonArgs, Format, PodmanCommand};
pub use error::report;

use crate::api::client::Client;
use crate::api::enter::become_command;
use crate::api::paths::Paths;
use crate::api::types::Info;
use clap::Parser;
use error::CliError;
use serde::Serialize;
use std::fmt::Display;
use std::process::ExitCode;

/// The command line, parsed; or the exit code after help, version, or a usage error was printed.
pub fn parse() -> Result<Cli, ExitCode> {
    manual::complete_if_asked();
    let words: Vec<_> = std::env::args_os().collect();
    match quick::parse(&words) {
        Some(cli) => Ok(cli),
        None => Cli::try_parse_from(words).map_err(|error| usage::explain(&error)),
    }
}

/// Performs every command but `daemon`, `doctor`, `podman` and those of other programs, which `main` gives to those who know.
pub fn run(command: Command, paths: Paths) -> ExitCode {
    // `run`, `exec` and `unshare` keep 1 for the command itself, as `docker run` does.
    let ours = matches!(
        command,
        Command::Run(_) | Command::Exec(_) | Command::Unshare(_)
    );
    let outcome = match command {
        Command::Unshare(args) => router(paths.clone())
            .and_then(|info| Err(become_command(&paths, &info, &args.command).into())),
        Command::Capture(args) => capture::capture(paths, &args),
        command => block_on(dispatch(command, paths)),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => error.show(ours),
    }
}

/// What `unshare` needs to know; nothing of ours runs any more when it is known.
fn router(paths: Paths) -> Result<Info, CliError> {
    block_on(async { Ok(connect(paths).await?.router().await?) })
}

fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let outcome = runtime.block_on(work);
    // A thread that still reads our standard input must not keep us.
    runtime.shutdown_background();
    outcome
}

/// Prints what another layer found, in its own words or as JSON; the exit code is 0 if it is well.
pub fn show(found: &(impl Display + Serialize), format: Format, well: bool) -> ExitCode {
    let printed = match format {
        Format::Table => table::print(&found.to_string()),
        Format::Json => table::json(found),
    };
    match printed {
        Ok(()) => ExitCode::from(u8::from(!well)),
        Err(error) => error.show(false),
    }
}

async fn dispatch(command: Command, paths: Paths) -> Result<u8, CliError> {
    match command {
        Command::Run(args) => create::run(paths, *args).await,
        Command::Exec(args) => create::exec(paths, args).await,
        Command::Ps(args) => sandboxes::ps(paths, args).await,
        Command::Stop(args) => sandboxes::stop(paths, args).await,
        Command::Kill(args) => sandboxes::kill(paths, args).await,
        Command::Rm(args) => sandboxes::rm(paths, args).await,
        Command::Wait(args) => sandboxes::wait(paths, args).await,
        Command::Start(args) => lifecycle::start(paths, args).await,
        Command::Restart(args) => lifecycle::restart(paths, args).await,
        Command::Inspect(args) => inspect::anything(paths, args).await,
        Command::Logs(args) => logs::logs(paths, args).await,
        Command::Network { command } => networks::network(paths, command).await,
        Command::Port(args) => ports::port(paths, args).await,
        Command::Netns { command } => netns::netns(paths, command).await,
        Command::Info(args) => process::info(paths, args.format).await,
        Command::Shutdown(args) => process::shutdown(paths, args).await,
        Command::Completion { shell } => manual::completion(shell),
        Command::Man { directory } => manual::pages(&directory),
        Command::Daemon(_)
        | Command::Doctor(_)
        | Command::Unshare(_)
        | Command::Capture(_)
        | Command::Podman { .. }
        | Command::Cni
        | Command::OciHook
        | Command::Netavark(_)
        | Command::AardvarkDns(_)
        | Command::Rootlessport(_)
        | Command::Pasta(_) => Err(CliError::NotHere),
    }
}

/// The daemon, started if need be; what is odd about it is said.
async fn connect(paths: Paths) -> Result<Client, CliError> {
    let client = Client::connect(paths).await?;
    if let Some(warning) = &client.warning {
        eprintln!("mossnet: warning: {warning}");
    }
    Ok(client)
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
