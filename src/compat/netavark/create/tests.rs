//! Networks as podman 6 sends them, and what becomes of them.

use super::*;
use serde_json::json;

const ID: &str = "abc123def4567890123456789012345678901234567890123456789012345678";

/// As podman 6 asks for `podman network create`, with `more` in the network.
pub fn asked(more: Value) -> Value {
    let mut network = json!({
        "name": "lab", "id": ID, "driver": "bridge", "created": "0001-01-01T00:00:00Z",
        "ipv6_enabled": false, "internal": false, "dns_enabled": true,
        "labels": {"a": "b"}, "of_the_future": [1, null],
    });
    network
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({
        "network": network,
        "used": {
            "interfaces": ["podman0", "podman1"],
            "names": {"podman": "2f259bab", "podman2": "3f"},
            "subnets": ["10.88.0.0/16", "10.89.0.0/24", "192.168.7.0/24"],
        },
        "options": {
            "subnet_pools": [{"base": "10.89.0.0/16", "size": 24}],
            "default_interface_name": "podman",
            "check_used_subnets": true,
        },
    })
}

fn run(value: Value) -> Result<Value, String> {
    let request: Request = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let mut links = |name: &IfName| Ok(["podman3", "eth0"].contains(&name.as_str()));
    let around = Surroundings {
        links: Some(&mut links),
        now: 1_795_532_645_678,
    };
    let made = create(request, around).map_err(|refusal| refusal.to_string())?;
    Ok(serde_json::to_value(made).unwrap())
}

#[test]
fn a_network_is_completed() {
    let made = run(asked(json!({}))).unwrap();
    let wanted = json!({
        "name": "lab", "id": ID, "driver": "bridge", "created": "2026-11-24T15:04:05.678Z",
        // 1 and 2 are taken by networks, 3 by a link.
        "network_interface": "podman4",
        "subnets": [{"subnet": "10.89.1.0/24", "gateway": "10.89.1.1"}],
        "ipv6_enabled": false, "internal": false, "dns_enabled": true,
        "ipam_options": {"driver": "host-local"},
        "labels": {"a": "b"}, "of_the_future": [1, null],
    });
    assert_eq!(made, wanted);
}

#[test]
fn what_is_given_stays() {
    let given = json!({
        "network_interface": "br7", "internal": true, "network_dns_servers": ["192.0.2.1"],
        "subnets": [
            {"subnet": "10.99.7.0/24", "gateway": "10.99.7.9",
             "lease_range": {"start_ip": "10.99.7.20", "end_ip": "10.99.7.50"}},
            {"subnet": "fd00:99:7::/64"},
        ],
        "routes": [{"destination": "10.100.0.0/16", "gateway": "10.99.7.3", "metric": 9},
                   {"destination": "10.101.0.0/16", "route_type": "blackhole"}],
        "options": {"com.docker.network.driver.mtu": "1400", "isolate": "strict", "vlan": "7"},
    });
    let made = run(asked(given.clone())).unwrap();
    for key in ["network_interface", "routes", "network_dns_servers"] {
        assert_eq!(made[key], given[key]);
    }
    assert_eq!(made["subnets"][0], given["subnets"][0]);
    assert_eq!(made["subnets"][1]["gateway"], "fd00:99:7::1");
    assert_eq!(made["ipv6_enabled"], true);
    assert_eq!(
        made["options"],
        json!({"mtu": "1400", "isolate": "strict", "vlan": "7"})
    );
}

#[test]
fn both_families_where_ipv6_is_asked_for() {
    let families = |more: Value| -> Vec<bool> {
        let made = run(asked(more)).unwrap();
        let subnets = made["subnets"].as_array().unwrap().iter();
        let subnets = subnets.map(|s| (s["subnet"].as_str().unwrap(), s["gateway"].as_str()));
        subnets
            .map(|(subnet, gateway)| {
                assert!(gateway.is_some());
                subnet.contains(':')
            })
            .collect()
    };
    let six = json!([{"subnet": "fd00:99:7::/64"}]);
    assert_eq!(families(json!({"ipv6_enabled": true})), [false, true]);
    assert_eq!(families(json!({"subnets": six})), [true]);
    let both = json!({"subnets": six, "ipv6_enabled": true});
    assert_eq!(families(both), [true, false]);
    let four = json!({"subnets": [{"subnet": "10.99.0.0/24"}], "ipv6_enabled": true});
    assert_eq!(families(four), [false, true]);
}

#[test]
fn what_is_somebody_elses_may_be_in_use() {
    let taken = json!([{"subnet": "10.88.0.0/16"}]);
    for options in [json!({"mode": "unmanaged"}), json!({"vlan": "7"})] {
        let more = json!({"network_interface": "podman1", "subnets": taken, "options": options});
        run(asked(more)).unwrap();
    }
    let mut mine = asked(json!({"subnets": taken}));
    mine["options"]["check_used_subnets"] = false.into();
    assert_eq!(run(mine).unwrap()["subnets"][0]["gateway"], "10.88.0.1");
}

