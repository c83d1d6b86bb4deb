//! The words of `network`, and what they ask of the daemon.

use super::args::ListArgs;
use super::attach;
use super::graph::GraphFormat;
use super::host_loopback::HostLoopbackArgs;
use super::listing::{self, Format};
use super::names;
use super::network_filter::{NetworkFilter, PruneFilter};
use super::run_network::{RateArgs, UplinkWord};
use super::value;
use crate::api::network_types::{ConnectOptions, Link, NetworkConnect, NetworkCreate};
use clap::{Args, Subcommand};
use ipnet::IpNet;
use mossnet_helper::{IfName, MacAddr};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `network`.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Make a network.
    ///
    /// A private bridge, which sandboxes join by 'run --network NAME' or 'network connect'. They
    /// find one another by name there. Prints its id.
    Create(Box<NetworkCreateArgs>),
    /// List networks.
    ///
    /// --format json prints one JSON object for each network, on a line of its own.
    #[command(alias = "list")]
    Ls(NetworkLsArgs),
    /// Show all there is to know about networks, as a JSON array.
    Inspect(NetworkInspectArgs),
    /// Join a sandbox to a further network, running or not.
    Connect(NetworkConnectArgs),
    /// Take a sandbox off a network.
    Disconnect(NetworkDisconnectArgs),
    /// Remove networks that nobody is on.
    #[command(alias = "remove")]
    Rm(NetworkRmArgs),
    /// Remove every network that nobody is on, but bridge, host and none.
    Prune(NetworkPruneArgs),
    /// Exit with 0 if a network exists, with 1 if not; prints nothing.
    Exists {
        /// Name, id, or unambiguous beginning of an id (4 digits at least).
        #[arg(value_name = "NETWORK", value_parser = value::given, add = names::networks())]
        name: String,
    },
    /// Show networks, sandboxes and addresses in one picture.
    #[command(after_long_help = "Examples:\n  \
        mossnet network graph\n  \
        mossnet network graph --format svg > networks.svg\n  \
        mossnet network graph --format dot | dot -Tpng > networks.png")]
    Graph {
        /// How to draw it.
        #[arg(short, long, value_enum, default_value_t = GraphFormat::Text)]
        format: GraphFormat,
    },
}

/// `network create`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
        mossnet network create mynet\n  \
        mossnet network create --subnet 192.168.0.0/16 --gateway 192.168.0.1 mynet\n  \
        mossnet network create --subnet 10.5.0.0/24 --subnet fd00:5::/64 --internal backend\n  \
        mossnet network create --ipv6 --label env=lab -o mtu=1400 lab")]
pub struct NetworkCreateArgs {
    /// What kind: bridge is the only one.
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    pub driver: String,
    /// Prefix of the network; once for each address family; the next free one when absent.
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', value_parser = attach::prefix)]
    pub subnet: Vec<IpNet>,
    /// The router's address in a subnet; its first one when absent.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub gateway: Vec<IpAddr>,
    /// Give sandboxes addresses out of this part of a subnet only.
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', value_parser = attach::prefix)]
    pub ip_range: Vec<IpNet>,
    /// An address that no sandbox gets; may be repeated.
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = attach::aux_address)]
    pub aux_address: Vec<(String, IpAddr)>,
    /// With an IPv6 subnet.
    #[arg(long)]
    pub ipv6: bool,
    /// Without a way out.
    #[arg(long)]
    pub internal: bool,
    /// The host's loopback.
    #[command(flatten)]
    pub host: HostLoopbackArgs,
    /// Set a label; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = attach::key_value)]
    pub label: Vec<(String, String)>,
    /// Set an option: mtu, isolate, icc, mode, vlan, host_loopback, host_ports, or Docker's or podman's
    /// name for it; may be repeated.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = attach::key_value)]
    pub opt: Vec<(String, String)>,
    /// Ask this name server instead of the host's; may be repeated.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub dns: Vec<IpAddr>,
    /// Without a name service: sandboxes do not find one another by name.
    #[arg(long)]
    pub disable_dns: bool,
    /// How traffic leaves: our own NAT, the kernel's (where an installed mossnet-helper grants it), an
    /// installed pasta or slirp4netns, or not at all.
    #[arg(long, value_enum)]
    pub uplink: Option<UplinkWord>,
    /// Its name.
    #[arg(value_name = "NAME", value_parser = value::name)]
    pub name: String,
}

