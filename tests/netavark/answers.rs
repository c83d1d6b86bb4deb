//! The same answer as netavark's own, which wrote the fixtures (version 1.4), and is asked again where it
//! is installed.

use super::{Bench, container, network};
use crate::world::{Cmd, enter, installed};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Where Debian has it.
const NETAVARK: &str = "/usr/lib/podman/netavark";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/netavark/fixtures")
}

/// Name, request, answer.
fn all() -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(fixtures()).expect("fixtures") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        if let Some(name) = name.strip_suffix(".in.json") {
            let answer = fs::read_to_string(fixtures().join(format!("{name}.out.json")));
            let answer = serde_json::from_str(&answer.expect("an answer")).expect("JSON");
            let request = fs::read_to_string(&path).expect("a request");
            all.push((name.to_owned(), request, answer));
        }
    }
    assert!(all.len() > 5, "the fixtures are found");
    all
}

/// Sets up and tears down each request in turn with a program; what it answers.
fn answers(bench: &Bench, program: &str) -> Vec<Value> {
    let mut script = String::new();
    for (name, request, _) in all() {
        bench.write(&name, request);
        script += &format!(
            "{program} setup /run/netns/one <{name}.json\n{program} teardown /run/netns/one <{name}.json\n"
        );
    }
    let answers = bench.ok(&script);
    let answers = serde_json::Deserializer::from_str(&answers).into_iter();
    answers.map(|answer| answer.expect("JSON")).collect()
}

#[test]
fn they_are_netavarks() {
    let bench = Bench::new();
    let ours = answers(&bench, "netavark");
    let expected: Vec<Value> = all().into_iter().map(|(_, _, answer)| answer).collect();
    assert_eq!(ours, expected);
}

#[test]
fn netavark_gives_them_today() {
    if !Path::new(NETAVARK).exists() || !installed("iptables") {
        enter::skip_outside(
            "netavark::answers::netavark_gives_them_today",
            "netavark or iptables is not installed",
        );
        return;
    }
    let bench = Bench::new();
    let version = Cmd::new([NETAVARK, "--version"])
        .directory(bench.path())
        .ok();
    let theirs = answers(
        &bench,
        &format!("{NETAVARK} --config /run/net --aardvark-binary /none"),
    );
    let expected: Vec<Value> = all().into_iter().map(|(_, _, answer)| answer).collect();
    assert_eq!(theirs, expected, "{version}");
}

#[test]
fn podman_six_writes_an_array() {
    let bench = Bench::new();
    let mut request = container(
        "web",
        5,
        &[
            (1, network("a", 1, json!({}))),
            (2, network("b", 2, json!({}))),
        ],
    );
    let map = request["networks"].clone();
    bench.write("map", request.to_string());
    let named = |name: &str| {
        let mut connection = map[name].clone();
        connection["name"] = name.into();
        connection
    };
    request["networks"] = json!([named("a"), named("b")]);
    bench.write("array", request.to_string());
    let script = "setup one map; cat /run/out; teardown one map; setup one array; cat /run/out; teardown one array; nothing_left";
    let said = bench.ok(script);
    let (map, array) = said.trim().split_once('\n').expect("two answers");
    assert_eq!(map, array);
}

#[test]
fn flags_stand_anywhere_and_commands_say_what_they_are() {
    let bench = Bench::new();
    let request = container("web", 5, &[(1, network("a", 1, json!({})))]);
    bench.write("web", request.to_string());
    let script = r#"
        netavark --rootless=true -a /none setup /run/netns/one -f web.json >/dev/null
        netavark teardown --file web.json /run/netns/one --plugin-directory /none --firewall-driver iptables
        nothing_left
        env NETAVARK_FW=none "$MOSSNET" netavark -c /run/net setup /run/netns/one <web.json >/dev/null
        test -z "$(nft list tables)"
        env NETAVARK_FW=none "$MOSSNET" netavark -c /run/net teardown /run/netns/one <web.json
        ln -s "$MOSSNET" /run/netavark
        /run/netavark version
        /run/netavark --version | grep -q netavark
        /run/netavark --help | grep -q setup
        fails /run/netavark dhcp-proxy --dir x >/run/out; says 'no DHCP proxy'
        fails netavark create </dev/null >/run/out; says '"error"' 
    "#;
    let version: Value = serde_json::from_str(&bench.ok(script)).expect("JSON");
    assert!(
        version["version"].is_string()
            && version["commit"]
                .as_str()
                .is_some_and(|c| c.contains("mossnet"))
    );
}
