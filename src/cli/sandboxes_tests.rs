use super::*;
use crate::api::port_types::{PortInfo, SourceAddress};
use crate::api::types::EndpointInfo;
use crate::cli::args::ListArgs;
use crate::cli::listing::Format;
use mossnet_helper::SandboxId;
use std::time::{Duration, UNIX_EPOCH};

pub(crate) fn sandbox(byte: u8, name: &str, command: &[&str]) -> SandboxInfo {
    SandboxInfo {
        id: SandboxId::from([byte; 32]),
        name: name.to_owned(),
        hostname: name.to_owned(),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        created: "1970-01-01T00:00:00Z".to_owned(),
        started: Some("1970-01-01T00:01:00Z".to_owned()),
        finished: None,
        state: SandboxState::Running,
        exit_code: None,
        pid: Some(77),
        network_mode: "bridge".to_owned(),
        endpoints: vec![EndpointInfo {
            network: "bridge".to_owned(),
            endpoint_id: SandboxId::from([9; 32]),
            ifname: "eth0".to_owned(),
            router_ifname: "ve-090909090909".to_owned(),
            mac_address: "02:42:0a:59:00:02".parse().unwrap(),
            addresses: vec![
                "10.89.0.2/24".parse().unwrap(),
                "fd00::2/64".parse().unwrap(),
            ],
            gateways: Vec::new(),
            aliases: Vec::new(),
            gw_priority: 0,
            rate_in: None,
            rate_out: None,
            dns_names: Vec::new(),
        }],
        networks: vec!["bridge".to_owned()],
        links: Vec::new(),
        ports: Vec::new(),
        host_loopback: None,
        netns_path: None,
        log_path: None,
        hosts_path: "/h".into(),
        resolv_conf_path: "/r".into(),
        auto_remove: false,
        tty: false,
        rootfs: None,
    }
}

fn rows() -> Vec<Row> {
    let now = UNIX_EPOCH + Duration::from_secs(3600);
    let mut web = sandbox(0xab, "web", &["busybox", "httpd", "-f", "-p", "80"]);
    web.ports = vec![PortInfo {
        host_address: "127.0.0.1".parse().unwrap(),
        host_ports: "8080".parse().unwrap(),
        container_ports: "80".parse().unwrap(),
        protocol: "tcp".parse().unwrap(),
        source_address: SourceAddress::Keep,
    }];
    let mut done = sandbox(0xcd, "quiet_moss", &["true"]);
    done.state = SandboxState::Exited;
    done.exit_code = Some(137);
    done.finished = Some("1970-01-01T00:58:00Z".to_owned());
    done.network_mode = "none".to_owned();
    done.networks.clear();
    done.endpoints.clear();
    done.pid = None;
    let mut new = sandbox(0xef, "new", &["sh"]);
    new.state = SandboxState::Created;
    new.started = None;
    [web, done, new]
        .iter()
        .map(|sandbox| Row::of(sandbox, false, now))
        .collect()
}

#[test]
fn the_table_is_dockers_with_network_and_address() {
    let expected = "\
CONTAINER ID   COMMAND                  CREATED             STATUS                       PORTS                    NETWORK   ADDRESS             NAMES
abababababab   \"busybox httpd -f -p…\"   About an hour ago   Up 59 minutes                127.0.0.1:8080->80/tcp   bridge    10.89.0.2,fd00::2   web
cdcdcdcdcdcd   \"true\"                   About an hour ago   Exited (137) 2 minutes ago                            none                          quiet_moss
efefefefefef   \"sh\"                     About an hour ago   Created                                               bridge    10.89.0.2,fd00::2   new
";
    let args = ListArgs {
        quiet: false,
        no_trunc: false,
        format: Format::Table,
    };
    assert_eq!(COLUMNS.text(&rows(), &args).unwrap(), expected);
}

#[test]
fn every_field_has_a_heading() {
    let row = serde_json::to_value(&rows()[0]).unwrap();
    let mut fields: Vec<_> = row.as_object().unwrap().keys().cloned().collect();
    let mut headed: Vec<_> = COLUMNS
        .fields
        .iter()
        .map(|(f, _)| (*f).to_owned())
        .collect();
    fields.sort();
    headed.sort();
    assert_eq!(fields, headed);
}

#[test]
fn the_json_form_has_dockers_keys() {
    let expected = r#"{"ID":"abababababab","Names":"web","Command":"\"busybox httpd -f -p…\"","CreatedAt":"1970-01-01T00:00:00Z","RunningFor":"About an hour ago","State":"running","Status":"Up 59 minutes","Ports":"127.0.0.1:8080->80/tcp","ExitCode":null,"Pid":77,"Networks":"bridge","Addresses":["10.89.0.2","fd00::2"]}"#;
    assert_eq!(serde_json::to_string(&rows()[0]).unwrap(), expected);
}

#[test]
fn whole_rows_are_whole() {
    let now = UNIX_EPOCH;
    let row = Row::of(
        &sandbox(1, "x", &["a-command-that-is-long", "enough"]),
        true,
        now,
    );
    assert_eq!(row.id.len(), 64);
    assert_eq!(row.command, "\"a-command-that-is-long enough\"");
}

#[test]
fn inspection_keeps_dockers_case() {
    let expected = include_str!("inspect_golden.json");
    let shown = serde_json::to_string_pretty(&[sandbox(0xab, "web", &["sh", "-c", "x"])]).unwrap();
    assert_eq!(shown + "\n", expected);
}
