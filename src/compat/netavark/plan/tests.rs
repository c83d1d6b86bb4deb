//! What is planned, and what is refused.

use super::*;
use crate::compat::netavark::tests::{request, whole};
use serde_json::{Value, json};

fn planned(value: &Value) -> Vec<NetworkPlan> {
    plan(&request(value)).unwrap()
}

fn refused(pointer: &str, value: Value) -> String {
    let mut all = whole();
    *all.pointer_mut(pointer).unwrap() = value;
    plan(&request(&all)).unwrap_err().to_string()
}

#[test]
fn a_network_becomes_a_bridge_and_an_end() {
    let plans = planned(&whole());
    let [front, back] = plans.as_slice() else {
        panic!("two networks, in the order of their interfaces");
    };
    let LinkPlan::Bridge(bridge) = &front.link else {
        panic!("a bridge");
    };
    assert_eq!(bridge.port.as_str(), "vweb");
    assert_eq!(bridge.isolation, Isolation::Strict);
    assert_eq!((bridge.bridge.mtu, front.guest.mtu), (1400, 1400));
    let addresses: Vec<String> = bridge
        .bridge
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(addresses, ["10.77.0.1/24", "fd00:77::1/64"]);
    assert_eq!(front.guest.mac.to_string(), "02:42:0a:4d:00:05");
    let routes: Vec<String> = front
        .guest
        .routes
        .iter()
        .map(|route| format!("{} {:?} {:?}", route.destination, route.kind, route.metric))
        .collect();
    assert_eq!(
        routes,
        [
            "0.0.0.0/0 Via(10.77.0.1) Some(50)",
            "::/0 Via(fd00:77::1) Some(50)",
            "10.99.0.0/16 Via(10.77.0.9) Some(7)",
        ]
    );
    let names = front.names.as_ref().unwrap();
    assert_eq!(names.names, ["web", "www", "6241bad0c8e9"]);
    assert_eq!(
        front.status.dns_server_ips,
        ["10.77.0.1", "fd00:77::1"].map(|a| a.parse::<IpAddr>().unwrap())
    );
    assert!(
        back.guest.routes.is_empty(),
        "nothing leaves an internal network"
    );
    assert_eq!(back.names, None);
    // Podman puts the container's own resolvers into its resolv.conf itself.
    assert_eq!(
        back.status.dns_server_ips,
        ["192.0.2.54".parse::<IpAddr>().unwrap()]
    );
}

#[test]
fn the_same_container_has_the_same_address_and_port_every_time() {
    let mut value = whole();
    let connection = value
        .pointer_mut("/networks/front")
        .unwrap()
        .as_object_mut()
        .unwrap();
    connection.remove("static_mac");
    connection.remove("options");
    let (first, again) = (planned(&value), planned(&value));
    assert_eq!(first, again);
    value["container_id"] = json!("7241");
    let other = planned(&value);
    assert_ne!(first[0].guest.mac, other[0].guest.mac);
    let port = |plans: &[NetworkPlan]| match &plans[0].link {
        LinkPlan::Bridge(bridge) => bridge.port.to_string(),
        LinkPlan::Share { .. } => panic!("a bridge"),
    };
    assert!(port(&first).starts_with("mp") && port(&first).len() == 14);
    assert_ne!(port(&first), port(&other));
}

