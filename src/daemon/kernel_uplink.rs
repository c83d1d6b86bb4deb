//! The way out through the host's kernel: an installed `mossnet-helper` makes the link, our helper
//! leads networks out by it.
//!
//! Path: `networks` → here → `kernel::granted` (the host's end: routes, masquerade) → helper (the
//! router's end). Invariants: only granted subnets are asked for, so that one network without a grant
//! does not take the way from others; what cannot be had keeps no other network from working, and is
//! said to whoever joins the network that lacks it. The link dies with the router netns; what else the
//! host keeps is released, or collected at the next start.

use super::Daemon;
use super::networks::Told;
use super::refusal::{FileError, conflict, failed};
use crate::api::control::{Answer, Refusal};
use crate::error::one_line;
use crate::kernel::granted::{self, GrantError, ask, check_granted, uplink_subnets};
use crate::kernel::helper;
use crate::network::{Endpoint, Network};
use crate::sys::installed;
use ipnet::IpNet;
use mossnet_helper::SandboxId;
use mossnet_helper::request::{KernelLink, Request, UplinkKind};
use mossnet_helper::ruleset::KERNEL_LINK;
use mossnet_setuid::Helper;
use mossnet_setuid::client::CallError;
use mossnet_setuid::request::{
    HOST_V4, HOST_V6, ROUTER_V4, ROUTER_V6, Unavailable, Uplink, UplinkMade,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tracing::{info, warn};

/// Bytes. Both families fit into the least.
const LEAST_MTU: u32 = 1280;

/// What a dead owner left is looked for after each of these.
const COLLECT_PAUSES: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// Prefixes of the link: as host and router know each other.
const LINK_V4: u8 = 30;
const LINK_V6: u8 = 64;

/// Where each published port leads at kernel speed, by the key of its socket.
pub(super) type Led = BTreeMap<String, Vec<SocketAddr>>;

/// What should leave by the kernel.
#[derive(Debug, Default)]
pub(super) struct Way {
    networks: BTreeMap<SandboxId, (String, Vec<IpNet>)>,
    mtu: u32,
}

impl Way {
    /// Of these networks those that have it for their uplink.
    pub(super) fn of<'a>(networks: impl Iterator<Item = &'a Network>) -> Self {
        let mut way = Self::default();
        for network in networks.filter(|network| leaves_by_kernel(network)) {
            let named = (network.name.to_string(), network.prefixes());
            way.networks.insert(network.id.clone(), named);
            way.mtu = way.mtu.max(network.mtu).max(LEAST_MTU);
        }
        way
    }
}

/// Whether a network leaves by the host's kernel.
pub(super) fn leaves_by_kernel(network: &Network) -> bool {
    network.uplink == UplinkKind::Kernel && !network.internal
}

/// What was brought about, so that nothing is asked for twice.
#[derive(Debug, Default)]
pub(super) struct KernelUplink {
    made: Option<UplinkMade>,
    subnets: BTreeSet<IpNet>,
    /// Networks that should leave by it and do not, each with the reason.
    refused: BTreeMap<SandboxId, Refusal>,
    /// Where the host leads ports.
    pub(super) led: Led,
}

impl KernelUplink {
    /// The uplink, while it is there.
    pub(super) fn made(&self) -> Option<&UplinkMade> {
        self.made.as_ref()
    }

    /// It is not what it was: to be asked for again.
    pub(super) fn lost(&mut self) {
        *self = Self::default();
    }

    /// Why one who joins by these endpoints has no way out, if that is so.
    pub(super) fn check(&self, endpoints: &[Endpoint]) -> Answer<()> {
        let mut networks = endpoints.iter().map(|endpoint| &endpoint.network);
        match networks.find_map(|network| self.refused.get(network)) {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(()),
        }
    }
}

impl From<GrantError> for Refusal {
    fn from(error: GrantError) -> Self {
        let message = one_line(&error);
        let refusal = match &error {
            GrantError::NotInstalled
            | GrantError::NotGranted { .. }
            | GrantError::NoSubnet { .. } => conflict(message),
            GrantError::Refused { .. } | GrantError::Thread(_) => failed(message),
        };
        refusal.with_hint(error.hint())
    }
}

