//! Whose namespaces, and whose links.

use crate::user::{Netns, asking, expect_denied, release, veth};
use crate::world::{ALICE, BOB, World};
use mossnet_setuid::CallError;
use mossnet_setuid::request::{Made, Unavailable};
use std::fs::File;
use std::os::fd::AsFd;

pub fn veth_joins_own_namespaces(world: &World) {
    let (one, other) = (Netns::of(ALICE), Netns::of(ALICE));
    let made = asking(ALICE, |helper| {
        helper.veth(veth("a0", "b0"), one.fd(), other.fd())
    });
    let (first, second) = made.expect("a pair");
    assert!(first.index > 1 && second > 1 && first.name.as_str() == "a0");
    world.expect_logged("granted uid=1000 verb=veth link=a0");
    one.ip("link set a0 up");
    other.ip("link set b0 up");
    one.ip("addr add 10.0.0.1/24 dev a0");
    other.ip("addr add 10.0.0.2/24 dev b0");
    let server = one.inside(|| crate::traffic::serve(crate::traffic::at("10.0.0.1:0")));
    let seen = other
        .inside(|| crate::traffic::seen_by(server))
        .expect("an answer");
    assert_eq!(seen, "10.0.0.2");
    // Taken names change nothing.
    let again = asking(ALICE, |helper| {
        helper.veth(veth("a1", "b0"), one.fd(), other.fd())
    });
    assert!(
        matches!(again, Err(CallError::Unavailable(Unavailable::InUse))),
        "{again:?}"
    );
    assert_eq!(
        asking(ALICE, |helper| helper.query())
            .expect("grants")
            .interfaces
            .now,
        1
    );
    // Quota + 1.
    for number in 1..3 {
        let names = veth(&format!("a{number}"), &format!("b{number}"));
        asking(ALICE, |helper| helper.veth(names, one.fd(), other.fd())).expect("a pair");
    }
    expect_denied(asking(ALICE, |helper| {
        helper.veth(veth("a3", "b3"), one.fd(), other.fd())
    }));
    world.expect_logged("the quota of 3 interfaces is used up");
    // What is gone does not count: removed by its owner, or with its namespace.
    one.ip("link del a1");
    assert_eq!(
        asking(ALICE, |helper| helper.query())
            .expect("grants")
            .interfaces
            .now,
        2
    );
    release(ALICE, &first).expect("released");
    expect_denied(release(ALICE, &first));
    let third = Netns::of(ALICE);
    let names = veth("c0", "c1");
    asking(ALICE, |helper| helper.veth(names, third.fd(), other.fd())).expect("a pair");
    let counted = || {
        asking(ALICE, |helper| helper.query())
            .expect("grants")
            .interfaces
            .now
    };
    assert_eq!(counted(), 2);
    drop(third);
    crate::world::eventually("it does not count", || counted() == 1);
}

pub fn others_are_refused(world: &World) {
    let (mut own, others) = (Netns::of(ALICE), Netns::of(BOB));
    let try_with = |fd: std::os::fd::BorrowedFd<'_>, words: &str| {
        let result = asking(ALICE, |helper| helper.veth(veth("a0", "b0"), own.fd(), fd));
        expect_denied(result);
        world.expect_logged(words);
        let result = asking(ALICE, |helper| {
            helper.uplink(crate::user::uplink(&["10.89.0.0/24"]), fd)
        });
        expect_denied(result);
        world.expect_logged(words);
        let result = asking(ALICE, |helper| {
            helper.bridge(crate::user::bridge("br0", &[]), fd)
        });
        expect_denied(result);
        world.expect_logged(words);
    };
    try_with(others.fd(), "the namespace is uid 1001's");
    let open = |path: &str| File::open(path).expect(path);
    try_with(open("/proc/self/ns/net").as_fd(), "the host's own");
    let remote = Netns::remote();
    try_with(remote.fd(), "the namespace is uid 0's");
    try_with(open("/proc/self/ns/mnt").as_fd(), "of another kind");
    try_with(
        open(&format!("/proc/{}/ns/user", own.pid())).as_fd(),
        "of another kind",
    );
    for path in ["/dev/null", "/etc/passwd", "/proc", "/proc/self/status"] {
        try_with(open(path).as_fd(), "no namespace");
    }
    // What counts is the descriptor. Its process may end, and another one have its number: nothing
    // about it is looked up again.
    own.kill();
    let second = Netns::of(ALICE);
    let made = asking(ALICE, |helper| {
        helper.veth(veth("a0", "b0"), own.fd(), second.fd())
    });
    let (first, _) = made.expect("a pair");
    release(ALICE, &first).expect("released");
}

pub fn release_is_for_owners(world: &World) {
    let (one, other) = (Netns::of(ALICE), Netns::of(ALICE));
    // So that indices differ.
    one.ip("link add x0 type bridge");
    let made = asking(ALICE, |helper| {
        helper.veth(veth("a0", "b0"), one.fd(), other.fd())
    });
    let (veth, _) = made.expect("a pair");
    let up = asking(ALICE, |helper| {
        helper.uplink(crate::user::uplink(&["10.89.0.0/24"]), one.fd())
    });
    let up = up.expect("an uplink").host;
    for made in [&veth, &up] {
        expect_denied(release(BOB, made));
        world.expect_logged("denied uid=1001 verb=release no such link");
    }
    // Never by name alone, nor by index alone.
    let mixed = |index: &Made, name: &Made| Made {
        index: index.index,
        name: name.name.clone(),
    };
    let lo = Made {
        index: 1,
        name: "lo".parse().expect("a name"),
    };
    for made in [
        mixed(&veth, &up),
        mixed(&up, &veth),
        mixed(&lo, &up),
        mixed(&up, &lo),
        lo,
    ] {
        expect_denied(release(ALICE, &made));
    }
    // A link that bears the name, but is none of ours, is not removed: an admin's, say.
    crate::world::ip(&format!("link del {}", up.name));
    crate::world::ip(&format!("link add {} type bridge", up.name));
    expect_denied(release(ALICE, &up));
    crate::world::ip(&format!("link del {}", up.name));
    release(ALICE, &veth).expect("released");
}
