//! Uplinks: who reaches whom, and as whom.

use crate::traffic::{
    address, at, expect_no_datagram, expect_silence, seen_by, seen_by_datagram, serve,
    serve_datagrams,
};
use crate::user::{Netns, asking, connected, expect_denied, release, uplink};
use crate::world::{ALICE, BOB, World, eventually, ip, output, sysctl};
use mossnet_setuid::CallError;
use mossnet_setuid::request::Unavailable;
use std::process::Command;

/// Another host beside this one, and what it serves.
pub fn world_outside() -> Netns {
    let remote = Netns::remote();
    ip("link add nic0 type veth peer name eth0");
    ip(&format!("link set eth0 netns {}", remote.pid()));
    ip("addr add 192.0.2.1/24 dev nic0");
    ip("addr add 2001:db8::1/64 dev nic0 nodad");
    ip("link set nic0 up");
    remote.ip("link set lo up");
    remote.ip("addr add 192.0.2.2/24 dev eth0");
    remote.ip("addr add 2001:db8::2/64 dev eth0 nodad");
    remote.ip("link set eth0 up");
    remote.inside(|| {
        serve(at("192.0.2.2:7000"));
        serve(at("[2001:db8::2]:7000"));
        serve_datagrams(at("192.0.2.2:7001"));
    });
    remote
}

const BOTH: [&str; 2] = ["10.89.1.0/24", "fd00:89:0:1::/64"];

pub fn containers_reach_the_world(world: &World) {
    let remote = world_outside();
    let router = Netns::of(ALICE);
    let made = connected(
        ALICE,
        &router,
        &BOTH,
        &["10.89.1.2/32", "fd00:89:0:1::2/128"],
    );
    world.expect_logged("granted uid=1000 verb=uplink link=mnu");
    // Outwards by masquerade.
    let seen = |server| router.inside(move || seen_by(at(server)));
    assert_eq!(seen("192.0.2.2:7000").expect("an answer"), "192.0.2.1");
    assert_eq!(
        seen("[2001:db8::2]:7000").expect("an answer"),
        "2001:db8::1"
    );
    let datagram = router.inside(|| seen_by_datagram(address("10.89.1.2"), at("192.0.2.2:7001")));
    assert_eq!(datagram.as_deref(), Some("192.0.2.1"));
    // The host reaches containers by address.
    router.inside(|| {
        serve(at("10.89.1.2:80"));
        serve(at("[fd00:89:0:1::2]:80"));
    });
    seen_by(at("10.89.1.2:80")).expect("an answer");
    seen_by(at("[fd00:89:0:1::2]:80")).expect("an answer");
    // Nobody else does, though it knows the way.
    remote.ip("route add 10.89.1.0/24 via 192.0.2.1");
    remote.ip("route add fd00:89:0:1::/64 via 2001:db8::1");
    remote.inside(|| expect_silence(at("10.89.1.2:80")));
    remote.inside(|| expect_silence(at("[fd00:89:0:1::2]:80")));
    // Addresses that are not of the uplink go nowhere, not to the host itself either. They are looked at where
    // they come in: what comes for a container passes no such rule.
    let rules = output(Command::new("nft").args(["list", "table", "inet", "mossnet_host"]));
    assert!(rules.contains(&format!("chain sources_{}", made.host.name)));
    assert!(!rules.contains("priority raw"), "{rules}");
    serve_datagrams(at("192.0.2.1:7002"));
    let own = router.inside(|| seen_by_datagram(address("10.89.1.2"), at("192.0.2.1:7002")));
    assert_eq!(own.as_deref(), Some("10.89.1.2"));
    router.ip("addr add 10.89.2.2/32 dev lo");
    router.ip("addr add 203.0.113.5/32 dev lo");
    for forged in ["10.89.2.2", "203.0.113.5"] {
        ip(&format!(
            "route add {forged}/32 via 169.254.79.2 dev {} onlink",
            made.host.name
        ));
        router.inside(|| expect_no_datagram(address(forged), at("192.0.2.1:7002")));
        router.inside(|| expect_no_datagram(address(forged), at("192.0.2.2:7001")));
    }
    // Asked for again, it is the same one.
    let again = asking(ALICE, |helper| helper.uplink(uplink(&BOTH), router.fd()));
    assert_eq!(again.expect("an uplink"), made);
    release(ALICE, &made.host).expect("released");
    let rules = output(Command::new("nft").args(["list", "tables"]));
    assert!(!rules.contains("mossnet"), "{rules}");
}

