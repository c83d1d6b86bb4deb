//! `docs/openapi.json` describes what is really sent: for each type, a whole value has exactly the
//! properties of its schema, and what the schema does not require may be left out.

use super::*;
use crate::api::network_types::{
    ContainerInfo, IpamConfig, IpamInfo, LeaseInfo, NetnsCreate, NetnsCreated, NetworkConnect,
    NetworkCreate, NetworkDisconnect, NetworkInfo, NetworkPrune, Pruned,
};
use crate::api::port_types::{PortStatus, PortsRemove, PortsTotal};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

fn schema(name: &str) -> Value {
    let document: Value = serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap();
    document["components"]["schemas"][name].clone()
}

fn agree<T: Serialize + DeserializeOwned>(name: &str, whole: Value) {
    let schema = schema(name);
    let names = |object: &Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
    let value: T = serde_json::from_value(whole.clone()).unwrap();
    let sent = serde_json::to_value(&value).unwrap();
    assert_eq!(sent, whole, "{name}");
    let described = names(schema["properties"].as_object().unwrap());
    assert_eq!(names(sent.as_object().unwrap()), described, "{name}");
    let required: Vec<String> = serde_json::from_value(schema["required"].clone()).unwrap();
    let mut least = sent;
    least
        .as_object_mut()
        .unwrap()
        .retain(|key, _| required.contains(key));
    assert!(serde_json::from_value::<T>(least).is_ok(), "{name}");
}

#[test]
fn the_document_describes_the_requests() {
    agree::<SandboxCreate>(
        "SandboxCreate",
        json!({
            "name": "web", "hostname": "web", "network": {"networks": [attach_json()]},
            "links": [{"sandbox": "db", "alias": "store"}],
            "dns": ["1.1.1.1"], "dns_search": ["x"], "add_host": [["db", "10.0.0.1"], ["host", "host-gateway"]],
            "env": [["A", "1"]], "workdir": "/", "caller_dir": "/", "caller_home": "/",
            "rootfs": "/r", "cap_add": [], "cap_drop": [], "command": ["sh"],
            "stdio": "attached", "interactive": true, "tty": true, "auto_remove": true, "uplink": "relay",
            "publish": publish_json(), "publish_all": true, "expose": ["80/tcp"],
            "host_loopback": "5432,53/udp",
        }),
    );
    agree::<ExecCreate>(
        "ExecCreate",
        json!({"command": ["sh"], "env": [], "workdir": "/", "interactive": true,
            "tty": false, "stdio": "detached"}),
    );
}

#[test]
fn the_document_describes_the_answers() {
    let id = "ab".repeat(32);
    let endpoint = json!({
        "Network": "bridge", "EndpointId": id, "Ifname": "eth0", "RouterIfname": "ve-0",
        "MacAddress": "02:42:0a:59:00:02", "Addresses": ["10.89.0.2/24"], "Gateways": ["10.89.0.1"],
        "Aliases": ["www"], "GwPriority": -1, "DnsNames": ["web"],
        "RateIn": {"BitsPerSecond": 1000, "BurstBytes": null},
        "RateOut": {"BitsPerSecond": 1000, "BurstBytes": 7},
    });
    agree::<EndpointInfo>("EndpointInfo", endpoint.clone());
    agree::<SandboxInfo>(
        "SandboxInfo",
        json!({
            "Id": id, "Name": "web", "Hostname": "web", "Command": ["sh"],
            "Created": "2026-01-01T00:00:00Z", "Started": null, "Finished": null,
            "State": "created", "ExitCode": null, "Pid": null, "NetworkMode": "bridge",
            "Networks": ["bridge"], "Endpoints": [endpoint],
            "Links": [{"Name": "db", "Alias": null}], "Ports": [port_json()], "HostLoopback": "all", "NetnsPath": null, "LogPath": null, "HostsPath": "/h", "ResolvConfPath": "/r",
            "AutoRemove": false, "Tty": false, "Rootfs": null,
        }),
    );
    agree::<Info>(
        "Info",
        json!({
            "Version": "1", "Pid": 1, "HelperPid": null, "RelayPid": 2, "DataDir": "/d",
            "RuntimeDir": "/r", "Running": 0, "RouterNetns": "/proc/1/fd/3",
        }),
    );
    agree::<Ping>("Ping", json!({"Version": "1"}));
    agree::<LogFile>("LogFile", json!({"path": "/l"}));
    agree::<Exit>("Exit", json!({"code": 0}));
    agree::<Created>("Created", json!({"id": id, "warnings": []}));
    agree::<ErrorBody>(
        "ErrorBody",
        json!({"message": "m", "hint": null, "exit_code": 1}),
    );
}

fn publish_json() -> Value {
    json!({"ports": ["8080:80/tcp", "[::1]::53/udp"], "source_address": "gateway", "interface": "eth0"})
}

fn port_json() -> Value {
    json!({
        "HostAddress": "*", "HostPorts": "8080-8081", "ContainerPorts": "80-81",
        "Protocol": "tcp", "SourceAddress": "keep",
    })
}

