use super::*;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

fn pair(v6: bool) -> (UdpSocket, UdpSocket, SocketAddr) {
    let any = if v6 { "[::1]:0" } else { "127.0.0.1:0" };
    let (from, to) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
    let address = to.local_addr().unwrap();
    (from, to, address)
}

fn to_address(address: SocketAddr) -> Path {
    Path {
        destination: Some(address),
        source: None,
        v6: address.is_ipv6(),
    }
}

#[test]
fn one_socket_of_both_families_answers_from_the_address_asked() {
    let both = UdpSocket::bind("[::]:0").unwrap();
    let port = both.local_addr().unwrap().port();
    enable(both.as_fd(), true, Report::LocalAddress).unwrap();
    for asked in ["127.0.0.9", "::1"] {
        let asked: std::net::IpAddr = asked.parse().unwrap();
        let any = if asked.is_ipv6() {
            "[::1]:0"
        } else {
            "127.0.0.1:0"
        };
        let client = UdpSocket::bind(any).unwrap();
        // Connected: hears nothing that comes from another address.
        client.connect((asked, port)).unwrap();
        client.send(b"question").unwrap();
        let mut batch = Batch::new(4, 2048);
        assert_eq!(batch.receive(both.as_fd()).unwrap(), 1);
        let got: Vec<_> = batch.iter().collect();
        assert_eq!(got[0].local, Some(asked));
        let source = got[0].source.unwrap();
        let destination = SocketAddr::new(source.ip().to_canonical(), source.port());
        assert_eq!(Some(destination), client.local_addr().ok());
        let path = Path {
            destination: Some(destination),
            source: Some(asked),
            v6: asked.is_ipv6(),
        };
        let marked = Datagram {
            tos: 0x2e << 2,
            ..Datagram::plain(b"answer")
        };
        assert_eq!(send(both.as_fd(), path, &[marked]).unwrap(), 1);
        client
            .set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 6);
    }
}

