//! `CHECK`: records, kernel and `prevResult` say the same of an attachment.

use super::add::missing;
use super::config::Config;
use super::environment::Attachment;
use super::netns::{self, Held, Seen};
use super::refusal::{Code, Refusal};
use super::result::Previous;
use super::{endpoint, sandbox};
use crate::api::client::Client;
use crate::api::types::EndpointInfo;
use ipnet::IpNet;
use mossnet_helper::IfName;
use mossnet_helper::bandwidth::{Bandwidth, Rate};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;

/// Refuses what is not as `ADD` left it.
pub(super) async fn check(
    client: &Client,
    config: &Config,
    attachment: &Attachment,
) -> Result<(), Refusal> {
    let previous = config.prev_result.as_ref();
    let previous = previous.ok_or_else(|| Refusal::config("CHECK needs a prevResult"))?;
    let previous = Previous::parse(previous)?;
    let wish = config.wish(&attachment.args)?;
    let network = config.name()?;
    let netns = netns::open(attachment.netns.as_deref().unwrap_or_default())?;
    let (container, ifname) = (&attachment.container, &attachment.ifname);
    let sandbox = sandbox(client, &attachment.sandbox()).await?;
    let sandbox = sandbox.ok_or_else(|| {
        let message = format!("container '{container}' is on no network of mossnet");
        Refusal::new(Code::UnknownContainer, message)
    })?;
    let endpoint = endpoint(&sandbox, network).filter(|e| e.ifname == *ifname);
    let endpoint = endpoint.ok_or_else(|| {
        drift(format!(
            "container '{container}' is not on network '{network}' by interface {ifname}"
        ))
    })?;
    agree(endpoint, &previous, ifname)?;
    let seen = netns::look(netns.as_fd(), ifname, &endpoint.gateways);
    let seen = seen.map_err(|failure| Refusal::new(Code::Refused, failure.to_string()))?;
    let seen = seen.ok_or_else(|| drift(format!("interface {ifname} is gone")))?;
    is_there(endpoint, &previous, &seen)?;
    limited(client, endpoint, wish.bandwidth).await?;
    match missing(&sandbox.ports, &wish.publish).first() {
        Some(port) => Err(drift(format!("port {port} is not published"))),
        None => Ok(()),
    }
}

/// The record and what `ADD` answered.
fn agree(endpoint: &EndpointInfo, previous: &Previous, ifname: &str) -> Result<(), Refusal> {
    let (index, interface) = previous.interface(ifname).ok_or_else(|| {
        Refusal::config(format!(
            "prevResult has no interface {ifname} of the container"
        ))
    })?;
    let mac = endpoint.mac_address.to_string();
    if let Some(said) = &interface.mac
        && !said.eq_ignore_ascii_case(&mac)
    {
        return Err(drift(format!("{ifname} has MAC {mac}, not {said}")));
    }
    let said: BTreeSet<IpNet> = previous.addresses_of(index).collect();
    let has: BTreeSet<IpNet> = endpoint.addresses.iter().copied().collect();
    match said.symmetric_difference(&has).next() {
        Some(net) if has.contains(net) => {
            Err(drift(format!("{ifname} has {net}, which prevResult lacks")))
        }
        Some(net) => Err(drift(format!("{ifname} has no address {net}"))),
        None => Ok(()),
    }
}

/// The record and the kernel.
fn is_there(endpoint: &EndpointInfo, previous: &Previous, seen: &Seen) -> Result<(), Refusal> {
    let ifname = &endpoint.ifname;
    if !seen.running {
        return Err(drift(format!("{ifname} is down, or joined to nothing")));
    }
    for net in &endpoint.addresses {
        if !seen.addresses.contains(net) {
            return Err(drift(format!("{ifname} has lost its address {net}")));
        }
    }
    for gateway in &endpoint.gateways {
        let should = previous.has_default_route(*gateway);
        if should && !seen.default_routes.contains(gateway) {
            return Err(drift(format!("the default route by {gateway} is gone")));
        }
    }
    Ok(())
}

/// Record and kernel, as the runtime wants it now.
async fn limited(
    client: &Client,
    endpoint: &EndpointInfo,
    wanted: Bandwidth,
) -> Result<(), Refusal> {
    let ifname = &endpoint.ifname;
    let recorded = [endpoint.rate_in, endpoint.rate_out];
    if wanted.is_unlimited() && recorded == [None, None] {
        return Ok(());
    }
    let held = held(client, endpoint).await?;
    for (direction, wanted, recorded, held) in [
        ("ingress", wanted.inward, endpoint.rate_in, held.inward),
        ("egress", wanted.outward, endpoint.rate_out, held.outward),
    ] {
        let shown = |rate: Option<Rate>| rate.map_or("no".to_owned(), |rate| rate.to_string());
        let (wanted, recorded) = (wanted.map(|l| l.rate), recorded.map(|l| l.bits_per_second));
        if wanted != recorded {
            return Err(drift(format!(
                "{ifname} was added with {} {direction} limit, not {}",
                shown(recorded),
                shown(wanted)
            )));
        }
        if wanted.map(Rate::bytes) != held {
            let limit = shown(wanted);
            return Err(drift(format!(
                "{ifname} is not held to its {direction} limit of {limit}"
            )));
        }
    }
    Ok(())
}

async fn held(client: &Client, endpoint: &EndpointInfo) -> Result<Held, Refusal> {
    let io = |what: String| Refusal::new(Code::Io, what);
    let path = client.router().await?.router_netns;
    let path = path.ok_or_else(|| io("the router's namespace is gone".to_owned()))?;
    let router = File::open(&path).map_err(|e| io(format!("open {}: {e}", path.display())))?;
    let name = endpoint.router_ifname.parse::<IfName>();
    let name = name.map_err(|error| io(error.to_string()))?;
    let held = netns::held(router.as_fd(), &name);
    held.map_err(|failure| Refusal::new(Code::Refused, failure.to_string()))
}

fn drift(message: String) -> Refusal {
    Refusal::new(Code::Drift, message)
}
