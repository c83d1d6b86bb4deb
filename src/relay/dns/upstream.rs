//! Asking the resolvers outside: the host's, or those set for a network.
//!
//! Place: behind `server`; its sockets are made by this thread, in the host netns, so loopback
//! resolvers such as 127.0.0.53 work. Invariants: UDP is asked over [`super::lanes`], whose top says how
//! hard an answer is to forge; at most [`MAX_SERVERS`] resolvers a query; an answer or a failure within
//! [`Timing::total`].
//!
//! The next resolver is tried when one fails, and beside it when one is silent for a second: a slow
//! answer is still taken. A resolver that failed is asked last for a while.
//!
//! Nearly every question is answered by the first resolver at once: that costs no task and no timer
//! ([`Upstream::tell_first`]). Whatever else happens is [`Upstream::go_on`]'s.

use super::lanes::{Heard, Lanes, Listener, Ticket, random};
use super::message::{ClientQuery, is_truncated, response_code};
use hickory_proto::op::ResponseCode;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

/// Resolvers asked for one query, as resolv.conf(5) has it (MAXNS).
pub const MAX_SERVERS: usize = 3;

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Port of the resolvers.
    pub port: u16,
    /// Until the client is told SERVFAIL. Under the 5 s after which stub resolvers give up, so
    /// that they read a reason.
    pub total: Duration,
    /// Silence before the next resolver is asked too.
    pub patience: Duration,
    /// Silence before the same resolver is asked again, from the same port.
    pub resend: Duration,
    /// How long a resolver that failed is asked last.
    pub distrust: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            port: 53,
            total: Duration::from_millis(4_500),
            patience: Duration::from_secs(1),
            resend: Duration::from_secs(2),
            distrust: Duration::from_secs(30),
        }
    }
}

/// The resolvers, and how they behaved.
pub struct Upstream {
    timing: Timing,
    lanes: Rc<Lanes>,
    failed: RefCell<HashMap<IpAddr, Instant>>,
}

/// What one resolver said.
type Outcome = (IpAddr, io::Result<Vec<u8>>);

/// The resolvers for one question, those first that are asked first, and the time.
#[derive(Debug, Clone, Copy)]
pub struct Turns {
    servers: [Option<IpAddr>; MAX_SERVERS],
    since: Instant,
}

/// How the first resolver disappointed.
pub enum Disappointment {
    /// It has not been asked.
    None,
    /// It cannot be asked.
    Failure(io::Error),
    /// It could not answer, and said this.
    Excuse(Vec<u8>),
    /// It has not answered yet.
    Silence(Ticket),
}

/// What a resolver is asked in the background.
struct Attempt {
    query: Rc<ClientQuery>,
    server: IpAddr,
    /// It has been asked already, at this time.
    asked: Option<(Ticket, Instant)>,
    timing: Timing,
    lanes: Rc<Lanes>,
    whole: bool,
}

impl Turns {
    fn first(&self) -> Option<IpAddr> {
        self.servers.first().copied().flatten()
    }
}

