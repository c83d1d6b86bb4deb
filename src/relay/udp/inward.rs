//! World → container: replies, and ICMP errors.

use super::flow::{Flow, RouterSide};
use super::outward::count;
use super::transmit::{Way, transmit};
use super::{State, Udp, about};
use crate::relay::event_loop::{Key, Readiness};
use crate::relay::offender::tell;
use crate::relay::worker::Context;
use crate::sys::udp::{Datagram, QueuedError};
use std::io;
use std::os::fd::AsFd;

/// Errors taken from a socket before others get their turn.
const ERROR_ROUNDS: usize = 64;

impl Udp {
    /// Handles an event of a flow's host side.
    pub(super) fn host_ready(&mut self, id: Key, readiness: Readiness, cx: &mut Context<'_>) {
        if readiness.error() {
            self.report_errors(id, cx);
        }
        if readiness.writable() {
            self.state.flush(id, cx);
        }
        if readiness.readable() {
            self.read_host(id, cx);
        }
    }

    fn read_host(&mut self, id: Key, cx: &mut Context<'_>) {
        let Some(flow) = self.state.flows.get(id) else {
            return;
        };
        let received = self.batch.receive(flow.host.as_fd()).or_else(|error| {
            // An ICMP error is also reported once by whatever call comes next.
            if error.kind() == io::ErrorKind::WouldBlock {
                return Err(error);
            }
            self.batch.receive(flow.host.as_fd())
        });
        if received.is_err() {
            return;
        }
        let datagrams: Vec<_> = self
            .batch
            .iter()
            .map(|received| Datagram {
                data: received.data,
                segment: received.segment,
                tos: received.tos,
                ttl: None,
            })
            .collect();
        self.state.deliver(id, &datagrams, cx);
    }

    /// Passes ICMP errors on to the container.
    fn report_errors(&mut self, id: Key, cx: &mut Context<'_>) {
        let Some(flow) = self.state.flows.get(id) else {
            return;
        };
        for _ in 0..ERROR_ROUNDS {
            match self.errors.next(flow.host.as_fd()) {
                Ok(Some(queued)) => report(flow, &queued.error, queued.data, cx),
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }
}

impl State {
    /// Sends datagrams in the destination's name.
    fn deliver(&mut self, id: Key, datagrams: &[Datagram<'_>], cx: &mut Context<'_>) {
        self.flows.touch(id, cx.now);
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let promote = flow.count_inward(count(datagrams));
        let (key, v6) = (flow.key, flow.v6());
        let (way, segmentation) = if let RouterSide::Own(own) = &mut flow.router {
            let way = Way::connected(own.socket.as_fd(), v6);
            (way, &mut own.segmentation)
        } else {
            let Some((socket, segmentation)) = self.replies.socket(key.destination) else {
                return;
            };
            (Way::to(socket, key.client), segmentation)
        };
        let way = way.joining_when_late(datagrams);
        // What finds no room is lost: the bridge is full, as any network may be.
        let _ = transmit(way, datagrams, segmentation, |_, error| {
            tracing::trace!(flow.client = %key.client, flow.destination = %key.destination, %error, "datagram not delivered");
        });
        if promote {
            self.promote(id, cx);
        }
    }
}

fn report(flow: &Flow, error: &QueuedError, data: &[u8], cx: &mut Context<'_>) {
    tracing::debug!(flow.client = %flow.key.client, flow.destination = %flow.key.destination, error = ?error, "ICMP error passed on");
    // Whoever reports it has seen the last hop of it.
    about(flow.key, data, Some(1), |packet| tell(error, packet, cx));
}
