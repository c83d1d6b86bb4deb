//! What pasta is asked for, from the options that there are (`known`).
//!
//! Invariant: nothing that was asked for is silently left out.
//!
//! Sources: pasta(1) of 2023 to 2025.

use super::getopt::{self, Given, Misuse};
use super::known::{ALL, REFUSED};
use super::spec::{Ports, SpecError};
use crate::network::snapshot::Withheld;
use mossnet_helper::{IfName, MacAddr};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Why it cannot be done as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Not one of its options.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// Ports.
    #[error("--{option}: {source}")]
    Spec {
        /// Which option.
        option: &'static str,
        /// Why.
        source: SpecError,
    },
    /// A value that means nothing.
    #[error("--{option}: '{value}' is not {what}")]
    Value {
        /// Which option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What was expected.
        what: &'static str,
    },
    /// Known, and not done here.
    #[error("--{option} is not supported: {why}")]
    Refused {
        /// Which.
        option: &'static str,
        /// Why.
        why: &'static str,
    },
    /// Two that exclude each other.
    #[error("{0} and {1} exclude each other")]
    Both(&'static str, &'static str),
    /// It asks for no network configuration.
    #[error(
        "give --config-net: addresses and routes are set at once, there is no DHCP server to ask for them"
    )]
    NoConfigNet,
}

/// Whose network namespace it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// This command's, to be started; the user's shell where it is empty.
    Command(Vec<OsString>),
    /// That of a process.
    Process(i32),
    /// One that is bound to a file.
    Path(PathBuf),
}

/// An option that names an address of each family, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stand {
    /// Not given.
    #[default]
    Unsaid,
    /// `none`.
    None,
    /// The last one given.
    At(IpAddr),
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whom to serve.
    pub target: Target,
    /// The user namespace to join.
    pub userns: Option<PathBuf>,
    /// Join none.
    pub netns_only: bool,
    /// End when the file of the namespace goes.
    pub quit_with_netns: bool,
    /// Stay where we are.
    pub foreground: bool,
    /// Leave stderr open for logs.
    pub debug: bool,
    /// Where logs go.
    pub log_file: Option<PathBuf>,
    /// Where our process id goes.
    pub pid_file: Option<PathBuf>,
    /// Of the interface, bytes; 0: the usual one of Ethernet.
    pub mtu: Option<u32>,
    /// Name of the interface.
    pub ifname: Option<IfName>,
    /// Its MAC address.
    pub mac: Option<MacAddr>,
    /// Addresses instead of the host's, with a prefix where one is given.
    pub addresses: Vec<(IpAddr, Option<u8>)>,
    /// Of the IPv4 address.
    pub netmask: Option<u8>,
    /// Gateways instead of the host's.
    pub gateways: Vec<IpAddr>,
    /// The host's interface to take after.
    pub interface: Option<String>,
    /// IPv4 and IPv6: wanted.
    pub families: [bool; 2],
    /// The host's addresses to leave from.
    pub outbound: Vec<IpAddr>,
    /// Its interfaces to leave by: IPv4, IPv6.
    pub outbound_interface: [Option<String>; 2],
    /// Where packets of the namespace are written.
    pub capture_file: Option<PathBuf>,
    /// Where names are answered.
    pub dns_forward: Vec<IpAddr>,
    /// Whom to ask for them instead of the host's resolvers.
    pub dns_host: Vec<IpAddr>,
    /// The gateway stands for the host's loopback.
    pub map_gw: bool,
    /// What stands for the host's loopback instead: IPv4, IPv6.
    pub host_loopback: [Stand; 2],
    /// What stands for the host by its own address: IPv4, IPv6.
    pub host_address: [Stand; 2],
    /// What is not carried.
    pub withheld: Withheld,
    /// From the host into the namespace: TCP, UDP.
    pub inward: [Ports; 2],
    /// From the namespace to the host: TCP, UDP.
    pub outward: [Ports; 2],
}

/// What the words ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// Serve.
    Run(Box<Options>),
}

