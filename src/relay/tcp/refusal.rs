//! What a container is told when the host side cannot connect: what it would see itself, were it
//! the one to connect.
//!
//! Sources: connect(2), tcp(7), RFC 1122 §4.2.3.9, RFC 1812 §5.2.7.1, RFC 4443 §3.1.

use crate::relay::wire::icmp::Notice;
use crate::sys::udp::{Origin, QueuedError};
use std::io;

/// The answer to a SYN that leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// RST: nobody listens.
    Reset,
    /// What somebody on the way has reported, passed on.
    Reported(QueuedError),
    /// An ICMP error of our own.
    Notice(Notice),
    /// Nothing, as on the real network: the container's own time-out is running.
    Silence,
}

impl Answer {
    /// From the error of the connect, and the ICMP error behind it if there was one.
    pub fn to(error: &io::Error, queued: Option<QueuedError>) -> Self {
        if let Some(queued) = queued.filter(|queued| error.raw_os_error() == Some(queued.errno))
            && matches!(queued.origin, Origin::Icmp | Origin::Icmpv6)
        {
            return Self::Reported(queued);
        }
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::EPIPE) => Self::Reset,
            Some(libc::ETIMEDOUT) => Self::Silence,
            // Our own shortage, not the destination's: fast failure, as a host does without sockets.
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Self::Reset,
            _ => Self::Notice(Notice::of(error).unwrap_or(Notice::HostUnreachable)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(errno: i32, queued: Option<QueuedError>) -> Answer {
        Answer::to(&io::Error::from_raw_os_error(errno), queued)
    }

    #[test]
    fn errors_are_told_as_they_are() {
        for (errno, answer) in [
            (libc::ECONNREFUSED, Answer::Reset),
            (libc::ETIMEDOUT, Answer::Silence),
            (libc::EMFILE, Answer::Reset),
            (libc::ENETUNREACH, Answer::Notice(Notice::NoRoute)),
            (libc::EADDRNOTAVAIL, Answer::Notice(Notice::NoRoute)),
            (libc::EHOSTUNREACH, Answer::Notice(Notice::HostUnreachable)),
            (libc::EACCES, Answer::Notice(Notice::Prohibited)),
            (libc::EPERM, Answer::Notice(Notice::Prohibited)),
            (libc::EINVAL, Answer::Notice(Notice::HostUnreachable)),
        ] {
            assert_eq!(to(errno, None), answer, "{errno}");
        }
    }

    #[test]
    fn icmp_errors_are_passed_on() {
        let queued = QueuedError {
            errno: libc::EHOSTUNREACH,
            origin: Origin::Icmp,
            kind: 11,
            code: 0,
            info: 0,
            offender: Some("198.51.100.1".parse().unwrap()),
        };
        let host = libc::EHOSTUNREACH;
        assert_eq!(to(host, Some(queued)), Answer::Reported(queued));
        // An error of something else does not explain this one, nor does one of our own kernel.
        assert_eq!(to(libc::ECONNREFUSED, Some(queued)), Answer::Reset);
        let local = QueuedError {
            origin: Origin::Local,
            ..queued
        };
        let answer = Answer::Notice(Notice::HostUnreachable);
        assert_eq!(to(host, Some(local)), answer);
    }
}
