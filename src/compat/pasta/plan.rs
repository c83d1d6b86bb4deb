//! From options and the host's network to what the namespace, the router and the relay are told. Pure.
//!
//! The namespace has the host's own addresses and gateway, so that it looks as the host does. Whom it
//! cannot reach by them is the host itself, and so other addresses stand for it.
//!
//! Sources: pasta(1).

use super::host::{Host, Way};
use super::options::{Options, Stand};
use crate::network::snapshot::{ExitView, NetworkView, ResolverView, Snapshot, StandIn};
use ipnet::IpNet;
use mossnet_helper::request::{NetworkRules, UplinkKind};
use mossnet_helper::router::Direct;
use mossnet_helper::{MacAddr, NameError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The router's end of the pair; the ruleset knows bridges by how their names begin.
const ROUTER_IFNAME: &str = "br-pasta";
/// The interface, the address and the gateway where the host has no way out.
const LOCAL_IFNAME: &str = "tap0";
const LOCAL_V4: (Ipv4Addr, u8) = (Ipv4Addr::new(169, 254, 2, 1), 16);
const LOCAL_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 2);
/// As pasta: what fits into a packet of 64 KiB, in words of 32 bits, after the Ethernet header.
const MTU: u32 = 65_520;
const ETHERNET_MTU: u32 = 1500;
/// Of an IPv6 address that is given without a prefix.
const V6_PREFIX: u8 = 64;

/// Why nothing can be set up so.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A family was asked for by address alone.
    #[error("{0} is of a family that is switched off")]
    Family(IpAddr),
    /// Two roles.
    #[error("{0} cannot be an address of the namespace and of somebody else")]
    Own(IpAddr),
    /// The host's interface.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A prefix.
    #[error(transparent)]
    Prefix(#[from] ipnet::PrefixLenError),
    /// No address at all.
    #[error(
        "the host has no IPv6 way out, and --ipv6-only allows no other: give --address and --gateway"
    )]
    Nothing,
}

/// What is to be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The pair, and what the namespace has.
    pub direct: Direct,
    /// The ruleset's entry.
    pub rules: NetworkRules,
    /// For the relay, without ports and resolvers.
    pub snapshot: Snapshot,
}

/// One family.
#[derive(Debug, Default)]
struct Family {
    addresses: Vec<IpNet>,
    gateway: Option<IpAddr>,
}

/// Plans. `mac` where none is given.
pub fn plan(options: &Options, host: &Host, mac: MacAddr) -> Result<Plan, PlanError> {
    let mut families = [Family::default(), Family::default()];
    for (family, ipv6) in families.iter_mut().zip([false, true]) {
        if options.families[usize::from(ipv6)] {
            *family = of_family(options, host, ipv6)?;
        }
    }
    check_families(options, &families)?;
    let interface = host
        .iter()
        .flatten()
        .map(|way| way.interface.as_str())
        .next();
    let local = families.iter().all(|family| family.addresses.is_empty());
    if local {
        families[0] = local_family(options)?;
    }
    let ifname = match (&options.ifname, interface) {
        (Some(name), _) => name.clone(),
        (None, Some(name)) => name.parse()?,
        (None, None) => LOCAL_IFNAME.parse()?,
    };
    let [v4, v6] = &families;
    let addresses: Vec<IpNet> = v4.addresses.iter().chain(&v6.addresses).copied().collect();
    let direct = Direct {
        router_ifname: ROUTER_IFNAME.parse()?,
        ifname,
        mac: options.mac.unwrap_or(mac),
        mtu: match options.mtu {
            None => MTU,
            Some(0) => ETHERNET_MTU,
            Some(mtu) => mtu,
        },
        addresses,
        gateways: families
            .iter()
            .filter_map(|family| family.gateway)
            .collect(),
        linked: linked(host, &families),
        own: options.dns_forward.clone(),
    };
    let snapshot = snapshot(options, host, &families, &direct)?;
    Ok(Plan {
        rules: rules(&direct),
        snapshot,
        direct,
    })
}

