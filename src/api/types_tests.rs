//! `docs/openapi.json` describes what is really sent: for each type, a whole value has exactly the
//! properties of its schema, and what the schema does not require may be left out.

use super::*;
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
            "name": "web", "hostname": "web", "network": {"network": "bridge"},
            "ip": "10.89.0.2", "ip6": "fd00::2", "mac_address": "02:42:0a:59:00:02",
            "dns": ["1.1.1.1"], "dns_search": ["x"], "add_host": [["db", "10.0.0.1"]],
            "env": [["A", "1"]], "workdir": "/", "caller_dir": "/", "caller_home": "/",
            "rootfs": "/r", "cap_add": [], "cap_drop": [], "command": ["sh"],
            "stdio": "attached", "tty": true, "auto_remove": true, "uplink": "relay",
        }),
    );
    agree::<ExecCreate>(
        "ExecCreate",
        json!({"command": ["sh"], "env": [], "workdir": "/", "tty": false, "stdio": "detached"}),
    );
}

#[test]
fn the_document_describes_the_answers() {
    let id = "ab".repeat(32);
    let endpoint = json!({
        "Network": "bridge", "EndpointId": id, "Ifname": "eth0", "RouterIfname": "ve-0",
        "MacAddress": "02:42:0a:59:00:02", "Addresses": ["10.89.0.2/24"], "Gateways": ["10.89.0.1"],
    });
    agree::<EndpointInfo>("EndpointInfo", endpoint.clone());
    agree::<SandboxInfo>(
        "SandboxInfo",
        json!({
            "Id": id, "Name": "web", "Hostname": "web", "Command": ["sh"],
            "Created": "2026-01-01T00:00:00Z", "Started": null, "Finished": null,
            "State": "created", "ExitCode": null, "Pid": null, "NetworkMode": "bridge",
            "Endpoints": [endpoint], "LogPath": null, "HostsPath": "/h", "ResolvConfPath": "/r",
            "AutoRemove": false, "Tty": false, "Rootfs": null,
        }),
    );
    agree::<NetworkInfo>(
        "NetworkInfo",
        json!({
            "Name": "bridge", "Id": id, "Driver": "bridge", "Bridge": "br-0",
            "Subnets": ["10.89.0.0/24"], "Gateways": ["10.89.0.1"], "Internal": false,
            "Uplink": "relay", "Sandboxes": [[id, "web", ["10.89.0.2/24"]]],
        }),
    );
    agree::<Info>(
        "Info",
        json!({
            "Version": "1", "Pid": 1, "HelperPid": null, "RelayPid": 2, "DataDir": "/d",
            "RuntimeDir": "/r", "Running": 0,
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

#[test]
fn both_ends_of_a_wait_are_told_apart() {
    let end = |text: &str| serde_json::from_str::<WaitEnd>(text).unwrap();
    assert_eq!(end(r#"{"code":3}"#), WaitEnd::Exit(Exit { code: 3 }));
    let error = end(r#"{"status":503,"message":"m","hint":null,"exit_code":125}"#);
    assert!(matches!(error, WaitEnd::Error { status: 503, .. }));
}
