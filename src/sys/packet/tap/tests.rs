use super::super::{FrameRing, Gso, VNET_HEADER_LEN, ask, checksum_is_known, send_on, vnet_header};
use super::*;
use crate::sys::own_netns::in_own_netns;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

const TIMESTAMP: u32 = 0x6d6f_7302;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;
const TCP: u8 = 6;
const UDP: u8 = 17;
const LARGEST: usize = 70_000;

/// What the kernel would do with the program, for the instructions that it has.
fn passes(frame: &[u8]) -> bool {
    passes_as(libc::PACKET_OTHERHOST, frame)
}

/// Of a frame that is for us, say, or for another.
fn passes_as(kind: u8, frame: &[u8]) -> bool {
    // SAFETY: SockFilter is a transparent sock_filter.
    let program: [libc::sock_filter; 29] = unsafe { std::mem::transmute(filter(TIMESTAMP)) };
    let (mut at, mut a, mut x) = (0, 0_u32, 0_u32);
    loop {
        let instruction = program[at];
        let k = instruction.k;
        let load = |from: u32, bytes: usize| {
            let from = from as usize;
            let bytes = frame.get(from..from + bytes)?;
            Some(
                bytes
                    .iter()
                    .fold(0, |word, byte| word << 8 | u32::from(*byte)),
            )
        };
        let jump = |so: bool| usize::from(if so { instruction.jt } else { instruction.jf });
        let mut skip = 0;
        let loaded = match instruction.code {
            RETURN => return k != 0,
            WORD if k == PACKET_TYPE => Some(u32::from(kind)),
            BYTE => load(k, 1),
            HALF => load(k, 2),
            HALF_AT => load(x + k, 2),
            WORD_AT => load(x + k, 4),
            code => {
                match code {
                    INDEX => x = k,
                    HEADER_LEN => match load(k, 1) {
                        Some(byte) => x = 4 * (byte & 0xf),
                        None => return false,
                    },
                    AND => a &= k,
                    SKIP => skip = k as usize,
                    IF_EQUAL => skip = jump(a == k),
                    IF_ANY_BIT => skip = jump(a & k != 0),
                    other => panic!("instruction {other:#x}"),
                }
                Some(a)
            }
        };
        let Some(loaded) = loaded else { return false };
        a = loaded;
        at += 1 + skip;
    }
}

fn tcp(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let words = 5 + options.len() / 4;
    let mut segment = vec![0; 20];
    segment[12] = (words << 4) as u8;
    segment[13] = flags;
    [&segment, options, payload].concat()
}

fn timestamps(echoed: u32) -> Vec<u8> {
    let word = [1, 1, 8, 10];
    [&word, &7_u32.to_be_bytes()[..], &echoed.to_be_bytes()].concat()
}

fn framed(flags: u8) -> Vec<u8> {
    tcp(flags, &timestamps(TIMESTAMP), b"GET /")
}

fn ethernet(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &ethertype.to_be_bytes(), packet].concat()
}

fn v4_with(options: &[u8], fragment: u16, protocol: u8, segment: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[0] = 0x45 + (options.len() / 4) as u8;
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    header[9] = protocol;
    ethernet(0x0800, &[&header, options, segment].concat())
}

fn v4(segment: &[u8]) -> Vec<u8> {
    const DONT_FRAGMENT: u16 = 0x4000;
    v4_with(&[], DONT_FRAGMENT, TCP, segment)
}

fn v6(next: u8, segment: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 40];
    (header[0], header[6]) = (0x60, next);
    ethernet(0x86dd, &[&header, segment].concat())
}

