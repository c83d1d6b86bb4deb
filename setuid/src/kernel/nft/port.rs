//! `table bridge mossnet_host`: what the ports that we give to callers may send into host bridges.
//!
//! A port sends from its own MAC address and from the IP addresses that it was given, in Ethernet,
//! ARP, IP and neighbour discovery alike. It sends no router advertisement and no redirect (RFC 6105),
//! no answer of a DHCP server, no fragment of ICMPv6 that would hide one (RFC 6980), no VLAN tag, and
//! nothing but ARP and IP.

use super::expression::{Expression as E, Header, Is, Meta, SOURCE, link, link_begins, octets};
use super::{Chain, Family, Hook, Table};
use ipnet::IpNet;
use mossnet_netlink::{IfName, MacAddr};
use std::net::{IpAddr, Ipv6Addr};

/// How the names of all ports begin.
pub const PREFIX: &str = "mnb";

/// A port as the rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The link in the host.
    pub name: IfName,
    /// Address of the caller's end.
    pub mac: MacAddr,
    /// What it may send from.
    pub addresses: Vec<IpNet>,
}

/// NF_BR_PRE_ROUTING, NF_BR_PRI_FILTER_BRIDGED.
const ENTER: Hook = Hook {
    kind: "filter",
    number: 0,
    priority: -200,
};

/// Router advertisement and redirect.
const ROUTERS: [u8; 2] = [134, 137];
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Source ports of DHCP servers.
const DHCP_SERVERS: [u16; 2] = [67, 547];

/// The table for these; none: no table.
pub fn port_table(ports: &[Port]) -> Table {
    let (family, maps) = (Family::Bridge, Vec::new());
    if ports.is_empty() {
        let chains = Vec::new();
        return Table {
            family,
            maps,
            chains,
        };
    }
    let other = link_begins(Meta::Input, Is::Different, PREFIX);
    let mut rules = vec![rule(&[&other, &[E::Accept]])];
    rules.extend(forbidden());
    rules.extend(ports.iter().flat_map(allowed));
    rules.push(vec![E::Drop]);
    let chain = Chain {
        name: "enter".into(),
        device: None,
        hook: ENTER,
        rules,
    };
    Table {
        family,
        maps,
        chains: vec![chain],
    }
}

fn rule(parts: &[&[E]]) -> Vec<E> {
    parts.concat()
}

fn equal(load: E, bytes: &[u8]) -> [E; 2] {
    [load, E::Compare(Is::Equal, bytes.to_vec())]
}

fn frame(kind: i32) -> [E; 2] {
    equal(E::Meta(Meta::Protocol), &(kind as u16).to_be_bytes())
}

fn transport(protocol: i32) -> [E; 2] {
    equal(E::Meta(Meta::Transport), &[protocol as u8])
}

fn icmp_kind(kind: u8) -> [E; 2] {
    equal(E::Payload(Header::Transport, 0, 1), &[kind])
}

/// What no port sends, whoever it is.
fn forbidden() -> Vec<Vec<E>> {
    let icmp = [frame(libc::ETH_P_IPV6), transport(libc::IPPROTO_ICMPV6)].concat();
    let mut rules = vec![rule(&[&icmp, &equal(E::Fragment, &[1]), &[E::Drop]])];
    for kind in ROUTERS {
        rules.push(rule(&[&icmp, &icmp_kind(kind), &[E::Drop]]));
    }
    for port in DHCP_SERVERS {
        let from = equal(E::Payload(Header::Transport, 0, 2), &port.to_be_bytes());
        rules.push(rule(&[&transport(libc::IPPROTO_UDP), &from, &[E::Drop]]));
    }
    rules
}

fn allowed(port: &Port) -> Vec<Vec<E>> {
    let mac = port.mac.octets();
    let source = equal(E::Payload(Header::Link, 6, 6), &mac);
    let input = [link(Meta::Input, Is::Equal, port.name.as_str()), source].concat();
    let mut own: Vec<IpAddr> = port.addresses.iter().map(IpNet::addr).collect();
    own.push(link_local(port.mac).into());
    let mut rules = Vec::new();
    for address in &own {
        rules.extend(match address {
            IpAddr::V4(_) => v4(&input, &mac, &octets(*address)),
            IpAddr::V6(_) => v6(&input, &octets(*address), &own),
        });
    }
    // A probe, before an address is used (RFC 5227).
    rules.push(arp(&input, &mac, &[0; 4]));
    rules.extend(probes(&input, &own));
    rules
}

/// ARP's sender is who sends it.
fn arp(input: &[E], mac: &[u8], address: &[u8]) -> Vec<E> {
    let sender_mac = equal(E::Payload(Header::Network, 8, 6), mac);
    let sender = equal(E::Payload(Header::Network, 14, 4), address);
    rule(&[
        input,
        &frame(libc::ETH_P_ARP),
        &sender_mac,
        &sender,
        &[E::Accept],
    ])
}

fn v4(input: &[E], mac: &[u8], address: &[u8]) -> Vec<Vec<E>> {
    let source = equal(E::Payload(Header::Network, SOURCE[0], 4), address);
    vec![
        arp(input, mac, address),
        rule(&[input, &frame(libc::ETH_P_IP), &source, &[E::Accept]]),
    ]
}

/// From one of its addresses: anything but an advertisement of somebody else's.
fn v6(input: &[E], address: &[u8], own: &[IpAddr]) -> Vec<Vec<E>> {
    let source = equal(E::Payload(Header::Network, SOURCE[1], 16), address);
    let from = [&frame(libc::ETH_P_IPV6)[..], &source].concat();
    let icmp = transport(libc::IPPROTO_ICMPV6);
    let advertises = [&icmp[..], &icmp_kind(ADVERTISEMENT)].concat();
    let mut rules: Vec<Vec<E>> = targets(own)
        .map(|target| rule(&[input, &from, &advertises, &target, &[E::Accept]]))
        .collect();
    rules.push(rule(&[input, &from, &advertises, &[E::Drop]]));
    rules.push(rule(&[input, &from, &[E::Accept]]));
    rules
}

/// Duplicate address detection asks for one's own address, from none (RFC 4862).
fn probes(input: &[E], own: &[IpAddr]) -> Vec<Vec<E>> {
    let nobody = equal(E::Payload(Header::Network, SOURCE[1], 16), &[0; 16]);
    let icmp = transport(libc::IPPROTO_ICMPV6);
    let asks = [&nobody[..], &icmp, &icmp_kind(SOLICITATION)].concat();
    targets(own)
        .map(|target| {
            rule(&[
                input,
                &frame(libc::ETH_P_IPV6),
                &asks,
                &target,
                &[E::Accept],
            ])
        })
        .collect()
}

/// The target of a neighbour solicitation or advertisement is one of these.
fn targets(own: &[IpAddr]) -> impl Iterator<Item = [E; 2]> {
    let v6 = own.iter().filter(|address| address.is_ipv6());
    v6.map(|address| equal(E::Payload(Header::Transport, 8, 16), &octets(*address)))
}

/// The link-local address that the kernel makes of a MAC address (RFC 4291 appendix A).
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.octets();
    let last = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Ipv6Addr::from((0xfe80u128 << 112) | u128::from(u64::from_be_bytes(last)))
}
