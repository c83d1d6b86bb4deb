//! TCP by published ports: from accept to a flow.
//!
//! The kernel has accepted a client (backlog) before we know of it. We connect to the container at
//! once; the two are in one kernel, so the handshake is usually over when connect(2) returns, and
//! the connection goes to [`Tcp`] without waiting. What the client has sent by then, often its whole
//! question, was read before and goes with the handshake's last segment. Otherwise it is an
//! *opening*, and nothing more is read: the client's bytes wait in its own socket. Where the container
//! refuses, the client gets RST: it sees its connection reset right after it was made, or within
//! connect(2), as it would where a server resets at once. A client that was reset by then leads to no
//! connection.
//!
//! Invariant: while an opening lives, [`DESCRIPTORS`] are taken from the budget; they pass to the
//! flow, or are given back. A container that does not answer holds up nobody: its openings are
//! bounded, and end when its clients leave. Who is refused is led to the container's address of the other
//! family, where the publish says so: a service may listen at one only.

use super::conversations::{Conversations, Reservation};
use super::listener::{Counters, plain};
use super::table::{Published, Target};
use super::towards;
use crate::relay::event_loop::{Interest, Key, Owner, Token};
use crate::relay::slots::Slots;
use crate::relay::tcp::Tcp;
use crate::relay::tcp::direction::Early;
use crate::relay::tcp::flow::{DESCRIPTORS, Passage, reset_on_close};
use crate::relay::tcp::framed::asked::{Question, Unanswered};
use crate::relay::worker::Context;
use socket2::{SockAddr, SockRef};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a container may take to answer: three SYNs. The kernel would go on for two minutes; that
/// a neighbour is gone it tells the client's address, which is not us.
const PATIENCE: Duration = Duration::from_secs(10);

/// Openings of one worker towards all containers. A container that answers has none.
const MOST_OPENINGS: usize = 1024;

/// A connect to a container under way.
#[derive(Debug)]
struct Opening {
    host: OwnedFd,
    router: OwnedFd,
    early: Early,
    reservation: Option<Reservation>,
    published: Arc<Published>,
    client: SocketAddr,
    /// The target is an IPv6 address.
    v6: bool,
    since: Instant,
}

/// One worker's openings.
#[derive(Debug)]
pub struct Connections {
    openings: Slots<Opening>,
    /// As whom containers see the clients of all workers.
    reserved: Conversations,
}

impl Connections {
    /// None yet.
    pub fn new(reserved: Conversations) -> Self {
        Self {
            openings: Slots::new(),
            reserved,
        }
    }

    /// Accepts who has waited longest at a published port.
    ///
    /// One for each event, which is told for as long as somebody waits: an accept4(2) that finds
    /// nobody makes a socket and a file in vain. Flows, and other workers, get their turn.
    pub fn accept(&mut self, published: &Arc<Published>, tcp: &mut Tcp, cx: &mut Context<'_>) {
        let listener = published.listener();
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        match SockRef::from(&listener.socket()).accept4(flags) {
            Ok((socket, client)) => {
                if let Some(client) = client.as_socket() {
                    self.accepted(published, socket.into(), plain(client), tcp, cx);
                }
            }
            Err(error) => match error.raw_os_error() {
                // Gone before we came, or another worker was faster.
                Some(libc::ECONNABORTED | libc::EINTR | libc::EAGAIN) => {}
                _ => {
                    tracing::warn!(publish.listener = %listener.bound(), %error, "connection not accepted");
                }
            },
        }
    }

    fn accepted(
        &mut self,
        published: &Arc<Published>,
        host: OwnedFd,
        client: SocketAddr,
        tcp: &mut Tcp,
        cx: &mut Context<'_>,
    ) {
        let counters = &published.listener().counters;
        if !cx.budget.take(DESCRIPTORS, cx.now) {
            counters.refuse();
            return reset_on_close(&host);
        }
        published.listener().pace(&host);
        let first = match tcp.first_bytes(&host) {
            Ok(first) => Box::from(first),
            Err(error) => return self.led(Err(error), published, host, client, tcp, cx),
        };
        match self.question(published, &host, client, first, (tcp, cx)) {
            Ok(asked) => {
                if let Err(one) = tcp.ask(host, asked, cx) {
                    self.unanswered(one, tcp, cx);
                }
            }
            Err(first) => self.lead(published, host, client, &first, tcp, cx),
        }
    }

