//! What the relay is told of endpoints: everything, before its first snapshot and after each change; and
//! nothing hangs on it.

use super::{shut_down, with_bridge};
use crate::client::Client;
use crate::world::*;
use mossnet_helper::framed::EndpointPlace;
use mossnet_helper::request::{Event, Request};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// As the endpoint of this number is to be listed.
fn place(world: &World, number: u8) -> EndpointPlace {
    let spec = endpoint(number);
    let line = in_router(world, &format!("ip -o link show {}", spec.router_ifname));
    let (port, _) = line.split_once(':').unwrap();
    EndpointPlace {
        port: port.parse().unwrap(),
        mac: spec.mac,
        addresses: spec.addresses.iter().map(|net| net.addr()).collect(),
    }
}

fn attach(client: &mut Client, number: u8) {
    create_bare(client, id(number));
    client.done(Request::Attach(endpoint(number)));
}

fn detach(client: &mut Client, number: u8) {
    client.done(Request::Detach {
        router_ifname: endpoint(number).router_ifname,
    });
}

/// The relay knows these, and no others.
fn knows(client: &mut Client, list: &[EndpointPlace]) {
    let json = serde_json::to_string(list).unwrap();
    client.load(&format!("knows {json}"), Vec::new()).unwrap();
}

pub fn relays_know_where_endpoints_are() {
    let (world, mut client) = with_bridge();
    attach(&mut client, 2);
    let second = place(&world, 2);
    knows(&mut client, std::slice::from_ref(&second));

    // While it runs.
    attach(&mut client, 3);
    let third = place(&world, 3);
    knows(&mut client, &[second, third.clone()]);
    detach(&mut client, 2);
    knows(&mut client, std::slice::from_ref(&third));

    // Another one is told before it has the snapshot, which it would refuse.
    let relay = inventory(&mut client).relay_pid.unwrap();
    kill(Pid::from_raw(relay.cast_signed()), Signal::SIGKILL).unwrap();
    assert!(matches!(client.event(), Event::RelayRestarted { .. }));
    knows(&mut client, std::slice::from_ref(&third));

    // One that goes with its sandbox, as soon as anybody looks.
    client.done(Request::Forget { id: id(3) });
    while !inventory(&mut client).endpoints.is_empty() {
        std::thread::yield_now();
    }
    knows(&mut client, &[]);

    // A relay that will not hear of it has its snapshots all the same.
    client.load("deaf", Vec::new()).unwrap();
    attach(&mut client, 5);
    knows(&mut client, &[]);
    let still = inventory(&mut client).relay_pid;
    detach(&mut client, 5);
    knows(&mut client, &[]);
    assert_eq!(inventory(&mut client).relay_pid, still);
    shut_down(world, client);
}
