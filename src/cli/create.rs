//! `run` and `exec`.
//!
//! What is made but not started goes with the daemon or the connection that made it, so that making
//! is tried again where a daemon ends meanwhile; starting is not.

use super::attached::{self, Outcome, Session, Streams, Target};
use super::create_args::{ExecArgs, RunArgs};
use super::error::CliError;
use super::{connect, table};
use crate::api::client::{Client, ClientError, Waiting};
use crate::api::paths::Paths;
use crate::api::types::{Created, ExecCreate, SandboxCreate};
use mossnet_helper::SandboxId;

/// How often to make it anew, where the daemon ends each time.
const ATTEMPTS: u32 = 3;

/// `run`: make, connect, start, wait.
pub(super) async fn run(paths: Paths, args: RunArgs) -> Result<u8, CliError> {
    let plan = Plan::Run(Box::new(args.request()?));
    if args.detach {
        let (client, id) = plan.detached(&paths).await?;
        if let Err(error) = client.start(id.as_str()).await {
            discard(&client, &id).await;
            return Err(error.into());
        }
        table::line(id.as_str())?;
        return Ok(0);
    }
    plan.attached(&paths, Session::new(args.streams)?).await
}

/// `exec`: the same in a sandbox that runs.
pub(super) async fn exec(paths: Paths, args: ExecArgs) -> Result<u8, CliError> {
    let plan = Plan::Exec(args.request()?, args.sandbox);
    if args.detach {
        let (client, id) = plan.detached(&paths).await?;
        client.exec_start(&id).await?;
        return Ok(0);
    }
    plan.attached(&paths, Session::new(args.streams)?).await
}

/// What is to be made.
enum Plan {
    Run(Box<SandboxCreate>),
    /// In the sandbox of this name.
    Exec(ExecCreate, String),
}

impl Plan {
    async fn make(&self, client: &Client) -> Result<Created, ClientError> {
        match self {
            Self::Run(request) => client.create(request).await,
            Self::Exec(request, sandbox) => client.exec(sandbox, request).await,
        }
    }

    fn target(&self, id: SandboxId) -> Target {
        match self {
            Self::Run(_) => Target::Sandbox(id),
            Self::Exec(..) => Target::Exec(id),
        }
    }

    async fn detached(&self, paths: &Paths) -> Result<(Client, SandboxId), CliError> {
        let mut attempt = 1;
        loop {
            let client = connect(paths.clone()).await?;
            match self.make(&client).await {
                Ok(created) => {
                    warn(&created);
                    return Ok((client, created.id));
                }
                Err(error) if attempt < ATTEMPTS && error.daemon_ended() => attempt += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn attached(&self, paths: &Paths, session: Session) -> Result<u8, CliError> {
        let Session {
            mut streams,
            mut signals,
        } = session;
        let prepared = signals.unless_interrupted(self.prepare(paths, &streams));
        let (client, target, waiting) = match prepared.await {
            Outcome::Done(prepared) => prepared?,
            // What is not started goes with our connection.
            Outcome::Interrupted(code) => return Ok(code),
        };
        streams.handed_over();
        let failed = match signals.keep_during(target.start(&client)).await {
            Outcome::Done(Ok(())) => {
                let served = attached::serve(streams, signals, &client, &target, waiting);
                return served.await;
            }
            Outcome::Done(Err(error)) => Err(error.into()),
            Outcome::Interrupted(code) => Ok(code),
        };
        if let Target::Sandbox(id) = &target {
            discard(&client, id).await;
        }
        failed
    }

    /// Everything but the start.
    async fn prepare(
        &self,
        paths: &Paths,
        streams: &Streams,
    ) -> Result<(Client, Target, Waiting), CliError> {
        let mut attempt = 1;
        loop {
            let client = connect(paths.clone()).await?;
            match self.make_ready(&client, streams).await {
                Ok((target, waiting)) => return Ok((client, target, waiting)),
                Err(CliError::Client(error)) if attempt < ATTEMPTS && error.daemon_ended() => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn make_ready(
        &self,
        client: &Client,
        streams: &Streams,
    ) -> Result<(Target, Waiting), CliError> {
        let created = self.make(client).await?;
        warn(&created);
        let target = self.target(created.id);
        streams.hand_over(client, target.id())?;
        let waiting = target.begin_wait(client).await?;
        Ok((target, waiting))
    }
}

fn warn(created: &Created) {
    for warning in &created.warnings {
        eprintln!("mossnet: warning: {warning}");
    }
}

/// What could not be started is not kept.
async fn discard(client: &Client, id: &SandboxId) {
    match client.remove(id.as_str(), true).await {
        Ok(()) => {}
        // Removed with its failure already.
        Err(error) if error.is_not_found() => {}
        Err(error) => CliError::from(error).print(),
    }
}