    /// What the container would be asked without a socket. Gives back what the client has sent where it cannot
    /// be asked so.
    fn question(
        &self,
        published: &Arc<Published>,
        host: &OwnedFd,
        client: SocketAddr,
        first: Box<[u8]>,
        (tcp, cx): (&Tcp, &Context<'_>),
    ) -> Result<Box<Question>, Box<[u8]>> {
        let target = published.target(client.ip());
        let target = target.filter(|target| tcp.can_ask(target.address.ip(), cx));
        let (Some(target), Ok(at)) = (target, asked_at(host)) else {
            return Err(first);
        };
        let from = towards::appearance(published, &target, client, at, cx);
        if target.bridge.is_none() || from.ip().is_unspecified() {
            return Err(first);
        }
        match self.reserved.reserve((from, target.address)) {
            Some(reservation) => Ok(Box::new(Question {
                published: Arc::clone(published),
                client,
                from,
                container: target.address,
                reservation,
                first,
            })),
            None => Err(first),
        }
    }

    /// A container has refused a client, or has not answered: the kernel asks again.
    pub fn unanswered(&mut self, one: Unanswered, tcp: &mut Tcp, cx: &mut Context<'_>) {
        let Unanswered {
            host,
            asked,
            refused,
        } = one;
        let Question {
            published,
            client,
            container,
            reservation,
            first,
            ..
        } = *asked;
        drop(reservation);
        if !refused {
            return self.lead(&published, host, client, &first, tcp, cx);
        }
        let first = (&*first, container.is_ipv6());
        self.by_the_other_family(&published, host, client, first, tcp, cx);
    }

    /// Leads a client to the container by a socket.
    fn lead(
        &mut self,
        published: &Arc<Published>,
        host: OwnedFd,
        client: SocketAddr,
        first: &[u8],
        tcp: &mut Tcp,
        cx: &mut Context<'_>,
    ) {
        let first = (first, &self.reserved);
        let target = published.target(client.ip());
        let target = target.ok_or(io::ErrorKind::NotFound.into());
        let led = target.and_then(|target| {
            lead(published, &target, &host, client, first, cx).or_else(|error| {
                let other = other_target(published, &error, target.way.v6).ok_or(error)?;
                lead(published, &other, &host, client, first, cx)
            })
        });
        self.led(led, published, host, client, tcp, cx);
    }

    fn led(
        &mut self,
        led: io::Result<Led>,
        published: &Arc<Published>,
        host: OwnedFd,
        client: SocketAddr,
        tcp: &mut Tcp,
        cx: &mut Context<'_>,
    ) {
        let counters = &published.listener().counters;
        match led {
            Ok(Led {
                router,
                connected: true,
                early,
                reservation,
                ..
            }) => {
                counters.accept();
                tcp.adopt(router, host, early, passage(published, reservation), cx);
            }
            Ok(led) => self.wait(led, published, host, client, cx),
            Err(error) => {
                tracing::debug!(
                    publish.listener = %published.listener().bound(),
                    sandbox.name = published.sandbox(),
                    client.addr = %client,
                    %error,
                    "published connection refused"
                );
                give_up(&host, counters, cx);
            }
        }
    }

    fn wait(
        &mut self,
        led: Led,
        published: &Arc<Published>,
        host: OwnedFd,
        client: SocketAddr,
        cx: &mut Context<'_>,
    ) {
        if self.openings.len() >= MOST_OPENINGS {
            return give_up(&host, &published.listener().counters, cx);
        }
        let key = self.openings.insert(Opening {
            host,
            router: led.router,
            early: led.early,
            reservation: led.reservation,
            published: Arc::clone(published),
            client,
            v6: led.v6,
            since: cx.now,
        });
        let Some(opening) = self.openings.get(key) else {
            return;
        };
        let watched = [
            (&opening.router, Owner::PublishConnect, Interest::WRITE),
            (&opening.host, Owner::PublishClient, Interest::NONE),
        ]
        .into_iter()
        .try_for_each(|(socket, owner, interest)| {
            cx.poller
                .add(socket.as_fd(), Token::new(owner, key), interest)
        });
        if let Err(error) = watched {
            tracing::warn!(%error, "published connection not watched");
            self.abandon(key, cx);
        }
    }

    /// A connect has come to an end.
    pub fn connected(&mut self, key: Key, tcp: &mut Tcp, cx: &mut Context<'_>) {
        let Some(opening) = self.openings.get(key) else {
            return;
        };
        let outcome = SockRef::from(&opening.router).take_error();
        let refused = match outcome {
            Ok(None) => None,
            Ok(Some(error)) if other_target(&opening.published, &error, opening.v6).is_some() => {
                Some(error)
            }
            Ok(Some(_)) | Err(_) => return self.abandon(key, cx),
        };
        let Some(opening) = self.openings.remove(key) else {
            return;
        };
        // The flow, or the next opening, watches them by tokens of its own.
        for socket in [&opening.host, &opening.router] {
            if let Err(error) = cx.poller.remove(socket.as_fd()) {
                tracing::debug!(%error, "socket not taken out of the epoll set");
            }
        }
        match refused {
            None => {
                opening.published.listener().counters.accept();
                let passage = passage(&opening.published, opening.reservation);
                tcp.adopt(opening.router, opening.host, opening.early, passage, cx);
            }
            Some(_refused) => {
                let (published, client) = (&opening.published, opening.client);
                let first = (&*opening.early.unsent, opening.v6);
                self.by_the_other_family(published, opening.host, client, first, tcp, cx);
            }
        }
    }

    /// A second attempt, of a client that was refused. `first`: what it has sent, and by which family it was refused.
    fn by_the_other_family(
        &mut self,
        published: &Arc<Published>,
        host: OwnedFd,
        client: SocketAddr,
        (first, refused_v6): (&[u8], bool),
        tcp: &mut Tcp,
        cx: &mut Context<'_>,
    ) {
        let led = match published.other_target(refused_v6) {
            Some(target) => {
                let first = (first, &self.reserved);
                lead(published, &target, &host, client, first, cx)
            }
            None => Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)),
        };
        self.led(led, published, host, client, tcp, cx);
    }

    /// A client has gone while its connection was opening.
    pub fn client_gone(&mut self, key: Key, cx: &mut Context<'_>) {
        self.abandon(key, cx);
    }

    /// Gives up containers that do not answer.
    pub fn tick(&mut self, cx: &mut Context<'_>) {
        let over = |opening: &Opening| cx.now.saturating_duration_since(opening.since) >= PATIENCE;
        let over = self.openings.iter().filter(|(_, opening)| over(opening));
        for key in over.map(|(key, _)| key).collect::<Vec<_>>() {
            self.abandon(key, cx);
        }
    }

    fn abandon(&mut self, key: Key, cx: &mut Context<'_>) {
        if let Some(opening) = self.openings.remove(key) {
            reset_on_close(&opening.router);
            let counters = &opening.published.listener().counters;
            give_up(&opening.host, counters, cx);
        }
    }
}

