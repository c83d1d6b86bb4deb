//! OCI hooks `createRuntime` and `poststop`: a container's annotations say which networks it joins.
//!
//! The container is a bare sandbox `oci-ID` in the network namespace of its first process, which it ends with,
//! so that a runtime that is killed before `poststop` leaves nothing. The prefix keeps `poststop`, which
//! runtimes call after a `createRuntime` that failed, too, from a sandbox of the user's own. Its /etc/resolv.conf
//! becomes the sandbox's (`resolv_conf`); where that cannot be, the container runs all the same.
//!
//! Sources: OCI runtime specification 1.0 (config.md, "POSIX-platform Hooks"; runtime.md, "State").

use super::resolv_conf::Unfinished;
use super::running::{self, NoDaemon};
use crate::api::client::{Client, ClientError};
use crate::api::network_types::{NetnsAdopt, NetnsCreate, NetnsCreated, NetworkAttach};
use crate::api::port_types::{HostLoopback, PortsPublish, PublishSpec};
use crate::error::one_line;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

/// What stands before a container's id in the name of its sandbox.
const SANDBOX: &str = "oci-";
/// What stands before our annotations.
const OURS: &str = "org.mossnet.";
const KNOWN: &str = "networks, ip, aliases, hostname, publish, host-ports, dns";
/// A state longer than this is none, bytes.
const MAX_STATE: u64 = 4 << 20;

/// Why a container is not joined, or not taken off.
#[derive(Debug, thiserror::Error)]
enum HookError {
    #[error("unknown argument '{}': an OCI hook takes --root DIR only", .0.display())]
    Argument(OsString),
    #[error("read the container's state")]
    Input(#[source] io::Error),
    #[error("the container's state is malformed")]
    State(#[source] serde_json::Error),
    #[error("the container's state is longer than {MAX_STATE} bytes")]
    TooLong,
    #[error("annotation {OURS}{0} is not known")]
    Unknown(String),
    #[error("annotation {OURS}{name}: {why}")]
    Annotation { name: &'static str, why: String },
    #[error("the container's state has no process")]
    NoProcess,
    #[error("open the network namespace of process {pid}")]
    Netns { pid: u32, source: io::Error },
    #[error(transparent)]
    Daemon(#[from] NoDaemon),
    #[error("container '{id}'")]
    Client { id: String, source: ClientError },
    #[error("start")]
    Start(#[source] io::Error),
}

impl HookError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Daemon(error) => error.hint(),
            Self::Client { source, .. } => source.hint(),
            Self::Unknown(_) => Some(format!("there are, after {OURS}: {KNOWN}")),
            Self::Netns { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run the runtime inside 'mossnet unshare'".to_owned())
            }
            Self::Argument(_)
            | Self::Input(_)
            | Self::State(_)
            | Self::TooLong
            | Self::Annotation { .. }
            | Self::NoProcess
            | Self::Netns { .. }
            | Self::Start(_) => None,
        }
    }
}

/// A container's state, as runtimes write it to a hook.
#[derive(Debug, Deserialize)]
struct State {
    id: String,
    status: String,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    bundle: PathBuf,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// What annotations ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    networks: Vec<String>,
    addresses: Vec<IpAddr>,
    aliases: Vec<String>,
    hostname: Option<String>,
    publish: Vec<PublishSpec>,
    host_ports: Option<HostLoopback>,
    resolv_conf: ResolvConf,
}

/// `dns`: whether the container's resolv.conf is ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum ResolvConf {
    /// Unless its configuration mounts one.
    #[default]
    Unmounted,
    Always,
    Never,
}

/// The whole hook. `arguments`: `--root DIR`, where the daemon has one.
pub(super) fn main(arguments: Vec<OsString>) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mossnet: {}", one_line(&error));
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<OsString>) -> Result<(), HookError> {
    let root = root(arguments)?;
    let mut text = Vec::new();
    let read = io::stdin().take(MAX_STATE + 1).read_to_end(&mut text);
    read.map_err(HookError::Input)?;
    if text.len() as u64 > MAX_STATE {
        return Err(HookError::TooLong);
    }
    let state: State = serde_json::from_slice(&text).map_err(HookError::State)?;
    let wish = wish(state.annotations.as_ref())?;
    if wish.networks.is_empty() {
        return Ok(());
    }
    running::block_on(perform(root, &state, wish)).map_err(HookError::Start)?
}

