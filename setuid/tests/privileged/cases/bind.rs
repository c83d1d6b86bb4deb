//! Low ports.

use crate::user::{as_user, asking, expect_denied, helper};
use crate::world::{ALICE, BOB, World};
use mossnet_setuid::CallError;
use mossnet_setuid::request::{Bind, Protocol, Unavailable};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Barrier;
use std::thread;

fn bind(uid: u32, protocol: Protocol, address: &str) -> Result<OwnedFd, CallError> {
    let address = address.parse().expect("an address");
    asking(uid, |helper| helper.bind(Bind { protocol, address }))
}

fn used() -> u32 {
    asking(ALICE, |helper| helper.query())
        .expect("grants")
        .bound
        .now
}

pub fn granted_ports_only(world: &World) {
    let socket = bind(ALICE, Protocol::Tcp, "0.0.0.0:80").expect("a socket");
    world.expect_logged("granted uid=1000 verb=bind port=Tcp 0.0.0.0:80");
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(false).expect("a listener");
    let client = TcpStream::connect("127.0.0.1:80").expect("a connection");
    let (_, peer) = listener.accept().expect("a client");
    assert_eq!(peer, client.local_addr().expect("an address"));
    // The same port for IPv6 is another socket.
    let v6 = bind(ALICE, Protocol::Tcp, "[::]:80").expect("a socket");
    let udp = UdpSocket::from(bind(ALICE, Protocol::Udp, "127.0.0.1:53").expect("a socket"));
    assert_eq!(
        udp.local_addr().expect("an address").to_string(),
        "127.0.0.1:53"
    );
    assert_eq!(used(), 3);
    expect_denied(bind(ALICE, Protocol::Tcp, "0.0.0.0:443"));
    world.expect_logged("the quota of 3 ports is used up");
    // What is closed does not count.
    drop((listener, v6));
    assert_eq!(used(), 1);
    for (protocol, address) in [
        (Protocol::Tcp, "0.0.0.0:81"),
        (Protocol::Udp, "0.0.0.0:80"),
        (Protocol::Tcp, "0.0.0.0:22"),
        (Protocol::Tcp, "0.0.0.0:8080"),
    ] {
        expect_denied(bind(ALICE, protocol, address));
        world.expect_logged("is not granted");
    }
    expect_denied(bind(BOB, Protocol::Tcp, "0.0.0.0:80"));
    let taken = bind(ALICE, Protocol::Udp, "127.0.0.1:53");
    assert!(
        matches!(taken, Err(CallError::Unavailable(Unavailable::InUse))),
        "{taken:?}"
    );
    let absent = bind(ALICE, Protocol::Tcp, "192.0.2.99:443");
    assert!(
        matches!(absent, Err(CallError::Unavailable(Unavailable::Absent))),
        "{absent:?}"
    );
    assert_eq!(used(), 1, "what was not made does not count");
}

/// Two slots are taken, and two hundred processes want the third at once.
pub fn one_slot_for_two_hundred(_world: &World) {
    let first = bind(ALICE, Protocol::Tcp, "127.0.0.1:80").expect("a socket");
    let second = bind(ALICE, Protocol::Udp, "127.0.0.1:53").expect("a socket");
    let barrier = Barrier::new(200);
    let results: Vec<_> = as_user(ALICE, &[], || {
        let one = |number: u8| {
            // An address each, so that nothing but the quota is in the way.
            let address = format!("127.0.1.{number}:443").parse().expect("an address");
            let protocol = Protocol::Tcp;
            barrier.wait();
            helper().bind(Bind { protocol, address })
        };
        let one = &one;
        thread::scope(|scope| {
            let threads: Vec<_> = (0..200)
                .map(|number| scope.spawn(move || one(number)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a thread"))
                .collect()
        })
    });
    let granted = results.iter().filter(|result| result.is_ok()).count();
    let denied = results
        .iter()
        .filter(|result| matches!(result, Err(CallError::Denied)));
    assert_eq!((granted, denied.count()), (1, 199), "{results:?}");
    assert_eq!(used(), 3);
    drop((first, second, results));
    assert_eq!(used(), 0);
}
