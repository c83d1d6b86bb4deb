//! `run` and `exec`.

use super::attached::{self, Outcome, Target};
use super::create_args::{ExecArgs, RunArgs};
use super::error::CliError;
use super::{connect, table};
use crate::api::client::{Client, ClientError};
use crate::api::paths::Paths;
use crate::api::types::Created;

/// `run`: make, connect, start, wait.
pub(super) async fn run(paths: Paths, args: RunArgs) -> Result<u8, CliError> {
    let request = args.request()?;
    if args.detach {
        let client = connect(paths).await?;
        let created = client.create(&request).await?;
        warn(&created);
        if let Err(error) = client.start(created.id.as_str()).await {
            discard(&client, &created).await;
            return Err(error.into());
        }
        table::line(created.id.as_str())?;
        return Ok(0);
    }
    let mut session = attached::Session::new(args.streams)?;
    let prepared = session
        .unless_interrupted(async {
            let client = connect(paths).await?;
            let created = client.create(&request).await?;
            warn(&created);
            Ok::<_, CliError>((client, created))
        })
        .await;
    let (client, created) = match prepared {
        Outcome::Done(prepared) => prepared?,
        // The daemon removes what was not started, as our connection closes.
        Outcome::Interrupted(code) => return Ok(code),
    };
    let target = Target::Sandbox(created.id.clone());
    match session.start(&client, &target).await {
        Ok(Outcome::Done(waiting)) => session.serve(&client, &target, waiting).await,
        Ok(Outcome::Interrupted(code)) => {
            discard(&client, &created).await;
            Ok(code)
        }
        Err(error) => {
            discard(&client, &created).await;
            Err(error)
        }
    }
}

/// `exec`: the same in a sandbox that runs.
pub(super) async fn exec(paths: Paths, args: ExecArgs) -> Result<u8, CliError> {
    let request = args.request()?;
    if args.detach {
        let client = connect(paths).await?;
        let created = client.exec(&args.sandbox, &request).await?;
        warn(&created);
        client.exec_start(&created.id).await?;
        return Ok(0);
    }
    let mut session = attached::Session::new(args.streams)?;
    let client = connect(paths).await?;
    let created = client.exec(&args.sandbox, &request).await?;
    warn(&created);
    let target = Target::Exec(created.id);
    match session.start(&client, &target).await? {
        Outcome::Done(waiting) => session.serve(&client, &target, waiting).await,
        Outcome::Interrupted(code) => Ok(code),
    }
}

fn warn(created: &Created) {
    for warning in &created.warnings {
        eprintln!("mossnet: warning: {warning}");
    }
}

/// What could not be started is not kept.
async fn discard(client: &Client, created: &Created) {
    match client.remove(created.id.as_str(), true).await {
        Ok(()) => {}
        // Removed with its failure already.
        Err(ClientError::Refused { status: 404, .. }) => {}
        Err(error) => CliError::from(error).print(),
    }
}
