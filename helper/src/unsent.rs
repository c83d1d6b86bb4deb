//! What a network namespace still has to deliver after the processes in it have ended.
//!
//! close(2) returns before the peer has everything: the kernel goes on sending from a socket that
//! nobody holds any more, for as long as its network is there. Such sockets are those whose FIN is
//! not acknowledged. Datagrams need no such care: sendto(2) takes them through the veth pair, into the
//! queue of a socket in the router netns or of a neighbour, before it returns.
//!
//! Where no process is left, every TCP socket in use is such a one, and their number is had at once
//! (one in TIME_WAIT, or in FIN_WAIT2 without an owner, is not in use). Where some are, the table of
//! all sockets must tell; that takes the kernel milliseconds, since it is one table for all network
//! namespaces. Read from /proc and not by SOCK_DIAG, whose inet_diag and tcp_diag may be modules that
//! only root can load.
//!
//! Sources: RFC 9293 section 3.3.2, proc_pid_net(5), include/net/tcp_states.h, tcp_close() and
//! sockstat_seq_show() of Linux.

use crate::namespace::in_netns;
use crate::request::Failure;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::BorrowedFd;

/// FIN_WAIT1, LAST_ACK and CLOSING, as the `st` column has them.
const UNDELIVERED: [&str; 3] = ["04", "09", "0B"];

/// Count the TCP sockets in `netns` whose last bytes, or whose FIN, the peer has not acknowledged.
/// `inhabited`: processes still live in it.
pub fn count(netns: BorrowedFd<'_>, inhabited: bool) -> Result<u32, Failure> {
    in_netns(netns, || {
        let used = sum(["sockstat", "sockstat6"], |file| {
            fs::read_to_string(file).map(|text| in_use(&text))
        })?;
        if used == 0 || !inhabited {
            return Ok(used);
        }
        sum(["tcp", "tcp6"], |file| {
            undelivered(BufReader::new(File::open(file)?))
        })
    })
}

/// Of both address families, as the calling thread's network namespace has them.
fn sum(files: [&str; 2], count: impl Fn(&str) -> io::Result<u32>) -> Result<u32, Failure> {
    files.into_iter().try_fold(0, |sum: u32, file| {
        let file = format!("/proc/thread-self/net/{file}");
        match count(&file) {
            Ok(found) => Ok(sum.saturating_add(found)),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(sum),
            Err(error) => Err(Failure::kernel(format!("read {file}"), error)),
        }
    })
}

/// `TCP: inuse 3 orphan …` or `TCP6: inuse 3`. Only the first number is of this namespace alone.
fn in_use(text: &str) -> u32 {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let ours = matches!(words.next(), Some("TCP:" | "TCP6:")) && words.next() == Some("inuse");
        ours.then(|| words.next()?.parse().ok())?
    };
    text.lines().find_map(line).unwrap_or(0)
}

/// Lines of the table, after its head: `sl local_address rem_address st …`.
fn undelivered(table: impl BufRead) -> io::Result<u32> {
    let mut count: u32 = 0;
    for line in table.lines().skip(1) {
        let line = line?;
        let state = line.split_ascii_whitespace().nth(3);
        if state.is_some_and(|state| UNDELIVERED.contains(&state)) {
            count = count.saturating_add(1);
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_in_use_are_read() {
        let text =
            "sockets: used 129\nTCP: inuse 4 orphan 9 tw 5 alloc 6 mem 1\nUDP: inuse 2 mem 3\n";
        assert_eq!(in_use(text), 4);
        assert_eq!(
            in_use("TCP6: inuse 17\nUDP6: inuse 1\nUDPLITE6: inuse 0\n"),
            17
        );
        for none in ["", "TCP:", "TCP: inuse", "TCP: inuse x", "UDP: inuse 3\n"] {
            assert_eq!(in_use(none), 0, "{none}");
        }
    }

    #[test]
    fn only_what_waits_for_an_acknowledgement_counts() {
        let line = |state: &str| {
            format!("   1: 0200590A:D2F0 0271CB00:0050 {state} 0000C350:00000000 01:00000014\n")
        };
        let table = |states: &[&str]| {
            let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n";
            let lines: String = states.iter().map(|state| line(state)).collect();
            undelivered((head.to_owned() + &lines).as_bytes()).unwrap()
        };
        assert_eq!(table(&[]), 0);
        assert_eq!(table(&["04", "09", "0B"]), 3);
        // Established, SYN sent and received, FIN_WAIT2, TIME_WAIT, closed, CLOSE_WAIT, listening.
        assert_eq!(
            table(&["01", "02", "03", "05", "06", "07", "08", "0A", "0C"]),
            0
        );
        // IPv6 has longer addresses in the same columns.
        let six = "head\n 0: 0000000000000000FFFF00000200590A:1 B80D0120000000000000000001000000:50 04 0:1\n";
        assert_eq!(undelivered(six.as_bytes()).unwrap(), 1);
        assert_eq!(undelivered(&b"head\n\n  junk\n"[..]).unwrap(), 0);
    }
}
