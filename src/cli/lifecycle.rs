//! `start` and `restart`: sandboxes that have ended run again.

use super::args::{RestartArgs, StartArgs};
use super::error::CliError;
use super::sandboxes::{each, failed};
use super::{connect, logs, table};
use crate::api::client::Client;
use crate::api::paths::Paths;
use futures_util::future::join_all;

pub(super) async fn start(paths: Paths, args: StartArgs) -> Result<u8, CliError> {
    let client = connect(paths).await?;
    let names = args.names.names;
    if args.attach {
        let [name] = names.as_slice() else {
            return Err(CliError::AttachOne);
        };
        return attached(&client, name).await;
    }
    // One by one: the first names get the first free addresses.
    let mut results = Vec::new();
    for name in &names {
        results.push((name, client.start(name).await));
    }
    each(results)
}

/// Prints what it writes from now on, and ends as it does.
async fn attached(client: &Client, name: &str) -> Result<u8, CliError> {
    // Its log goes on where it ended.
    let written = match client.log_path(name).await {
        Ok(path) => std::fs::metadata(path).map_or(0, |log| log.len()),
        Err(_) => 0,
    };
    client.start(name).await?;
    let path = client.log_path(name).await?;
    logs::follow_from(client, name, path, written).await?;
    let exit = client.wait(name).await?;
    Ok(u8::try_from(exit.code).unwrap_or(u8::MAX))
}

pub(super) async fn restart(paths: Paths, args: RestartArgs) -> Result<u8, CliError> {
    let client = connect(paths).await?;
    let names = args.names.names;
    // All at once: each may take its whole time to stop.
    let restarted = names.iter().map(async |name| {
        client.stop(name, args.seconds).await?;
        client.start(name).await
    });
    let mut code = 0;
    for (name, result) in names.iter().zip(join_all(restarted).await) {
        match result {
            Ok(()) => table::line(name)?,
            Err(error) => code = failed(error),
        }
    }
    Ok(code)
}
