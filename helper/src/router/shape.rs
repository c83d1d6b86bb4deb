//! Endpoints are held to a bandwidth, on the router's side, where root of a sandbox cannot change it.
//!
//! What a sandbox receives leaves by the router's end of its veth pair, and waits there in a token bucket.
//! What it sends comes in there, where nothing can wait: so it is led through a link of its own (`if-…`, kind
//! ifb), whose bucket it leaves, and goes on from the router's end as if nothing had been, to the guard first.
//!
//! Invariant: the bucket of a veth goes with it; the link `if-…` with the endpoint's record, whose name for it
//! is in [`super::segment::Endpoint`].

use super::{ENDPOINT_PREFIX, Router, require_link};
use crate::bandwidth::{Bandwidth, Limit};
use crate::names::IfName;
use crate::netlink::{Bucket, Explain, Netlink, Refused};
use crate::request::{EndpointSpec, Failure};
use nix::errno::Errno;

/// What the link is called through which a sandbox's traffic is led.
const TURNAROUND_PREFIX: &str = "if-";
/// Of a burst that nobody chose: as many parts of a second.
const BURST_PARTS: u64 = 50;
/// And at least as much, bytes: some packets in a row.
const SMALLEST_BURST: u64 = 16 << 10;
/// Ethernet header with a VLAN tag, and room for what the kernel counts besides.
const HEADERS: u32 = 64;
/// What waits longer than as many parts of a second is dropped.
const QUEUE_PARTS: u64 = 10;
/// But one packet as large as they come between namespaces finds room, bytes.
const SMALLEST_QUEUE: u64 = 128 << 10;

/// Name of the link through which is led what an endpoint sends, where that is limited.
pub fn turnaround(router_ifname: &IfName) -> Option<IfName> {
    let rest = router_ifname.as_str().strip_prefix(ENDPOINT_PREFIX)?;
    format!("{TURNAROUND_PREFIX}{rest}").parse().ok()
}

impl Router {
    /// Hold a new endpoint, whose router side has this index, to its bandwidth.
    pub(super) fn shape(&mut self, spec: &EndpointSpec, index: u32) -> Result<(), Failure> {
        let Some(name) = turnaround(&spec.router_ifname) else {
            return Ok(());
        };
        if spec.bandwidth.outward.is_some() {
            // Of an endpoint whose sandbox took its interface away.
            self.remove_link(&name)?;
        }
        let port = Port {
            index,
            mtu: spec.mtu,
            turnaround: &name,
            ifname: &spec.ifname,
        };
        hold(&mut self.route, port, spec.bandwidth)
    }
}

/// The router's side of an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Port<'a> {
    /// Its index.
    pub index: u32,
    /// Bytes.
    pub mtu: u32,
    /// Name of the link to be made where what comes from the sandbox is limited.
    pub turnaround: &'a IfName,
    /// What the sandbox calls the other end.
    pub ifname: &'a IfName,
}

/// Hold a port to a bandwidth.
pub fn hold(route: &mut Netlink, port: Port<'_>, bandwidth: Bandwidth) -> Result<(), Failure> {
    if let Some(limit) = bandwidth.inward {
        let what = format!("limit what {} receives", port.ifname);
        let held = route.hold(port.index, bucket(limit, port.mtu));
        held.map_err(|refused| lacking(refused, &what, "sch_tbf"))?;
    }
    match bandwidth.outward {
        Some(limit) => lead_through(route, port, limit),
        None => Ok(()),
    }
}

fn lead_through(route: &mut Netlink, port: Port<'_>, limit: Limit) -> Result<(), Failure> {
    let what = format!("limit what {} sends", port.ifname);
    let failed = |module: &'static str| {
        let what = what.as_str();
        move |refused: Refused| lacking(refused, what, module)
    };
    route
        .add_turnaround(port.turnaround, port.mtu)
        .map_err(failed("ifb"))?;
    let other = require_link(route, port.turnaround.as_str())?;
    route
        .hold(other, bucket(limit, port.mtu))
        .map_err(failed("sch_tbf"))?;
    route
        .add_ingress(port.index)
        .map_err(failed("sch_ingress"))?;
    let led = route.lead_through(port.index, other);
    led.map_err(failed("-a cls_u32 act_mirred"))
}

/// What a limit is for the kernel. A packet that is larger than the bucket never passes.
fn bucket(limit: Limit, mtu: u32) -> Bucket {
    let rate = limit.rate.bytes();
    let chosen = limit.burst.map(u64::from);
    let burst = chosen.unwrap_or_else(|| SMALLEST_BURST.max(rate / BURST_PARTS));
    let queue = SMALLEST_QUEUE.max(rate / QUEUE_PARTS);
    let fit = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    Bucket {
        rate,
        burst: fit(burst).max(mtu.saturating_add(HEADERS)),
        queue: fit(queue),
    }
}

/// Unknown kinds of links are EOPNOTSUPP, of all else ENOENT.
fn lacking(refused: Refused, what: &str, module: &str) -> Failure {
    match refused.errno {
        Errno::EOPNOTSUPP | Errno::ENOENT => {
            let name = module.trim_start_matches("-a ");
            refused.failure(format!(
                "{what} (the kernel lacks {name}; as root: modprobe {module})"
            ))
        }
        _ => refused.failure(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bandwidth::Rate;

    fn limit(rate: &str, burst: Option<u32>) -> Limit {
        Limit {
            burst,
            ..Limit::from(rate.parse::<Rate>().unwrap())
        }
    }

    #[test]
    fn a_packet_always_fits() {
        for mtu in [68, 1500, 65535] {
            for rate in ["1kbit", "10mbit", "1000tbit"] {
                for burst in [None, Some(0), Some(1), Some(u32::MAX)] {
                    let bucket = bucket(limit(rate, burst), mtu);
                    assert!(bucket.burst >= mtu && bucket.queue >= mtu, "{bucket:?}");
                }
            }
        }
        let usual = bucket(limit("100mbit", None), 1500);
        assert_eq!((usual.rate, usual.burst), (12_500_000, 250_000));
        assert_eq!(bucket(limit("100mbit", Some(9000)), 1500).burst, 9000);
    }
}
