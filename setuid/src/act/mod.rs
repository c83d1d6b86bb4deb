//! Performs one request: grants, quota and rate, then the verb, each in a module of its own.
//!
//! Order within every verb: check what can be checked, charge the record, make the kernel objects, and
//! note them. Whatever fails after the charge is undone, and a process that is killed after it leaves a
//! charge without an object, or an object that its name and group tell, for whoever comes next
//! (`reconcile`).

mod bind;
mod bridge;
mod publish;
mod query;
mod reconcile;
mod refusal;
mod release;
mod uplink;
mod veth;

pub use refusal::Refusal;

use crate::accounts::Accounts;
use crate::caller::Caller;
use crate::kernel::link::Link as KernelLink;
use crate::kernel::nft::{self, Watch, host_table, port_table};
use crate::kernel::{Host, NamespaceId};
use crate::policy::{Policy, Rights};
use crate::record::{self, LinkKind, Store};
use crate::request::{Reply, Request, Verb};
use crate::{namespace, sys};
use mossnet_netlink::{IfName, MacAddr};
use nix::time::{ClockId, clock_gettime};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Refusal>;

/// What is answered, and the descriptor that goes with it.
pub type Answer = (Reply, Option<OwnedFd>);

/// How long an uplink of a namespace that is just ending is waited for: the kernel takes namespaces down
/// in the background.
const LEAVING: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// Perform a request of a caller.
pub fn perform(caller: &Caller, request: &Request, fds: &[OwnedFd]) -> Result<Answer> {
    let (wanted, got) = (request.descriptors(), fds.len());
    if wanted != got {
        return Err(Refusal::Descriptors { wanted, got });
    }
    let rights = match (caller.uid, request) {
        // Root may clean up whatever the policy says, and whatever is wrong with it.
        (0, Request::Gc) => Rights::of_root(),
        _ => {
            let policy = Policy::load(&Accounts::load()?)?;
            policy.rights(caller).ok_or(Refusal::NoGrant)?
        }
    };
    if let Some(verb) = verb(request).filter(|verb| !rights.allow(*verb)) {
        return Err(Refusal::Verb(verb));
    }
    // Before anything is locked: a descriptor may be of a file system whose server is the caller, and
    // answers when it pleases.
    if takes_namespaces(request) {
        for fd in fds {
            namespace::check(fd.as_fd(), caller.uid)?;
        }
    }
    let mut first = true;
    let deadline = Instant::now() + LEAVING;
    loop {
        let mut session = Session::open(caller.uid, &rights)?;
        if first {
            session.take_turn()?;
        }
        session.reconcile()?;
        match session.perform(request, fds) {
            Err(Refusal::Leaving) if Instant::now() < deadline => {}
            other => return other,
        }
        first = false;
        // Others have their turn meanwhile.
        drop(session);
        std::thread::sleep(PAUSE);
    }
}

/// The verb that must be granted.
fn verb(request: &Request) -> Option<Verb> {
    match request {
        Request::Veth(_) => Some(Verb::Veth),
        Request::Bridge(_) => Some(Verb::Bridge),
        Request::Uplink(_) | Request::Publish(_) => Some(Verb::Uplink),
        Request::Bind(_) => Some(Verb::Bind),
        Request::Query | Request::Release(_) | Request::Gc => None,
    }
}

/// All of its descriptors are network namespaces.
fn takes_namespaces(request: &Request) -> bool {
    match request {
        Request::Veth(_) | Request::Bridge(_) | Request::Uplink(_) => true,
        Request::Publish(_)
        | Request::Bind(_)
        | Request::Query
        | Request::Release(_)
        | Request::Gc => false,
    }
}

/// One request, under the record's lock.
struct Session<'a> {
    uid: u32,
    rights: &'a Rights,
    host: Host,
    store: Store,
}

impl<'a> Session<'a> {
    fn open(uid: u32, rights: &'a Rights) -> Result<Self> {
        let host = Host::open()?;
        let store = Store::open(host.cookie()?)?;
        Ok(Self {
            uid,
            rights,
            host,
            store,
        })
    }

    fn take_turn(&mut self) -> Result<()> {
        let most = self.rights.quota.requests_per_minute;
        let may = self.store.record.take_turn(self.uid, most, now()?);
        self.store.save()?;
        if may {
            Ok(())
        } else {
            Err(Refusal::Rate { most })
        }
    }

    fn perform(&mut self, request: &Request, fds: &[OwnedFd]) -> Result<Answer> {
        let reply = match (request, fds) {
            (Request::Query, []) => self.query()?,
            (Request::Veth(veth), [first, second]) => self.veth(veth, first, second)?,
            (Request::Bridge(bridge), [netns]) => self.bridge(bridge, netns)?,
            (Request::Uplink(uplink), [router]) => self.uplink(uplink, router)?,
            (Request::Publish(publish), sockets) => self.publish(publish, sockets)?,
            (Request::Bind(bind), []) => {
                return self.bind(*bind).map(|fd| (Reply::Bound, Some(fd)));
            }
            (Request::Release(made), []) => self.release(made)?,
            (Request::Gc, []) => self.gc()?,
            // The number of descriptors was checked.
            (_, fds) => {
                let (wanted, got) = (request.descriptors(), fds.len());
                return Err(Refusal::Descriptors { wanted, got });
            }
        };
        Ok((reply, None))
    }

