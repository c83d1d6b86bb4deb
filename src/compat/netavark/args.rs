//! netavark's flags and environment.

use super::refusal::Refusal;
use super::session::{DNS_PORT, Settings};
use clap::{ArgAction, Parser, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;

/// Where podman keeps the record as root; without root it always says where.
const DIRECTORY: &str = "/run/containers/networks";

/// netavark's place in podman, taken by mossnet.
#[derive(Debug, Parser)]
#[command(name = "netavark", version = super::SPOKEN, max_term_width = 100)]
pub struct Args {
    /// Read the container's networks from FILE instead of standard input.
    #[arg(short, long, global = true, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Directory of the record of what is connected, on a tmpfs.
    #[arg(short, long, global = true, value_name = "DIR")]
    pub config: Option<PathBuf>,
    /// Whether podman runs without root: the network namespace is its own.
    #[arg(short, long, global = true, action = ArgAction::Set, value_name = "BOOL")]
    pub rootless: Option<bool>,
    /// The name server; mossnet itself where there is none.
    #[arg(short, long, global = true, value_name = "PROGRAM")]
    pub aardvark_binary: Option<PathBuf>,
    /// Who translates addresses: nftables or none. Other names that netavark knows mean nftables.
    #[arg(long, global = true, env = "NETAVARK_FW", value_name = "DRIVER")]
    pub firewall_driver: Option<String>,
    /// Where netavark has its plugins. mossnet starts none.
    #[arg(long, global = true, value_name = "DIR")]
    pub plugin_directory: Vec<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// netavark's commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Connect the container in a network namespace, as standard input says.
    Setup {
        /// The container's network namespace.
        #[arg(value_name = "NETNS")]
        netns: PathBuf,
    },
    /// Undo that.
    Teardown {
        /// The container's network namespace.
        #[arg(value_name = "NETNS")]
        netns: PathBuf,
    },
    /// Give a network with running containers other resolvers.
    Update {
        /// The network.
        #[arg(value_name = "NETWORK")]
        network: String,
        /// Resolvers; an empty word: those of the host.
        #[arg(long, required = true, num_args = 0.., value_name = "ADDRESS")]
        network_dns_servers: Vec<String>,
    },
    /// Make a network's configuration (podman 6).
    Create,
    /// Say what this is.
    Version,
    /// Make the rules again, after somebody flushed them.
    #[command(alias = "firewalld-reload", alias = "nftables-reload")]
    FirewallReload,
    /// Lease addresses by DHCP.
    DhcpProxy {
        /// Whatever it is called with.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        words: Vec<String>,
    },
}

impl Args {
    /// What the flags and the environment say.
    pub fn settings(&self) -> Result<Settings, Refusal> {
        let firewall = match self.firewall_driver.as_deref() {
            None | Some("" | "nftables" | "iptables" | "firewalld") => true,
            Some("none") => false,
            Some(other) => {
                return Err(Refusal::Usage(format!(
                    "unknown firewall driver '{other}': nftables, iptables, firewalld or none"
                )));
            }
        };
        let dns_port = match std::env::var("NETAVARK_DNS_PORT") {
            Ok(text) if !text.is_empty() => match text.parse() {
                Ok(port) if port > 0 => port,
                _ => {
                    return Err(Refusal::Usage(format!(
                        "NETAVARK_DNS_PORT: '{text}' is not a port"
                    )));
                }
            },
            _ => DNS_PORT,
        };
        Ok(Settings {
            directory: self.config.clone().unwrap_or_else(|| DIRECTORY.into()),
            aardvark: self.aardvark_binary.clone(),
            dns_port,
            rootless: self.rootless.unwrap_or(false),
            firewall,
        })
    }
}

/// Resolvers, each a word or several with commas between.
pub fn servers(words: &[String]) -> Result<Vec<IpAddr>, Refusal> {
    let words = words.iter().flat_map(|word| word.split(','));
    let words = words.filter(|word| !word.is_empty());
    let read = |word: &str| {
        word.parse()
            .map_err(|_| Refusal::Usage(format!("name server '{word}' is not an address")))
    };
    words.map(read).collect()
}

/// clap's message without its advice.
pub fn in_one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim);
    let lines: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}
