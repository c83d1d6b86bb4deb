//! How a sandbox wants to join networks: a request's words checked, then resolved to networks and
//! linked sandboxes that there are.

use super::model::Model;
use super::refusal::{conflict, malformed};
use crate::api::control::Answer;
use crate::api::network_types::{ConnectOptions, Link, NetworkAttach};
use crate::network::model::DEFAULT_NETWORK;
use crate::network::resolv::check_host_name;
use crate::network::{Attachment, LinkRecord, Network, Sandbox, SandboxName, SandboxPhase};
use mossnet_helper::IfName;
use std::net::IpAddr;

/// Checks what can be judged without looking at what there is.
pub(super) fn check_attach(attach: &NetworkAttach) -> Answer<()> {
    for (index, alias) in attach.aliases.iter().enumerate() {
        let malformed_alias = |_| {
            let shown = alias.escape_debug();
            malformed(format!(
                "network alias '{shown}' is not a name of letters, digits, '-', '_' and '.'"
            ))
            .with_hint("choose an alias such as db or db.example")
        };
        check_host_name(alias).map_err(malformed_alias)?;
        let same = |other: &String| other.eq_ignore_ascii_case(alias);
        if attach.aliases[..index].iter().any(same) {
            let message = format!("network alias '{alias}' is given twice");
            return Err(malformed(message).with_hint("leave one of them out"));
        }
    }
    interface_wish(attach).map(drop)
}

/// Several at once: none twice, and no mode among them.
pub(super) fn check_attaches(joined: &[NetworkAttach]) -> Answer<()> {
    for (index, attach) in joined.iter().enumerate() {
        check_attach(attach)?;
        let name = attach.network.as_str();
        if matches!(name, "host" | "none") {
            let message =
                format!("network '{name}' cannot be combined with others or with options");
            return Err(malformed(message).with_hint("give it alone, or leave it out"));
        }
        if joined[..index].iter().any(|other| other.network == name) {
            return Err(twice(name));
        }
    }
    Ok(())
}

fn twice(name: &str) -> crate::api::control::Refusal {
    malformed(format!("network '{name}' is given twice")).with_hint("leave one of them out")
}

fn interface_wish(attach: &NetworkAttach) -> Answer<Option<IfName>> {
    let Some(name) = &attach.interface_name else {
        return Ok(None);
    };
    let hint = "choose 1 to 15 letters, digits, '-', '_' or '.', such as eth7";
    if name == "lo" {
        return Err(malformed("interface name 'lo' is the loopback's").with_hint(hint));
    }
    let parsed: Result<IfName, _> = name.parse();
    match parsed {
        Ok(name) => Ok(Some(name)),
        Err(error) => Err(malformed(error.to_string()).with_hint(hint)),
    }
}

/// A connect's words in those of `--network`.
pub(super) fn of_connect(network: &str, options: &ConnectOptions) -> NetworkAttach {
    NetworkAttach {
        network: network.to_owned(),
        ip: options.ip,
        ip6: options.ip6,
        mac_address: options.mac_address,
        aliases: options.aliases.clone(),
        interface_name: options.interface_name.clone(),
        gw_priority: options.gw_priority,
        bandwidth: options.bandwidth,
    }
}

/// How to join `network`.
pub(super) fn attachment(network: &Network, attach: &NetworkAttach) -> Answer<Attachment> {
    if let Some(alias) = attach.aliases.first()
        && !network.serves_names()
    {
        let message = format!(
            "network '{}' has no names, so '{alias}' cannot be an alias on it",
            network.name
        );
        let hint = if network.is_default() {
            "make a network of your own: mossnet network create NAME"
        } else {
            "make a network without --disable-dns"
        };
        return Err(malformed(message).with_hint(hint));
    }
    let addresses = [attach.ip.map(IpAddr::V4), attach.ip6.map(IpAddr::V6)];
    Ok(Attachment {
        network: network.id.clone(),
        network_name: network.name.clone(),
        addresses: addresses.into_iter().flatten().collect(),
        mac: attach.mac_address,
        aliases: attach.aliases.clone(),
        ifname: interface_wish(attach)?,
        gw_priority: attach.gw_priority,
        bandwidth: attach.bandwidth,
        last: Vec::new(),
    })
}

