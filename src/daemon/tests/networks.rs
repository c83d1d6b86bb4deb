//! Networks over a scripted helper: joined and left hot, followed by files and names, taken back.

use super::*;
use crate::api::network_types::{
    ConnectOptions, Link, NetnsCreate, NetworkConnect, NetworkCreate, NetworkDisconnect,
    NetworkPrune,
};
use std::os::unix::fs::MetadataExt;

fn network(name: &str, subnet: &str) -> NetworkCreate {
    NetworkCreate {
        name: name.to_owned(),
        subnets: vec![subnet.parse().unwrap()],
        ..NetworkCreate::default()
    }
}

fn connect(sandbox: &str, spoil: impl FnOnce(&mut ConnectOptions)) -> NetworkConnect {
    let mut attach = ConnectOptions::default();
    spoil(&mut attach);
    NetworkConnect {
        sandbox: sandbox.to_owned(),
        attach,
    }
}

fn plain(sandbox: &str) -> NetworkConnect {
    connect(sandbox, |_| {})
}

fn disconnect(sandbox: &str, force: bool) -> NetworkDisconnect {
    NetworkDisconnect {
        sandbox: sandbox.to_owned(),
        force,
    }
}

async fn running(daemon: &Daemon, request: SandboxCreate) -> SandboxId {
    let id = daemon.create(request).await.unwrap().id;
    daemon.start(id.as_str()).await.unwrap();
    id
}

