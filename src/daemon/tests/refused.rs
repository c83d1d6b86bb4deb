//! Connects and disconnects that make no sense: one clear line each, and nothing changes.

use super::networks::{connect, disconnect, network, plain, running};
use super::*;
use crate::api::network_types::{Link, NetworkConnect};
use mossnet_helper::MacAddr;

/// Network, request, status and part of the message.
type Case = (&'static str, NetworkConnect, u16, &'static str);

fn wrong_places() -> Vec<Case> {
    vec![
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
    ]
}

fn wrong_options(mac: MacAddr) -> Vec<Case> {
    let ip = |ip: [u8; 4]| connect("web", |a| a.ip = Some(ip.into()));
    let ip6 = connect("web", |a| a.ip6 = "fd00::2".parse().ok());
    let taken = connect("web", |a| a.mac_address = Some(mac));
    let alias = connect("web", |a| a.aliases = vec!["a b".into()]);
    let eth0 = connect("web", |a| a.interface_name = Some("eth0".into()));
    let ghost = Link {
        sandbox: "ghost".into(),
        alias: None,
    };
    let ghost = connect("web", |a| a.links = vec![ghost]);
    vec![
        ("mynet", ip([10, 9, 0, 3]), 409, "in use by 'holder'"),
        ("mynet", ip([10, 9, 0, 1]), 400, "it is the gateway"),
        ("mynet", ip([10, 7, 0, 1]), 400, "outside"),
        ("mynet", ip6, 400, "no IPv6 subnet"),
        ("mynet", taken, 409, "is in use by 'holder'"),
        ("mynet", alias, 400, "alias 'a b'"),
        ("mynet", eth0, 409, "interface eth0 already"),
        ("mynet", ghost, 404, "cannot link to 'ghost'"),
    ]
}

const STRANGERS: [(&str, &str, &str); 4] = [
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
];

/// `web` on `bridge`, `holder` on `mynet`, and one for each way to have no network of one's own.
async fn populate(daemon: &Daemon) {
    daemon
        .create_network(network("mynet", "10.9.0.0/29"))
        .await
        .unwrap();
    running(daemon, request("web")).await;
    for (name, mode) in [
        ("alone", on("none", None)),
        ("open", on("host", None)),
        ("shared", NetworkMode::Container("web".into())),
        ("holder", on("mynet", Some([10, 9, 0, 3].into()))),
    ] {
        let mut request = request(name);
        request.network = Some(mode);
        running(daemon, request).await;
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_one_line() {
    let world = world(|_| None);
    let daemon = world.daemon();
    populate(&daemon).await;
    let before = daemon.list(true).await.unwrap();
    let holder = before.iter().find(|s| s.name == "holder").unwrap();
    let mac = holder.endpoints[0].mac_address;
    world.words();
    for (network, request, status, part) in wrong_places().into_iter().chain(wrong_options(mac)) {
        let refusal = daemon.connect_network(network, request).await.unwrap_err();
        assert_eq!(refusal.status, status, "{refusal}");
        let message = &refusal.body.message;
        assert!(
            message.contains(part) && !message.contains('\n'),
            "{message}"
        );
    }
    for (network, sandbox, message) in STRANGERS {
        for force in [false, true] {
            let refusal = daemon
                .disconnect_network(network, disconnect(sandbox, force))
                .await;
            assert_eq!(refusal.unwrap_err().body.message, message);
        }
    }
    assert_eq!(daemon.list(true).await.unwrap(), before);
    assert!(world.words().is_empty(), "the kernel is left alone");
}