/// Reads the words after the program's name.
pub fn read(words: Vec<OsString>) -> Result<Wanted, OptionError> {
    let (given, left) = getopt::parse(words, &ALL)?;
    let has = |name: &str| given.iter().any(|given| given.name == name);
    if has("help") {
        return Ok(Wanted::Help);
    }
    if has("version") {
        return Ok(Wanted::Version);
    }
    let mut options = Options::blank();
    let mut netns = None;
    for each in &given {
        match each.name {
            "netns" => netns = Some(netns_path(Path::new(&each.value))),
            _ => options.take(each)?,
        }
    }
    options.target = target(netns, left)?;
    options.check(has("config-net"), has("map-gw") && has("no-map-gw"))?;
    Ok(Wanted::Run(Box::new(options)))
}

/// A name is one of ip-netns(8).
fn netns_path(value: &Path) -> PathBuf {
    match value.to_string_lossy().contains('/') {
        true => value.to_owned(),
        false => Path::new("/run/netns").join(value),
    }
}

fn target(netns: Option<PathBuf>, left: Vec<OsString>) -> Result<Target, OptionError> {
    match (netns, left.as_slice()) {
        (Some(path), []) => Ok(Target::Path(path)),
        (Some(_), [..]) => Err(OptionError::Both("--netns", "a process or command")),
        (None, [only]) => match only.to_str().and_then(|text| text.parse::<i32>().ok()) {
            Some(pid) if pid > 0 => Ok(Target::Process(pid)),
            _ => Ok(Target::Command(left)),
        },
        (None, _) => Ok(Target::Command(left)),
    }
}

fn text(given: &Given) -> String {
    given.value.to_string_lossy().into_owned()
}

fn value<T: FromStr>(given: &Given, what: &'static str) -> Result<T, OptionError> {
    text(given).parse().map_err(|_| invalid(given, what))
}

fn invalid(given: &Given, what: &'static str) -> OptionError {
    OptionError::Value {
        option: given.name,
        value: text(given),
        what,
    }
}

const AN_ADDRESS: &str = "an IP address";

impl Options {
    fn blank() -> Self {
        Self {
            target: Target::Command(Vec::new()),
            userns: None,
            netns_only: false,
            quit_with_netns: true,
            foreground: false,
            debug: false,
            log_file: None,
            pid_file: None,
            mtu: None,
            ifname: None,
            mac: None,
            addresses: Vec::new(),
            netmask: None,
            gateways: Vec::new(),
            interface: None,
            families: [true, true],
            outbound: Vec::new(),
            outbound_interface: Default::default(),
            capture_file: None,
            dns_forward: Vec::new(),
            dns_host: Vec::new(),
            map_gw: true,
            host_loopback: Default::default(),
            host_address: Default::default(),
            withheld: Withheld::default(),
            inward: Default::default(),
            outward: Default::default(),
        }
    }

    fn take(&mut self, given: &Given) -> Result<(), OptionError> {
        let path = || Some(PathBuf::from(&given.value));
        match given.name {
            "debug" | "trace" => self.debug = true,
            "foreground" => self.foreground = true,
            "log-file" => self.log_file = path(),
            "pid" => self.pid_file = path(),
            "pcap" => self.capture_file = path(),
            "userns" => self.userns = path(),
            "netns-only" => self.netns_only = true,
            "no-netns-quit" => self.quit_with_netns = false,
            "map-gw" => self.map_gw = true,
            "no-map-gw" => self.map_gw = false,
            "no-tcp" => self.withheld.tcp = true,
            "no-udp" => self.withheld.udp = true,
            "no-icmp" => self.withheld.icmp = true,
            "ipv4-only" => self.families[1] = false,
            "ipv6-only" => self.families[0] = false,
            "tcp-ports" => add(&mut self.inward[0], given)?,
            "udp-ports" => add(&mut self.inward[1], given)?,
            "tcp-ns" => add_outward(&mut self.outward[0], given)?,
            "udp-ns" => add_outward(&mut self.outward[1], given)?,
            _ => return self.take_address(given),
        }
        Ok(())
    }

