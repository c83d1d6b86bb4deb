//! The flags of `run` that say how a sandbox is joined to networks.

use super::attach::{self, DEFAULT, NetworkWord};
use super::host_loopback::HostLoopbackArgs;
use super::names;
use super::value;
use crate::api::network_types::{Link, NetworkAttach};
use crate::api::types::{HostTarget, NetworkMode, Uplink};
use clap::{Args, ValueEnum};
use mossnet_helper::MacAddr;
use mossnet_helper::bandwidth::{Bandwidth, Limit, Rate};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why networks do not go together, or not with another flag.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkFlagError {
    /// A fixed address needs an endpoint of one's own.
    #[error("{flag} cannot be used with --network {network}")]
    NoEndpoint {
        /// The flag.
        flag: &'static str,
        /// The network mode.
        network: &'static str,
    },
    /// One namespace cannot be two.
    #[error("--network {0} cannot be combined with other networks")]
    Mixed(&'static str),
    /// The same network twice.
    #[error("--network {0} is given twice")]
    Twice(String),
    /// Of which network?
    #[error("{0} can only be used with a single network")]
    Several(&'static str),
    /// The same thing in two places.
    #[error("{flag} and '{option}' of --network {network} both say what it is")]
    Both {
        /// The flag.
        flag: &'static str,
        /// The option of the network.
        option: &'static str,
        /// The network.
        network: String,
    },
}

impl NetworkFlagError {
    /// What to do next.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoEndpoint { .. } => Some("leave it out, or choose a network with addresses"),
            Self::Mixed(_) => Some("give that one alone, or only networks by name"),
            Self::Twice(_) => Some("name each network once"),
            Self::Several(_) => Some("give each network its own: --network NAME:ip=…,ip6=…,mac=…"),
            Self::Both { .. } => Some("leave one of them out"),
        }
    }
}

/// Addresses and names of a sandbox.
#[derive(Debug, Default, Args)]
pub struct NetworkArgs {
    /// Join a network; may be repeated.
    ///
    /// NAME, or NAME:OPTION=VALUE,… with the options ip, ip6, mac, alias (may be repeated),
    /// interface_name, gw_priority, rate_in and rate_out; or name=NAME,OPTION=VALUE,…; or none
    /// (loopback only), host, or container:NAME (that of another sandbox). The default is 'bridge'. The default route goes
    /// through the network with the highest gw_priority, among equals through the first.
    #[arg(long, alias = "net", value_name = "NETWORK", value_parser = attach::network, add = names::run_networks())]
    pub network: Vec<NetworkWord>,
    /// Fixed IPv4 address.
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<Ipv4Addr>,
    /// Fixed IPv6 address.
    #[arg(long, value_name = "ADDRESS")]
    pub ip6: Option<Ipv6Addr>,
    /// Fixed MAC address.
    #[arg(long, value_name = "MAC")]
    pub mac_address: Option<MacAddr>,
    /// The rates.
    #[command(flatten)]
    pub rates: RateArgs,
    /// A further name on the (first) network; may be repeated.
    #[arg(long, alias = "net-alias", value_name = "NAME", value_parser = attach::alias)]
    pub network_alias: Vec<String>,
    /// Know another sandbox by its name, and ALIAS, in /etc/hosts; may be repeated.
    #[arg(long, value_name = "NAME[:ALIAS]", value_parser = attach::link, add = names::running())]
    pub link: Vec<Link>,
    /// Name server instead of the network's own; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<IpAddr>,
    /// Search domain instead of the host's; may be repeated; '.' for none.
    #[arg(long, value_name = "DOMAIN", value_parser = value::search_domain)]
    pub dns_search: Vec<String>,
    /// A line for /etc/hosts; may be repeated; host-gateway for the host, as --host-loopback opens it.
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = value::host_line)]
    pub add_host: Vec<(String, HostTarget)>,
    /// The host's loopback.
    #[command(flatten)]
    pub host: HostLoopbackArgs,
    /// How traffic leaves: our own NAT, the kernel's (where an installed mossnet-helper grants it), an
    /// installed pasta or slirp4netns, or not at all.
    #[arg(long, value_enum)]
    pub uplink: Option<UplinkWord>,
}

/// How fast a sandbox may be on a network.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct RateArgs {
    /// Let the sandbox receive at most as much, bits per second: 500kbit, 10mbit, 1gbit.
    #[arg(long, value_name = "RATE")]
    pub rate_in: Option<Rate>,
    /// Let the sandbox send at most as much.
    #[arg(long, value_name = "RATE")]
    pub rate_out: Option<Rate>,
}

impl RateArgs {
    /// What to ask of the daemon.
    pub fn bandwidth(self) -> Bandwidth {
        Bandwidth {
            inward: self.rate_in.map(Limit::from),
            outward: self.rate_out.map(Limit::from),
        }
    }
}

