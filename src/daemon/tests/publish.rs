//! Published ports: bound first, handed over before the snapshot, given up when something fails.

use super::*;
use crate::api::port_types::{PortsPublish, PortsRemove};
use std::net::TcpListener;

fn publishing(name: &str, ports: &[String]) -> SandboxCreate {
    SandboxCreate {
        publish: wish(ports),
        ..request(name)
    }
}

fn wish(ports: &[String]) -> PortsPublish {
    PortsPublish {
        ports: ports.iter().map(|text| text.parse().unwrap()).collect(),
        ..PortsPublish::default()
    }
}

/// A port of the loopback that nobody has, for now.
fn free() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// What the helper was told about sockets, in order.
fn told(world: &World) -> Vec<String> {
    let asked = world.asked.lock().unwrap();
    let told = asked.iter().filter_map(|request| match request {
        Request::Listeners { keys } => Some(format!("keep {}", keys.join(" "))),
        Request::RelaySnapshot { listeners } => Some(format!("want {}", listeners.join(" "))),
        _ => None,
    });
    told.collect()
}

#[tokio::test]
async fn sockets_are_handed_over_before_the_snapshot_that_needs_them() {
    let world = world(|_| None);
    let daemon = world.daemon();
    let (first, second) = (free(), free());
    let spec = |port: u16| format!("127.0.0.1:{port}:80");
    daemon
        .create(publishing("web", &[spec(first)]))
        .await
        .unwrap();
    let added = daemon
        .add_ports("web", wish(&[spec(second)]))
        .await
        .unwrap();
    assert_eq!(added[0].host_ports.first().get(), second);
    let info = daemon.inspect("web").await.unwrap();
    assert_eq!(info.ports.len(), 2);
    let gone = PortsRemove {
        ports: wish(&[spec(first)]).ports,
    };
    daemon.remove_ports("web", gone.clone()).await.unwrap();
    let refusal = daemon.remove_ports("web", gone).await.unwrap_err();
    assert_eq!(refusal.status, 404, "{refusal}");
    let key = |port: u16| format!("127.0.0.1:{port}/tcp");
    let both = {
        let mut both = [key(first), key(second)];
        both.sort();
        both.join(" ")
    };
    let expected = [
        format!("keep {}", key(first)),
        format!("want {}", key(first)),
        format!("keep {}", key(second)),
        format!("want {both}"),
        format!("want {}", key(second)),
    ];
    assert_eq!(told(&world), expected);
    daemon.remove("web", true).await.unwrap();
    assert_eq!(told(&world).last().unwrap(), "want ");
}

#[tokio::test]
async fn a_port_that_cannot_be_had_takes_the_others_with_it() {
    let world = world(|request| match request {
        Request::CreateSandbox(_) => failure(FailureKind::Kernel, 1),
        _ => None,
    });
    let daemon = world.daemon();
    let port = free();
    let ours = format!("127.0.0.1:{port}:80");
    // Then it is not even recorded; or it is, and the plan fails.
    for ports in [
        vec![ours.clone(), "192.0.2.1:8080:80".to_owned()],
        vec![ours],
    ] {
        daemon.create(publishing("web", &ports)).await.unwrap_err();
        assert_nothing_left(&world, &daemon).await;
        assert!(daemon.0.parking.is_empty());
    }
    // The script's helper has closed what it was given.
    assert!(is_free(port));
}

#[tokio::test]
async fn whose_port_it_is_is_said_and_two_in_one_request_are_refused() {
    let world = world(|_| None);
    let daemon = world.daemon();
    let port = free();
    let ours = format!("127.0.0.1:{port}:80");
    daemon
        .create(publishing("web", std::slice::from_ref(&ours)))
        .await
        .unwrap();
    let refusal = daemon
        .create(publishing("db", std::slice::from_ref(&ours)))
        .await;
    let refusal = refusal.unwrap_err();
    assert_eq!(refusal.status, 409);
    assert!(refusal.body.message.contains("sandbox 'web'"), "{refusal}");
    let hint = refusal.body.hint.unwrap();
    assert!(
        hint.ends_with(&format!("mossnet port rm web {ours}/tcp")),
        "{hint}"
    );
    let twice = publishing("db", &[ours.clone(), format!("{port}:81")]);
    let refusal = daemon.create(twice).await.unwrap_err();
    assert!(
        refusal.body.message.ends_with("published twice"),
        "{refusal}"
    );
}