/// On the way to the container, or there.
struct Led {
    router: OwnedFd,
    connected: bool,
    /// What the client has sent so far.
    early: Early,
    reservation: Option<Reservation>,
    /// The target is an IPv6 address.
    v6: bool,
}

/// Where a client goes that was refused at the target of this family.
fn other_target<'a>(
    published: &'a Published,
    error: &io::Error,
    refused_v6: bool,
) -> Option<Target<'a>> {
    let refused = error.kind() == io::ErrorKind::ConnectionRefused;
    refused
        .then(|| published.other_target(refused_v6))
        .flatten()
}

/// Begins a connection to the container. `first` is what the client has sent so far.
fn lead(
    published: &Published,
    target: &Target<'_>,
    host: &OwnedFd,
    client: SocketAddr,
    (first, reserved): (&[u8], &Conversations),
    cx: &Context<'_>,
) -> io::Result<Led> {
    let data_follows = !first.is_empty();
    let way = towards::Begin {
        free: true,
        data_follows,
        connections: Some(reserved),
    };
    let opened = towards::open(published, target, client, asked_at(host)?, cx, way)?;
    let router = opened.socket;
    // Whether the connection is there already, the first write tells, or a second connect(2).
    let sent = if data_follows {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        SockRef::from(&router).send_with_flags(first, flags)
    } else {
        match SockRef::from(&router).connect(&SockAddr::from(target.address)) {
            Err(error) if error.raw_os_error() == Some(libc::EISCONN) => Ok(0),
            result => result.map(|()| 0),
        }
    };
    let (connected, sent) = match sent {
        Ok(sent) => (true, sent),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EALREADY | libc::EINPROGRESS) => (false, 0),
            _ => return Err(error),
        },
    };
    let early = Early {
        length: first.len(),
        unsent: first.get(sent..).unwrap_or_default().into(),
    };
    Ok(Led {
        router,
        connected,
        early,
        reservation: opened.reservation,
        v6: target.way.v6,
    })
}

/// By which of the host's addresses a client has come.
fn asked_at(host: &OwnedFd) -> io::Result<IpAddr> {
    let asked = SockRef::from(host).local_addr()?;
    let asked = asked.as_socket().ok_or(io::ErrorKind::NotConnected)?;
    Ok(plain(asked).ip())
}

fn passage(published: &Published, reservation: Option<Reservation>) -> Passage {
    Passage {
        counters: Arc::clone(&published.listener().counters),
        reservation,
    }
}

/// The client is reset.
fn give_up(host: &OwnedFd, counters: &Counters, cx: &Context<'_>) {
    counters.refuse();
    reset_on_close(host);
    cx.budget.release(DESCRIPTORS);
}
