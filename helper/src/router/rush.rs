//! Rushes: while a container sends datagrams faster than the relay takes them, a thread of the kernel takes
//! what comes in by its port (threaded NAPI) and puts datagrams of one flow and size together (GRO), so
//! that the way through bridge, ruleset and socket is gone once for up to 64 of them. The container's own
//! processor time pays for none of it, and a queue at its end makes it wait rather than lose.
//!
//! Only then: the thread has to be woken for each packet of somebody who is slow, which takes a sixth of the
//! requests that one connection makes. The relay says when a rush begins and ends.
//!
//! Where the kernel is too old for a part of it, or shows no /sys, all works as without.
//!
//! Sources: Documentation/networking/napi.rst (threaded NAPI, Linux 5.12), drivers/net/veth.c (GRO, Linux 5.13; a
//! full ring stops the queue, Linux 6.16), Documentation/ABI/testing/sysfs-class-net (`threaded`).

use super::segment::Endpoint;
use super::{Router, require_link};
use crate::names::{IfName, SandboxId};
use crate::namespace::in_netns;
use crate::netlink::{Explain, Feature, Netlink};
use crate::request::Failure;
use crate::sys::mount::new_sysfs;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// Packets that wait at a container's end: a millisecond or two of what one can send.
const QUEUE: u32 = 1000;

/// The container's end of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Whose it is.
    pub sandbox: SandboxId,
    /// Its name there.
    pub ifname: IfName,
}

impl Router {
    /// The endpoint that has this address, if rushes are for it: where it is held to a rate, nobody is
    /// overrun.
    pub fn rushing(&self, address: IpAddr) -> Option<(IfName, Inside)> {
        let has = |endpoint: &Endpoint| endpoint.addresses.contains(&address);
        let mut named = self.segments.named();
        let (name, endpoint) = named.find(|(_, endpoint)| has(endpoint))?;
        let shaped = endpoint.turnaround.is_some();
        (!shaped).then(|| (name.clone(), endpoint.inside.clone()))
    }

    /// What a port brings is taken by a thread of the kernel from now on, or no longer. `inside`: what the other
    /// end is called in the container's netns.
    pub fn rush(
        &self,
        port: &IfName,
        inside: (&IfName, BorrowedFd<'_>),
        begins: bool,
    ) -> Result<(), Failure> {
        let (ifname, container) = inside;
        let here = self.netns.as_fd();
        if begins {
            in_netns(here, || {
                put_together(port).and_then(|()| set_threaded(port, true))
            })?;
        } else {
            in_netns(here, || set_threaded(port, false))?;
        }
        in_netns(container, || set_queue(ifname, begins))
    }
}

/// Runs in the router netns. For good: it costs nothing where nothing comes that belongs together.
fn put_together(port: &IfName) -> Result<(), Failure> {
    let mut route = Netlink::route().map_err(|e| Failure::kernel("open rtnetlink", e))?;
    let index = require_link(&mut route, port.as_str())?;
    let mut generic = Netlink::generic().map_err(|e| Failure::kernel("open generic netlink", e))?;
    generic
        .switch_on(index, &[Feature::Gro, Feature::UdpGro])
        .map_err(|e| e.failure(format!("join datagrams that come in by {port}")))
}

/// Runs in the container's netns, which waits at its end, or no longer. A queue that somebody else made there is
/// left alone.
fn set_queue(ifname: &IfName, wanted: bool) -> Result<(), Failure> {
    let mut route = Netlink::route().map_err(|e| Failure::kernel("open rtnetlink", e))?;
    let index = require_link(&mut route, ifname.as_str())?;
    if !wanted {
        // Refused where it is not there, or is another one.
        let _ = route.remove_queue(index);
        return Ok(());
    }
    match route.add_queue(index, QUEUE) {
        Err(refused) if refused.errno != Errno::EEXIST => {
            Err(refused.failure(format!("give {ifname} of a container a queue")))
        }
        _ => Ok(()),
    }
}

/// Runs in the router netns.
fn set_threaded(port: &IfName, threaded: bool) -> Result<(), Failure> {
    let failed = |errno: Errno| {
        let what = format!("have a thread take what comes in by {port}");
        Failure::kernel(what, errno)
    };
    let sysfs = new_sysfs().map_err(failed)?;
    let path = format!("class/net/{port}/threaded");
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let file = openat(sysfs.as_fd(), path.as_str(), flags, Mode::empty()).map_err(failed)?;
    let text: &[u8] = if threaded { b"1" } else { b"0" };
    let written = File::from(file).write_all(text);
    written.map_err(|e| failed(Errno::try_from(e).unwrap_or(Errno::EIO)))
}