fn root(arguments: Vec<OsString>) -> Result<Option<PathBuf>, HookError> {
    let mut arguments = arguments.into_iter();
    let mut root = None;
    while let Some(word) = arguments.next() {
        match arguments.next() {
            Some(value) if word == "--root" => root = Some(PathBuf::from(value)),
            Some(_) | None => return Err(HookError::Argument(word)),
        }
    }
    Ok(root)
}

async fn perform(root: Option<PathBuf>, state: &State, wish: Wish) -> Result<(), HookError> {
    let paths = running::paths(root);
    let stopped = state.status == "stopped";
    // Where no daemon ever was there is nothing of ours.
    if stopped && !paths.api_socket().exists() && !paths.runtime_store().exists() {
        return Ok(());
    }
    let client = running::connect(&paths).await?;
    let outcome = match stopped {
        true => remove(&client, &state.id).await,
        false => return join(&client, state, wish).await,
    };
    outcome.map_err(|source| HookError::Client {
        id: state.id.clone(),
        source,
    })
}

async fn join(client: &Client, state: &State, wish: Wish) -> Result<(), HookError> {
    let pid = state.pid;
    if pid == 0 {
        return Err(HookError::NoProcess);
    }
    let netns = File::open(format!("/proc/{pid}/ns/net"));
    let netns = netns.map_err(|source| HookError::Netns { pid, source })?;
    let resolv_conf = wish.resolv_conf;
    let request = adoption(state, wish);
    let adopted = client.adopt(&request, netns.as_fd());
    let adopted = adopted.map_err(|source| HookError::Client {
        id: state.id.clone(),
        source,
    })?;
    for warning in &adopted.warnings {
        eprintln!("mossnet: warning: {warning}");
    }
    if resolv_conf != ResolvConf::Never
        && let Err(why) = cover(client, &adopted, state, resolv_conf).await
    {
        eprintln!("mossnet: warning: the container keeps its own resolv.conf: {why}");
    }
    Ok(())
}

/// Has the container ask the name servers of its networks; else why not, in one line.
async fn cover(
    client: &Client,
    adopted: &NetnsCreated,
    state: &State,
    wish: ResolvConf,
) -> Result<(), String> {
    let sandbox = client.inspect(adopted.id.as_str()).await;
    let sandbox = sandbox.map_err(|error| one_line(&error))?;
    let container = Unfinished::of(state.pid, &state.bundle);
    let covered = container.and_then(|container| {
        container.cover(&sandbox.resolv_conf_path, wish == ResolvConf::Always)
    });
    covered.map_err(|error| one_line(&error))
}