impl Upstream {
    /// With other than the usual patience.
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            lanes: Lanes::new(timing.patience / 8),
            failed: RefCell::default(),
        }
    }

    /// In which turn to ask: the first few, those that failed lately last.
    pub fn turns(&self, servers: &[IpAddr]) -> Turns {
        let now = Instant::now();
        let mut turns = Turns {
            servers: [None; MAX_SERVERS],
            since: now,
        };
        for (place, server) in turns.servers.iter_mut().zip(servers) {
            *place = Some(*server);
        }
        let mut failed = self.failed.borrow_mut();
        if !failed.is_empty() {
            failed.retain(|_, since| now.saturating_duration_since(*since) < self.timing.distrust);
            turns
                .servers
                .sort_by_key(|server| server.map_or(2, |it| u8::from(failed.contains_key(&it))));
        }
        turns
    }

    /// Asks the first of `turns` over UDP. `listener` hears what becomes of it, of silence as soon as it is
    /// time to go on.
    pub fn tell_first(&self, turns: &Turns, query: &Rc<ClientQuery>, listener: Listener) {
        let Some(first) = turns.first() else {
            return listener(Heard::Failure(io::ErrorKind::NotFound.into()));
        };
        let alone = turns.servers.iter().flatten().count() == 1;
        let patience = if alone {
            self.timing.resend
        } else {
            self.timing.patience
        };
        let server = SocketAddr::new(first, self.timing.port);
        self.lanes
            .tell(server, Rc::clone(query), patience, listener);
    }

    /// The first of `turns` has answered: `answer`, if that is a verdict.
    pub fn accept(&self, turns: &Turns, answer: &[u8]) -> bool {
        if !is_verdict(answer) {
            return false;
        }
        if let Some(first) = turns.first() {
            self.failed.borrow_mut().remove(&first);
        }
        true
    }

    /// Asks on until there is an answer, and gives it as it came, or `None` where nobody gave any. `whole`:
    /// fetches over TCP what does not fit a datagram.
    pub async fn go_on(
        &self,
        query: &Rc<ClientQuery>,
        turns: Turns,
        from: Disappointment,
        whole: bool,
    ) -> Option<Vec<u8>> {
        let mut last_resort = None;
        let left = self.timing.total.saturating_sub(turns.since.elapsed());
        let asking = self.ask_in_turn(query, turns, from, whole, &mut last_resort);
        let answer = timeout(left, asking).await.ok().flatten();
        answer.or(last_resort)
    }

    async fn ask_in_turn(
        &self,
        query: &Rc<ClientQuery>,
        turns: Turns,
        from: Disappointment,
        whole: bool,
        last_resort: &mut Option<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        let mut asked: JoinSet<Outcome> = JoinSet::new();
        let attempt = |server, asked| Attempt {
            query: Rc::clone(query),
            server,
            asked,
            timing: self.timing,
            lanes: Rc::clone(&self.lanes),
            whole,
        };
        let mut waiting = turns.servers.iter().flatten().copied().peekable();
        if let Some((first, ticket)) = self.begin(&turns, from, last_resort, &mut waiting) {
            asked.spawn_local(attempt(first, Some((ticket, turns.since))).make());
        }
        loop {
            // Each turn asks one more, for the turn before ended in a failure or in silence.
            let newest = waiting.next();
            if let Some(server) = newest {
                asked.spawn_local(attempt(server, None).make());
            }
            let alone = waiting.peek().is_none();
            let patience = if alone {
                self.timing.total
            } else {
                self.timing.patience
            };
            match timeout(patience, asked.join_next()).await {
                Ok(None) => return None,
                Ok(Some(Ok((server, Ok(answer))))) => {
                    if is_verdict(&answer) {
                        self.failed.borrow_mut().remove(&server);
                        return Some(answer);
                    }
                    *last_resort = Some(answer);
                }
                Ok(Some(Ok((server, Err(error))))) => self.fails(server, &error),
                Ok(Some(Err(error))) => debug!(%error, "dns upstream task ended early"),
                Err(_silence) => {
                    if let Some(silent) = newest {
                        self.distrust(silent);
                    }
                }
            }
        }
    }

    /// Takes the first resolver's turn out of `waiting` where it has had it; its ticket if it may still answer.
    fn begin(
        &self,
        turns: &Turns,
        from: Disappointment,
        last_resort: &mut Option<Vec<u8>>,
        waiting: &mut impl Iterator<Item = IpAddr>,
    ) -> Option<(IpAddr, Ticket)> {
        let first = turns.first()?;
        match from {
            Disappointment::None => return None,
            Disappointment::Failure(error) => self.fails(first, &error),
            Disappointment::Excuse(answer) => *last_resort = Some(answer),
            Disappointment::Silence(ticket) => {
                // Alone it is only asked again, and would be asked first in any case.
                if turns.servers.iter().flatten().count() > 1 {
                    self.distrust(first);
                }
                waiting.next();
                return Some((first, ticket));
            }
        }
        waiting.next();
        None
    }

    fn fails(&self, server: IpAddr, error: &io::Error) {
        debug!(upstream.addr = %server, %error, "dns upstream failed");
        self.distrust(server);
    }

    fn distrust(&self, server: IpAddr) {
        self.failed.borrow_mut().insert(server, Instant::now());
    }
}

/// Whether the resolver answered the question, rather than that it could not.
fn is_verdict(answer: &[u8]) -> bool {
    !matches!(
        response_code(answer),
        ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp
    )
}

impl Attempt {
    async fn make(self) -> Outcome {
        let (server, query, whole) = (self.server, Rc::clone(&self.query), self.whole);
        let address = SocketAddr::new(server, self.timing.port);
        let outcome = match self.by_udp(address).await {
            Ok(answer) if whole && is_truncated(&answer) => by_tcp(&query, address).await,
            other => other,
        };
        (server, outcome)
    }

    /// Never returns on silence: the caller's patience ends it.
    async fn by_udp(self, server: SocketAddr) -> io::Result<Vec<u8>> {
        let resend = self.timing.resend;
        let (mut ticket, mut wait) = match self.asked {
            Some((ticket, since)) => (ticket, resend.saturating_sub(since.elapsed())),
            None => (self.lanes.ask(server, self.query)?, resend),
        };
        loop {
            if let Ok(answer) = timeout(wait, ticket.answer()).await {
                return answer;
            }
            ticket.send_again();
            wait = resend;
        }
    }
}

async fn by_tcp(query: &ClientQuery, server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let id = random();
    let message = query.forwarded(id);
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(&message);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if query.matches(&answer, id) {
        return Ok(answer);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "answer to another question",
    ))
}
