//! Networks over a scripted helper: joined and left hot, followed by files and names, taken back.

use super::*;
use crate::api::network_types::{
    ConnectOptions, NetworkConnect, NetworkCreate, NetworkDisconnect, NetworkPrune,
};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

pub(super) fn network(name: &str, subnet: &str) -> NetworkCreate {
    NetworkCreate {
        name: name.to_owned(),
        subnets: vec![subnet.parse().unwrap()],
        ..NetworkCreate::default()
    }
}

pub(super) fn connect(sandbox: &str, spoil: impl FnOnce(&mut ConnectOptions)) -> NetworkConnect {
    let mut attach = ConnectOptions::default();
    spoil(&mut attach);
    NetworkConnect {
        sandbox: sandbox.to_owned(),
        attach,
    }
}

pub(super) fn plain(sandbox: &str) -> NetworkConnect {
    connect(sandbox, |_| {})
}

pub(super) fn disconnect(sandbox: &str, force: bool) -> NetworkDisconnect {
    NetworkDisconnect {
        sandbox: sandbox.to_owned(),
        force,
    }
}

pub(super) async fn running(daemon: &Daemon, request: SandboxCreate) -> SandboxId {
    let id = daemon.create(request).await.unwrap().id;
    daemon.start(id.as_str()).await.unwrap();
    id
}

impl World {
    /// Takes the words of the requests so far.
    pub(super) fn words(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap();
        let word = |request: Request| {
            let json = serde_json::to_value(&request).unwrap();
            let word = json["request"].as_str().unwrap().to_owned();
            match request {
                Request::Attach(spec) => format!("{word} {}", spec.ifname),
                Request::DefaultRoutes { routes, .. } => {
                    let through = routes.iter().map(|route| route.ifname.as_str());
                    format!("{word} {}", through.collect::<Vec<_>>().join(","))
                }
                _ => word,
            }
        };
        asked.drain(..).map(word).collect()
    }

    pub(super) fn last_snapshot(&self) -> serde_json::Value {
        serde_json::from_slice(&self.snapshot.lock().unwrap()).unwrap()
    }

    pub(super) fn file(&self, id: &SandboxId, name: &str) -> String {
        std::fs::read_to_string(self.paths.sandbox_dir(id).join(name)).unwrap()
    }
}

pub(super) async fn addresses(daemon: &Daemon, sandbox: &str) -> Vec<String> {
    let endpoints = daemon.inspect(sandbox).await.unwrap().endpoints;
    let show = |e: &crate::api::types::EndpointInfo| format!("{} {}", e.ifname, e.addresses[0]);
    endpoints.iter().map(show).collect()
}

