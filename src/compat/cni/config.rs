//! The network configuration that comes on standard input: what of it we heed, checked. Keys that are not
//! ours are other plugins', and are ignored.

use super::refusal::{Code, Refusal};
use super::result::Previous;
use super::version::Version;
use crate::api::port_types::PublishSpec;
use ipnet::IpNet;
use mossnet_helper::MacAddr;
use mossnet_helper::bandwidth::{Bandwidth, Limit, RateError};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

/// A configuration, as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Config {
    pub(super) cni_version: Option<String>,
    /// The mossnet network, made by the first `ADD`.
    pub(super) name: Option<String>,
    /// `--root` of the daemon.
    #[serde(default)]
    pub(super) root: Option<PathBuf>,
    /// Of a network that is to be made.
    #[serde(default)]
    pub(super) ranges: Vec<Vec<Range>>,
    #[serde(default)]
    pub(super) ipv6: bool,
    #[serde(default)]
    pub(super) internal: bool,
    #[serde(default)]
    pub(super) mtu: Option<u32>,
    #[serde(default)]
    pub(super) gw_priority: i32,
    #[serde(default)]
    pub(super) dns: Dns,
    #[serde(default)]
    pub(super) runtime_config: Option<RuntimeConfig>,
    #[serde(default)]
    args: Args,
    /// What the plugin before us in the chain, or our own `ADD`, said.
    #[serde(default)]
    pub(super) prev_result: Option<Value>,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    pub(super) valid_attachments: Option<Vec<Valid>>,
}

/// An attachment that `GC` leaves alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Valid {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

/// Addresses to choose from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Range {
    pub(super) subnet: IpNet,
    #[serde(default)]
    pub(super) range_start: Option<IpAddr>,
    #[serde(default)]
    pub(super) range_end: Option<IpAddr>,
    #[serde(default)]
    pub(super) gateway: Option<IpAddr>,
}

/// Resolvers, as a result has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Dns {
    #[serde(default)]
    pub(super) nameservers: Vec<String>,
    #[serde(default)]
    pub(super) domain: Option<String>,
    #[serde(default)]
    pub(super) search: Vec<String>,
    #[serde(default)]
    pub(super) options: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Args {
    #[serde(default)]
    cni: CniArgs,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct CniArgs {
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    mac: Option<String>,
}

/// What the runtime says for the capabilities of the configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuntimeConfig {
    #[serde(default)]
    port_mappings: Vec<PortMapping>,
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    mac: Option<String>,
    #[serde(default)]
    aliases: Aliases,
    #[serde(default)]
    dns: RuntimeDns,
    #[serde(default)]
    ip_ranges: Vec<Vec<Range>>,
    #[serde(default)]
    bandwidth: Limits,
}

/// Capability `bandwidth`: bits per second, and bits. Zero is no limit.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Limits {
    ingress_rate: u64,
    ingress_burst: u64,
    egress_rate: u64,
    egress_burst: u64,
}

/// A list, or as podman has it one for each network.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Aliases {
    Here(Vec<String>),
    ByNetwork(BTreeMap<String, Vec<String>>),
}

impl Default for Aliases {
    fn default() -> Self {
        Self::Here(Vec::new())
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
struct RuntimeDns {
    #[serde(default)]
    servers: Vec<String>,
    #[serde(default)]
    searches: Vec<String>,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortMapping {
    #[serde(default)]
    host_port: u16,
    container_port: u16,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default, rename = "hostIP")]
    host_ip: Option<String>,
}

/// How a container joins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) mac: Option<MacAddr>,
    pub(super) aliases: Vec<String>,
    pub(super) publish: Vec<PublishSpec>,
    pub(super) bandwidth: Bandwidth,
}

impl Config {
    /// From standard input, with its version.
    pub(super) fn parse(text: &[u8]) -> Result<(Self, Version), Refusal> {
        let config: Self = serde_json::from_slice(text).map_err(|error| {
            Refusal::new(
                Code::Decode,
                format!("the network configuration is malformed: {error}"),
            )
        })?;
        let version = Version::of(config.cni_version.as_deref())?;
        Ok((config, version))
    }

    /// The network.
    pub(super) fn name(&self) -> Result<&str, Refusal> {
        let named = self.name.as_deref().filter(|name| !name.is_empty());
        named.ok_or_else(|| Refusal::config("the network configuration has no 'name'"))
    }

    /// Ranges of the runtime, or of the configuration.
    pub(super) fn ranges(&self) -> impl Iterator<Item = &Range> {
        let runtimes = self.runtime_config.as_ref().map(|r| &r.ip_ranges);
        let chosen = runtimes.filter(|r| !r.is_empty());
        chosen.unwrap_or(&self.ranges).iter().flatten()
    }

