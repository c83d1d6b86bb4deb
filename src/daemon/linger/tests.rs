//! What lingers holds its addresses, and makes way for who wants them.

use super::*;
use crate::api::paths::Paths;
use crate::kernel::fake::{self, Asked, done};
use crate::network::Network;
use crate::network::model::samples;
use crate::state::Lease;
use mossnet_helper::request::Reply;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

struct World {
    daemon: Daemon,
    helper: Helper,
    asked: Asked,
    /// What the helper answers to `Unsent`.
    sockets: Arc<AtomicU32>,
    network: Network,
    web: Sandbox,
    _directory: tempfile::TempDir,
}

/// A daemon whose sandbox `web` at 10.89.3.2, a name that was chosen, is about to be taken down with
/// `sockets` that have something to deliver.
async fn world(sockets: u32) -> World {
    let directory = tempfile::tempdir().unwrap();
    let paths = Paths::resolve(Some(directory.path()));
    paths.prepare().unwrap();
    let sockets = Arc::new(AtomicU32::new(sockets));
    let left = Arc::clone(&sockets);
    let asked = fake::serve(&paths.helper_socket(), move |request, _| match request {
        Request::Unsent { .. } => {
            let sockets = left.load(Ordering::SeqCst);
            Some((Vec::new(), Ok(Reply::Unsent { sockets })))
        }
        _ => done(),
    });
    let (helper, _) = Helper::connect(&paths.helper_socket())
        .await
        .unwrap()
        .unwrap();
    let daemon = Daemon::open(paths, [0; 5]).unwrap();
    let network = samples::network("mynet", 1, "10.89.3.0/24");
    let web = samples::sandbox("web", 2, &network, "10.89.3.2/24");
    let mut model = daemon.0.model.lock().await;
    model.put_network(network.clone()).unwrap();
    let lease = Lease {
        network: network.id.clone(),
        name: web.name.clone(),
        addresses: vec!["10.89.3.2".parse().unwrap()],
        granted: 1,
    };
    model.remember(lease).unwrap();
    drop(model);
    World {
        daemon,
        helper,
        asked,
        sockets,
        network,
        web,
        _directory: directory,
    }
}

impl World {
    async fn take_down(&self) {
        let linger = self.daemon.0.model.lock().await.begin_linger(&self.web);
        assert!(linger.is_some());
        let endpoints = &self.web.endpoints;
        let down = self
            .daemon
            .take_down(&self.helper, &self.web.id, endpoints, linger);
        down.await;
    }

    async fn lingers(&self) -> bool {
        let model = self.daemon.0.model.lock().await;
        let held = model.members().held(&self.network.id);
        let endpoint = &self.web.endpoints[0];
        let holder = model.members().mac_holder(&self.network.id, endpoint.mac);
        assert_eq!(held.is_empty(), model.lingering.is_empty());
        assert_eq!(holder.is_none(), model.lingering.is_empty());
        !held.is_empty()
    }

    /// Whether it is in the way of a newcomer.
    async fn blocks(&self, name: Option<&str>, spoil: impl FnOnce(&mut Attachment)) -> bool {
        let mut wanted = samples::attachment(&self.network);
        spoil(&mut wanted);
        let name = name.map(|name| name.parse().unwrap());
        let model = self.daemon.0.model.lock().await;
        let found = model.in_the_way(name.as_ref(), &wanted);
        found == [self.web.id.clone()]
    }

    fn detached(&self) -> bool {
        let asked = self.asked.lock().unwrap();
        let detach = asked.iter().any(|r| matches!(r, Request::Detach { .. }));
        let forget = asked.iter().any(|r| matches!(r, Request::Forget { .. }));
        assert_eq!(detach, forget);
        detach
    }
}

#[tokio::test]
async fn what_is_delivered_goes_at_once() {
    let world = world(0).await;
    world.take_down().await;
    assert!(world.detached() && !world.lingers().await);
}

#[tokio::test]
async fn what_is_not_delivered_holds_its_addresses_until_it_is() {
    let world = world(2).await;
    world.take_down().await;
    assert!(!world.detached() && world.lingers().await);
    // A second report of the same end does not add to it.
    assert!(
        world
            .daemon
            .0
            .model
            .lock()
            .await
            .begin_linger(&world.web)
            .is_none()
    );
    world.sockets.store(0, Ordering::SeqCst);
    world
        .daemon
        .see_off(std::slice::from_ref(&world.web.id), LONGEST)
        .await;
    assert!(world.detached() && !world.lingers().await);
}

#[test]
fn nobody_lingers_for_ever() {
    let begun = Instant::now();
    let mut pace = Pace::new(begun);
    let mut pauses = Vec::new();
    let mut now = begun;
    while let Some(pause) = pace.next(now) {
        pauses.push(pause);
        now += pause;
    }
    assert_eq!(now - begun, LONGEST);
    assert_eq!(pauses[0], FIRST_PAUSE);
    assert!(pauses.is_sorted_by(|a, b| a <= b) || pauses.last() < Some(&LAST_PAUSE));
    assert_eq!(pauses.iter().max(), Some(&LAST_PAUSE));
    // A machine that slept.
    assert_eq!(Pace::new(begun).next(begun + LONGEST * 2), None);
}

#[tokio::test]
async fn a_newcomer_has_it_cut_after_a_while_and_removal_at_once() {
    let world = world(1).await;
    world.take_down().await;
    let begun = Instant::now();
    let name = world.web.name.clone();
    let wanted = [samples::attachment(&world.network)];
    world.daemon.make_way(Some(&name), &wanted).await;
    assert!(begun.elapsed() >= PATIENCE);
    assert!(world.detached() && !world.lingers().await);
    world.take_down().await;
    let begun = Instant::now();
    world.daemon.end_linger(&world.web.id).await;
    assert!(begun.elapsed() < PATIENCE && !world.lingers().await);
    // What does not linger keeps nobody.
    world.daemon.end_linger(&world.web.id).await;
    world.daemon.see_off_all().await;
}

#[tokio::test]
async fn only_who_wants_the_same_waits() {
    let world = world(1).await;
    assert!(
        !world.blocks(Some("web"), |_| {}).await,
        "nothing lingers yet"
    );
    world.take_down().await;
    let mac = world.web.endpoints[0].mac;
    assert!(world.blocks(Some("web"), |_| {}).await);
    assert!(
        world
            .blocks(None, |r| r.addresses = vec![[10, 89, 3, 2].into()])
            .await
    );
    assert!(world.blocks(None, |r| r.mac = Some(mac)).await);
    assert!(!world.blocks(None, |_| {}).await);
    assert!(!world.blocks(Some("db"), |_| {}).await);
    assert!(
        !world
            .blocks(None, |r| r.addresses = vec![[10, 89, 3, 3].into()])
            .await
    );
    let elsewhere = samples::network("other", 9, "10.89.4.0/24");
    let model = world.daemon.0.model.lock().await;
    let wanted = samples::attachment(&elsewhere);
    assert!(model.in_the_way(Some(&world.web.name), &wanted).is_empty());
}

#[tokio::test]
async fn the_last_address_of_a_network_does_not_linger_for_long() {
    let world = world(1).await;
    let small = samples::network("mynet", 1, "10.89.3.0/30");
    world
        .daemon
        .0
        .model
        .lock()
        .await
        .put_network(small)
        .unwrap();
    let free: IpAddr = "10.89.3.2".parse().unwrap();
    assert_eq!(world.web.endpoints[0].addresses[0].addr(), free);
    world.take_down().await;
    assert!(world.blocks(None, |_| {}).await);
}