    /// Charge the caller for a link that is about to be made.
    fn charge(&mut self, link: record::Link) -> Result<()> {
        let most = self.rights.quota.interfaces;
        if self.store.record.links_of(self.uid) >= most {
            let what = "interfaces";
            return Err(Refusal::Quota { what, most });
        }
        self.store.record.links.push(link);
        Ok(self.store.save()?)
    }

    /// Note the index of a link that was made.
    fn note(&mut self, id: u32, index: u32) -> Result<()> {
        let links = &mut self.store.record.links;
        if let Some(link) = links.iter_mut().find(|link| link.id == id) {
            link.index = index;
        }
        Ok(self.store.save()?)
    }

    /// Run `make`; where it fails, nothing is left of the link that it was to make.
    fn or_undo<T>(&mut self, id: u32, make: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let made = make(self);
        if made.is_err() {
            // The first failure is the one that counts; what is left is found by whoever comes next.
            let _ = self.discard(id);
        }
        made
    }

    /// Remove a link with everything that belongs to it, and strike it out.
    fn discard(&mut self, id: u32) -> Result<()> {
        let links = &self.store.record.links;
        let Some(link) = links.iter().find(|link| link.id == id).cloned() else {
            return Ok(());
        };
        if let Some(found) = self.find(&link)? {
            self.host.remove_link(place(&link), found.index)?;
        }
        self.store.record.strike(id);
        self.store.save()?;
        self.apply_rules(link.kind)
    }

    /// The kernel's link of an entry: by its index, where that is known, and never by its name alone.
    fn find(&mut self, link: &record::Link) -> Result<Option<KernelLink>> {
        let found = match link.index {
            0 => self.host.link_named(place(link), &link.name)?,
            index => self.host.link_at(place(link), index)?,
        };
        // In its own namespace the caller may call it something else.
        let named =
            |found: &KernelLink| link.kind == LinkKind::Veth || found.name == link.name.as_str();
        Ok(found.filter(|found| found.is_ours() && named(found)))
    }

    /// Make the kernel's rules follow the record.
    fn apply_rules(&mut self, kind: LinkKind) -> Result<()> {
        let record = &self.store.record;
        let links = record.links.iter().filter(|link| link.kind == kind);
        match kind {
            LinkKind::Veth => Ok(()),
            LinkKind::Bridge => {
                let ports = links.map(|link| nft::Port {
                    name: link.name.clone(),
                    mac: link.inside_mac,
                    addresses: link.prefixes.clone(),
                });
                let table = port_table(&ports.collect::<Vec<_>>());
                Ok(self.host.replace_table(&table)?)
            }
            LinkKind::Uplink => {
                let all_made = links.clone().all(|link| link.index != 0);
                let uplinks = links.map(|link| nft::Uplink {
                    name: link.name.clone(),
                    subnets: link.prefixes.clone(),
                });
                let published = record.sockets.iter().filter_map(|socket| {
                    let (_, target) = socket.published?;
                    let mark = socket.mark();
                    Some(nft::Published { mark, target })
                });
                let (uplinks, published) = (uplinks.collect(), published.collect());
                self.apply_uplink_rules(uplinks, published, all_made)
            }
        }
    }

    fn apply_uplink_rules(
        &mut self,
        uplinks: Vec<nft::Uplink>,
        published: Vec<nft::Published>,
        all_made: bool,
    ) -> Result<()> {
        // A kernel before Linux 5.10 refuses, and any does where a link has just gone. Then nothing is changed.
        let at_links = host_table(&uplinks, &published, Watch::Ingress);
        if all_made && self.host.replace_table(&at_links).is_ok() {
            return Ok(());
        }
        let everywhere = host_table(&uplinks, &published, Watch::Prerouting);
        Ok(self.host.replace_table(&everywhere)?)
    }
}

/// Where the end is of which account is kept.
fn place(link: &record::Link) -> Option<NamespaceId> {
    match link.kind {
        LinkKind::Veth => Some(NamespaceId(link.namespace)),
        LinkKind::Bridge | LinkKind::Uplink => None,
    }
}

/// The name of a link in the host: a prefix, and its number.
fn link_name(prefix: &str, id: u32) -> Result<IfName> {
    // Nine bytes, all of them legal.
    let name = IfName::try_from(format!("{prefix}{id:06x}"));
    name.map_err(|_| Refusal::System(nix::errno::Errno::EINVAL))
}

/// Milliseconds since the start of the machine, sleep included.
fn now() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(Refusal::System)?;
    let seconds = now.tv_sec().cast_unsigned() * 1000;
    Ok(seconds + now.tv_nsec().cast_unsigned() / 1_000_000)
}

/// A random MAC address of the kind that anybody may use: unicast, locally administered.
fn random_mac() -> Result<MacAddr> {
    let mut octets: [u8; 6] = sys::random().map_err(Refusal::System)?;
    octets[0] = (octets[0] & 0xfc) | 2;
    // Its first byte is neither zero nor odd.
    MacAddr::try_from(octets).map_err(|_| Refusal::System(nix::errno::Errno::EIO))
}