#[test]
fn segments_that_echo_the_timestamp_pass() {
    for flags in [ACK, ACK | 1, ACK | RST] {
        assert!(passes(&v4(&framed(flags))));
        assert!(passes(&v6(TCP, &framed(flags))));
    }
    assert!(passes(&v4_with(&[1; 4], 0, TCP, &framed(ACK))));
    assert!(passes(&v4_with(&[1; 40], 0, TCP, &framed(ACK))));
    let sack = [
        timestamps(TIMESTAMP),
        vec![1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2],
    ]
    .concat();
    assert!(passes(&v4(&tcp(ACK, &sack, b""))));
}

#[test]
fn answers_to_a_syn_pass() {
    const SYN: u8 = 2;
    let answer = |kind: [u8; 2], echoed: u32| {
        let size = [2, 4, 5, 180];
        let clock = 7_u32.to_be_bytes();
        let echoed = echoed.to_be_bytes();
        [&size[..], &kind, &[8, 10], &clock, &echoed, &[1, 3, 3, 7]].concat()
    };
    for kind in [[1, 1], [4, 2]] {
        let mine = tcp(SYN | ACK, &answer(kind, TIMESTAMP), &[]);
        assert!(passes(&v4(&mine)));
        assert!(passes(&v6(TCP, &mine)));
        let other = tcp(SYN | ACK, &answer(kind, TIMESTAMP ^ 1), &[]);
        assert!(!passes(&v4(&other)));
        // Where another segment has data.
        assert!(!passes(&v4(&tcp(ACK, &answer(kind, TIMESTAMP), &[]))));
    }
    assert!(!passes(&v4(&framed(SYN))));
    assert!(!passes(&v4(&tcp(SYN, &[], &[]))));
}

#[test]
fn what_a_bridge_has_passed_on_to_the_router_was_seen_before() {
    assert!(!passes_as(libc::PACKET_HOST, &v4(&framed(ACK))));
    assert!(!passes_as(libc::PACKET_BROADCAST, &v4(&framed(ACK))));
}

#[test]
fn resets_without_options_pass() {
    for flags in [RST, RST | ACK] {
        let reset = tcp(flags, &[], &[]);
        assert!(passes(&v4(&reset)));
        assert!(passes(&v6(TCP, &reset)));
        assert!(passes(&v4_with(&[1; 8], 0, TCP, &reset)));
    }
    let with_options = tcp(RST, &timestamps(TIMESTAMP + 1), &[]);
    assert!(!passes(&v4(&with_options)));
    assert!(!passes(&v6(TCP, &with_options)));
}

#[test]
fn everything_else_is_dropped() {
    let other_first = [2, 4, 5, 180, 1, 1, 8, 10, 0, 0, 0, 7];
    let segments = [
        tcp(ACK, &timestamps(TIMESTAMP - 1), b"GET /"),
        tcp(ACK, &timestamps(TIMESTAMP | 0x8000_0000), b"GET /"),
        tcp(
            ACK,
            &[&other_first[..8], &TIMESTAMP.to_be_bytes()].concat(),
            b"",
        ),
        tcp(ACK, &[], &timestamps(TIMESTAMP)[..11]),
        tcp(ACK, &[], b""),
        tcp(2, &other_first, b""),
        framed(ACK)[..31].to_vec(),
        framed(ACK)[..13].to_vec(),
    ];
    for segment in segments {
        assert!(!passes(&v4(&segment)), "{segment:?}");
        assert!(!passes(&v6(TCP, &segment)), "{segment:?}");
    }
    for fragment in [0x2000, 0x0001, 0x1fff] {
        assert!(!passes(&v4_with(&[], fragment, TCP, &framed(ACK))));
        assert!(!passes(&v4_with(&[], fragment, TCP, &tcp(RST, &[], &[]))));
    }
    assert!(!passes(&v4_with(&[], 0, UDP, &framed(ACK))));
    assert!(!passes(&v6(UDP, &framed(ACK))));
    assert!(!passes(&v6(0, &framed(ACK))), "hop-by-hop options first");
    assert!(!passes(&ethernet(0x0806, &v4(&framed(ACK))[14..])), "ARP");
    for frame in [v4(&framed(ACK)), v6(TCP, &framed(ACK))] {
        for length in 0..46 {
            assert!(!passes(&frame[..length]), "{length}");
        }
    }
}