#[test]
fn macvlan_and_ipvlan() {
    let on = |driver: &str, parent: &str| {
        json!({"driver": driver, "network_interface": parent,
               "subnets": [{"subnet": "192.168.7.0/24"}]})
    };
    for driver in ["macvlan", "ipvlan"] {
        let made = run(asked(on(driver, "eth0"))).unwrap();
        assert_eq!(made["dns_enabled"], false);
        assert_eq!(made["ipam_options"]["driver"], "host-local");
        let refused = run(asked(on(driver, "eth9"))).unwrap_err();
        assert!(
            refused.contains("interface eth9 does not exist"),
            "{refused}"
        );
        let refused = run(asked(json!({"driver": driver}))).unwrap_err();
        assert!(refused.contains("no DHCP proxy"), "{refused}");
        let none = json!({"driver": driver, "ipam_options": {"driver": "none"}});
        assert_eq!(run(asked(none)).unwrap().get("subnets"), None);
    }
}

#[test]
fn an_internal_network_without_names_needs_no_gateway() {
    let made = run(asked(json!({"internal": true, "dns_enabled": false}))).unwrap();
    assert_eq!(made["subnets"], json!([{"subnet": "10.89.1.0/24"}]));
    let none = run(asked(json!({"ipam_options": {"driver": "none"}}))).unwrap();
    assert_eq!(none["dns_enabled"], false);
}

#[track_caller]
fn refused(more: Value, words: &str) {
    let refused = run(asked(more)).unwrap_err();
    assert!(refused.contains(words), "{words}: {refused}");
}

#[test]
fn bad_names_and_drivers_are_refused() {
    refused(json!({"name": "podman"}), "already exists");
    refused(json!({"name": ""}), "network name ''");
    refused(json!({"name": "a/b"}), "network name 'a/b'");
    refused(json!({"id": "12"}), "id '12'");
    refused(json!({"driver": "foo"}), "unknown network driver foo");
    let interface = |name: &str| json!({"network_interface": name});
    refused(interface("podman1"), "podman1 already in use");
    refused(interface("a/b"), "a/b");
    refused(interface("sixteen-letters-"), "sixteen");
    let ipam = |driver: &str| json!({"ipam_options": {"driver": driver}});
    refused(ipam("foo"), "'foo' is not host-local");
    refused(ipam("dhcp"), "no DHCP proxy");
    let subnets = json!([{"subnet": "10.99.7.0/24"}]);
    let none = json!({"ipam_options": {"driver": "none"}, "subnets": subnets});
    refused(none, "ipam driver none");
    let local = json!({"driver": "ipvlan", "ipam_options": {"driver": "host-local"}});
    refused(local, "--subnet");
    let unasked = json!({"dns_enabled": false, "network_dns_servers": ["192.0.2.1"]});
    refused(unasked, "DNS servers");
    refused(json!({"network_dns_servers": ["x"]}), "invalid IP");
}

#[test]
fn bad_subnets_are_refused() {
    let subnets = |all: &[&str]| {
        let all = all.iter().map(|subnet| json!({"subnet": subnet}));
        json!({"subnets": all.collect::<Vec<_>>()})
    };
    refused(subnets(&["10.88.3.0/24"]), "10.88.3.0/24 is already used");
    refused(subnets(&["10.99.0.0/16", "10.99.7.0/24"]), "overlap");
    refused(subnets(&["10.99.7.0/31"]), "10.99.7.0/31 has no address");
    refused(subnets(&["10.99.7.0/33"]), "invalid");
    let gateway =
        |gateway: &str| json!({"subnets": [{"subnet": "10.99.7.0/24", "gateway": gateway}]});
    refused(gateway("10.99.8.1"), "gateway 10.99.8.1 not in subnet");
    refused(gateway("fd00::1"), "gateway fd00::1 not in subnet");
    let range =
        |range: Value| json!({"subnets": [{"subnet": "10.99.7.0/24", "lease_range": range}]});
    refused(
        range(json!({"start_ip": "10.99.8.1"})),
        "start_ip 10.99.8.1",
    );
    refused(range(json!({"end_ip": "x"})), "invalid IP");
    let backwards = json!({"start_ip": "10.99.7.9", "end_ip": "10.99.7.2"});
    refused(
        range(backwards),
        "begins with 10.99.7.9 and ends with 10.99.7.2",
    );
}

#[test]
fn bad_options_and_routes_are_refused() {
    let option = |name: &str, value: &str| json!({"options": {name: value}});
    let words = "unknown option 'foo' of a bridge network; there are isolate";
    refused(option("foo", "1"), words);
    for name in ["mtu", "isolate", "mode", "metric", "vlan"] {
        refused(option(name, "x"), &format!("\"{name}\": 'x'"));
    }
    refused(option("vlan", "4095"), "\"vlan\": '4095'");
    let route = |route: Value| json!({"routes": [route]});
    let host = json!({"destination": "10.9.0.1/16", "gateway": "10.89.1.3"});
    refused(route(host), "10.9.0.1/16");
    refused(route(json!({"destination": "10.9.0.0/16"})), "no gateway");
    refused(route(json!({"destination": "x"})), "invalid IP");
}

#[test]
fn what_podman_leaves_out_is_nothing_used() {
    let mut value = asked(json!({"network_interface": ""}));
    value["used"] = json!({"interfaces": null, "names": null, "subnets": null});
    assert_eq!(run(value.clone()).unwrap()["network_interface"], "podman1");
    value["used"] = json!({});
    for beginning in [json!(null), json!(""), json!("sixteen-letters")] {
        value["options"]["default_interface_name"] = beginning;
        let refused = run(value.clone()).unwrap_err();
        assert!(refused.contains("--interface-name"), "{refused}");
    }
    value["options"] = json!({"default_interface_name": "podman"});
    assert!(run(value).unwrap_err().contains("no free subnet"));
}