    /// Resolvers of the runtime before those of the configuration.
    pub(super) fn resolvers(&self) -> Dns {
        let mut dns = self.dns.clone();
        let Some(RuntimeConfig { dns: wish, .. }) = &self.runtime_config else {
            return dns;
        };
        for (here, wished) in [
            (&mut dns.nameservers, &wish.servers),
            (&mut dns.search, &wish.searches),
            (&mut dns.options, &wish.options),
        ] {
            if !wished.is_empty() {
                here.clone_from(wished);
            }
        }
        dns
    }

    /// How the container is to join. `args`: `CNI_ARGS`, which count least.
    pub(super) fn wish(&self, args: &BTreeMap<String, String>) -> Result<Wish, Refusal> {
        let none = RuntimeConfig::default();
        let runtime = self.runtime_config.as_ref().unwrap_or(&none);
        let by_args: Vec<String> = args.get("IP").cloned().into_iter().collect();
        let ips = [&runtime.ips, &self.args.cni.ips, &by_args];
        let ips = ips.into_iter().find(|ips| !ips.is_empty());
        let addresses = ips.into_iter().flatten().map(|text| address(text));
        let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
        for ipv6 in [false, true] {
            let family = addresses.iter().filter(|a| a.is_ipv6() == ipv6);
            if family.count() > 1 {
                return Err(Refusal::config(
                    "more than one address of a family for one interface",
                ));
            }
        }
        let macs = [
            runtime.mac.as_ref(),
            self.args.cni.mac.as_ref(),
            args.get("MAC"),
        ];
        let mac = macs.into_iter().flatten().find(|mac| !mac.is_empty());
        let mac = mac.map(|text| text.parse()).transpose();
        let mac = mac.map_err(|error| Refusal::config(format!("MAC address: {error}")))?;
        let mappings = runtime.port_mappings.iter();
        let publish = mappings.filter_map(|mapping| mapping.publish().transpose());
        Ok(Wish {
            addresses,
            mac,
            aliases: self.aliases(&runtime.aliases)?,
            publish: publish.collect::<Result<_, _>>()?,
            bandwidth: runtime.bandwidth.checked()?,
        })
    }

    /// Each once.
    fn aliases(&self, given: &Aliases) -> Result<Vec<String>, Refusal> {
        let all: &[String] = match given {
            Aliases::Here(all) => all,
            Aliases::ByNetwork(by) => by.get(self.name()?).map_or(&[], Vec::as_slice),
        };
        let mut seen = BTreeSet::new();
        let fresh = |alias: &&String| seen.insert(alias.to_ascii_lowercase());
        Ok(all.iter().filter(fresh).cloned().collect())
    }

    /// An `ADD` of ours has answered.
    pub(super) fn was_added(&self) -> Result<bool, Refusal> {
        let previous = self.prev_result.as_ref().map(Previous::parse).transpose()?;
        Ok(previous.is_some_and(|previous| previous.is_ours()))
    }

    /// Whether `GC` leaves an attachment alone.
    pub(super) fn is_valid(&self, container: &str, ifname: &str) -> bool {
        let mut valid = self.valid_attachments.iter().flatten();
        valid.any(|valid| valid.container == container && valid.ifname == ifname)
    }
}

impl Limits {
    fn checked(self) -> Result<Bandwidth, Refusal> {
        Ok(Bandwidth {
            inward: limit("ingress", self.ingress_rate, self.ingress_burst)?,
            outward: limit("egress", self.egress_rate, self.egress_burst)?,
        })
    }
}

/// Both in bits. A rate without a burst, which the reference plugin refuses, has one of our choice.
fn limit(direction: &str, rate: u64, burst: u64) -> Result<Option<Limit>, Refusal> {
    let refuse = |what: &str, why: String| {
        Refusal::config(format!("runtimeConfig.bandwidth.{direction}{what}: {why}"))
    };
    if rate == 0 && burst != 0 {
        let why = format!("{burst} without {direction}Rate");
        return Err(refuse("Burst", why));
    }
    if rate == 0 {
        return Ok(None);
    }
    let rate = rate.try_into();
    let rate = rate.map_err(|error: RateError| refuse("Rate", error.to_string()))?;
    let bytes = u32::try_from(burst.div_ceil(8));
    let bytes = bytes.map_err(|_| refuse("Burst", format!("{burst} is more than 4 GiB")))?;
    let burst = (bytes > 0).then_some(bytes);
    Ok(Some(Limit { rate, burst }))
}

/// With or without a prefix length; the network knows it.
fn address(text: &str) -> Result<IpAddr, Refusal> {
    let bare = text.split_once('/').map_or(text, |(address, _)| address);
    bare.parse()
        .map_err(|_| Refusal::config(format!("'{}' is not an address", text.escape_debug())))
}