impl World {
    /// Takes the words of the requests so far.
    fn words(&self) -> Vec<String> {
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

    fn last_snapshot(&self) -> serde_json::Value {
        let asked = self.asked.lock().unwrap();
        let snapshot = asked.iter().rev().find_map(|request| match request {
            Request::RelaySnapshot { snapshot } => Some(snapshot.clone()),
            _ => None,
        });
        serde_json::from_str(&snapshot.unwrap()).unwrap()
    }

    fn file(&self, id: &SandboxId, name: &str) -> String {
        std::fs::read_to_string(self.paths.sandbox_dir(id).join(name)).unwrap()
    }
}

async fn addresses(daemon: &Daemon, sandbox: &str) -> Vec<String> {
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
async fn what_makes_no_sense_is_refused_with_one_line() {
    let world = world(|_| None);
    let daemon = world.daemon();
    for (name, subnet) in [("mynet", "10.9.0.0/29"), ("other", "10.9.1.0/24")] {
        daemon.create_network(network(name, subnet)).await.unwrap();
    }
    running(&daemon, request("web")).await;
    for (name, mode) in [("alone", "none"), ("open", "host")] {
        let mut request = request(name);
        request.network = Some(on(mode, None));
        running(&daemon, request).await;
    }
    let mut shared = request("shared");
    shared.network = Some(NetworkMode::Container("web".into()));
    running(&daemon, shared).await;
    let mut holder = request("holder");
    holder.network = Some(on("mynet", Some([10, 9, 0, 3].into())));
    running(&daemon, holder).await;
    let before = daemon.list(true).await.unwrap();
    let mac = before
        .iter()
        .find(|s| s.name == "holder")
        .unwrap()
        .endpoints[0]
        .mac_address;

    let cases: [(&str, NetworkConnect, u16, &str); 15] = [
        ("nonet", plain("web"), 404, "no such network: nonet"),
        ("mynet", plain("nobody"), 404, "no such sandbox: nobody"),
        (
            "bridge",
            plain("web"),
            409,
            "sandbox 'web' is connected to network 'bridge' already",
        ),
        ("mynet", plain("alone"), 409, "private (none) mode"),
        ("mynet", plain("open"), 409, "shares the host's network"),
        ("mynet", plain("shared"), 409, "shares the network of 'web'"),
        (
            "host",
            plain("web"),
            400,
            "cannot be connected to network 'host'",
        ),
        (
            "mynet",
            connect("web", |a| a.ip = Some([10, 9, 0, 3].into())),
            409,
            "in use by 'holder'",
        ),
        (
            "mynet",
            connect("web", |a| a.ip = Some([10, 9, 0, 1].into())),
            400,
            "it is the gateway",
        ),
        (
            "mynet",
            connect("web", |a| a.ip = Some([10, 7, 0, 1].into())),
            400,
            "outside",
        ),
        (
            "mynet",
            connect("web", |a| a.ip6 = "fd00::2".parse().ok()),
            400,
            "no IPv6 subnet",
        ),
        (
            "mynet",
            connect("web", |a| a.mac_address = Some(mac)),
            409,
            "is in use by 'holder'",
        ),
        (
            "mynet",
            connect("web", |a| a.aliases = vec!["a b".into()]),
            400,
            "alias 'a b'",
        ),
        (
            "mynet",
            connect("web", |a| a.interface_name = Some("eth0".into())),
            409,
            "interface eth0 already",
        ),
        (
            "mynet",
            connect("web", |a| {
                a.links = vec![Link {
                    sandbox: "ghost".into(),
                    alias: None,
                }];
            }),
            404,
            "cannot link to 'ghost'",
        ),
    ];
    world.words();
    for (network, request, status, part) in cases {
        let refusal = daemon.connect_network(network, request).await.unwrap_err();
        assert_eq!(refusal.status, status, "{refusal}");
        let message = &refusal.body.message;
        assert!(
            message.contains(part) && !message.contains('\n'),
            "{message}"
        );
    }
    for (network, sandbox, part) in [
        (
            "mynet",
            "web",
            "sandbox 'web' is not connected to network 'mynet'",
        ),
        ("nonet", "web", "no such network: nonet"),
        ("mynet", "nobody", "no such sandbox: nobody"),
        (
            "host",
            "open",
            "sandbox 'open' is not connected to network 'host'",
        ),
    ] {
        let refusal = daemon
            .disconnect_network(network, disconnect(sandbox, false))
            .await;
        assert_eq!(refusal.unwrap_err().body.message, part);
        daemon
            .disconnect_network(network, disconnect(sandbox, true))
            .await
            .unwrap();
    }
    assert_eq!(daemon.list(true).await.unwrap(), before);
    assert!(world.words().is_empty(), "the kernel is left alone");
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

    let mut web = request("web");
    web.network = Some(on("mynet", None));
    running(&daemon, web).await;
    let refusal = daemon.remove_network("mynet", false).await.unwrap_err();
    assert_eq!(refusal.body.message, "network mynet is in use by web");
    for name in ["bridge", "host", "none"] {
        let message = daemon
            .remove_network(name, true)
            .await
            .unwrap_err()
            .body
            .message;
        assert_eq!(
            message,
            format!("network {name} is a pre-defined network and cannot be removed")
        );
    }
    assert_eq!(
        daemon
            .remove_network("nonet", false)
            .await
            .unwrap_err()
            .status,
        404
    );
    daemon.remove_network("nonet", true).await.unwrap();
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
    daemon.remove_network("mynet", false).await.unwrap();
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

/// `Signal` ends whatever it is sent to.
fn mortal() -> World {
    world(|request| match request {
        Request::Signal { id, .. } => Some((vec![exited(id, 137)], Ok(Reply::Done))),
        _ => None,
    })
}

#[tokio::test]
async fn an_ended_sandbox_starts_again_where_it_was_and_where_it_was_sent() {
    let world = mortal();
    let daemon = world.daemon();
    daemon
        .create_network(network("mynet", "192.168.0.0/16"))
        .await
        .unwrap();
    let id = running(&daemon, request("web")).await;
    let before = addresses(&daemon, "web").await;
    daemon.stop("web", 0).await.unwrap();
    world.words();
    let fixed = connect("web", |a| a.ip = Some([192, 168, 7, 7].into()));
    daemon.connect_network("mynet", fixed).await.unwrap();
    assert!(world.words().is_empty(), "nothing to do yet");
    let info = daemon.inspect("web").await.unwrap();
    assert_eq!(info.networks, ["bridge", "mynet"]);
    assert!(info.endpoints.is_empty());
    let lease = daemon.network("bridge").await.unwrap().leases;
    assert_eq!(lease[0].name, "web");

    daemon.start("web").await.unwrap();
    let now = addresses(&daemon, "web").await;
    assert_eq!(now, [before[0].as_str(), "eth1 192.168.7.7/16"]);
    assert_eq!(daemon.start("web").await.unwrap_err().status, 409);
    let info = daemon.inspect("web").await.unwrap();
    assert_eq!((info.state, info.id), (SandboxState::Running, id));
    // Whose network went meanwhile is told so, and is left as it was.
    daemon.stop("web", 0).await.unwrap();
    daemon.remove_network("mynet", false).await.unwrap();
    let refusal = daemon.start("web").await.unwrap_err();
    assert_eq!(refusal.body.message, "no such network: mynet");
    assert_eq!(
        daemon.inspect("web").await.unwrap().state,
        SandboxState::Exited
    );
    daemon
        .disconnect_network("mynet", disconnect("web", false))
        .await
        .unwrap();
    daemon.start("web").await.unwrap();
}

#[tokio::test]
async fn a_second_start_that_fails_leaves_the_first_run_to_look_at() {
    let world = world(|request| match request {
        Request::StartSandbox { id } => Some((vec![exited(id, 3)], Ok(Reply::Done))),
        _ => None,
    });
    let daemon = world.daemon();
    daemon.create(request("web")).await.unwrap();
    daemon.start("web").await.unwrap();
    assert_eq!(daemon.wait("web").await.unwrap().code, 3);
    let mut thief = request("thief");
    thief.network = Some(on("bridge", Some([10, 89, 0, 2].into())));
    daemon.create(thief).await.unwrap();
    // Its own address is taken, and it has another now.
    daemon.start("web").await.unwrap();
    assert_eq!(daemon.wait("web").await.unwrap().code, 3);
    let info = daemon.inspect("web").await.unwrap();
    assert_eq!(
        (info.state, info.exit_code),
        (SandboxState::Exited, Some(3))
    );
}

#[tokio::test]
async fn links_follow_the_linked() {
    let world = mortal();
    let daemon = world.daemon();
    daemon
        .create_network(network("mynet", "192.168.0.0/16"))
        .await
        .unwrap();
    let db = running(&daemon, request("db")).await;
    let mut web = request("web");
    web.links = vec![Link {
        sandbox: "db".to_owned(),
        alias: Some("store".to_owned()),
    }];
    let web = running(&daemon, web).await;
    let line = |address: &str| format!("{address}\tstore db {}\n", db.short());
    let has = |text: &str| world.file(&web, "hosts").contains(text);
    assert!(has(&line("10.89.0.2")), "{}", world.file(&web, "hosts"));
    daemon.connect_network("mynet", plain("db")).await.unwrap();
    daemon.connect_network("mynet", plain("web")).await.unwrap();
    daemon
        .disconnect_network("bridge", disconnect("db", false))
        .await
        .unwrap();
    assert!(has(&line("192.168.0.2")) && !has("10.89.0.2\tstore"));
    daemon.stop("db", 0).await.unwrap();
    assert!(!has("store"));
    daemon.start("db").await.unwrap();
    assert!(has(&line("192.168.0.2")));
    assert!(!world.file(&db, "hosts").contains("web"), "one way only");
    let links = daemon.inspect("web").await.unwrap().links;
    assert_eq!(
        (links[0].name.as_str(), links[0].alias.as_deref()),
        ("db", Some("store"))
    );
}

#[tokio::test]
async fn a_network_namespace_lives_until_it_is_removed() {
    let world = world(|_| None);
    let daemon = world.daemon();
    let request = NetnsCreate {
        name: Some("ns".to_owned()),
        ..NetnsCreate::default()
    };
    let made = daemon.create_netns(request).await.unwrap();
    assert!(made.path.ends_with("fd/9"), "{}", made.path.display());
    let info = daemon.inspect("ns").await.unwrap();
    assert_eq!((info.state, info.pid), (SandboxState::Running, None));
    assert_eq!(
        (info.command, info.netns_path),
        (vec!["(netns)".to_owned()], Some(made.path))
    );
    for refusal in [
        daemon.stop("ns", 0).await.unwrap_err(),
        daemon.kill("ns", 9).await.unwrap_err(),
        daemon.start("ns").await.unwrap_err(),
        daemon.log_path("ns").await.unwrap_err(),
    ] {
        assert!(!refusal.body.message.contains('\n'));
    }
    world.words();
    daemon.remove("ns", false).await.unwrap();
    assert_eq!(world.words()[..2], ["detach", "forget"]);
    assert_nothing_left(&world, &daemon).await;
}

/// Killed between the record and the deed, and between the deed and the record.
#[test]
fn a_new_daemon_finishes_what_was_broken_off() {
    let holds: Arc<Mutex<Inventory>> = Arc::default();
    let shown = Arc::clone(&holds);
    let world = world(move |request| match request {
        Request::Inventory => {
            let inventory = Box::new(shown.lock().unwrap().clone());
            Some((Vec::new(), Ok(Reply::Inventory(inventory))))
        }
        _ => None,
    });
    let run = |test: &dyn Fn(&tokio::runtime::Runtime, Daemon)| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        test(&runtime, world.daemon());
    };
    run(&|runtime, daemon| {
        runtime.block_on(async {
            let id = running(&daemon, request("web")).await;
            let process = ProcessInfo {
                id,
                exec_in: None,
                pid: 77,
                state: ProcessState::Running,
                netns_fd: None,
            };
            let stray = ("ve-stray".parse().unwrap(), None);
            let mut holds = holds.lock().unwrap();
            (holds.processes, holds.endpoints) = (vec![process], vec![stray]);
        });
    });
    world.words();
    run(&|runtime, daemon| {
        runtime.block_on(async {
            daemon.repair().await.unwrap();
            // The veth pair of its record is not there, and one is there without a record.
            let words = world.words();
            let at = |word: &str| words.iter().position(|have| have == word);
            assert!(
                at("detach").is_some() && at("bridge") < at("attach eth0"),
                "{words:?}"
            );
            assert!(at("attach eth0") < at("default_routes eth0"), "{words:?}");
            assert_eq!(addresses(&daemon, "web").await, ["eth0 10.89.0.2/24"]);
        });
    });
}
