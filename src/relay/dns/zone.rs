//! What each network's name service knows, and what becomes of a question.
//!
//! Place: rebuilt from every new snapshot, asked by `server` once per query. Pure. Invariants: a
//! query sees the networks that its sender is on and no other, first the one whose gateway it was
//! sent to; that one alone decides whether and whom to ask outside, and an internal one asks nobody;
//! addresses and names of mossnet networks are never asked of an outside resolver.
//!
//! Names: those of the snapshot, bare (`web`) or with the network's name (`web.mynet`, as Docker).
//! Where several networks have a name, the first with an address of the wanted family answers.
//! Single labels, and single labels with a network's name, are not forwarded for a sandbox that has
//! a name service: they are containers' names (perhaps of one that is restarting) or mistakes, and
//! an outside resolver with search domains of its own would turn them into somebody else's host
//! (CVE-2025-8283). So whoever calls a network `dev` cannot look up `example.dev` on it, but
//! `www.example.dev`. The other half of that protection is `ndots:0` in the sandbox's resolv.conf:
//! see `network::resolv`.
//!
//! Foreign names on an internal network are NXDOMAIN, not REFUSED: glibc retries a REFUSED with
//! every server and reports "temporary failure", musl waits out its whole timeout; NXDOMAIN ends
//! both at once, and without an SOA record nobody caches it (RFC 2308 §5).
//!
//! The host has names ([`HOST_ALIASES`]) for those sandboxes that may reach its loopback, before any
//! endpoint that calls itself so; for all others they do not exist, nor do they outside.
//!
//! Who a client is, its address tells: bridges let no sandbox send from another's.
//!
//! Sources: RFC 6761 §6 (localhost, invalid), RFC 6303 (local reverse zones), RFC 8482 (ANY).

use crate::network::host_loopback::loopback_behind;
use crate::network::resolv::HOST_ALIASES;
use crate::network::snapshot::{HostLoopbackView, NetworkView, OwnResolvers, Snapshot};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, RecordType};
use ipnet::IpNet;
use mossnet_helper::IfName;
use std::cell::Cell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

/// Our own domain.
const OWN_DOMAIN: &str = "mossnet.internal";
/// The host's own name, to which its addresses lead back.
const HOST_NAME: &str = HOST_ALIASES[0];

/// Every network's zone, by the addresses on which it is served.
#[derive(Debug, Default)]
pub struct Zones {
    by_gateway: HashMap<IpAddr, Rc<Zone>>,
    /// Of sandboxes on several networks: all their zones, by each of their addresses.
    multihomed: HashMap<IpAddr, Rc<[Rc<Zone>]>>,
    /// Of sandboxes that may reach the host's loopback: what that is to them, by each of their
    /// addresses.
    hosts: HashMap<IpAddr, Rc<[IpAddr]>>,
    /// Of sandboxes with resolvers of their own: those, by each of their addresses.
    resolvers: HashMap<IpAddr, Rc<[IpAddr]>>,
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
        let mut zones = Vec::with_capacity(snapshot.networks.len());
        for network in &snapshot.networks {
            let mut zone = Zone::new(network, Rc::clone(&every_subnet), Rc::clone(&search));
            if zone.upstreams.is_empty() {
                zone.upstreams = snapshot.resolver.nameservers.as_slice().into();
            }
            let zone = Rc::new(zone);
            for gateway in &network.gateways {
                by_gateway.insert(*gateway, Rc::clone(&zone));
            }
            zones.push(zone);
        }
        let multihomed = multihomed(&snapshot.multihomed, &zones);
        Self {
            by_gateway,
            multihomed,
            hosts: hosts(&snapshot.host_loopback),
            resolvers: resolvers(&snapshot.own_resolvers),
        }
    }

    /// What is served on `gateway` to `client`; `None` where the client is not on that network.
    pub fn find(&self, gateway: IpAddr, client: IpAddr) -> Option<View> {
        let zone = self.by_gateway.get(&gateway)?;
        zone.holds(client).then(|| View {
            zone: Rc::clone(zone),
            all: self.multihomed.get(&client).map(Rc::clone),
            host: self.hosts.get(&client).map(Rc::clone),
            resolvers: self.resolvers.get(&client).map(Rc::clone),
        })
    }
}

