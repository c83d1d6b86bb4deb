//! One query from its bytes to its answer's bytes, whichever way it came.
//!
//! Place: between the transports (`udp`, `tcp`) and zone, cache and upstream. Lives on one thread;
//! no borrow of its state is held across an await. Invariants: a message is answered at most once;
//! what can be answered here is, even when every slot for forwarding is taken.

use super::cache::Cache;
use super::limits::{Limits, Slot};
use super::message::{ClientQuery, Rejection, lifetime, record};
use super::upstream::{MAX_SERVERS, Upstream};
use super::zone::{Verdict, View, Zone, Zones};
use crate::network::snapshot::Snapshot;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RData;
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, trace};

/// Seconds for which a container may keep an endpoint's address. None: one that has left must be
/// gone from caches inside containers too.
const ENDPOINT_TTL: u32 = 0;

/// Where the current rules are found; called once per query, so it must be cheap.
pub type Rules = Box<dyn Fn() -> Arc<Snapshot> + Send>;

/// How a query came, which decides how large its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A datagram.
    Udp,
    /// A connection: at most 65,535 bytes.
    Tcp,
}

/// Sizes that tests make small.
#[derive(Debug, Clone, Copy)]
pub struct Quotas {
    /// Queries waiting for outside resolvers, all together.
    pub queries: usize,
    /// The same, for one client.
    pub queries_per_client: usize,
    /// TCP connections, all together.
    pub connections: usize,
    /// The same, for one client.
    pub connections_per_client: usize,
    /// For a TCP client to deliver its next message, and to take an answer off us.
    pub idle: Duration,
}

impl Quotas {
    /// The usual ones, or less where the process may have few descriptors: an eighth of them for
    /// queries (each holds up to [`MAX_SERVERS`]), a sixteenth for connections.
    pub fn within(descriptors: u64) -> Self {
        let most = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let usual = Self::default();
        let queries = usual.queries.min(most / 8 / MAX_SERVERS);
        let connections = usual.connections.min(most / 16);
        Self {
            queries,
            connections,
            ..usual
        }
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            queries: 1024,
            queries_per_client: 256,
            connections: 256,
            connections_per_client: 32,
            idle: Duration::from_secs(10),
        }
    }
}

/// The name server.
pub struct Server {
    rules: Rules,
    state: RefCell<State>,
    upstream: Upstream,
    queries: Limits,
    connections: Limits,
    idle: Duration,
}

struct State {
    snapshot: Arc<Snapshot>,
    zones: Zones,
    cache: Cache,
}

/// What to do about a message.
pub enum Step {
    /// Send this.
    Answer(Vec<u8>),
    /// Await [`Server::forward`], then send what it gives.
    Forward(Forward),
    /// Send nothing.
    Ignore,
}

/// A query on its way to an outside resolver.
pub struct Forward {
    query: Rc<ClientQuery>,
    zone: Rc<Zone>,
    /// The client's own resolvers: what they say is for it alone, and not kept.
    own: Option<Rc<[IpAddr]>>,
    via: Via,
    /// Held for as long as the query is under way.
    _slot: Slot,
}

impl Server {
    /// A server of the current rules.
    pub fn new(rules: Rules, upstream: Upstream, quotas: Quotas) -> Self {
        let snapshot = rules();
        let zones = Zones::new(&snapshot);
        Self {
            rules,
            state: RefCell::new(State {
                snapshot,
                zones,
                cache: Cache::default(),
            }),
            upstream,
            queries: Limits::new(quotas.queries, quotas.queries_per_client),
            connections: Limits::new(quotas.connections, quotas.connections_per_client),
            idle: quotas.idle,
        }
    }

    /// How long a TCP client may stall.
    pub fn idle(&self) -> Duration {
        self.idle
    }

    /// Room for one TCP connection; `None` for strangers and for clients that have their share.
    pub fn admit(&self, gateway: IpAddr, client: IpAddr) -> Option<Slot> {
        let zone = self.view(gateway, client)?.zone;
        let slot = self.connections.take(&zone.bridge, client);
        if slot.is_none() {
            debug!(client.addr = %client, reason = "connections", "dns client over its share");
        }
        slot
    }

