//! Published ports.

use super::uplink::world_outside;
use crate::traffic::{address, at, seen_by, seen_by_datagram, serve, serve_datagrams};
use crate::user::{Netns, as_user, asking, connected, expect_denied, helper, release};
use crate::world::{ALICE, BOB, World};
use mossnet_setuid::CallError;
use mossnet_setuid::request::{Bind, Made, Protocol};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

fn publish(
    uid: u32,
    uplink: &Made,
    ports: &[(BorrowedFd<'_>, SocketAddr)],
) -> Result<(), CallError> {
    as_user(uid, &[], || helper().publish(uplink.clone(), ports))
}

fn published() -> u32 {
    asking(ALICE, |helper| helper.query())
        .expect("grants")
        .published
        .now
}

pub fn clients_keep_their_address(_world: &World) {
    let remote = world_outside();
    let router = Netns::of(ALICE);
    let subnets = ["10.89.1.0/24", "fd00:89:0:1::/64"];
    let addresses = ["10.89.1.2/32", "fd00:89:0:1::2/128", "10.89.1.3/32"];
    let up = connected(ALICE, &router, &subnets, &addresses).host;
    router.inside(|| {
        serve(at("10.89.1.2:80"));
        serve(at("10.89.1.3:80"));
        serve(at("[fd00:89:0:1::2]:80"));
        serve_datagrams(at("10.89.1.2:53"));
    });
    let (v4, v6, udp) = as_user(ALICE, &[], || {
        let v6 = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None);
        let v6 = v6.expect("a socket");
        v6.set_only_v6(true).expect("IPv6 only");
        v6.bind(&at("[::]:8080").into()).expect("bound");
        v6.listen(5).expect("listening");
        let v4 = TcpListener::bind("0.0.0.0:8080").expect("a socket");
        (v4, v6, UdpSocket::bind("192.0.2.1:5353").expect("a socket"))
    });
    let ports = [
        (v4.as_fd(), at("10.89.1.2:80")),
        (v6.as_fd(), at("[fd00:89:0:1::2]:80")),
        (udp.as_fd(), at("10.89.1.2:53")),
    ];
    publish(ALICE, &up, &ports).expect("published");
    assert_eq!(published(), 3);
    let ask = |server| remote.inside(move || seen_by(at(server)));
    assert_eq!(ask("192.0.2.1:8080").expect("an answer"), "192.0.2.2");
    assert_eq!(ask("[2001:db8::1]:8080").expect("an answer"), "2001:db8::2");
    let seen = remote.inside(|| seen_by_datagram(address("192.0.2.2"), at("192.0.2.1:5353")));
    assert_eq!(seen.as_deref(), Some("192.0.2.2"));
    // What the host itself asks arrives at the socket.
    let own = TcpStream::connect("192.0.2.1:8080").expect("a connection");
    let (_, peer) = v4.accept().expect("a client");
    assert_eq!(peer, own.local_addr().expect("an address"));
    // It leads elsewhere when told so, and counts once.
    let elsewhere = [(v4.as_fd(), at("10.89.1.3:80"))];
    publish(ALICE, &up, &elsewhere).expect("published");
    assert_eq!(published(), 3);
    assert_eq!(ask("192.0.2.1:8080").expect("an answer"), "192.0.2.2");
    // A port ends with its socket, though nobody tells the helper.
    drop(v4);
    let error = ask("192.0.2.1:8080").expect_err("nobody is there");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    // And another user's socket at the same port is another user's.
    let others = as_user(BOB, &[], || {
        TcpListener::bind("0.0.0.0:8080").expect("a socket")
    });
    let client = remote
        .inside(|| TcpStream::connect(at("192.0.2.1:8080")))
        .expect("connected");
    let (_, peer) = others.accept().expect("a client");
    assert_eq!(peer, client.local_addr().expect("an address"));
    assert_eq!(published(), 2);
    // A granted low port is published as any other.
    let low = Bind {
        protocol: Protocol::Tcp,
        address: at("0.0.0.0:80"),
    };
    let low: OwnedFd = asking(ALICE, |helper| helper.bind(low)).expect("a socket");
    publish(ALICE, &up, &[(low.as_fd(), at("10.89.1.2:80"))]).expect("published");
    assert_eq!(ask("192.0.2.1:80").expect("an answer"), "192.0.2.2");
    release(ALICE, &up).expect("released");
    assert_eq!(published(), 0);
}

pub fn a_port_must_be_held(world: &World) {
    let router = Netns::of(ALICE);
    let up = connected(ALICE, &router, &["10.89.1.0/24"], &["10.89.1.2/32"]).host;
    let to = at("10.89.1.2:80");
    let refused = |fd: BorrowedFd<'_>, target: SocketAddr, words: &str| {
        expect_denied(publish(ALICE, &up, &[(fd, target)]));
        world.expect_logged(words);
    };
    let tcp = |address: &str| TcpListener::bind(address).expect("a socket");
    let good = tcp("127.0.0.1:0");
    refused(good.as_fd(), at("10.89.2.2:80"), "is not behind the uplink");
    refused(good.as_fd(), at("127.0.0.1:22"), "is not behind the uplink");
    refused(
        router.inside(|| tcp("127.0.0.1:0")).as_fd(),
        to,
        "the socket is none that listens",
    );
    let connected = TcpStream::connect(good.local_addr().expect("an address")).expect("connected");
    let unix = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    let unbound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None);
    let (null, unbound) = (
        std::fs::File::open("/dev/null").expect("a file"),
        unbound.expect("a socket"),
    );
    for fd in [
        connected.as_fd(),
        unix.as_fd(),
        null.as_fd(),
        unbound.as_fd(),
    ] {
        refused(fd, to, "the socket is none that listens");
    }
    let v6 = tcp("[::1]:0");
    refused(v6.as_fd(), to, "the socket is none that listens");
    // Somebody else's uplink, and somebody else who asks.
    expect_denied(publish(BOB, &up, &[(good.as_fd(), to)]));
    let other = Made {
        index: up.index + 1,
        name: up.name.clone(),
    };
    expect_denied(publish(ALICE, &other, &[(good.as_fd(), to)]));
    // Quota + 1, and nothing of the request counts.
    let many: Vec<_> = (0..5).map(|_| tcp("127.0.0.1:0")).collect();
    let ports: Vec<_> = many.iter().map(|socket| (socket.as_fd(), to)).collect();
    expect_denied(publish(ALICE, &up, &ports));
    world.expect_logged("the quota of 4 published ports is used up");
    assert_eq!(published(), 0);
    publish(ALICE, &up, &ports[..4]).expect("published");
    assert_eq!(published(), 4);
    expect_denied(publish(ALICE, &up, &ports[4..]));
    release(ALICE, &up).expect("released");
}
