//! Publishes as text, bound again, and taken away in part.

use super::parse::PortError;
use super::types::{HostAddr, HostPorts, Port, PortRange, Publish, PublishSpec, SourceAddress};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who chose the host ports of a publish.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostChoice {
    /// The user.
    #[default]
    Given,
    /// We, of all that were free.
    Free,
    /// We, of these.
    OneOf(PortRange),
}

/// A publish that is there, or that comes back when its sandbox is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// With the host ports that it has, or had last.
    pub publish: Publish,
    /// Whether others would do as well.
    #[serde(default)]
    pub choice: HostChoice,
}

impl Published {
    /// Wishes to bind it again: the first that can be had is the best.
    pub fn again(&self) -> Vec<PublishSpec> {
        let same = self.publish.spec();
        let others = match self.choice {
            HostChoice::Given => None,
            HostChoice::Free => Some(HostPorts::Free),
            HostChoice::OneOf(range) => Some(HostPorts::OneOf(range)),
        };
        let others = others.map(|host_ports| PublishSpec { host_ports, ..same });
        [same].into_iter().chain(others).collect()
    }

    /// What is left of it without the ports that `rest` names; `None` where it names none of them.
    /// A wish without a host address is for every one, without host ports for all that lead to its
    /// container ports.
    pub fn without(&self, gone: &PublishSpec) -> Option<Vec<Self>> {
        let publish = &self.publish;
        let same_place = publish.proto == gone.proto
            && (gone.host_addr == HostAddr::Any || gone.host_addr == publish.host_addr);
        let is_gone = |port: Port| same_place && gone.names(port, publish.leads_to(port));
        let mut left: Vec<(Port, Port)> = Vec::new();
        for port in publish.host_ports.iter().filter(|port| !is_gone(*port)) {
            match left.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
                Some(_) | None => left.push((port, port)),
            }
        }
        if left == [(publish.host_ports.first(), publish.host_ports.last())] {
            return None;
        }
        let part = |(first, last): (Port, Port)| {
            let part = Publish {
                host_ports: PortRange::new(first, last).ok()?,
                container_port: publish.leads_to(first)?,
                ..*publish
            };
            Some(Self {
                publish: part,
                choice: self.choice,
            })
        };
        Some(left.into_iter().filter_map(part).collect())
    }
}

impl Publish {
    /// The wish that asks for it.
    pub fn spec(&self) -> PublishSpec {
        PublishSpec {
            host_addr: self.host_addr,
            host_ports: HostPorts::Each(self.host_ports),
            container_ports: self.container_ports(),
            proto: self.proto,
        }
    }

    /// The same at another address of the host.
    #[must_use]
    pub fn at(self, host_addr: HostAddr) -> Self {
        Self { host_addr, ..self }
    }

    /// The same, with another idea of whom the container takes its clients for.
    #[must_use]
    pub fn seen_as(self, source: SourceAddress) -> Self {
        Self { source, ..self }
    }

    /// What its host ports lead to, in order.
    pub fn container_ports(&self) -> PortRange {
        let first = self.container_port();
        let last = self.leads_to(self.host_ports().last());
        PortRange::new(first, last.unwrap_or(first)).unwrap_or(PortRange::one(first))
    }
}

impl PublishSpec {
    /// The same at another address of the host.
    #[must_use]
    pub fn on(self, host_addr: HostAddr) -> Self {
        Self { host_addr, ..self }
    }

    /// Who chooses its host ports.
    pub fn choice(&self) -> HostChoice {
        match self.host_ports {
            HostPorts::Each(_) => HostChoice::Given,
            HostPorts::Free => HostChoice::Free,
            HostPorts::OneOf(range) => HostChoice::OneOf(range),
        }
    }

    fn names(&self, host: Port, container: Option<Port>) -> bool {
        let container = container.and_then(|port| self.container_ports.offset(port));
        match (container, self.host_ports) {
            (None, _) => false,
            (Some(_), HostPorts::Free) => true,
            (Some(_), HostPorts::OneOf(range)) => range.offset(host).is_some(),
            (Some(offset), HostPorts::Each(range)) => range.offset(host) == Some(offset),
        }
    }
}

impl fmt::Display for PublishSpec {
    /// As it was parsed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = match self.host_addr {
            HostAddr::Any => String::new(),
            only => format!("{only}:"),
        };
        match self.host_ports {
            HostPorts::Free if address.is_empty() => {}
            HostPorts::Free => write!(f, "{address}:")?,
            HostPorts::OneOf(range) | HostPorts::Each(range) => write!(f, "{address}{range}:")?,
        }
        write!(f, "{}/{}", self.container_ports, self.proto)
    }
}

impl TryFrom<String> for PublishSpec {
    type Error = PortError;
    fn try_from(text: String) -> Result<Self, PortError> {
        text.parse()
    }
}

impl From<PublishSpec> for String {
    fn from(spec: PublishSpec) -> Self {
        spec.to_string()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// As it is recorded once its ports are bound; for tests here and of whoever reads such records.
    pub(crate) fn published(spec: &str) -> Published {
        let spec: PublishSpec = spec.parse().unwrap();
        Published {
            publish: spec.fixed(SourceAddress::Keep).unwrap(),
            choice: spec.choice(),
        }
    }

    #[test]
    fn wishes_are_written_as_they_are_read() {
        for text in [
            "80/tcp",
            "8080:80/tcp",
            "8000-8010:80/udp",
            "8000-8010:80-90/tcp",
            "127.0.0.1::80/tcp",
            "127.0.0.1:8080:80/tcp",
            "[::1]:8080:80/udp",
            "0.0.0.0:8080:80/tcp",
        ] {
            let spec: PublishSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<PublishSpec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn parts_are_taken_away() {
        let left = |of: &str, gone: &str| {
            let left = published(of).without(&gone.parse().unwrap());
            left.map(|left| {
                left.iter()
                    .map(|p| p.publish.to_string())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(left("8080:80", "80"), Some(vec![]));
        assert_eq!(left("8080:80", "8080:80"), Some(vec![]));
        assert_eq!(left("127.0.0.1:8080:80", "8080:80"), Some(vec![]));
        assert_eq!(left("8080:80", "127.0.0.1:8080:80"), None);
        assert_eq!(left("8080:80", "81"), None);
        assert_eq!(left("8080:80", "80/udp"), None);
        assert_eq!(left("8080:80", "8081:80"), None);
        assert_eq!(
            left("8000-8004:80-84", "82"),
            Some(vec![
                "*:8000-8001->80-81/tcp".into(),
                "*:8003-8004->83-84/tcp".into()
            ])
        );
        assert_eq!(
            left("8000-8004:80-84", "8000-8001:80-81"),
            Some(vec!["*:8002-8004->82-84/tcp".into()])
        );
    }

    #[test]
    fn ports_that_we_chose_may_be_others_the_next_time() {
        let words = |p: &Published| {
            p.again()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        let mut web = published("8080:80");
        assert_eq!(words(&web), ["8080:80/tcp"]);
        web.choice = HostChoice::Free;
        assert_eq!(words(&web), ["8080:80/tcp", "80/tcp"]);
        web.choice = HostChoice::OneOf("8080-8090".parse().unwrap());
        assert_eq!(words(&web), ["8080:80/tcp", "8080-8090:80/tcp"]);
    }
}