impl PortMapping {
    /// None without a port on the host.
    fn publish(&self) -> Result<Option<PublishSpec>, Refusal> {
        if self.host_port == 0 {
            return Ok(None);
        }
        let (host, container) = (self.host_port, self.container_port);
        let protocol = self.protocol.as_deref().unwrap_or("tcp");
        let protocol = protocol.to_ascii_lowercase();
        let address = match self.host_ip.as_deref().filter(|ip| !ip.is_empty()) {
            None => String::new(),
            Some(text) => match text.parse() {
                Ok(IpAddr::V4(address)) => format!("{address}:"),
                Ok(IpAddr::V6(address)) => format!("[{address}]:"),
                Err(_) => {
                    let shown = text.escape_debug();
                    return Err(Refusal::config(format!(
                        "portMappings: hostIP '{shown}' is not an address"
                    )));
                }
            },
        };
        let text = format!("{address}{host}:{container}/{protocol}");
        let spec = text.parse();
        spec.map(Some)
            .map_err(|error| Refusal::config(format!("portMappings: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(runtime: &Value) -> Config {
        let text = json!({
            "cniVersion": "1.0.0", "name": "lab", "type": "mossnet-cni",
            "plugin-of-others": {"x": [1]}, "runtimeConfig": runtime,
        });
        Config::parse(text.to_string().as_bytes()).unwrap().0
    }

    fn wish(runtime: &Value) -> Result<Wish, Refusal> {
        parsed(runtime).wish(&BTreeMap::new())
    }

    #[test]
    fn capabilities_become_wishes() {
        let given = wish(&json!({
            "ips": ["10.1.0.5/24", "fd00::5"], "mac": "02:00:00:00:00:05",
            "aliases": {"lab": ["db", "DB", "store"], "other": ["x"]},
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80},
                {"hostPort": 0, "containerPort": 81},
                {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "127.0.0.1"},
            ],
        }))
        .unwrap();
        assert_eq!(given.addresses.len(), 2);
        assert_eq!(given.aliases, ["db", "store"]);
        let ports: Vec<_> = given.publish.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["8080:80/tcp", "127.0.0.1:53:5353/udp"]);
        assert_eq!(wish(&json!({"aliases": ["a"]})).unwrap().aliases, ["a"]);
    }

    #[test]
    fn limits_are_in_bits_and_zero_is_none() {
        let bandwidth = |keys: Value| wish(&json!({"bandwidth": keys})).unwrap().bandwidth;
        let zero = json!({"ingressRate": 0, "ingressBurst": 0, "egressRate": 0});
        assert!(bandwidth(zero).is_unlimited());
        // As container managers have it where nobody chose a burst.
        let given = bandwidth(json!({"ingressRate": 1000000, "ingressBurst": 2147483647}));
        let inward = given.inward.unwrap();
        assert_eq!(
            (inward.rate.bits(), inward.burst),
            (1_000_000, Some(1 << 28))
        );
        assert_eq!(given.outward, None);
        let given = bandwidth(json!({"egressRate": 8000}));
        assert_eq!(given.outward.unwrap().burst, None);
    }

    #[test]
    fn arguments_count_where_the_runtime_says_nothing() {
        let args = BTreeMap::from([("IP".to_owned(), "10.1.0.9".to_owned())]);
        let of = |runtime: &Value| parsed(runtime).wish(&args).unwrap().addresses;
        assert_eq!(of(&json!({})), ["10.1.0.9".parse::<IpAddr>().unwrap()]);
        let given = of(&json!({"ips": ["10.1.0.5"]}));
        assert_eq!(given, ["10.1.0.5".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_code() {
        for (bandwidth, word) in [
            (json!({"ingressRate": 999}), "ingressRate: a rate must be"),
            (
                json!({"egressBurst": 8}),
                "egressBurst: 8 without egressRate",
            ),
            (
                json!({"egressRate": 1000, "egressBurst": 1u64 << 36}),
                "egressBurst: 68719476736 is more than 4 GiB",
            ),
        ] {
            let refusal = wish(&json!({"bandwidth": bandwidth})).unwrap_err();
            assert_eq!(refusal.code, Code::InvalidConfig);
            assert!(refusal.message.contains(word), "{refusal}");
        }
        for bad in [
            json!({"ips": ["10.1.0.5", "10.1.0.6"]}),
            json!({"ips": ["x"]}),
            json!({"mac": "x"}),
            json!({"portMappings": [{"hostPort": 1, "containerPort": 0}]}),
            json!({"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "sctp"}]}),
            json!({"portMappings": [{"hostPort": 1, "containerPort": 1, "hostIP": "x"}]}),
        ] {
            assert_eq!(wish(&bad).unwrap_err().code, Code::InvalidConfig, "{bad}");
        }
        let decode = |text: &str| Config::parse(text.as_bytes()).unwrap_err().code;
        for bad in [
            "",
            "{",
            "[]",
            r#"{"cniVersion": 1}"#,
            r#"{"runtimeConfig": []"#,
        ] {
            assert_eq!(decode(bad), Code::Decode, "{bad}");
        }
        assert_eq!(decode(r#"{"name": "x"}"#), Code::IncompatibleVersion);
    }
}
