//! `-p` and its companions of `run`; `port`: published ports shown, added, removed.

use super::args::ListArgs;
use super::error::CliError;
use super::listing::Columns;
use super::{connect, names, table, value};
use crate::api::paths::Paths;
use crate::api::port_types::{
    PortError, PortInfo, PortRange, PortStatus, PortsPublish, PortsRemove, PortsTotal, Proto,
    PublishSpec, SourceAddress,
};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

/// Ports on the host.
#[derive(Debug, Default, Args)]
pub struct PublishArgs {
    /// Publish a port on the host; may be repeated.
    ///
    /// [IP:][HOSTPORT:]CONTAINERPORT[/tcp|udp]; ports may be ranges (8000-8010:80-90). Without IP on
    /// every address of both families, without HOSTPORT on a free one, which 'mossnet port' shows.
    #[arg(short, long, value_name = "PORTS", value_parser = publish)]
    pub publish: Vec<PublishSpec>,
    /// Publish what --expose names, too, each on a free port.
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Container ports for -P, such as 80, 53/udp or 8000-8010; may be repeated.
    #[arg(long, value_name = "PORTS", value_parser = expose)]
    pub expose: Vec<PublishSpec>,
    /// How they are published.
    #[command(flatten)]
    pub how: HowArgs,
}

/// How ports are published.
#[derive(Debug, Default, Args)]
pub struct HowArgs {
    /// Publish ports without an IP on the addresses of this interface only.
    ///
    /// Its addresses are looked up once, now, and are then those of the published ports: one that the
    /// interface gets later is not published, and one that it loses listens for nobody until it is back.
    /// 'mossnet port rm' and 'port add --publish-iface' take up the new ones while the sandbox runs.
    #[arg(long, value_name = "INTERFACE", value_parser = value::given)]
    pub publish_iface: Option<String>,
    /// Whom the command takes its clients for: themselves wherever that can be, or the gateway of
    /// its network.
    #[arg(long, value_name = "POLICY", value_enum)]
    pub source_address: Option<SourceWord>,
}

/// `--source-address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SourceWord {
    /// The client's own address.
    Keep,
    /// The gateway's.
    Gateway,
}

impl HowArgs {
    fn request(&self, ports: Vec<PublishSpec>) -> PortsPublish {
        PortsPublish {
            ports,
            source_address: match self.source_address {
                None | Some(SourceWord::Keep) => SourceAddress::Keep,
                Some(SourceWord::Gateway) => SourceAddress::Gateway,
            },
            interface: self.publish_iface.clone(),
        }
    }
}

impl PublishArgs {
    /// What to ask of the daemon.
    pub fn request(&self) -> PortsPublish {
        self.how.request(self.publish.clone())
    }
}

/// With the hint, which clap shows nowhere else.
fn explained(error: &PortError) -> String {
    format!("{error}; {}", error.hint())
}

pub(super) fn publish(text: &str) -> Result<PublishSpec, String> {
    text.parse().map_err(|error| explained(&error))
}

fn expose(text: &str) -> Result<PublishSpec, String> {
    PublishSpec::expose(text).map_err(|error| explained(&error))
}

/// `port`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_long_help = "Examples:\n  \
        mossnet port web\n  \
        mossnet port web 80/tcp\n  \
        mossnet port add web 8443:443 53:53/udp\n  \
        mossnet port rm web 8443:443\n  \
        mossnet port ls web\n  \
        mossnet port ls --total --format json web"
)]
pub struct PortArgs {
    /// What to do instead.
    #[command(subcommand)]
    pub command: Option<PortCommand>,
    /// Name, id, or unambiguous beginning of an id (4 digits at least).
    #[arg(value_name = "NAME", required = true, value_parser = value::given, add = names::running())]
    pub name: Option<String>,
    /// Only where this container port is published, such as 80 or 53/udp.
    #[arg(value_name = "PORT", value_parser = expose)]
    pub port: Option<PublishSpec>,
}

