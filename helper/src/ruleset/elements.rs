//! Elements of sets and maps, as bytes. Parts of a key begin at a register each (4 bytes).

use super::model::Elements;
use crate::names::MacAddr;
use std::net::IpAddr;

/// Interface names fill a register.
const NAME_LENGTH: usize = libc::IFNAMSIZ;

/// An element of a set.
pub(super) struct Element {
    /// Bytes as registers hold them.
    pub(super) key: Vec<u8>,
    /// The key is the first one after an interval.
    pub(super) after: bool,
    /// Of a map.
    pub(super) data: Option<Vec<u8>>,
}

impl Element {
    fn plain(key: Vec<u8>) -> Self {
        Self {
            key,
            after: false,
            data: None,
        }
    }
}

/// All of them, in order.
pub(super) fn elements(elements: &Elements) -> Vec<Element> {
    match elements {
        Elements::Interfaces(names) => names
            .iter()
            .map(|name| Element::plain(padded(name)))
            .collect(),
        Elements::Prefixes4(nets) => nets
            .iter()
            .flat_map(|net| interval(net.network().into(), net.broadcast().into()))
            .collect(),
        Elements::Prefixes6(nets) => nets
            .iter()
            .flat_map(|net| interval(net.network().into(), net.broadcast().into()))
            .collect(),
        Elements::Gateways4(pairs) => pairs
            .iter()
            .map(|(name, address)| joined(name, (*address).into()))
            .collect(),
        Elements::Gateways6(pairs) => pairs
            .iter()
            .map(|(name, address)| joined(name, (*address).into()))
            .collect(),
        Elements::Macs(pairs) => pairs
            .iter()
            .map(|(index, mac)| Element::plain(claim(*index, *mac, &[])))
            .collect(),
        Elements::Own4(claims) => claims
            .iter()
            .map(|(index, mac, address)| Element::plain(claim(*index, *mac, &address.octets())))
            .collect(),
        Elements::Own6(claims) => claims
            .iter()
            .map(|(index, mac, address)| Element::plain(claim(*index, *mac, &address.octets())))
            .collect(),
        Elements::Ports(ports) => ports
            .iter()
            .map(|port| Element::plain(port.to_be_bytes().to_vec()))
            .collect(),
        Elements::At4(all) => all
            .iter()
            .map(|(address, place)| placed(address.octets().to_vec(), *place))
            .collect(),
        Elements::At6(all) => all
            .iter()
            .map(|(address, place)| placed(address.octets().to_vec(), *place))
            .collect(),
    }
}

/// MAC address and interface, each from a register of its own.
fn placed(key: Vec<u8>, (mac, index): (MacAddr, u32)) -> Element {
    let mut data = mac.octets().to_vec();
    data.extend([0; 2]);
    data.extend(index.to_ne_bytes());
    Element {
        data: Some(data),
        ..Element::plain(key)
    }
}

/// Interface, MAC address and address, each from a register (4 bytes) of its own.
fn claim(index: u32, mac: MacAddr, address: &[u8]) -> Vec<u8> {
    let mut key = index.to_ne_bytes().to_vec();
    key.extend(mac.octets());
    key.extend([0; 2]);
    key.extend(address);
    key
}

/// First address, and the one after the last unless the interval ends with the address space.
fn interval(first: IpAddr, last: IpAddr) -> Vec<Element> {
    let mut keys = vec![Element::plain(octets(first))];
    let mut after = octets(last);
    for byte in after.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    if after.iter().any(|byte| *byte != 0) {
        keys.push(Element {
            after: true,
            ..Element::plain(after)
        });
    }
    keys
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An interface name as the kernel compares it.
pub(super) fn padded(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(NAME_LENGTH, 0);
    bytes
}

fn joined(name: &str, address: IpAddr) -> Element {
    let mut key = padded(name);
    key.extend(octets(address));
    Element::plain(key)
}
