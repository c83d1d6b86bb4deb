//! One worker: an epoll loop over its own listeners, its own gate and its own flows.
//!
//! On the path: [`event_loop`](super::event_loop) → **worker** → gate | tcp | udp | icmp.
//!
//! Invariant: a worker never blocks but in epoll_wait, and handles UDP listeners before UDP flow
//! sockets, so that datagrams which were there before a flow got its own socket stay in order.

use super::budget::FdBudget;
use super::event_loop::Poller;
use super::gate::GateSender;
use super::rules::Rules;
use super::socket_pool::SocketPool;
use std::time::Instant;

/// What every part of a worker may use while it handles an event.
pub struct Context<'a> {
    /// To register descriptors.
    pub poller: &'a Poller,
    /// What may leave.
    pub rules: &'a Rules,
    /// Sends packets into the router netns as if from the world.
    pub gate: &'a mut GateSender,
    /// Transparent sockets of the router netns.
    pub pool: &'a SocketPool,
    /// Descriptors left; whoever makes a flow takes from it, and gives back when it closes them.
    pub budget: &'a FdBudget,
    /// Of this round of the loop.
    pub now: Instant,
}
