//! `netns`: sandboxes without a process, for runtimes that bring their own.

use super::args::{ListArgs, Names};
use super::error::CliError;
use super::host_loopback::HostLoopbackArgs;
use super::listing::Columns;
use super::ports::publish;
use super::run_network::joins;
use super::sandboxes::failed;
use super::{attach, connect, names, table, value};
use crate::api::client::Client;
use crate::api::network_types::{Link, NetnsAdopt, NetnsCreate, NetnsCreated, NetworkAttach};
use crate::api::paths::Paths;
use crate::api::port_types::{PortsPublish, PublishSpec};
use crate::api::types::SandboxInfo;
use attach::NetworkWord;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

/// `netns`.
#[derive(Debug, Subcommand)]
pub enum NetnsCommand {
    /// Make a network namespace with addresses, and print its path.
    ///
    /// The path leads to it as long as it lives: 'nsenter --net=PATH' enters it from within
    /// 'mossnet unshare'.
    Create(NetnsCreateArgs),
    /// Join the network namespace of another runtime's container to networks, and print its path.
    ///
    /// PATH is the namespace, as /run/netns/NAME or /proc/PID/ns/net. It must have been made inside
    /// 'mossnet unshare', or by a process in a user namespace below. 'mossnet netns rm' takes it off its
    /// networks; the namespace itself is its maker's.
    Adopt(NetnsAdoptArgs),
    /// List those that there are.
    #[command(alias = "list")]
    Ls(ListArgs),
    /// Remove network namespaces.
    #[command(alias = "remove")]
    Rm(Names),
}

/// `netns create`.
#[derive(Debug, Args)]
pub struct NetnsCreateArgs {
    /// Join a network, as in 'run'; may be repeated; none for loopback only.
    #[arg(long, alias = "net", value_name = "NETWORK", value_parser = attach::network, add = names::networks())]
    pub network: Vec<NetworkWord>,
    /// A further name on its networks.
    #[arg(long, value_name = "NAME", value_parser = value::hostname)]
    pub hostname: Option<String>,
    /// Know another sandbox by its name, and ALIAS, in /etc/hosts; may be repeated.
    #[arg(long, value_name = "NAME[:ALIAS]", value_parser = attach::link, add = names::running())]
    pub link: Vec<Link>,
    /// The host's loopback.
    #[command(flatten)]
    pub host: HostLoopbackArgs,
    /// Its name.
    #[arg(value_name = "NAME", value_parser = value::name)]
    pub name: String,
}

/// `netns adopt`.
#[derive(Debug, Args)]
pub struct NetnsAdoptArgs {
    /// As that of one that is made.
    #[command(flatten)]
    pub create: NetnsCreateArgs,
    /// The namespace.
    #[arg(value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    pub path: PathBuf,
    /// Publish a port on the host, as in 'run'; may be repeated.
    #[arg(short, long, value_name = "PORTS", value_parser = publish)]
    pub publish: Vec<PublishSpec>,
    /// Take it off its networks when this process ends, too.
    #[arg(long, value_name = "PID")]
    pub ends_with: Option<u32>,
}

impl NetnsCreateArgs {
    fn request(self) -> Result<NetnsCreate, CliError> {
        let networks = match self.network.as_slice() {
            [NetworkWord::None] => vec![NetworkAttach {
                network: "none".to_owned(),
                ..NetworkAttach::default()
            }],
            words => joins(words)?,
        };
        Ok(NetnsCreate {
            host_loopback: self.host.wish(),
            name: Some(self.name),
            hostname: self.hostname,
            networks,
            links: self.link,
        })
    }
}

pub(super) async fn netns(paths: Paths, command: NetnsCommand) -> Result<u8, CliError> {
    match command {
        NetnsCommand::Create(args) => create(paths, args).await,
        NetnsCommand::Adopt(args) => adopt(paths, args).await,
        NetnsCommand::Ls(args) => ls(paths, args).await,
        NetnsCommand::Rm(args) => rm(paths, args).await,
    }
}