#[test]
fn batches_carry_addresses_ttl_and_tos() {
    for v6 in [false, true] {
        let (from, to, address) = pair(v6);
        for report in [Report::Ttl, Report::Tos] {
            enable(to.as_fd(), v6, report).unwrap();
        }
        let marked = Datagram {
            tos: 0x2e << 2,
            ttl: Some(7),
            ..Datagram::plain(b"marked")
        };
        let datagrams = [marked, Datagram::plain(b""), marked];
        assert_eq!(
            send(from.as_fd(), to_address(address), &datagrams).unwrap(),
            3
        );
        let mut batch = Batch::new(8, 2048);
        assert_eq!(batch.receive(to.as_fd()).unwrap(), 3);
        let got: Vec<_> = batch.iter().collect();
        assert_eq!(got[0].data, b"marked");
        assert_eq!((got[0].ttl, got[0].tos), (Some(7), 0x2e << 2));
        assert_eq!(got[0].source, from.local_addr().ok());
        assert!(got[1].data.is_empty() && got[1].ttl.is_some());
        let again = batch.receive(to.as_fd()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn segments_arrive_as_datagrams_and_with_gro_as_one() {
    let (from, to, address) = pair(false);
    let data = [5; 2009];
    let large = Datagram {
        segment: Some(1000),
        ..Datagram::plain(&data)
    };
    assert_eq!((large.segments(), Datagram::plain(&[]).segments()), (3, 1));
    let mut received = Batch::new(8, 65_535);
    assert_eq!(
        send(from.as_fd(), to_address(address), &[large]).unwrap(),
        1
    );
    assert_eq!(received.receive(to.as_fd()).unwrap(), 3);
    enable(to.as_fd(), false, Report::Segments).unwrap();
    assert_eq!(
        send(
            from.as_fd(),
            to_address(address),
            &[large, Datagram::plain(b"x")]
        )
        .unwrap(),
        2
    );
    assert_eq!(received.receive(to.as_fd()).unwrap(), 2);
    let got: Vec<_> = received
        .iter()
        .map(|got| (got.data.len(), got.segment))
        .collect();
    assert_eq!(got, [(2009, Some(1000)), (1, None)]);
}

#[test]
fn it_is_told_once_how_datagrams_came() {
    let (from, to, address) = pair(false);
    enable(to.as_fd(), false, Report::Segments).unwrap();
    let mut batch = Batch::new(8, 65_535);
    let mut come = |datagrams: &[Datagram<'_>]| {
        send(from.as_fd(), to_address(address), datagrams).unwrap();
        batch.receive(to.as_fd()).unwrap();
        let (came, again) = (batch.came(), batch.came());
        assert_eq!(again, Came::default());
        (came.several, came.much)
    };
    let one = Datagram::plain(b"x");
    let joined = Datagram {
        segment: Some(1000),
        ..Datagram::plain(&[5; 2009])
    };
    let large = Datagram {
        segment: Some(1000),
        ..Datagram::plain(&[5; 40_000])
    };
    assert_eq!(come(&[one]), (false, false));
    assert_eq!(come(&[one, one]), (true, false));
    assert_eq!(come(&[joined]), (true, false));
    assert_eq!(come(&[large]), (true, true));
    assert_eq!(come(&[one; 8]), (true, true), "all slots");
    assert_eq!(come(&[one]), (false, false));
}

#[test]
fn a_closed_port_is_found_in_the_error_queue() {
    for v6 in [false, true] {
        let (from, to, address) = pair(v6);
        drop(to);
        enable(from.as_fd(), v6, Report::Errors).unwrap();
        from.connect(address).unwrap();
        assert_eq!(
            send(
                from.as_fd(),
                Path {
                    v6,
                    ..Path::default()
                },
                &[Datagram::plain(b"hello")]
            )
            .unwrap(),
            1
        );
        let mut queue = ErrorQueue::new(512);
        let queued = queue.next(from.as_fd()).unwrap().unwrap();
        assert_eq!(queued.data, b"hello");
        assert_eq!(queued.destination, Some(address));
        assert_eq!(queued.error.errno, libc::ECONNREFUSED);
        assert_eq!(queued.error.offender, Some(address.ip()));
        let expected = if v6 {
            (Origin::Icmpv6, 1, 4)
        } else {
            (Origin::Icmp, 3, 3)
        };
        assert_eq!(
            (queued.error.origin, queued.error.kind, queued.error.code),
            expected
        );
        assert!(queue.next(from.as_fd()).is_err());
    }
}

#[test]
fn what_is_joined_arrives_one_by_one() {
    for v6 in [false, true] {
        let (from, to, address) = pair(v6);
        let data = [7; 1400];
        let sizes = [100, 100, 100, 40, 1400, 1400, 0, 9];
        let batch: Vec<_> = sizes
            .iter()
            .map(|size| Datagram::plain(&data[..*size]))
            .collect();
        let join = Join {
            most: 32,
            largest: u16::MAX,
        };
        let path = to_address(address);
        assert_eq!(
            send_joined(from.as_fd(), path, &batch, join).unwrap(),
            sizes.len()
        );
        let mut received = Batch::new(16, 2048);
        let mut got = Vec::new();
        while got.len() < sizes.len() && received.receive(to.as_fd()).is_ok() {
            got.extend(received.iter().map(|one| one.data.len()));
        }
        assert_eq!(got, sizes);
    }
}

#[test]
fn runs_are_of_one_size_but_for_the_last() {
    let data = [7; 40_000];
    let of = |sizes: &[usize]| -> Vec<_> {
        sizes.iter().map(|n| Datagram::plain(&data[..*n])).collect()
    };
    let join = Join {
        most: 3,
        largest: 30_000,
    };
    for (sizes, run) in [
        (&[][..], 0),
        (&[5], 1),
        (&[5, 5], 2),
        (&[5, 5, 5, 5], 3),
        (&[5, 5, 4, 5], 3),
        (&[5, 4, 4], 2),
        (&[5, 6], 1),
        (&[0, 0], 1),
        (&[5, 0], 1),
        (&[30_000, 30_000, 30_000], 2),
        (&[30_001, 30_001], 1),
    ] {
        assert_eq!(join.run(&of(sizes)), run, "{sizes:?}");
        let alone = usize::from(!sizes.is_empty());
        assert_eq!(Join::NEVER.run(&of(sizes)), alone, "{sizes:?}");
    }
    let marked = Datagram {
        tos: 4,
        ..Datagram::plain(&data[..5])
    };
    let segmented = Datagram {
        segment: Some(2),
        ..Datagram::plain(&data[..5])
    };
    for other in [marked, segmented] {
        assert_eq!(join.run(&[Datagram::plain(&data[..5]), other]), 1);
        assert_eq!(join.run(&[other, Datagram::plain(&data[..5])]), 1);
    }
}
