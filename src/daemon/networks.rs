//! Networks: the default one made on first use, and all that are in use told to helper and relay.
//!
//! Invariant: what the helper was told is a function of the model; telling it again is harmless,
//! so it is told whatever differs from what it was told last.

use super::kernel_publish::{led_by_kernel, stale_ports};
use super::kernel_uplink::{self, KernelUplink, Led, Way, leaves_by_kernel};
use super::link::Link;
use super::model::Model;
use super::refusal::{conflict, failed};
use super::uplink::{kind_of, name_of, uplink};
use super::{Daemon, clock};
use crate::api::control::{Answer, Refusal};
use crate::api::types::Uplink;
use crate::ipam::{Pool, choose_subnet, parse_v4_pools, v4_pool};
use crate::kernel::helper::Helper;
use crate::kernel::host;
use crate::network::model::{DEFAULT_MTU, DEFAULT_NETWORK, Driver};
use crate::network::names::bridge_name;
use crate::network::publish::keys;
use crate::network::rules::{bridge_spec, network_rules, snapshot};
use crate::network::snapshot::{PublishView, ResolverView, Snapshot};
use crate::network::{Network, NetworkSubnet};
use ipnet::IpNet;
use mossnet_helper::request::{BridgeSpec, Inventory, NetworkRules, Request, UplinkKind};
use mossnet_helper::{IfName, MacAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tracing::{info, warn};

/// Variable of the daemon's environment: prefixes for new networks instead of the usual pool.
const POOL: &str = "MOSSNET_POOL";

/// What the helper was told, so that it is told nothing twice.
#[derive(Debug, Default)]
pub(super) struct Told {
    bridges: BTreeMap<IfName, Option<BridgeSpec>>,
    rules: Option<Vec<NetworkRules>>,
    snapshot: Option<Snapshot>,
    pub(super) uplinks: BTreeSet<UplinkKind>,
    /// The way through the host's kernel.
    pub(super) kernel: KernelUplink,
    /// Keys of the listening sockets that it keeps.
    pub(super) listeners: BTreeSet<String>,
    /// What all of it was made of, if all of it was told.
    of: Option<(u64, ResolverView)>,
}

impl Told {
    /// Of a helper that an earlier daemon told things: which bridges there are, not how they are.
    pub(super) fn from_inventory(inventory: &Inventory) -> Self {
        Self {
            bridges: inventory
                .bridges
                .iter()
                .map(|name| (name.clone(), None))
                .collect(),
            uplinks: inventory.uplinks.iter().copied().collect(),
            listeners: inventory.listeners.iter().cloned().collect(),
            ..Self::default()
        }
    }

    /// An external uplink ended by itself.
    pub(super) fn uplink_ended(&mut self, kind: UplinkKind) {
        self.uplinks.remove(&kind);
        if kind == UplinkKind::Kernel {
            self.kernel.lost();
        }
        self.of = None;
    }
}

/// Everything that the helper should know.
struct Wanted {
    /// What it is made of.
    of: (u64, ResolverView),
    bridges: Vec<BridgeSpec>,
    /// Bridges of networks that are gone.
    surplus: Vec<IfName>,
    rules: Vec<NetworkRules>,
    uplinks: BTreeSet<UplinkKind>,
    way: Way,
    /// Ports that the kernel should lead.
    led: Led,
    snapshot: Snapshot,
}

impl Daemon {
    /// Tells the helper what differs from what it was told, for all networks in use. Of several
    /// callers who wait for the link, the first tells it for all.
    pub(super) async fn tell(&self, link: &mut Link, helper: &Helper) -> Answer<()> {
        let Some(wanted) = self.wanted(&link.told).await else {
            return Ok(());
        };
        let told = &mut link.told;
        let nothing = told.bridges.is_empty() && told.listeners.is_empty();
        if wanted.bridges.is_empty() && nothing {
            return Ok(());
        }
        for name in wanted.surplus {
            let gone = Request::RemoveBridge { name: name.clone() };
            helper.call(gone).await?;
            told.bridges.remove(&name);
        }
        for bridge in wanted.bridges {
            let name = bridge.name.clone();
            if told.bridges.get(&name) != Some(&Some(bridge.clone())) {
                helper.call(Request::Bridge(bridge.clone())).await?;
                told.bridges.insert(name, Some(bridge));
            }
        }
        start_uplinks(told, &wanted.uplinks, helper).await?;
        let led = kernel_uplink::lead(told, wanted.way, helper).await;
        if told.rules.as_ref() != Some(&wanted.rules) {
            let networks = wanted.rules.clone();
            helper.call(Request::Ruleset { networks }).await?;
            told.rules = Some(wanted.rules);
        }
        let stopped = stop_uplinks(told, &wanted.uplinks, helper).await;
        self.tell_relay(link, helper, wanted.snapshot, wanted.led)
            .await?;
        link.told.of = (stopped && led).then_some(wanted.of);
        Ok(())
    }

    async fn tell_relay(
        &self,
        link: &mut Link,
        helper: &Helper,
        wanted: Snapshot,
        led: Led,
    ) -> Answer<()> {
        let stale = stale_ports(&link.told, &led);
        if !stale.is_empty() {
            // Their sockets, which alone say where the kernel leads them, are made anew.
            let mut without = wanted.clone();
            let is_stale = |view: &PublishView| keys(&view.publish).any(|key| stale.contains(&key));
            without.publishes.retain(|view| !is_stale(view));
            self.load_relay(link, helper, without, &led).await?;
        }
        self.load_relay(link, helper, wanted, &led).await
    }

    async fn load_relay(
        &self,
        link: &mut Link,
        helper: &Helper,
        mut wanted: Snapshot,
        led: &Led,
    ) -> Answer<()> {
        let listeners = self.hand_over(link, helper, &mut wanted, led).await?;
        let told = &mut link.told.snapshot;
        wanted.generation = told.as_ref().map_or(0, |told| told.generation);
        if told.as_ref() == Some(&wanted) {
            return Ok(());
        }
        wanted.generation += 1;
        let snapshot = serde_json::to_vec(&wanted)
            .map_err(|error| failed(format!("write the relay's snapshot: {error}")))?;
        let keys = listeners.iter().cloned().collect();
        helper.load_relay(&snapshot, keys).await?;
        *told = Some(wanted);
        link.told
            .kernel
            .led
            .retain(|key, _| listeners.contains(key));
        link.told.listeners = listeners;
        Ok(())
    }

    /// Networks with live endpoints, and those that were in use since the helper started. `None`:
    /// nothing has changed since all of it was told.
    async fn wanted(&self, told: &Told) -> Option<Wanted> {
        let resolver = self.resolver().view();
        let model = self.0.model.lock().await;
        let of = (model.revision(), resolver);
        if told.of.as_ref() == Some(&of) {
            return None;
        }
        let in_use = |network: &&Network| {
            model.is_used(&network.id) || told.bridges.contains_key(&network.bridge)
        };
        let networks: Vec<&Network> = model.networks().filter(in_use).collect();
        let external = networks.iter().filter(|network| model.is_used(&network.id));
        let kept: BTreeSet<&IfName> = networks.iter().map(|network| &network.bridge).collect();
        let surplus = told.bridges.keys().filter(|name| !kept.contains(name));
        Some(Wanted {
            bridges: networks
                .iter()
                .map(|network| bridge_spec(network))
                .collect(),
            surplus: surplus.cloned().collect(),
            rules: networks
                .iter()
                .map(|network| network_rules(network))
                .collect(),
            way: Way::of(external.clone().copied()),
            uplinks: external
                .map(|network| network.uplink)
                .filter(is_external)
                .collect(),
            led: led_by_kernel(&model),
            snapshot: snapshot(networks.iter().copied(), model.sandboxes(), &of.1),
            of,
        })
    }

    /// Tells the helper, if there is one, what changed.
    pub(super) async fn refresh(&self) {
        let mut link = self.0.link.lock().await;
        let Some(helper) = link.current().cloned() else {
            return;
        };
        if let Err(refusal) = self.tell(&mut link, &helper).await {
            warn!(error = %refusal, "networks not told to the helper");
        }
    }

    /// The same, for a caller that may hold the link.
    pub(super) fn refresh_later(&self) {
        let daemon = self.clone();
        tokio::spawn(async move { daemon.refresh().await });
    }

    /// Makes the default network on first use, and gives it the uplink that is asked for.
    pub(super) async fn default_network(&self, wish: Option<Uplink>) -> Answer<Network> {
        self.default_network_exists().await?;
        let gone = || failed("the default network is gone");
        if wish == Some(Uplink::Kernel) {
            let network = self.0.model.lock().await.network(DEFAULT_NETWORK).cloned();
            let prefixes = network.ok_or_else(gone)?.prefixes();
            self.check_kernel_grant(&prefixes).await?;
        }
        let mut model = self.0.model.lock().await;
        let network = model.network(DEFAULT_NETWORK).cloned();
        let mut network = network.ok_or_else(gone)?;
        let user = model.on_network(&network.id).next();
        let wanted = match (wish, user) {
            (Some(wish), _) => kind_of(wish),
            // What an earlier run asked for ends with the last sandbox that used it.
            (None, None) => UplinkKind::Relay,
            (None, Some(_)) => network.uplink,
        };
        if wanted == network.uplink {
            return Ok(network);
        }
        if let Some(user) = user {
            let has = name_of(network.uplink);
            let message = format!("network '{}' is in use with uplink {has}", network.name);
            return Err(conflict(message).with_hint(format!(
                "stop its sandboxes first ({} …), or leave out --uplink {}",
                user.name,
                name_of(wanted)
            )));
        }
        network.uplink = wanted;
        model.put_network(network.clone())?;
        Ok(network)
    }

    /// Makes the default network unless it is there.
    pub(super) async fn default_network_exists(&self) -> Answer<()> {
        let missing = self.0.model.lock().await.network(DEFAULT_NETWORK).is_none();
        if missing {
            self.make_default_network().await
        } else {
            Ok(())
        }
    }

    async fn make_default_network(&self) -> Answer<()> {
        let host = host::prefixes().await?;
        let mut model = self.0.model.lock().await;
        if model.network(DEFAULT_NETWORK).is_some() {
            return Ok(());
        }
        let taken: Vec<IpNet> = model.networks().flat_map(Network::prefixes).collect();
        let wanted = (true, kernel_has_ipv6());
        let subnets = new_subnets(Pools::ours(&model)?, wanted, &taken, &host)?;
        let broken = |error: std::io::Error| failed(format!("random bytes: {error}"));
        let id = clock::new_id().map_err(broken)?;
        let network = Network {
            name: DEFAULT_NETWORK.parse()?,
            driver: Driver::Bridge,
            bridge: bridge_name(&id)?,
            mac: random_mac()?,
            id,
            subnets,
            mtu: DEFAULT_MTU,
            internal: false,
            uplink: UplinkKind::Relay,
            dns: Vec::new(),
            labels: BTreeMap::new(),
            created: clock::now(),
            disable_dns: false,
            icc: true,
            vlan: None,
            inhibit_ipv4: false,
            ifname_prefix: None,
            host_loopback: None,
            options: BTreeMap::new(),
        };
        info!(network.name = %network.name, subnets = ?network.prefixes(), "network made");
        Ok(model.put_network(network)?)
    }

    /// Routes of the host changed: networks that it now routes elsewhere are worth a word.
    pub(super) async fn check_conflicts(&self) {
        let Ok(host) = host::prefixes().await else {
            return;
        };
        let model = self.0.model.lock().await;
        // The kernel's uplink is such a route.
        for network in model
            .networks()
            .filter(|network| !leaves_by_kernel(network))
        {
            let subnets = network.subnets.iter().map(|s| s.subnet);
            for subnet in subnets {
                if let Some(route) = host.iter().find(|route| subnet.overlaps(**route)) {
                    warn!(network.name = %network.name, %subnet, %route, "host routes a network's subnet");
                }
            }
        }
    }
}

/// A kernel without IPv6 has no such file, and refuses IPv6 addresses.
pub(super) fn kernel_has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// Where prefixes for new networks come from.
pub(super) struct Pools {
    v4: Vec<Pool>,
    v6: Vec<Pool>,
}

impl Pools {
    /// IPv4 of the pool, IPv6 of our own unique local prefix.
    pub(super) fn ours(model: &Model) -> Answer<Self> {
        let v4 = match std::env::var(POOL) {
            Ok(text) => parse_v4_pools(&text)?,
            Err(_unset) => vec![v4_pool()],
        };
        let v6 = vec![model.ula()];
        Ok(Self { v4, v6 })
    }

    /// What an admin grants, cut as usual.
    pub(super) fn granted(subnets: &[IpNet]) -> Self {
        let of = |v4: bool, usual: u8| {
            let subnets = subnets.iter().filter(|net| net.addr().is_ipv4() == v4);
            let pool = |net: &IpNet| Pool {
                range: *net,
                len: net.prefix_len().max(usual),
            };
            subnets.map(pool).collect()
        };
        Self {
            v4: of(true, v4_pool().len),
            v6: of(false, 64),
        }
    }

    /// The family that it has nothing of, of those that are wanted.
    pub(super) fn lacks(&self, (ipv4, ipv6): (bool, bool)) -> Option<&'static str> {
        match (self.v4.is_empty(), self.v6.is_empty()) {
            (true, _) if ipv4 => Some("IPv4"),
            (_, true) if ipv6 => Some("IPv6"),
            _ => None,
        }
    }
}

