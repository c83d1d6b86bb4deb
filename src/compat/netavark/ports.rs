//! Port mappings: from podman's words to ports of one address family each. Pure.

use super::input::PortMapping;
use super::refusal::{PortRefusal, Refusal};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A range of ports of one protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Of this address of the host alone.
    pub host_addr: Option<IpAddr>,
    /// Number of the transport protocol.
    pub protocol: u8,
    /// First port of the host.
    pub host_port: u16,
    /// First port of the container.
    pub container_port: u16,
    /// How many.
    pub count: u16,
}

impl Ports {
    /// Each port of the host with the container's.
    pub fn pairs(&self) -> impl Iterator<Item = (u16, u16)> {
        let (host, container) = (self.host_port, self.container_port);
        let pair =
            move |offset: u16| Some((host.checked_add(offset)?, container.checked_add(offset)?));
        (0..self.count).filter_map(pair)
    }
}

/// Every mapping, one protocol each.
pub fn ports(mappings: &[PortMapping]) -> Result<Vec<Ports>, Refusal> {
    let mut all = Vec::new();
    for mapping in mappings {
        let read = read(mapping);
        all.extend(read.map_err(|source| Refusal::Port {
            port: mapping.host_port,
            source,
        })?);
    }
    Ok(all)
}

fn read(mapping: &PortMapping) -> Result<Vec<Ports>, PortRefusal> {
    let host_addr = match mapping.host_ip.as_str() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|_| PortRefusal::Address(text.to_owned()))?,
        ),
    };
    let count = mapping.range.max(1);
    let fits = |first: u16| first > 0 && first.checked_add(count - 1).is_some();
    if !fits(mapping.host_port) || !fits(mapping.container_port) {
        return Err(PortRefusal::Range);
    }
    let words = match mapping.protocol.as_str() {
        "" => "tcp",
        words => words,
    };
    let protocol = |word: &str| match word {
        "tcp" => Ok(libc::IPPROTO_TCP),
        "udp" => Ok(libc::IPPROTO_UDP),
        "sctp" => Ok(libc::IPPROTO_SCTP),
        other => Err(PortRefusal::Protocol(other.to_owned())),
    };
    let words = words.split(',').map(|word| {
        Ok(Ports {
            host_addr,
            protocol: protocol(word)? as u8,
            host_port: mapping.host_port,
            container_port: mapping.container_port,
            count,
        })
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host_ip: &str, host_port: u16, protocol: &str, range: u16) -> PortMapping {
        PortMapping {
            container_port: 80,
            host_ip: host_ip.to_owned(),
            host_port,
            protocol: protocol.to_owned(),
            range,
        }
    }

    #[test]
    fn protocols_and_ranges_are_taken_apart() {
        let all = ports(&[mapping("", 8080, "tcp,udp", 3), mapping("::1", 53, "", 0)]).unwrap();
        let protocols: Vec<u8> = all.iter().map(|ports| ports.protocol).collect();
        assert_eq!(protocols, [6, 17, 6]);
        let pairs: Vec<_> = all[0].pairs().collect();
        assert_eq!(pairs, [(8080, 80), (8081, 81), (8082, 82)]);
        assert_eq!(all[2].host_addr, Some("::1".parse().unwrap()));
        assert_eq!(all[2].pairs().count(), 1);
    }

    #[test]
    fn what_is_none_is_refused_by_name() {
        for (bad, word) in [
            (mapping("", 8080, "foo", 1), "8080: unknown protocol 'foo'"),
            (mapping("", 8080, "tcp,", 1), "unknown protocol ''"),
            (mapping("x", 8080, "tcp", 1), "'x' is not an address"),
            (mapping("", 0, "tcp", 1), "1 to 65535"),
            (mapping("", 65535, "tcp", 2), "1 to 65535"),
            (mapping("", 1, "tcp", 65535), "1 to 65535"),
        ] {
            let error = ports(&[bad]).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
