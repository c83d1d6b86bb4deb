//! `ADD`. Invariant: where it fails, the container is as it was before.

use super::config::{Config, Dns, Wish};
use super::environment::Attachment;
use super::netns::{self, Seen};
use super::refusal::{Code, Refusal};
use super::result::{Address, Attached, Interface};
use super::version::Version;
use super::{endpoint, network, sandbox};
use crate::api::client::Client;
use crate::api::network_types::{
    ConnectOptions, NetnsAdopt, NetnsCreate, NetworkAttach, NetworkConnect, NetworkDisconnect,
    NetworkInfo,
};
use crate::api::port_types::{HostPorts, PortInfo, PortsPublish, PublishSpec};
use crate::api::types::{EndpointInfo, SandboxInfo};
use serde_json::Value;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;

/// Joins the container to the network; the result.
pub(super) async fn add(
    client: &Client,
    config: &Config,
    version: Version,
    attachment: &Attachment,
) -> Result<Value, Refusal> {
    let wish = config.wish(&attachment.args)?;
    let path = attachment.netns.as_deref().unwrap_or_default();
    let netns = netns::open(path)?;
    let (network, made) = network::ensure(client, config).await?;
    let place = Place {
        config,
        attachment,
        netns: &netns,
        network: &network,
    };
    let added = place.enter(client, wish).await;
    let shown = match added {
        Ok(()) => {
            let shown = place.show(client, version).await;
            if shown.is_err() {
                // The runtime hears of the first failure.
                let _ = super::depart::delete(client, config, attachment).await;
            }
            shown
        }
        Err(refusal) => Err(refusal),
    };
    if shown.is_err() && made {
        network::unmake(client, &network).await;
    }
    shown
}

/// Where a container is to be.
#[derive(Clone, Copy)]
struct Place<'a> {
    config: &'a Config,
    attachment: &'a Attachment,
    netns: &'a File,
    network: &'a NetworkInfo,
}

impl Place<'_> {
    async fn enter(self, client: &Client, wish: Wish) -> Result<(), Refusal> {
        let known = sandbox(client, &self.attachment.sandbox()).await?;
        match &known {
            None => {
                let request = adoption(self.config, self.network, self.attachment, &wish);
                client.adopt(&request, self.netns.as_fd())?;
                Ok(())
            }
            Some(known) => join(client, self, known, wish).await,
        }
    }

    async fn show(self, client: &Client, version: Version) -> Result<Value, Refusal> {
        let Self {
            config,
            attachment,
            netns,
            network,
        } = self;
        let name = attachment.sandbox();
        let gone = || Refusal::new(Code::TryAgain, format!("{name} was removed meanwhile"));
        let sandbox = sandbox(client, &name).await?.ok_or_else(gone)?;
        let endpoint = endpoint(&sandbox, &network.name).ok_or_else(gone)?;
        let seen = netns::look(netns.as_fd(), &endpoint.ifname, &endpoint.gateways);
        let seen = seen.map_err(|failure| Refusal::new(Code::Refused, failure.to_string()))?;
        let seen = seen.ok_or_else(gone)?;
        let attached = attached(config, &sandbox, endpoint, &seen, network, attachment);
        attached.result(version, config.prev_result.as_ref())
    }
}

fn adoption(
    config: &Config,
    network: &NetworkInfo,
    attachment: &Attachment,
    wish: &Wish,
) -> NetnsAdopt {
    let options = options(config, attachment, wish);
    NetnsAdopt {
        netns: NetnsCreate {
            name: Some(attachment.sandbox()),
            hostname: hostname(attachment),
            networks: vec![NetworkAttach {
                network: network.name.clone(),
                ip: options.ip,
                ip6: options.ip6,
                mac_address: options.mac_address,
                aliases: options.aliases,
                interface_name: options.interface_name,
                gw_priority: options.gw_priority,
                bandwidth: options.bandwidth,
            }],
            ..NetnsCreate::default()
        },
        publish: published(wish.publish.clone()),
        ends_with: None,
    }
}

fn options(config: &Config, attachment: &Attachment, wish: &Wish) -> ConnectOptions {
    let mut options = ConnectOptions {
        mac_address: wish.mac,
        aliases: wish.aliases.clone(),
        interface_name: Some(attachment.ifname.clone()),
        gw_priority: config.gw_priority,
        bandwidth: wish.bandwidth,
        ..ConnectOptions::default()
    };
    for address in &wish.addresses {
        match address {
            IpAddr::V4(address) => options.ip = Some(*address),
            IpAddr::V6(address) => options.ip6 = Some(*address),
        }
    }
    options
}

fn published(ports: Vec<PublishSpec>) -> PortsPublish {
    PortsPublish {
        ports,
        ..PortsPublish::default()
    }
}

/// The name that a runtime gave the container, if peers can ask for it; else its id.
fn hostname(attachment: &Attachment) -> Option<String> {
    let legal = |name: &&String| {
        let label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let first = name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        first && name.len() < 64 && name.bytes().all(label)
    };
    let named = attachment.args.get("K8S_POD_NAME").filter(legal);
    named.or(Some(&attachment.container).filter(legal)).cloned()
}