pub fn nobody_reaches_anothers_containers(_world: &World) {
    let (alice, bob) = (Netns::of(ALICE), Netns::of(BOB));
    let one = connected(ALICE, &alice, &["10.89.1.0/24"], &["10.89.1.2/32"]);
    let other = connected(BOB, &bob, &["10.90.1.0/24"], &["10.90.1.2/32"]);
    alice.inside(|| {
        serve(at("10.89.1.2:80"));
        serve_datagrams(at("10.89.1.2:81"));
    });
    seen_by(at("10.89.1.2:80")).expect("the host's are let in");
    bob.inside(|| expect_silence(at("10.89.1.2:80")));
    bob.inside(|| expect_no_datagram(address("10.90.1.2"), at("10.89.1.2:81")));
    // Nor with a forged address of the other one's.
    bob.ip("addr add 10.89.1.7/32 dev lo");
    bob.inside(|| expect_no_datagram(address("10.89.1.7"), at("10.89.1.2:81")));
    // A live uplink's subnets are its own, though they are granted to both.
    let taken = asking(BOB, |helper| {
        helper.uplink(uplink(&["10.89.1.128/25"]), bob.fd())
    });
    let in_use = |result: &Result<_, CallError>| {
        matches!(
            result,
            Err(CallError::Unavailable(Unavailable::SubnetInUse))
        )
    };
    assert!(in_use(&taken), "{taken:?}");
    // What was there before is there still.
    seen_by(at("10.89.1.2:80")).expect("as before");
    expect_denied(release(ALICE, &other.host));
    release(ALICE, &one.host).expect("released");
    release(BOB, &other.host).expect("released");
}

pub fn subnets_are_checked(world: &World) {
    let router = Netns::of(ALICE);
    let ask =
        |subnets: &[&str]| asking(ALICE, |helper| helper.uplink(uplink(subnets), router.fd()));
    for subnets in [
        &["10.91.0.0/24"][..],
        &["10.0.0.0/8"],
        &["10.89.0.0/24", "192.168.0.0/24"],
        &["fd01::/64"],
    ] {
        expect_denied(ask(subnets));
        world.expect_logged("is not granted");
    }
    ip("link add other type bridge");
    ip("link set other up");
    ip("addr add 10.89.5.1/24 dev other");
    ip("route add 10.89.64.0/18 dev other");
    ip("route add blackhole 10.89.48.0/24 table 77");
    let in_use = |subnets: &[&str]| {
        let result = ask(subnets);
        let refused = matches!(
            result,
            Err(CallError::Unavailable(Unavailable::SubnetInUse))
        );
        assert!(refused, "{subnets:?}: {result:?}");
    };
    in_use(&["10.89.5.0/25"]);
    in_use(&["10.89.0.0/16"]);
    in_use(&["10.89.65.0/24"]);
    in_use(&["10.89.48.0/24"]);
    in_use(&["10.89.1.0/24", "10.89.0.0/22"]);
    // A default route, by halves too, is no claim.
    ip("route add default dev other");
    ip("route add 0.0.0.0/1 dev other");
}

