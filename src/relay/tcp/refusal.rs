//! What a container is told when the host side cannot connect: what it would see itself, were it
//! the one to connect.
//!
//! Sources: connect(2), tcp(7), RFC 1122 §4.2.3.9, RFC 1812 §5.2.7.1, RFC 4443 §3.1.

use crate::relay::wire::icmp::Notice;
use crate::sys::udp::{Origin, QueuedError};
use std::net::IpAddr;

/// The answer to a SYN that leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// RST: nobody listens.
    Reset,
    /// ICMP error, from whoever reported it, or from our stand-in.
    Notice {
        /// What.
        notice: Notice,
        /// Who says so, where somebody on the way did.
        from: Option<IpAddr>,
    },
    /// Nothing, as on the real network: the container's own time-out is running.
    Silence,
}

impl Answer {
    /// From the error of the connect, and the ICMP error behind it if there was one.
    ///
    /// `fit`: whether an address may stand as the source of a packet in the router netns.
    pub fn to(errno: i32, queued: Option<QueuedError>, fit: impl Fn(IpAddr) -> bool) -> Self {
        if let Some(error) = queued.filter(|error| error.errno == errno)
            && matches!(error.origin, Origin::Icmp | Origin::Icmpv6)
        {
            return Self::Notice {
                notice: Notice::Verbatim {
                    kind: error.kind,
                    code: error.code,
                    rest: 0,
                },
                from: error.offender.filter(|offender| fit(*offender)),
            };
        }
        let notice = match errno {
            // EADDRNOTAVAIL: all ports to this destination are in use, or no IPv6 address to send
            // from. Fast failure in both cases.
            libc::ECONNREFUSED | libc::ECONNRESET | libc::EPIPE => return Self::Reset,
            libc::ETIMEDOUT => return Self::Silence,
            libc::ENETUNREACH | libc::ENETDOWN | libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL => {
                Notice::NoRoute
            }
            libc::EACCES | libc::EPERM => Notice::Prohibited,
            _ => Notice::HostUnreachable,
        };
        Self::Notice { notice, from: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(notice: Notice) -> Answer {
        Answer::Notice { notice, from: None }
    }

    #[test]
    fn errors_are_told_as_they_are() {
        for (errno, answer) in [
            (libc::ECONNREFUSED, Answer::Reset),
            (libc::ETIMEDOUT, Answer::Silence),
            (libc::ENETUNREACH, notice(Notice::NoRoute)),
            (libc::EHOSTUNREACH, notice(Notice::HostUnreachable)),
            (libc::EACCES, notice(Notice::Prohibited)),
            (libc::EPERM, notice(Notice::Prohibited)),
            (libc::EAFNOSUPPORT, notice(Notice::NoRoute)),
            (libc::EINVAL, notice(Notice::HostUnreachable)),
        ] {
            assert_eq!(Answer::to(errno, None, |_| true), answer, "{errno}");
        }
    }

    #[test]
    fn icmp_errors_are_passed_on_from_a_fit_offender() {
        let offender: IpAddr = "198.51.100.1".parse().unwrap();
        let queued = QueuedError {
            errno: libc::EHOSTUNREACH,
            origin: Origin::Icmp,
            kind: 11,
            code: 0,
            info: 0,
            offender: Some(offender),
        };
        let verbatim = Notice::Verbatim {
            kind: 11,
            code: 0,
            rest: 0,
        };
        let told = |fit: bool| Answer::to(libc::EHOSTUNREACH, Some(queued), |_| fit);
        assert_eq!(
            told(true),
            Answer::Notice {
                notice: verbatim,
                from: Some(offender)
            }
        );
        assert_eq!(told(false), notice(verbatim));
        // An error of something else does not explain this one.
        assert_eq!(
            Answer::to(libc::ECONNREFUSED, Some(queued), |_| true),
            Answer::Reset
        );
    }
}
