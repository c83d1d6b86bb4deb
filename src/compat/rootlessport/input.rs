//! What podman writes to standard input, as JSON: ports of the host, a network namespace, an address in it.
//!
//! Pure. Invariant: what [`Config::parse`] returns can be published; everything else is one refusal. Fields
//! that we do not know are ignored: newer versions may add some.
//! Sources: podman's cmd/rootlessport, go.podman.io/common `pkg/rootlessport` and `libnetwork/types`.

use super::refusal::Refusal;
use crate::ports::{HostAddr, Port, PortRange, Proto, Publish, SourceAddress};
use serde::Deserialize;
use std::net::IpAddr;
use std::path::PathBuf;

/// Longest input that is read, bytes: forty thousand ports that are no ranges.
pub const MOST: usize = 4 << 20;
/// Descriptors below are the standard streams.
const FIRST_FD: i32 = 3;

/// The whole, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What leads where.
    pub publishes: Vec<Publish>,
    /// The container's network namespace.
    pub netns: PathBuf,
    /// Its end of file ends the process.
    pub exit_fd: i32,
    /// Hears when all ports listen.
    pub ready_fd: i32,
    /// Podman's directory for what lives as long as its containers.
    pub tmp_dir: PathBuf,
    /// The container's address; none: podman knows none.
    pub child: Option<IpAddr>,
    /// The container.
    pub container: String,
    /// It is on networks of podman's, which may change while it runs.
    pub on_networks: bool,
}

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    #[serde(default)]
    mappings: Option<Vec<Mapping>>,
    #[serde(rename = "NetNSPath", default)]
    netns: String,
    #[serde(rename = "ExitFD", default)]
    exit_fd: i32,
    #[serde(rename = "ReadyFD", default)]
    ready_fd: i32,
    #[serde(default)]
    tmp_dir: String,
    #[serde(rename = "ChildIP", default)]
    child_ip: String,
    #[serde(rename = "ContainerID", default)]
    container_id: String,
    #[serde(rename = "RootlessCNI", default)]
    rootless_cni: bool,
}

/// Ports in a row.
#[derive(Debug, Deserialize)]
struct Mapping {
    #[serde(default)]
    host_ip: String,
    container_port: u16,
    host_port: u16,
    /// 0 is 1.
    #[serde(default)]
    range: u16,
    /// Several, with commas between; none: TCP.
    #[serde(default)]
    protocol: String,
}

impl Config {
    /// Reads it.
    pub fn parse(text: &[u8]) -> Result<Self, Refusal> {
        let written: Written = serde_json::from_slice(text).map_err(Refusal::Json)?;
        if written.netns.is_empty() {
            return Err(Refusal::Missing("NetNSPath"));
        }
        for (number, what) in [(written.exit_fd, "ExitFD"), (written.ready_fd, "ReadyFD")] {
            if number < FIRST_FD {
                return Err(Refusal::Missing(what));
            }
        }
        if written.exit_fd == written.ready_fd {
            return Err(Refusal::SameDescriptor(written.exit_fd));
        }
        let on_networks = written.rootless_cni;
        if on_networks && written.tmp_dir.is_empty() {
            return Err(Refusal::Missing("TmpDir"));
        }
        if on_networks && !is_name(&written.container_id) {
            return Err(Refusal::Container(written.container_id));
        }
        let mappings = written.mappings.unwrap_or_default();
        let publishes = mappings.iter().map(Mapping::publishes);
        Ok(Self {
            publishes: publishes.collect::<Result<Vec<_>, _>>()?.concat(),
            netns: written.netns.into(),
            exit_fd: written.exit_fd,
            ready_fd: written.ready_fd,
            tmp_dir: written.tmp_dir.into(),
            child: child(&written.child_ip)?,
            container: written.container_id,
            on_networks,
        })
    }
}

/// The container's address as podman says it; nothing is none.
pub fn child(text: &str) -> Result<Option<IpAddr>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let address: Result<IpAddr, _> = text.parse();
    match address {
        Ok(address) if !address.is_unspecified() => Ok(Some(address.to_canonical())),
        Ok(_) | Err(_) => Err(Refusal::Address {
            what: "ChildIP",
            value: text.to_owned(),
        }),
    }
}

/// Can be a file's name, and is of the kind that podman gives.
fn is_name(text: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=128).contains(&text.len()) && text.bytes().all(usual)
}

impl Mapping {
    /// One for each protocol.
    fn publishes(&self) -> Result<Vec<Publish>, Refusal> {
        let protocols = match self.protocol.as_str() {
            "" => "tcp",
            given => given,
        };
        protocols
            .split(',')
            .map(|word| self.publish(word))
            .collect()
    }

    fn publish(&self, protocol: &str) -> Result<Publish, Refusal> {
        let proto = match protocol {
            "tcp" => Proto::Tcp,
            "udp" => Proto::Udp,
            _ => return Err(Refusal::Protocol(protocol.to_owned())),
        };
        let wrong = || Refusal::Ports {
            host_port: self.host_port,
            container_port: self.container_port,
            range: self.range,
        };
        let first = Port::new(self.host_port).ok_or_else(wrong)?;
        let container = Port::new(self.container_port).ok_or_else(wrong)?;
        let last = first.checked_add(self.range.max(1) - 1).ok_or_else(wrong)?;
        let range = PortRange::new(first, last).map_err(|_| wrong())?;
        let at = self.host_addr()?;
        Publish::new(at, range, container, proto, SourceAddress::Keep).map_err(|_| wrong())
    }

