//! `capture`: what is asked for, to a job; before anything is touched.

use super::error::CliError;
use super::inspect::{Inspected, one};
use super::{block_on, connect, names, value};
use crate::api::capture::filter::{Filter, MOST_VALUES, Protocol};
use crate::api::capture::{self, Interface, Job, MOST_BYTES, PacketFile};
use crate::api::paths::Paths;
use crate::api::types::Info;
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use std::io::IsTerminal;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `capture`.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// Write packets to FILE, as pcapng, instead of a line for each; '-' is standard output.
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub write: Option<PathBuf>,
    /// End after N packets.
    #[arg(short, long, value_name = "N")]
    pub count: Option<NonZeroU64>,
    /// Keep the first BYTES of each packet.
    #[arg(short, long, value_name = "BYTES", default_value_t = MOST_BYTES, value_parser = RangedU64ValueParser::<u32>::new().range(1..=u64::from(MOST_BYTES)))]
    pub snaplen: u32,
    /// End after this time: 90, 90s, 5m, 1h, 500ms.
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub duration: Option<Duration>,
    /// Of a sandbox: only its endpoint on this network; may be repeated.
    #[arg(long, alias = "net", value_name = "NETWORK", value_parser = value::given, add = names::networks())]
    pub network: Vec<String>,
    /// Only packets of this protocol; may be repeated.
    #[arg(long, value_name = "PROTOCOL", value_enum)]
    pub proto: Vec<ProtocolWord>,
    /// Only packets from or to this TCP or UDP port; may be repeated.
    #[arg(long, value_name = "PORT")]
    pub port: Vec<NonZeroU16>,
    /// Only packets from or to this address; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub host: Vec<IpAddr>,
    /// A sandbox that runs, or a network.
    #[arg(value_name = "NAME|NETWORK", value_parser = value::given, add = names::anything_running())]
    pub name: String,
}

/// `--proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProtocolWord {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, and ICMPv6.
    Icmp,
}

/// Why flags of `capture` do not go together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureFlagError {
    /// ICMP has no ports.
    #[error("--port goes with TCP and UDP, not with --proto icmp alone")]
    PortOfIcmp,
    /// More than a filter holds.
    #[error("{flag} was given more than {MOST_VALUES} times")]
    TooMany {
        /// Which.
        flag: &'static str,
    },
    /// A file on a terminal.
    #[error("packets cannot be written to a terminal")]
    Terminal,
    /// `--network` of a network.
    #[error("--network names endpoints of a sandbox, and '{0}' is a network")]
    NetworkOfNetwork(String),
}

impl CaptureFlagError {
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Terminal => Some("without -w a line is printed for each"),
            Self::PortOfIcmp | Self::TooMany { .. } | Self::NetworkOfNetwork(_) => None,
        }
    }
}

impl CaptureArgs {
    fn filter(&self) -> Result<Filter, CaptureFlagError> {
        let icmp_only = |word: &ProtocolWord| *word == ProtocolWord::Icmp;
        let no_ports = !self.proto.is_empty() && self.proto.iter().all(icmp_only);
        if no_ports && !self.port.is_empty() {
            return Err(CaptureFlagError::PortOfIcmp);
        }
        for (flag, count) in [
            ("--proto", self.proto.len()),
            ("--port", self.port.len()),
            ("--host", self.host.len()),
        ] {
            if count > MOST_VALUES {
                return Err(CaptureFlagError::TooMany { flag });
            }
        }
        let protocols = self.proto.iter().map(|word| match word {
            ProtocolWord::Tcp => Protocol::Tcp,
            ProtocolWord::Udp => Protocol::Udp,
            ProtocolWord::Icmp => Protocol::Icmp,
        });
        Ok(Filter {
            protocols: protocols.collect(),
            ports: self.port.iter().map(|port| port.get()).collect(),
            hosts: self.host.clone(),
        })
    }

    fn target(&self) -> Result<Option<PacketFile>, CaptureFlagError> {
        match &self.write {
            Some(path) if path == Path::new("-") => {
                if std::io::stdout().is_terminal() {
                    return Err(CaptureFlagError::Terminal);
                }
                Ok(Some(PacketFile::Stdout))
            }
            Some(path) => Ok(Some(PacketFile::Path(path.clone()))),
            None => Ok(None),
        }
    }
}

/// Nothing else of ours runs any more when the packets come: this process enters the router's namespaces.
pub(super) fn capture(paths: Paths, args: &CaptureArgs) -> Result<u8, CliError> {
    let (filter, file) = (args.filter()?, args.target()?);
    let (interfaces, info) = block_on(find(paths.clone(), args))?;
    let job = Job {
        interfaces,
        filter,
        snaplen: args.snaplen,
        count: args.count.map(NonZeroU64::get),
        duration: args.duration,
        file,
    };
    let tally = capture::run(&paths, &info, &job, || {
        let all = job.interfaces.iter();
        let all: Vec<_> = all
            .map(|i| format!("{} ({})", i.shown, i.description))
            .collect();
        eprintln!("mossnet: capturing on {}", all.join(", "));
    })?;
    let packets = if tally.captured == 1 {
        "packet"
    } else {
        "packets"
    };
    eprintln!(
        "mossnet: {} {packets} captured, {} dropped by the kernel",
        tally.captured, tally.dropped
    );
    Ok(0)
}

async fn find(paths: Paths, args: &CaptureArgs) -> Result<(Vec<Interface>, Info), CliError> {
    let client = connect(paths).await?;
    let interfaces = match one(&client, &args.name).await? {
        Inspected::Sandbox(sandbox) => capture::of_sandbox(&sandbox, &args.network)?,
        Inspected::Network(network) if args.network.is_empty() => capture::of_network(&network)?,
        Inspected::Network(network) => {
            return Err(CaptureFlagError::NetworkOfNetwork(network.name).into());
        }
    };
    Ok((interfaces, client.router().await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn args(words: &str) -> Result<CaptureArgs, String> {
        let words = format!("mossnet capture {words}");
        match Cli::try_parse_from(words.split_whitespace()) {
            Ok(Cli {
                command: Command::Capture(args),
                ..
            }) => Ok(args),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn flags_become_a_filter() {
        let given = args("--proto tcp --proto icmp --port 80 --host fd00::1 --host 10.0.0.1 web");
        let filter = given.unwrap().filter();
        let expected = Filter {
            protocols: vec![Protocol::Tcp, Protocol::Icmp],
            ports: vec![80],
            hosts: vec!["fd00::1".parse().unwrap(), "10.0.0.1".parse().unwrap()],
        };
        assert_eq!(filter, Ok(expected));
        assert_eq!(args("web").unwrap().filter(), Ok(Filter::default()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = args("--proto icmp --port 80 web").unwrap().filter();
        assert_eq!(refused, Err(CaptureFlagError::PortOfIcmp));
        let many = "--port 1 ".repeat(MOST_VALUES + 1);
        let refused = args(&format!("{many} web")).unwrap().filter();
        assert_eq!(refused, Err(CaptureFlagError::TooMany { flag: "--port" }));
        for wrong in [
            "",
            "-c 0 web",
            "-s 0 web",
            "-s 131073 web",
            "--duration 0 web",
            "--duration 5x web",
            "--proto sctp web",
            "--port 0 web",
            "--port 65536 web",
            "--host example.org web",
            "--network web",
            "web other",
        ] {
            assert!(args(wrong).is_err(), "{wrong}");
        }
    }
}
