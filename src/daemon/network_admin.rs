//! Networks made and removed at the user's word.
//!
//! Invariants: whether a network is used is decided in the same hold of the model in which it is
//! removed, as a sandbox's joining is in the hold in which it is recorded; so neither can slip in
//! between. Bridges follow the records (`networks`).

use super::model::Model;
use super::network_draft::{self, NetworkDraft};
use super::network_filter::Filter;
use super::network_info::predefined_by_id;
use super::networks::{Pools, new_subnets, random_mac};
use super::refusal::{conflict, failed, malformed};
use super::uplink::uplink;
use super::{Daemon, apply, clock};
use crate::api::control::{Answer, Refusal};
use crate::api::network_types::{NetworkCreate, NetworkPrune, Pruned};
use crate::api::types::Created;
use crate::ipam::{Overlap, check_free};
use crate::kernel::granted::{GrantError, check_granted, uplink_subnets};
use crate::kernel::helper::HelperError;
use crate::kernel::host;
use crate::network::model::{DEFAULT_MTU, Driver};
use crate::network::names::bridge_name;
use crate::network::{Network, NetworkName, Sandbox};
use ipnet::IpNet;
use mossnet_helper::SandboxId;
use mossnet_helper::request::{BridgeSpec, Failure, Request, UplinkKind};
use nix::errno::Errno;
use tracing::{debug, info};

/// How often to remove a network's sandboxes, where others join meanwhile.
const ATTEMPTS: u32 = 3;

/// Sandboxes that a message names at most.
const NAMED: usize = 10;

impl Daemon {
    /// Makes a network; its bridge comes with the first sandbox on it.
    pub(super) async fn make_network(&self, request: NetworkCreate) -> Answer<Created> {
        let draft = network_draft::check(request)?;
        // Better said now than at the first run.
        uplink(draft.uplink).prepare()?;
        let granted = match draft.uplink {
            UplinkKind::Kernel => {
                let granted = uplink_subnets().await?;
                let given: Vec<IpNet> = draft.subnets.iter().map(|on| on.subnet.prefix()).collect();
                check_granted(&given, &granted)?;
                Some(granted)
            }
            _ => None,
        };
        if let Some(vlan) = draft.options.vlan {
            self.try_vlan(&draft.name, vlan).await?;
        }
        // The default one has the first choice.
        if let Err(refusal) = self.default_network_exists().await {
            debug!(error = %refusal, "no default network");
        }
        let host = host::prefixes().await?;
        let mut model = self.0.model.lock().await;
        let pools = match granted {
            Some(granted) => Pools::granted(&granted),
            None => Pools::ours(&model)?,
        };
        let network = new_network(&model, draft, pools, &host)?;
        info!(network.name = %network.name, subnets = ?network.prefixes(), "network made");
        let id = network.id.clone();
        model.put_network(network)?;
        let warnings = Vec::new();
        Ok(Created { id, warnings })
    }

    /// Whether the kernel can put a bridge into a VLAN: it makes one that is taken back at once. After
    /// a crash in between it is a bridge of no network, which `reconcile` removes.
    async fn try_vlan(&self, network: &NetworkName, vlan: u16) -> Answer<()> {
        let helper = self.helper().await?;
        let id = clock::new_id().map_err(|error| failed(format!("random bytes: {error}")))?;
        let trial = BridgeSpec {
            name: bridge_name(&id)?,
            mac: random_mac()?,
            mtu: DEFAULT_MTU,
            addresses: Vec::new(),
            icc: true,
            vlan: Some(vlan),
        };
        let name = trial.name.clone();
        let made = helper.call(Request::Bridge(trial)).await;
        apply::teardown(&helper, vec![Request::RemoveBridge { name }]).await;
        match made {
            Err(HelperError::Refused(failure)) if is_unsupported(&failure) => {
                let message = format!("network '{network}' cannot be in VLAN {vlan}: {failure}");
                Err(malformed(message).with_hint(
                    "leave -o vlan out, or use a kernel with CONFIG_BRIDGE_VLAN_FILTERING",
                ))
            }
            made => Ok(made.map(drop)?),
        }
    }

    /// Removes a network that nobody is on; with `force` together with the sandboxes on it.
    pub(super) async fn discard_network(&self, text: &str, force: bool) -> Answer<()> {
        if matches!(text, "bridge" | "default" | "host" | "none") {
            return Err(predefined(text));
        }
        for _ in 0..ATTEMPTS {
            match self.remove_unused(text).await? {
                None => {
                    // What is left in the kernel goes now, not with the next sandbox.
                    self.refresh().await;
                    return Ok(());
                }
                Some(users) if !force => return Err(users.refusal()),
                Some(users) => self.remove_sandboxes(users.ids).await?,
            }
        }
        Err(conflict(format!("sandboxes keep joining network '{text}'"))
            .with_hint("end whatever starts them, and try again"))
    }

