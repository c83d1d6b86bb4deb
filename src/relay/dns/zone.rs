//! What each network's name service knows, and what becomes of a question.
//!
//! Place: rebuilt from every new snapshot, asked by `server` once per query. Pure. Invariants: a
//! query sees one network only, the one whose gateway it was sent to; addresses and names of
//! mossnet networks are never asked of an outside resolver; an internal network asks nobody.
//!
//! Names: those of the snapshot, bare (`web`) or with the network's name (`web.mynet`, as Docker).
//! Single labels are not forwarded from a network with a name service: there they are containers'
//! names or mistakes, and an outside resolver with search domains of its own would turn them into
//! somebody else's host (CVE-2025-8283). The other half of that protection is `ndots:0` in the
//! sandbox's resolv.conf: see `network::resolv`.
//!
//! Foreign names on an internal network are NXDOMAIN, not REFUSED: glibc retries a REFUSED with
//! every server and reports "temporary failure", musl waits out its whole timeout; NXDOMAIN ends
//! both at once, and without an SOA record nobody caches it (RFC 2308 §5).
//!
//! Sources: RFC 6761 §6 (localhost, invalid), RFC 6303 (local reverse zones), RFC 8482 (ANY).

use crate::network::resolv::HOST_ALIASES;
use crate::network::snapshot::{NetworkView, Snapshot};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, RecordType};
use ipnet::IpNet;
use mossnet_helper::IfName;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

/// Our own domain.
const OWN_DOMAIN: &str = "mossnet.internal";

/// Every network's zone, by the addresses on which it is served.
#[derive(Debug, Default)]
pub struct Zones {
    by_gateway: HashMap<IpAddr, Rc<Zone>>,
}

impl Zones {
    /// Indexes a snapshot.
    pub fn new(snapshot: &Snapshot) -> Self {
        let every_subnet: Rc<[IpNet]> = snapshot
            .networks
            .iter()
            .flat_map(|network| network.subnets.iter().copied())
            .collect();
        let search: Rc<[String]> = snapshot
            .resolver
            .search
            .iter()
            .map(|domain| domain.trim_matches('.').to_ascii_lowercase())
            .filter(|domain| !domain.is_empty())
            .collect();
        let mut by_gateway = HashMap::new();
        for network in &snapshot.networks {
            let mut zone = Zone::new(network, Rc::clone(&every_subnet), Rc::clone(&search));
            if zone.upstreams.is_empty() {
                zone.upstreams = snapshot.resolver.nameservers.as_slice().into();
            }
            let zone = Rc::new(zone);
            for gateway in &network.gateways {
                by_gateway.insert(*gateway, Rc::clone(&zone));
            }
        }
        Self { by_gateway }
    }

    /// The zone served on `gateway` to `client`; `None` where the client is not on that network.
    pub fn find(&self, gateway: IpAddr, client: IpAddr) -> Option<&Rc<Zone>> {
        self.by_gateway
            .get(&gateway)
            .filter(|zone| zone.subnets.iter().any(|subnet| subnet.contains(&client)))
    }
}

/// One network's names.
#[derive(Debug)]
pub struct Zone {
    /// Identity of the network.
    pub bridge: IfName,
    /// Whom to ask for everything else, in order.
    pub upstreams: Rc<[IpAddr]>,
    suffix: String,
    subnets: Vec<IpNet>,
    internal: bool,
    names: HashMap<String, Vec<IpAddr>>,
    reverse: HashMap<IpAddr, Name>,
    every_subnet: Rc<[IpNet]>,
    search: Rc<[String]>,
}

/// What becomes of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// These records answer it.
    Records(Vec<RData>),
    /// The name exists, without records of that type.
    NoData,
    /// The name does not exist (NXDOMAIN).
    NoSuchName,
    /// Ask [`Zone::upstreams`].
    Forward,
}

impl Zone {
    fn new(network: &NetworkView, every_subnet: Rc<[IpNet]>, search: Rc<[String]>) -> Self {
        let mut names: HashMap<String, Vec<IpAddr>> = HashMap::new();
        let mut reverse = HashMap::new();
        for record in &network.names {
            let text = record.name.trim_end_matches('.').to_ascii_lowercase();
            let addresses = names.entry(text.clone()).or_default();
            for address in &record.addresses {
                if !addresses.contains(address) {
                    addresses.push(*address);
                }
                // The first record of an endpoint bears its name, the others are aliases.
                if let Ok(name) = Name::from_ascii(format!("{text}.")) {
                    reverse.entry(*address).or_insert(name);
                }
            }
        }
        Self {
            bridge: network.bridge.clone(),
            upstreams: network.dns.as_slice().into(),
            suffix: format!(".{}", network.name.to_ascii_lowercase()),
            subnets: network.subnets.clone(),
            internal: network.internal,
            names,
            reverse,
            every_subnet,
            search,
        }
    }

