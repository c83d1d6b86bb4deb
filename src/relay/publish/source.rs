//! Whom a container takes its client for.
//!
//! Pure. Invariant: a remote peer is never shown as a loopback address (CVE-2021-20199), and
//! nobody as an address that a container of ours could have: the answer would go there.

use std::net::{IpAddr, SocketAddr};

/// The client itself, or the network's gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Its own address and port.
    Client,
    /// The gateway, for this reason.
    Gateway(Reason),
}

/// Why a client is shown as the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The user wants it so.
    Policy,
    /// The network is internal: the container has no route to anybody else.
    Internal,
    /// The container has no address of the client's family.
    Family,
    /// The client is on the host: by its loopback, or by the address that was asked. So does a
    /// container appear that asks for a port by the host's address (hairpin).
    Host,
    /// An address that means something on its own link only.
    Link,
    /// The address lies in a network of ours.
    OwnNetwork,
    /// The client's address and port are in use towards the same container port.
    Taken,
}

impl Reason {
    /// For logs.
    pub fn text(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Internal => "internal_network",
            Self::Family => "other_family",
            Self::Host => "host",
            Self::Link => "link_local",
            Self::OwnNetwork => "container_subnet",
            Self::Taken => "port_taken",
        }
    }

    /// A bit of its own.
    pub fn bit(self) -> u8 {
        1 << (self as u8)
    }

    /// Worth telling the user about: it is neither chosen nor the usual way.
    pub fn is_surprising(self) -> bool {
        match self {
            Self::Policy | Self::Internal | Self::Host => false,
            Self::Family | Self::Link | Self::OwnNetwork | Self::Taken => true,
        }
    }
}

/// What is known of where a client is led.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// The user wants clients shown as they are.
    pub keep: bool,
    /// The network is internal.
    pub internal: bool,
    /// The container's address is IPv6.
    pub v6: bool,
}

/// How `client`, which asked at `asked`, appears. `ours`: whether an address is in one of our networks.
pub fn shown(client: SocketAddr, asked: IpAddr, way: Way, ours: impl Fn(IpAddr) -> bool) -> Shown {
    let address = client.ip();
    let reason = if !way.keep {
        Reason::Policy
    } else if way.internal {
        Reason::Internal
    } else if address.is_ipv6() != way.v6 {
        Reason::Family
    } else if address.is_loopback() || address == asked {
        Reason::Host
    } else if is_of_link(address) {
        Reason::Link
    } else if ours(address) {
        Reason::OwnNetwork
    } else {
        return Shown::Client;
    };
    Shown::Gateway(reason)
}

/// Link-local, or no address of anybody's.
fn is_of_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_link_local() || v4.octets()[0] == 0 || v4.is_multicast() || v4.is_broadcast()
        }
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEEP: Way = Way {
        keep: true,
        internal: false,
        v6: false,
    };

    fn of(client: &str, asked: &str, way: Way) -> Shown {
        let client = SocketAddr::new(client.parse().unwrap(), 5000);
        let subnet: ipnet::IpNet = "10.89.0.0/16".parse().unwrap();
        shown(client, asked.parse().unwrap(), way, |address| {
            subnet.contains(&address)
        })
    }

    #[test]
    fn clients_appear_as_they_are_unless_that_cannot_be() {
        let asked = "203.0.113.2";
        let v6 = Way { v6: true, ..KEEP };
        for (client, way, expected) in [
            ("198.51.100.7", KEEP, Shown::Client),
            ("2001:db8::7", v6, Shown::Client),
            ("198.51.100.7", v6, Shown::Gateway(Reason::Family)),
            ("2001:db8::7", KEEP, Shown::Gateway(Reason::Family)),
            ("127.0.0.1", KEEP, Shown::Gateway(Reason::Host)),
            ("127.9.9.9", KEEP, Shown::Gateway(Reason::Host)),
            ("::1", v6, Shown::Gateway(Reason::Host)),
            ("203.0.113.2", KEEP, Shown::Gateway(Reason::Host)),
            ("169.254.1.1", KEEP, Shown::Gateway(Reason::Link)),
            ("0.1.2.3", KEEP, Shown::Gateway(Reason::Link)),
            ("fe80::7", v6, Shown::Gateway(Reason::Link)),
            ("10.89.4.4", KEEP, Shown::Gateway(Reason::OwnNetwork)),
        ] {
            assert_eq!(of(client, asked, way), expected, "{client}");
        }
        let gateway = Way {
            keep: false,
            ..KEEP
        };
        let internal = Way {
            internal: true,
            ..KEEP
        };
        let client = "198.51.100.7";
        assert_eq!(of(client, asked, gateway), Shown::Gateway(Reason::Policy));
        assert_eq!(
            of(client, asked, internal),
            Shown::Gateway(Reason::Internal)
        );
    }

    #[test]
    fn every_reason_has_a_bit() {
        let all = [
            Reason::Policy,
            Reason::Internal,
            Reason::Family,
            Reason::Host,
            Reason::Link,
            Reason::OwnNetwork,
            Reason::Taken,
        ];
        let bits = all.iter().fold(0u8, |bits, reason| bits | reason.bit());
        assert_eq!(bits.count_ones() as usize, all.len());
    }

    proptest! {
        #[test]
        fn nobody_is_shown_as_loopback(client in any::<SocketAddr>(), v6 in any::<bool>(), loopback in any::<[u8; 3]>()) {
            let [b, c, d] = loopback;
            let asked = "203.0.113.2".parse().unwrap();
            let way = Way { v6, ..KEEP };
            for client in [client, SocketAddr::from(([127, b, c, d], 5000))] {
                if shown(client, asked, way, |_| false) == Shown::Client {
                    prop_assert!(!client.ip().is_loopback() && client.ip().is_ipv6() == v6);
                }
            }
        }
    }
}
