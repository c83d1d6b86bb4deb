//! TCP socket options that no safe wrapper offers.
//!
//! Sources: tcp(7), linux/tcp.h.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Most bytes of a kept SYN: IPv6 header with options, and a full TCP header.
const SAVED_SYN_LEN: usize = 512;

/// Lets a listener keep the headers of the SYN that made each connection (`TCP_SAVE_SYN`).
pub fn save_syn(listener: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` outlives the call, which only reads its four bytes.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVE_SYN,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// IP and TCP header of the SYN that made an accepted connection (`TCP_SAVED_SYN`); they can be
/// read once. Empty where none was kept (SYN cookies).
pub fn saved_syn(socket: BorrowedFd<'_>) -> io::Result<SavedSyn> {
    let mut syn = SavedSyn {
        bytes: [0; SAVED_SYN_LEN],
        length: 0,
    };
    let mut length = SAVED_SYN_LEN as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `bytes`; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVED_SYN,
            syn.bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    syn.length = length as usize;
    Ok(syn)
}

/// Headers of a SYN.
pub struct SavedSyn {
    bytes: [u8; SAVED_SYN_LEN],
    length: usize,
}

impl SavedSyn {
    /// From the IP header on.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Bytes written to a TCP socket that its peer has not acknowledged yet (`SIOCOUTQ`, tcp(7)).
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the request writes one int, to which the pointer leads.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(count).unwrap_or(0))
}

/// The round trip that the kernel has measured so far, smoothed (`TCP_INFO`): of a connection that was just
/// accepted, from its SYN-ACK to the ACK. `None` where it has measured none: a SYN-ACK that was sent twice, SYN cookies.
pub fn round_trip(socket: BorrowedFd<'_>) -> io::Result<Option<Duration>> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of what the pointer leads to.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all fields are integers, for which any bytes will do; what the kernel left out is zero.
    let microseconds = unsafe { info.assume_init() }.tcpi_rtt;
    Ok((microseconds > 0).then(|| Duration::from_micros(microseconds.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn a_connection_over_the_loopback_has_a_short_round_trip() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let rounds = (0..20).map(|_| {
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            round_trip(accepted.as_fd()).unwrap().unwrap()
        });
        let shortest = rounds.min().unwrap();
        assert!(shortest < Duration::from_millis(1), "{shortest:?}");
        assert_eq!(round_trip(listener.as_fd()).unwrap(), None);
        assert!(round_trip(std::fs::File::open("/").unwrap().as_fd()).is_err());
    }
}
