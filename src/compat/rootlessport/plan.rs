//! Where clients are led, and as whom they come: from what the container and the bridges have.
//!
//! Pure. Invariants: a container is led to by an address of the interface by which it answers, where it has
//! one, else every client is shown as somebody on the container's own link; who has an address of any of the
//! container's networks is shown so, too.

use crate::network::snapshot::{NetworkView, PublishView, Snapshot};
use crate::ports::{Publish, SourceAddress};
use ipnet::IpNet;
use mossnet_helper::IfName;
use mossnet_helper::netlink::Way;
use mossnet_helper::ports::{Bridge, Container, Interface};
use std::net::IpAddr;

/// Where sockets towards the container are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the netns of its bridges.
    Bridges(Vec<Bridge>),
    /// In its own.
    Inside {
        /// Answers to clients' addresses come to the sockets there.
        led: bool,
    },
}

/// Where a container is led to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target<'a> {
    address: IpAddr,
    interface: Option<&'a Interface>,
    /// By where it answers strangers; none: not at all.
    exit: Option<Way>,
}

/// The addresses that a container is led to: one of each family at most.
pub fn targets(container: &Container, child: Option<IpAddr>) -> Vec<IpAddr> {
    let of = |v6| target(container, child, v6).map(|target| target.address);
    [of(false), of(true)].into_iter().flatten().collect()
}

/// Whether the container answers by bridges that are among these: each target has one, with an address by
/// which it is reached.
pub fn behind(bridges: &[Bridge], container: &Container, child: Option<IpAddr>) -> bool {
    let of = |v6| target(container, child, v6);
    let mut found = [of(false), of(true)].into_iter().flatten().peekable();
    found.peek().is_some()
        && found.all(|target| {
            bridge_of(bridges, target.interface).is_some_and(|bridge| {
                let mut own = bridge.addresses.iter();
                own.any(|own| own.contains(&target.address))
            })
        })
}

/// What the ports are told.
pub fn snapshot(
    name: &str,
    publishes: &[Publish],
    container: &Container,
    child: Option<IpAddr>,
    place: &Place,
) -> Snapshot {
    let found = [false, true].map(|v6| target(container, child, v6));
    let networks = match place {
        Place::Bridges(bridges) => by_bridge(bridges, container, &found),
        Place::Inside { .. } => found
            .iter()
            .filter_map(|target| inside(container, target.as_ref()?, place))
            .collect(),
    };
    let keeps = *place != Place::Inside { led: false };
    let view = |publish: &Publish| PublishView {
        sandbox: name.to_owned(),
        publish: match keeps {
            true => *publish,
            false => publish.seen_as(SourceAddress::Gateway),
        },
        targets: found
            .iter()
            .flatten()
            .map(|target| target.address)
            .collect(),
        inside: matches!(place, Place::Inside { .. }),
        // As podman's own, which knows one address: many services listen at IPv4 only.
        either_family: true,
    };
    Snapshot {
        networks,
        publishes: publishes.iter().map(view).collect(),
        ..Snapshot::default()
    }
}

/// The exit's interface counts, the address that podman says among its addresses; without an exit that
/// address, or another one of its interface.
fn target(container: &Container, child: Option<IpAddr>, v6: bool) -> Option<Target<'_>> {
    let holds = |interface: &&Interface| {
        let mut own = interface.addresses.iter().map(IpNet::addr);
        child.is_some_and(|child| own.any(|own| own == child))
    };
    let home = container.interfaces.iter().find(holds);
    let of_family = |interface: &Interface| {
        let addresses = interface.addresses.iter().map(IpNet::addr);
        let mut own = addresses.filter(|address| address.is_ipv6() == v6);
        let said = child.filter(|child| own.clone().any(|own| own == *child));
        said.or_else(|| own.next())
    };
    let exits = container.exits.iter().filter(|way| way.ipv6 == v6);
    let by_exit = exits.copied().find_map(|way| {
        let interfaces = &mut container.interfaces.iter();
        let interface = interfaces.find(|interface| interface.index == way.index)?;
        Some(Target {
            address: of_family(interface)?,
            interface: Some(interface),
            exit: Some(way),
        })
    });
    let closed = || {
        let address = match home {
            Some(home) => of_family(home),
            // Not there yet, or no more.
            None => child.filter(|child| child.is_ipv6() == v6),
        };
        Some(Target {
            address: address?,
            interface: home,
            exit: None,
        })
    };
    by_exit.or_else(closed)
}