/// A further network of a container that is on one already.
async fn join(
    client: &Client,
    place: Place<'_>,
    known: &SandboxInfo,
    wish: Wish,
) -> Result<(), Refusal> {
    let Place {
        config,
        attachment,
        network,
        ..
    } = place;
    if let Some(endpoint) = endpoint(known, &network.name) {
        return Err(Refusal::new(
            Code::Refused,
            format!(
                "container '{}' is on network '{}' already, by interface {}",
                attachment.container, network.name, endpoint.ifname
            ),
        ));
    }
    let request = NetworkConnect {
        sandbox: known.name.clone(),
        attach: options(config, attachment, &wish),
    };
    client.connect_network(&network.name, &request).await?;
    let missing = missing(&known.ports, &wish.publish);
    if missing.is_empty() {
        return Ok(());
    }
    let added = client.add_ports(&known.name, &published(missing)).await;
    if let Err(error) = added {
        let request = NetworkDisconnect {
            sandbox: known.name.clone(),
            force: true,
        };
        let _ = client.disconnect_network(&network.name, &request).await;
        return Err(error.into());
    }
    Ok(())
}

/// Ports that are wanted and not published: a runtime says them again for each network of a container.
pub(super) fn missing(there: &[PortInfo], wanted: &[PublishSpec]) -> Vec<PublishSpec> {
    let is = |port: &PortInfo, wish: &PublishSpec| {
        port.host_address == wish.host_addr()
            && HostPorts::Each(port.host_ports) == wish.host_ports()
            && port.container_ports == wish.container_ports()
            && port.protocol == wish.proto()
    };
    let absent = |wish: &&PublishSpec| !there.iter().any(|port| is(port, wish));
    wanted.iter().filter(absent).copied().collect()
}

fn attached(
    config: &Config,
    sandbox: &SandboxInfo,
    endpoint: &EndpointInfo,
    seen: &Seen,
    network: &NetworkInfo,
    attachment: &Attachment,
) -> Attached {
    let gateway = |ipv6: bool| {
        let mut gateways = endpoint.gateways.iter();
        gateways.find(|gateway| gateway.is_ipv6() == ipv6).copied()
    };
    let interface = |name: &str| Interface {
        name: name.to_owned(),
        mac: None,
        mtu: None,
        sandbox: None,
    };
    let bridge = network.bridge.as_deref().map(interface);
    let containers = Interface {
        mac: Some(endpoint.mac_address.to_string()),
        mtu: network.mtu,
        sandbox: attachment.netns.clone(),
        ..interface(&endpoint.ifname)
    };
    let routers = [interface(&endpoint.router_ifname), containers];
    let addresses = endpoint.addresses.iter().map(|net| Address {
        address: *net,
        gateway: gateway(net.addr().is_ipv6()),
    });
    Attached {
        interfaces: bridge.into_iter().chain(routers).collect(),
        addresses: addresses.collect(),
        default_routes: seen.default_routes.clone(),
        dns: resolvers(config.resolvers(), sandbox),
    }
}

/// What the configuration leaves open is as in the resolv.conf that the daemon writes for the sandbox.
fn resolvers(mut dns: Dns, sandbox: &SandboxInfo) -> Dns {
    let text = std::fs::read_to_string(&sandbox.resolv_conf_path).unwrap_or_default();
    let of = |word: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(word));
        let words = lines.flat_map(str::split_ascii_whitespace);
        words.map(str::to_owned).collect()
    };
    for (list, word) in [
        (&mut dns.nameservers, "nameserver "),
        (&mut dns.search, "search "),
        (&mut dns.options, "options "),
    ] {
        if list.is_empty() {
            *list = of(word);
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_published_once() {
        let port: PortInfo = serde_json::from_value(serde_json::json!({
            "HostAddress": "*", "HostPorts": "8080", "ContainerPorts": "80",
            "Protocol": "tcp", "SourceAddress": "keep",
        }))
        .unwrap();
        let wanted: Vec<PublishSpec> = ["8080:80", "8080:80/udp", "127.0.0.1:8080:80", "8081:80"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        assert_eq!(missing(&[port], &wanted), wanted[1..]);
    }

    #[test]
    fn a_container_is_called_as_its_runtime_calls_it() {
        let with = |container: &str, name: Option<&str>| {
            let pair = name.map(|name| ("K8S_POD_NAME".to_owned(), name.to_owned()));
            hostname(&Attachment {
                container: container.to_owned(),
                ifname: "eth0".to_owned(),
                netns: None,
                args: pair.into_iter().collect(),
            })
        };
        assert_eq!(with("abc", Some("web")).as_deref(), Some("web"));
        assert_eq!(with("abc", Some("a b")).as_deref(), Some("abc"));
        assert_eq!(with(&"a".repeat(64), None), None);
    }
}
