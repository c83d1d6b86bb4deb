//! `network create`, `ls`, `connect`, `disconnect`, `rm`, `prune`, `exists`, `graph`.

use super::error::CliError;
use super::graph::{self, GraphFormat};
use super::listing::Columns;
use super::network_args::{
    NetworkCommand, NetworkConnectArgs, NetworkCreateArgs, NetworkDisconnectArgs, NetworkLsArgs,
    NetworkPruneArgs, NetworkRmArgs,
};
use super::network_filter::passes;
use super::sandboxes::each;
use super::{age, connect, inspect, table};
use crate::api::client::ClientError;
use crate::api::network_types::{NetworkDisconnect, NetworkInfo, NetworkPrune};
use crate::api::paths::Paths;
use crate::api::types::Uplink;
use serde::Serialize;
use std::cmp::Ordering;
use std::io::{self, BufRead, Read};

/// Longest answer to a question that is read.
const MAX_ANSWER: u64 = 1 << 10;

pub(super) async fn network(paths: Paths, command: NetworkCommand) -> Result<u8, CliError> {
    match command {
        NetworkCommand::Create(args) => create(paths, *args).await,
        NetworkCommand::Ls(args) => ls(paths, args).await,
        NetworkCommand::Inspect(args) => inspect::networks(paths, args).await,
        NetworkCommand::Connect(args) => join(paths, args).await,
        NetworkCommand::Disconnect(args) => leave(paths, args).await,
        NetworkCommand::Rm(args) => rm(paths, args).await,
        NetworkCommand::Prune(args) => prune(paths, args).await,
        NetworkCommand::Exists { name } => exists(paths, &name).await,
        NetworkCommand::Graph { format } => draw(paths, format).await,
    }
}

async fn create(paths: Paths, args: NetworkCreateArgs) -> Result<u8, CliError> {
    let request = args.request();
    let created = connect(paths).await?.create_network(&request).await?;
    for warning in &created.warnings {
        eprintln!("mossnet: warning: {warning}");
    }
    table::line(created.id.as_str())?;
    Ok(0)
}

/// A line of `network ls`; fields and their form are those of `docker network ls --format json`,
/// and then our own.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    created_at: String,
    driver: String,
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "IPv4")]
    ipv4: String,
    #[serde(rename = "IPv6")]
    ipv6: String,
    internal: String,
    labels: String,
    name: String,
    scope: String,
    subnets: Vec<String>,
    uplink: Uplink,
}

const COLUMNS: Columns = Columns {
    fields: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
        ("Subnets", "SUBNETS"),
        ("Uplink", "UPLINK"),
    ],
    table: &["ID", "Name", "Driver", "Scope"],
};

impl Row {
    fn of(network: &NetworkInfo, whole: bool) -> Self {
        let id = if whole {
            network.id.as_str()
        } else {
            network.id.short()
        };
        let labels = network.labels.iter();
        let labels: Vec<_> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let prefixes = network.ipam.config.iter();
        Self {
            created_at: age::as_go_prints(&network.created),
            driver: network.driver.clone(),
            id: id.to_owned(),
            ipv4: network.enable_ipv4.to_string(),
            ipv6: network.enable_ipv6.to_string(),
            internal: network.internal.to_string(),
            labels: labels.join(","),
            name: network.name.clone(),
            scope: network.scope.clone(),
            subnets: prefixes.map(|config| config.subnet.to_string()).collect(),
            uplink: network.uplink,
        }
    }
}

async fn ls(paths: Paths, args: NetworkLsArgs) -> Result<u8, CliError> {
    COLUMNS.check(&args.list)?;
    let mut networks = connect(paths).await?.networks().await?;
    networks.sort_by(|a, b| natural(&a.name, &b.name));
    let rows: Vec<Row> = networks
        .iter()
        .filter(|network| passes(&args.filter, network))
        .map(|network| Row::of(network, args.list.no_trunc))
        .collect();
    table::print(&COLUMNS.text(&rows, &args.list)?)?;
    Ok(0)
}

/// Docker's order of a list: numbers in names count as numbers, `net9` before `net10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (part_a, part_b) = (run(a), run(b));
        let is_number = |part: &str| part.starts_with(|c: char| c.is_ascii_digit());
        let (bare_a, bare_b) = (
            part_a.trim_start_matches('0'),
            part_b.trim_start_matches('0'),
        );
        let order = if is_number(part_a) && is_number(part_b) {
            // Without leading zeros the longer one is the greater.
            let by_value = bare_a.len().cmp(&bare_b.len()).then(bare_a.cmp(bare_b));
            by_value.then(part_a.len().cmp(&part_b.len()))
        } else {
            part_a.cmp(part_b)
        };
        if order != Ordering::Equal || part_a.is_empty() {
            return order;
        }
        (a, b) = (&a[part_a.len()..], &b[part_b.len()..]);
    }
}

