//! A request to create a sandbox, checked: everything that can be judged without looking at what
//! else there is. Pure.

use super::adopted;
use super::files::check_hostname;
use super::host_loopback;
use super::joining::{check_attaches, default_attach};
use super::publish::Wishes;
use super::refusal::malformed;
use crate::api::control::Answer;
use crate::api::network_types::{NetnsAdopt, NetnsCreate, NetworkAttach};
use crate::api::port_types::PortsPublish;
use crate::api::types::{NetworkMode, SandboxCreate, Stdio};
use crate::network::capabilities::bounding_set;
use crate::network::model::DEFAULT_NETWORK;
use crate::network::plan::merge_env;
use crate::network::resolv::{check_host_name, check_search_domain};
use crate::network::{Adopted, SandboxName};
use std::path::{Path, PathBuf};

/// Docker's search path for commands.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A checked request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) request: SandboxCreate,
    pub(super) name: Option<SandboxName>,
    pub(super) network: NetworkMode,
    pub(super) capabilities: Vec<String>,
    /// Without a process.
    pub(super) bare: bool,
    /// The same, in another runtime's network namespace.
    pub(super) adopted: Option<Adopted>,
    /// Ports on the host.
    pub(super) publish: Wishes,
    /// What is asked for in vain.
    pub(super) warnings: Vec<String>,
}

/// Checks a request to adopt a network namespace.
pub(super) fn check_adopt(request: NetnsAdopt) -> Answer<Draft> {
    let draft = bare(request.netns, request.publish)?;
    let ends_with = request.ends_with.map(adopted::process).transpose()?;
    Ok(Draft {
        adopted: Some(Adopted { ends_with }),
        ..draft
    })
}

/// Checks a request for a sandbox without a process.
pub(super) fn check_netns(request: NetnsCreate) -> Answer<Draft> {
    bare(request, PortsPublish::default())
}

fn bare(request: NetnsCreate, publish: PortsPublish) -> Answer<Draft> {
    let networks = (!request.networks.is_empty()).then_some(request.networks);
    let request = SandboxCreate {
        name: request.name,
        hostname: request.hostname,
        network: networks.map(NetworkMode::Networks),
        links: request.links,
        dns: Vec::new(),
        dns_search: Vec::new(),
        add_host: Vec::new(),
        env: Vec::new(),
        workdir: None,
        caller_dir: None,
        caller_home: None,
        rootfs: None,
        cap_add: Vec::new(),
        cap_drop: Vec::new(),
        command: Vec::new(),
        stdio: Stdio::Detached,
        interactive: false,
        tty: false,
        auto_remove: false,
        uplink: None,
        publish,
        publish_all: false,
        expose: Vec::new(),
        host_loopback: request.host_loopback,
    };
    let draft = check_common(request)?;
    if draft.network == NetworkMode::Host {
        let message = "a network namespace of its own cannot be the host's";
        return Err(malformed(message).with_hint("leave network 'host' out"));
    }
    Ok(Draft {
        bare: true,
        ..draft
    })
}

/// Checks a request.
pub(super) fn check(request: SandboxCreate) -> Answer<Draft> {
    if request.command.first().is_none_or(String::is_empty) {
        return Err(malformed("no command was given")
            .with_hint("name it after the options, as in: mossnet run -- sh"));
    }
    let texts = request
        .command
        .iter()
        .chain(request.env.iter().map(|(_, value)| value));
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(malformed(
            "arguments and environment cannot hold a zero byte",
        ));
    }
    check_env_names(&request.env)?;
    check_paths(&request)?;
    check_common(request)
}

/// What is true of all, with a process or without.
fn check_common(request: SandboxCreate) -> Answer<Draft> {
    for (name, _) in &request.add_host {
        check_host_name(name)?;
    }
    for domain in request.dns_search.iter().filter(|domain| *domain != ".") {
        check_search_domain(domain)?;
    }
    if let Some(hostname) = &request.hostname {
        check_hostname(hostname)?;
    }
    let default = || NetworkMode::Networks(vec![default_attach()]);
    let network = request.network.clone().map_or_else(default, predefined);
    if let NetworkMode::Networks(joined) = &network {
        check_attaches(joined)?;
    }
    check_mode(&request, &network)?;
    host_loopback::check(&request, &network)?;
    let (publish, warnings) = publish(&request, &network)?;
    Ok(Draft {
        publish,
        warnings,
        name: request.name.as_deref().map(str::parse).transpose()?,
        capabilities: bounding_set(&request.cap_add, &request.cap_drop)?,
        network,
        bare: false,
        adopted: None,
        request,
    })
}

