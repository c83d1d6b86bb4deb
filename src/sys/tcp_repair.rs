//! TCP connections that the kernel takes over from somebody who has spoken TCP until now (`TCP_REPAIR`).
//!
//! A socket in repair mode is told what it would have learnt by itself, sends nothing meanwhile, and is
//! closed without a word; so whatever fails here, the peer notices nothing. All of it takes CAP_NET_ADMIN over the
//! user namespace that owns the socket's network namespace, also the end of repair mode.
//!
//! Two things that the kernel does not do, as of Linux 6.18:
//!
//! * It does not hold back the peer. What comes for the connection between connect(2) and the end of [`restore`] is
//!   processed in a state that is only half told; no harm comes of it but a segment that must be sent
//!   again, unless it ends the connection: then `restore` fails.
//! * The window probe that ends repair mode lies outside the peer's window: the peer answers with an
//!   acknowledgement, but keeps echoing our last timestamp until it gets a segment in sequence.
//!
//! Sources: `do_tcp_setsockopt`, `tcp_repair_set_window`, `tcp_repair_options_est` in the kernel's
//! net/ipv4/tcp.c, `tcp_send_window_probe` in tcp_output.c, linux/tcp.h.

use nix::sys::socket::{MsgFlags, send};
use socket2::{SockAddr, SockRef};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

// linux/tcp.h; the libc crate has none of them.
const TCP_REPAIR: libc::c_int = 19;
const TCP_REPAIR_QUEUE: libc::c_int = 20;
const TCP_QUEUE_SEQ: libc::c_int = 21;
const TCP_REPAIR_OPTIONS: libc::c_int = 22;
const TCP_TIMESTAMP: libc::c_int = 24;
const TCP_REPAIR_WINDOW: libc::c_int = 29;

const TCP_RECV_QUEUE: u32 = 1;
const TCP_SEND_QUEUE: u32 = 2;

// Kinds of options (RFC 9293 §3.1, RFC 7323 §2.2 and 3.2, RFC 2018 §2).
const MSS: u32 = 2;
const WINDOW_SCALE: u32 = 3;
const SACK_PERMITTED: u32 = 4;
const TIMESTAMPS: u32 = 8;

/// What TCP_MAXSEG takes (include/net/tcp.h, TCP_MIN_MSS and MAX_TCP_WINDOW).
const LEAST_MSS: u16 = 88;
const MOST_MAXSEG: u16 = 32_767;

/// A connection as its kernel shall go on with it.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    /// Our address; may be foreign where the socket is IP_TRANSPARENT.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// Sequence number of the first of `unacknowledged`.
    pub send_from: u32,
    /// Sent, not acknowledged. Where the peer has it, its answer to the window probe says so. Where it
    /// is lost, the kernel sends it again only after the timeouts of a connection whose round trip it does not know: of
    /// more than a segment, the last after 1 s, the others after some 4 s.
    pub unacknowledged: &'a [u8],
    /// Sequence number of the first of `received`.
    pub receive_from: u32,
    /// Received, acknowledged or about to be, and not read yet.
    pub received: &'a [u8],
    /// What the peer announced, bytes; options count as part of it.
    pub mss: u16,
    /// Window scale of the peer; 0 where it told none.
    pub send_scale: u8,
    /// Ours; 0 where the peer told none.
    pub receive_scale: u8,
    /// Both sides may use selective acknowledgements.
    pub sack: bool,
    /// Our next TSval (ms), where both sides use timestamps. The kernel begins with it or the next even
    /// number: an odd one would have it count microseconds.
    pub timestamp: Option<u32>,
    /// What the peer said last, bytes from the last acknowledgement on.
    pub peer_window: u32,
    /// Bytes that the peer may send beyond `received`, as far as it knows.
    pub window: u32,
}

/// Whether connections can be given to sockets like this one, which must be fresh; it loses
/// SO_REUSEADDR. Not so without CAP_NET_ADMIN, or in a kernel without CONFIG_INET_TCP_REPAIR.
pub fn is_possible(socket: BorrowedFd<'_>) -> bool {
    [1, 0]
        .iter()
        .all(|on| set(socket, TCP_REPAIR, &[*on]).is_ok())
}

