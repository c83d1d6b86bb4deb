//! Networks with more endpoints than a bridge has ports, and how long an attach takes then.

use super::{shut_down, with_bridge};
use crate::client::Client;
use crate::world::*;
use mossnet_helper::SandboxId;
use mossnet_helper::request::{BridgeSpec, EndpointSpec, Request};
use std::fs;
use std::time::{Duration, Instant};

/// Six bridges' worth.
const ENDPOINTS: u16 = 2500;
/// The first and the last so many are compared.
const SAMPLE: usize = 250;

fn many_id(number: u16) -> SandboxId {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    SandboxId::from(bytes)
}

/// In a /16, beside the endpoints of the other tests.
fn far_endpoint(number: u16) -> EndpointSpec {
    let [high, low] = (number + 0x100).to_be_bytes();
    EndpointSpec {
        sandbox: many_id(number),
        router_ifname: name(&format!("ve-many{number}")),
        mac: [2, 0x42, 10, 89, high, low].try_into().unwrap(),
        addresses: vec![
            format!("10.89.{high}.{low}/16").parse().unwrap(),
            format!("fd00:89::{high:x}:{low:x}/64").parse().unwrap(),
        ],
        ..endpoint(1)
    }
}

/// The tenth part that was fastest, and the median.
fn quick_and_median(times: &[Duration]) -> (Duration, Duration) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    (sorted[sorted.len() / 10], sorted[sorted.len() / 2])
}

fn timed(client: &mut Client, request: Request) -> Duration {
    let start = Instant::now();
    client.done(request);
    start.elapsed()
}

/// Flat: the last take no more than twice what the first took, and a moment. By the quick ones: a
/// machine that is busy elsewhere delays most.
fn assert_flat(what: &str, times: &[Duration]) {
    let first = quick_and_median(&times[..SAMPLE]);
    let last = quick_and_median(&times[times.len() - SAMPLE..]);
    println!("{what} (quickest tenth, median): first {first:?}, last {last:?}");
    assert!(last.0 < first.0 * 2 + Duration::from_millis(2), "{what}");
}

pub fn more_endpoints_than_ports() {
    let (world, mut client) = with_bridge();
    let mut wide = bridge();
    wide.addresses = vec![
        "10.89.0.1/16".parse().unwrap(),
        "fd00:89::1/64".parse().unwrap(),
    ];
    client.done(Request::Bridge(wide.clone()));
    let descriptors = || {
        fs::read_dir(format!("/proc/{}/fd", world.child.id()))
            .unwrap()
            .count()
    };
    let before = descriptors();
    let (mut made, mut attached) = (Vec::new(), Vec::new());
    for number in 0..ENDPOINTS {
        let start = Instant::now();
        create_bare(&mut client, many_id(number));
        made.push(start.elapsed());
        attached.push(timed(&mut client, Request::Attach(far_endpoint(number))));
    }
    assert_flat("attach", &attached);
    assert_flat("bare sandbox", &made);
    assert_eq!(descriptors() - before, usize::from(ENDPOINTS) * 2);
    let start = Instant::now();
    let found = inventory(&mut client);
    println!("inventory: {:?}", start.elapsed());
    assert_eq!(found.bridges, [name(BRIDGE)]);
    assert_eq!(found.endpoints.len(), usize::from(ENDPOINTS));
    assert!(
        found
            .endpoints
            .iter()
            .all(|(_, bridge)| *bridge == Some(name(BRIDGE)))
    );
    reach_across(&world, &mut client, &mut wide);
    go_and_come(&world, &mut client);
    shut_down(world, client);
}

/// Everyone reaches everyone, and the gateway; isolated, the gateway only.
fn reach_across(world: &World, client: &mut Client, bridge: &mut BridgeSpec) {
    let bridges = in_router(world, "ip -o link show type bridge");
    assert_eq!(bridges.lines().count(), 6, "{bridges}");
    let trunks = |mtu: u32| {
        let links = in_router(world, "ip -o link show");
        let extra = links
            .lines()
            .filter(|line| !line.contains(": ve-") && line.contains("-0123456789ab"));
        extra
            .filter(|line| line.contains(&format!("mtu {mtu} ")))
            .count()
    };
    assert_eq!(trunks(1500), 16);
    let addresses = in_router(world, "ip -o addr");
    assert!(
        !addresses
            .lines()
            .any(|line| line.contains(": o") || line.contains(": ve-")),
        "{addresses}"
    );

    let ping = "for a in 10.89.1.1 10.89.6.200 10.89.0.1 fd00:89::1:1 fd00:89::6:c8 fd00:89::1; do \
                busybox ping -c 1 -W 2 $a; done";
    for from in [2, 1600, 2400] {
        let text = run_joined(client, many_id(from), ping);
        assert_eq!(
            text.matches("1 packets received").count(),
            6,
            "from {from}: {text}"
        );
    }
    bridge.icc = false;
    bridge.mtu = 9000;
    client.done(Request::Bridge(bridge.clone()));
    assert_eq!(trunks(9000), 16);
    let ping = ping.replace("-W 2", "-W 1");
    for from in [2, 1600, 2400] {
        let text = run_joined(client, many_id(from), &ping);
        assert_eq!(
            text.matches("1 packets received").count(),
            2,
            "from {from}: {text}"
        );
    }
}

/// Overflow bridges come when they are needed, and go.
fn go_and_come(world: &World, client: &mut Client) {
    let detach = |number| Request::Detach {
        router_ifname: far_endpoint(number).router_ifname,
    };
    let detached: Vec<_> = (2000..2500)
        .map(|number| timed(client, detach(number)))
        .collect();
    println!("detach: {:?}", quick_and_median(&detached));
    let bridges = in_router(world, "ip -o link show type bridge");
    assert_eq!(
        bridges.lines().count(),
        5,
        "an empty overflow bridge goes: {bridges}"
    );
    // Gone with its sandbox, unseen: the port is free again.
    for number in 0..10 {
        client.done(Request::Forget {
            id: many_id(number),
        });
        client.done(Request::Attach(EndpointSpec {
            sandbox: many_id(2000 + number),
            ..far_endpoint(2000 + number)
        }));
    }
    client.done(Request::RemoveBridge { name: name(BRIDGE) });
    assert_eq!(in_router(world, "ip -o link show type bridge"), "");
    assert!(!in_router(world, "ip -o link").contains("-0123456789ab"));
}
