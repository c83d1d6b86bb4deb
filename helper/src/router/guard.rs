//! Holding endpoints to their own addresses: the bridge table of the ruleset, and its sets, which
//! follow the endpoints one by one.
//!
//! Invariant: an endpoint's elements are there before its interface in the sandbox is up. Where the
//! table is not what it was left as (its owner may open a shell in the router netns), it is made anew
//! from the record of endpoints.

use super::segment::{Endpoint, Segments};
use crate::netlink::Netlink;
use crate::request::Failure;
use crate::ruleset::{self, Families, Owner};

/// Whether and how endpoints are guarded.
#[derive(Debug)]
pub struct Guard {
    active: bool,
    families: Families,
}

impl Guard {
    /// Make the table; a kernel that lacks it is said so once.
    pub fn install(netfilter: &mut Netlink, families: Families) -> Self {
        let installed = ruleset::apply(netfilter, &ruleset::guard(&[], families));
        if let Err(failure) = &installed {
            eprintln!(
                "helper: endpoints are not held to their own addresses: {failure} (the kernel lacks nftables for bridges)"
            );
        }
        Self {
            active: installed.is_ok(),
            families,
        }
    }

    /// The kernel has what it takes.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Endpoints went and came; `all` is how things are now.
    pub fn change(
        &self,
        netfilter: &mut Netlink,
        gone: &[Endpoint],
        come: &[Endpoint],
        all: &Segments,
    ) -> Result<(), Failure> {
        if !self.active || gone.is_empty() && come.is_empty() {
            return Ok(());
        }
        let owners = |list: &[Endpoint]| list.iter().map(owner).collect::<Vec<_>>();
        ruleset::change_owners(netfilter, &owners(gone), &owners(come), self.families).or_else(
            |failure| {
                eprintln!("helper: {failure}; the table is made anew");
                let everyone: Vec<Owner> = all.endpoints().map(owner).collect();
                ruleset::apply(netfilter, &ruleset::guard(&everyone, self.families))
            },
        )
    }
}

/// An endpoint as the tables know it.
pub(super) fn owner(endpoint: &Endpoint) -> Owner {
    Owner {
        index: endpoint.index,
        mac: endpoint.mac,
        addresses: endpoint.addresses.clone(),
    }
}
