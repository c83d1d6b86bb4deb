//! `netavark create` beside that of netavark itself, where the Debian's netavark has it (2.0, podman 6).

use super::test;
use crate::world::enter;
use serde_json::{Value, json};

fn asked(more: Value) -> Value {
    let mut network = json!({
        "name": "lab", "id": format!("{:0>64}", 7), "driver": "bridge",
        "created": "0001-01-01T00:00:00Z",
        "ipv6_enabled": false, "internal": false, "dns_enabled": true, "labels": {"a": "b"},
    });
    let more = more.as_object().expect("an object").clone();
    network.as_object_mut().expect("an object").extend(more);
    json!({
        "network": network,
        "used": {
            "interfaces": ["podman0", "podman1"], "names": {"podman": "2f"},
            "subnets": ["10.88.0.0/16", "10.89.0.0/24", "10.89.2.0/24"],
        },
        "options": {
            "subnet_pools": [{"base": "10.89.0.0/16", "size": 24}],
            "default_interface_name": "podman", "check_used_subnets": true,
        },
    })
}

/// What both shall make something of, and what neither shall.
fn requests() -> (Vec<Value>, Vec<Value>) {
    let good = [
        json!({}),
        json!({"internal": true, "dns_enabled": false}),
        json!({"internal": true}),
        json!({"network_interface": "br7", "options": {"isolate": "strict", "mtu": "1400"}}),
        json!({"options": {"com.docker.network.driver.mtu": "1400",
                           "com.docker.network.bridge.name": "br8"}}),
        json!({"network_interface": "podman1", "options": {"vlan": "7"}}),
        json!({"network_interface": "podman1", "options": {"mode": "unmanaged"},
               "subnets": [{"subnet": "10.88.0.0/16"}]}),
        json!({"subnets": [{"subnet": "10.99.0.0/24", "lease_range": {"start_ip": "10.99.0.9", "end_ip": "10.99.0.99"}},
                           {"subnet": "fd00:99::/64", "gateway": "fd00:99::7"}],
               "routes": [{"destination": "10.9.0.0/16", "gateway": "10.99.0.3", "metric": 9}],
               "network_dns_servers": ["192.0.2.1"]}),
        json!({"ipam_options": {"driver": "none"}}),
        json!({"driver": "macvlan", "subnets": [{"subnet": "10.99.0.0/24"}],
               "options": {"mode": "private"}}),
        json!({"driver": "ipvlan", "subnets": [{"subnet": "10.99.0.0/24"}],
               "options": {"mode": "l3", "mtu": "1400"}}),
    ];
    let bad = [
        json!({"name": "podman"}),
        json!({"name": "a/b"}),
        json!({"id": "7"}),
        json!({"network_interface": "podman1"}),
        json!({"subnets": [{"subnet": "10.88.3.0/24"}]}),
        json!({"subnets": [{"subnet": "10.99.0.0/31"}]}),
        json!({"subnets": [{"subnet": "10.99.0.0/16"}, {"subnet": "10.99.7.0/24"}]}),
        json!({"subnets": [{"subnet": "10.99.0.0/24", "gateway": "10.98.0.1"}]}),
        json!({"dns_enabled": false, "network_dns_servers": ["192.0.2.1"]}),
        json!({"options": {"foo": "1"}}),
        json!({"options": {"mtu": "x"}}),
        json!({"driver": "ipvlan"}),
        json!({"driver": "foo"}),
        json!({"routes": [{"destination": "10.9.0.0/16"}]}),
        json!({"routes": [{"destination": "10.9.0.7/16", "gateway": "10.89.1.3"}]}),
    ];
    let ask = |all: &[Value]| all.iter().cloned().map(asked).collect();
    (ask(&good), ask(&bad))
}

#[test]
fn networks_are_made_as_netavark_makes_them() {
    test(|_, podman| {
        let theirs = "/usr/lib/podman/netavark";
        if podman.cmd([theirs, "create", "--help"]).run().code != 0 {
            enter::skip("this netavark has no create, and its podman needs none");
            return;
        }
        let answer = |program: &[&str], request: &Value| {
            let cmd = podman.cmd(program).then(["create"]);
            let output = cmd.stdin(request.to_string()).run();
            let mut answer: Value = serde_json::from_str(&output.stdout)
                .unwrap_or_else(|error| panic!("{error}: {output}"));
            if let Some(created) = answer.get_mut("created") {
                assert!(created.as_str().is_some_and(|at| at > "2025"), "{output}");
                *created = Value::Null;
            }
            (output.code, answer)
        };
        let ours = ["mossnet", "netavark"];
        let (good, bad) = requests();
        for request in good {
            let (one, other) = (answer(&[theirs], &request), answer(&ours, &request));
            assert_eq!(one.0, 0, "{request}: {}", one.1);
            assert_eq!(one, other, "{request}");
        }
        for request in bad {
            for program in [&[theirs][..], &ours[..]] {
                let (code, answer) = answer(program, &request);
                let error = answer["error"].as_str().unwrap_or_default();
                assert!(
                    code == 1 && !error.is_empty(),
                    "{program:?} {request}: {answer}"
                );
            }
        }
    });
}
