//! A request to make a network, checked: everything that can be judged without looking at what else
//! there is. Pure.

use super::host_loopback::check_network;
use super::refusal::malformed;
use super::uplink::kind_of;
use crate::api::control::{Answer, Refusal};
use crate::api::network_types::NetworkCreate;
use crate::ipam::{Layout, LayoutError};
use crate::network::model::RESERVED_NETWORKS;
use crate::network::options::{self, NetworkOptions, OptionError};
use crate::network::{NetworkName, NetworkSubnet};
use mossnet_helper::request::UplinkKind;
use std::net::IpAddr;

/// Bytes. RFC 8200 §5.
const MIN_IPV6_MTU: u32 = 1280;

/// A checked request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetworkDraft {
    pub(super) request: NetworkCreate,
    pub(super) name: NetworkName,
    /// Those that were given; a family that is wanted and missing gets one of our choice.
    pub(super) subnets: Vec<NetworkSubnet>,
    pub(super) ipv6: bool,
    pub(super) options: NetworkOptions,
    pub(super) uplink: UplinkKind,
}

/// Checks a request.
pub(super) fn check(request: NetworkCreate) -> Answer<NetworkDraft> {
    let name: NetworkName = request.name.parse()?;
    if RESERVED_NETWORKS.contains(&name.as_str()) {
        let message = format!("network name '{name}' is predefined");
        return Err(malformed(message).with_hint("choose another name"));
    }
    if let Some(driver) = request
        .driver
        .as_deref()
        .filter(|driver| *driver != "bridge")
    {
        let shown = driver.escape_debug();
        let message = format!("network driver '{shown}' is not known");
        return Err(malformed(message).with_hint("leave --driver out: bridge is the only one"));
    }
    let layout = Layout {
        subnets: &request.subnets,
        gateways: &request.gateways,
        ip_ranges: &request.ip_ranges,
        aux_addresses: &request.aux_addresses,
    };
    let subnets = layout.arrange()?;
    let ipv6 = request.ipv6 || subnets.iter().any(|on| !on.is_ipv4());
    let options = options::parse(&request.options)?;
    if ipv6 && options.mtu < MIN_IPV6_MTU {
        let message = format!("network option mtu={} is too small for IPv6", options.mtu);
        return Err(malformed(message).with_hint("choose 1280 or more, or leave IPv6 out"));
    }
    if request.labels.keys().any(String::is_empty) {
        return Err(malformed("a label has no name").with_hint("give --label NAME=VALUE"));
    }
    if let Some(address) = request.dns.iter().find(|address| !is_resolver(address)) {
        let message = format!("{address} cannot be a resolver");
        return Err(malformed(message).with_hint("give --dns the address of a name server"));
    }
    let uplink = check_uplink(&request)?;
    if options.host_loopback.is_some() {
        check_network(request.internal, uplink)?;
    }
    Ok(NetworkDraft {
        uplink,
        name,
        subnets,
        ipv6,
        options,
        request,
    })
}

fn is_resolver(address: &IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}

fn check_uplink(request: &NetworkCreate) -> Answer<UplinkKind> {
    let kind = request.uplink.map_or(UplinkKind::Relay, kind_of);
    match kind {
        UplinkKind::Pasta | UplinkKind::Slirp | UplinkKind::Kernel if request.internal => {
            Err(malformed("an internal network has no uplink")
                .with_hint("leave --uplink or --internal out"))
        }
        UplinkKind::Pasta
        | UplinkKind::Slirp
        | UplinkKind::Kernel
        | UplinkKind::Relay
        | UplinkKind::None => Ok(kind),
    }
}

impl From<LayoutError> for Refusal {
    fn from(error: LayoutError) -> Self {
        malformed(error.to_string()).with_hint(error.hint())
    }
}

impl From<OptionError> for Refusal {
    fn from(error: OptionError) -> Self {
        malformed(error.to_string()).with_hint(error.hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::Uplink;

    fn request() -> NetworkCreate {
        NetworkCreate {
            name: "mynet".to_owned(),
            ..NetworkCreate::default()
        }
    }

    #[test]
    fn an_ipv6_subnet_asks_for_ipv6() {
        let mut request = request();
        assert!(!check(request.clone()).unwrap().ipv6);
        request.subnets = vec!["fd00:7::/64".parse().unwrap()];
        assert!(check(request).unwrap().ipv6);
    }

    #[test]
    fn networks_that_cannot_reach_the_host_open_nothing() {
        let message = |internal, uplink, option: &str| {
            let mut request = request();
            (request.internal, request.uplink) = (internal, uplink);
            request.options.insert(option.to_owned(), "1".to_owned());
            check(request).map_err(|refusal| refusal.body.message)
        };
        assert!(message(false, None, "host_ports").is_ok());
        let internal = message(true, None, "host_ports").unwrap_err();
        assert!(internal.starts_with("an internal network"), "{internal}");
        let none = message(false, Some(Uplink::None), "host_loopback").unwrap_err();
        assert!(none.contains("uplink none"), "{none}");
    }

    #[test]
    fn wrong_requests_are_refused_with_one_line_and_what_to_do() {
        type Spoil = fn(&mut NetworkCreate);
        let cases: [(Spoil, &str); 13] = [
            (|r| r.name = "a b".into(), "network name 'a b' is malformed"),
            (|r| r.name = "host".into(), "'host' is predefined"),
            (|r| r.name = "bridge".into(), "'bridge' is predefined"),
            (
                |r| r.driver = Some("macvlan".into()),
                "driver 'macvlan' is not known",
            ),
            (
                |r| r.subnets = vec!["10.9.0.1/24".parse().unwrap()],
                "host bits",
            ),
            (|r| r.gateways = vec![[10, 9, 0, 1].into()], "lies outside"),
            (
                |r| drop(r.options.insert("x".into(), "y".into())),
                "'x' is not known",
            ),
            (
                |r| {
                    r.ipv6 = true;
                    r.options.insert("mtu".into(), "1000".into());
                },
                "mtu=1000 is too small for IPv6",
            ),
            (
                |r| drop(r.labels.insert(String::new(), "x".into())),
                "has no name",
            ),
            (
                |r| r.dns = vec![[0, 0, 0, 0].into()],
                "cannot be a resolver",
            ),
            (
                |r| r.dns = vec![[224, 0, 0, 1].into()],
                "cannot be a resolver",
            ),
            (
                |r| (r.internal, r.uplink) = (true, Some(Uplink::Pasta)),
                "internal network has no uplink",
            ),
            (
                |r| r.aux_addresses = vec![("a".into(), [1, 1, 1, 1].into())],
                "'a' 1.1.1.1",
            ),
        ];
        for (spoil, part) in cases {
            let mut request = request();
            spoil(&mut request);
            let refusal = check(request).unwrap_err();
            assert_eq!(refusal.status, 400);
            let message = refusal.body.message;
            assert!(
                message.contains(part) && !message.contains('\n'),
                "{message}"
            );
        }
    }
}
