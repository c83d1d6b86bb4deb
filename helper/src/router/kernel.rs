//! The link to the host's network that an installed `mossnet-helper` has put into the router netns:
//! networks with uplink `Kernel` leave by it, and the host reaches their containers through it.
//!
//! Nothing is translated here and no connection tracked: addresses of containers are the host's to
//! route. What it sends to them it has let in.
//!
//! Invariant: without the link such networks have no way out: their mark leads to a table that is
//! empty, and forwarding to the relay is not allowed.

use super::{Router, table_of, usable};
use crate::namespace::in_netns;
use crate::netlink::{Explain, Link, Route, add_address, add_neighbour, add_route};
use crate::request::{Failure, KernelLink};
use crate::ruleset::{Ends, KERNEL_LINK, KERNEL_MARK};
use crate::sysctl;
use std::net::IpAddr;
use std::os::fd::AsFd;

impl Router {
    /// Lead marked packets out by the link.
    pub fn lead_out(&mut self, link: &KernelLink) -> Result<(), Failure> {
        let name = link.ifname.as_str();
        if name != KERNEL_LINK {
            let what = format!("the link to the host must be called {KERNEL_LINK}, not {name}");
            return Err(Failure::invalid(what));
        }
        let found = self.kernel_link()?;
        let absent = || Failure::not_found(format!("{name} does not exist"));
        let found = found.ok_or_else(absent)?;
        let index = found.index;
        let families = self.families;
        if families.ipv6 {
            in_netns(self.netns.as_fd(), || sysctl::set_ipv6(KERNEL_LINK, true))?;
        }
        let route = &mut self.route;
        route
            .set_up(index)
            .map_err(|e| e.failure(format!("set {name} up")))?;
        for address in usable(&link.addresses, families) {
            add_address(route, index, address)
                .map_err(|e| e.failure(format!("give {name} the address {address}")))?;
        }
        let usable = |gateway: &IpAddr| families.ipv6 || gateway.is_ipv4();
        for gateway in link.gateways.iter().copied().filter(usable) {
            add_neighbour(route, index, gateway, link.host_mac)
                .map_err(|e| e.failure(format!("make {gateway} a neighbour")))?;
            let via = Route::Via {
                gateway,
                index,
                table: table_of(KERNEL_MARK),
            };
            add_route(route, via)
                .map_err(|e| e.failure(format!("route marked packets via {gateway}")))?;
        }
        let ends = Ends {
            index: found.index,
            host: link.host_mac,
            router: link.router_mac,
        };
        self.fast.set_link(Some((ends, found.mtu)));
        self.renew_fast_path();
        Ok(())
    }

    fn kernel_link(&mut self) -> Result<Option<Link>, Failure> {
        let link = self.route.link(KERNEL_LINK);
        link.map_err(|e| e.failure(format!("look for {KERNEL_LINK}")))
    }

    /// Whether the link is there.
    pub fn has_kernel_link(&mut self) -> Result<bool, Failure> {
        Ok(self.kernel_link()?.is_some())
    }

    /// Remove the link, and the host's end with it; already absent is success.
    pub fn remove_kernel_link(&mut self) -> Result<(), Failure> {
        self.fast.set_link(None);
        self.renew_fast_path();
        let name = KERNEL_LINK.parse();
        self.remove_link(&name.map_err(|_| Failure::invalid("the name of a link"))?)
    }
}
