//! The mossnet network of a configuration: made by the first `ADD`, and held against the configuration later.

use super::config::{Config, Range};
use super::refusal::Refusal;
use crate::api::client::Client;
use crate::api::network_types::{NetworkCreate, NetworkInfo};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::IpAddr;

/// HTTP status of what exists already.
const CONFLICT: u16 = 409;

/// Says who made a network.
const LABEL: &str = "org.mossnet.cni";

/// The network, made where it is missing, and whether it was.
pub(super) async fn ensure(
    client: &Client,
    config: &Config,
) -> Result<(NetworkInfo, bool), Refusal> {
    if let Some(network) = find(client, config).await? {
        return Ok((network, false));
    }
    match client.create_network(&request(config)?).await {
        Ok(_) => {}
        // By another ADD meanwhile.
        Err(crate::api::client::ClientError::Refused { status, .. }) if status == CONFLICT => {
            if let Some(network) = find(client, config).await? {
                return Ok((network, false));
            }
            // It is a subnet that is in use, then.
            client.create_network(&request(config)?).await?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok((client.network(config.name()?).await?, true))
}

/// Takes back one that was made for a container that could not be joined to it. Where another container has
/// joined it meanwhile, it stays.
pub(super) async fn unmake(client: &Client, network: &NetworkInfo) {
    let _ = client.remove_network(network.id.as_str(), false).await;
}

/// Refuses a configuration for which the network that there is, or one that would be made, is not right.
pub(super) async fn check(client: &Client, config: &Config) -> Result<(), Refusal> {
    match find(client, config).await? {
        Some(_) => Ok(()),
        None => request(config).map(drop),
    }
}

async fn find(client: &Client, config: &Config) -> Result<Option<NetworkInfo>, Refusal> {
    let name = config.name()?;
    match client.network(name).await {
        Ok(network) if network.name == name => {
            config
                .ranges()
                .try_for_each(|range| fits(&network, range))?;
            Ok(Some(network))
        }
        // The beginning of an id.
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn request(config: &Config) -> Result<NetworkCreate, Refusal> {
    let ranges: Vec<&Range> = config.ranges().collect();
    let blocks = ranges.iter().filter_map(|range| block(range).transpose());
    let mtu = config.mtu.map(|mtu| ("mtu".to_owned(), mtu.to_string()));
    Ok(NetworkCreate {
        name: config.name()?.to_owned(),
        subnets: ranges.iter().map(|range| range.subnet.trunc()).collect(),
        gateways: ranges.iter().filter_map(|range| range.gateway).collect(),
        ip_ranges: blocks.collect::<Result<_, _>>()?,
        ipv6: config.ipv6,
        internal: config.internal,
        options: mtu.into_iter().collect(),
        labels: [(LABEL.to_owned(), "true".to_owned())].into(),
        ..NetworkCreate::default()
    })
}

/// A network that is there gives addresses out of this range, and by this gateway.
fn fits(network: &NetworkInfo, range: &Range) -> Result<(), Refusal> {
    let subnet = range.subnet.trunc();
    let wrong = |what: &str| {
        Refusal::config(format!(
            "network '{}' is there already, and {what}",
            network.name
        ))
    };
    let has = network.ipam.config.iter().find(|has| has.subnet == subnet);
    let has = has.ok_or_else(|| wrong(&format!("has no subnet {subnet}")))?;
    if range.gateway.is_some_and(|gateway| gateway != has.gateway) {
        return Err(wrong(&format!("its gateway is {}", has.gateway)));
    }
    match block(range)? {
        Some(block) if has.ip_range != Some(block) => Err(wrong(&format!(
            "does not give addresses out of {block} only"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// `rangeStart` to `rangeEnd` as one prefix: that is how networks have it.
fn block(range: &Range) -> Result<Option<IpNet>, Refusal> {
    let subnet = range.subnet.trunc();
    if range.range_start.is_none() && range.range_end.is_none() {
        return Ok(None);
    }
    let start = range.range_start.unwrap_or(subnet.network());
    let end = range.range_end.unwrap_or(subnet.broadcast());
    let wrong = || {
        Refusal::config(format!(
            "addresses {start} to {end} of {subnet} are not one prefix, such as x.y.z.64 to x.y.z.127"
        ))
    };
    let block = prefix(start, end).ok_or_else(wrong)?;
    match subnet.contains(&block) {
        true => Ok(Some(block).filter(|block| *block != subnet)),
        false => Err(wrong()),
    }
}

/// The prefix with these first and last addresses.
fn prefix(start: IpAddr, end: IpAddr) -> Option<IpNet> {
    let net: IpNet = match (start, end) {
        (IpAddr::V4(start), IpAddr::V4(end)) => {
            let length = (start.to_bits() ^ end.to_bits()).leading_zeros();
            Ipv4Net::new(start, u8::try_from(length).ok()?).ok()?.into()
        }
        (IpAddr::V6(start), IpAddr::V6(end)) => {
            let length = (start.to_bits() ^ end.to_bits()).leading_zeros();
            Ipv6Net::new(start, u8::try_from(length).ok()?).ok()?.into()
        }
        _ => return None,
    };
    (net.network() == start && net.broadcast() == end).then_some(net)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn range(fields: serde_json::Value) -> Range {
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn ranges_are_prefixes() {
        let of = |start: &str, end: &str| {
            block(&range(json!({
                "subnet": "10.1.0.0/24", "rangeStart": start, "rangeEnd": end,
            })))
        };
        let block64 = Some("10.1.0.64/26".parse().unwrap());
        assert_eq!(of("10.1.0.64", "10.1.0.127"), Ok(block64));
        assert_eq!(of("10.1.0.0", "10.1.0.255"), Ok(None));
        for (start, end) in [
            ("10.1.0.10", "10.1.0.20"),
            ("10.2.0.0", "10.2.0.255"),
            ("10.1.0.0", "fd00::"),
            ("10.1.0.127", "10.1.0.64"),
        ] {
            assert!(of(start, end).is_err(), "{start} {end}");
        }
        let open = range(json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.128"}));
        assert_eq!(block(&open), Ok(Some("10.1.0.128/25".parse().unwrap())));
        let six = range(json!({
            "subnet": "fd00::/64", "rangeStart": "fd00::1:0", "rangeEnd": "fd00::1:ffff",
        }));
        assert_eq!(block(&six), Ok(Some("fd00::1:0/112".parse().unwrap())));
    }
}