    fn take_address(&mut self, given: &Given) -> Result<(), OptionError> {
        let address = || value::<IpAddr>(given, AN_ADDRESS);
        match given.name {
            "mtu" => self.mtu = Some(mtu(given)?),
            "ns-ifname" => self.ifname = Some(value(given, "a name for an interface")?),
            "ns-mac-addr" => self.mac = Some(value(given, "a MAC address")?),
            "interface" => self.interface = Some(text(given)),
            "address" => self.addresses.push(address_with_prefix(given)?),
            "netmask" => self.netmask = Some(netmask(given)?),
            "gateway" => self.gateways.push(address()?),
            "outbound" => self.outbound.push(address()?),
            "outbound-if4" => self.outbound_interface[0] = Some(text(given)),
            "outbound-if6" => self.outbound_interface[1] = Some(text(given)),
            "dns-forward" => self.dns_forward.push(address()?),
            "dns-host" => self.dns_host.insert(0, address()?),
            "dns" if given.value.is_empty() || given.value == "none" => {}
            "dns" => self.dns_host.push(address()?),
            "map-host-loopback" => stand(&mut self.host_loopback, given)?,
            "map-guest-addr" => stand(&mut self.host_address, given)?,
            _ => return refused(given.name),
        }
        Ok(())
    }

    fn check(&self, config_net: bool, both_maps: bool) -> Result<(), OptionError> {
        let [v4, v6] = self.families;
        if !v4 && !v6 {
            return Err(OptionError::Both("--ipv4-only", "--ipv6-only"));
        }
        if both_maps {
            return Err(OptionError::Both("--map-gw", "--no-map-gw"));
        }
        if self.netns_only && self.userns.is_some() {
            return Err(OptionError::Both("--netns-only", "--userns"));
        }
        if matches!(self.target, Target::Command(_)) && self.userns.is_some() {
            return Err(OptionError::Both("--userns", "a command"));
        }
        match config_net {
            true => Ok(()),
            false => Err(OptionError::NoConfigNet),
        }
    }
}

/// Of what is left, some has no effect, some cannot be had.
fn refused(option: &'static str) -> Result<(), OptionError> {
    let found = REFUSED.iter().find(|(known, _)| known.1 == option);
    match found {
        Some((_, why)) => Err(OptionError::Refused { option, why }),
        None => Ok(()),
    }
}

fn add(ports: &mut Ports, given: &Given) -> Result<(), OptionError> {
    let option = given.name;
    let added = ports.add(&text(given));
    added.map_err(|source| OptionError::Spec { option, source })
}

/// They are listened for at the namespace's loopback, wherever else one might wish.
fn add_outward(ports: &mut Ports, given: &Given) -> Result<(), OptionError> {
    if text(given).contains('/') {
        return Err(invalid(
            given,
            "a list of ports: the namespace's loopback is where they are",
        ));
    }
    add(ports, given)
}

fn stand(of_families: &mut [Stand; 2], given: &Given) -> Result<(), OptionError> {
    if given.value == "none" {
        *of_families = [Stand::None; 2];
        return Ok(());
    }
    let address: IpAddr = value(given, "an IP address or 'none'")?;
    of_families[usize::from(address.is_ipv6())] = Stand::At(address);
    Ok(())
}

fn mtu(given: &Given) -> Result<u32, OptionError> {
    let mtu: u32 = value(given, "an MTU, 68 to 65520, or 0")?;
    match mtu {
        0 | 68..=65_520 => Ok(mtu),
        _ => Err(invalid(given, "an MTU, 68 to 65520, or 0")),
    }
}

fn address_with_prefix(given: &Given) -> Result<(IpAddr, Option<u8>), OptionError> {
    let text = text(given);
    if text.contains('/') {
        let net: ipnet::IpNet = value(given, "an address with its prefix")?;
        return Ok((net.addr(), Some(net.prefix_len())));
    }
    let address: IpAddr = value(given, AN_ADDRESS)?;
    let useless = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    match useless {
        true => Err(invalid(given, "an address that one host can have")),
        false => Ok((address, None)),
    }
}

/// Dotted, or a number of bits.
fn netmask(given: &Given) -> Result<u8, OptionError> {
    let what = "a netmask, 255.255.255.0 or 24";
    let text = text(given);
    let bits = match text.parse::<Ipv4Addr>() {
        Ok(mask) => ipnet::ipv4_mask_to_prefix(mask).ok(),
        Err(_) => text.parse().ok(),
    };
    bits.filter(|bits| (1..=32).contains(bits))
        .ok_or_else(|| invalid(given, what))
}

#[cfg(test)]
mod tests;