/// The subcommands of `port`.
#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// List what a sandbox publishes, with what was seen of it.
    #[command(alias = "list")]
    Ls {
        /// The sandbox.
        #[arg(value_name = "NAME", value_parser = value::given, add = names::sandboxes())]
        name: String,
        /// One line for the sandbox: the sums over all that it publishes now.
        #[arg(long, conflicts_with_all = ["quiet", "no_trunc"])]
        total: bool,
        /// How to print it.
        #[command(flatten)]
        list: ListArgs,
    },
    /// Publish more ports, all of them or none, and print where.
    Add {
        /// How.
        #[command(flatten)]
        how: HowArgs,
        /// The sandbox.
        #[arg(value_name = "NAME", value_parser = value::given, add = names::sandboxes())]
        name: String,
        /// As for 'run -p'.
        #[arg(value_name = "PORTS", required = true, value_parser = publish)]
        ports: Vec<PublishSpec>,
    },
    /// Publish ports no longer, all of these or none. Connections that there are go on.
    #[command(alias = "remove")]
    Rm {
        /// The sandbox.
        #[arg(value_name = "NAME", value_parser = value::given, add = names::sandboxes())]
        name: String,
        /// As for 'run -p'; a container port alone is for all that lead to it.
        #[arg(value_name = "PORTS", required = true, value_parser = publish)]
        ports: Vec<PublishSpec>,
    },
}

pub(super) async fn port(paths: Paths, args: PortArgs) -> Result<u8, CliError> {
    match args.command {
        Some(PortCommand::Ls { name, total, list }) => match total {
            true => total_of(paths, name, &list).await,
            false => ls(paths, &name, &list).await,
        },
        Some(PortCommand::Add { how, name, ports }) => {
            let request = how.request(ports);
            let added = connect(paths).await?.add_ports(&name, &request).await?;
            table::print(&arrows(&added))?;
            Ok(0)
        }
        Some(PortCommand::Rm { name, ports }) => {
            let request = PortsRemove { ports };
            connect(paths).await?.remove_ports(&name, &request).await?;
            Ok(0)
        }
        None => {
            let name = args.name.unwrap_or_default();
            let info = connect(paths).await?.inspect(&name).await?;
            let Some(wanted) = args.port else {
                table::print(&arrows(&info.ports))?;
                return Ok(0);
            };
            let text = places(&info.ports, &wanted);
            if text.is_empty() {
                return Err(CliError::NotPublished { name, port: wanted });
            }
            table::print(&text)?;
            Ok(0)
        }
    }
}

/// Each pair of one host and one container port.
fn pairs(port: &PortInfo) -> impl Iterator<Item = (u16, u16)> {
    let hosts = port.host_ports.iter();
    let pairs = hosts.zip(port.container_ports.iter());
    pairs.map(|(host, container)| (host.get(), container.get()))
}

/// `80/tcp -> 0.0.0.0:8080`, as `docker port` has it.
fn arrows(ports: &[PortInfo]) -> String {
    let mut text = String::new();
    for port in ports {
        for (host, container) in pairs(port) {
            for address in port.addresses() {
                text += &format!("{container}/{} -> {address}:{host}\n", port.protocol);
            }
        }
    }
    text
}

/// Where the container ports of `wanted` are published, a line each.
fn places(ports: &[PortInfo], wanted: &PublishSpec) -> String {
    let mut text = String::new();
    let same = |port: &&PortInfo| port.protocol == wanted.proto();
    for port in ports.iter().filter(same) {
        for (host, container) in pairs(port) {
            let range = wanted.container_ports();
            if range.iter().any(|port| port.get() == container) {
                for address in port.addresses() {
                    text += &format!("{address}:{host}\n");
                }
            }
        }
    }
    text
}

/// `0.0.0.0:8080->80/tcp, [::]:8080->80/tcp`, as `docker ps` has it.
pub(super) fn column(ports: &[PortInfo]) -> String {
    shown(ports).join(", ")
}

/// The same, one by one.
pub(super) fn shown(ports: &[PortInfo]) -> Vec<String> {
    let each = |port: &PortInfo| {
        let (hosts, containers) = (port.host_ports, port.container_ports);
        let protocol = port.protocol;
        let addresses = port.addresses().into_iter();
        let each = addresses.map(|address| format!("{address}:{hosts}->{containers}/{protocol}"));
        each.collect::<Vec<_>>()
    };
    ports.iter().flat_map(each).collect()
}

const COLUMNS: Columns = Columns {
    fields: &[
        ("ID", "PUBLISH"),
        ("HostAddress", "HOST ADDRESS"),
        ("HostPorts", "HOST PORTS"),
        ("ContainerPorts", "CONTAINER PORTS"),
        ("Protocol", "PROTOCOL"),
        ("SourceAddress", "SOURCE"),
        ("Accepted", "ACCEPTED"),
        ("Refused", "REFUSED"),
        ("BytesIn", "BYTES IN"),
        ("BytesOut", "BYTES OUT"),
    ],
    table: &[
        "HostAddress",
        "HostPorts",
        "ContainerPorts",
        "Protocol",
        "SourceAddress",
        "Accepted",
        "Refused",
        "BytesIn",
        "BytesOut",
    ],
};

