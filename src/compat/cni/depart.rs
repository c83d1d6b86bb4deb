//! `DEL` and `GC`. What is gone already is success; `GC` goes on where one attachment fails, and says so of all.

use super::config::Config;
use super::environment::{Attachment, PREFIX};
use super::refusal::{Code, Refusal};
use super::{endpoint, sandbox};
use crate::api::client::{Client, ClientError};
use crate::api::network_types::NetworkDisconnect;
use crate::api::types::SandboxInfo;

/// Takes the container off the network; with its last one, the whole sandbox goes, and its ports.
pub(super) async fn delete(
    client: &Client,
    config: &Config,
    attachment: &Attachment,
) -> Result<(), Refusal> {
    let network = config.name()?;
    let Some(sandbox) = sandbox(client, &attachment.sandbox()).await? else {
        return Ok(());
    };
    match endpoint(&sandbox, network) {
        Some(endpoint) if endpoint.ifname == attachment.ifname => {
            Ok(leave(client, &sandbox, network).await?)
        }
        // It was never there, or has another name: another attachment.
        Some(_) => Ok(()),
        None if sandbox.endpoints.is_empty() => Ok(remove(client, &sandbox).await?),
        None => Ok(()),
    }
}

/// Removes every attachment to the network that is not listed as valid.
pub(super) async fn collect(client: &Client, config: &Config) -> Result<(), Refusal> {
    let network = config.name()?;
    if config.valid_attachments.is_none() {
        return Err(Refusal::config(
            "the network configuration has no 'cni.dev/valid-attachments'",
        ));
    }
    let mut failures = Vec::new();
    for sandbox in client.list(true).await? {
        let Some(container) = container(&sandbox) else {
            continue;
        };
        let Some(endpoint) = endpoint(&sandbox, network) else {
            continue;
        };
        if config.is_valid(container, &endpoint.ifname) {
            continue;
        }
        if let Err(error) = leave(client, &sandbox, network).await {
            failures.push(format!("{container} {}: {error}", endpoint.ifname));
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(Code::Refused, failures.join("; ")))
}

/// Whose sandbox it is, if it is that of a container of a CNI runtime.
fn container(sandbox: &SandboxInfo) -> Option<&str> {
    let container = sandbox.name.strip_prefix(PREFIX)?;
    sandbox.netns_path.as_ref().map(|_| container)
}

async fn leave(client: &Client, sandbox: &SandboxInfo, network: &str) -> Result<(), ClientError> {
    if sandbox.endpoints.len() < 2 {
        return remove(client, sandbox).await;
    }
    let request = NetworkDisconnect {
        sandbox: sandbox.name.clone(),
        force: true,
    };
    absent_is_success(client.disconnect_network(network, &request).await)
}

async fn remove(client: &Client, sandbox: &SandboxInfo) -> Result<(), ClientError> {
    // By its id: another of the same name is another.
    absent_is_success(client.remove(sandbox.id.as_str(), true).await)
}

fn absent_is_success(outcome: Result<(), ClientError>) -> Result<(), ClientError> {
    match outcome {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
