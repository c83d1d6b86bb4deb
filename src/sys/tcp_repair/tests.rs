use super::*;
use crate::sys::own_netns::in_own_netns;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const BULK: usize = 8 << 20;

fn get<T: Copy + Default, const N: usize>(socket: BorrowedFd<'_>, option: i32) -> [T; N] {
    let mut values = [T::default(); N];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of `values`, all integers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    values
}

/// struct tcp_info, by its 32-bit words.
fn info(socket: BorrowedFd<'_>) -> [u32; 26] {
    get(socket, libc::TCP_INFO)
}

/// tcpi_snd_mss.
fn segment(socket: BorrowedFd<'_>) -> u32 {
    info(socket)[4]
}

/// Our side's connection, bytes left out.
fn state(socket: &TcpStream) -> Connection<'static> {
    let fd = socket.as_fd();
    set(fd, TCP_REPAIR, &[1]).unwrap();
    let [send_from, receive_from] = [TCP_SEND_QUEUE, TCP_RECV_QUEUE].map(|queue| {
        set(fd, TCP_REPAIR_QUEUE, &[queue]).unwrap();
        get::<u32, 1>(fd, TCP_QUEUE_SEQ)[0]
    });
    let [_, peer_window, _, rcv_wnd, rcv_wup] = get::<u32, 5>(fd, TCP_REPAIR_WINDOW);
    let [scales] = [info(fd)[1].to_ne_bytes()[2]];
    Connection {
        local: socket.local_addr().unwrap(),
        peer: socket.peer_addr().unwrap(),
        send_from,
        unacknowledged: &[],
        receive_from,
        received: &[],
        mss: (segment(fd) + 12) as u16,
        send_scale: scales & 0xf,
        receive_scale: scales >> 4,
        sack: true,
        // Odd on purpose.
        timestamp: Some(get::<u32, 1>(fd, TCP_TIMESTAMP)[0].wrapping_add(4) | 1),
        peer_window,
        window: rcv_wup.wrapping_add(rcv_wnd).wrapping_sub(receive_from),
    }
}

/// As the pool has them.
fn fresh(v6: bool) -> Socket {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    if v6 {
        socket.set_ip_transparent_v6(true).unwrap();
    } else {
        socket.set_ip_transparent_v4(true).unwrap();
    }
    socket
}

fn pair(v6: bool) -> (TcpStream, TcpStream) {
    let any = if v6 { "[::1]:0" } else { "127.0.0.1:0" };
    let listener = TcpListener::bind(any).unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    for stream in [&ours, &theirs] {
        patient(stream);
    }
    (ours, theirs)
}

fn patient(stream: &TcpStream) {
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).unwrap();
    stream.set_write_timeout(patience).unwrap();
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, bytes: &[u8]) {
    std::thread::scope(|scope| {
        scope.spawn(move || from.write_all(bytes).unwrap());
        expect(&mut to, bytes);
    });
}

fn expect(from: &mut impl Read, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    from.read_exact(&mut got).unwrap();
    assert!(got == bytes, "other bytes came");
}

/// Replaces our socket by a fresh one. `known`: bytes that the peer has and `ours` takes for unacknowledged; `lost`:
/// bytes that the peer never got; `unread`: how many bytes are received and not read.
fn replaced(v6: bool, known: usize, lost: usize, unread: usize) -> (TcpStream, TcpStream) {
    let (ours, theirs) = pair(v6);
    carry(&ours, &theirs, &bytes(known));
    carry(&theirs, &ours, &bytes(unread));
    // The last acknowledgement may be delayed (40 ms).
    let end = Instant::now() + Duration::from_secs(5);
    while [&ours, &theirs]
        .iter()
        .any(|side| info(side.as_fd())[6] != 0)
    {
        assert!(Instant::now() < end, "unacknowledged");
        std::thread::yield_now();
    }
    let before = segment(ours.as_fd());
    let whole = state(&ours);
    drop(ours);
    let unacknowledged = [bytes(known), bytes(lost)].concat();
    let received = bytes(unread);
    let connection = Connection {
        send_from: whole.send_from.wrapping_sub(known as u32),
        unacknowledged: &unacknowledged,
        receive_from: whole.receive_from.wrapping_sub(unread as u32),
        received: &received,
        ..whole
    };
    let socket = fresh(v6);
    restore(socket.as_fd(), &connection).unwrap();
    assert!(socket.reuse_address().unwrap());
    assert_eq!(segment(socket.as_fd()), before);
    socket.set_nonblocking(false).unwrap();
    let ours = TcpStream::from(socket);
    patient(&ours);
    expect(&mut &ours, &received);
    expect(&mut &theirs, &bytes(lost));
    (ours, theirs)
}

fn goes_on(ours: &TcpStream, theirs: &TcpStream) {
    let much = bytes(BULK);
    for (from, to) in [(ours, theirs), (theirs, ours)] {
        carry(from, to, b"a little");
        let begin = Instant::now();
        carry(from, to, &much);
        // Far less than a second; with a window or segments gone wrong it takes many.
        assert!(
            begin.elapsed() < Duration::from_secs(4),
            "{:?}",
            begin.elapsed()
        );
    }
    for (from, mut to) in [(ours, theirs), (theirs, ours)] {
        from.shutdown(Shutdown::Write).unwrap();
        assert_eq!(to.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_connection_goes_on_in_another_socket() {
    in_own_netns(
        module_path!(),
        "a_connection_goes_on_in_another_socket",
        || {
            for v6 in [false, true] {
                for (known, lost, unread) in [
                    (0, 0, 0),
                    (0, 5000, 0),
                    (2000, 5000, 3000),
                    (200_000, 0, 100_000),
                ] {
                    let (ours, theirs) = replaced(v6, known, lost, unread);
                    goes_on(&ours, &theirs);
                }
            }
        },
    );
}

#[test]
fn the_peer_of_a_failure_hears_nothing() {
    in_own_netns(
        module_path!(),
        "the_peer_of_a_failure_hears_nothing",
        || {
            for v6 in [false, true] {
                let (ours, theirs) = pair(v6);
                let connection = state(&ours);
                let there = fresh(v6);
                let error = restore(there.as_fd(), &connection).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
                drop((there, ours));
                // Fails after the connection is made.
                let (socket, wrong) = (
                    fresh(v6),
                    Connection {
                        send_scale: 15,
                        ..connection
                    },
                );
                let error = restore(socket.as_fd(), &wrong).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
                drop(socket);
                let socket = fresh(v6);
                restore(socket.as_fd(), &connection).unwrap();
                socket.set_nonblocking(false).unwrap();
                goes_on(&TcpStream::from(socket), &theirs);
            }
        },
    );
}

#[test]
fn it_is_possible_for_those_who_may() {
    in_own_netns(module_path!(), "it_is_possible_for_those_who_may", || {
        assert!(is_possible(fresh(false).as_fd()));
        let socket = fresh(false);
        caps::clear(None, caps::CapSet::Effective).unwrap();
        assert!(!is_possible(socket.as_fd()));
    });
}
