//! Bridges, and the overflow bridges of a network with more endpoints than one bridge has ports.
//!
//! Invariant: an overflow bridge has no addresses, and follows its main bridge in MTU, isolation and
//! VLAN. Isolated ports reach others that are not: a trunk is isolated where it leads away from the
//! main bridge and not where it leads towards it, so that everyone reaches the gateway and nobody else.

use super::segment::{OverflowNames, Place, overflow_names};
use super::{Router, link_failure, require_link, usable};
use crate::names::IfName;
use crate::namespace::in_netns;
use crate::netlink::Explain;
use crate::netlink::{LinkKind, NewBridge, add_address, addresses, remove_address};
use crate::request::{BridgeSpec, Failure};
use crate::sysctl;
use ipnet::IpNet;
use nix::errno::Errno;
use std::os::fd::AsFd;

impl Router {
    /// Make a bridge exist as described.
    pub fn bridge(&mut self, spec: &BridgeSpec) -> Result<(), Failure> {
        let existing = self.route.link(spec.name.as_str());
        match existing.map_err(|e| e.failure(format!("look for {}", spec.name)))? {
            Some(link) if link.kind == LinkKind::Bridge => self.configure_bridge(spec, link.index),
            Some(_) => Err(Failure::exists(format!("{} is not a bridge", spec.name))),
            None => {
                let new = NewBridge {
                    name: &spec.name,
                    mac: Some(spec.mac),
                    mtu: spec.mtu,
                };
                self.route.add_bridge(new).map_err(|refused| {
                    link_failure(refused, &format!("create bridge {}", spec.name), "bridge")
                })?;
                // What it may have had before it went is not what it has now.
                self.segments.remove(&spec.name);
                let index = require_link(&mut self.route, spec.name.as_str());
                let result = index.and_then(|index| self.configure_bridge(spec, index));
                if result.is_err() {
                    let _ = self.remove_link(&spec.name);
                    self.segments.remove(&spec.name);
                }
                result
            }
        }
    }

    /// MAC address, MTU, VLAN, isolation, and exactly these addresses.
    fn configure_bridge(&mut self, spec: &BridgeSpec, index: u32) -> Result<(), Failure> {
        self.set_vlan(&spec.name, index, spec.vlan)?;
        self.route
            .change_link(index, spec.mac, spec.mtu)
            .map_err(|e| e.failure(format!("configure bridge {}", spec.name)))?;
        let ipv6 = self.families.ipv6;
        in_netns(self.netns.as_fd(), || {
            sysctl::keep_bridges_plain();
            match ipv6 {
                true => sysctl::set_ipv6(spec.name.as_str(), true),
                false => Ok(()),
            }
        })?;
        self.set_addresses(spec, index)?;
        let segment = self.segments.entry(&spec.name);
        let icc_changes = segment.icc != spec.icc;
        segment.mtu = spec.mtu;
        segment.mac = Some(spec.mac);
        segment.vlan = spec.vlan;
        segment.icc = spec.icc;
        self.follow(&spec.name, icc_changes)?;
        self.renew_fast_path();
        Ok(())
    }

    fn set_addresses(&mut self, spec: &BridgeSpec, index: u32) -> Result<(), Failure> {
        let route = &mut self.route;
        let wanted: Vec<IpNet> = usable(&spec.addresses, self.families).collect();
        // Removed first: the kernel takes all later addresses of a prefix away with its first one.
        let present = addresses(route, index);
        let present = present.map_err(|e| e.failure(format!("list addresses of {}", spec.name)))?;
        for address in present.iter().filter(|address| !wanted.contains(address)) {
            remove_address(route, index, *address)
                .map_err(|e| e.failure(format!("take {address} from {}", spec.name)))?;
        }
        for address in &wanted {
            add_address(route, index, *address)
                .map_err(|e| e.failure(format!("give {} the address {address}", spec.name)))?;
        }
        Ok(())
    }

    /// Put all traffic of a bridge into a VLAN, or into none.
    fn set_vlan(&mut self, name: &IfName, index: u32, vlan: Option<u16>) -> Result<(), Failure> {
        let has = self.segments.get(name).and_then(|segment| segment.vlan);
        if vlan == has {
            return Ok(());
        }
        let what = format!("put bridge {name} into a VLAN");
        self.route
            .set_bridge_vlan(index, vlan)
            .map_err(|refused| match refused.errno {
                Errno::EOPNOTSUPP => refused.failure(format!(
                    "{what}: the kernel lacks bridge VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING)"
                )),
                _ => refused.failure(what),
            })
    }

