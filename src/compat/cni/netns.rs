//! A look into a container's network namespace: does the kernel have what the records say?

use super::refusal::{Code, Refusal};
use ipnet::IpNet;
use mossnet_helper::namespace::in_netns;
use mossnet_helper::netlink::{Explain, Netlink, addresses, default_routes};
use mossnet_helper::request::Failure;
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