fn bridge_of<'a>(bridges: &'a [Bridge], interface: Option<&Interface>) -> Option<&'a Bridge> {
    let interface = interface?;
    let port = (interface.peer?, interface.index);
    bridges.iter().find(|bridge| bridge.ports.contains(&port))
}

/// Every bridge, so that nobody is shown as an address that somebody on one of them has.
fn by_bridge(
    bridges: &[Bridge],
    container: &Container,
    found: &[Option<Target<'_>>; 2],
) -> Vec<NetworkView> {
    let mut views = Vec::new();
    for bridge in bridges {
        let guests = container.interfaces.iter().filter(|interface| {
            bridge_of(bridges, Some(interface)).is_some_and(|own| own.name == bridge.name)
        });
        let guests: Vec<IpNet> = guests.flat_map(|guest| guest.addresses.clone()).collect();
        for (v6, target) in [false, true].into_iter().zip(found) {
            let exit = target.as_ref().and_then(|target| target.exit);
            let of_family = |net: &&IpNet| net.addr().is_ipv6() == v6;
            let own = bridge.addresses.iter().filter(of_family);
            let nets = own.clone().chain(guests.iter().filter(of_family));
            views.push(NetworkView {
                name: bridge.name.to_string(),
                bridge: bridge.name.clone(),
                subnets: distinct(nets),
                gateways: own.map(IpNet::addr).collect(),
                internal: exit.is_none(),
                dns: Vec::new(),
                names: Vec::new(),
            });
        }
    }
    views
}

/// The container's links, as one network of a family.
fn inside(container: &Container, target: &Target<'_>, place: &Place) -> Option<NetworkView> {
    let v6 = target.address.is_ipv6();
    let all = container.interfaces.iter().flat_map(|own| &own.addresses);
    let nets = all.filter(|net| net.addr().is_ipv6() == v6);
    let mut subnets = distinct(nets);
    if !subnets.iter().any(|net| net.contains(&target.address)) {
        subnets.push(target.address.into());
    }
    // A neighbour's address only where its answers come back.
    let led = *place == Place::Inside { led: true };
    let gateway = target.exit.and_then(|exit| exit.gateway);
    let gateway = gateway.filter(|gateway| led && gateway.is_ipv6() == v6 && !is_of_link(*gateway));
    Some(NetworkView {
        name: "container".to_owned(),
        bridge: "lo".parse::<IfName>().ok()?,
        subnets,
        gateways: vec![gateway.unwrap_or(target.address)],
        internal: target.exit.is_none(),
        dns: Vec::new(),
        names: Vec::new(),
    })
}

/// Such an address cannot be bound without its link.
fn is_of_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn distinct<'a>(nets: impl Iterator<Item = &'a IpNet>) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = nets.map(IpNet::trunc).collect();
    nets.sort_unstable();
    nets.dedup();
    nets
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn nets(words: &str) -> Vec<IpNet> {
        words.split(' ').map(|word| word.parse().unwrap()).collect()
    }

    fn interface(index: u32, addresses: &str) -> Interface {
        Interface {
            index,
            peer: Some(index + 10),
            addresses: nets(addresses),
        }
    }

    fn exit(gateway: &str, index: u32) -> Way {
        let gateway: IpAddr = gateway.parse().unwrap();
        Way {
            ipv6: gateway.is_ipv6(),
            metric: 100,
            gateway: Some(gateway),
            index,
        }
    }

    fn bridge(name: &str, addresses: &str, port: u32) -> Bridge {
        Bridge {
            name: name.parse().unwrap(),
            addresses: nets(addresses),
            ports: vec![(port + 10, port)],
        }
    }

    fn on_two_networks() -> (Container, Vec<Bridge>) {
        let container = Container {
            interfaces: vec![
                interface(2, "10.89.0.2/24 fd00:1::2/64"),
                interface(3, "10.89.1.2/24"),
            ],
            exits: vec![
                exit("10.89.1.1", 3),
                exit("10.89.0.1", 2),
                exit("fd00:1::1", 2),
            ],
        };
        let bridges = vec![
            bridge("podman1", "10.89.0.1/24 fd00:1::1/64", 2),
            bridge("podman2", "10.89.1.1/24", 3),
        ];
        (container, bridges)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn of(container: &Container, child: Option<&str>, place: &Place) -> Snapshot {
        snapshot("web", &[publish()], container, child.map(address), place)
    }

    fn publish() -> Publish {
        let spec: crate::ports::PublishSpec = "8080:80".parse().unwrap();
        spec.fixed(SourceAddress::Keep).unwrap()
    }

    fn network<'a>(snapshot: &'a Snapshot, holds: &str) -> &'a NetworkView {
        let holds = address(holds);
        let mut networks = snapshot.networks.iter();
        networks
            .find(|network| network.subnets.iter().any(|net| net.contains(&holds)))
            .unwrap()
    }

    #[test]
    fn the_exit_says_where_a_container_is_led_to() {
        let (container, bridges) = on_two_networks();
        // Podman says any of its addresses.
        for child in ["10.89.0.2", "10.89.1.2"] {
            let expected = [address("10.89.1.2"), address("fd00:1::2")];
            assert_eq!(targets(&container, Some(address(child))), expected);
        }
        assert!(behind(&bridges, &container, None));
        assert!(
            !behind(&bridges[..1], &container, None),
            "the exit's is missing"
        );
        assert!(!behind(
            &bridges,
            &Container::default(),
            Some(address("10.89.0.2"))
        ));
        let seen = of(&container, Some("10.89.0.2"), &Place::Bridges(bridges));
        assert_eq!(seen.publishes[0].targets.len(), 2);
        assert!(!seen.publishes[0].inside);
        let by = network(&seen, "10.89.1.2");
        assert_eq!((by.bridge.as_str(), by.internal), ("podman2", false));
        assert_eq!(by.gateways, [address("10.89.1.1")]);
        assert_eq!(network(&seen, "fd00:1::2").gateways, [address("fd00:1::1")]);
    }

    #[test]
    fn without_an_exit_clients_are_somebody_on_the_link() {
        let container = Container {
            interfaces: vec![interface(2, "10.89.0.2/24")],
            exits: Vec::new(),
        };
        let bridges = vec![bridge("podman1", "10.89.0.1/24", 2)];
        assert!(behind(&bridges, &container, Some(address("10.89.0.2"))));
        let seen = of(&container, Some("10.89.0.2"), &Place::Bridges(bridges));
        assert!(network(&seen, "10.89.0.2").internal);
        let inside = of(&container, Some("10.89.0.2"), &Place::Inside { led: true });
        let own = network(&inside, "10.89.0.2");
        assert!(own.internal && inside.publishes[0].inside);
        assert_eq!(own.gateways, [address("10.89.0.2")], "nobody else is there");
    }

    #[test]
    fn inside_the_gateway_is_shown_where_its_answers_come_back() {
        let container = Container {
            interfaces: vec![interface(2, "10.0.2.100/24 fd00::100/64")],
            exits: vec![exit("10.0.2.2", 2), exit("fe80::2", 2)],
        };
        let of = |led| of(&container, Some("10.0.2.100"), &Place::Inside { led });
        let led = of(true);
        assert_eq!(network(&led, "10.0.2.100").gateways, [address("10.0.2.2")]);
        // A link-local one cannot be.
        assert_eq!(network(&led, "fd00::100").gateways, [address("fd00::100")]);
        assert_eq!(led.publishes[0].publish.source(), SourceAddress::Keep);
        let own = of(false);
        assert_eq!(
            network(&own, "10.0.2.100").gateways,
            [address("10.0.2.100")]
        );
        assert_eq!(own.publishes[0].publish.source(), SourceAddress::Gateway);
    }

    #[test]
    fn nobody_is_led_to_an_address_that_is_not_there() {
        assert!(targets(&Container::default(), None).is_empty());
        let child = IpAddr::from(Ipv4Addr::new(10, 89, 0, 2));
        assert_eq!(targets(&Container::default(), Some(child)), [child]);
        let (container, _) = on_two_networks();
        let stranger = IpAddr::from(Ipv6Addr::LOCALHOST);
        assert!(!targets(&container, Some(stranger)).contains(&stranger));
    }
}