    /// Decides on `name`, given as [`super::message::ClientQuery::name`] gives it. `turn` rotates
    /// the addresses of a name that has several.
    pub fn decide(&self, name: &str, kind: RecordType, turn: usize) -> Verdict {
        if let Some(addresses) = self.addresses(name) {
            return address_records(addresses, kind, turn);
        }
        if name == "localhost" || name.ends_with(".localhost") {
            let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return address_records(&loopback, kind, 0);
        }
        if let Some(address) = reverse_address(name)
            && let Some(verdict) = self.decide_reverse(address, kind)
        {
            return verdict;
        }
        if self.internal || is_ours_alone(name) {
            return Verdict::NoSuchName;
        }
        if self.is_strayed_local_name(name, kind) {
            return Verdict::NoData;
        }
        let single_label = !name.is_empty() && !name.contains('.');
        // Other types of single labels are questions about top-level domains.
        let host_like = is_address(kind) || matches!(kind, RecordType::HTTPS | RecordType::SVCB);
        if single_label && host_like && !self.names.is_empty() {
            return Verdict::NoSuchName;
        }
        Verdict::Forward
    }

    fn addresses(&self, name: &str) -> Option<&Vec<IpAddr>> {
        let bare = || name.strip_suffix(self.suffix.as_str());
        self.names.get(name).or_else(|| self.names.get(bare()?))
    }

    fn decide_reverse(&self, address: IpAddr, kind: RecordType) -> Option<Verdict> {
        let name = self.reverse.get(&address).cloned().or_else(|| {
            let localhost = || Name::from_ascii("localhost.").ok();
            address.is_loopback().then(localhost).flatten()
        });
        if let Some(name) = name {
            let asked = matches!(kind, RecordType::PTR | RecordType::ANY);
            let records = || Verdict::Records(vec![RData::PTR(PTR(name))]);
            return Some(if asked { records() } else { Verdict::NoData });
        }
        // Other networks' addresses too: no outside resolver can know them.
        let ours = self
            .every_subnet
            .iter()
            .any(|subnet| subnet.contains(&address));
        ours.then_some(Verdict::NoSuchName)
    }

    /// `web.corp.example` with an endpoint `web` and the host's search domain `corp.example`: what
    /// a stub resolver makes of `web` when `web` has no address of the wanted family. It must not
    /// lead to a stranger. Where the endpoint has one, the stub was content with `web`, and this is
    /// somebody who means the outside host.
    fn is_strayed_local_name(&self, name: &str, kind: RecordType) -> bool {
        let lacking = |addresses: &Vec<IpAddr>| match kind {
            RecordType::A => !addresses.iter().any(IpAddr::is_ipv4),
            RecordType::AAAA => !addresses.iter().any(IpAddr::is_ipv6),
            _other_types_are_not_searched => false,
        };
        self.search.iter().any(|domain| {
            let host = name
                .strip_suffix(domain.as_str())
                .and_then(|host| host.strip_suffix('.'));
            host.and_then(|host| self.names.get(host))
                .is_some_and(lacking)
        })
    }
}

fn is_address(kind: RecordType) -> bool {
    matches!(kind, RecordType::A | RecordType::AAAA | RecordType::ANY)
}

/// Names that no outside resolver can know.
fn is_ours_alone(name: &str) -> bool {
    let within = |domain: &str| {
        name.strip_suffix(domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    HOST_ALIASES.contains(&name) || within(OWN_DOMAIN) || within("invalid")
}

/// The address records of a name that exists.
fn address_records(addresses: &[IpAddr], kind: RecordType, turn: usize) -> Verdict {
    let mut records: Vec<RData> = addresses
        .iter()
        .filter_map(|address| match (address, kind) {
            (IpAddr::V4(v4), RecordType::A | RecordType::ANY) => Some(RData::A(A(*v4))),
            (IpAddr::V6(v6), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(*v6))),
            _other_type_or_family => None,
        })
        .collect();
    if records.is_empty() {
        return Verdict::NoData;
    }
    let turn = turn % records.len();
    records.rotate_left(turn);
    Verdict::Records(records)
}

/// The address whose reverse name this is; `None` for a prefix or any other name.
fn reverse_address(name: &str) -> Option<IpAddr> {
    if !name.ends_with(".arpa") {
        return None;
    }
    let network = Name::from_ascii(format!("{name}."))
        .ok()?
        .parse_arpa_name()
        .ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}

#[cfg(test)]
mod tests;
