//! Published ports of sandboxes: where they lead, and the keys of their sockets. Pure.
//!
//! Invariant: the relay shows a container its clients' own addresses only where the answers come back to
//! it: the container has its default route by the network that they come in by, and that network leaves by
//! the relay.

use super::model::Endpoint;
use super::routes::default_routes;
use super::sandbox::Sandbox;
use super::snapshot::PublishView;
use crate::ports::{HostAddr, Publish, SourceAddress};
use ipnet::IpNet;
use mossnet_helper::SandboxId;
use std::net::{IpAddr, SocketAddr};

/// What the relay is told of a sandbox's ports: nothing unless it lives and is on a network. `relayed`
/// says whether a network, by its identity, leaves by the relay.
pub fn publish_views(sandbox: &Sandbox, relayed: impl Fn(&SandboxId) -> bool) -> Vec<PublishView> {
    if !sandbox.is_live() || sandbox.publishes.is_empty() {
        return Vec::new();
    }
    let (through, routed) = through(sandbox);
    if through.is_empty() {
        return Vec::new();
    }
    let keeps = routed && through.iter().all(|(on, _)| relayed(&on.network));
    let targets: Vec<IpAddr> = through.into_iter().map(|(_, address)| address).collect();
    let view = |publish: &Publish| PublishView {
        sandbox: sandbox.name.to_string(),
        publish: match keeps {
            true => *publish,
            false => publish.seen_as(SourceAddress::Gateway),
        },
        targets: targets.clone(),
        inside: false,
        either_family: false,
    };
    let all = sandbox.publishes.iter();
    all.map(|published| view(&published.publish)).collect()
}

/// Where the host's kernel can lead the ports of a sandbox, by the keys of their sockets: one address of
/// each family that the socket takes. `by_kernel` says whether a network, by its identity, leaves by
/// the kernel. Ports of the loopback are left out, since all their clients are the host's own; so are
/// those of which the container is not to know the clients.
pub fn led_ports(
    sandbox: &Sandbox,
    by_kernel: impl Fn(&SandboxId) -> bool,
) -> Vec<(String, Vec<SocketAddr>)> {
    if !sandbox.is_live() || sandbox.publishes.is_empty() {
        return Vec::new();
    }
    let (through, routed) = through(sandbox);
    let through = through
        .into_iter()
        .filter(|(on, _)| routed && by_kernel(&on.network));
    let addresses: Vec<IpAddr> = through.map(|(_, address)| address).collect();
    let mut led = Vec::new();
    for publish in sandbox.publishes.iter().map(|published| &published.publish) {
        let takes = |address: &IpAddr| match publish.host_addr() {
            HostAddr::Any => true,
            HostAddr::Only(own) => own.is_ipv4() == address.is_ipv4() && !own.is_loopback(),
        };
        let addresses: Vec<_> = addresses.iter().copied().filter(takes).collect();
        if addresses.is_empty() || publish.source() != SourceAddress::Keep {
            continue;
        }
        for (key, port) in keys(publish).zip(publish.host_ports().iter()) {
            let to = publish.leads_to(port).into_iter().flat_map(|port| {
                let sockets = addresses.iter();
                sockets.map(move |address| SocketAddr::new(*address, port.get()))
            });
            led.push((key, to.collect()));
        }
    }
    led
}

/// For each family the address by which its default route leads; where there is no such route at
/// all, the first address of each family, and `false`. Each with the endpoint that has it.
fn through(sandbox: &Sandbox) -> (Vec<(&Endpoint, IpAddr)>, bool) {
    let of_family = |addresses: &[IpNet], v4: bool| {
        let mut addresses = addresses.iter().map(IpNet::addr);
        addresses.find(|address| address.is_ipv4() == v4)
    };
    let routed = default_routes(&sandbox.endpoints).into_iter();
    let routed = routed.filter_map(|route| {
        let mut endpoints = sandbox.endpoints.iter();
        let through = endpoints.find(|endpoint| endpoint.ifname == route.ifname)?;
        let address = of_family(&through.addresses, route.gateway.is_ipv4())?;
        Some((through, address))
    });
    let routed: Vec<_> = routed.collect();
    if !routed.is_empty() {
        return (routed, true);
    }
    let first = |v4: bool| {
        let mut all = sandbox.endpoints.iter();
        all.find_map(|endpoint| Some((endpoint, of_family(&endpoint.addresses, v4)?)))
    };
    (first(true).into_iter().chain(first(false)).collect(), false)
}