impl Model {
    /// How to join all of these networks, in order.
    pub(super) fn attachments(&self, joined: &[NetworkAttach]) -> Answer<Vec<Attachment>> {
        let mut found: Vec<Attachment> = Vec::new();
        for attach in joined {
            let network = self.find_network(&attach.network)?;
            // By name and by id.
            if found.iter().any(|other| other.network == network.id) {
                return Err(twice(network.name.as_str()));
            }
            found.push(attachment(network, attach)?);
        }
        Ok(found)
    }

    /// Links to sandboxes that run and have an address; `own` is the name of whoever has them.
    pub(super) fn links(
        &self,
        own: Option<&SandboxName>,
        links: &[Link],
    ) -> Answer<Vec<LinkRecord>> {
        let mut found: Vec<LinkRecord> = Vec::new();
        for link in links {
            let record = self.link(own, link)?;
            let says = |other: &LinkRecord| other.alias.as_ref() == record.alias.as_ref();
            let other = found
                .iter()
                .find(|other| other.alias.is_some() && says(other));
            if let Some(other) = other.filter(|other| other.name != record.name) {
                let alias = record.alias.as_deref().unwrap_or_default();
                let message = format!(
                    "link alias '{alias}' is given to '{}' and '{}'",
                    other.name, record.name
                );
                return Err(malformed(message).with_hint("choose another alias for one of them"));
            }
            if !found.contains(&record) {
                found.push(record);
            }
        }
        Ok(found)
    }

    fn link(&self, own: Option<&SandboxName>, link: &Link) -> Answer<LinkRecord> {
        if let Some(alias) = &link.alias {
            check_host_name(alias)?;
        }
        let text = &link.sandbox;
        let target = self.find(text).map_err(|refusal| {
            let hint = refusal.body.hint.clone().unwrap_or_default();
            let mut refusal = refusal;
            refusal.body.message = format!("cannot link to '{text}': {}", refusal.body.message);
            refusal.with_hint(hint)
        })?;
        let refuse = |why: &str| conflict(format!("cannot link to '{text}': {why}"));
        if own == Some(&target.name) {
            return Err(refuse("that is the sandbox itself"));
        }
        if !matches!(target.phase, SandboxPhase::Running { .. }) {
            return Err(refuse("it is not running")
                .with_hint(format!("start it first: mossnet start {}", target.name)));
        }
        if target.endpoints.is_empty() {
            return Err(refuse("it is on no network")
                .with_hint("connect it to one first: mossnet network connect"));
        }
        Ok(LinkRecord {
            name: target.name.clone(),
            alias: link.alias.clone(),
        })
    }

    /// Lines of `/etc/hosts` for the links of a sandbox: those of them that have an address now.
    pub(super) fn link_lines(&self, sandbox: &Sandbox) -> Vec<(IpAddr, Vec<String>)> {
        let mut lines = Vec::new();
        for link in &sandbox.links {
            let target = self.named(link.name.as_str());
            let Some(target) = target.filter(|target| target.is_live()) else {
                continue;
            };
            let shared = |network| sandbox.endpoint_on(network).is_some();
            let mut endpoints = target.endpoints.iter();
            let endpoint = endpoints.find(|endpoint| shared(&endpoint.network));
            let Some(endpoint) = endpoint.or(target.endpoints.first()) else {
                continue;
            };
            let own = [target.name.as_str(), target.id.short()];
            let mut names: Vec<String> = link.alias.iter().cloned().collect();
            for name in own {
                if !names.iter().any(|had| had == name) {
                    names.push(name.to_owned());
                }
            }
            for address in &endpoint.addresses {
                lines.push((address.addr(), names.clone()));
            }
        }
        lines
    }
}

