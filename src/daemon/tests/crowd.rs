//! Many clients at once: nobody waits for ever, no address is given twice, nothing is lost.

use super::*;
use crate::api::network_types::{ConnectOptions, NetworkConnect, NetworkCreate, NetworkDisconnect};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Every helper request yields, so that the clients really mix.
fn slow_world() -> World {
    world(|request| match request {
        Request::Signal { id, .. } => Some((vec![exited(id, 137)], Ok(Reply::Done))),
        _ => {
            std::thread::sleep(Duration::from_micros(200));
            None
        }
    })
}

fn joining(sandbox: &str) -> NetworkConnect {
    NetworkConnect {
        sandbox: sandbox.to_owned(),
        attach: ConnectOptions::default(),
    }
}

fn leaving(sandbox: &str) -> NetworkDisconnect {
    NetworkDisconnect {
        sandbox: sandbox.to_owned(),
        force: false,
    }
}

/// No address and no MAC twice on a network, and networks and sandboxes say the same.
async fn check(daemon: &Daemon) {
    let mut held: BTreeMap<(String, IpAddr), String> = BTreeMap::new();
    let sandboxes = daemon.list(true).await.unwrap();
    for sandbox in &sandboxes {
        for endpoint in &sandbox.endpoints {
            for address in &endpoint.addresses {
                let place = (endpoint.network.clone(), address.addr());
                let before = held.insert(place.clone(), sandbox.name.clone());
                assert_eq!(before, None, "{place:?} is {}'s too", sandbox.name);
            }
        }
    }
    for network in daemon.networks().await.unwrap() {
        let on = |s: &&crate::api::types::SandboxInfo| {
            s.endpoints.iter().any(|e| e.network == network.name)
        };
        assert_eq!(
            network.containers.len(),
            sandboxes.iter().filter(on).count()
        );
    }
}

async fn client(daemon: Daemon, number: u8) {
    let own = format!("net{number}");
    let name = format!("s{number}");
    for round in 0..3 {
        let mut create = request(&name);
        create.network = Some(on("shared", None));
        daemon.create(create).await.unwrap();
        daemon.start(&name).await.unwrap();
        let made = NetworkCreate {
            name: own.clone(),
            ..NetworkCreate::default()
        };
        daemon.create_network(made).await.unwrap();
        daemon.connect_network(&own, joining(&name)).await.unwrap();
        daemon
            .connect_network("bridge", joining(&name))
            .await
            .unwrap();
        // Somebody else's, which comes and goes.
        let others = format!("net{}", (number + 1) % 20);
        let joined = daemon.connect_network(&others, joining(&name)).await;
        daemon
            .disconnect_network("shared", leaving(&name))
            .await
            .unwrap();
        if joined.is_ok() {
            // It may not be removed while we are on it.
            let shown = daemon.network(&others).await.unwrap();
            assert!(!shown.containers.is_empty());
            daemon
                .disconnect_network(&others, leaving(&name))
                .await
                .unwrap();
        }
        if round % 2 == 0 {
            daemon.stop(&name, 0).await.unwrap();
            daemon.start(&name).await.unwrap();
        }
        daemon.remove(&name, true).await.unwrap();
        // Others may be on it for a moment.
        while daemon.remove_network(&own, false).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_clients_do_not_get_into_one_anothers_way() {
    let world = slow_world();
    let daemon = world.daemon();
    let shared = NetworkCreate {
        name: "shared".to_owned(),
        ..NetworkCreate::default()
    };
    daemon.create_network(shared).await.unwrap();
    let clients: Vec<_> = (0..20)
        .map(|number| tokio::spawn(client(daemon.clone(), number)))
        .collect();
    let all = futures_util::future::join_all(clients);
    let watched = async {
        loop {
            check_quietly(&daemon).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = tokio::select! {
        ended = tokio::time::timeout(Duration::from_secs(120), all) => ended,
        () = watched => unreachable!(),
    };
    for client in ended.expect("nobody waits for ever") {
        client.unwrap();
    }
    check(&daemon).await;
    assert_nothing_left(&world, &daemon).await;
    let names: Vec<_> = daemon
        .networks()
        .await
        .unwrap()
        .into_iter()
        .map(|n| n.name)
        .collect();
    assert_eq!(names, ["bridge", "shared", "host", "none"]);
    let told = world.count(|r| matches!(r, Request::RelaySnapshot { .. }));
    let joined = world.count(|r| matches!(r, Request::Attach(_)));
    assert!(
        told > 0 && joined > 0,
        "{told} snapshots for {joined} joins"
    );
}

/// In the middle of everything only the addresses can be looked at.
async fn check_quietly(daemon: &Daemon) {
    let mut held: BTreeMap<(String, IpAddr), String> = BTreeMap::new();
    for sandbox in daemon.list(true).await.unwrap() {
        for endpoint in sandbox.endpoints {
            for address in endpoint.addresses {
                let before = held.insert(
                    (endpoint.network.clone(), address.addr()),
                    sandbox.name.clone(),
                );
                assert_eq!(before, None, "{address} twice on {}", endpoint.network);
            }
        }
    }
}

/// Two connects of one sandbox, a removal of the network under a connect, the end of a sandbox under
/// a connect: whoever comes second is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_comes_second_is_told() {
    let world = slow_world();
    let daemon = world.daemon();
    for round in 0..20 {
        let name = format!("net{round}");
        let made = NetworkCreate {
            name: name.clone(),
            ..NetworkCreate::default()
        };
        daemon.create_network(made).await.unwrap();
        let sandbox = format!("s{round}");
        daemon.create(request(&sandbox)).await.unwrap();
        daemon.start(&sandbox).await.unwrap();
        let (a, b, removed, stopped) = tokio::join!(
            daemon.connect_network(&name, joining(&sandbox)),
            daemon.connect_network(&name, joining(&sandbox)),
            daemon.remove_network(&name, false),
            daemon.stop(&sandbox, 0),
        );
        stopped.unwrap();
        assert!(a.is_err() || b.is_err(), "connected twice");
        if removed.is_ok() {
            let network = daemon.network(&name).await;
            assert_eq!(network.unwrap_err().status, 404);
        } else {
            daemon.remove_network(&name, false).await.unwrap();
        }
        check(&daemon).await;
        daemon.remove(&sandbox, true).await.unwrap();
    }
    assert_nothing_left(&world, &daemon).await;
}