    async fn remove_sandboxes(&self, ids: Vec<SandboxId>) -> Answer<()> {
        for id in ids {
            match self.remove_sandbox(id.as_str(), true).await {
                Err(refusal) if refusal.status != 404 => return Err(refusal),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Removes the record of a network that nobody is on; else says who is.
    async fn remove_unused(&self, text: &str) -> Answer<Option<Users>> {
        let found = {
            let model = self.0.model.lock().await;
            model.find_network(text).map(|network| network.id.clone())
        };
        let or_predefined = |refusal| match predefined_by_id(text) {
            Some(known) => predefined(&known.name),
            None => refusal,
        };
        self.end_linger_on(&found.map_err(or_predefined)?).await;
        let mut model = self.0.model.lock().await;
        let network = model.find_network(text)?.clone();
        if network.is_default() {
            return Err(predefined(network.name.as_str()));
        }
        let users = Users::of(&model, &network);
        if users.is_none() {
            model.remove_network(&network)?;
            info!(network.name = %network.name, "network removed");
        }
        Ok(users)
    }

    /// Removes every network that no sandbox has anything to do with.
    pub(super) async fn prune(&self, request: NetworkPrune) -> Answer<Pruned> {
        let filter = Filter::parse(&request.filters, clock::now())?;
        // Nobody is on a network where only the ended have something to deliver.
        self.see_off_all().await;
        let mut networks_deleted = Vec::new();
        {
            let mut model = self.0.model.lock().await;
            let unused = |network: &&Network| {
                !network.is_default() && !is_wanted(&model, network) && filter.matches(network)
            };
            let unused: Vec<_> = model.networks().filter(unused).cloned().collect();
            for network in unused {
                model.remove_network(&network)?;
                info!(network.name = %network.name, "network removed");
                networks_deleted.push(network.name.to_string());
            }
        }
        if !networks_deleted.is_empty() {
            self.refresh().await;
        }
        Ok(Pruned { networks_deleted })
    }
}

fn is_unsupported(failure: &Failure) -> bool {
    failure.errno.map(Errno::from_raw) == Some(Errno::EOPNOTSUPP)
}

/// Who is on a network.
struct Users {
    network: String,
    ids: Vec<SandboxId>,
    names: Vec<String>,
}

impl Users {
    fn of(model: &Model, network: &Network) -> Option<Self> {
        let mut users: Vec<&Sandbox> = model.on_network(&network.id).collect();
        users.sort_by_key(|sandbox| &sandbox.name);
        (!users.is_empty()).then(|| Self {
            network: network.name.to_string(),
            ids: users.iter().map(|sandbox| sandbox.id.clone()).collect(),
            names: users
                .iter()
                .map(|sandbox| sandbox.name.to_string())
                .collect(),
        })
    }

    fn refusal(&self) -> Refusal {
        let network = &self.network;
        let shown = self.names.iter().take(NAMED).cloned().collect::<Vec<_>>();
        let more = match self.names.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let first = shown.first().map_or("", String::as_str);
        conflict(format!("network {network} is in use by {}{more}", shown.join(", "))).with_hint(
            format!("take them off it (mossnet network disconnect {network} {first} …), or remove them: mossnet rm -f {first} …"),
        )
    }
}

/// Somebody is on it, or joins it when started again.
fn is_wanted(model: &Model, network: &Network) -> bool {
    let wants = |sandbox: &Sandbox| {
        let mut attachments = sandbox.attachments.iter();
        attachments.any(|a| a.network == network.id || a.network_name == network.name)
    };
    model.is_used(&network.id) || model.sandboxes().any(wants)
}

fn predefined(name: &str) -> Refusal {
    conflict(format!(
        "network {name} is a pre-defined network and cannot be removed"
    ))
}

/// A network as it was asked for, on prefixes that nobody has.
fn new_network(
    model: &Model,
    draft: NetworkDraft,
    pools: Pools,
    host: &[IpNet],
) -> Answer<Network> {
    let NetworkDraft {
        request,
        name,
        mut subnets,
        ipv6,
        options,
        uplink,
    } = draft;
    if model.network(name.as_str()).is_some() {
        return Err(
            conflict(format!("network '{name}' exists already")).with_hint(format!(
                "choose another name, or remove it: mossnet network rm {name}"
            )),
        );
    }
    let taken = || {
        model.networks().flat_map(|network| {
            let prefixes = network.prefixes().into_iter();
            prefixes.map(|prefix| (network.name.as_str(), prefix))
        })
    };
    for on in &subnets {
        check_free(on.subnet, taken(), host)?;
    }
    if ipv6 && !super::networks::kernel_has_ipv6() {
        return Err(malformed("the kernel has no IPv6").with_hint("leave IPv6 out"));
    }
    let has = |v4: bool| subnets.iter().any(|on| on.is_ipv4() == v4);
    let wanted = (!has(true), ipv6 && !has(false));
    let mut obstacles: Vec<IpNet> = taken().map(|(_, prefix)| prefix).collect();
    obstacles.extend(subnets.iter().map(|on| on.subnet.prefix()));
    if let Some(family) = pools.lacks(wanted) {
        return Err(GrantError::NoSubnet { family }.into());
    }
    subnets.extend(new_subnets(pools, wanted, &obstacles, host)?);
    subnets.sort_by_key(|on| !on.is_ipv4());
    let id = clock::new_id().map_err(|error| failed(format!("random bytes: {error}")))?;
    Ok(Network {
        bridge: bridge_name(&id)?,
        id,
        name,
        driver: Driver::Bridge,
        mac: random_mac()?,
        subnets,
        mtu: options.mtu,
        internal: request.internal,
        uplink,
        dns: request.dns,
        labels: request.labels,
        created: clock::now(),
        disable_dns: request.disable_dns,
        icc: options.icc,
        vlan: options.vlan,
        inhibit_ipv4: options.inhibit_ipv4,
        ifname_prefix: options.ifname_prefix,
        host_loopback: options.host_loopback,
        options: options.shown,
    })
}

impl From<Overlap> for Refusal {
    fn from(error: Overlap) -> Self {
        conflict(error.to_string()).with_hint(error.hint())
    }
}