#[tokio::test]
async fn networks_are_joined_and_left_while_a_sandbox_runs() {
    let world = world(|_| None);
    let daemon = world.daemon();
    let id = running(&daemon, request("web")).await;
    let hosts = world.paths.sandbox_dir(&id).join("hosts");
    let inode = hosts.metadata().unwrap().ino();
    let mynet = network("mynet", "192.168.0.0/16");
    daemon.create_network(mynet).await.unwrap();
    world.words();

    let aliased = connect("web", |a| a.aliases = vec!["www".to_owned()]);
    daemon.connect_network("mynet", aliased).await.unwrap();
    let snapshot = world.last_snapshot();
    assert_eq!(
        world.words(),
        ["bridge", "ruleset", "relay_snapshot", "attach eth1"]
    );
    assert_eq!(
        addresses(&daemon, "web").await,
        ["eth0 10.89.0.2/24", "eth1 192.168.0.2/16"]
    );
    let names = snapshot["networks"][1]["names"].to_string();
    assert!(names.contains(r#""name":"www""#), "{names}");
    assert_eq!(snapshot["multihomed"][0].as_array().unwrap().len(), 3);
    assert!(world.file(&id, "hosts").contains("192.168.0.2\t"));
    let resolv = world.file(&id, "resolv.conf");
    assert!(resolv.starts_with("nameserver 192.168.0.1\n"), "{resolv}");
    assert!(resolv.contains("ndots:0"));
    let shown = daemon.network("mynet").await.unwrap();
    assert_eq!(shown.containers[&id].ipv4_address, "192.168.0.2/16");

    world.words();
    daemon
        .disconnect_network("bridge", disconnect("web", false))
        .await
        .unwrap();
    assert_eq!(
        world.words(),
        ["detach", "default_routes eth1", "relay_snapshot"]
    );
    assert_eq!(addresses(&daemon, "web").await, ["eth1 192.168.0.2/16"]);
    assert!(!world.file(&id, "hosts").contains("10.89.0.2"));
    assert_eq!(hosts.metadata().unwrap().ino(), inode, "mounted elsewhere");
    daemon
        .disconnect_network("mynet", disconnect("web", false))
        .await
        .unwrap();
    assert_eq!(
        world.words(),
        ["detach", "default_routes ", "relay_snapshot"]
    );
    assert!(addresses(&daemon, "web").await.is_empty());
}

#[tokio::test]
async fn a_connect_that_fails_changes_nothing() {
    let refuses = Arc::new(Mutex::new(false));
    let refusing = Arc::clone(&refuses);
    let world = world(move |request| match request {
        Request::DefaultRoutes { .. } if *refusing.lock().unwrap() => {
            failure(FailureKind::Kernel, 1)
        }
        _ => None,
    });
    let daemon = world.daemon();
    let id = running(&daemon, request("web")).await;
    daemon
        .create_network(network("mynet", "192.168.0.0/16"))
        .await
        .unwrap();
    let before = daemon.inspect("web").await.unwrap();
    let files = || (world.file(&id, "hosts"), world.file(&id, "resolv.conf"));
    let written = files();
    *refuses.lock().unwrap() = true;
    world.words();
    let preferred = connect("web", |a| a.gw_priority = 1);
    let refusal = daemon.connect_network("mynet", preferred).await;
    assert_eq!(refusal.unwrap_err().status, 500);
    assert_eq!(daemon.inspect("web").await.unwrap(), before);
    assert_eq!(files(), written);
    let shown = daemon.network("mynet").await.unwrap();
    assert!(shown.containers.is_empty() && shown.leases.is_empty());
    let words = world.words();
    let attached = words.iter().position(|word| word == "attach eth1");
    assert!(
        words[attached.unwrap()..].contains(&"detach".to_owned()),
        "{words:?}"
    );
    *refuses.lock().unwrap() = false;
    let fixed = connect("web", |a| a.ip = Some([192, 168, 0, 2].into()));
    daemon.connect_network("mynet", fixed).await.unwrap();
}

#[tokio::test]
async fn a_network_is_made_on_free_prefixes_and_removed_when_unused() {
    let world = world(|_| None);
    let daemon = world.daemon();
    let refuse = async |request: NetworkCreate| daemon.create_network(request).await.unwrap_err();
    daemon
        .create_network(network("mynet", "192.168.0.0/16"))
        .await
        .unwrap();
    let refusal = refuse(network("mynet", "192.168.0.0/16")).await;
    assert_eq!(
        (refusal.status, refusal.body.message.as_str()),
        (409, "network 'mynet' exists already")
    );
    let refusal = refuse(network("inside", "192.168.7.0/24")).await;
    assert_eq!(
        refusal.body.message,
        "subnet 192.168.7.0/24 overlaps network 'mynet' (192.168.0.0/16)"
    );
    let refusal = refuse(network("inside", "10.89.0.0/24")).await;
    assert!(
        refusal.body.message.contains("overlaps network 'bridge'"),
        "{refusal}"
    );
    let next = NetworkCreate {
        name: "next".to_owned(),
        ipv6: true,
        ..NetworkCreate::default()
    };
    daemon.create_network(next).await.unwrap();
    let shown = daemon.network("next").await.unwrap();
    assert_eq!(shown.ipam.config[0].subnet.to_string(), "10.89.1.0/24");
    assert!(shown.enable_ipv4 && shown.enable_ipv6 && shown.dns_enabled);
}

#[tokio::test]
async fn a_network_is_removed_when_nobody_uses_it() {
    let world = world(|_| None);
    let daemon = world.daemon();
    for (name, subnet) in [("mynet", "192.168.0.0/16"), ("next", "10.9.0.0/24")] {
        daemon.create_network(network(name, subnet)).await.unwrap();
    }
    let remove = async |name: &str, force| daemon.remove_network(name, force).await;
    let mut web = request("web");
    web.network = Some(on("mynet", None));
    running(&daemon, web).await;
    let refusal = remove("mynet", false).await.unwrap_err();
    assert_eq!(refusal.body.message, "network mynet is in use by web");
    for name in ["bridge", "host", "none"] {
        let message = remove(name, true).await.unwrap_err().body.message;
        assert_eq!(
            message,
            format!("network {name} is a pre-defined network and cannot be removed")
        );
    }
    for force in [false, true] {
        assert_eq!(remove("nonet", force).await.unwrap_err().status, 404);
    }
    let pruned = daemon
        .prune_networks(NetworkPrune::default())
        .await
        .unwrap();
    assert_eq!(pruned.networks_deleted, ["next"]);

    world.words();
    daemon
        .disconnect_network("mynet", disconnect("web", false))
        .await
        .unwrap();
    remove("mynet", false).await.unwrap();
    let words = world.words();
    assert!(words.contains(&"remove_bridge".to_owned()), "{words:?}");
    let names: Vec<_> = daemon
        .networks()
        .await
        .unwrap()
        .into_iter()
        .map(|n| n.name)
        .collect();
    assert_eq!(names, ["bridge", "host", "none"]);
}

#[tokio::test]
async fn a_vlan_that_the_kernel_cannot_make_is_refused_at_once() {
    for (supported, errno) in [(true, 0), (false, 95), (false, 12)] {
        let world = world(move |request| match request {
            Request::Bridge(spec) if !supported && spec.vlan == Some(7) => {
                failure(FailureKind::Kernel, errno)
            }
            _ => None,
        });
        let daemon = world.daemon();
        let mut tagged = network("tagged", "10.77.0.0/24");
        tagged.options = BTreeMap::from([("vlan".to_owned(), "7".to_owned())]);
        let made = daemon.create_network(tagged).await.map(drop);
        let words = world.words();
        let trial = ["hello", "inventory", "bridge", "remove_bridge"];
        assert_eq!(words, trial, "what was tried is taken back");
        let there = daemon.network("tagged").await.is_ok();
        assert_eq!((made.is_ok(), there), (supported, supported));
        let Err(refusal) = made else { continue };
        let says_vlan = refusal.body.message.contains("cannot be in VLAN 7");
        let expected = if errno == 95 {
            (400, true)
        } else {
            (500, false)
        };
        assert_eq!((refusal.status, says_vlan), expected, "{refusal:?}");
    }
}

#[tokio::test]
async fn a_connect_that_comes_too_late_says_whose_end_it_met() {
    let world = world(|request| match request {
        Request::Attach(spec) if spec.ifname.as_str() == "eth1" => {
            failure(FailureKind::NotFound, 3)
        }
        _ => None,
    });
    let daemon = world.daemon();
    running(&daemon, request("web")).await;
    let mynet = network("mynet", "10.77.0.0/24");
    daemon.create_network(mynet).await.unwrap();
    let connected = daemon.connect_network("mynet", plain("web")).await;
    let refusal = connected.unwrap_err();
    assert_eq!(refusal.status, 409);
    assert_eq!(refusal.body.message, "sandbox 'web' ended meanwhile");
    assert_eq!(addresses(&daemon, "web").await.len(), 1, "taken back");
}

/// Whatever else the helper does not find is not the sandbox's end.
#[tokio::test]
async fn a_connect_to_one_that_lives_says_what_is_missing() {
    let made = Arc::new(Mutex::new(Vec::new()));
    let world = world(move |request| match request {
        Request::CreateSandbox(spec) => {
            made.lock().unwrap().push(ProcessInfo {
                id: spec.id.clone(),
                exec_in: None,
                pid: 77,
                state: ProcessState::Running,
                netns_fd: None,
            });
            None
        }
        Request::Attach(spec) if spec.ifname.as_str() == "eth1" => {
            failure(FailureKind::NotFound, 19)
        }
        Request::Inventory => {
            let processes = made.lock().unwrap().clone();
            let inventory = Inventory {
                processes,
                ..Inventory::default()
            };
            Some((Vec::new(), Ok(Reply::Inventory(Box::new(inventory)))))
        }
        _ => None,
    });
    let daemon = world.daemon();
    running(&daemon, request("web")).await;
    let mynet = network("mynet", "10.77.0.0/24");
    daemon.create_network(mynet).await.unwrap();
    let connected = daemon.connect_network("mynet", plain("web")).await;
    let refusal = connected.unwrap_err();
    assert!(refusal.body.message.starts_with("scripted"), "{refusal}");
    assert_eq!(addresses(&daemon, "web").await.len(), 1, "taken back");
}

#[tokio::test]
async fn never_there_stopped_and_gone_are_told_apart() {
    let world = world(|_| None);
    let daemon = world.daemon();
    running(&daemon, request("web")).await;
    let mynet = network("mynet", "10.77.0.0/24");
    daemon.create_network(mynet).await.unwrap();
    let id = daemon.inspect("web").await.unwrap().id;
    let never = daemon.connect_network("mynet", plain("nobody")).await;
    assert_eq!(never.unwrap_err().body.message, "no such sandbox: nobody");

    // Somebody else changes it, and removes it at last: whoever came meanwhile is told.
    let turn = daemon.0.turns.take(&id).await;
    let (connecting, leaving) = (daemon.clone(), daemon.clone());
    let connecting =
        tokio::spawn(async move { connecting.connect_network("mynet", plain("web")).await });
    let leaving = tokio::spawn(async move {
        leaving
            .disconnect_network("bridge", disconnect("web", false))
            .await
    });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    daemon.0.model.lock().await.remove_sandbox(&id).unwrap();
    drop(turn);
    for late in [connecting, leaving] {
        let refusal = late.await.unwrap().unwrap_err();
        assert_eq!(refusal.status, 404);
        assert_eq!(refusal.body.message, "sandbox 'web' was removed meanwhile");
    }

    // One that is stopped joins and leaves all the same.
    running(&daemon, request("web")).await;
    let id = daemon.inspect("web").await.unwrap().id;
    let ended = |sandbox: &mut crate::network::Sandbox| sandbox.exit(1, 0);
    let mut model = daemon.0.model.lock().await;
    model.change_sandbox(&id, ended).unwrap();
    drop(model);
    daemon.connect_network("mynet", plain("web")).await.unwrap();
    daemon
        .disconnect_network("mynet", disconnect("web", false))
        .await
        .unwrap();
    let stranger = daemon
        .disconnect_network("mynet", disconnect("web", false))
        .await;
    assert_eq!(
        stranger.unwrap_err().body.message,
        "sandbox 'web' is not connected to network 'mynet'"
    );
}
