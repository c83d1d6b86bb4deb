//! ICMP errors from the world, as a container is told of them.
//!
//! On the path: error queue of a host-side socket → **offender** → gate. Invariant: the reporter
//! is whoever noticed, unless the router netns's kernel would not forward in its name.

use super::rules::{Refusal, Rules};
use super::wire::icmp::Notice;
use super::wire::ip::{Packet, Protocol};
use super::wire::reset::reset;
use super::worker::Context;
use crate::sys::udp::{Origin, QueuedError};
use std::io;
use std::net::IpAddr;

/// Tells the sender of `offending` what a socket's error queue says about it.
pub fn tell(error: &QueuedError, offending: &Packet<'_>, cx: &mut Context<'_>) {
    let Some(notice) = notice(error) else { return };
    let host = offending.destination();
    let offender = match error.offender {
        // The host's loopback, say, goes by another address there.
        Some(offender) if cx.rules.behind(host) == Some(offender) => Some(host),
        offender => offender.filter(|offender| is_fit(*offender, cx.rules)),
    };
    match offender {
        Some(offender) => cx.gate.notify_from(notice, offending, offender),
        None => cx.gate.notify(notice, offending),
    }
}

/// Tells the sender of `packet` that the rules do not let it out.
pub fn refuse(refusal: Refusal, packet: &Packet<'_>, cx: &mut Context<'_>) {
    match refusal {
        Refusal::Internal | Refusal::OwnNetwork | Refusal::Loopback | Refusal::Link => {
            cx.gate.notify(Notice::Prohibited, packet);
        }
        Refusal::HostClosed => refuse_port(packet, cx),
        // Nobody to tell, or nothing that may be told about.
        Refusal::UnknownSource | Refusal::Unspecified | Refusal::Multicast | Refusal::Withheld => {}
    }
}

/// As a host answers that is there and serves nobody: an opening tells no more than a closed port.
fn refuse_port(packet: &Packet<'_>, cx: &mut Context<'_>) {
    let notice = match packet.protocol() {
        Protocol::Tcp => {
            if let Ok(Some(reset)) = reset(packet) {
                cx.gate.inject(&reset);
            }
            return;
        }
        Protocol::Udp => Notice::PortUnreachable,
        Protocol::Icmp | Protocol::Icmpv6 | Protocol::Other(_) => Notice::Prohibited,
    };
    cx.gate.notify_from(notice, packet, packet.destination());
}

/// What an entry of the error queue means to the container.
fn notice(error: &QueuedError) -> Option<Notice> {
    let rest = match (error.origin, error.kind, error.code) {
        // Fragmentation needed, packet too big: the MTU.
        (Origin::Icmp, 3, 4) => error.info & 0xffff,
        (Origin::Icmpv6, 2, _) => error.info,
        // Parameter problem: where.
        (Origin::Icmp, 12, _) => error.info << 24,
        (Origin::Icmpv6, 4, _) => error.info,
        (Origin::Icmp | Origin::Icmpv6, _, _) => 0,
        (Origin::Local, _, _) if error.errno == libc::EMSGSIZE => {
            return Some(Notice::TooBig { mtu: error.info });
        }
        (Origin::Local, _, _) => {
            return Notice::of(&io::Error::from_raw_os_error(error.errno));
        }
        (Origin::Other(_), _, _) => return None,
    };
    Some(Notice::Verbatim {
        kind: error.kind,
        code: error.code,
        rest,
    })
}

/// A packet from this address is forwarded by the router netns: no martian, not of one link only.
fn is_fit(offender: IpAddr, rules: &Rules) -> bool {
    let special = match offender {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_broadcast()
                || address.is_link_local()
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unicast_link_local()
        }
    };
    !special && !rules.is_ours(offender)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(origin: Origin, kind: u8, code: u8, info: u32) -> QueuedError {
        QueuedError {
            errno: libc::EMSGSIZE,
            origin,
            kind,
            code,
            info,
            offender: None,
        }
    }

    #[test]
    fn numbers_pass_on_as_they_came() {
        let cases = [
            (error(Origin::Icmp, 3, 4, 1400), 1400),
            (error(Origin::Icmpv6, 2, 0, 1280), 1280),
            (error(Origin::Icmp, 11, 0, 99), 0),
            (error(Origin::Icmp, 12, 0, 20), 20 << 24),
            (error(Origin::Icmpv6, 4, 1, 6), 6),
        ];
        for (error, rest) in cases {
            let expected = Notice::Verbatim {
                kind: error.kind,
                code: error.code,
                rest,
            };
            assert_eq!(notice(&error), Some(expected));
        }
        let local = notice(&error(Origin::Local, 0, 0, 1400));
        assert_eq!(local, Some(Notice::TooBig { mtu: 1400 }));
        assert_eq!(notice(&error(Origin::Other(4), 0, 0, 0)), None);
    }

    #[test]
    fn only_forwardable_reporters_are_named() {
        let rules = Rules::default();
        for fit in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1"] {
            assert!(is_fit(fit.parse().unwrap(), &rules), "{fit}");
        }
        for unfit in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.77.1",
            "224.0.0.1",
            "::1",
            "fe80::1",
        ] {
            assert!(!is_fit(unfit.parse().unwrap(), &rules), "{unfit}");
        }
    }
}
