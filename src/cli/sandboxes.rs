//! `ps`, `stop`, `kill`, `rm`, `wait`.
//!
//! With several names each is tried, each failure is said, and the exit code is 1 after any.

use super::args::{KillArgs, Names, PsArgs, RmArgs, StopArgs};
use super::error::CliError;
use super::listing::Columns;
use super::{age, connect, ports, table};
use crate::api::client::{Client, ClientError};
use crate::api::paths::Paths;
use crate::api::types::{SandboxInfo, SandboxState};
use futures_util::future::join_all;
use serde::Serialize;
use std::time::SystemTime;

/// Characters of a command that a table shows, as Docker's does.
const COMMAND_WIDTH: usize = 20;

pub(super) async fn ps(paths: Paths, args: PsArgs) -> Result<u8, CliError> {
    COLUMNS.check(&args.list)?;
    let sandboxes = connect(paths).await?.list(args.all).await?;
    let now = SystemTime::now();
    let rows: Vec<Row> = sandboxes
        .iter()
        .map(|sandbox| Row::of(sandbox, args.list.no_trunc, now))
        .collect();
    table::print(&COLUMNS.text(&rows, &args.list)?)?;
    Ok(0)
}

const COLUMNS: Columns = Columns {
    fields: &[
        ("ID", "CONTAINER ID"),
        ("Command", "COMMAND"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Ports", "PORTS"),
        ("Networks", "NETWORK"),
        ("Addresses", "ADDRESS"),
        ("Names", "NAMES"),
        ("CreatedAt", "CREATED AT"),
        ("State", "STATE"),
        ("ExitCode", "EXIT CODE"),
        ("Pid", "PID"),
    ],
    table: &[
        "ID",
        "Command",
        "RunningFor",
        "Status",
        "Ports",
        "Networks",
        "Addresses",
        "Names",
    ],
};

/// A line of `ps`; keys of the JSON form are those of `docker ps --format json`, where it has them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    #[serde(rename = "ID")]
    id: String,
    names: String,
    command: String,
    created_at: String,
    running_for: String,
    state: SandboxState,
    status: String,
    ports: String,
    exit_code: Option<i32>,
    pid: Option<u32>,
    networks: String,
    addresses: Vec<String>,
}

impl Row {
    fn of(sandbox: &SandboxInfo, whole: bool, now: SystemTime) -> Self {
        let networks = if sandbox.networks.is_empty() {
            sandbox.network_mode.clone()
        } else {
            sandbox.networks.join(",")
        };
        let addresses = sandbox.endpoints.iter().flat_map(|e| &e.addresses);
        let id = if whole {
            sandbox.id.as_str()
        } else {
            sandbox.id.short()
        };
        Self {
            id: id.to_owned(),
            names: sandbox.name.clone(),
            command: command(&sandbox.command, whole),
            created_at: sandbox.created.clone(),
            running_for: format!("{} ago", age::since(&sandbox.created, now)),
            state: sandbox.state,
            status: status(sandbox, now),
            ports: ports::column(&sandbox.ports),
            exit_code: sandbox.exit_code,
            pid: sandbox.pid,
            networks,
            addresses: addresses.map(|net| net.addr().to_string()).collect(),
        }
    }
}

/// In quotes; shortened with an ellipsis unless `whole`.
fn command(argv: &[String], whole: bool) -> String {
    let text = argv.join(" ");
    if whole || text.chars().count() <= COMMAND_WIDTH {
        return format!("\"{text}\"");
    }
    let beginning: String = text.chars().take(COMMAND_WIDTH - 1).collect();
    format!("\"{beginning}…\"")
}

fn status(sandbox: &SandboxInfo, now: SystemTime) -> String {
    let ago = |time: &Option<String>| time.as_ref().map(|time| age::since(time, now));
    match sandbox.state {
        SandboxState::Created => "Created".to_owned(),
        SandboxState::Running => match ago(&sandbox.started) {
            Some(length) => format!("Up {length}"),
            None => "Up".to_owned(),
        },
        SandboxState::Exited => {
            let code = sandbox
                .exit_code
                .map_or_else(|| "?".to_owned(), |code| code.to_string());
            match ago(&sandbox.finished) {
                Some(length) => format!("Exited ({code}) {length} ago"),
                None => format!("Exited ({code})"),
            }
        }
    }
}

pub(super) async fn stop(paths: Paths, args: StopArgs) -> Result<u8, CliError> {
    let client = connect(paths).await?;
    let names = if args.all {
        let running = client.list(false).await?;
        running.into_iter().map(|sandbox| sandbox.name).collect()
    } else {
        args.names
    };
    // All at once: each may take its whole time.
    let stopped = names.iter().map(|name| client.stop(name, args.seconds));
    let results = join_all(stopped).await;
    each(names.iter().zip(results))
}

pub(super) async fn kill(paths: Paths, args: KillArgs) -> Result<u8, CliError> {
    let client = connect(paths).await?;
    let mut results = Vec::new();
    for name in &args.names.names {
        results.push((name, client.kill(name, args.signal).await));
    }
    each(results)
}

pub(super) async fn rm(paths: Paths, args: RmArgs) -> Result<u8, CliError> {
    let client = connect(paths).await?;
    let mut results = Vec::new();
    for name in &args.names.names {
        let result = client.remove(name, args.force).await;
        if args.force && result.as_ref().is_err_and(ClientError::is_not_found) {
            continue;
        }
        results.push((name, result));
    }
    each(results)
}

pub(super) async fn wait(paths: Paths, args: Names) -> Result<u8, CliError> {
    let client = connect(paths).await?;
    let results = join_all(args.names.iter().map(|name| wait_for(&client, name))).await;
    let mut code = 0;
    for result in results {
        match result {
            Ok(line) => table::line(&line)?,
            Err(error) => code = failed(error),
        }
    }
    Ok(code)
}

async fn wait_for(client: &Client, name: &str) -> Result<String, ClientError> {
    Ok(client.wait(name).await?.code.to_string())
}

/// Prints the name of each that went well and the error of each that did not.
pub(super) fn each<'a>(
    results: impl IntoIterator<Item = (&'a String, Result<(), ClientError>)>,
) -> Result<u8, CliError> {
    let mut code = 0;
    for (name, result) in results {
        match result {
            Ok(()) => table::line(name)?,
            Err(error) => code = failed(error),
        }
    }
    Ok(code)
}

/// Says it, and gives the exit code.
pub(super) fn failed(error: ClientError) -> u8 {
    CliError::from(error).print();
    1
}

#[cfg(test)]
#[path = "sandboxes_tests.rs"]
pub(super) mod tests;