impl NetworkCreateArgs {
    /// What to ask of the daemon. Of a label or option that is given twice, the last counts.
    pub fn request(self) -> NetworkCreate {
        let mut options = self.opt.into_iter().collect();
        self.host.add_to(&mut options);
        NetworkCreate {
            name: self.name,
            driver: Some(self.driver),
            subnets: self.subnet,
            gateways: self.gateway,
            ip_ranges: self.ip_range,
            aux_addresses: self.aux_address,
            ipv6: self.ipv6,
            internal: self.internal,
            labels: self.label.into_iter().collect(),
            options,
            dns: self.dns,
            disable_dns: self.disable_dns,
            uplink: self.uplink.map(Into::into),
        }
    }
}

/// `network ls`.
#[derive(Debug, Args)]
pub struct NetworkLsArgs {
    /// Only those that match: driver=, id=, name=, label=KEY[=VALUE], scope=, type=builtin|custom,
    /// dangling=true|false; may be repeated.
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<NetworkFilter>,
    /// How to print them.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `network inspect`.
#[derive(Debug, Args)]
pub struct NetworkInspectArgs {
    /// json, or a template such as '{{json .IPAM.Config}}'.
    #[arg(short, long, value_name = "FORMAT", value_parser = listing::inspect_format)]
    pub format: Option<Format>,
    /// As in Docker; there is nothing more to show.
    #[arg(short, long)]
    pub verbose: bool,
    /// The networks.
    #[command(flatten)]
    pub names: NetworkNames,
}

/// Networks to work on.
#[derive(Debug, Args)]
pub struct NetworkNames {
    /// Names, ids, or unambiguous beginnings of ids (4 digits at least).
    #[arg(value_name = "NETWORK", required = true, value_parser = value::given, add = names::networks())]
    pub names: Vec<String>,
}

/// `network connect`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
        mossnet network connect mynet web\n  \
        mossnet network connect --ip 192.168.0.9 --alias db mynet web")]
pub struct NetworkConnectArgs {
    /// Fixed IPv4 address.
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<Ipv4Addr>,
    /// Fixed IPv6 address.
    #[arg(long, value_name = "ADDRESS")]
    pub ip6: Option<Ipv6Addr>,
    /// A further name on this network; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = attach::alias)]
    pub alias: Vec<String>,
    /// Know another sandbox by its name, and ALIAS, in /etc/hosts; may be repeated.
    #[arg(long, value_name = "NAME[:ALIAS]", value_parser = attach::link, add = names::running())]
    pub link: Vec<Link>,
    /// Fixed MAC address.
    #[arg(long, value_name = "MAC")]
    pub mac_address: Option<MacAddr>,
    /// The default route goes through the network with the highest.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    pub gw_priority: i32,
    /// Name of the interface in the sandbox; the first free ethN when absent.
    #[arg(long, value_name = "NAME")]
    pub interface_name: Option<IfName>,
    /// The rates.
    #[command(flatten)]
    pub rates: RateArgs,
    /// The network.
    #[arg(value_name = "NETWORK", value_parser = value::given, add = names::networks())]
    pub network: String,
    /// The sandbox.
    #[arg(value_name = "NAME", value_parser = value::given, add = names::sandboxes())]
    pub sandbox: String,
}

impl NetworkConnectArgs {
    /// What to ask of the daemon.
    pub fn request(&self) -> NetworkConnect {
        NetworkConnect {
            sandbox: self.sandbox.clone(),
            attach: ConnectOptions {
                ip: self.ip,
                ip6: self.ip6,
                mac_address: self.mac_address,
                aliases: self.alias.clone(),
                links: self.link.clone(),
                interface_name: self.interface_name.as_ref().map(ToString::to_string),
                gw_priority: self.gw_priority,
                bandwidth: self.rates.bandwidth(),
            },
        }
    }
}

/// `network disconnect`.
#[derive(Debug, Args)]
pub struct NetworkDisconnectArgs {
    /// Also where its side of the endpoint cannot be taken down in order.
    #[arg(short, long)]
    pub force: bool,
    /// The network.
    #[arg(value_name = "NETWORK", value_parser = value::given, add = names::networks())]
    pub network: String,
    /// The sandbox.
    #[arg(value_name = "NAME", value_parser = value::given, add = names::sandboxes())]
    pub sandbox: String,
}

/// `network rm`.
#[derive(Debug, Args)]
pub struct NetworkRmArgs {
    /// Also remove the sandboxes that are on it; a network that does not exist is passed over.
    #[arg(short, long)]
    pub force: bool,
    /// The networks.
    #[command(flatten)]
    pub names: NetworkNames,
}

/// `network prune`.
#[derive(Debug, Args)]
pub struct NetworkPruneArgs {
    /// Do not ask.
    #[arg(short, long)]
    pub force: bool,
    /// Only those that match: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub filter: Vec<PruneFilter>,
}
