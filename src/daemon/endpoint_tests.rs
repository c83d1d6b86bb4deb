use super::*;
use crate::api::paths::Paths;
use crate::daemon::model::tests::model;
use crate::network::SandboxPhase;
use crate::network::model::samples;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn newcomer(name: &str, id: u8, network: &Network) -> Sandbox {
    let mut sandbox = samples::sandbox(name, id, network, "10.89.3.99/24");
    sandbox.endpoints.clear();
    sandbox
}

fn wish(network: &Network, address: &str) -> Attachment {
    Attachment {
        addresses: vec![address.parse().unwrap()],
        ..samples::attachment(network)
    }
}

/// A live sandbox of this name; its endpoint.
fn live(model: &mut Model, name: &str, id: u8, network: &Network) -> Endpoint {
    let mut sandbox = newcomer(name, id, network);
    model.join_all(&mut sandbox).unwrap();
    let endpoint = sandbox.endpoints[0].clone();
    model.put_joined(sandbox).unwrap();
    endpoint
}

#[test]
fn a_name_gets_its_addresses_and_mac_again() {
    let (_directory, mut model) = model();
    let network = samples::network("mynet", 1, "10.89.3.0/24");
    model.put_network(network.clone()).unwrap();
    let was = live(&mut model, "web", 2, &network);
    assert_eq!(was.addresses[0].to_string(), "10.89.3.2/24");
    assert_eq!(was.mac.to_string(), "02:42:0a:59:03:02");
    let first = SandboxId::from([2; 32]);
    model.change_sandbox(&first, |s| s.exit(9, 0)).unwrap();
    model.remove_sandbox(&first).unwrap();
    let other = live(&mut model, "db", 3, &network);
    assert_eq!(other.addresses[0].to_string(), "10.89.3.3/24");
    let again = live(&mut model, "web", 4, &network);
    assert_eq!((again.addresses, again.mac), (was.addresses, was.mac));
}

#[test]
fn a_made_up_name_keeps_its_addresses_while_it_may_start_again() {
    let (_directory, mut model) = model();
    let network = samples::network("mynet", 1, "10.89.3.0/29");
    model.put_network(network.clone()).unwrap();
    let mut moss = newcomer("quiet_moss", 2, &network);
    moss.name_chosen = false;
    model.join_all(&mut moss).unwrap();
    moss.exit(9, 0);
    model.put_sandbox(moss.clone()).unwrap();
    for (name, id, address) in [("a", 3, "3"), ("b", 4, "4"), ("c", 5, "5"), ("d", 6, "6")] {
        let got = live(&mut model, name, id, &network).addresses[0];
        assert_eq!(got.addr().to_string(), format!("10.89.3.{address}"));
    }
    let mut again = moss.clone();
    model.join_all(&mut again).unwrap();
    assert_eq!(again.endpoints[0].addresses[0].to_string(), "10.89.3.2/29");
    // Where no other is left, it goes.
    let robber = live(&mut model, "e", 7, &network);
    assert_eq!(robber.addresses[0].to_string(), "10.89.3.2/29");
    let refusal = model.join_all(&mut again).unwrap_err();
    assert!(
        refusal.body.message.contains("5 of 5 are in use"),
        "{refusal}"
    );
}

#[test]
fn wishes_that_cannot_be_met_are_refused() {
    let (_directory, mut model) = model();
    let network = samples::network("mynet", 1, "10.89.3.0/24");
    let web = samples::sandbox("web", 2, &network, "10.89.3.2/24");
    let mac = web.endpoints[0].mac;
    model.put_network(network.clone()).unwrap();
    model.put_sandbox(web).unwrap();
    let newcomer = newcomer("db", 3, &network);
    let refuse = |attachment: Attachment| {
        let refusal = model.join(&newcomer, &network, &attachment).unwrap_err();
        (refusal.status, refusal.body.message)
    };
    let in_use = (409, "address 10.89.3.2 is in use by 'web'".to_owned());
    assert_eq!(refuse(wish(&network, "10.89.3.2")), in_use);
    assert_eq!(refuse(wish(&network, "192.0.2.1")).0, 400);
    assert_eq!(
        refuse(wish(&network, "fd00::2")).1,
        "network 'mynet' has no IPv6 subnet for fd00::2"
    );
    let with_mac = |mac| Attachment {
        mac: Some(mac),
        ..samples::attachment(&network)
    };
    assert!(refuse(with_mac(mac)).1.ends_with("is in use by 'web'"));
    assert!(
        refuse(with_mac(network.mac))
            .1
            .ends_with("is in use by the router")
    );
}

