//! Sandboxes that run again, that know others by links, that have no process, or whose daemon died,
//! over a scripted helper.

use super::networks::{addresses, connect, disconnect, network, plain, running};
use super::*;
use crate::api::network_types::{Link, NetnsCreate};

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
            assert!(
                at("attach eth0") < at("default_routes eth0,eth0"),
                "{words:?}"
            );
            assert_eq!(addresses(&daemon, "web").await, ["eth0 10.89.0.2/24"]);
        });
    });
}