    /// Takes a message that `client` sent to `gateway`.
    pub fn take(&self, bytes: &[u8], gateway: IpAddr, client: IpAddr, via: Via) -> Step {
        let query = match ClientQuery::parse(bytes) {
            Ok(query) => query,
            Err(Rejection::Drop) => return Step::Ignore,
            Err(Rejection::Answer(answer)) => return Step::Answer(answer),
        };
        let Some(view) = self.view(gateway, client) else {
            return Step::Answer(query.answer(ResponseCode::Refused, &[]));
        };
        let verdict = view.decide(query.name(), query.record_type());
        trace!(client.addr = %client, query.name = query.name(), ?verdict, "dns query");
        match verdict {
            Verdict::Records(data) => Step::Answer(answer_with(&query, data, via)),
            Verdict::NoData => Step::Answer(query.answer(ResponseCode::NoError, &[])),
            Verdict::NoSuchName => Step::Answer(query.answer(ResponseCode::NXDomain, &[])),
            Verdict::Forward => self.forward_or_cached(query, view, client, via),
        }
    }

    fn forward_or_cached(&self, query: ClientQuery, view: View, client: IpAddr, via: Via) -> Step {
        let (zone, own) = (view.zone, view.resolvers);
        if let Some(key) = query.cache_key().filter(|_| own.is_none()) {
            let state = self.state.borrow();
            if let Some(answer) = state.cache.get(&zone.bridge, &key, Instant::now()) {
                return Step::Answer(fit(&query, query.adopt(answer), via));
            }
        }
        let Some(slot) = self.queries.take(&zone.bridge, client) else {
            debug!(client.addr = %client, reason = "queries", "dns client over its share");
            return Step::Answer(query.answer(ResponseCode::ServFail, &[]));
        };
        Step::Forward(Forward {
            query: Rc::new(query),
            zone,
            own,
            via,
            _slot: slot,
        })
    }

    /// Asks the outside resolvers; always ends in an answer.
    pub async fn forward(&self, forward: Forward) -> Vec<u8> {
        let Forward {
            query,
            zone,
            own,
            via,
            _slot,
        } = forward;
        let asked_of = Arc::clone(&self.state.borrow().snapshot);
        let answer = self
            .upstream
            .ask(
                &query,
                own.as_ref().unwrap_or(&zone.upstreams),
                via == Via::Tcp,
            )
            .await;
        let Some(answer) = answer else {
            return query.answer(ResponseCode::ServFail, &[]);
        };
        let key = query.cache_key().filter(|_| own.is_none());
        if let (Some(key), Some(lifetime)) = (key, lifetime(&answer)) {
            let mut state = self.state.borrow_mut();
            // An answer of resolvers that have been replaced meanwhile must not outlive them.
            if same_resolvers(&asked_of, &state.snapshot) {
                state
                    .cache
                    .put(&zone.bridge, key, &answer, lifetime, Instant::now());
            }
        }
        fit(&query, query.adopt(answer), via)
    }

    /// What `client` may ask at `gateway`, by the newest rules.
    fn view(&self, gateway: IpAddr, client: IpAddr) -> Option<View> {
        let current = (self.rules)();
        let mut state = self.state.borrow_mut();
        if !Arc::ptr_eq(&current, &state.snapshot) {
            if !same_resolvers(&current, &state.snapshot) {
                state.cache.clear();
            }
            state.zones = Zones::new(&current);
            state.snapshot = current;
        }
        // A dual-stack socket shows IPv4 addresses in IPv6 clothes.
        state
            .zones
            .find(gateway.to_canonical(), client.to_canonical())
    }
}

/// Whether both snapshots would ask the same resolvers.
fn same_resolvers(a: &Snapshot, b: &Snapshot) -> bool {
    let own = |snapshot: &Snapshot| -> Vec<_> {
        let networks = snapshot.networks.iter();
        networks
            .map(|network| (network.bridge.clone(), network.dns.clone()))
            .collect()
    };
    a.resolver == b.resolver && own(a) == own(b)
}

fn answer_with(query: &ClientQuery, data: Vec<RData>, via: Via) -> Vec<u8> {
    let name = query.spelt_name();
    let records: Vec<_> = data
        .into_iter()
        .map(|data| record(&name, ENDPOINT_TTL, data))
        .collect();
    fit(query, query.answer(ResponseCode::NoError, &records), via)
}

fn fit(query: &ClientQuery, answer: Vec<u8>, via: Via) -> Vec<u8> {
    let limit = match via {
        Via::Udp => query.udp_limit(),
        Via::Tcp => usize::from(u16::MAX),
    };
    query.fit(answer, limit)
}