/// The keys of the sockets that a publish needs, in the order of its host ports.
pub fn keys(publish: &Publish) -> impl Iterator<Item = String> {
    let (addr, proto) = (publish.host_addr(), publish.proto());
    let ports = publish.host_ports().iter();
    ports.map(move |port| format!("{addr}:{port}/{proto}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::model::samples;
    use crate::ports::published;

    #[test]
    fn ports_lead_where_the_default_route_is() {
        let mut inner = samples::network("inner", 1, "10.89.1.0/24");
        inner.internal = true;
        let outer = samples::network("outer", 2, "10.89.2.0/24");
        let mut web = samples::sandbox("web", 3, &inner, "10.89.1.2/24");
        let views_of = |web: &Sandbox| publish_views(web, |_| true);
        assert!(views_of(&web).is_empty());
        web.publishes = vec![published("8080:80"), published("127.0.0.1:53:53/udp")];
        let [first, _] = &views_of(&web)[..] else {
            panic!("not two");
        };
        assert_eq!(first.targets, ["10.89.1.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(first.publish.source(), SourceAddress::Gateway);
        let way_out = samples::endpoint(0x77, &outer, "10.89.2.2/24", 1);
        web.endpoints.push(way_out);
        let views = views_of(&web);
        assert_eq!(views[0].targets, ["10.89.2.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(views[0].publish.source(), SourceAddress::Keep);
        // Its answers would not come back to the relay.
        let views = publish_views(&web, |network| *network != outer.id);
        assert_eq!(views[0].publish.source(), SourceAddress::Gateway);
        web.exit(9, 0);
        assert!(views_of(&web).is_empty());
        assert_eq!(web.publishes.len(), 2);
    }

    #[test]
    fn the_kernel_leads_ports_of_networks_that_leave_by_it() {
        let network = samples::network("fast", 1, "10.200.1.0/24");
        let mut web = samples::sandbox("web", 3, &network, "10.200.1.2/24");
        let specs = [
            "8080-8081:80-81",
            "127.0.0.1:1:80",
            "[::]:2:80",
            "0.0.0.0:53:53/udp",
        ];
        web.publishes = specs.map(published).into();
        let shown = |led: Vec<(String, Vec<SocketAddr>)>| {
            let shown = led.into_iter().map(|(key, to)| format!("{key} {to:?}"));
            shown.collect::<Vec<_>>()
        };
        let expected = [
            "*:8080/tcp [10.200.1.2:80]",
            "*:8081/tcp [10.200.1.2:81]",
            "0.0.0.0:53/udp [10.200.1.2:53]",
        ];
        assert_eq!(shown(led_ports(&web, |id| *id == network.id)), expected);
        assert!(led_ports(&web, |_| false).is_empty());
        web.publishes[0].publish = web.publishes[0].publish.seen_as(SourceAddress::Gateway);
        assert_eq!(shown(led_ports(&web, |_| true)), expected[2..]);
        web.exit(9, 0);
        assert!(led_ports(&web, |_| true).is_empty());
    }

    #[test]
    fn each_port_has_its_key() {
        let of = |spec: &str| keys(&published(spec).publish).collect::<Vec<_>>();
        assert_eq!(of("8080-8081:80-81"), ["*:8080/tcp", "*:8081/tcp"]);
        assert_eq!(of("[::1]:53:53/udp"), ["[::1]:53/udp"]);
    }
}
