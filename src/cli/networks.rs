//! `network ls`, `network inspect`, and `inspect` of sandboxes and networks alike.

use super::args::{Names, NetworkCommand, NetworkLsArgs};
use super::error::CliError;
use super::{connect, table};
use crate::api::client::Client;
use crate::api::network_types::NetworkInfo;
use crate::api::paths::Paths;
use crate::api::types::{SandboxInfo, Uplink};
use serde::Serialize;

pub(super) async fn network(paths: Paths, command: NetworkCommand) -> Result<u8, CliError> {
    match command {
        NetworkCommand::Ls(args) => ls(paths, args).await,
        NetworkCommand::Inspect(names) => {
            let client = connect(paths).await?;
            let mut found = Found::default();
            for name in &names.names {
                let network = client.network(name).await;
                found.add(
                    network
                        .map(|n| Inspected::Network(Box::new(n)))
                        .map_err(CliError::from),
                );
            }
            found.print()
        }
    }
}

/// A line of `network ls`; keys of the JSON form are those of `docker network ls --format json`,
/// where it has them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    driver: String,
    scope: &'static str,
    internal: bool,
    uplink: Uplink,
    subnets: Vec<String>,
}

impl Row {
    fn of(network: &NetworkInfo, whole: bool) -> Self {
        let id = if whole {
            network.id.as_str()
        } else {
            network.id.short()
        };
        Self {
            id: id.to_owned(),
            name: network.name.clone(),
            driver: network.driver.clone(),
            scope: "local",
            internal: network.internal,
            uplink: network.uplink,
            subnets: (network.ipam.config.iter())
                .map(|config| config.subnet.to_string())
                .collect(),
        }
    }
}

async fn ls(paths: Paths, args: NetworkLsArgs) -> Result<u8, CliError> {
    let networks = connect(paths).await?.networks().await?;
    let rows: Vec<Row> = networks
        .iter()
        .map(|network| Row::of(network, args.no_trunc))
        .collect();
    table::list(
        &rows,
        args.quiet,
        args.format.format,
        |row| &row.id,
        listing,
    )
}

fn listing(rows: &[Row]) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.id.clone(),
                row.name.clone(),
                row.driver.clone(),
                row.scope.to_owned(),
                row.subnets.join(","),
            ]
        })
        .collect();
    table::render(
        &["NETWORK ID", "NAME", "DRIVER", "SCOPE", "SUBNETS"],
        &cells,
    )
}

/// `inspect`: a sandbox of that name, else a network.
pub(super) async fn inspect_anything(paths: Paths, args: Names) -> Result<u8, CliError> {
    let client = connect(paths).await?;
    let mut found = Found::default();
    for name in &args.names {
        found.add(anything(&client, name).await);
    }
    found.print()
}

async fn anything(client: &Client, name: &str) -> Result<Inspected, CliError> {
    match client.inspect(name).await {
        Ok(sandbox) => return Ok(Inspected::Sandbox(Box::new(sandbox))),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    match client.network(name).await {
        Ok(network) => Ok(Inspected::Network(Box::new(network))),
        Err(error) if error.is_not_found() => Err(CliError::Unknown(name.to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// Either, with its own keys in their own order.
#[derive(Serialize)]
#[serde(untagged)]
enum Inspected {
    Sandbox(Box<SandboxInfo>),
    Network(Box<NetworkInfo>),
}

/// What was found; what was not has been said.
#[derive(Default)]
struct Found {
    values: Vec<Inspected>,
    failed: bool,
}

impl Found {
    fn add(&mut self, found: Result<Inspected, CliError>) {
        match found {
            Ok(value) => self.values.push(value),
            Err(error) => {
                error.print();
                self.failed = true;
            }
        }
    }

    /// The array, empty too, as Docker prints it.
    fn print(self) -> Result<u8, CliError> {
        table::json(&self.values)?;
        Ok(u8::from(self.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::network_types::{IpamConfig, IpamInfo};
    use mossnet_helper::SandboxId;
    use std::collections::BTreeMap;

    #[test]
    fn networks_are_listed_as_docker_does() {
        let config = |subnet: &str, gateway: &str| IpamConfig {
            subnet: subnet.parse().unwrap(),
            ip_range: None,
            gateway: gateway.parse().unwrap(),
            auxiliary_addresses: BTreeMap::new(),
        };
        let bridge = NetworkInfo {
            name: "bridge".to_owned(),
            id: SandboxId::from([0xab; 32]),
            created: "1970-01-01T00:00:00Z".to_owned(),
            scope: "local".to_owned(),
            driver: "bridge".to_owned(),
            enable_ipv4: true,
            enable_ipv6: true,
            ipam: IpamInfo {
                driver: "default".to_owned(),
                options: BTreeMap::new(),
                config: vec![
                    config("10.89.0.0/24", "10.89.0.1"),
                    config("fd00::/64", "fd00::1"),
                ],
            },
            internal: false,
            attachable: false,
            ingress: false,
            config_only: false,
            containers: BTreeMap::new(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            bridge: Some("br-abababababab".to_owned()),
            uplink: Uplink::Relay,
            mtu: Some(1500),
            dns_enabled: false,
            dns: Vec::new(),
            leases: Vec::new(),
        };
        let rows = [Row::of(&bridge, false)];
        let expected = "\
NETWORK ID     NAME     DRIVER   SCOPE   SUBNETS
abababababab   bridge   bridge   local   10.89.0.0/24,fd00::/64
";
        assert_eq!(listing(&rows), expected);
        assert_eq!(
            serde_json::to_string(&rows[0]).unwrap(),
            r#"{"ID":"abababababab","Name":"bridge","Driver":"bridge","Scope":"local","Internal":false,"Uplink":"relay","Subnets":["10.89.0.0/24","fd00::/64"]}"#
        );
    }
}
