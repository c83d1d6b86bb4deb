//! Published ports: what comes in from the host's side.
//!
//! On the path: client → listening socket of the host netns → **publish** → a socket of the router
//! netns in the client's name ([`towards`]) → container. TCP ([`connection`]) goes on as a flow of
//! [`super::tcp`]; UDP stays here ([`datagrams`]).
//!
//! * [`alone`]: all of this without the rest of the relay, for one container of another runtime.
//! * [`listener`]: sockets handed over. [`table`]: what they lead to. [`source`]: whom a container sees.
//!
//! A port costs one descriptor, whatever the number of workers: they all wait for it (TCP), or one
//! of them does (UDP). Nothing else is held for it until somebody comes.
//!
//! **Who holds the sockets.** The daemon makes them, so that it can say at once, and about all of
//! them, that an address is in use. The helper keeps a duplicate of each and hands them over again
//! to a relay that it had to restart: clients that come meanwhile wait in the backlog. So a socket is
//! closed only when both have let go of it, and an epoll set does not forget it by itself.
//!
//! **Whose segments reach whom.** A flow's socket towards a container is connected, and bound to the
//! bridge of its network: what reaches it has the container's address and port as source, the client's
//! as destination, and has come by that bridge; where the kernel has taken a framed flow over it is not bound, since
//! what was late comes by another way. Two networks never share a prefix, and bridges let no
//! sandbox send from another's address, so neither a neighbour nor a sandbox of another network can
//! speak in a published port's name. A sandbox cannot pose as a client either: clients are whoever
//! the *host's* TCP shook hands with, and a sandbox that calls by way of the host is shown as the
//! gateway ([`source::Reason::Host`], [`source::Reason::OwnNetwork`]).
//!
//! Invariants: nothing here waits for a client or a container; a flow that exists outlives its port.

pub mod alone;
pub mod connection;
pub mod conversations;
pub mod datagrams;
pub mod listener;
pub mod source;
pub mod table;
pub mod towards;

#[cfg(test)]
mod tests;

use super::event_loop::{Interest, Key, Owner, Token};
use super::slots::Slots;
use super::tcp::Tcp;
use super::tcp::framed::asked::Unanswered;
use super::worker::{Context, Shared};
use crate::ports::Proto;
use crate::sys::udp::Came;
use connection::Connections;
use datagrams::Datagrams;
use listener::Bound;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use table::{Published, Table};

/// One worker's part in all published ports.
pub struct Publish {
    number: usize,
    workers: usize,
    /// What is listened to, and by which rules.
    table: Arc<Table>,
    ports: Slots<Arc<Published>>,
    by_bound: HashMap<Bound, Key>,
    connections: Connections,
    datagrams: Datagrams,
}

impl Publish {
    /// Listens to nothing yet. The `number`th worker, from 0.
    pub fn new(number: usize, shared: &Shared, now: Instant) -> Self {
        Self {
            number,
            workers: shared.workers,
            table: Arc::default(),
            ports: Slots::new(),
            by_bound: HashMap::new(),
            connections: Connections::new(shared.connections.clone()),
            datagrams: Datagrams::new(shared.udp, shared.conversations.clone(), now),
        }
    }

    /// Listens where the current rules say, and nowhere else. Cheap where they say nothing new.
    pub fn follow(&mut self, cx: &mut Context<'_>) {
        let table = Arc::clone(cx.rules.publishes());
        if Arc::ptr_eq(&table, &self.table) {
            return;
        }
        let known: Vec<(Bound, Key)> = self.by_bound.iter().map(|(b, k)| (*b, *k)).collect();
        for (bound, key) in known {
            match (table.get(&bound), self.ports.get_mut(key)) {
                // The same socket; perhaps it leads elsewhere now.
                (Some(new), Some(old)) if Arc::ptr_eq(new.listener(), old.listener()) => {
                    *old = Arc::clone(new);
                }
                _gone_or_another_socket => self.leave(bound, key, cx),
            }
        }
        for published in table.iter() {
            let bound = published.listener().bound();
            if self.is_mine(bound) && !self.by_bound.contains_key(&bound) {
                self.enter(published, cx);
            }
        }
        self.datagrams.recheck(&table, cx);
        self.table = table;
    }

    /// A container has refused a framed flow, or has not answered.
    pub fn unanswered(&mut self, one: Unanswered, tcp: &mut Tcp, cx: &mut Context<'_>) {
        self.connections.unanswered(one, tcp, cx);
    }

    /// Handles an event of a descriptor that is ours.
    pub fn ready(&mut self, token: Token, tcp: &mut Tcp, cx: &mut Context<'_>) {
        match token.owner {
            Owner::PublishListener => {
                let Some(published) = self.ports.get(token.key) else {
                    return;
                };
                match published.listener().bound().proto {
                    Proto::Tcp => self.connections.accept(published, tcp, cx),
                    Proto::Udp => self.datagrams.listener_ready(published, cx),
                }
            }
            Owner::PublishConnect => self.connections.connected(token.key, tcp, cx),
            Owner::PublishClient => self.connections.client_gone(token.key, cx),
            Owner::PublishUdp => self.datagrams.flow_ready(token.key, cx),
            Owner::Gate
            | Owner::Tap
            | Owner::TcpFramed
            | Owner::TcpListener
            | Owner::TcpConnect
            | Owner::TcpRouter
            | Owner::TcpHost
            | Owner::UdpListener
            | Owner::UdpHost
            | Owner::UdpRouter
            | Owner::IcmpHost
            | Owner::Wake => {}
        }
    }

    /// How datagrams have come since this was asked last.
    pub fn came(&mut self) -> Came {
        self.datagrams.came()
    }

    /// Once a second or so.
    pub fn tick(&mut self, cx: &mut Context<'_>) {
        self.connections.tick(cx);
        self.datagrams.tick(cx);
    }

    /// Connections are for whoever has time; datagrams of one socket are for one worker.
    fn is_mine(&self, bound: Bound) -> bool {
        match bound.proto {
            Proto::Tcp => true,
            Proto::Udp => usize::from(bound.port.get()) % self.workers.max(1) == self.number,
        }
    }

    fn enter(&mut self, published: &Arc<Published>, cx: &mut Context<'_>) {
        let bound = published.listener().bound();
        let key = self.ports.insert(Arc::clone(published));
        let interest = match bound.proto {
            Proto::Tcp => Interest::READ_ONE_OF_US,
            Proto::Udp => Interest::READ,
        };
        let token = Token::new(Owner::PublishListener, key);
        match cx
            .poller
            .add(published.listener().socket(), token, interest)
        {
            Ok(()) => {
                self.by_bound.insert(bound, key);
            }
            Err(error) => {
                self.ports.remove(key);
                tracing::error!(publish.listener = %bound, %error, "published port not watched");
            }
        }
    }

    fn leave(&mut self, bound: Bound, key: Key, cx: &mut Context<'_>) {
        self.by_bound.remove(&bound);
        if let Some(published) = self.ports.remove(key)
            && let Err(error) = cx.poller.remove(published.listener().socket())
        {
            tracing::debug!(publish.listener = %bound, %error, "socket not taken out of the epoll set");
        }
    }
}
