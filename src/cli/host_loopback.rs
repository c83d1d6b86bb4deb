//! `--host-loopback` and `--host-ports`, wherever a sandbox or a network is made.

use crate::api::port_types::{HostLoopback, PortError, PortSet};
use clap::Args;
use std::collections::BTreeMap;

/// The flags.
#[derive(Debug, Default, Args)]
pub struct HostLoopbackArgs {
    /// Let it reach the host's loopback, as host.mossnet.internal; not with internal networks.
    #[arg(long)]
    pub host_loopback: bool,
    /// The same for these ports only: 5432,8000-8010,53/udp; may be repeated.
    #[arg(long, value_name = "PORTS", value_parser = ports)]
    pub host_ports: Vec<PortSet>,
}

impl HostLoopbackArgs {
    /// What they say together.
    pub fn wish(&self) -> Option<HostLoopback> {
        HostLoopback::wish(self.host_loopback, self.host_ports.iter().cloned())
    }

    /// The same as options of a network.
    pub fn add_to(&self, options: &mut BTreeMap<String, String>) {
        let mut add = |name: &str, value: String| drop(options.insert(name.to_owned(), value));
        if self.host_loopback {
            add("host_loopback", true.to_string());
        }
        if let Some(HostLoopback::Ports(ports)) = self.wish() {
            add("host_ports", ports.to_string());
        }
    }
}

fn ports(text: &str) -> Result<PortSet, String> {
    text.parse()
        .map_err(|error: PortError| format!("{error}: {}", error.hint()))
}

#[cfg(test)]
mod tests {
    use crate::cli::network_args::NetworkCommand;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn options(line: &str) -> Vec<(String, String)> {
        let words = format!("mossnet network create {line} mynet");
        match Cli::try_parse_from(words.split_whitespace())
            .unwrap()
            .command
        {
            Command::Network {
                command: NetworkCommand::Create(args),
            } => args.request().options.into_iter().collect(),
            other => panic!("not network create: {other:?}"),
        }
    }

    #[test]
    fn networks_are_told_by_options() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(options(""), []);
        let open = pair("host_loopback", "true");
        assert_eq!(options("--host-loopback"), std::slice::from_ref(&open));
        let ports = pair("host_ports", "80,443,53/udp");
        let flags = "--host-ports 443,53/udp --host-ports 80";
        assert_eq!(options(flags), std::slice::from_ref(&ports));
        let both = format!("--host-loopback {flags}");
        assert_eq!(options(&both), [open, ports]);
    }

    #[test]
    fn wrong_ports_are_refused_with_what_would_be_right() {
        for (ports, part) in [("0", "1 to 65535"), ("9-7", "smaller"), ("7/x", "53/udp")] {
            let words = ["mossnet", "run", "--host-ports", ports, "--", "true"];
            let error = Cli::try_parse_from(words).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