pub fn what_is_missing_is_told(world: &World) {
    let router = Netns::of(ALICE);
    let ask =
        |subnets: &[&str]| asking(ALICE, |helper| helper.uplink(uplink(subnets), router.fd()));
    for (setting, subnet, reason) in [
        (
            "net/ipv4/ip_forward",
            "10.89.1.0/24",
            Unavailable::Forwarding4,
        ),
        (
            "net/ipv6/conf/all/forwarding",
            "fd00:89::/64",
            Unavailable::Forwarding6,
        ),
    ] {
        sysctl(setting, "0");
        let result = ask(&[subnet]);
        let told = matches!(&result, Err(CallError::Unavailable(told)) if *told == reason);
        assert!(told, "{result:?}");
        sysctl(setting, "1");
    }
    // A name that is taken in the router netns: nothing is left of the attempt.
    router.ip("link add host0 type bridge");
    let result = ask(&["10.89.1.0/24"]);
    assert!(
        matches!(result, Err(CallError::Unavailable(Unavailable::InUse))),
        "{result:?}"
    );
    world.expect_logged("failed uid=1000 verb=uplink kernel: make a veth pair");
    assert_eq!(
        asking(ALICE, |helper| helper.query())
            .expect("grants")
            .interfaces
            .now,
        0
    );
    router.ip("link del host0");
    let made = ask(&["10.89.1.0/24"]).expect("an uplink");
    release(ALICE, &made.host).expect("released");
}

pub fn subnets_change(_world: &World) {
    let _remote = world_outside();
    let router = Netns::of(ALICE);
    let made = connected(
        ALICE,
        &router,
        &["10.89.1.0/24"],
        &["10.89.1.2/32", "10.89.2.2/32"],
    );
    let to = at("192.0.2.2:7001");
    router.inside(|| expect_no_datagram(address("10.89.2.2"), to));
    let ask = |subnets: &[&str]| {
        let made = asking(ALICE, |helper| helper.uplink(uplink(subnets), router.fd()));
        made.expect("an uplink")
    };
    assert_eq!(ask(&["10.89.1.0/24", "10.89.2.0/24"]), made);
    for own in ["10.89.1.2", "10.89.2.2"] {
        let seen = router.inside(|| seen_by_datagram(address(own), to));
        assert_eq!(seen.as_deref(), Some("192.0.2.1"), "{own}");
    }
    ask(&["10.89.2.0/24"]);
    router.inside(|| expect_no_datagram(address("10.89.1.2"), to));
    let routes = output(Command::new("ip").args(["route", "show", "dev", made.host.name.as_str()]));
    assert_eq!(routes.lines().count(), 1, "{routes}");
    assert!(routes.contains("10.89.2.0/24 via 169.254.79.2"), "{routes}");
    // What somebody else removed is put back by gc.
    ip(&format!("route del 10.89.2.0/24 dev {}", made.host.name));
    output(Command::new("nft").args(["delete", "table", "inet", "mossnet_host"]));
    asking(ALICE, |helper| helper.gc()).expect("collected");
    let seen = router.inside(|| seen_by_datagram(address("10.89.2.2"), to));
    assert_eq!(seen.as_deref(), Some("192.0.2.1"));
    release(ALICE, &made.host).expect("released");
}

pub fn dead_owners_leave_nothing(world: &World) {
    let mut router = Netns::of(ALICE);
    connected(ALICE, &router, &["10.89.1.0/24"], &["10.89.1.2/32"]);
    router.kill();
    drop(router);
    // Who comes back at once gets the same subnet: a namespace that is just ending is waited for.
    let router = Netns::of(ALICE);
    let made = connected(ALICE, &router, &["10.89.1.0/24"], &["10.89.1.2/32"]);
    assert_eq!(
        asking(ALICE, |helper| helper.query())
            .expect("grants")
            .interfaces
            .now,
        1
    );
    drop(router);
    eventually("the record forgets it", || {
        asking(ALICE, |helper| helper.gc()).expect("collected");
        asking(ALICE, |helper| helper.query())
            .expect("grants")
            .interfaces
            .now
            == 0
    });
    let rules = output(Command::new("nft").args(["list", "tables"]));
    assert!(!rules.contains("mossnet"), "{rules}");
    expect_denied(release(ALICE, &made.host));
    // An uplink that the record has lost is no one's, and goes.
    let router = Netns::of(ALICE);
    let made = connected(ALICE, &router, &["10.89.1.0/24"], &["10.89.1.2/32"]);
    std::fs::remove_dir_all("/run/mossnet").expect("removed");
    world.install_with_capabilities();
    asking(ALICE, |helper| helper.gc()).expect("collected");
    let links = output(Command::new("ip").args(["-o", "link"]));
    assert!(!links.contains(made.host.name.as_str()), "{links}");
}