    fn host_addr(&self) -> Result<HostAddr, Refusal> {
        if self.host_ip.is_empty() {
            return Ok(HostAddr::Any);
        }
        let address = self.host_ip.parse();
        address.map(HostAddr::only).map_err(|_| Refusal::Address {
            what: "host_ip",
            value: self.host_ip.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PODMAN_4_3: &str = r#"{"Mappings":[{"host_ip":"","container_port":80,"host_port":18080,"range":1,"protocol":"tcp"},{"host_ip":"127.0.0.1","container_port":81,"host_port":18081,"range":2,"protocol":"udp,tcp"}],"NetNSPath":"/run/user/1000/netns/netns-5aa1","ExitFD":3,"ReadyFD":4,"TmpDir":"/run/user/1000/libpod/tmp","ChildIP":"10.89.0.2","ContainerID":"3276671f24281a84","RootlessCNI":true}"#;

    fn with(old: &str, new: &str) -> Result<Config, Refusal> {
        assert!(PODMAN_4_3.contains(old), "{old}");
        Config::parse(PODMAN_4_3.replace(old, new).as_bytes())
    }

    fn refused(old: &str, new: &str) -> String {
        with(old, new).unwrap_err().to_string()
    }

    #[test]
    fn what_podman_writes_is_read() {
        let config = Config::parse(PODMAN_4_3.as_bytes()).unwrap();
        let publishes: Vec<String> = config.publishes.iter().map(ToString::to_string).collect();
        assert_eq!(publishes.len(), 3, "{publishes:?}");
        assert_eq!(config.publishes[0].host_addr(), HostAddr::Any);
        assert_eq!(config.publishes[1].proto(), Proto::Udp);
        assert_eq!(config.publishes[2].proto(), Proto::Tcp);
        let port = |number| Port::new(number).unwrap();
        assert_eq!(config.publishes[2].leads_to(port(18082)), Some(port(82)));
        assert_eq!((config.exit_fd, config.ready_fd), (3, 4));
        assert_eq!(config.child, Some([10, 89, 0, 2].into()));
        assert!(config.on_networks);
        // slirp4netns, without any field that may be left out.
        let least = r#"{"Mappings":null,"NetNSPath":"/x","ExitFD":3,"ReadyFD":4,"New":[]}"#;
        let config = Config::parse(least.as_bytes()).unwrap();
        assert!(config.publishes.is_empty() && config.child.is_none() && !config.on_networks);
        assert!(with(r#""range":1"#, r#""range":0"#).is_ok());
        assert!(with(r#""protocol":"tcp""#, r#""protocol":"""#).is_ok());
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_value() {
        for (old, new, word) in [
            ("/run/user/1000/netns/netns-5aa1", "", "NetNSPath"),
            (r#""ExitFD":3"#, r#""ExitFD":0"#, "ExitFD"),
            (r#""ExitFD":3"#, r#""ExitFD":-1"#, "ExitFD"),
            (r#""ReadyFD":4"#, r#""ReadyFD":2"#, "ReadyFD"),
            (r#""ReadyFD":4"#, r#""ReadyFD":3"#, "both"),
            (r#""ReadyFD":4"#, r#""ReadyFD":"4""#, "invalid type"),
            ("10.89.0.2", "10.89.0.256", "10.89.0.256"),
            ("10.89.0.2", "0.0.0.0", "0.0.0.0"),
            (r#""protocol":"tcp""#, r#""protocol":"sctp""#, "sctp"),
            (r#""protocol":"tcp""#, r#""protocol":"tcp,""#, "''"),
            ("127.0.0.1", "localhost", "localhost"),
            (r#""host_port":18080"#, r#""host_port":0"#, "host port 0"),
            (r#""host_port":18080"#, r#""host_port":65536"#, "65536"),
            (
                r#""container_port":80"#,
                r#""container_port":0"#,
                "container port 0",
            ),
            (r#""range":2"#, r#""range":60000"#, "60000 in a row"),
            ("3276671f24281a84", "../x", "../x"),
            ("3276671f24281a84", "", "container"),
            ("/run/user/1000/libpod/tmp", "", "TmpDir"),
        ] {
            let text = refused(old, new);
            assert!(text.contains(word), "{new}: {text}");
            assert!(!text.contains('\n'), "{text}");
        }
        for text in ["", "{", "[]", "null", "{}", "\u{0}", &PODMAN_4_3[..200]] {
            assert!(Config::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_input_is_a_crash(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..400, port in any::<u32>()) {
            let _ = Config::parse(&bytes);
            let text = PODMAN_4_3.replace("18081", &port.to_string());
            let _ = Config::parse(&text.as_bytes()[..cut.min(text.len())]);
            if let Ok(config) = Config::parse(text.as_bytes()) {
                prop_assert!(config.publishes.iter().all(|publish| publish.host_ports().count() <= 2));
            }
        }
    }
}
