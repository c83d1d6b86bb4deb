//! What framed flows need besides their segments: acknowledgements that nothing came to go with, containers that are not
//! heard of, host sides to be reset, and those that leave for the kernel.

use super::outward::send;
use super::{
    ACKNOWLEDGE_AFTER, Framed, FramedFlows, GREET_FOR, HandedOver, IDLE_AFTER, Leaving,
    QUIET_AFTER, RESET_WITHIN, STALE_AFTER,
};
use crate::relay::bulk::Stay;
use crate::relay::event_loop::Key;
use crate::relay::host_loopback::Asked;
use crate::relay::pending::FourTuple;
use crate::relay::socket_pool::SocketKind;
use crate::relay::tcp::flow::reset_on_close;
use crate::relay::tcp::moving::Whereabouts;
use crate::relay::worker::Context;
use crate::sys;
use mossnet_helper::framed::{FRAMED_MASK, FRAMED_TIMESTAMP};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// With which a kernel that takes over begins: past the values of all workers.
const KERNEL_CLOCK: u32 = (FRAMED_TIMESTAMP | !FRAMED_MASK) + 1;

/// A host side that has to be reset, when it has taken what came before.
#[derive(Debug)]
pub(super) struct Resetting {
    pub(super) host: OwnedFd,
    pub(super) held: Vec<u8>,
    pub(super) until: Instant,
}

impl FramedFlows {
    /// Gives those that leave to the kernel; at the end of a round. What is due by now is sent.
    ///
    /// `quiet`: it was waited for, and nothing has happened.
    pub fn settle(&mut self, quiet: bool, cx: &mut Context<'_>) -> Vec<HandedOver> {
        self.acknowledge_owed(quiet, cx);
        self.look_after_unsure(cx);
        let resetting = std::mem::take(&mut self.resetting).into_iter();
        self.resetting = resetting.filter_map(|one| one.go_on(cx.now)).collect();
        if self.leaving.is_empty() {
            return Vec::new();
        }
        let mut over = Vec::new();
        for leaving in std::mem::take(&mut self.leaving) {
            match self.flows.get(leaving.key) {
                None => {}
                Some(flow) if !flow.connection.is_established() => self.leaving.push(leaving),
                Some(_) => over.extend(self.hand_over(leaving, cx)),
            }
        }
        over
    }

    fn hand_over(&mut self, leaving: Leaving, cx: &mut Context<'_>) -> Option<HandedOver> {
        let flow = self.flows.get(leaving.key)?;
        let ends = flow.connection.ends();
        match restore(flow, cx) {
            Ok(router) => {
                for head in flow.connection.farewell() {
                    let _ = self.sender.send_at(KERNEL_CLOCK, &head);
                }
                let flow = self.flows.remove(leaving.key)?;
                self.by_ends.remove(&ends);
                if let Err(error) = cx.poller.remove(flow.host.as_fd()) {
                    tracing::debug!(%error, "host side not taken out of the epoll set");
                }
                tracing::debug!(
                    flow.id = leaving.key.slot,
                    "framed flow handed to the kernel"
                );
                Some(HandedOver {
                    ends,
                    router,
                    host: flow.host,
                    unsent: leaving.unsent,
                    broken: flow.broken,
                    passage: flow.passage,
                })
            }
            Err(error) => {
                tracing::warn!(flow.client = %ends.client, %error, "flow not handed to the kernel, and reset");
                self.abort(leaving.key, cx);
                None
            }
        }
    }

    fn acknowledge_owed(&mut self, quiet: bool, cx: &Context<'_>) {
        let due = cx.now.checked_sub(ACKNOWLEDGE_AFTER);
        let is_due = |(since, _): &(Instant, Key)| quiet || Some(*since) <= due;
        while let Some((_, key)) = pop_if(&mut self.owed, is_due) {
            let Some(flow) = self.flows.get_mut(key) else {
                continue;
            };
            flow.owes = false;
            if flow.connection.owed() > 0 && !flow.leaves {
                let _ = self.sender.send(&flow.connection.acknowledge());
            }
        }
    }

