//! The host's loopback, opened for a sandbox or a network: whether a request for it makes sense, and
//! what a sandbox's `/etc/hosts` says of the host.
//!
//! Invariant: what was asked for and cannot work is refused before anything is recorded.

use super::model::Model;
use super::refusal::{conflict, malformed};
use super::uplink::{kind_of, name_of};
use crate::api::control::Answer;
use crate::api::types::{HostTarget, NetworkMode, SandboxCreate};
use crate::network::host_loopback::{Closed, leads_to_host, view};
use crate::network::snapshot::HostLoopbackView;
use crate::network::{Network, Sandbox};
use crate::ports::HostLoopback;
use mossnet_helper::request::UplinkKind;
use std::net::IpAddr;

/// What to do where it is closed.
const OPEN_IT: &str = "add --host-loopback, or --host-ports PORT,… for some of its ports";

/// Whatever wants the host to be reachable.
fn wants(request: &SandboxCreate) -> Option<&'static str> {
    let is_host = |(_, target): &(String, HostTarget)| *target == HostTarget::HostGateway;
    match request.host_loopback {
        Some(_) => Some("--host-loopback"),
        None => (request.add_host.iter().any(is_host)).then_some("--add-host NAME:host-gateway"),
    }
}

/// Checks what can be judged without looking at what networks there are.
pub(super) fn check(request: &SandboxCreate, mode: &NetworkMode) -> Answer<()> {
    let Some(flag) = wants(request) else {
        return Ok(());
    };
    let word = match mode {
        NetworkMode::Networks(_) => return check_uplink(request, flag),
        NetworkMode::None => "none",
        NetworkMode::Host => "host",
        NetworkMode::Container(_) => "container",
    };
    let hint = match mode {
        NetworkMode::Host => "leave it out: there 127.0.0.1 is the host's own",
        NetworkMode::Container(_) => "give it to the sandbox whose network is shared",
        NetworkMode::None | NetworkMode::Networks(_) => "leave one of the two out",
    };
    let message = format!("{flag} cannot be combined with --network {word}");
    Err(malformed(message).with_hint(hint))
}

fn check_uplink(request: &SandboxCreate, flag: &str) -> Answer<()> {
    match request.uplink.map(kind_of) {
        None | Some(UplinkKind::Relay) => Ok(()),
        Some(other) => {
            let message = format!("{flag} cannot be combined with --uplink {}", name_of(other));
            Err(malformed(message).with_hint("leave --uplink out: only relay leads to the host"))
        }
    }
}

/// Checks the wish of a network.
pub(super) fn check_network(internal: bool, uplink: UplinkKind) -> Answer<()> {
    leads_to_host(internal, uplink).map_err(|closed| {
        let (what, hint) = match closed {
            Closed::Internal => (
                "an internal network".to_owned(),
                "leave --internal or --host-loopback out",
            ),
            Closed::Uplink(uplink) => (
                format!("a network with uplink {}", name_of(uplink)),
                "leave --uplink out, or --host-loopback and --host-ports",
            ),
        };
        malformed(format!("{what} cannot reach the host's loopback")).with_hint(hint)
    })
}

/// Of a sandbox's `/etc/hosts`.
pub(super) struct HostLines {
    /// `--add-host`.
    pub(super) added: Vec<(String, IpAddr)>,
    /// The host, where it may be reached.
    pub(super) lines: Vec<(IpAddr, Vec<String>)>,
}

impl Model {
    fn host_view(&self, sandbox: &Sandbox) -> Option<HostLoopbackView> {
        view(sandbox, |id| self.network_by_id(id))
    }

    /// How far it is open: what its own flags and its networks open adds up; of one that is on no network,
    /// what its flags ask for.
    pub(super) fn host_loopback_of(&self, sandbox: &Sandbox) -> Option<HostLoopback> {
        if sandbox.endpoints.is_empty() {
            return sandbox.host_loopback.clone();
        }
        self.host_view(sandbox).map(|view| view.open)
    }

    /// Refuses a sandbox, on its networks already, that is to reach the host and cannot.
    pub(super) fn check_host_loopback(&self, sandbox: &Sandbox) -> Answer<()> {
        let mut added = sandbox.add_host.iter();
        let named = added.find(|(_, target)| *target == HostTarget::HostGateway);
        let wanted = sandbox.host_loopback.is_some() || named.is_some();
        if !wanted || self.host_view(sandbox).is_some() {
            return Ok(());
        }
        let mut networks = sandbox.endpoints.iter();
        let network = networks.find_map(|endpoint| self.network_by_id(&endpoint.network));
        match (&sandbox.host_loopback, network, named) {
            (Some(_), Some(network), _) => Err(conflict(format!(
                "network '{}' cannot reach the host's loopback: {}",
                network.name,
                reason(network)
            ))
            .with_hint("leave --host-loopback and --host-ports out, or choose another network")),
            (None, _, Some((name, _))) => {
                let message =
                    format!("--add-host {name}:host-gateway needs the host's loopback to be open");
                Err(conflict(message).with_hint(OPEN_IT))
            }
            // It has left every network since it was made.
            (_, _, _) => Ok(()),
        }
    }

