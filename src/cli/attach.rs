//! Values that say how a sandbox joins a network: `--network` in podman's words
//! (`NAME:ip=…,mac=…`) and in Docker's (`name=…,ip=…`), `--link`; and `key=value` lists.
//!
//! Sources: podman-run(1) on `--network`; Docker's reference of `docker run --network`.

use super::value::{self, ValueError};
use crate::api::network_types::{Link, NetworkAttach};
use ipnet::IpNet;
use mossnet_helper::IfName;
use mossnet_helper::bandwidth::Rate;
use std::net::IpAddr;
use std::str::FromStr;

/// Name of the network that is meant by none, and by Docker's `default`.
pub(super) const DEFAULT: &str = "bridge";

/// One `--network`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkWord {
    /// Named networks; several only where just names are given (`a,b`).
    Join(Vec<NetworkAttach>),
    /// Loopback only.
    None,
    /// The host's network namespace.
    Host,
    /// Another sandbox's.
    Container(String),
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// A name.
    #[error("{0}")]
    Name(String),
    /// No such option.
    #[error(
        "there is no option '{0}'; a network takes ip, ip6, mac, alias, interface_name, gw_priority, rate_in and rate_out, as in mynet:ip=10.0.0.5,alias=db"
    )]
    Option(String),
    /// An option without a value.
    #[error("option '{0}' needs a value, as in mynet:ip=10.0.0.5,alias=db")]
    NoValue(String),
    /// An option twice that can be given once.
    #[error("option '{0}' is given twice")]
    Twice(&'static str),
    /// A value of an option.
    #[error("{option} '{value}': {problem}")]
    Value {
        /// Which.
        option: &'static str,
        /// As given.
        value: String,
        /// What is wrong.
        problem: String,
    },
    /// Docker's form without a name.
    #[error("name=NETWORK is missing, as in name=mynet,ip=10.0.0.5")]
    NoName,
    /// Options of what has none.
    #[error("'{0}' takes no options")]
    NoOptions(&'static str),
}

impl From<ValueError> for AttachError {
    fn from(error: ValueError) -> Self {
        Self::Name(error.to_string())
    }
}

/// `--network`.
pub fn network(text: &str) -> Result<NetworkWord, AttachError> {
    if let Some(other) = text.strip_prefix("container:") {
        if other.is_empty() {
            return Err(ValueError::Container.into());
        }
        return Ok(NetworkWord::Container(value::name(other)?));
    }
    let docker = match (text.find('='), text.find(':')) {
        (Some(equals), Some(colon)) => equals < colon,
        (Some(_), None) => true,
        (None, _) => false,
    };
    if docker {
        return long_form(text);
    }
    let (name, options) = match text.split_once(':') {
        Some((name, options)) => (name, Some(options)),
        None => (text, None),
    };
    if let (Some((first, _)), None) = (name.split_once(','), options)
        && !first.is_empty()
    {
        let names = name.split(',').map(plain);
        return names.collect::<Result<_, _>>().map(NetworkWord::Join);
    }
    let special = match name {
        "none" => Some((NetworkWord::None, "none")),
        "host" => Some((NetworkWord::Host, "host")),
        _ => None,
    };
    match (special, options) {
        (Some((word, _)), None) => Ok(word),
        (Some((_, name)), Some(_)) => Err(AttachError::NoOptions(name)),
        (None, options) => {
            let mut attach = plain(name)?;
            if let Some(options) = options {
                let mut given = Given::default();
                for option in split(options) {
                    given.set(&mut attach, option)?;
                }
            }
            Ok(NetworkWord::Join(vec![attach]))
        }
    }
}

/// Docker's `name=…,ip=…`.
fn long_form(text: &str) -> Result<NetworkWord, AttachError> {
    let mut attach = NetworkAttach::default();
    let mut given = Given::default();
    for option in split(text) {
        match option.split_once('=') {
            Some(("name", name)) => {
                given.once("name")?;
                attach.network = plain(name)?.network;
            }
            _ => given.set(&mut attach, option)?,
        }
    }
    match attach.network.as_str() {
        "" => Err(AttachError::NoName),
        "none" => Err(AttachError::NoOptions("none")),
        "host" => Err(AttachError::NoOptions("host")),
        _ => Ok(NetworkWord::Join(vec![attach])),
    }
}

fn plain(name: &str) -> Result<NetworkAttach, AttachError> {
    let network = match value::name(name)? {
        name if name == "default" => DEFAULT.to_owned(),
        name => name,
    };
    Ok(NetworkAttach {
        network,
        ..NetworkAttach::default()
    })
}

fn split(options: &str) -> impl Iterator<Item = &str> {
    options.split(',').filter(|option| !option.is_empty())
}

/// Options that were given already.
#[derive(Default)]
struct Given(Vec<&'static str>);

impl Given {
    fn once(&mut self, option: &'static str) -> Result<(), AttachError> {
        if self.0.contains(&option) {
            return Err(AttachError::Twice(option));
        }
        self.0.push(option);
        Ok(())
    }

    fn set(&mut self, attach: &mut NetworkAttach, option: &str) -> Result<(), AttachError> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let missing = || AttachError::NoValue(name.to_owned());
        // Docker writes its dashes where podman has none or underlines.
        let known = match name.replace('-', "_").as_str() {
            "ip" => "ip",
            "ip6" => "ip6",
            "mac" | "mac_address" => "mac",
            "alias" => "alias",
            "interface_name" => "interface_name",
            "gw_priority" => "gw_priority",
            "rate_in" => "rate_in",
            "rate_out" => "rate_out",
            "driver_opt" => return self.driver_option(attach, value),
            _ => return Err(AttachError::Option(name.to_owned())),
        };
        if value.is_empty() {
            return Err(missing());
        }
        if known == "alias" {
            attach
                .aliases
                .push(alias(value).map_err(|problem| wrong("alias", value, problem))?);
            return Ok(());
        }
        self.once(known)?;
        match known {
            "ip" => attach.ip = Some(parsed("ip", value)?),
            "ip6" => attach.ip6 = Some(parsed("ip6", value)?),
            "mac" => attach.mac_address = Some(parsed("mac", value)?),
            "gw_priority" => attach.gw_priority = parsed("gw_priority", value)?,
            "rate_in" => attach.bandwidth.inward = Some(parsed::<Rate>(known, value)?.into()),
            "rate_out" => attach.bandwidth.outward = Some(parsed::<Rate>(known, value)?.into()),
            _ => attach.interface_name = Some(parsed::<IfName>(known, value)?.to_string()),
        }
        Ok(())
    }

    /// Docker's only driver option of an endpoint that we have.
    fn driver_option(
        &mut self,
        attach: &mut NetworkAttach,
        option: &str,
    ) -> Result<(), AttachError> {
        match option.split_once('=') {
            Some(("com.docker.network.endpoint.ifname", value)) => {
                self.once("interface_name")?;
                let name = parsed::<IfName>("interface_name", value)?;
                attach.interface_name = Some(name.to_string());
                Ok(())
            }
            _ => Err(AttachError::Option(format!("driver-opt={option}"))),
        }
    }
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(
    option: &'static str,
    value: &str,
) -> Result<T, AttachError> {
    value
        .parse()
        .map_err(|problem: T::Err| wrong(option, value, problem))
}

fn wrong(option: &'static str, value: &str, problem: impl std::fmt::Display) -> AttachError {
    AttachError::Value {
        option,
        value: value.to_owned(),
        problem: problem.to_string(),
    }
}

/// A further name of a sandbox on a network: a host name, as a query can carry it.
pub fn alias(text: &str) -> Result<String, ValueError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let bad_label = |label: &str| label.is_empty() || label.len() > 63;
    if text.is_empty()
        || text.len() > 253
        || !text.bytes().all(legal)
        || text.starts_with('-')
        || text.split('.').any(bad_label)
    {
        return Err(ValueError::Alias);
    }
    Ok(text.to_owned())
}

/// `--link SANDBOX[:ALIAS]`.
pub fn link(text: &str) -> Result<Link, ValueError> {
    let (sandbox, given) = match text.split_once(':') {
        Some((sandbox, given)) => (sandbox, Some(given)),
        None => (text, None),
    };
    // Docker's own listings write '/web' here.
    let sandbox = value::name(sandbox.strip_prefix('/').unwrap_or(sandbox))?;
    let alias = given.map(alias).transpose()?;
    Ok(Link { sandbox, alias })
}

/// `--subnet`, `--ip-range`.
pub fn prefix(text: &str) -> Result<IpNet, ValueError> {
    text.parse().map_err(|_| ValueError::Prefix)
}

/// `--aux-address NAME=ADDRESS`.
pub fn aux_address(text: &str) -> Result<(String, IpAddr), ValueError> {
    let (name, address) = text.split_once('=').ok_or(ValueError::AuxAddress)?;
    if name.is_empty() {
        return Err(ValueError::AuxAddress);
    }
    let address = address
        .parse()
        .map_err(|_| ValueError::Address(address.to_owned()))?;
    Ok((name.to_owned(), address))
}

/// `--label`, `--opt`: `KEY=VALUE`, or `KEY` alone for an empty value, as Docker takes it.
pub fn key_value(text: &str) -> Result<(String, String), ValueError> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.trim().is_empty() {
        return Err(ValueError::KeyValue);
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mossnet_helper::bandwidth::Bandwidth;
    use proptest::prelude::*;

    fn attach(network: &str) -> NetworkAttach {
        plain(network).unwrap()
    }

    fn joined(attach: NetworkAttach) -> Result<NetworkWord, AttachError> {
        Ok(NetworkWord::Join(vec![attach]))
    }

    #[test]
    fn names_and_modes() {
        assert_eq!(network("bridge"), joined(attach("bridge")));
        assert_eq!(network("default"), joined(attach("bridge")));
        assert_eq!(network("my-net_1.x"), joined(attach("my-net_1.x")));
        assert_eq!(network("none"), Ok(NetworkWord::None));
        assert_eq!(network("host"), Ok(NetworkWord::Host));
        assert_eq!(
            network("a,b"),
            Ok(NetworkWord::Join(vec![attach("a"), attach("b")]))
        );
        let other = Ok(NetworkWord::Container("web".to_owned()));
        assert_eq!(network("container:web"), other);
        assert_eq!(network("container:"), Err(ValueError::Container.into()));
        assert_eq!(network(""), Err(ValueError::Empty.into()));
        for bad in [
            "-x",
            "a/b",
            "a b",
            "é",
            "container:a/b",
            "a,-b",
            &"x".repeat(129),
        ] {
            assert_eq!(network(bad), Err(ValueError::Name.into()), "{bad}");
        }
        assert_eq!(
            network("none:ip=10.0.0.1"),
            Err(AttachError::NoOptions("none"))
        );
        assert_eq!(network("name=host"), Err(AttachError::NoOptions("host")));
    }

    #[test]
    fn podmans_and_dockers_words_mean_the_same() {
        let expected = NetworkAttach {
            network: "mine".to_owned(),
            ip: Some([10, 0, 0, 5].into()),
            ip6: Some("fd00::5".parse().unwrap()),
            mac_address: Some("02:42:0a:00:00:05".parse().unwrap()),
            aliases: vec!["db".to_owned(), "store.lab".to_owned()],
            interface_name: Some("lan0".to_owned()),
            gw_priority: -3,
            bandwidth: Bandwidth {
                inward: Some("10mbit".parse::<Rate>().unwrap().into()),
                outward: None,
            },
        };
        for text in [
            "mine:ip=10.0.0.5,ip6=fd00::5,mac=02:42:0a:00:00:05,alias=db,alias=store.lab,interface_name=lan0,gw_priority=-3,rate_in=10mbit",
            "name=mine,ip=10.0.0.5,ip6=fd00::5,mac-address=02:42:0a:00:00:05,alias=db,alias=store.lab,driver-opt=com.docker.network.endpoint.ifname=lan0,gw-priority=-3,rate-in=10m",
            "rate_in=10000kbit,gw-priority=-3,alias=db,alias=store.lab,mac_address=02:42:0A:00:00:05,ip6=fd00::5,ip=10.0.0.5,interface-name=lan0,name=mine",
        ] {
            assert_eq!(network(text), joined(expected.clone()), "{text}");
        }
        assert_eq!(network("mine:"), joined(attach("mine")));
    }

    #[test]
    fn wrong_options_are_named() {
        for (text, message) in [
            ("mine:colour=red", "there is no option 'colour'"),
            ("mine:ip", "option 'ip' needs a value"),
            ("mine:ip=", "option 'ip' needs a value"),
            ("mine:ip=10.0.0.256", "ip '10.0.0.256': invalid IPv4"),
            ("mine:ip=fd00::1", "ip 'fd00::1': invalid IPv4"),
            ("mine:ip6=10.0.0.1", "ip6 '10.0.0.1': invalid IPv6"),
            ("mine:ip=10.0.0.1,ip=10.0.0.2", "option 'ip' is given twice"),
            ("mine:mac=01:00:00:00:00:00", "mac '01:00:00:00:00:00': MAC"),
            ("mine:alias=a b", "alias 'a b': an alias"),
            ("mine:interface_name=sixteen-letters-", "interface_name"),
            ("mine:gw_priority=high", "gw_priority 'high'"),
            ("mine:rate_in=fast", "rate_in 'fast'"),
            ("mine:rate_out=1bit", "1kbit to 1000tbit"),
            ("ip=10.0.0.1", "name=NETWORK is missing"),
            ("name=a,name=b", "option 'name' is given twice"),
            ("name=", "it is empty"),
            (
                "name=a,driver-opt=x=y",
                "there is no option 'driver-opt=x=y'",
            ),
        ] {
            let error = network(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn links() {
        let link_to = |sandbox: &str, alias: Option<&str>| {
            Ok(Link {
                sandbox: sandbox.to_owned(),
                alias: alias.map(str::to_owned),
            })
        };
        assert_eq!(link("web"), link_to("web", None));
        assert_eq!(link("/web"), link_to("web", None));
        assert_eq!(link("web:www"), link_to("web", Some("www")));
        assert_eq!(link("web:"), Err(ValueError::Alias));
        assert_eq!(link("web:a:b"), Err(ValueError::Alias));
        assert_eq!(link(":x"), Err(ValueError::Empty));
        assert_eq!(link("a b"), Err(ValueError::Name));
    }

    #[test]
    fn other_values() {
        assert_eq!(prefix("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0/24",
            "x/8",
        ] {
            assert_eq!(prefix(bad), Err(ValueError::Prefix), "{bad}");
        }
        let aux = aux_address("printer=10.0.0.9");
        assert_eq!(aux, Ok(("printer".to_owned(), [10, 0, 0, 9].into())));
        for bad in ["printer", "=10.0.0.9", ""] {
            assert_eq!(aux_address(bad), Err(ValueError::AuxAddress), "{bad}");
        }
        assert!(aux_address("p=10.0.0").is_err());
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(key_value("a=b=c"), pair("a", "b=c"));
        assert_eq!(key_value("a"), pair("a", ""));
        assert_eq!(key_value("=b"), Err(ValueError::KeyValue));
        for bad in ["", "-a", "a b", "a..b", ".a", "a.", &"x".repeat(64)] {
            assert_eq!(alias(bad), Err(ValueError::Alias), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (network(&text), link(&text), key_value(&text), aux_address(&text), prefix(&text));
        }

        #[test]
        fn what_is_written_is_read(
            name in "[a-z][a-z0-9_.-]{0,20}",
            ip: Option<[u8; 4]>,
            ip6: Option<[u8; 16]>,
            aliases in proptest::collection::vec("[a-z]{1,9}", 0..4),
            gw_priority: i32,
        ) {
            prop_assume!(!["none", "host", "default"].contains(&name.as_str()));
            let expected = NetworkAttach {
                network: name.clone(),
                ip: ip.map(Into::into),
                ip6: ip6.map(Into::into),
                aliases,
                gw_priority,
                ..NetworkAttach::default()
            };
            let mut options = vec![format!("gw_priority={gw_priority}")];
            options.extend(expected.ip.map(|ip| format!("ip={ip}")));
            options.extend(expected.ip6.map(|ip6| format!("ip6={ip6}")));
            options.extend(expected.aliases.iter().map(|alias| format!("alias={alias}")));
            let options = options.join(",");
            prop_assert_eq!(network(&format!("{name}:{options}")), joined(expected.clone()));
            prop_assert_eq!(network(&format!("name={name},{options}")), joined(expected));
        }
    }
}
