//! The parser and the planner against whatever comes.

use super::create;
use super::departure::departures;
use super::input::Request;
use super::plan::plan;
use super::ports::ports;
use proptest::prelude::*;
use serde_json::{Value, json};

/// A request with everything in it.
pub fn whole() -> Value {
    json!({
        "container_id": "6241bad0c8e9032d5e125b93d69b3b6228e80ee16c883157690964c630d3d282",
        "container_name": "web",
        "container_hostname": "web",
        "networks": {
            "front": {
                "static_ips": ["10.77.0.5", "fd00:77::5"],
                "static_mac": "02:42:0a:4d:00:05",
                "aliases": ["www", "6241bad0c8e9"],
                "interface_name": "eth0",
                "options": {"host_interface_name": "vweb"},
            },
            "back": {"static_ips": ["10.78.0.5"], "interface_name": "eth1"},
        },
        "network_info": {
            "front": {
                "name": "front",
                "id": "99f4c4d665a5567d42aaf00cbeb085e7f7a4679f6d8350ef5256086734388a17",
                "driver": "bridge",
                "network_interface": "podman7",
                "created": "2026-11-29T20:21:33Z",
                "subnets": [
                    {"subnet": "10.77.0.0/24", "gateway": "10.77.0.1",
                     "lease_range": {"start_ip": "10.77.0.2", "end_ip": "10.77.0.9"}},
                    {"subnet": "fd00:77::/64", "gateway": "fd00:77::1"},
                ],
                "routes": [{"destination": "10.99.0.0/16", "gateway": "10.77.0.9", "metric": 7}],
                "ipv6_enabled": true,
                "internal": false,
                "dns_enabled": true,
                "network_dns_servers": ["192.0.2.53"],
                "options": {"mtu": "1400", "isolate": "strict", "metric": "50"},
                "ipam_options": {"driver": "host-local"},
                "labels": {"a": "b"},
            },
            "back": {
                "name": "back", "id": "22", "driver": "bridge", "network_interface": "podman8",
                "subnets": [{"subnet": "10.78.0.0/24", "gateway": "10.78.0.1"}],
                "internal": true, "dns_enabled": false, "ipv6_enabled": false,
            },
        },
        "port_mappings": [
            {"host_ip": "", "container_port": 80, "host_port": 8080, "range": 2, "protocol": "tcp,udp"},
        ],
        "dns_servers": ["192.0.2.54"],
    })
}

pub fn request(value: &Value) -> Request {
    serde_json::from_value(value.clone()).unwrap()
}

/// Some JSON.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        Just(json!("10.77.0.0/33")),
        Just(json!("::")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{0,12}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every place in a document, as a JSON pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                places(value, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                places(value, &format!("{at}/{index}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Reads and plans; what comes of it must fit the kernel.
fn consider(text: &[u8]) {
    let Ok(request) = serde_json::from_slice::<Request>(text) else {
        return;
    };
    let _ = departures(&request);
    let _ = ports(request.port_mappings.as_deref().unwrap_or_default());
    for planned in plan(&request).into_iter().flatten() {
        assert!(planned.guest.name.as_str().len() <= 15);
        assert!(!planned.name.contains(['/', '\n', ' ']));
        for word in planned.names.iter().flat_map(|names| &names.names) {
            assert!(!word.contains([' ', ',', '\n']), "{word:?}");
        }
    }
}

/// The same of `create`; what it makes is what it would leave alone.
fn consider_creation(text: &[u8]) {
    let Ok(request) = serde_json::from_slice::<create::Request>(text) else {
        return;
    };
    let around = || create::Surroundings {
        links: None,
        now: 1,
    };
    let Ok(made) = create::create(request.clone(), around()) else {
        return;
    };
    let again = create::Request {
        network: made.clone(),
        used: create::Used::default(),
        options: create::Pools::default(),
    };
    assert_eq!(create::create(again, around()).unwrap(), made);
}

/// A document with one thing in it replaced.
fn spoilt(mut value: Value, pick: prop::sample::Index, wrong: Value) -> String {
    let mut all = Vec::new();
    places(&value, "", &mut all);
    if let Some(place) = value.pointer_mut(&all[pick.index(all.len())]) {
        *place = wrong;
    }
    value.to_string()
}

proptest! {
    #[test]
    fn one_wrong_thing_in_a_new_network_is_refused_or_harmless(pick in any::<prop::sample::Index>(), wrong in anything()) {
        let subnets = json!([{"subnet": "10.99.7.0/24", "lease_range": {"start_ip": "10.99.7.9"}}]);
        let whole = create::tests::asked(json!({"subnets": subnets, "ipv6_enabled": true}));
        consider_creation(whole.to_string().as_bytes());
        consider_creation(spoilt(whole, pick, wrong).as_bytes());
    }

    #[test]
    fn one_wrong_thing_anywhere_is_refused_or_harmless(pick in any::<prop::sample::Index>(), wrong in anything()) {
        consider(spoilt(whole(), pick, wrong).as_bytes());
    }

    #[test]
    fn torn_and_scratched_text_is_refused_or_harmless(cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = whole().to_string().into_bytes();
        let at = cut.index(text.len());
        consider(&text[..at]);
        text[at] = byte;
        consider(&text);
    }

    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        consider(&noise);
    }
}

#[test]
fn the_whole_request_is_a_plan() {
    consider(whole().to_string().as_bytes());
    assert_eq!(plan(&request(&whole())).unwrap().len(), 2);
}