/// What to publish; nothing where the ports are the host's anyway.
fn publish(request: &SandboxCreate, mode: &NetworkMode) -> Answer<(Wishes, Vec<String>)> {
    let mut wishes = Wishes::of(&request.publish);
    if request.publish_all {
        wishes.specs.extend(&request.expose);
    }
    wishes.check()?;
    match mode {
        NetworkMode::Host if !wishes.specs.is_empty() => {
            let warning = "published ports are discarded when using host network mode";
            Ok((Wishes::default(), vec![warning.to_owned()]))
        }
        NetworkMode::Networks(_)
        | NetworkMode::Host
        | NetworkMode::None
        | NetworkMode::Container(_) => Ok((wishes, Vec::new())),
    }
}

/// `host` and `none` are modes also where they come as a network's name.
fn predefined(mode: NetworkMode) -> NetworkMode {
    let NetworkMode::Networks(mut joined) = mode else {
        return mode;
    };
    if joined.is_empty() {
        joined.push(default_attach());
    }
    if let [only] = &joined[..] {
        let plain = |name: &str| {
            *only
                == NetworkAttach {
                    network: name.to_owned(),
                    ..NetworkAttach::default()
                }
        };
        if plain("host") {
            return NetworkMode::Host;
        }
        if plain("none") {
            return NetworkMode::None;
        }
    }
    for attach in &mut joined {
        if attach.network == "default" {
            attach.network = DEFAULT_NETWORK.to_owned();
        }
    }
    NetworkMode::Networks(joined)
}

/// Names of environment variables, also of an exec.
pub(super) fn check_env_names(env: &[(String, String)]) -> Answer<()> {
    let bad = |name: &str| name.is_empty() || name.contains(['=', '\0']);
    match env.iter().find(|(name, _)| bad(name)) {
        None => Ok(()),
        Some((name, _)) => {
            let shown = name.escape_debug();
            Err(malformed(format!(
                "'{shown}' is no name of an environment variable"
            )))
        }
    }
}

fn check_paths(request: &SandboxCreate) -> Answer<()> {
    if let Some(rootfs) = &request.rootfs {
        let hint = "give --rootfs the absolute path of a directory with a file system tree";
        if !rootfs.is_absolute() {
            let message = format!("--rootfs {} is not an absolute path", rootfs.display());
            return Err(malformed(message).with_hint(hint));
        }
        if !rootfs.is_dir() {
            let message = format!("--rootfs {} is not a directory", rootfs.display());
            return Err(malformed(message).with_hint(hint));
        }
    }
    match &request.workdir {
        Some(workdir) if !workdir.is_absolute() => {
            let message = format!("--workdir {} is not an absolute path", workdir.display());
            Err(malformed(message))
        }
        Some(_) | None => Ok(()),
    }
}

/// Options that only make sense with a network, or with a sandbox's own files.
fn check_mode(request: &SandboxCreate, mode: &NetworkMode) -> Answer<()> {
    let word = match mode {
        NetworkMode::Networks(_) => return Ok(()),
        NetworkMode::None => "none",
        NetworkMode::Host => "host",
        NetworkMode::Container(_) => "container",
    };
    let joins = matches!(mode, NetworkMode::Container(_));
    let publishes = !request.publish.ports.is_empty() || request.publish_all;
    let host = matches!(mode, NetworkMode::Host);
    for (given, option) in [
        (request.uplink.is_some(), "--uplink"),
        (!request.links.is_empty(), "--link"),
        (publishes && !host, "--publish"),
        (request.host_loopback.is_some(), "--host-loopback"),
        (joins && request.hostname.is_some(), "--hostname"),
        (joins && !request.dns.is_empty(), "--dns"),
        (joins && !request.dns_search.is_empty(), "--dns-search"),
        (joins && !request.add_host.is_empty(), "--add-host"),
    ] {
        if given {
            let message = format!("{option} cannot be combined with --network {word}");
            return Err(malformed(message).with_hint("leave one of the two out"));
        }
    }
    Ok(())
}

