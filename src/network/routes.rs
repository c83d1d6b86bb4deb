//! Which of a sandbox's endpoints leads outside, and whom it asks for names. Pure.
//!
//! Invariants: an internal network never gives a default route; the choice depends on the endpoints
//! alone, so that it is the same at creation, after a connect and after a crash.

use super::model::Endpoint;
use mossnet_helper::request::DefaultRoute;
use std::net::IpAddr;

/// Endpoints with the preferred one first: by priority, then by age.
fn by_preference(endpoints: &[Endpoint]) -> Vec<&Endpoint> {
    let mut sorted: Vec<_> = endpoints.iter().collect();
    // A stable sort keeps the order of attachment.
    sorted.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.gw_priority));
    sorted
}

/// The default routes: for each address family that of the preferred endpoint that has a way out.
pub fn default_routes(endpoints: &[Endpoint]) -> Vec<DefaultRoute> {
    let sorted = by_preference(endpoints);
    let of_family = |v4: bool| {
        let outside = sorted.iter().filter(|endpoint| !endpoint.internal);
        let mut routes = outside.filter_map(|endpoint| {
            let mut gateways = endpoint.gateways.iter();
            let gateway = gateways.find(|gateway| gateway.is_ipv4() == v4)?;
            Some(DefaultRoute {
                gateway: *gateway,
                ifname: endpoint.ifname.clone(),
            })
        });
        routes.next()
    };
    of_family(true)
        .into_iter()
        .chain(of_family(false))
        .collect()
}

/// The gateways of the default routes that go through one endpoint.
pub fn default_gateways(endpoints: &[Endpoint], through: &Endpoint) -> Vec<IpAddr> {
    let routes = default_routes(endpoints).into_iter();
    let through = routes.filter(|route| route.ifname == through.ifname);
    through.map(|route| route.gateway).collect()
}

/// Whose gateway is asked for names: an endpoint on a network that serves names, if there is one,
/// and of these one whose network forwards, too.
pub fn name_server(endpoints: &[Endpoint]) -> Option<&Endpoint> {
    let mut sorted = by_preference(endpoints);
    sorted.retain(|endpoint| !endpoint.gateways.is_empty());
    sorted.sort_by_key(|endpoint| (!endpoint.named, endpoint.internal));
    sorted.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::model::samples;

    /// The default network, an internal one and one of both families.
    fn endpoints() -> Vec<Endpoint> {
        let bridge = samples::network("bridge", 1, "10.89.0.0/24");
        let mut inner = samples::network("inner", 2, "10.89.1.0/24");
        inner.internal = true;
        let mut both = samples::network("both", 3, "10.89.2.0/24");
        let v6 = samples::network("x", 4, "fd00:2::/64");
        both.subnets.extend(v6.subnets);
        vec![
            samples::endpoint(0x11, &inner, "10.89.1.2/24", 0),
            samples::endpoint(0x12, &bridge, "10.89.0.2/24", 1),
            samples::endpoint(0x13, &both, "10.89.2.2/24", 2),
        ]
    }

    fn shown(endpoints: &[Endpoint]) -> Vec<String> {
        let routes = default_routes(endpoints);
        let line = |route: &DefaultRoute| format!("{} {}", route.gateway, route.ifname);
        routes.iter().map(line).collect()
    }

    #[test]
    fn the_oldest_network_with_a_way_out_gives_the_route() {
        let endpoints = endpoints();
        assert_eq!(shown(&endpoints), ["10.89.0.1 eth1", "fd00:2::1 eth2"]);
        assert!(shown(&endpoints[..1]).is_empty(), "internal");
        assert!(shown(&[]).is_empty());
        let through = |n: usize| default_gateways(&endpoints, &endpoints[n]);
        assert!(through(0).is_empty());
        assert_eq!(through(1), ["10.89.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(through(2), ["fd00:2::1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn priority_comes_before_age_and_what_is_left_takes_over() {
        let mut endpoints = endpoints();
        endpoints[2].gw_priority = 1;
        assert_eq!(shown(&endpoints), ["10.89.2.1 eth2", "fd00:2::1 eth2"]);
        endpoints[0].gw_priority = 9;
        assert_eq!(shown(&endpoints), ["10.89.2.1 eth2", "fd00:2::1 eth2"]);
        endpoints.pop();
        assert_eq!(shown(&endpoints), ["10.89.0.1 eth1"]);
    }

    #[test]
    fn names_are_asked_of_a_network_that_has_them() {
        let mut endpoints = endpoints();
        let asked = |endpoints: &[Endpoint]| {
            name_server(endpoints).map(|endpoint| endpoint.network_name.to_string())
        };
        assert_eq!(asked(&endpoints).unwrap(), "both");
        endpoints.pop();
        // Internal, but named: the relay forwards for a sandbox that is also elsewhere.
        assert_eq!(asked(&endpoints).unwrap(), "inner");
        endpoints.remove(0);
        assert_eq!(asked(&endpoints).unwrap(), "bridge");
        endpoints.pop();
        assert_eq!(asked(&endpoints), None);
    }
}