/// The digits that a text begins with, else what it has before its first digit.
fn run(text: &str) -> &str {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digits);
    &text[..end.unwrap_or(text.len())]
}

async fn join(paths: Paths, args: NetworkConnectArgs) -> Result<u8, CliError> {
    let client = connect(paths).await?;
    client
        .connect_network(&args.network, &args.request())
        .await?;
    Ok(0)
}

async fn leave(paths: Paths, args: NetworkDisconnectArgs) -> Result<u8, CliError> {
    let request = NetworkDisconnect {
        sandbox: args.sandbox,
        force: args.force,
    };
    let client = connect(paths).await?;
    client.disconnect_network(&args.network, &request).await?;
    Ok(0)
}

async fn rm(paths: Paths, args: NetworkRmArgs) -> Result<u8, CliError> {
    let client = connect(paths).await?;
    let mut results = Vec::new();
    for name in &args.names.names {
        let result = client.remove_network(name, args.force).await;
        // As Docker has it: no error, but nothing was removed either.
        if args.force && result.as_ref().is_err_and(ClientError::is_not_found) {
            continue;
        }
        results.push((name, result));
    }
    each(results)
}

async fn prune(paths: Paths, args: NetworkPruneArgs) -> Result<u8, CliError> {
    if !args.force && !agreed(&mut io::stdin().lock())? {
        return Err(CliError::Cancelled);
    }
    let filters = args.filter.into_iter();
    let request = NetworkPrune {
        filters: filters.map(|filter| (filter.key, filter.value)).collect(),
    };
    let pruned = connect(paths).await?.prune_networks(&request).await?;
    if !pruned.networks_deleted.is_empty() {
        let names: String = pruned
            .networks_deleted
            .iter()
            .map(|name| format!("{name}\n"))
            .collect();
        table::print(&format!("Deleted Networks:\n{names}\n"))?;
    }
    Ok(0)
}

/// Docker's question, and its idea of a yes.
fn agreed(input: &mut impl BufRead) -> Result<bool, CliError> {
    table::print(
        "WARNING! This will remove all custom networks not used by at least one container.\n\
         Are you sure you want to continue? [y/N] ",
    )?;
    let mut answer = Vec::new();
    input
        .take(MAX_ANSWER)
        .read_until(b'\n', &mut answer)
        .map_err(|source| CliError::Terminal {
            what: "read the answer",
            source,
        })?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

async fn exists(paths: Paths, name: &str) -> Result<u8, CliError> {
    match connect(paths).await?.network(name).await {
        Ok(_) => Ok(0),
        Err(error) if error.is_not_found() => Ok(1),
        Err(error) => Err(error.into()),
    }
}

async fn draw(paths: Paths, format: GraphFormat) -> Result<u8, CliError> {
    let client = connect(paths).await?;
    let (networks, sandboxes) = (client.networks().await?, client.list(true).await?);
    table::print(&graph::draw(&networks, &sandboxes, format))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::ListArgs;
    use crate::cli::graph::tests::example;
    use crate::cli::listing::Format;

    #[test]
    fn networks_are_listed_as_docker_does() {
        let rows: Vec<Row> = example().0.iter().map(|n| Row::of(n, false)).collect();
        let args = ListArgs {
            quiet: false,
            no_trunc: false,
            format: Format::Table,
        };
        let expected = "\
NETWORK ID     NAME      DRIVER    SCOPE
010101010101   bridge    bridge    local
020202020202   mynet     bridge    local
030303030303   vault     bridge    local
";
        assert_eq!(COLUMNS.text(&rows, &args).unwrap(), expected);
        assert_eq!(
            serde_json::to_string(&rows[1]).unwrap(),
            r#"{"CreatedAt":"2026-01-01 00:00:00 +0000 UTC","Driver":"bridge","ID":"020202020202","IPv4":"true","IPv6":"true","Internal":"false","Labels":"env=lab","Name":"mynet","Scope":"local","Subnets":["192.168.0.0/16","fd00:5::/64"],"Uplink":"relay"}"#
        );
    }

    #[test]
    fn every_field_has_a_heading() {
        let row = serde_json::to_value(Row::of(&example().0[0], true)).unwrap();
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
    fn numbers_in_names_count_as_numbers() {
        let mut names = [
            "net10", "none", "net9", "net", "bridge", "a2b", "a02b", "a10", "host",
        ];
        names.sort_by(|a, b| natural(a, b));
        let expected = [
            "a2b", "a02b", "a10", "bridge", "host", "net", "net9", "net10", "none",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, yes) in [
            ("y\n", true),
            ("Y\n", true),
            (" y", true),
            ("yes\n", false),
            ("n\n", false),
            ("\n", false),
            ("", false),
        ] {
            assert_eq!(agreed(&mut answer.as_bytes()).unwrap(), yes, "{answer:?}");
        }
    }
}