/// A line of `port ls`. Its id is what `port rm` takes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    #[serde(rename = "ID")]
    id: String,
    host_address: String,
    host_ports: PortRange,
    container_ports: PortRange,
    protocol: Proto,
    source_address: SourceAddress,
    accepted: u64,
    refused: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Row {
    fn of(status: &PortStatus) -> Self {
        let port = &status.port;
        let address = match port.host_address.to_string() {
            any if any == "*" => String::new(),
            address => format!("{address}:"),
        };
        let (hosts, containers) = (port.host_ports, port.container_ports);
        Self {
            id: format!("{address}{hosts}:{containers}/{}", port.protocol),
            host_address: port.host_address.to_string(),
            host_ports: hosts,
            container_ports: containers,
            protocol: port.protocol,
            source_address: port.source_address,
            accepted: status.accepted,
            refused: status.refused,
            bytes_in: status.bytes_in,
            bytes_out: status.bytes_out,
        }
    }
}

async fn ls(paths: Paths, name: &str, list: &ListArgs) -> Result<u8, CliError> {
    COLUMNS.check(list)?;
    let ports = connect(paths).await?.ports(name).await?;
    let rows: Vec<Row> = ports.iter().map(Row::of).collect();
    table::print(&COLUMNS.text(&rows, list)?)?;
    Ok(0)
}

const TOTAL_COLUMNS: Columns = Columns {
    fields: &[
        ("Sandbox", "SANDBOX"),
        ("Accepted", "ACCEPTED"),
        ("Refused", "REFUSED"),
        ("BytesIn", "BYTES IN"),
        ("BytesOut", "BYTES OUT"),
    ],
    table: &["Sandbox", "Accepted", "Refused", "BytesIn", "BytesOut"],
};

/// The line of `port ls --total`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TotalRow {
    sandbox: String,
    #[serde(flatten)]
    total: PortsTotal,
}

async fn total_of(paths: Paths, sandbox: String, list: &ListArgs) -> Result<u8, CliError> {
    TOTAL_COLUMNS.check(list)?;
    let total = connect(paths).await?.ports_total(&sandbox).await?;
    let row = TotalRow { sandbox, total };
    table::print(&TOTAL_COLUMNS.text(&[row], list)?)?;
    Ok(0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::api::port_types::HostPorts;

    pub(crate) fn port(address: &str, hosts: &str, containers: &str) -> PortInfo {
        PortInfo {
            host_address: address.parse().unwrap(),
            host_ports: hosts.parse().unwrap(),
            container_ports: containers.parse().unwrap(),
            protocol: Proto::Tcp,
            source_address: SourceAddress::Keep,
        }
    }

    #[test]
    fn ports_are_shown_as_docker_does() {
        let ports = [port("*", "8080", "80"), port("[::1]", "90-91", "7-8")];
        assert_eq!(
            column(&ports),
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, [::1]:90-91->7-8/tcp"
        );
        assert_eq!(
            arrows(&ports),
            "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n7/tcp -> [::1]:90\n8/tcp -> [::1]:91\n"
        );
        let wanted = PublishSpec::expose("8").unwrap();
        assert_eq!(places(&ports, &wanted), "[::1]:91\n");
        assert_eq!(places(&ports, &PublishSpec::expose("80/udp").unwrap()), "");
    }

    #[test]
    fn a_total_is_the_sum_of_all_ports() {
        let status = |accepted| PortStatus {
            port: port("*", "8080", "80"),
            accepted,
            refused: 2,
            bytes_in: 3,
            bytes_out: u64::MAX,
        };
        let row = TotalRow {
            sandbox: "web".to_owned(),
            total: PortsTotal::of(&[status(1), status(4)]),
        };
        let json = serde_json::to_string(&row).unwrap();
        let expected = format!(
            r#"{{"Sandbox":"web","Accepted":5,"Refused":4,"BytesIn":6,"BytesOut":{}}}"#,
            u64::MAX
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn a_lines_id_can_be_removed() {
        let row = Row::of(&PortStatus {
            port: port("127.0.0.1", "8080", "80"),
            accepted: 1,
            refused: 2,
            bytes_in: 3,
            bytes_out: 4,
        });
        let spec: PublishSpec = row.id.parse().unwrap();
        assert_eq!(spec.to_string(), "127.0.0.1:8080:80/tcp");
        assert!(matches!(spec.host_ports(), HostPorts::Each(_)));
    }
}