/// Of a sandbox without a network of its own, or with the default one, by `--network`.
pub(super) fn default_attach() -> NetworkAttach {
    NetworkAttach {
        network: DEFAULT_NETWORK.to_owned(),
        ..NetworkAttach::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::model::samples;

    fn model() -> (tempfile::TempDir, Model) {
        let (directory, mut model) = crate::daemon::model::tests::model();
        for (name, id, prefix) in [
            ("bridge", 1, "10.89.0.0/24"),
            ("mynet", 2, "10.89.3.0/24"),
            ("quiet", 3, "10.89.4.0/24"),
        ] {
            let mut network = samples::network(name, id, prefix);
            network.disable_dns = name == "quiet";
            model.put_network(network).unwrap();
        }
        (directory, model)
    }

    fn attach(network: &str, spoil: impl FnOnce(&mut NetworkAttach)) -> NetworkAttach {
        let mut attach = NetworkAttach {
            network: network.to_owned(),
            ..NetworkAttach::default()
        };
        spoil(&mut attach);
        attach
    }

    #[test]
    fn wrong_words_are_refused_with_one_line() {
        let message = |joined: &[NetworkAttach]| check_attaches(joined).unwrap_err().body.message;
        let alias = |aliases: &[&str]| {
            let aliases = aliases.iter().map(|&a| a.to_owned()).collect();
            attach("mynet", |a| a.aliases = aliases)
        };
        assert!(message(&[alias(&["a b"])]).contains("network alias 'a b' is not a name"));
        assert_eq!(
            message(&[alias(&["a", "A"])]),
            "network alias 'A' is given twice"
        );
        let named = |name: &str| attach("mynet", |a| a.interface_name = Some(name.to_owned()));
        assert!(message(&[named("lo")]).contains("loopback"));
        assert!(message(&[named("a/b")]).contains("a/b"));
        let two = [attach("mynet", |_| {}), attach("mynet", |_| {})];
        assert_eq!(message(&two), "network 'mynet' is given twice");
        let mode = [attach("mynet", |_| {}), attach("host", |_| {})];
        assert!(message(&mode).contains("cannot be combined"));
    }

    #[test]
    fn attachments_are_resolved_against_what_there_is() {
        let (_directory, model) = model();
        let refused = |attach: NetworkAttach| {
            let refusal = model.attachments(&[attach]).unwrap_err();
            (refusal.status, refusal.body.message)
        };
        assert_eq!(refused(attach("nonet", |_| {})).0, 404);
        for quiet in ["bridge", "quiet"] {
            let (status, message) = refused(attach(quiet, |a| a.aliases = vec!["db".into()]));
            assert_eq!(status, 400);
            assert!(message.contains("has no names, so 'db'"), "{message}");
        }
        let by_id = attach(&"02".repeat(32), |_| {});
        let both = model.attachments(&[attach("mynet", |_| {}), by_id]);
        assert_eq!(
            both.unwrap_err().body.message,
            "network 'mynet' is given twice"
        );
    }

    #[test]
    fn links_follow_the_address_on_a_shared_network() {
        let (_directory, mut model) = model();
        let bridge = model.network("bridge").unwrap().clone();
        let mynet = model.network("mynet").unwrap().clone();
        let mut db = samples::sandbox("db", 9, &bridge, "10.89.0.2/24");
        db.endpoints
            .push(samples::endpoint(0x77, &mynet, "10.89.3.2/24", 1));
        let link = |alias: Option<&str>| Link {
            sandbox: "db".to_owned(),
            alias: alias.map(str::to_owned),
        };
        let message =
            |model: &Model, links: &[Link]| model.links(None, links).unwrap_err().body.message;
        assert_eq!(
            message(&model, &[link(None)]),
            "cannot link to 'db': no such sandbox: db"
        );
        model.put_sandbox(db.clone()).unwrap();
        assert_eq!(
            message(&model, &[link(None)]),
            "cannot link to 'db': it is not running"
        );
        db.phase = SandboxPhase::Running { started: 1, pid: 1 };
        model.put_sandbox(db.clone()).unwrap();
        let itself = model.links(Some(&db.name), &[link(None)]).unwrap_err();
        assert!(itself.body.message.ends_with("the sandbox itself"));
        let mut web = samples::sandbox("web", 8, &mynet, "10.89.3.3/24");
        web.links = model
            .links(Some(&web.name), &[link(Some("store"))])
            .unwrap();
        let names = ["store", "db", "090909090909"].map(str::to_owned).to_vec();
        let line = |address: &str| (address.parse().unwrap(), names.clone());
        assert_eq!(model.link_lines(&web), [line("10.89.3.2")]);
        web.endpoints.clear();
        assert_eq!(model.link_lines(&web), [line("10.89.0.2")]);
        assert_eq!(model.linked_to(&db.name).len(), 0, "web is no record");
        model.put_sandbox(web.clone()).unwrap();
        assert_eq!(model.linked_to(&db.name), [web.id.clone()]);
        model.change_sandbox(&db.id, |s| s.exit(9, 0)).unwrap();
        assert!(model.link_lines(&web).is_empty());
    }
}