/// The next free prefixes of the families that are wanted.
pub(super) fn new_subnets(
    pools: Pools,
    (ipv4, ipv6): (bool, bool),
    taken: &[IpNet],
    host: &[IpNet],
) -> Answer<Vec<NetworkSubnet>> {
    let mut subnets = Vec::new();
    if ipv4 {
        subnets.push(choose_subnet(&pools.v4, taken, host)?);
    }
    if ipv6 {
        // A site that routes wide unique local prefixes does not use our random /48 of them.
        let narrow = host.iter().copied().filter(|p| p.prefix_len() >= 48);
        let narrow: Vec<_> = narrow.collect();
        subnets.push(choose_subnet(&pools.v6, taken, &narrow)?);
    }
    let with_gateway = subnets.into_iter().map(NetworkSubnet::with_first_gateway);
    Ok(with_gateway.collect())
}

fn is_external(kind: &UplinkKind) -> bool {
    match kind {
        UplinkKind::Pasta | UplinkKind::Slirp | UplinkKind::Kernel => true,
        UplinkKind::Relay | UplinkKind::None => false,
    }
}

async fn start_uplinks(
    told: &mut Told,
    wanted: &BTreeSet<UplinkKind>,
    helper: &Helper,
) -> Result<(), Refusal> {
    for kind in wanted {
        // The kernel's is asked for with all its subnets.
        if told.uplinks.contains(kind) || *kind == UplinkKind::Kernel {
            continue;
        }
        if let Some(spec) = uplink(*kind).prepare()? {
            helper.call(Request::StartUplink(spec)).await?;
        }
        told.uplinks.insert(*kind);
    }
    Ok(())
}

/// False where one goes on.
async fn stop_uplinks(told: &mut Told, wanted: &BTreeSet<UplinkKind>, helper: &Helper) -> bool {
    let mut stopped = true;
    let surplus: Vec<_> = told.uplinks.difference(wanted).copied().collect();
    for kind in surplus {
        let stop = match kind {
            UplinkKind::Kernel => kernel_uplink::release(told, helper).await,
            kind => (helper.call(Request::StopUplink { kind }).await)
                .map(drop)
                .map_err(Refusal::from),
        };
        match stop {
            Ok(()) => drop(told.uplinks.remove(&kind)),
            Err(error) => {
                stopped = false;
                warn!(?kind, %error, "external uplink not stopped");
            }
        }
    }
    stopped
}

/// Locally administered, as Docker's.
pub(super) fn random_mac() -> Answer<MacAddr> {
    let [a, b, c, d] = clock::random().map_err(|e| failed(format!("random bytes: {e}")))?;
    Ok(MacAddr::try_from([0x02, 0x42, a, b, c, d])?)
}
