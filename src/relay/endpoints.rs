//! Where endpoints are: the port in the router netns and the MAC address that an address is to be had at.
//! The helper says so ([`super::control`]), always everything at once; workers ask.
//!
//! Invariant: what is known may be late, never mixed of two lists. An address that is not known is no
//! error: its flows go the usual way.

use mossnet_helper::framed::EndpointPlace;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};

/// Where an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Interface index of its port in the router netns.
    pub port: u32,
    /// MAC address of the container's side.
    pub mac: [u8; 6],
}

/// All that are known.
#[derive(Debug, Default)]
pub struct Endpoints(RwLock<HashMap<IpAddr, Place>>);

impl Endpoints {
    /// The endpoint that has this address.
    pub fn find(&self, address: IpAddr) -> Option<Place> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&address).copied()
    }

    /// Takes up a new list. Of two endpoints with one address the younger has it, which has the larger
    /// index: the helper may not have noticed yet that the other one went with its sandbox.
    pub fn replace(&self, mut list: Vec<EndpointPlace>) {
        list.sort_unstable_by_key(|endpoint| endpoint.port);
        let places = list.into_iter().flat_map(|endpoint| {
            let place = Place {
                port: endpoint.port,
                mac: endpoint.mac.octets(),
            };
            let addresses = endpoint.addresses.into_iter();
            addresses.map(move |address| (address, place))
        });
        let new: HashMap<IpAddr, Place> = places.collect();
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *known, new);
        // Freed when nobody waits for it.
        drop(known);
        drop(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u32, addresses: &[&str]) -> EndpointPlace {
        EndpointPlace {
            port,
            mac: [2, 0, 0, 0, 0, port as u8].try_into().unwrap(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn port(endpoints: &Endpoints, address: &str) -> Option<u32> {
        let place = endpoints.find(address.parse().unwrap())?;
        assert_eq!(place.mac, [2, 0, 0, 0, 0, place.port as u8]);
        Some(place.port)
    }

    #[test]
    fn a_list_replaces_the_one_before() {
        let endpoints = Endpoints::default();
        assert_eq!(port(&endpoints, "10.0.0.7"), None);
        endpoints.replace(vec![
            endpoint(7, &["10.0.0.7", "fd00::7"]),
            endpoint(8, &["10.0.0.8"]),
        ]);
        assert_eq!(port(&endpoints, "fd00::7"), Some(7));
        assert_eq!(port(&endpoints, "10.0.0.8"), Some(8));
        endpoints.replace(vec![endpoint(8, &["10.0.0.9"])]);
        for gone in ["10.0.0.7", "fd00::7", "10.0.0.8"] {
            assert_eq!(port(&endpoints, gone), None, "{gone}");
        }
        assert_eq!(port(&endpoints, "10.0.0.9"), Some(8));
    }

    #[test]
    fn the_younger_has_an_address_that_two_have() {
        let endpoints = Endpoints::default();
        endpoints.replace(vec![
            endpoint(9, &["10.0.0.7"]),
            endpoint(7, &["10.0.0.7", "fd00::7"]),
        ]);
        assert_eq!(port(&endpoints, "10.0.0.7"), Some(9));
        assert_eq!(port(&endpoints, "fd00::7"), Some(7));
    }
}
