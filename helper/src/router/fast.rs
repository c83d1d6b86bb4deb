//! The fast path of networks that leave by the host's kernel: the netdev table, kept in step with the
//! link, the networks and their endpoints.
//!
//! Invariant: it is never needed, so that nothing fails for want of it. It is made whole from the record
//! each time; a network whose MTU is not the link's goes the usual way, where routing deals with that.

use super::Router;
use super::segment::{Endpoint, Segment};
use crate::names::{IfName, MacAddr};
use crate::request::{NetworkRules, UplinkKind};
use crate::ruleset::{self, Ends, MOST, Port, Ruleset};

/// What it is made of, and what was made.
#[derive(Debug, Default)]
pub struct FastPath {
    link: Option<(Ends, u32)>,
    networks: Vec<NetworkRules>,
    made: Option<Ruleset>,
    /// The kernel has said no, and was quoted.
    said: bool,
}

impl FastPath {
    /// The link, with its MTU in bytes; or that it is gone.
    pub fn set_link(&mut self, link: Option<(Ends, u32)>) {
        self.link = link;
    }

    /// All networks.
    pub fn set_networks(&mut self, networks: &[NetworkRules]) {
        self.networks = networks.to_vec();
    }
}

impl Router {
    /// Bring the table in step.
    pub(super) fn renew_fast_path(&mut self) {
        let wanted = self.wanted_fast_path();
        if wanted == self.fast.made {
            return;
        }
        let empty = |made: &Ruleset| Ruleset {
            sets: Vec::new(),
            chains: Vec::new(),
            ..made.clone()
        };
        let table = wanted
            .clone()
            .or_else(|| self.fast.made.as_ref().map(empty));
        let Some(table) = table else { return };
        match ruleset::apply(&mut self.netfilter, &table) {
            Ok(()) => self.fast.made = wanted,
            Err(failure) => {
                // What was there is there still; or an interface has just gone with its sandbox.
                if !std::mem::replace(&mut self.fast.said, true) {
                    eprintln!("helper: no fast path to the host's network: {failure}");
                }
            }
        }
    }

    /// Nothing without a link, or without endpoints that it is for.
    fn wanted_fast_path(&self) -> Option<Ruleset> {
        let (ends, mtu) = self.fast.link?;
        let by_kernel =
            |network: &&NetworkRules| network.uplink == UplinkKind::Kernel && !network.internal;
        let bridges = self.fast.networks.iter().filter(by_kernel);
        let plain = |segment: &&Segment| segment.mtu == mtu && segment.vlan.is_none();
        let routers: Vec<(&IfName, MacAddr)> = bridges
            .filter_map(|network| {
                let segment = self.segments.get(&network.bridge).filter(plain)?;
                Some((&network.bridge, segment.mac?))
            })
            .collect();
        let port = |name: &IfName, endpoint: &Endpoint| {
            let mut of_bridge = routers.iter();
            let (_, router) = of_bridge.find(|(bridge, _)| **bridge == endpoint.bridge)?;
            Some(Port {
                name: name.to_string(),
                router: *router,
                owner: super::guard::owner(endpoint),
            })
        };
        let ports: Vec<Port> = (self.segments.named())
            .filter_map(|(name, endpoint)| port(name, endpoint))
            .take(MOST)
            .collect();
        let networks = &self.fast.networks;
        (!ports.is_empty()).then(|| ruleset::fast(&ports, ends, networks, self.families))
    }
}