/// Makes a connection of a fresh TCP socket, not bound, whose SO_REUSEADDR is set. Then the peer is sent a
/// window probe.
///
/// On failure the socket must be dropped, and the peer hears nothing. EPERM without CAP_NET_ADMIN,
/// EADDRNOTAVAIL where the kernel has that connection already, EAGAIN or ENOMEM where the bytes
/// find no room in the socket's buffers.
pub fn restore(socket: BorrowedFd<'_>, connection: &Connection<'_>) -> io::Result<()> {
    set(socket, TCP_REPAIR, &[1])?;
    set(socket, TCP_REPAIR_QUEUE, &[TCP_RECV_QUEUE])?;
    set(socket, TCP_QUEUE_SEQ, &[connection.receive_from])?;
    set(socket, TCP_REPAIR_QUEUE, &[TCP_SEND_QUEUE])?;
    set(socket, TCP_QUEUE_SEQ, &[connection.send_from])?;
    // From the option below the kernel learns the limit, but reckons with 536 bytes for a while.
    let segment = connection.mss.clamp(LEAST_MSS, MOST_MAXSEG);
    set(socket, libc::TCP_MAXSEG, &[u32::from(segment)])?;
    let options = SockRef::from(&socket);
    options.bind(&SockAddr::from(connection.local))?;
    options.connect(&SockAddr::from(connection.peer))?;
    negotiated(socket, connection)?;
    // The send queue is still the one that is repaired.
    queue_unacknowledged(socket, connection.unacknowledged)?;
    if !connection.received.is_empty() {
        set(socket, TCP_REPAIR_QUEUE, &[TCP_RECV_QUEUE])?;
        queue(socket, connection.received).map_err(|(_, error)| error)?;
    }
    windows(socket, connection)?;
    set(socket, TCP_REPAIR, &[0])?;
    // Repair mode has taken it away, and others will want to bind the address too.
    options.set_reuse_address(true)
}

/// What both sides said in their SYNs, and where our timestamps are.
fn negotiated(socket: BorrowedFd<'_>, connection: &Connection<'_>) -> io::Result<()> {
    let scales = u32::from(connection.send_scale) | u32::from(connection.receive_scale) << 16;
    let options = [
        Some([MSS, connection.mss.max(LEAST_MSS).into()]),
        Some([WINDOW_SCALE, scales]),
        connection.sack.then_some([SACK_PERMITTED, 0]),
        connection.timestamp.map(|_| [TIMESTAMPS, 0]),
    ];
    let options: Vec<[u32; 2]> = options.into_iter().flatten().collect();
    set(socket, TCP_REPAIR_OPTIONS, &options)?;
    match connection.timestamp {
        // Since Linux 6.7 an odd value asks for microseconds.
        Some(next) => set(socket, TCP_TIMESTAMP, &[next.wrapping_add(next & 1)]),
        None => Ok(()),
    }
}

fn windows(socket: BorrowedFd<'_>, connection: &Connection<'_>) -> io::Result<()> {
    // Wraps as sequence numbers do.
    let received = connection.received.len() as u32;
    let next = connection.receive_from.wrapping_add(received);
    // struct tcp_repair_window. The segment that told the peer's window is older than whatever comes.
    let snd_wl1 = next.wrapping_sub(1);
    let snd_wnd = connection.peer_window;
    let max_window = snd_wnd;
    let rcv_wnd = connection.window;
    let rcv_wup = next;
    let window = [snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup];
    set(socket, TCP_REPAIR_WINDOW, &window)
}

/// A fresh socket's buffer holds some 50 KB, and only traffic makes it grow.
fn queue_unacknowledged(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    const BOTH_GROW_BY_THEMSELVES: libc::c_int = 0;
    let Err((queued, error)) = queue(socket, bytes) else {
        return Ok(());
    };
    if error.kind() != io::ErrorKind::WouldBlock {
        return Err(error);
    }
    SockRef::from(&socket).set_send_buffer_size(2 * bytes.len())?;
    // A size that was asked for stays, unless told otherwise (SO_BUF_LOCK, Linux 5.14).
    let grow = BOTH_GROW_BY_THEMSELVES;
    set_at(socket, libc::SOL_SOCKET, libc::SO_BUF_LOCK, &[grow])?;
    let rest = bytes.get(queued..).unwrap_or_default();
    queue(socket, rest).map_err(|(_, error)| error)
}

/// Adds to the queue that is being repaired; on failure, how many bytes it got.
fn queue(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let mut queued = 0;
    while let Some(rest) = bytes.get(queued..).filter(|rest| !rest.is_empty()) {
        match send(socket.as_raw_fd(), rest, flags) {
            Ok(0) => return Err((queued, io::ErrorKind::WriteZero.into())),
            Ok(count) => queued += count,
            Err(errno) => return Err((queued, errno.into())),
        }
    }
    Ok(())
}

fn set<T: Copy>(socket: BorrowedFd<'_>, option: libc::c_int, values: &[T]) -> io::Result<()> {
    set_at(socket, libc::IPPROTO_TCP, option, values)
}

/// setsockopt(2) of an option that is an array of integers, or one.
pub(crate) fn set_at<T: Copy>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    values: &[T],
) -> io::Result<()> {
    // SAFETY: `values` outlives the call, which only reads so many of its bytes.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            values.as_ptr().cast(),
            size_of_val(values) as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