async fn create(paths: Paths, args: NetnsCreateArgs) -> Result<u8, CliError> {
    let request = args.request()?;
    let created = connect(paths).await?.create_netns(&request).await?;
    show(&created)
}

async fn adopt(paths: Paths, args: NetnsAdoptArgs) -> Result<u8, CliError> {
    let request = NetnsAdopt {
        netns: args.create.request()?,
        publish: PortsPublish {
            ports: args.publish,
            ..PortsPublish::default()
        },
        ends_with: args.ends_with,
    };
    let what = "open network namespace";
    let path = args.path;
    let netns = File::open(&path).map_err(|source| CliError::File { what, path, source })?;
    let client = connect(paths).await?;
    show(&client.adopt(&request, netns.as_fd())?)
}

fn show(created: &NetnsCreated) -> Result<u8, CliError> {
    for warning in &created.warnings {
        eprintln!("mossnet: warning: {warning}");
    }
    table::line(&created.path.display().to_string())?;
    Ok(0)
}

/// A line of `netns ls`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    networks: Vec<String>,
    addresses: Vec<String>,
    path: String,
}

const COLUMNS: Columns = Columns {
    fields: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Networks", "NETWORKS"),
        ("Addresses", "ADDRESSES"),
        ("Path", "PATH"),
    ],
    table: &["ID", "Name", "Networks", "Addresses", "Path"],
};

impl Row {
    fn of(sandbox: &SandboxInfo, whole: bool) -> Option<Self> {
        let path = sandbox.netns_path.as_ref()?;
        let id = if whole {
            sandbox.id.as_str()
        } else {
            sandbox.id.short()
        };
        let addresses = sandbox.endpoints.iter().flat_map(|e| &e.addresses);
        Some(Self {
            id: id.to_owned(),
            name: sandbox.name.clone(),
            networks: sandbox.networks.clone(),
            addresses: addresses.map(|net| net.addr().to_string()).collect(),
            path: path.display().to_string(),
        })
    }
}

async fn ls(paths: Paths, args: ListArgs) -> Result<u8, CliError> {
    COLUMNS.check(&args)?;
    let sandboxes = connect(paths).await?.list(true).await?;
    let rows: Vec<Row> = sandboxes
        .iter()
        .filter_map(|sandbox| Row::of(sandbox, args.no_trunc))
        .collect();
    table::print(&COLUMNS.text(&rows, &args)?)?;
    Ok(0)
}

async fn rm(paths: Paths, args: Names) -> Result<u8, CliError> {
    let client = connect(paths).await?;
    let mut code = 0;
    for name in &args.names {
        match remove(&client, name).await {
            Ok(()) => table::line(name)?,
            Err(CliError::Client(error)) => code = failed(error),
            Err(error) => {
                error.print();
                code = 1;
            }
        }
    }
    Ok(code)
}

/// A name that was mistaken must not end somebody's process.
async fn remove(client: &Client, name: &str) -> Result<(), CliError> {
    let sandbox = client.inspect(name).await?;
    if sandbox.netns_path.is_none() {
        return Err(CliError::HasProcess(name.to_owned()));
    }
    Ok(client.remove(name, true).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::listing::Format;
    use crate::cli::sandboxes::tests::sandbox;

    #[test]
    fn only_bare_ones_are_listed() {
        let mut bare = sandbox(0xab, "bare", &["(netns)"]);
        bare.netns_path = Some("/proc/7/fd/9".into());
        let rows: Vec<Row> = [bare, sandbox(0xcd, "web", &["sh"])]
            .iter()
            .filter_map(|sandbox| Row::of(sandbox, false))
            .collect();
        let args = ListArgs {
            quiet: false,
            no_trunc: false,
            format: Format::Table,
        };
        let expected = "\
ID             NAME      NETWORKS   ADDRESSES           PATH
abababababab   bare      bridge     10.89.0.2,fd00::2   /proc/7/fd/9
";
        assert_eq!(COLUMNS.text(&rows, &args).unwrap(), expected);
    }
}