impl Draft {
    /// The whole environment of the command.
    pub(super) fn environment(&self, hostname: &str) -> Vec<(String, String)> {
        let request = &self.request;
        let own_root = request.rootfs.is_some();
        let home = request.caller_home.as_deref().filter(|_| !own_root);
        let home = home.and_then(Path::to_str).unwrap_or("/root");
        let mut env = vec![
            ("PATH".to_owned(), PATH.to_owned()),
            ("HOSTNAME".to_owned(), hostname.to_owned()),
            ("HOME".to_owned(), home.to_owned()),
        ];
        if request.tty {
            env.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        merge_env(&mut env, request.env.clone());
        env
    }

    /// Where the command starts: `--workdir`, else the caller's directory, or `/` in a rootfs.
    pub(super) fn workdir(&self) -> Option<PathBuf> {
        let request = &self.request;
        let callers = request
            .caller_dir
            .clone()
            .filter(|_| request.rootfs.is_none());
        let root = || Some(PathBuf::from("/"));
        request.workdir.clone().or(callers).or_else(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::HostTarget;

    fn request() -> SandboxCreate {
        SandboxCreate {
            caller_dir: Some("/home/u/src".into()),
            caller_home: Some("/home/u".into()),
            ..SandboxCreate::example()
        }
    }

    fn on(network: &str) -> NetworkMode {
        NetworkMode::Networks(vec![NetworkAttach {
            network: network.to_owned(),
            ..NetworkAttach::default()
        }])
    }

    #[test]
    fn defaults_are_dockers() {
        let mut request = request();
        request.tty = true;
        request.env = vec![("PATH".into(), "/bin".into()), ("A".into(), "1".into())];
        let draft = check(request).unwrap();
        assert_eq!(draft.network, on("bridge"));
        assert_eq!(draft.workdir(), Some("/home/u/src".into()));
        let env: Vec<_> = draft
            .environment("web")
            .iter()
            .map(|(n, v)| format!("{n}={v}"))
            .collect();
        assert_eq!(
            env,
            [
                "PATH=/bin",
                "HOSTNAME=web",
                "HOME=/home/u",
                "TERM=xterm",
                "A=1"
            ]
        );
    }

    #[test]
    fn a_rootfs_has_its_own_home_and_directory() {
        let mut request = request();
        request.rootfs = Some("/usr".into());
        let draft = check(request).unwrap();
        assert_eq!(draft.workdir(), Some("/".into()));
        assert!(
            draft
                .environment("h")
                .contains(&("HOME".into(), "/root".into()))
        );
    }

    #[test]
    fn bad_requests_are_refused_with_one_line() {
        type Spoil = fn(&mut SandboxCreate);
        let cases: [(Spoil, &str); 9] = [
            (|r| r.command.clear(), "no command was given"),
            (|r| r.command = vec!["a\0b".into()], "zero byte"),
            (
                |r| r.env = vec![("A=B".into(), String::new())],
                "'A=B' is no name",
            ),
            (
                |r| r.rootfs = Some("/nonexistent".into()),
                "is not a directory",
            ),
            (|r| r.workdir = Some("here".into()), "not an absolute path"),
            (
                |r| r.name = Some("a/b".into()),
                "sandbox name 'a/b' is malformed",
            ),
            (|r| r.hostname = Some("a b".into()), "host name 'a b'"),
            (|r| r.cap_add = vec!["X".into()], "'X' is not a capability"),
            (
                |r| r.add_host = vec![("a b".into(), HostTarget::HostGateway)],
                "host name 'a b'",
            ),
        ];
        for (spoil, part) in cases {
            let mut request = request();
            spoil(&mut request);
            let refusal = check(request).unwrap_err();
            assert_eq!(refusal.status, 400);
            assert!(
                refusal.body.message.contains(part),
                "{}",
                refusal.body.message
            );
        }
    }

    #[test]
    fn modes_without_a_network_take_no_addresses() {
        for mode in ["none", "host"] {
            let mut request = request();
            request.network = Some(on(mode));
            assert!(check(request.clone()).is_ok());
            request.uplink = Some(crate::api::types::Uplink::Relay);
            let message = check(request).unwrap_err().body.message;
            assert_eq!(
                message,
                format!("--uplink cannot be combined with --network {mode}")
            );
        }
        let mut request = request();
        request.network = Some(NetworkMode::Container("web".into()));
        request.dns = vec![[1, 1, 1, 1].into()];
        assert!(check(request).is_err());
    }
}
