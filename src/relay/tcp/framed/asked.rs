//! Framed flows of published ports: here the relay asks, and the container answers.
//!
//! Both are in one kernel, so that the answer is there when the question has been sent. What is not answered soon, or not
//! by a stack that echoes timestamps, the kernel asks again ([`Unanswered`]).

use super::connection::Connection;
use super::outward::Delay;
use super::{Framed, FramedFlows};
use crate::relay::event_loop::Key;
use crate::relay::pending::FourTuple;
use crate::relay::publish::conversations::Reservation;
use crate::relay::publish::table::Published;
use crate::relay::tcp::direction::EARLY_LEN;
use crate::relay::tcp::flow::Passage;
use crate::relay::worker::Context;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How long a container that has not answered is asked by the kernel at once: it may know of no timestamps.
const SILENT_FOR: Duration = Duration::from_secs(60);

/// What a container is asked.
#[derive(Debug)]
pub struct Question {
    /// The port.
    pub published: Arc<Published>,
    /// Whose connection it is.
    pub client: SocketAddr,
    /// As whom the container sees it.
    pub from: SocketAddr,
    /// Where the container is.
    pub container: SocketAddr,
    /// `from` and `container`.
    pub reservation: Reservation,
    /// What the client has sent so far.
    pub first: Box<[u8]>,
}

/// A client whose container has not answered.
#[derive(Debug)]
pub struct Unanswered {
    /// The client.
    pub host: OwnedFd,
    /// What was asked.
    pub asked: Box<Question>,
    /// The container has answered that nobody listens.
    pub refused: bool,
}

impl FramedFlows {
    /// Sends a SYN.
    pub fn ask(
        &mut self,
        host: OwnedFd,
        asked: Box<Question>,
        cx: &mut Context<'_>,
    ) -> Result<(), Unanswered> {
        let ends = FourTuple {
            client: asked.container,
            destination: asked.from,
        };
        let place = cx.endpoints.find(asked.container.ip());
        let silent = self.silent.contains_key(&asked.container.ip());
        let place = place.filter(|_| !silent && !self.by_ends.contains_key(&ends));
        let Some(place) = place else {
            return Err(Unanswered {
                host,
                asked,
                refused: false,
            });
        };
        let isn = self.initial_number(ends, cx.now);
        let connection = Connection::asking(ends, place, isn);
        let mut flow = Framed::new(connection, host, cx.now);
        flow.asked = Some(asked);
        // As its listener has it.
        flow.delay = Delay::Never;
        let entered = self.enter(flow, cx);
        match entered.map_err(|flow| flow.unanswered(false)) {
            Ok(_) | Err(None) => Ok(()),
            Err(Some(one)) => Err(one),
        }
    }

    /// A container has answered.
    pub(super) fn answered(&mut self, key: Key, cx: &mut Context<'_>) {
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        let Some(asked) = flow.asked.take() else {
            return;
        };
        let Question {
            published,
            reservation,
            first,
            ..
        } = *asked;
        let counters = Arc::clone(&published.listener().counters);
        counters.accept();
        flow.passage = Some(Box::new(Passage {
            counters,
            reservation: Some(reservation),
        }));
        let early = std::mem::take(&mut flow.early_event) || first.len() == EARLY_LEN;
        if first.len() > flow.connection.room() {
            return self.leave(key, &first, "no room");
        }
        if !first.is_empty() {
            self.send_bytes(key, &first, false, cx);
        }
        if early {
            self.pass_inward(key, true, cx);
        }
        if let Some(flow) = self.flows.get_mut(key)
            && flow.connection.owed() > 0
            && !flow.leaves
        {
            let _ = self.sender.send(&flow.connection.acknowledge());
        }
    }

    /// A container refuses, or does not answer.
    pub(super) fn not_answered(&mut self, key: Key, refused: bool, cx: &Context<'_>) {
        let Some(flow) = self.flows.remove(key) else {
            return;
        };
        self.by_ends.remove(&flow.connection.ends());
        if !refused {
            // It may have heard us all the same, and must not take the kernel's question for another of ours.
            let _ = self.sender.send(&flow.connection.reset());
            let container = flow.connection.ends().client.ip();
            self.silent.insert(container, cx.now + SILENT_FOR);
        }
        if let Err(error) = cx.poller.remove(flow.host.as_fd()) {
            tracing::debug!(%error, "client not taken out of the epoll set");
        }
        self.unanswered.extend(flow.unanswered(refused));
    }

    /// Those since the last call.
    pub fn take_unanswered(&mut self) -> Vec<Unanswered> {
        std::mem::take(&mut self.unanswered)
    }
}

impl Framed {
    fn unanswered(self, refused: bool) -> Option<Unanswered> {
        let host = self.host;
        self.asked.map(|asked| Unanswered {
            host,
            asked,
            refused,
        })
    }
}