fn of_family(options: &Options, host: &Host, ipv6: bool) -> Result<Family, PlanError> {
    let way = host[usize::from(ipv6)].as_ref();
    let given = options
        .addresses
        .iter()
        .rev()
        .find(|(address, _)| address.is_ipv6() == ipv6);
    let mask = options.netmask.filter(|_| !ipv6);
    let addresses = match given {
        Some((address, prefix)) => {
            let length = prefix
                .or(mask)
                .unwrap_or_else(|| usual_prefix(*address, way));
            vec![IpNet::new(*address, length)?]
        }
        None => {
            let hosts = way.map(|way| way.addresses.as_slice()).unwrap_or_default();
            let masked = |net: &IpNet| IpNet::new(net.addr(), mask.unwrap_or(net.prefix_len()));
            hosts.iter().map(masked).collect::<Result<_, _>>()?
        }
    };
    let gateways = options.gateways.iter().rev();
    let given = gateways.copied().find(|gateway| gateway.is_ipv6() == ipv6);
    let gateway = given
        .or_else(|| way?.gateway)
        .filter(|_| !addresses.is_empty());
    Ok(Family { addresses, gateway })
}

/// That of the host's own address; else that of its class (RFC 4632 section 3.1).
fn usual_prefix(address: IpAddr, way: Option<&Way>) -> u8 {
    let mut hosts = way.iter().flat_map(|way| &way.addresses);
    if let Some(same) = hosts.find(|net| net.addr() == address) {
        return same.prefix_len();
    }
    match address {
        IpAddr::V6(_) => V6_PREFIX,
        IpAddr::V4(address) => match address.octets()[0] {
            0..128 => 8,
            128..192 => 16,
            192..224 => 24,
            224.. => 32,
        },
    }
}

/// Something to tell the namespace although the host leads nowhere: its own loopback can be reached.
fn local_family(options: &Options) -> Result<Family, PlanError> {
    if !options.families[0] {
        return Err(PlanError::Nothing);
    }
    let (address, length) = LOCAL_V4;
    Ok(Family {
        addresses: vec![IpNet::new(address.into(), length)?],
        gateway: Some(LOCAL_GATEWAY.into()),
    })
}