/// Leads these networks out; false where one of them stays without.
pub(super) async fn lead(told: &mut Told, way: Way, helper: &helper::Helper) -> bool {
    told.kernel.refused.clear();
    if way.networks.is_empty() {
        return true;
    }
    let wanted: BTreeSet<IpNet> = subnets_of(&way.networks);
    if told.kernel.made.is_some() && told.kernel.subnets == wanted {
        return true;
    }
    match uplink_subnets().await {
        Ok(granted) => {
            let (networks, refused) = divide(way.networks, &granted);
            told.kernel.refused = refused;
            let subnets = subnets_of(&networks);
            if subnets.is_empty() || told.kernel.subnets == subnets && told.kernel.made.is_some() {
                return told.kernel.refused.is_empty();
            }
            match make(&subnets, way.mtu, helper).await {
                Ok(made) => {
                    info!(?subnets, interface = %made.host.name, "networks leave by the kernel");
                    told.uplinks.insert(UplinkKind::Kernel);
                    told.kernel.made = Some(made);
                    told.kernel.subnets = subnets;
                }
                Err(refusal) => refuse(told, networks.into_keys(), &refusal),
            }
        }
        Err(error) => refuse(told, way.networks.into_keys(), &error.into()),
    }
    told.kernel.refused.is_empty()
}

type Networks = BTreeMap<SandboxId, (String, Vec<IpNet>)>;

fn subnets_of(networks: &Networks) -> BTreeSet<IpNet> {
    networks
        .values()
        .flat_map(|(_, subnets)| subnets)
        .copied()
        .collect()
}

/// Those that are granted, and why others are not.
fn divide(networks: Networks, granted: &[IpNet]) -> (Networks, BTreeMap<SandboxId, Refusal>) {
    let mut refused = BTreeMap::new();
    let mut led = Networks::new();
    for (id, (name, subnets)) in networks {
        match check_granted(&subnets, granted) {
            Ok(()) => drop(led.insert(id, (name, subnets))),
            Err(error) => {
                warn!(network.name = name, %error, "network has no way out");
                refused.insert(id, error.into());
            }
        }
    }
    (led, refused)
}

fn refuse(told: &mut Told, networks: impl Iterator<Item = SandboxId>, refusal: &Refusal) {
    warn!(error = %refusal, "networks with uplink kernel have no way out");
    let refused = networks.map(|id| (id, refusal.clone()));
    told.kernel.refused.extend(refused);
}

async fn make(subnets: &BTreeSet<IpNet>, mtu: u32, helper: &helper::Helper) -> Answer<UplinkMade> {
    let made = match ask_for(subnets, mtu, helper).await {
        // Ours of before, which it has no record of any more.
        Err(GrantFailure::Grant(GrantError::Refused {
            source: CallError::Unavailable(Unavailable::InUse),
            ..
        })) => {
            let kind = UplinkKind::Kernel;
            helper.call(Request::StopUplink { kind }).await?;
            ask_for(subnets, mtu, helper).await
        }
        asked => asked,
    }?;
    helper.call(Request::KernelUplink(link(&made)?)).await?;
    Ok(made)
}

/// It was not granted, or we could not ask.
enum GrantFailure {
    Grant(GrantError),
    Ours(Refusal),
}

impl From<GrantFailure> for Refusal {
    fn from(failure: GrantFailure) -> Self {
        match failure {
            GrantFailure::Grant(error) => error.into(),
            GrantFailure::Ours(refusal) => refusal,
        }
    }
}

async fn ask_for(
    subnets: &BTreeSet<IpNet>,
    mtu: u32,
    helper: &helper::Helper,
) -> Result<UplinkMade, GrantFailure> {
    let path = helper.router_netns();
    let router = File::open(&path).map_err(FileError::on("open", &path));
    let router: OwnedFd = router
        .map_err(|error| GrantFailure::Ours(error.into()))?
        .into();
    let wanted = Uplink {
        inside: link_name().map_err(GrantFailure::Ours)?,
        mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
        subnets: subnets.iter().copied().collect(),
    };
    let made = ask("ask mossnet-helper for an uplink", move |installed| {
        installed.uplink(wanted, router.as_fd())
    });
    made.await.map_err(GrantFailure::Grant)
}

fn link_name() -> Answer<mossnet_helper::IfName> {
    Ok(KERNEL_LINK.parse::<mossnet_helper::IfName>()?)
}