    fn look_after_unsure(&mut self, cx: &mut Context<'_>) {
        let due = cx.now.checked_sub(STALE_AFTER);
        while let Some((_, key, since)) = pop_if(&mut self.unsure, |one| Some(one.0) <= due) {
            let Some(flow) = self.flows.get_mut(key) else {
                continue;
            };
            flow.watched = false;
            let connection = &flow.connection;
            if connection.is_acknowledged() || flow.leaves && connection.is_established() {
                continue;
            }
            if flow.asked.is_some() {
                self.not_answered(key, false, cx);
                continue;
            }
            let unheard = cx.now.saturating_duration_since(flow.heard);
            if unheard >= RESET_WITHIN || !connection.is_established() && unheard >= GREET_FOR {
                self.abort(key, cx);
                continue;
            }
            if !connection.is_established() {
                let _ = self.sender.send(&connection.greeting());
            } else if flow.broken || connection.has_ended() && connection.peer_has_ended() {
                let _ = self.sender.send(&connection.again());
            } else if connection.unacknowledged() == since {
                self.leave(key, &[], "unanswered");
                continue;
            }
            flow.watched = true;
            let since = flow.connection.unacknowledged();
            self.unsure.push_back((cx.now, key, since));
        }
    }

    /// How long the worker may wait.
    pub fn patience(&self, now: Instant) -> Option<Duration> {
        let owed = (!self.owed.is_empty()).then(|| now + QUIET_AFTER);
        let unsure = self.unsure.front().map(|(since, ..)| *since + STALE_AFTER);
        let resetting = (!self.resetting.is_empty()).then(|| now + ACKNOWLEDGE_AFTER);
        let first = [owed, unsure, resetting].into_iter().flatten().min()?;
        Some(first.saturating_duration_since(now))
    }

    /// Once a second or so.
    pub fn tick(&mut self, cx: &Context<'_>) {
        self.silent.retain(|_, until| cx.now < *until);
        let rests = |flow: &Framed| cx.now.saturating_duration_since(flow.heard) >= IDLE_AFTER;
        let resting = self.flows.iter().filter(|(_, flow)| rests(flow));
        for key in resting.map(|(key, _)| key).collect::<Vec<_>>() {
            self.leave(key, &[], "rests");
        }
    }

    /// Forgets connections that the kernel had taken over, where they are over.
    pub fn forget_late(&mut self, lives: impl Fn(Key) -> bool) {
        self.late.retain(|_, flow| match flow {
            Whereabouts::Here(key) => lives(*key),
            Whereabouts::Elsewhere(stay) => stay.strong_count() > 0,
        });
    }

    /// The flow `key` is with a bulk worker now, as long as `stay` lives.
    pub fn moved(&mut self, ends: FourTuple, key: Key, stay: &Arc<Stay>) {
        if let Some(late) = self.late.get_mut(&ends)
            && matches!(late, Whereabouts::Here(here) if *here == key)
        {
            *late = Whereabouts::Elsewhere(Arc::downgrade(stay));
        }
    }

    /// Ends flows that the rules no longer admit.
    pub fn recheck(&mut self, cx: &mut Context<'_>) {
        let over = self.flows.iter().filter(|(_, flow)| {
            let FourTuple {
                client,
                destination,
            } = flow.connection.ends();
            if flow.asked.is_some() || flow.passage.is_some() {
                // It came in by a published port, and stays when that is taken back.
                return !cx.rules.is_ours(client.ip());
            }
            let asked = Asked::Tcp(destination.port());
            cx.rules
                .admit(client.ip(), destination.ip(), asked)
                .is_err()
        });
        for key in over.map(|(key, _)| key).collect::<Vec<_>>() {
            self.abort(key, cx);
        }
    }
}

impl Resetting {
    /// `None` where it was reset, as `self` is dropped.
    pub(super) fn go_on(mut self, now: Instant) -> Option<Self> {
        if !self.held.is_empty() && now < self.until {
            match send(&self.host, &self.held) {
                Ok(sent) => drop(self.held.drain(..sent)),
                Err(_) => self.held.clear(),
            }
        }
        let taken = self.held.is_empty()
            && matches!(sys::tcp::unacknowledged(self.host.as_fd()), Ok(0) | Err(_));
        if taken || now >= self.until {
            reset_on_close(&self.host);
            return None;
        }
        Some(self)
    }
}

/// The first one, if it is due.
fn pop_if<T>(queue: &mut VecDeque<T>, is_due: impl Fn(&T) -> bool) -> Option<T> {
    queue.front().filter(|first| is_due(first))?;
    queue.pop_front()
}

/// A kernel socket that goes on with a flow.
fn restore(flow: &Framed, cx: &Context<'_>) -> io::Result<OwnedFd> {
    let kind = match flow.connection.ends().client.is_ipv6() {
        true => SocketKind::TcpV6,
        false => SocketKind::TcpV4,
    };
    let socket = cx.pool.take(kind)?;
    sys::tcp_repair::restore(
        socket.as_fd(),
        &flow.connection.state(&flow.held, KERNEL_CLOCK),
    )?;
    Ok(socket)
}