    /// Have overflow bridges, and the ports where isolation changes, follow the main bridge.
    fn follow(&mut self, main: &IfName, icc_changes: bool) -> Result<(), Failure> {
        let numbers: Vec<u8> = match self.segments.get(main) {
            Some(segment) => segment.overflows().collect(),
            None => return Ok(()),
        };
        for number in numbers {
            self.make_overflow(main, number)?;
        }
        if !icc_changes {
            return Ok(());
        }
        let isolated = self.segments.get(main).is_some_and(|segment| !segment.icc);
        let of_bridge = self.segments.endpoints().filter(|e| e.bridge == *main);
        let ports: Vec<u32> = of_bridge.map(|endpoint| endpoint.index).collect();
        for port in ports {
            match self.route.isolate_port(port, isolated) {
                // It went with its sandbox.
                Err(refused) if refused.is_absent() => {}
                result => result.map_err(|e| e.failure(format!("isolate the ports of {main}")))?,
            }
        }
        Ok(())
    }

    /// The bridge of a segment at `place`.
    pub(super) fn bridge_at(main: &IfName, place: Place) -> Result<IfName, Failure> {
        match place {
            None => Ok(main.clone()),
            Some(number) => names_of(main, number).map(|names| names.bridge),
        }
    }

    /// Make an overflow bridge exist, joined to the one before it; one that exists follows the main
    /// bridge.
    pub(super) fn make_overflow(&mut self, main: &IfName, number: u8) -> Result<(), Failure> {
        let names = names_of(main, number)?;
        let result = self.build_overflow(main, number, &names);
        if result.is_ok() {
            self.segments.add_overflow(main, number);
        } else if !self.segments.get(main).is_some_and(|s| s.has(Some(number))) {
            let _ = self.remove_overflow(&names);
        }
        result
    }

    fn build_overflow(
        &mut self,
        main: &IfName,
        number: u8,
        names: &OverflowNames,
    ) -> Result<(), Failure> {
        let (mtu, icc, vlan) = match self.segments.get(main) {
            Some(segment) => (segment.mtu, segment.icc, segment.vlan),
            None => return Err(Failure::not_found(format!("bridge {main} does not exist"))),
        };
        let before = Self::bridge_at(main, number.checked_sub(1).filter(|before| *before > 0))?;
        let failed = format!("extend bridge {main} by {}", names.bridge);
        let route = &mut self.route;
        let before = require_link(route, before.as_str())?;
        if route
            .link(names.bridge.as_str())
            .map_err(|e| e.failure(failed.clone()))?
            .is_none()
        {
            let new = NewBridge {
                name: &names.bridge,
                mac: None,
                mtu,
            };
            route
                .add_bridge(new)
                .map_err(|refused| link_failure(refused, &failed, "bridge"))?;
        }
        let bridge = require_link(route, names.bridge.as_str())?;
        if let Some(vlan) = vlan {
            route
                .set_bridge_vlan(bridge, Some(vlan))
                .map_err(|e| e.failure(failed.clone()))?;
        }
        if route
            .link(names.near_end.as_str())
            .map_err(|e| e.failure(failed.clone()))?
            .is_none()
        {
            route
                .add_trunk(&names.near_end, &names.far_end)
                .map_err(|refused| link_failure(refused, &failed, "veth"))?;
        }
        let near_end = require_link(route, names.near_end.as_str())?;
        let far_end = require_link(route, names.far_end.as_str())?;
        route
            .set_up_with_mtu(bridge, mtu)
            .and_then(|()| route.set_port(near_end, before, mtu))
            .and_then(|()| route.set_port(far_end, bridge, mtu))
            .and_then(|()| route.isolate_port(near_end, !icc))
            .map_err(|e| e.failure(failed))
    }

    fn remove_overflow(&mut self, names: &OverflowNames) -> Result<(), Failure> {
        for name in [&names.near_end, &names.bridge] {
            self.remove_link(name)?;
        }
        Ok(())
    }

    /// Remove the overflow bridges of a segment that have no endpoints.
    pub(super) fn drop_empty_overflows(&mut self, main: &IfName) -> Result<(), Failure> {
        for number in self.segments.empty_overflows(main) {
            self.remove_overflow(&names_of(main, number)?)?;
            self.segments.remove_overflow(main, number);
        }
        Ok(())
    }

    /// Remove a bridge and what extends it; already absent is success.
    pub fn remove_bridge(&mut self, name: &IfName) -> Result<(), Failure> {
        let numbers: Vec<u8> = match self.segments.get(name) {
            Some(segment) => segment.overflows().collect(),
            None => Vec::new(),
        };
        for number in numbers {
            self.remove_overflow(&names_of(name, number)?)?;
            self.segments.remove_overflow(name, number);
        }
        self.remove_link(name)?;
        self.segments.remove(name);
        self.renew_fast_path();
        Ok(())
    }
}

fn names_of(main: &IfName, number: u8) -> Result<OverflowNames, Failure> {
    overflow_names(main, number)
        .ok_or_else(|| Failure::invalid(format!("bridge {main} cannot be extended")))
}