fn hosts(views: &[HostLoopbackView]) -> HashMap<IpAddr, Rc<[IpAddr]>> {
    let mut index = HashMap::new();
    for view in views {
        let addresses: Rc<[IpAddr]> = view.host_addresses().into();
        let clients = view.sources.iter().chain(&view.others);
        index.extend(clients.map(|client| (*client, Rc::clone(&addresses))));
    }
    index
}

fn resolvers(own: &[OwnResolvers]) -> HashMap<IpAddr, Rc<[IpAddr]>> {
    let mut index = HashMap::new();
    for OwnResolvers { clients, servers } in own {
        let servers: Rc<[IpAddr]> = servers.as_slice().into();
        index.extend(clients.iter().map(|client| (*client, Rc::clone(&servers))));
    }
    index
}

fn multihomed(groups: &[Vec<IpAddr>], zones: &[Rc<Zone>]) -> HashMap<IpAddr, Rc<[Rc<Zone>]>> {
    let mut index = HashMap::new();
    for addresses in groups {
        let mut seen: Vec<Rc<Zone>> = Vec::new();
        for zone in addresses
            .iter()
            .filter_map(|address| zones.iter().find(|zone| zone.holds(*address)))
        {
            if !seen.iter().any(|known| Rc::ptr_eq(known, zone)) {
                seen.push(Rc::clone(zone));
            }
        }
        let seen: Rc<[Rc<Zone>]> = seen.into();
        index.extend(addresses.iter().map(|address| (*address, Rc::clone(&seen))));
    }
    index
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
    names: HashMap<String, Entry>,
    reverse: HashMap<IpAddr, Name>,
    every_subnet: Rc<[IpNet]>,
    search: Rc<[String]>,
}

/// A name's addresses.
#[derive(Debug, Default)]
struct Entry {
    addresses: Vec<IpAddr>,
    /// Answers given so far, IPv4 and IPv6. A name's own, and one for each family: with a shared
    /// count, clients that ask for both in turn would find the same address first every time.
    turns: [Cell<usize>; 2],
}

/// The zones that one client sees.
#[derive(Debug)]
pub struct View {
    /// That of the gateway it asked.
    pub zone: Rc<Zone>,
    /// All that its sandbox is on, where that is on several.
    all: Option<Rc<[Rc<Zone>]>>,
    /// The host's addresses, where it may reach them.
    host: Option<Rc<[IpAddr]>>,
    /// Its own resolvers, asked before [`Zone::upstreams`].
    pub resolvers: Option<Rc<[IpAddr]>>,
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
        let mut names: HashMap<String, Entry> = HashMap::new();
        let mut reverse = HashMap::new();
        for record in &network.names {
            let text = record.name.trim_end_matches('.').to_ascii_lowercase();
            let addresses = &mut names.entry(text.clone()).or_default().addresses;
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

    fn holds(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(&address))
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        let bare = || name.strip_suffix(self.suffix.as_str());
        self.names.get(name).or_else(|| self.names.get(bare()?))
    }

    /// Whether `name` reads as that of an endpoint, were there such a one.
    fn would_hold(&self, name: &str) -> bool {
        let bare = name.strip_suffix(self.suffix.as_str()).unwrap_or(name);
        !self.names.is_empty() && !bare.is_empty() && !bare.contains('.')
    }
}

impl Entry {
    fn records(&self, kind: RecordType) -> Verdict {
        let turn = &self.turns[usize::from(kind == RecordType::AAAA)];
        turn.set(turn.get().wrapping_add(1));
        address_records(&self.addresses, kind, turn.get().wrapping_sub(1))
    }