/// `--uplink`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UplinkWord {
    /// mossnet's own NAT.
    Relay,
    /// An installed pasta.
    Pasta,
    /// An installed slirp4netns.
    Slirp,
    /// The host's kernel, by way of an installed mossnet-helper that grants it.
    Kernel,
    /// No way out.
    None,
}

impl From<UplinkWord> for Uplink {
    fn from(word: UplinkWord) -> Self {
        match word {
            UplinkWord::Relay => Self::Relay,
            UplinkWord::Pasta => Self::Pasta,
            UplinkWord::Slirp => Self::Slirp,
            UplinkWord::Kernel => Self::Kernel,
            UplinkWord::None => Self::None,
        }
    }
}

impl NetworkArgs {
    /// What to ask of the daemon; `None`: nothing but its default.
    pub fn mode(&self) -> Result<Option<NetworkMode>, NetworkFlagError> {
        match self.network.as_slice() {
            [] => self.default_network(),
            [NetworkWord::None] => self.without_endpoint("none", NetworkMode::None),
            [NetworkWord::Host] => self.without_endpoint("host", NetworkMode::Host),
            [NetworkWord::Container(name)] => {
                self.without_endpoint("container:NAME", NetworkMode::Container(name.clone()))
            }
            words => self.joined(joins(words)?).map(Some),
        }
    }

    fn default_network(&self) -> Result<Option<NetworkMode>, NetworkFlagError> {
        let alone = self.ip.is_none()
            && self.ip6.is_none()
            && self.mac_address.is_none()
            && self.rates.bandwidth().is_unlimited()
            && self.network_alias.is_empty();
        if alone {
            return Ok(None);
        }
        let bridge = NetworkAttach {
            network: DEFAULT.to_owned(),
            ..NetworkAttach::default()
        };
        self.joined(vec![bridge]).map(Some)
    }