#[test]
fn headers_are_as_the_kernel_has_them() {
    let plain = vnet_header(0x1234, 16, None);
    assert_eq!(plain[..2], [1, 0]);
    assert_eq!(plain[2..6], [0; 4]);
    assert_eq!(plain[6..8], 0x1234_u16.to_ne_bytes());
    assert_eq!(plain[8..], 16_u16.to_ne_bytes());
    let large = vnet_header(54, 16, Some((Gso::TcpV6, 1440, 86)));
    assert_eq!(large[1], 4);
    assert_eq!(large[2..4], 86_u16.to_ne_bytes());
    assert_eq!(large[4..6], 1440_u16.to_ne_bytes());
    assert_eq!(vnet_header(34, 16, Some((Gso::TcpV4, 1, 2)))[1], 1);
    for (flags, known) in [(0, false), (1, true), (2, true), (4, false)] {
        assert_eq!(checksum_is_known(&[flags, 0]), known);
    }
    assert!(!checksum_is_known(&[]));
}

/// What has come, waited for up to a second, with its interface.
fn received(socket: BorrowedFd<'_>, ring: &mut FrameRing) -> Vec<(u32, Vec<u8>)> {
    let end = Instant::now() + Duration::from_secs(1);
    while ring.receive(socket).unwrap() == 0 {
        assert!(Instant::now() < end, "nothing came");
        std::thread::yield_now();
    }
    let frames = ring.iter_with_interface();
    let frames = frames.map(|(interface, frame)| (interface, frame.to_vec()));
    let frames = frames.collect();
    assert_eq!(ring.iter().count(), ring.iter_with_interface().count());
    ring.give_back();
    frames
}

#[test]
fn a_tap_sees_all_interfaces_and_says_which() {
    in_own_netns(
        module_path!(),
        "a_tap_sees_all_interfaces_and_says_which",
        || {
            let taps = [TIMESTAMP, 0].map(|timestamp| of_timestamp(timestamp).unwrap());
            let opened = ask(taps.into()).wait(LARGEST).into_iter();
            let opened: io::Result<Vec<_>> = opened.map(|one| one?.listen()).collect();
            let Ok([(socket, mut ring), (sender, _)]) = <[_; 2]>::try_from(opened.unwrap()) else {
                panic!("two were asked for");
            };
            let indices = ["lo", "tap-a", "tap-b"].map(nix::net::if_::if_nametoindex);
            let [lo, a, b] = indices.map(Result::unwrap);
            // A frame that has no place in a slot comes whole, and its interface is known as well.
            let large = tcp(ACK, &timestamps(TIMESTAMP), &[7; 1400]);
            let none = [0; VNET_HEADER_LEN];
            // What is sent by an end of a pair of interfaces comes to the other.
            for (out, to) in [(lo, lo), (a, b), (b, a)] {
                for segment in [framed(ACK), large.clone()] {
                    let frame = [&none[..], &v6(TCP, &segment)].concat();
                    let dropped = [&none[..], &v4(&tcp(ACK, &timestamps(1), b""))].concat();
                    send_on(sender.as_fd(), out, &dropped).unwrap();
                    send_on(sender.as_fd(), out, &frame).unwrap();
                    let got = received(socket.as_fd(), &mut ring);
                    assert_eq!(got.len(), 1, "once, and only what was asked for");
                    assert_eq!(got[0].0, to);
                    assert_eq!(got[0].1[VNET_HEADER_LEN..], frame[VNET_HEADER_LEN..]);
                }
            }
            let gone = send_on(sender.as_fd(), 1000, &[0; 100]).unwrap_err();
            assert_eq!(gone.raw_os_error(), Some(libc::ENXIO));
        },
    );
}