#[test]
fn somebody_elses_fixed_mac_is_no_obstacle() {
    let (_directory, mut model) = model();
    let network = samples::network("mynet", 1, "10.89.3.0/24");
    model.put_network(network.clone()).unwrap();
    let mut web = newcomer("web", 2, &network);
    // That of the address that comes next.
    web.attachments[0].mac = Some("02:42:0a:59:03:03".parse().unwrap());
    model.join_all(&mut web).unwrap();
    model.put_joined(web.clone()).unwrap();
    let db = live(&mut model, "db", 3, &network);
    assert_eq!(db.addresses[0].to_string(), "10.89.3.3/24");
    assert_ne!(db.mac, web.endpoints[0].mac);
}

#[test]
fn interfaces_are_numbered_around_those_with_a_name() {
    let (_directory, mut model) = model();
    let mut networks = Vec::new();
    for n in 1..=4 {
        let mut network = samples::network(&format!("n{n}"), n, &format!("10.89.{n}.0/24"));
        network.ifname_prefix = (n == 4).then(|| "lan".to_owned());
        model.put_network(network.clone()).unwrap();
        networks.push(network);
    }
    let mut web = newcomer("web", 9, &networks[0]);
    web.attachments = networks.iter().map(samples::attachment).collect();
    web.attachments[1].ifname = Some("eth0".parse().unwrap());
    model.join_all(&mut web).unwrap();
    let names: Vec<_> = web.endpoints.iter().map(|e| e.ifname.as_str()).collect();
    assert_eq!(names, ["eth1", "eth0", "eth2", "lan0"]);
    web.attachments[2].ifname = Some("eth0".parse().unwrap());
    let refusal = model.join_all(&mut web).unwrap_err();
    assert_eq!(
        refusal.body.message,
        "sandbox 'web' has an interface eth0 already"
    );
}

/// What somebody does to the model.
#[derive(Debug, Clone)]
enum Deed {
    Run(u8, Vec<u8>),
    Exit(u8),
    Start(u8),
    Remove(u8),
    Connect(u8, u8, Option<u8>),
    Disconnect(u8, u8),
    RemoveNetwork(u8),
    MakeNetwork(u8),
}

fn deed() -> impl Strategy<Value = Deed> {
    let (who, net) = (0u8..6, 0u8..3);
    prop_oneof![
        (who.clone(), proptest::collection::vec(net.clone(), 1..3))
            .prop_map(|(who, nets)| Deed::Run(who, nets)),
        who.clone().prop_map(Deed::Exit),
        who.clone().prop_map(Deed::Start),
        who.clone().prop_map(Deed::Remove),
        (who.clone(), net.clone(), proptest::option::of(0u8..8))
            .prop_map(|(who, net, ip)| Deed::Connect(who, net, ip)),
        (who, net.clone()).prop_map(|(who, net)| Deed::Disconnect(who, net)),
        net.clone().prop_map(Deed::RemoveNetwork),
        net.prop_map(Deed::MakeNetwork),
    ]
}

/// One of three networks so small that they fill up.
fn small_network(n: u8) -> Network {
    samples::network(&format!("n{n}"), n + 0x40, &format!("10.89.{n}.0/29"))
}

fn perform(model: &mut Model, deed: Deed) {
    let id_of = |who: u8| SandboxId::from([who + 1; 32]);
    match deed {
        Deed::Run(who, nets) => {
            let mut sandbox = newcomer(&format!("s{who}"), who + 1, &small_network(0));
            sandbox.name_chosen = who % 2 == 0;
            sandbox.attachments = BTreeSet::from_iter(nets)
                .into_iter()
                .map(|n| samples::attachment(&small_network(n)))
                .collect();
            if model.check_name_free(&sandbox.name).is_ok() && model.join_all(&mut sandbox).is_ok()
            {
                model.put_joined(sandbox).unwrap();
            }
        }
        Deed::Exit(who) => drop(model.change_sandbox(&id_of(who), |s| s.exit(1, 0)).unwrap()),
        Deed::Start(who) => {
            let Some(mut sandbox) = model.sandbox(&id_of(who)).cloned() else {
                return;
            };
            if sandbox.revive().is_some() && model.join_all(&mut sandbox).is_ok() {
                model.put_joined(sandbox).unwrap();
            }
        }
        Deed::Remove(who) => model.remove_sandbox(&id_of(who)).unwrap(),
        Deed::Connect(who, n, ip) => connect(model, &id_of(who), n, ip),
        Deed::Disconnect(who, n) => {
            let network = small_network(n).id;
            let change = |s: &mut Sandbox| {
                s.endpoints.retain(|e| e.network != network);
                s.attachments.retain(|a| a.network != network);
            };
            model.change_sandbox(&id_of(who), change).unwrap();
        }
        Deed::RemoveNetwork(n) => {
            let network = small_network(n);
            if model.network(network.name.as_str()).is_some() && !model.is_used(&network.id) {
                model.remove_network(&network).unwrap();
            }
        }
        Deed::MakeNetwork(n) => model.put_network(small_network(n)).unwrap(),
    }
}

