//! The CNI plugin: `ADD`, `DEL`, `CHECK`, `GC`, `STATUS`, `VERSION`.
//!
//! A container is a bare sandbox `cni-ID` whose network namespace is the runtime's: the first `ADD` has the
//! daemon adopt it, further ones connect it to their networks, the last `DEL` removes it. The mossnet network
//! has the name of the configuration, so that `GC`, which is told of one configuration, knows its attachments.
//!
//! * `environment`, `config`, `version`: what comes. `result`, `refusal`: what is answered.
//! * `add`, `depart` (`DEL`, `GC`), `check`: the work. `network`: the network itself. `netns`: a look into the
//!   container's namespace.
//!
//! Sources: Container Network Interface Specification 1.1, and its conventions.

mod add;
mod check;
mod config;
mod depart;
mod environment;
mod netns;
mod network;
mod refusal;
mod result;
mod version;

use super::running;
use crate::api::client::Client;
use crate::api::types::{EndpointInfo, SandboxInfo};
use config::Config;
use environment::{Attachment, Command};
use refusal::{Code, Refusal};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use version::{SUPPORTED, Version};

/// A configuration longer than this is none, bytes.
const MAX_CONFIG: u64 = 4 << 20;

/// The whole plugin. Its arguments are variables of the environment, but for `--root DIR`.
pub(super) fn main(arguments: Vec<OsString>) -> ExitCode {
    let root = match arguments.as_slice() {
        [word, root] if word == "--root" => Some(PathBuf::from(root)),
        _ => None,
    };
    let mut version = Version::NEWEST.text().to_owned();
    let outcome = run(&mut version, root);
    let (text, code) = match outcome {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(result)) => (result.to_string(), ExitCode::SUCCESS),
        Err(refusal) => (refusal.json(&version), ExitCode::FAILURE),
    };
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What is to be printed. `shown`: the version in which errors are.
fn run(shown: &mut String, root: Option<PathBuf>) -> Result<Option<Value>, Refusal> {
    let variable = |name: &str| std::env::var(name).ok();
    let command = Command::of(variable("CNI_COMMAND").as_deref())?;
    let text = read()?;
    if command == Command::Version {
        return Ok(Some(versions(&text)));
    }
    let (mut config, version) = Config::parse(&text)?;
    config.root = config.root.or(root);
    version.text().clone_into(shown);
    config.name()?;
    match command {
        Command::Check => version.require(Version::V0_4_0, "CHECK")?,
        Command::Gc => version.require(Version::V1_1_0, "GC")?,
        Command::Status => version.require(Version::V1_1_0, "STATUS")?,
        Command::Add | Command::Del | Command::Version => {}
    }
    let needs_netns = matches!(command, Command::Add | Command::Check);
    let attachment = match command {
        Command::Gc | Command::Status | Command::Version => None,
        Command::Add | Command::Del | Command::Check => {
            Some(Attachment::of(variable, needs_netns)?)
        }
    };
    let work = perform(command, &config, version, attachment.as_ref());
    running::block_on(work).map_err(|error| Refusal::new(Code::Io, format!("start: {error}")))?
}

async fn perform(
    command: Command,
    config: &Config,
    version: Version,
    attachment: Option<&Attachment>,
) -> Result<Option<Value>, Refusal> {
    let paths = running::paths(config.root.clone());
    // Where no daemon ever was there is nothing of ours, unless an ADD has found one elsewhere.
    let was_there = paths.runtime_store().exists() || paths.api_socket().exists();
    if command == Command::Del && !was_there && !config.was_added()? {
        return Ok(None);
    }
    let client = running::connect(&paths).await.map_err(Refusal::from);
    match (command, attachment) {
        (Command::Status, _) => status(client, config).await.map(|()| None),
        (Command::Gc, _) => depart::collect(&client?, config).await.map(|()| None),
        (Command::Add, Some(attachment)) => {
            let attached = add::add(&client?, config, version, attachment).await?;
            Ok(Some(attached))
        }
        (Command::Del, Some(attachment)) => {
            depart::delete(&client?, config, attachment).await?;
            Ok(None)
        }
        (Command::Check, Some(attachment)) => {
            check::check(&client?, config, attachment).await?;
            Ok(None)
        }
        (Command::Add | Command::Del | Command::Check | Command::Version, _) => Ok(None),
    }
}

fn read() -> Result<Vec<u8>, Refusal> {
    let mut text = Vec::new();
    let read = io::stdin().take(MAX_CONFIG + 1).read_to_end(&mut text);
    read.map_err(|error| Refusal::new(Code::Io, format!("read standard input: {error}")))?;
    if text.len() as u64 > MAX_CONFIG {
        let message = format!("the network configuration is longer than {MAX_CONFIG} bytes");
        return Err(Refusal::new(Code::Decode, message));
    }
    Ok(text)
}

/// In the version that was asked in, whichever that is.
fn versions(text: &[u8]) -> Value {
    let asked: Value = serde_json::from_slice(text).unwrap_or_default();
    let asked = asked["cniVersion"].as_str();
    let asked = asked.filter(|asked| SUPPORTED.contains(asked));
    let version = asked.unwrap_or(Version::NEWEST.text());
    json!({"cniVersion": version, "supportedVersions": SUPPORTED})
}

/// Whether an `ADD` could work.
async fn status(client: Result<Client, Refusal>, config: &Config) -> Result<(), Refusal> {
    let ready = async {
        let client = client?;
        client.router().await?;
        network::check(&client, config).await
    };
    ready.await.map_err(|refusal| Refusal {
        code: Code::Unavailable,
        ..refusal
    })
}

/// The container's sandbox, if there is one.
async fn sandbox(client: &Client, name: &str) -> Result<Option<SandboxInfo>, Refusal> {
    match client.inspect(name).await {
        Ok(info) if info.name == name => Ok(Some(info)),
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where it is on a network.
fn endpoint<'a>(sandbox: &'a SandboxInfo, network: &str) -> Option<&'a EndpointInfo> {
    let mut endpoints = sandbox.endpoints.iter();
    endpoints.find(|endpoint| endpoint.network == network)
}