    fn without_endpoint(
        &self,
        network: &'static str,
        mode: NetworkMode,
    ) -> Result<Option<NetworkMode>, NetworkFlagError> {
        let given = [
            ("--ip", self.ip.is_some()),
            ("--ip6", self.ip6.is_some()),
            ("--mac-address", self.mac_address.is_some()),
            ("--rate-in", self.rates.rate_in.is_some()),
            ("--rate-out", self.rates.rate_out.is_some()),
            ("--network-alias", !self.network_alias.is_empty()),
            ("--link", !self.link.is_empty()),
            ("--uplink", self.uplink.is_some()),
            ("--host-loopback", self.host.host_loopback),
            ("--host-ports", !self.host.host_ports.is_empty()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(NetworkFlagError::NoEndpoint { flag, network }),
            None => Ok(Some(mode)),
        }
    }

    /// Gives the flags that mean an endpoint to the first of them.
    fn joined(&self, mut joins: Vec<NetworkAttach>) -> Result<NetworkMode, NetworkFlagError> {
        let several = joins.len() > 1;
        let Some(first) = joins.first_mut() else {
            return Ok(NetworkMode::Networks(joins));
        };
        let network = first.network.clone();
        let once = |flag, given: bool, option, there: bool| {
            if given && several {
                return Err(NetworkFlagError::Several(flag));
            }
            if given && there {
                let network = network.clone();
                return Err(NetworkFlagError::Both {
                    flag,
                    option,
                    network,
                });
            }
            Ok(())
        };
        once("--ip", self.ip.is_some(), "ip", first.ip.is_some())?;
        once("--ip6", self.ip6.is_some(), "ip6", first.ip6.is_some())?;
        let mac = self.mac_address.is_some();
        once("--mac-address", mac, "mac", first.mac_address.is_some())?;
        let (asked, there) = (self.rates.bandwidth(), first.bandwidth);
        let (inward, outward) = (asked.inward, asked.outward);
        once(
            "--rate-in",
            inward.is_some(),
            "rate_in",
            there.inward.is_some(),
        )?;
        once(
            "--rate-out",
            outward.is_some(),
            "rate_out",
            there.outward.is_some(),
        )?;
        first.bandwidth.inward = there.inward.or(inward);
        first.bandwidth.outward = there.outward.or(outward);
        first.ip = first.ip.or(self.ip);
        first.ip6 = first.ip6.or(self.ip6);
        first.mac_address = first.mac_address.or(self.mac_address);
        first.aliases.extend(self.network_alias.iter().cloned());
        Ok(NetworkMode::Networks(joins))
    }
}

/// All that is named; each once, and nothing that is no network.
pub(super) fn joins(words: &[NetworkWord]) -> Result<Vec<NetworkAttach>, NetworkFlagError> {
    let mut joins: Vec<NetworkAttach> = Vec::new();
    for word in words {
        let more = match word {
            NetworkWord::Join(more) => more,
            NetworkWord::None => return Err(NetworkFlagError::Mixed("none")),
            NetworkWord::Host => return Err(NetworkFlagError::Mixed("host")),
            NetworkWord::Container(_) => return Err(NetworkFlagError::Mixed("container:NAME")),
        };
        for attach in more {
            if joins.iter().any(|known| known.network == attach.network) {
                return Err(NetworkFlagError::Twice(attach.network.clone()));
            }
            joins.push(attach.clone());
        }
    }
    Ok(joins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn mode(line: &str) -> Result<Option<NetworkMode>, NetworkFlagError> {
        let words = format!("mossnet run {line} -- true");
        match Cli::try_parse_from(words.split_whitespace())
            .unwrap()
            .command
        {
            Command::Run(args) => args.network.mode(),
            other => panic!("not run: {other:?}"),
        }
    }

    fn networks(line: &str) -> Vec<NetworkAttach> {
        match mode(line).unwrap() {
            Some(NetworkMode::Networks(joins)) => joins,
            other => panic!("no networks: {other:?}"),
        }
    }

    #[test]
    fn flags_are_the_first_networks() {
        assert_eq!(mode(""), Ok(None));
        let [only] = &networks("--ip 10.0.0.5")[..] else {
            panic!("not one");
        };
        assert_eq!(only.network, "bridge");
        assert_eq!(only.ip, Some([10, 0, 0, 5].into()));
        let [first, second] =
            &networks("--net a:alias=x --network-alias y --net b --net-alias z")[..]
        else {
            panic!("not two");
        };
        assert_eq!(first.aliases, ["x", "y", "z"]);
        assert_eq!((second.network.as_str(), second.aliases.len()), ("b", 0));
        let named = |line: &str| -> Vec<String> {
            networks(line)
                .into_iter()
                .map(|attach| attach.network)
                .collect()
        };
        assert_eq!(named("--net a,b --net default"), ["a", "b", "bridge"]);
        assert_eq!(mode("--network host"), Ok(Some(NetworkMode::Host)));
    }

    #[test]
    fn rates_are_of_one_network() {
        let [limited] = &networks("--rate-in 1mbit --net a:rate_out=500k")[..] else {
            panic!("not one");
        };
        let bits = |limit: Option<Limit>| limit.unwrap().rate.bits();
        let Bandwidth { inward, outward } = limited.bandwidth;
        assert_eq!((bits(inward), bits(outward)), (1_000_000, 500_000));
        assert_eq!(networks("--rate-out 1mbit")[0].network, "bridge");
        for (line, message) in [
            (
                "--net none --rate-out 1mbit",
                "--rate-out cannot be used with --network none",
            ),
            (
                "--net a:rate_in=1mbit --rate-in 2mbit",
                "--rate-in and 'rate_in' of --network a both say",
            ),
            (
                "--net a,b --rate-in 2mbit",
                "--rate-in can only be used with a single network",
            ),
        ] {
            let error = mode(line).unwrap_err().to_string();
            assert!(error.starts_with(message), "{line}: {error}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (line, message) in [
            (
                "--net host --mac-address 02:42:0a:59:00:02",
                "--mac-address cannot be used with --network host",
            ),
            (
                "--net container:a --ip6 fd00::1",
                "--ip6 cannot be used with --network container:NAME",
            ),
            (
                "--net none --link web",
                "--link cannot be used with --network none",
            ),
            (
                "--net host --host-loopback",
                "--host-loopback cannot be used with --network host",
            ),
            (
                "--net none --host-ports 80",
                "--host-ports cannot be used with --network none",
            ),
            (
                "--net none --network-alias web",
                "--network-alias cannot be used",
            ),
            (
                "--net none --net a",
                "--network none cannot be combined with other networks",
            ),
            ("--net a --net host", "--network host cannot be combined"),
            (
                "--net container:x --net container:x",
                "--network container:NAME cannot be combined",
            ),
            (
                "--net a --net b --ip 10.0.0.1",
                "--ip can only be used with a single network",
            ),
            (
                "--net a,b --mac-address 02:42:0a:59:00:02",
                "--mac-address can only be used with a single",
            ),
            (
                "--net a --net b --net a:alias=x",
                "--network a is given twice",
            ),
            (
                "--net bridge --net default",
                "--network bridge is given twice",
            ),
            (
                "--net a:ip=10.0.0.1 --ip 10.0.0.2",
                "--ip and 'ip' of --network a both say",
            ),
        ] {
            let error = mode(line).unwrap_err().to_string();
            assert!(error.starts_with(message), "{line}: {error}");
        }
    }
}
