//! One query from its bytes to its answer's bytes, whichever way it came.
//!
//! Place: between the transports (`udp`, `tcp`) and zone, cache and upstream. Lives on one thread;
//! no borrow of its state is held across an await. Invariants: a message is answered at most once;
//! what can be answered here is, even when every slot for forwarding is taken.

use super::cache::Cache;
use super::lanes::Heard;
use super::limits::{Limits, Slot};
use super::message::{ClientQuery, Rejection, lifetime, record};
use super::upstream::{Disappointment, MAX_SERVERS, Turns, Upstream};
use super::zone::{Verdict, View, Zone, Zones};
use crate::network::snapshot::Snapshot;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RData;
use std::borrow::Cow;
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
    /// How often the resolvers have changed.
    resolvers: u64,
}

/// What to do about a message.
pub enum Step {
    /// Send this.
    Answer(Vec<u8>),
    /// Have [`Server::forward`] or [`Server::forward_datagram`] find an answer.
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
    /// Where an answer is kept, if it may be.
    key: Option<Rc<[u8]>>,
    /// [`State::resolvers`] when it was asked.
    resolvers: u64,
    /// Held for as long as the query is under way.
    _slot: Slot,
}

impl Forward {
    fn servers(&self) -> &[IpAddr] {
        self.own.as_ref().unwrap_or(&self.zone.upstreams)
    }
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
                resolvers: 0,
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
        let key = match own {
            None => query.cache_key(zone.bridge.as_str()),
            Some(_) => None,
        };
        let state = self.state.borrow();
        if let Some(key) = &key
            && let Some(mut answer) = state.cache.get(key, Instant::now())
        {
            query.adopt(&mut answer);
            return Step::Answer(fit(&query, &answer, via).into_owned());
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
            key,
            resolvers: state.resolvers,
            _slot: slot,
        })
    }

    /// Asks the outside resolvers; always ends in an answer.
    pub async fn forward(&self, forward: Forward) -> Vec<u8> {
        let turns = self.upstream.turns(forward.servers());
        self.go_on(&forward, turns, Disappointment::None).await
    }

    /// The same for a client that asked with a datagram: `reply` gets the answer, perhaps at once.
    pub fn forward_datagram(
        self: &Rc<Self>,
        forward: Forward,
        reply: impl FnOnce(&[u8]) + 'static,
    ) {
        let turns = self.upstream.turns(forward.servers());
        let query = Rc::clone(&forward.query);
        let server = Rc::clone(self);
        let listener = Box::new(move |heard: Heard<'_>| {
            let disappointment = match heard {
                Heard::Answer(answer) if server.upstream.accept(&turns, answer) => {
                    return reply(&server.finish(&forward, answer));
                }
                Heard::Answer(excuse) => Disappointment::Excuse(excuse.to_vec()),
                Heard::Failure(error) => Disappointment::Failure(error),
                Heard::Silence(ticket) => Disappointment::Silence(ticket),
            };
            tokio::task::spawn_local(async move {
                reply(&server.go_on(&forward, turns, disappointment).await);
            });
        });
        self.upstream.tell_first(&turns, &query, listener);
    }

    async fn go_on(&self, forward: &Forward, turns: Turns, from: Disappointment) -> Vec<u8> {
        let query = &forward.query;
        let whole = forward.via == Via::Tcp;
        match self.upstream.go_on(query, turns, from, whole).await {
            Some(mut answer) => self.finish(forward, &mut answer).into_owned(),
            None => query.answer(ResponseCode::ServFail, &[]),
        }
    }

    /// Keeps an upstream's answer where it may be kept, and makes it the client's.
    fn finish<'a>(&self, forward: &Forward, answer: &'a mut [u8]) -> Cow<'a, [u8]> {
        if let (Some(key), Some(ttl)) = (&forward.key, lifetime(answer)) {
            let mut state = self.state.borrow_mut();
            // An answer of resolvers that have been replaced meanwhile must not outlive them.
            if forward.resolvers == state.resolvers {
                state.cache.put(key, answer, ttl, Instant::now());
            }
        }
        forward.query.adopt(answer);
        fit(&forward.query, answer, forward.via)
    }

    /// What `client` may ask at `gateway`, by the newest rules.
    fn view(&self, gateway: IpAddr, client: IpAddr) -> Option<View> {
        let current = (self.rules)();
        let mut state = self.state.borrow_mut();
        if !Arc::ptr_eq(&current, &state.snapshot) {
            if !same_resolvers(&current, &state.snapshot) {
                state.cache.clear();
                state.resolvers += 1;
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
    let answer = query.answer(ResponseCode::NoError, &records);
    fit(query, &answer, via).into_owned()
}

fn fit<'a>(query: &ClientQuery, answer: &'a [u8], via: Via) -> Cow<'a, [u8]> {
    let limit = match via {
        Via::Udp => query.udp_limit(),
        Via::Tcp => usize::from(u16::MAX),
    };
    query.fit(answer, limit)
}