/// Families whose default route needs no neighbour.
fn linked(host: &Host, families: &[Family; 2]) -> Vec<IpNet> {
    let everything = [
        IpNet::from(IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        IpNet::from(IpAddr::from(Ipv6Addr::UNSPECIFIED)),
    ];
    let all = host.iter().zip(families).zip(everything);
    let of = all.filter(|((way, family), _)| {
        way.is_some() && family.gateway.is_none() && !family.addresses.is_empty()
    });
    of.filter_map(|(_, net)| IpNet::new(net.addr(), 0).ok())
        .collect()
}

fn check_families(options: &Options, families: &[Family; 2]) -> Result<(), PlanError> {
    let named = options.addresses.iter().map(|(address, _)| address);
    let named = named.chain(&options.gateways).chain(&options.dns_forward);
    for address in named {
        if !options.families[usize::from(address.is_ipv6())] {
            return Err(PlanError::Family(*address));
        }
    }
    let mut own = families.iter().flat_map(|family| &family.addresses);
    let mut others = options.gateways.iter().chain(&options.dns_forward);
    match own.find_map(|net| others.find(|other| **other == net.addr())) {
        Some(twice) => Err(PlanError::Own(*twice)),
        None => Ok(()),
    }
}

/// What the namespace may send from: its addresses alone.
fn subnets(direct: &Direct) -> Vec<IpNet> {
    let addresses = direct.addresses.iter();
    addresses.map(|net| net.addr().into()).collect()
}

fn rules(direct: &Direct) -> NetworkRules {
    NetworkRules {
        bridge: direct.router_ifname.clone(),
        subnets: subnets(direct),
        gateways: direct.own.clone(),
        internal: false,
        uplink: UplinkKind::Relay,
    }
}

fn snapshot(
    options: &Options,
    host: &Host,
    families: &[Family; 2],
    direct: &Direct,
) -> Result<Snapshot, PlanError> {
    let mut stand_ins = Vec::new();
    // Whom the namespace takes the host's own clients for: who stands for the host's loopback, first.
    let mut shown = Vec::new();
    for (at, family) in families.iter().enumerate() {
        let loopback = match options.host_loopback[at] {
            Stand::At(address) => Some(address),
            Stand::None => None,
            Stand::Unsaid => family.gateway.filter(|_| options.map_gw),
        };
        let leads_to = match at {
            0 => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        stand_ins.extend(loopback.map(|address| StandIn { address, leads_to }));
        shown.extend(loopback.or(family.gateway));
        let own = host[at].as_ref().and_then(|way| way.addresses.first());
        if let (Stand::At(address), Some(own)) = (options.host_address[at], own) {
            let leads_to = own.addr();
            stand_ins.push(StandIn { address, leads_to });
        }
    }
    let own = |stand_in: &&StandIn| {
        direct
            .addresses
            .iter()
            .any(|net| net.addr() == stand_in.address)
    };
    if let Some(twice) = stand_ins.iter().find(own) {
        return Err(PlanError::Own(twice.address));
    }
    shown.extend(&direct.own);
    Ok(Snapshot {
        networks: vec![NetworkView {
            name: "pasta".to_owned(),
            bridge: direct.router_ifname.clone(),
            subnets: subnets(direct),
            gateways: shown,
            internal: false,
            dns: options.dns_host.clone(),
            names: Vec::new(),
        }],
        resolver: ResolverView::default(),
        stand_ins,
        exits: exits(options),
        withheld: options.withheld,
        ..Snapshot::default()
    })
}

/// The last address of a family counts.
fn exits(options: &Options) -> Vec<ExitView> {
    let of_family = |ipv6: bool| {
        let mut addresses = options.outbound.iter().rev().copied();
        let address = addresses.find(|address| address.is_ipv6() == ipv6);
        let interface = options.outbound_interface[usize::from(ipv6)].clone();
        let exit = ExitView {
            ipv6,
            address,
            interface,
        };
        (exit.address.is_some() || exit.interface.is_some()).then_some(exit)
    };
    [false, true].into_iter().filter_map(of_family).collect()
}

/// The addresses to which published ports lead.
pub fn targets(direct: &Direct) -> Vec<IpAddr> {
    direct.addresses.iter().map(IpNet::addr).collect()
}

#[cfg(test)]
mod tests {
    use super::super::options::{Wanted, read};
    use super::*;

    fn options(line: &str) -> Options {
        let words = format!("--config-net {line}");
        let words = words
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(Into::into);
        match read(words.collect()) {
            Ok(Wanted::Run(options)) => *options,
            other => panic!("{other:?}"),
        }
    }

    fn host() -> Host {
        let way = |gateway: &str, addresses: &[&str]| Way {
            interface: "eth0".to_owned(),
            gateway: Some(gateway.parse().unwrap()),
            addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        };
        [
            Some(way("203.0.113.1", &["203.0.113.2/24", "203.0.113.9/24"])),
            Some(way("2001:db8:113::1", &["2001:db8:113::2/64"])),
        ]
    }

    fn planned(line: &str, host: &Host) -> Result<Plan, PlanError> {
        plan(&options(line), host, "02:00:00:00:00:01".parse().unwrap())
    }

    fn words<T: ToString>(all: &[T]) -> String {
        all.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
    }

    fn stands(plan: &Plan) -> String {
        let all = plan.snapshot.stand_ins.iter();
        words(
            &all.map(|s| format!("{}={}", s.address, s.leads_to))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn the_namespace_looks_as_the_host() {
        let plan = planned("", &host()).unwrap();
        let direct = &plan.direct;
        assert_eq!(direct.ifname.as_str(), "eth0");
        assert_eq!(direct.mtu, 65_520);
        assert_eq!(
            words(&direct.addresses),
            "203.0.113.2/24 203.0.113.9/24 2001:db8:113::2/64"
        );
        assert_eq!(words(&direct.gateways), "203.0.113.1 2001:db8:113::1");
        assert_eq!(stands(&plan), "203.0.113.1=127.0.0.1 2001:db8:113::1=::1");
        let sources = "203.0.113.2/32 203.0.113.9/32 2001:db8:113::2/128";
        assert_eq!(words(&plan.rules.subnets), sources);
        assert!(plan.rules.gateways.is_empty() && direct.linked.is_empty());
    }

    #[test]
    fn options_take_the_place_of_what_the_host_has() {
        let line = "-a 10.0.2.100 -n 24 -g 10.0.2.2 --dns-forward 10.0.2.3 -4 -I tap0 -m 0";
        let plan = planned(line, &host()).unwrap();
        assert_eq!(words(&plan.direct.addresses), "10.0.2.100/24");
        assert_eq!(words(&plan.direct.gateways), "10.0.2.2");
        assert_eq!(
            (plan.direct.ifname.as_str(), plan.direct.mtu),
            ("tap0", 1500)
        );
        assert_eq!(words(&plan.rules.gateways), "10.0.2.3");
        assert_eq!(stands(&plan), "10.0.2.2=127.0.0.1");
        let prefixes = |line: &str| words(&planned(line, &host()).unwrap().direct.addresses);
        assert_eq!(prefixes("-4 -a 10.1.2.3"), "10.1.2.3/8");
        assert_eq!(prefixes("-4 -a 192.168.0.7/25"), "192.168.0.7/25");
        assert_eq!(prefixes("-4 -a 203.0.113.9"), "203.0.113.9/24");
        assert_eq!(prefixes("-6 -a fd00::5"), "fd00::5/64");
    }

    #[test]
    fn who_stands_for_the_host() {
        let of = |line: &str| stands(&planned(line, &host()).unwrap());
        assert_eq!(of("--no-map-gw"), "");
        assert_eq!(of("-4 --map-host-loopback none"), "");
        assert_eq!(
            of("-4 --no-map-gw --map-host-loopback 169.254.1.3"),
            "169.254.1.3=127.0.0.1"
        );
        assert_eq!(
            of("-4 --no-map-gw --map-guest-addr 169.254.1.2"),
            "169.254.1.2=203.0.113.2"
        );
    }

    #[test]
    fn a_host_that_leads_nowhere_has_a_loopback() {
        let plan = planned("", &[None, None]).unwrap();
        assert_eq!(words(&plan.direct.addresses), "169.254.2.1/16");
        assert_eq!(stands(&plan), "169.254.2.2=127.0.0.1");
        assert_eq!(plan.direct.ifname.as_str(), "tap0");
        assert!(matches!(
            planned("-6", &[None, None]),
            Err(PlanError::Nothing)
        ));
    }

    #[test]
    fn a_link_without_neighbours_needs_no_gateway() {
        let mut host = host();
        host[1] = None;
        host[0].as_mut().unwrap().gateway = None;
        let plan = planned("", &host).unwrap();
        assert_eq!(words(&plan.direct.linked), "0.0.0.0/0");
        assert!(plan.direct.gateways.is_empty() && plan.snapshot.stand_ins.is_empty());
    }

    #[test]
    fn what_cannot_be() {
        for line in ["-4 -a fd00::1", "-6 --dns-forward 1.2.3.4"] {
            assert!(
                matches!(planned(line, &host()), Err(PlanError::Family(_))),
                "{line}"
            );
        }
        for line in [
            "-g 203.0.113.2",
            "--dns-forward 203.0.113.2",
            "--map-guest-addr 203.0.113.2",
            "-a 10.0.0.1 -g 10.0.0.1",
        ] {
            assert!(
                matches!(planned(line, &host()), Err(PlanError::Own(_))),
                "{line}"
            );
        }
    }
}
