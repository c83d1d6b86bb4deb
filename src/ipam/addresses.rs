//! Addresses for new endpoints.

use crate::network::{NetworkSubnet, Subnet};
use ipnet::IpNet;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

/// An address was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Two endpoints cannot share one.
    #[error("address {address} is in use by '{by}'")]
    InUse {
        /// The address.
        address: IpAddr,
        /// Who holds it.
        by: String,
    },
    /// Not on this network.
    #[error("address {address} is outside the network's subnet {subnet}")]
    Outside {
        /// The address.
        address: IpAddr,
        /// The subnet of its family.
        subnet: Subnet,
    },
    /// Never an endpoint's.
    #[error("address {address} is reserved: it is the {role} of {subnet}")]
    Reserved {
        /// The address.
        address: IpAddr,
        /// What it is for.
        role: String,
        /// The subnet.
        subnet: Subnet,
    },
    /// All are taken.
    #[error("no free address is left in {range}: {used} of {size} are in use")]
    Exhausted {
        /// The part of the subnet that addresses come from.
        range: IpNet,
        /// Addresses in use.
        used: u128,
        /// Addresses that endpoints could have.
        size: u128,
    },
}

impl AddressError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "choose another address, or remove the sandbox that has it",
            Self::Outside { .. } => "choose an address in the subnet",
            Self::Reserved { .. } => "choose another address in the subnet",
            Self::Exhausted { .. } => "remove sandboxes that are not needed (`mossnet ps -a`)",
        }
    }
}

/// Addresses held by endpoints, each with the name of its sandbox.
pub type Held = BTreeMap<IpAddr, String>;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// This one or none.
    Fixed(IpAddr),
    /// This one, which it had before, if it is free.
    Again(IpAddr),
    /// Any.
    Any,
}

/// An address in `on` that nobody holds: the wish, else the lowest free one that is not remembered
/// for somebody else, else the longest unused of those (`remembered` lists the oldest first).
pub fn allocate(
    on: &NetworkSubnet,
    held: &Held,
    remembered: &[IpAddr],
    wish: Wish,
) -> Result<IpAddr, AddressError> {
    match wish {
        Wish::Fixed(address) => return check(on, held, address).map(|()| address),
        Wish::Again(address) if check(on, held, address).is_ok() => return Ok(address),
        Wish::Again(_) | Wish::Any => {}
    }
    let spared: HashSet<IpAddr> = remembered.iter().copied().collect();
    let free = |address: &IpAddr| check(on, held, *address).is_ok();
    let lowest = addresses(on.range()).find(|address| !spared.contains(address) && free(address));
    let oldest = || remembered.iter().copied().find(free);
    lowest.or_else(oldest).ok_or_else(|| exhausted(on, held))
}

fn check(on: &NetworkSubnet, held: &Held, address: IpAddr) -> Result<(), AddressError> {
    let subnet = on.subnet;
    if !subnet.prefix().contains(&address) {
        return Err(AddressError::Outside { address, subnet });
    }
    if let Some(role) = role(on, address) {
        return Err(AddressError::Reserved {
            address,
            role,
            subnet,
        });
    }
    match held.get(&address) {
        Some(by) => Err(AddressError::InUse {
            address,
            by: by.clone(),
        }),
        None => Ok(()),
    }
}

/// What an address of the subnet is for, if not for endpoints.
fn role(on: &NetworkSubnet, address: IpAddr) -> Option<String> {
    if address == on.gateway {
        return Some("gateway".to_owned());
    }
    if address == on.subnet.prefix().network() {
        return Some("network address".to_owned());
    }
    if on.subnet.is_boundary(address) {
        return Some("broadcast address".to_owned());
    }
    let aux = on.aux_addresses.get(&address)?;
    Some(format!("auxiliary address '{aux}'"))
}

/// Every address, lazily; of an IPv6 prefix far fewer are ever looked at than there are.
fn addresses(range: IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    match (range.network(), range.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let range = u32::from(first)..=u32::from(last);
            Box::new(range.map(|bits| IpAddr::V4(bits.into())))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let range = u128::from(first)..=u128::from(last);
            Box::new(range.map(|bits| IpAddr::V6(bits.into())))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            Box::new(std::iter::empty())
        }
    }
}