fn connect(model: &mut Model, who: &SandboxId, n: u8, ip: Option<u8>) {
    let Some(mut sandbox) = model.sandbox(who).cloned() else {
        return;
    };
    let Some(network) = model.network(&format!("n{n}")).cloned() else {
        return;
    };
    if sandbox.attachments.iter().any(|a| a.network == network.id) {
        return;
    }
    let mut attachment = samples::attachment(&network);
    attachment.addresses = ip.map(|ip| [10, 89, n, ip].into()).into_iter().collect();
    if sandbox.is_live() {
        let Ok(endpoint) = model.join(&sandbox, &network, &attachment) else {
            return;
        };
        sandbox.endpoints.push(endpoint);
    }
    sandbox.attachments.push(attachment);
    model.put_joined(sandbox).unwrap();
}

/// No address or MAC twice, none set aside; the indices agree with the records; names are unique.
fn check(model: &Model) {
    let mut names = BTreeSet::new();
    for sandbox in model.sandboxes() {
        assert!(names.insert(sandbox.name.clone()));
        assert_eq!(model.named(sandbox.name.as_str()).unwrap().id, sandbox.id);
        if let SandboxPhase::Exited { .. } = sandbox.phase {
            assert!(sandbox.endpoints.is_empty());
        }
        if sandbox.is_live() {
            assert_eq!(sandbox.endpoints.len(), sandbox.attachments.len());
        }
    }
    for n in 0..3 {
        let network = small_network(n);
        let mut addresses = BTreeSet::new();
        let mut macs = BTreeSet::new();
        for sandbox in model.live() {
            let Some(endpoint) = sandbox.endpoint_on(&network.id) else {
                continue;
            };
            let address = endpoint.addresses[0].addr();
            assert!(addresses.insert(address), "{address} twice");
            assert!(macs.insert(endpoint.mac), "{} twice", endpoint.mac);
            let on = &network.subnets[0];
            assert!(on.subnet.prefix().contains(&address) && address != on.gateway);
            assert!(!on.subnet.is_boundary(address));
            assert!(
                model.network_by_id(&network.id).is_some(),
                "a network in use is gone"
            );
        }
        let held: BTreeSet<_> = model.members().held(&network.id).keys().copied().collect();
        assert_eq!(held, addresses);
        assert_eq!(model.is_used(&network.id), !addresses.is_empty());
        assert_eq!(model.on_network(&network.id).count(), addresses.len());
        let leased: Vec<_> = model
            .reserved(&network.id)
            .flat_map(|l| l.addresses.clone())
            .collect();
        let once: BTreeSet<_> = leased.iter().collect();
        assert_eq!(once.len(), leased.len(), "an address is remembered twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever is done in whatever order, and after the daemon was killed at any moment of it.
    #[test]
    fn no_sequence_of_deeds_breaks_the_model(deeds in proptest::collection::vec(deed(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::resolve(Some(directory.path()));
        paths.prepare().unwrap();
        let mut model = Model::open(&paths, "boot", [0; 5]).unwrap();
        for n in 0..3 {
            model.put_network(small_network(n)).unwrap();
        }
        for deed in deeds {
            perform(&mut model, deed);
            check(&model);
        }
        let before: Vec<Sandbox> = model.sandboxes().cloned().collect();
        drop(model);
        let model = Model::open(&paths, "boot", [0; 5]).unwrap();
        check(&model);
        prop_assert_eq!(before, model.sandboxes().cloned().collect::<Vec<_>>());
    }
}
