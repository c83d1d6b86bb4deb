//! Where framed flows meet the rest of a worker's TCP: frames and questions come in, and flows that the kernel has taken over
//! come back.

use super::asked::{Question, Unanswered};
use super::{FramedFlows, HandedOver};
use crate::relay::tcp::Tcp;
use crate::relay::tcp::direction::Early;
use crate::relay::tcp::flow::{Flow, Side};
use crate::relay::tcp::host_side::settle_in;
use crate::relay::tcp::moving::Whereabouts;
use crate::relay::worker::Context;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

impl Tcp {
    /// A frame of a framed flow has come to the tap by `port` (virtio-net header first).
    pub fn frame(&mut self, port: u32, frame: &[u8], cx: &mut Context<'_>) {
        self.last_small = Some(cx.now);
        if let Some(framed) = &mut self.framed {
            framed.frame(port, frame, cx);
        }
    }

    /// A flow of which the router side was no socket so far.
    pub(in crate::relay::tcp) fn take_over(&mut self, over: HandedOver, cx: &mut Context<'_>) {
        let early = Early {
            length: 0,
            unsent: over.unsent,
        };
        let mut flow = Flow::new(over.router, over.host).begun(early);
        match over.passage {
            Some(passage) => flow = flow.passing(passage),
            None => settle_in(&flow.socket(Side::Host)),
        }
        if over.broken {
            flow.dies(Side::Host, cx.now);
        }
        let key = self.begin(flow, cx);
        if let Some(framed) = &mut self.framed {
            framed.late.insert(over.ends, Whereabouts::Here(key));
        }
        if over.broken {
            self.pump(key, cx);
        }
    }

    /// Whether a container can be asked for a connection without a socket.
    pub fn can_ask(&self, container: IpAddr, cx: &Context<'_>) -> bool {
        self.framed.is_some() && cx.endpoints.find(container).is_some()
    }

    /// Asks a container for a connection on behalf of a client, `host`. Descriptors are taken from the budget.
    /// Both are given back where that cannot be.
    pub fn ask(
        &mut self,
        host: OwnedFd,
        asked: Box<Question>,
        cx: &mut Context<'_>,
    ) -> Result<(), Unanswered> {
        self.last_small = Some(cx.now);
        match &mut self.framed {
            Some(framed) => framed.ask(host, asked, cx),
            None => Err(Unanswered {
                host,
                asked,
                refused: false,
            }),
        }
    }

    /// Who was asked in vain.
    pub fn take_unanswered(&mut self) -> Vec<Unanswered> {
        let framed = self.framed.as_mut();
        framed.map(FramedFlows::take_unanswered).unwrap_or_default()
    }
}