fn exhausted(on: &NetworkSubnet, held: &Held) -> AddressError {
    let (prefix, range) = (on.subnet.prefix(), on.range());
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let all = 1u128.checked_shl(bits).unwrap_or(u128::MAX);
    let mut reserved = HashSet::from([on.gateway, prefix.network()]);
    reserved.extend(prefix.addr().is_ipv4().then(|| prefix.broadcast()));
    reserved.extend(on.aux_addresses.keys());
    reserved.retain(|address| range.contains(address));
    let used = held.keys().filter(|a| range.contains(*a)).count();
    AddressError::Exhausted {
        range,
        used: used as u128,
        size: all.saturating_sub(reserved.len() as u128),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;
    use proptest::prelude::*;

    fn on(prefix: &str) -> NetworkSubnet {
        let prefix: IpNet = prefix.parse().unwrap();
        NetworkSubnet::with_first_gateway(Subnet::try_from(prefix).unwrap())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn lowest_first_then_remembered_ones_oldest_first() {
        let on = on("10.89.0.0/29");
        let mut held = Held::new();
        let remembered = [address("10.89.0.5"), address("10.89.0.2")];
        let mut got = Vec::new();
        while let Ok(address) = allocate(&on, &held, &remembered, Wish::Any) {
            held.insert(address, "x".into());
            got.push(address.to_string());
        }
        assert_eq!(
            got,
            [
                "10.89.0.3",
                "10.89.0.4",
                "10.89.0.6",
                "10.89.0.5",
                "10.89.0.2"
            ]
        );
        let error = allocate(&on, &held, &remembered, Wish::Any).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no free address is left in 10.89.0.0/29: 5 of 5 are in use"
        );
    }

    #[test]
    fn the_same_name_gets_its_address_again_unless_taken() {
        let on = on("10.89.0.0/24");
        let again = Wish::Again(address("10.89.0.9"));
        assert_eq!(
            allocate(&on, &Held::new(), &[], again),
            Ok(address("10.89.0.9"))
        );
        let held = Held::from([(address("10.89.0.9"), "thief".to_owned())]);
        assert_eq!(allocate(&on, &held, &[], again), Ok(address("10.89.0.2")));
        let elsewhere = Wish::Again(address("192.168.0.9"));
        assert_eq!(
            allocate(&on, &held, &[], elsewhere),
            Ok(address("10.89.0.2"))
        );
    }

    #[test]
    fn fixed_addresses_are_refused_with_the_reason() {
        let on = on("10.89.0.0/24");
        let held = Held::from([(address("10.89.0.9"), "web".to_owned())]);
        let ask = |text| allocate(&on, &held, &[], Wish::Fixed(address(text)));
        assert_eq!(ask("10.89.0.77"), Ok(address("10.89.0.77")));
        for (text, reason) in [
            ("10.89.0.9", "address 10.89.0.9 is in use by 'web'"),
            (
                "10.90.0.9",
                "address 10.90.0.9 is outside the network's subnet 10.89.0.0/24",
            ),
            (
                "10.89.0.0",
                "address 10.89.0.0 is reserved: it is the network address of 10.89.0.0/24",
            ),
            (
                "10.89.0.1",
                "address 10.89.0.1 is reserved: it is the gateway of 10.89.0.0/24",
            ),
            (
                "10.89.0.255",
                "address 10.89.0.255 is reserved: it is the broadcast address of 10.89.0.0/24",
            ),
        ] {
            assert_eq!(ask(text).unwrap_err().to_string(), reason);
        }
    }

    #[test]
    fn an_ipv6_prefix_is_not_walked() {
        let on = on("fd00::/64");
        assert_eq!(
            allocate(&on, &Held::new(), &[], Wish::Any),
            Ok(address("fd00::2"))
        );
    }

    /// Addresses 4 to 7 of 16, of which 5 is set aside and 6 the router's.
    fn parted() -> NetworkSubnet {
        NetworkSubnet {
            gateway: address("10.89.0.6"),
            ip_range: Some("10.89.0.4/30".parse().unwrap()),
            aux_addresses: [(address("10.89.0.5"), "printer".to_owned())].into(),
            ..on("10.89.0.0/28")
        }
    }

    #[test]
    fn only_the_range_is_given_away_and_nothing_set_aside() {
        let on = parted();
        let mut held = Held::new();
        for wanted in ["10.89.0.4", "10.89.0.7"] {
            let got = allocate(&on, &held, &[], Wish::Any).unwrap();
            assert_eq!(got, address(wanted));
            held.insert(got, "x".into());
        }
        let error = allocate(&on, &held, &[], Wish::Any).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no free address is left in 10.89.0.4/30: 2 of 2 are in use"
        );
        let fixed = |text| allocate(&on, &held, &[], Wish::Fixed(address(text)));
        assert_eq!(
            fixed("10.89.0.5").unwrap_err().to_string(),
            "address 10.89.0.5 is reserved: it is the auxiliary address 'printer' of 10.89.0.0/28"
        );
        // Whoever names an address may have one beside the range.
        assert_eq!(fixed("10.89.0.9"), Ok(address("10.89.0.9")));
    }

    proptest! {
        /// Whatever is set aside and whoever asks: within the range, never set aside, never twice,
        /// and an address that was had before comes back while it is free.
        #[test]
        fn a_parted_subnet_is_sound(
            gateway in 1u8..15,
            aux in proptest::collection::btree_set(1u8..15, 0..6),
            range_len in 28u8..=31,
            range_at in 0u8..16,
            steps in proptest::collection::vec((0u8..4, any::<u8>()), 1..80),
        ) {
            let at = |n: u8| IpAddr::from([10, 89, 0, n]);
            let on = NetworkSubnet {
                gateway: at(gateway),
                ip_range: Some(IpNet::new(at(range_at), range_len).unwrap().trunc()),
                aux_addresses: aux.iter().filter(|n| **n != gateway).map(|n| (at(*n), "a".into())).collect(),
                ..on("10.89.0.0/28")
            };
            let mut held = Held::new();
            let mut remembered: Vec<IpAddr> = Vec::new();
            for (what, pick) in steps {
                let wish = match what {
                    0 => Wish::Any,
                    1 => Wish::Fixed(at(pick % 20)),
                    2 => remembered.first().map_or(Wish::Any, |had| Wish::Again(*had)),
                    _ => {
                        let victim = held.keys().nth(usize::from(pick) % held.len().max(1)).copied();
                        if let Some(victim) = victim {
                            held.remove(&victim);
                            remembered.retain(|old| *old != victim);
                            remembered.push(victim);
                        }
                        continue;
                    }
                };
                match allocate(&on, &held, &remembered, wish) {
                    Ok(got) => {
                        prop_assert!(on.subnet.prefix().contains(&got) && !on.subnet.is_boundary(got));
                        prop_assert!(got != on.gateway && !on.aux_addresses.contains_key(&got));
                        match wish {
                            Wish::Fixed(wanted) => prop_assert_eq!(got, wanted),
                            Wish::Again(had) => prop_assert!(got == had || held.contains_key(&had)),
                            Wish::Any => prop_assert!(on.range().contains(&got) || remembered.contains(&got)),
                        }
                        prop_assert!(held.insert(got, "x".into()).is_none());
                    }
                    Err(AddressError::Exhausted { used, size, .. }) => {
                        prop_assert!(!matches!(wish, Wish::Fixed(_)));
                        prop_assert_eq!(used, size);
                    }
                    Err(_) => prop_assert!(matches!(wish, Wish::Fixed(_))),
                }
            }
        }

        /// Any sequence of allocations and releases: no duplicates, never reserved, and what was
        /// released can be had again.
        #[test]
        fn allocation_is_sound(
            len in 25u8..=29,
            steps in proptest::collection::vec((any::<bool>(), any::<u8>()), 1..200),
        ) {
            let on = on(&format!("10.89.0.0/{len}"));
            let mut held = Held::new();
            for (release, pick) in steps {
                if release && !held.is_empty() {
                    let victim = *held.keys().nth(usize::from(pick) % held.len()).unwrap();
                    held.remove(&victim);
                    prop_assert_eq!(allocate(&on, &held, &[], Wish::Again(victim)), Ok(victim));
                    prop_assert_eq!(allocate(&on, &held, &[], Wish::Fixed(victim)), Ok(victim));
                    continue;
                }
                match allocate(&on, &held, &[], Wish::Any) {
                    Ok(address) => {
                        prop_assert!(address != on.gateway && !on.subnet.is_boundary(address));
                        prop_assert!(on.subnet.prefix().contains(&address));
                        prop_assert!(held.insert(address, "x".into()).is_none());
                    }
                    Err(AddressError::Exhausted { used, size, .. }) => prop_assert_eq!(used, size),
                    Err(other) => prop_assert!(false, "{}", other),
                }
            }
        }
    }
}
