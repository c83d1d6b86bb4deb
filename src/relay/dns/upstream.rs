//! Asking the resolvers outside: the host's, or those set for a network.
//!
//! Place: behind `server`; its sockets are made by this thread, in the host netns, so loopback
//! resolvers such as 127.0.0.53 work. Invariants: each query has a socket of its own, hence a fresh
//! random port besides its random id, connected, so that only the asked resolver is heard (RFC 5452
//! §9); at most [`MAX_SERVERS`] sockets a query; an answer or a failure within [`Timing::total`].
//!
//! The next resolver is tried when one fails, and beside it when one is silent for a second: a slow
//! answer is still taken. A resolver that failed is asked last for a while.

use super::message::{ClientQuery, is_truncated, response_code};
use hickory_proto::op::{Message, ResponseCode};
use nix::sys::socket::{MsgFlags, recv};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket};
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
    /// Silence before the same resolver is asked again, on the same socket.
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
#[derive(Debug, Default)]
pub struct Upstream {
    timing: Timing,
    failed: RefCell<HashMap<IpAddr, Instant>>,
}

/// What one resolver said.
type Outcome = (IpAddr, io::Result<Vec<u8>>);

impl Upstream {
    /// With other than the usual patience.
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            failed: RefCell::default(),
        }
    }

    /// An answer as it came, or `None` where nobody gave any. `whole`: fetch over TCP what does not
    /// fit a datagram.
    pub async fn ask(
        &self,
        query: &Rc<ClientQuery>,
        servers: &[IpAddr],
        whole: bool,
    ) -> Option<Vec<u8>> {
        let mut last_resort = None;
        let asking = self.ask_in_turn(query, self.order(servers), whole, &mut last_resort);
        let answer = timeout(self.timing.total, asking).await.ok().flatten();
        answer.or(last_resort)
    }

    async fn ask_in_turn(
        &self,
        query: &Rc<ClientQuery>,
        order: Vec<IpAddr>,
        whole: bool,
        last_resort: &mut Option<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        let mut waiting = order.into_iter();
        let mut asked: JoinSet<Outcome> = JoinSet::new();
        loop {
            // Each turn asks one more, for the turn before ended in a failure or in silence.
            let newest = waiting.next();
            if let Some(server) = newest {
                asked.spawn_local(attempt(Rc::clone(query), server, self.timing, whole));
            }
            let alone = waiting.as_slice().is_empty();
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
                Ok(Some(Ok((server, Err(error))))) => {
                    debug!(upstream.addr = %server, %error, "dns upstream failed");
                    self.distrust(server);
                }
                Ok(Some(Err(error))) => debug!(%error, "dns upstream task ended early"),
                Err(_silence) => {
                    if let Some(silent) = newest {
                        self.distrust(silent);
                    }
                }
            }
        }
    }

    fn distrust(&self, server: IpAddr) {
        self.failed.borrow_mut().insert(server, Instant::now());
    }

    /// The first few, those that failed lately last.
    fn order(&self, servers: &[IpAddr]) -> Vec<IpAddr> {
        let now = Instant::now();
        let mut failed = self.failed.borrow_mut();
        failed.retain(|_, since| now.saturating_duration_since(*since) < self.timing.distrust);
        let mut order: Vec<_> = servers.iter().copied().take(MAX_SERVERS).collect();
        order.sort_by_key(|server| failed.contains_key(server));
        order
    }
}

/// Whether the resolver answered the question, rather than that it could not.
fn is_verdict(answer: &[u8]) -> bool {
    !matches!(
        response_code(answer),
        ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp
    )
}

async fn attempt(query: Rc<ClientQuery>, server: IpAddr, timing: Timing, whole: bool) -> Outcome {
    let address = SocketAddr::new(server, timing.port);
    let outcome = match by_udp(&query, address, timing.resend).await {
        Ok(answer) if whole && is_truncated(&answer) => by_tcp(&query, address).await,
        other => other,
    };
    (server, outcome)
}

/// Never returns on silence: the caller's patience ends it.
async fn by_udp(query: &ClientQuery, server: SocketAddr, resend: Duration) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Port 0: the kernel draws one at random.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let id = random_id();
    let message = query.forwarded(id);
    loop {
        socket.send(&message).await?;
        if let Ok(answer) = timeout(resend, hear(&socket, query, id)).await {
            return answer;
        }
    }
}

/// The first datagram that answers the query; others are forgeries or late.
async fn hear(socket: &UdpSocket, query: &ClientQuery, id: u16) -> io::Result<Vec<u8>> {
    // A refusal (ICMP) shows as an error alone, not as something to read.
    let interest = Interest::READABLE | Interest::ERROR;
    loop {
        let answer = socket.async_io(interest, || receive(socket)).await?;
        if query.matches(&answer, id) {
            return Ok(answer);
        }
    }
}

fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    DATAGRAM.with_borrow_mut(|buffer| {
        let length = recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?;
        Ok(buffer.get(..length).unwrap_or_default().to_vec())
    })
}

thread_local! {
    /// Holds any datagram; shared, as 64 KiB for each waiting query would be far too much.
    static DATAGRAM: RefCell<Vec<u8>> = RefCell::new(vec![0; 65_536]);
}

async fn by_tcp(query: &ClientQuery, server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let id = random_id();
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

/// From a generator fit for the purpose: hickory draws the ids of its queries from a CSPRNG.
fn random_id() -> u16 {
    Message::query().metadata.id
}