    /// What its `/etc/hosts` says of the host, and what the user adds.
    pub(super) fn host_lines(&self, sandbox: &Sandbox) -> HostLines {
        let view = self.host_view(sandbox);
        let hosts = view.as_ref().map(HostLoopbackView::host_addresses);
        let hosts = hosts.unwrap_or_default();
        let added = sandbox.add_host.iter().flat_map(|(name, target)| {
            let addresses = match target {
                HostTarget::Address(address) => vec![*address],
                HostTarget::HostGateway => hosts.clone(),
            };
            addresses.into_iter().map(|address| (name.clone(), address))
        });
        HostLines {
            added: added.collect(),
            lines: view.map_or_else(Vec::new, |view| view.hosts_lines()),
        }
    }
}

fn reason(network: &Network) -> String {
    match leads_to_host(network.internal, network.uplink) {
        Err(Closed::Internal) => "it is internal".to_owned(),
        Err(Closed::Uplink(uplink)) => format!("its uplink is {}", name_of(uplink)),
        Ok(()) => "it has no gateway".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::Uplink;
    use crate::network::model::samples;

    fn request() -> SandboxCreate {
        SandboxCreate {
            host_loopback: Some(HostLoopback::All),
            ..SandboxCreate::example()
        }
    }

    fn says(refused: Answer<()>) -> String {
        let body = refused.unwrap_err().body;
        assert!(body.hint.is_some() && !body.message.contains('\n'));
        body.message
    }

    #[test]
    fn modes_without_a_network_open_nothing() {
        for (mode, word) in [
            (NetworkMode::None, "none"),
            (NetworkMode::Host, "host"),
            (NetworkMode::Container("web".into()), "container"),
        ] {
            let expected = format!("--host-loopback cannot be combined with --network {word}");
            assert_eq!(says(check(&request(), &mode)), expected);
            assert!(check(&SandboxCreate::example(), &mode).is_ok());
        }
        let networks = NetworkMode::Networks(Vec::new());
        assert!(check(&request(), &networks).is_ok());
        let mut other = request();
        other.uplink = Some(Uplink::Slirp);
        let message = says(check(&other, &networks));
        assert!(message.ends_with("--uplink slirp"), "{message}");
        let mut named = SandboxCreate::example();
        named.add_host = vec![("h".into(), HostTarget::HostGateway)];
        let message = says(check(&named, &NetworkMode::Host));
        assert!(
            message.starts_with("--add-host NAME:host-gateway"),
            "{message}"
        );
    }

    #[test]
    fn networks_that_cannot_are_refused() {
        assert!(check_network(false, UplinkKind::Relay).is_ok());
        let internal = says(check_network(true, UplinkKind::Relay));
        assert!(internal.starts_with("an internal network cannot"));
        let pasta = says(check_network(false, UplinkKind::Pasta));
        assert!(pasta.contains("uplink pasta"), "{pasta}");
    }

    #[test]
    fn a_sandbox_is_refused_where_no_network_of_its_leads_there() {
        let (_directory, mut model) = crate::daemon::model::tests::model();
        let mut inner = samples::network("inner", 1, "10.89.1.0/24");
        inner.internal = true;
        let outer = samples::network("outer", 2, "10.89.2.0/24");
        model.put_network(inner.clone()).unwrap();
        model.put_network(outer.clone()).unwrap();
        let mut web = samples::sandbox("web", 3, &inner, "10.89.1.2/24");
        assert!(model.check_host_loopback(&web).is_ok());
        let host = ("h".to_owned(), HostTarget::HostGateway);
        web.add_host = vec![host, ("db".to_owned(), "10.0.0.1".parse().unwrap())];
        let message = says(model.check_host_loopback(&web));
        assert!(message.contains("h:host-gateway needs"), "{message}");
        web.host_loopback = Some(HostLoopback::All);
        let message = says(model.check_host_loopback(&web));
        assert!(message.ends_with("it is internal"), "{message}");
        let db = ("db".to_owned(), [10, 0, 0, 1].into());
        let closed = model.host_lines(&web);
        assert_eq!(closed.added, std::slice::from_ref(&db));
        assert!(closed.lines.is_empty());
        let way_out = samples::endpoint(0x77, &outer, "10.89.2.2/24", 1);
        web.endpoints.push(way_out);
        assert!(model.check_host_loopback(&web).is_ok());
        let open = model.host_lines(&web);
        let host = IpAddr::from([169, 254, 77, 77]);
        assert_eq!(open.added, [("h".to_owned(), host), db]);
        assert_eq!(open.lines[0].0, host);
        assert_eq!(open.lines[0].1[1], "host.docker.internal");
    }
}