    fn has(&self, kind: RecordType) -> bool {
        match kind {
            RecordType::A => self.addresses.iter().any(IpAddr::is_ipv4),
            RecordType::AAAA => self.addresses.iter().any(IpAddr::is_ipv6),
            _other_types_are_not_searched => true,
        }
    }
}

impl View {
    /// Decides on `name`, given as [`super::message::ClientQuery::name`] gives it.
    pub fn decide(&self, name: &str, kind: RecordType) -> Verdict {
        if let Some(host) = self.host.as_ref().filter(|_| HOST_ALIASES.contains(&name)) {
            return address_records(host, kind, 0);
        }
        if let Some(verdict) = self.decide_endpoint(name, kind) {
            return verdict;
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
        if self.zone.internal || is_ours_alone(name) {
            return Verdict::NoSuchName;
        }
        if self.is_strayed_local_name(name, kind) {
            return Verdict::NoData;
        }
        // Other types are questions about domains.
        let host_like = is_address(kind) || matches!(kind, RecordType::HTTPS | RecordType::SVCB);
        if host_like && self.zones().any(|zone| zone.would_hold(name)) {
            return Verdict::NoSuchName;
        }
        Verdict::Forward
    }

    /// The zone asked, then the others.
    fn zones(&self) -> impl Iterator<Item = &Rc<Zone>> {
        let others = self.all.iter().flat_map(|all| all.iter());
        let others = others.filter(|zone| !Rc::ptr_eq(zone, &self.zone));
        std::iter::once(&self.zone).chain(others)
    }

    fn decide_endpoint(&self, name: &str, kind: RecordType) -> Option<Verdict> {
        let mut verdict = None;
        for entry in self.zones().filter_map(|zone| zone.entry(name)) {
            match entry.records(kind) {
                Verdict::NoData => verdict = Some(Verdict::NoData),
                found => return Some(found),
            }
        }
        verdict
    }

    fn decide_reverse(&self, address: IpAddr, kind: RecordType) -> Option<Verdict> {
        let known = self.zones().find_map(|zone| zone.reverse.get(&address));
        let host = self.host.as_ref().filter(|host| host.contains(&address));
        let host = host.and_then(|_| Name::from_ascii(format!("{HOST_NAME}.")).ok());
        let name = known.cloned().or(host).or_else(|| {
            let localhost = || Name::from_ascii("localhost.").ok();
            address.is_loopback().then(localhost).flatten()
        });
        if let Some(name) = name {
            let asked = matches!(kind, RecordType::PTR | RecordType::ANY);
            let records = || Verdict::Records(vec![RData::PTR(PTR(name))]);
            return Some(if asked { records() } else { Verdict::NoData });
        }
        // Other networks' addresses too: no outside resolver can know them.
        let mut subnets = self.zone.every_subnet.iter();
        let ours =
            subnets.any(|subnet| subnet.contains(&address)) || loopback_behind(address).is_some();
        ours.then_some(Verdict::NoSuchName)
    }

    /// `web.corp.example` with an endpoint `web` and the host's search domain `corp.example`: what
    /// a stub resolver makes of `web` when `web` has no address of the wanted family. It must not
    /// lead to a stranger. Where the endpoint has one, the stub was content with `web`, and this is
    /// somebody who means the outside host.
    fn is_strayed_local_name(&self, name: &str, kind: RecordType) -> bool {
        self.zone.search.iter().any(|domain| {
            let host = name
                .strip_suffix(domain.as_str())
                .and_then(|host| host.strip_suffix('.'));
            host.is_some_and(|host| {
                let mut entries = self.zones().filter_map(|zone| zone.entry(host)).peekable();
                entries.peek().is_some() && !entries.any(|entry| entry.has(kind))
            })
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
    // With a search domain behind it, too: a stub resolver tries that where the name is none.
    let is_host = |alias: &&str| {
        let rest = name.strip_prefix(alias);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    HOST_ALIASES.iter().any(is_host) || within(OWN_DOMAIN) || within("invalid")
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
