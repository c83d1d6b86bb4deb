//! Docker-like words to API requests; tables, JSON, exit codes.
//!
//! `args`, `create_args`: the words (clap), with `value` and `environment` for single values.
//! `attached`: a process whose streams and signals are ours, over a `terminal` or directly.
//! `create`: `run`, `exec`. `sandboxes`, `logs`, `networks`, `process`: the rest.
//! `table`, `age`: how things are shown. `manual`: completions and man pages.

mod age;
pub mod args;
pub mod attach;
mod attached;
mod create;
pub mod create_args;
mod environment;
mod error;
mod logs;
mod manual;
mod networks;
mod process;
mod sandboxes;
mod table;
mod template;
mod terminal;
mod usage;
pub mod value;

pub use args::{Cli, Command, DaemonArgs, Format};
pub use error::report;

use crate::api::client::Client;
use crate::api::paths::Paths;
use clap::Parser;
use error::CliError;
use serde::Serialize;
use std::fmt::Display;
use std::process::ExitCode;

/// The command line, parsed; or the exit code after help, version, or a usage error was printed.
pub fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| usage::explain(&error))
}

/// Performs every command but `daemon` and `doctor`, which `main` gives to those who know.
pub fn run(command: Command, paths: Paths) -> ExitCode {
    // `run` and `exec` keep 1 for the command itself, as `docker run` does.
    let ours = matches!(command, Command::Run(_) | Command::Exec(_));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(dispatch(command, paths));
            // A thread that still reads our standard input must not keep us.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(CliError::Runtime(error)),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => error.show(ours),
    }
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
        Command::Inspect(args) => networks::inspect_anything(paths, args).await,
        Command::Logs(args) => logs::logs(paths, args).await,
        Command::Network { command } => networks::network(paths, command).await,
        Command::Info(args) => process::info(paths, args.format).await,
        Command::Shutdown(args) => process::shutdown(paths, args).await,
        Command::Completion { shell } => manual::completion(shell),
        Command::Man { directory } => manual::pages(&directory),
        Command::Daemon(_) | Command::Doctor(_) => Err(CliError::NotHere),
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
