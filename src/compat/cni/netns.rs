//! A look into a container's network namespace: does the kernel have what the records say?

use super::refusal::{Code, Refusal};
use ipnet::IpNet;
use mossnet_helper::IfName;
use mossnet_helper::namespace::in_netns;
use mossnet_helper::netlink::{Explain, Netlink, Refused, addresses, default_routes};
use mossnet_helper::request::Failure;
use mossnet_helper::router::turnaround;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

const FOREIGN: &str =
    "run the runtime inside 'mossnet unshare', so that its namespaces are below mossnet's";

/// What an interface has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Up, and joined to a bridge that is.
    pub(super) running: bool,
    pub(super) addresses: Vec<IpNet>,
    /// Of the gateways that were asked for, those that default routes go by.
    pub(super) default_routes: Vec<IpAddr>,
}

/// The namespace of a container.
pub(super) fn open(path: &str) -> Result<File, Refusal> {
    File::open(Path::new(path)).map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => Code::UnknownContainer,
            _ => Code::Io,
        };
        let refusal = Refusal::new(code, format!("open network namespace {path}: {error}"));
        match error.kind() {
            // Of a process in a user namespace over which we have no power.
            io::ErrorKind::PermissionDenied => refusal.with_details(FOREIGN),
            _ => refusal,
        }
    })
}

/// Looks at an interface; `None`: there is none of this name.
pub(super) fn look(
    netns: BorrowedFd<'_>,
    ifname: &str,
    gateways: &[IpAddr],
) -> Result<Option<Seen>, Failure> {
    in_netns(netns.as_fd(), || {
        let mut route = Netlink::route().map_err(|e| Failure::kernel("open rtnetlink", e))?;
        let link = route.link(ifname);
        let Some(link) = link.map_err(|e| e.failure(format!("look for {ifname}")))? else {
            return Ok(None);
        };
        let addresses = addresses(&mut route, link.index)
            .map_err(|e| e.failure(format!("addresses of {ifname}")))?;
        let routes = default_routes(&mut route).map_err(|e| e.failure("list default routes"))?;
        let goes_by = |gateway: &&IpAddr| routes.iter().any(|r| r.is(**gateway, link.index));
        Ok(Some(Seen {
            running: link.running,
            addresses,
            default_routes: gateways.iter().filter(goes_by).copied().collect(),
        }))
    })
}

/// The rates, bytes per second, to which an endpoint is held in the router's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) inward: Option<u64>,
    pub(super) outward: Option<u64>,
}

/// Looks at the router's side of an endpoint.
pub(super) fn held(router: BorrowedFd<'_>, router_ifname: &IfName) -> Result<Held, Failure> {
    in_netns(router, || {
        let mut route = Netlink::route().map_err(|e| Failure::kernel("open rtnetlink", e))?;
        let mut rate = |name: Option<&IfName>| {
            let Some(name) = name else {
                return Ok(None);
            };
            let failed = |e: Refused| e.failure(format!("look for limits of {name}"));
            match route.link(name.as_str()).map_err(failed)? {
                Some(link) => route.held(link.index).map_err(failed),
                None => Ok(None),
            }
        };
        Ok(Held {
            inward: rate(Some(router_ifname))?,
            outward: rate(turnaround(router_ifname).as_ref())?,
        })
    })
}