async fn remove(client: &Client, id: &str) -> Result<(), ClientError> {
    let name = format!("{SANDBOX}{id}");
    let sandbox = match client.inspect(&name).await {
        Ok(sandbox) if sandbox.name == name && sandbox.netns_path.is_some() => sandbox,
        Ok(_) => return Ok(()),
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    };
    match client.remove(sandbox.id.as_str(), true).await {
        // It went with its process.
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

fn adoption(state: &State, wish: Wish) -> NetnsAdopt {
    let mut networks: Vec<NetworkAttach> = wish
        .networks
        .into_iter()
        .map(|network| NetworkAttach {
            network,
            aliases: wish.aliases.clone(),
            ..NetworkAttach::default()
        })
        .collect();
    if let Some(first) = networks.first_mut() {
        for address in wish.addresses {
            match address {
                IpAddr::V4(address) => first.ip = Some(address),
                IpAddr::V6(address) => first.ip6 = Some(address),
            }
        }
    }
    NetnsAdopt {
        netns: NetnsCreate {
            name: Some(format!("{SANDBOX}{}", state.id)),
            hostname: wish.hostname.or_else(|| as_hostname(&state.id)),
            networks,
            host_loopback: wish.host_ports,
            ..NetnsCreate::default()
        },
        publish: PortsPublish {
            ports: wish.publish,
            ..PortsPublish::default()
        },
        ends_with: Some(state.pid),
    }
}

/// Peers ask for a container by its id, where that can be asked for.
fn as_hostname(id: &str) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let first = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    (first && id.len() < 64 && id.bytes().all(legal)).then(|| id.to_owned())
}

/// From annotations; those of others are none of our business.
fn wish(annotations: Option<&BTreeMap<String, String>>) -> Result<Wish, HookError> {
    let mut wish = Wish::default();
    for (key, value) in annotations.into_iter().flatten() {
        let Some(name) = key.strip_prefix(OURS) else {
            continue;
        };
        let words = || {
            value
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
        };
        match name {
            "networks" => wish.networks = words().map(str::to_owned).collect(),
            "aliases" => wish.aliases = words().map(str::to_owned).collect(),
            "hostname" => wish.hostname = Some(value.clone()),
            "ip" => wish.addresses = parsed("ip", words())?,
            "publish" => wish.publish = parsed("publish", words())?,
            "host-ports" => {
                let ports = HostLoopback::try_from(value.clone());
                let ports = ports.map_err(|error| of("host-ports", error))?;
                wish.host_ports = Some(ports);
            }
            "dns" => {
                wish.resolv_conf = match value.trim() {
                    "always" => ResolvConf::Always,
                    "none" => ResolvConf::Never,
                    other => {
                        return Err(of("dns", format!("'{other}' is neither none nor always")));
                    }
                }
            }
            _ => return Err(HookError::Unknown(name.to_owned())),
        }
    }
    for ipv6 in [false, true] {
        let family = wish.addresses.iter().filter(|a| a.is_ipv6() == ipv6);
        if family.count() > 1 {
            return Err(of("ip", "more than one address of a family"));
        }
    }
    Ok(wish)
}

fn parsed<'a, T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &'static str,
    words: impl Iterator<Item = &'a str>,
) -> Result<Vec<T>, HookError> {
    words
        .map(|word| {
            word.parse()
                .map_err(|error| of(name, format!("'{word}': {error}")))
        })
        .collect()
}

fn of(name: &'static str, why: impl std::fmt::Display) -> HookError {
    let why = why.to_string();
    HookError::Annotation { name, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_pairs(pairs: &[(&str, &str)]) -> Result<Wish, HookError> {
        let pairs = pairs.iter();
        let map = pairs.map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        wish(Some(&map.collect()))
    }

    #[test]
    fn annotations_become_wishes() {
        let wish = of_pairs(&[
            ("org.mossnet.networks", "mynet, other"),
            ("org.mossnet.ip", "10.1.0.5,fd00::5"),
            ("org.mossnet.publish", "8080:80,5353:53/udp"),
            ("org.mossnet.aliases", "db"),
            ("org.mossnet.host-ports", "5432"),
            ("org.mossnet.dns", "none"),
            ("io.example.mossnet", "x"),
        ])
        .unwrap();
        assert_eq!(wish.networks, ["mynet", "other"]);
        assert_eq!(wish.resolv_conf, ResolvConf::Never);
        let state: State = serde_json::from_str(
            r#"{"ociVersion": "1.0.2", "id": "web", "status": "creating", "pid": 7, "bundle": "/b"}"#,
        )
        .unwrap();
        let request = adoption(&state, wish);
        let [first, second] = &request.netns.networks[..] else {
            panic!("{request:?}");
        };
        assert!(first.ip.is_some() && first.ip6.is_some() && second.ip.is_none());
        assert_eq!(second.aliases, ["db"]);
        assert_eq!(request.publish.ports.len(), 2);
        assert_eq!(request.netns.name.as_deref(), Some("oci-web"));
        assert_eq!(request.netns.hostname.as_deref(), Some("web"));
        assert_eq!(request.ends_with, Some(7));
        assert_eq!(of_pairs(&[("x", "y")]).unwrap(), Wish::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, value, word) in [
            ("network", "mynet", "org.mossnet.network is not known"),
            ("ip", "x", "org.mossnet.ip: 'x'"),
            ("ip", "10.0.0.1,10.0.0.2", "more than one"),
            ("publish", "1:2:3:4", "org.mossnet.publish"),
            ("host-ports", "x", "org.mossnet.host-ports"),
            ("dns", "1.1.1.1", "org.mossnet.dns: '1.1.1.1' is neither"),
        ] {
            let error = of_pairs(&[(&format!("{OURS}{name}"), value)]).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        let words = |text: &str| root(text.split_whitespace().map(OsString::from).collect());
        assert_eq!(words("--root /x").unwrap(), Some("/x".into()));
        assert!(words("--root").is_err() && words("x y").is_err());
    }
}