#[test]
fn the_document_describes_ports() {
    agree::<PortsPublish>("PortsPublish", publish_json());
    agree::<PortsRemove>("PortsRemove", json!({"ports": ["80/tcp"]}));
    agree::<PortInfo>("PortInfo", port_json());
    let mut status = port_json();
    let fields = status.as_object_mut().unwrap();
    for name in ["Accepted", "Refused", "BytesIn", "BytesOut"] {
        fields.insert(name.to_owned(), json!(7));
    }
    agree::<PortStatus>("PortStatus", status);
    let total = json!({"Accepted": 1, "Refused": 2, "BytesIn": 3, "BytesOut": 4});
    agree::<PortsTotal>("PortsTotal", total);
    let malformed = json!({"ports": ["80/icmp"]});
    assert!(serde_json::from_value::<PortsPublish>(malformed).is_err());
}

fn attach_json() -> Value {
    json!({
        "network": "bridge", "ip": "10.89.0.2", "ip6": "fd00::2",
        "mac_address": "02:42:0a:59:00:02", "aliases": ["www"], "interface_name": "eth7",
        "gw_priority": 3, "bandwidth": {"in": {"rate": 1000, "burst": null}},
    })
}

#[test]
fn the_document_describes_requests_about_networks() {
    agree::<NetworkAttach>("NetworkAttach", attach_json());
    agree::<Link>("Link", json!({"sandbox": "db", "alias": null}));
    agree::<NetnsCreate>(
        "NetnsCreate",
        json!({"name": "ns", "hostname": "h", "networks": [attach_json()], "links": [],
            "host_loopback": "all"}),
    );
    agree::<NetworkCreate>(
        "NetworkCreate",
        json!({
            "name": "mynet", "driver": "bridge", "subnets": ["10.9.0.0/24"],
            "gateways": ["10.9.0.1"], "ip_ranges": ["10.9.0.128/25"],
            "aux_addresses": [["printer", "10.9.0.9"]], "ipv6": true, "internal": true,
            "labels": {"a": "b"}, "options": {"mtu": "1400"}, "dns": ["1.1.1.1"],
            "disable_dns": true, "uplink": "none",
        }),
    );
    let mut connect = attach_json();
    let fields = connect.as_object_mut().unwrap();
    fields.remove("network");
    fields.insert("sandbox".to_owned(), json!("web"));
    fields.insert(
        "links".to_owned(),
        json!([{"sandbox": "db", "alias": "store"}]),
    );
    agree::<NetworkConnect>("NetworkConnect", connect.clone());
    connect["nonsense"] = json!(1);
    assert!(serde_json::from_value::<NetworkConnect>(connect).is_err());
    agree::<NetworkDisconnect>(
        "NetworkDisconnect",
        json!({"sandbox": "web", "force": true}),
    );
    agree::<NetworkPrune>("NetworkPrune", json!({"filters": [["label", "a=b"]]}));
}

#[test]
fn the_document_describes_networks() {
    let id = "ab".repeat(32);
    let config = json!({
        "Subnet": "10.89.0.0/24", "IPRange": "10.89.0.128/25", "Gateway": "10.89.0.1",
        "AuxiliaryAddresses": {"printer": "10.89.0.9"},
    });
    agree::<IpamConfig>("IpamConfig", config.clone());
    let ipam = json!({"Driver": "default", "Options": {}, "Config": [config]});
    agree::<IpamInfo>("IpamInfo", ipam.clone());
    let container = json!({
        "Name": "web", "EndpointID": id, "MacAddress": "02:42:0a:59:00:02",
        "IPv4Address": "10.89.0.2/24", "IPv6Address": "",
    });
    agree::<ContainerInfo>("ContainerInfo", container.clone());
    let lease = json!({
        "Name": "db", "Addresses": ["10.89.0.3"], "Granted": "2026-01-01T00:00:00Z",
    });
    agree::<LeaseInfo>("LeaseInfo", lease.clone());
    agree::<NetworkInfo>(
        "NetworkInfo",
        json!({
            "Name": "mynet", "Id": id, "Created": "2026-01-01T00:00:00Z", "Scope": "local",
            "Driver": "bridge", "EnableIPv4": true, "EnableIPv6": false, "IPAM": ipam,
            "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": { "Network": "" }, "ConfigOnly": false,
            "Containers": {&id: container}, "Options": {"mtu": "1400"}, "Labels": {"a": "b"},
            "Bridge": "br-0", "Uplink": "relay", "Mtu": 1400, "DnsEnabled": true, "Dns": [],
            "Leases": [lease],
        }),
    );
    agree::<Pruned>("Pruned", json!({"NetworksDeleted": ["mynet"]}));
    agree::<LinkInfo>("LinkInfo", json!({"Name": "db", "Alias": "store"}));
    agree::<NetnsCreated>(
        "NetnsCreated",
        json!({"id": id, "path": "/proc/1/fd/9", "warnings": []}),
    );
}

#[test]
fn both_ends_of_a_wait_are_told_apart() {
    let end = |text: &str| serde_json::from_str::<WaitEnd>(text).unwrap();
    assert_eq!(end(r#"{"code":3}"#), WaitEnd::Exit(Exit { code: 3 }));
    let error = end(r#"{"status":503,"message":"m","hint":null,"exit_code":125}"#);
    assert!(matches!(error, WaitEnd::Error { status: 503, .. }));
}