#[test]
#[allow(clippy::too_many_lines)] // A table.
fn what_cannot_be_is_refused_by_name() {
    for (pointer, value, words) in [
        ("/container_id", json!("a b"), "container id 'a b'"),
        ("/container_id", json!("../x"), "container id"),
        (
            "/network_info/front/driver",
            json!("foo"),
            "'front': unknown network driver foo",
        ),
        (
            "/network_info/front/network_interface",
            json!(""),
            "no bridge interface name",
        ),
        (
            "/network_info/front/network_interface",
            json!("a/b"),
            "interface name 'a/b'",
        ),
        (
            "/networks/front/interface_name",
            json!(""),
            "no container interface name",
        ),
        (
            "/networks/front/interface_name",
            json!("0123456789abcdef"),
            "interface name",
        ),
        (
            "/networks/front/static_mac",
            json!("zz"),
            "MAC address 'zz'",
        ),
        (
            "/networks/front/static_mac",
            json!("01:42:0a:4d:00:05"),
            "multicast",
        ),
        (
            "/networks/front/static_ips",
            json!(null),
            "no static ips provided",
        ),
        (
            "/networks/front/static_ips",
            json!(["10.77.0.5"]),
            "no address of fd00:77::/64",
        ),
        (
            "/networks/front/static_ips",
            json!(["10.77.0.5", "fd00:77::5", "10.9.9.9"]),
            "10.9.9.9 is in none",
        ),
        (
            "/network_info/front/options/mtu",
            json!("x"),
            "unable to parse \"mtu\": 'x'",
        ),
        (
            "/network_info/front/options/mtu",
            json!("67"),
            "68 to 65535",
        ),
        (
            "/network_info/front/options/isolate",
            json!("maybe"),
            "true, false or strict",
        ),
        (
            "/network_info/front/options/metric",
            json!("-1"),
            "'-1' is not a number",
        ),
        (
            "/network_info/front/options",
            json!({"mode": "x"}),
            "managed or unmanaged",
        ),
        (
            "/network_info/front/options",
            json!({"vlan": "4095"}),
            "1 to 4094",
        ),
        (
            "/network_info/front/options",
            json!({"vlan": "5", "mode": "unmanaged"}),
            "vlan does not go",
        ),
        (
            "/network_info/front/options",
            json!({"outbound_addr4": "::1"}),
            "an IPv4 address",
        ),
        (
            "/network_info/front/options",
            json!({"no_default_route": "perhaps"}),
            "true or false",
        ),
        (
            "/network_info/front/ipam_options/driver",
            json!("dhcp"),
            "DHCP proxy",
        ),
        (
            "/network_info/front/ipam_options/driver",
            json!("x"),
            "host-local or none",
        ),
        (
            "/network_info/front/routes/0/destination",
            json!("10.99.0.1/16"),
            "an address, not a network",
        ),
        (
            "/network_info/front/routes/0/gateway",
            json!("fd00::1"),
            "other address family",
        ),
        (
            "/network_info/front/routes/0/gateway",
            json!(null),
            "it has no gateway",
        ),
        (
            "/network_info",
            json!({}),
            "'front' has no entry in network_info",
        ),
    ] {
        let error = refused(pointer, value);
        assert!(error.contains(words), "{pointer}: {error}");
    }
}

#[test]
fn names_that_cannot_stand_in_a_line_are_left_out() {
    let mut value = whole();
    value["networks"]["front"]["aliases"] = json!(["a b", "c,d", "", "web", "ok\n", "fine"]);
    let names = planned(&value).remove(0).names.unwrap();
    assert_eq!(names.names, ["web", "fine"]);
}

#[test]
fn links_on_another_ones_wire() {
    let mut value = whole();
    value["network_info"]["front"]["driver"] = json!("macvlan");
    value["network_info"]["front"]["options"] = json!({"mode": "vepa"});
    let plans = planned(&value);
    let parent = "podman7".parse().unwrap();
    let expected = LinkPlan::Share {
        parent: Some(parent),
        kind: SubKind::Macvlan(2),
    };
    assert_eq!(plans[0].link, expected);
    assert_eq!(plans[0].names, None, "nobody serves names there");
    assert!(refused_mode(&mut value, "l2").contains("bridge, private"));
    value["network_info"]["front"]["driver"] = json!("ipvlan");
    assert!(refused_mode(&mut value, "vepa").contains("l2, l3 or l3s"));
}

fn refused_mode(value: &mut Value, mode: &str) -> String {
    value["network_info"]["front"]["options"] = json!({ "mode": mode });
    plan(&request(value)).unwrap_err().to_string()
}