/// The router's end.
fn link(made: &UplinkMade) -> Answer<KernelLink> {
    let net = |address, length| {
        IpNet::new(address, length).map_err(|error| failed(format!("{address}: {error}")))
    };
    Ok(KernelLink {
        ifname: link_name()?,
        host_mac: made.host_mac,
        router_mac: made.router_mac,
        addresses: vec![
            net(ROUTER_V4.into(), LINK_V4)?,
            net(ROUTER_V6.into(), LINK_V6)?,
        ],
        gateways: vec![HOST_V4.into(), HOST_V6.into()],
    })
}

/// Takes the link away, and what the host keeps for it.
pub(super) async fn release(told: &mut Told, helper: &helper::Helper) -> Answer<()> {
    give_back(told.kernel.made.take()).await;
    told.kernel.lost();
    let kind = UplinkKind::Kernel;
    helper.call(Request::StopUplink { kind }).await?;
    Ok(())
}

/// The host's side alone; without an uplink that we know of, what a dead owner left.
pub(super) async fn give_back(made: Option<UplinkMade>) {
    let given = match made {
        Some(made) => {
            ask("release the uplink", move |installed| {
                installed.release(made.host)
            })
            .await
        }
        None => ask("collect what is left", |installed| installed.gc()).await,
    };
    match given {
        Ok(()) => info!("the kernel's uplink is given back"),
        Err(error) => warn!(
            error = one_line(&error),
            "the kernel's uplink is not given back"
        ),
    }
}

/// Until the kernel has taken the router netns down, which it does in its own time: before, the link
/// there is nobody's leftover.
async fn collect() {
    for pause in COLLECT_PAUSES {
        tokio::time::sleep(pause).await;
        give_back(None).await;
        let left = ask("ask mossnet-helper what there is", Helper::query).await;
        if !left.is_ok_and(|grants| grants.interfaces.now > 0) {
            return;
        }
    }
}

impl Daemon {
    /// What an earlier helper's uplink may have left on the host; where no network can have had one,
    /// nobody is asked.
    pub(super) async fn collect_kernel_uplink(&self) {
        let concerned = self.0.model.lock().await.networks().any(leaves_by_kernel);
        if concerned && installed::helper().is_some() {
            tokio::spawn(collect());
        }
    }

    /// The host's routes changed: an admin may have removed the link, which is then asked for again.
    pub(super) async fn check_kernel_uplink(&self) {
        let helper = {
            let link = self.0.link.lock().await;
            let made = link.told.kernel.made().is_some();
            link.current().cloned().filter(|_| made)
        };
        let Some(helper) = helper else { return };
        match helper.inventory().await {
            Ok(inventory) if !inventory.uplinks.contains(&UplinkKind::Kernel) => {
                warn!("the kernel's uplink is gone; it is asked for again");
                let mut link = self.0.link.lock().await;
                link.told.uplink_ended(UplinkKind::Kernel);
                drop(link);
                self.refresh().await;
            }
            Ok(_) => {}
            Err(error) => warn!(%error, "the kernel's uplink cannot be looked at"),
        }
    }

    /// Before a network gets it: whether these prefixes are granted.
    pub(super) async fn check_kernel_grant(&self, prefixes: &[IpNet]) -> Answer<()> {
        Ok(granted::check_granted(prefixes, &uplink_subnets().await?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::model::samples;

    #[test]
    fn one_network_without_a_grant_takes_the_way_from_no_other() {
        let mut networks = ["10.200.1.0/24", "10.77.0.0/24", "10.200.2.0/24"].map(|prefix| {
            let id = prefix.as_bytes()[prefix.len() - 6];
            let mut network = samples::network(&format!("net{id}"), id, prefix);
            network.uplink = UplinkKind::Kernel;
            network
        });
        networks[2].internal = true;
        networks[0].mtu = 9000;
        let way = Way::of(networks.iter());
        assert_eq!((way.networks.len(), way.mtu), (2, 9000));
        let (led, refused) = divide(way.networks, &["10.200.0.0/16".parse().unwrap()]);
        let subnets: Vec<_> = subnets_of(&led).iter().map(ToString::to_string).collect();
        assert_eq!(subnets, ["10.200.1.0/24"]);
        let told = KernelUplink {
            refused,
            ..KernelUplink::default()
        };
        let endpoint = |on: &Network| samples::endpoint(9, on, "10.0.0.2/24", 0);
        assert!(told.check(&[endpoint(&networks[0])]).is_ok());
        let refusal = told.check(&[endpoint(&networks[1])]).unwrap_err();
        assert!(refusal.body.message.contains("10.77.0.0/24"), "{refusal}");
        assert_eq!(refusal.status, 409);
    }
}
