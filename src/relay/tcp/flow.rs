//! A relayed TCP connection: a router-side socket, a host-side socket, and the two directions
//! between them.
//!
//! Invariant: how a connection ends on one side is how it ends on the other: end of file as half
//! close, reset as reset. A reset overtakes no byte that was received before it.
//!
//! States: *live* → (both directions ended) over, by FIN; or *live* → (one side broke) *dying*, until
//! the other side has acknowledged what was still on its way → over, by RST. A half-closed flow is
//! live.
//!
//! Resets are passed on with SO_LINGER 0: besides being what the peer shall see, it keeps
//! TIME_WAIT from eating the host's ephemeral ports.
//!
//! Sources: RFC 9293 §3.6 and §3.10.4, RFC 5382 (NAT behaviour for TCP), tcp(7), socket(7).

use super::direction::{Broken, Direction, Early, Pause, Phase, Scratch};
use super::pipe_pool::PipePool;
use crate::relay::event_loop::Readiness;
use crate::relay::publish::conversations::Reservation;
use crate::relay::publish::listener::Counters;
use crate::sys;
use socket2::SockRef;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Descriptors of one flow.
pub const DESCRIPTORS: usize = 2;

/// How long the side that lives has for taking what came before the reset.
const DYING_LIFETIME: Duration = Duration::from_secs(60);

/// One of the two sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In the router netns, towards the container.
    Router,
    /// In the host netns, towards the world.
    Host,
}

/// What is to become of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Wait for its next event.
    Wait,
    /// Pump it again after the others.
    TurnOver,
    /// Look after it again soon: it waits for something that makes no event.
    Dying,
    /// Close it.
    Over,
}

/// One side broke.
#[derive(Debug, Clone, Copy)]
struct Death {
    side: Side,
    deadline: Instant,
}

/// What a flow of a published port has besides.
#[derive(Debug)]
pub struct Passage {
    /// Of what it carries.
    pub counters: Arc<Counters>,
    /// Nobody else is the same client of the same container meanwhile.
    pub reservation: Option<Reservation>,
}

/// A relayed connection.
#[derive(Debug)]
pub struct Flow {
    router: OwnedFd,
    host: OwnedFd,
    /// Router to host.
    outbound: Direction,
    /// Host to router.
    inbound: Direction,
    death: Option<Death>,
    /// It came in by a published port.
    passage: Option<Box<Passage>>,
    /// Stands in the worker's queue for another turn.
    pub queued: bool,
    /// Stands in the worker's list of dying flows.
    pub watched: bool,
    /// Sides (router, host) of which room to write is watched, too.
    room_watched: [bool; 2],
    /// How often its turn was over before its work; up to 255.
    turns: u8,
}

impl Flow {
    /// Of two connected, non-blocking sockets.
    pub fn new(router: OwnedFd, host: OwnedFd) -> Self {
        Self {
            router,
            host,
            outbound: Direction::new(),
            inbound: Direction::new(),
            death: None,
            passage: None,
            queued: false,
            watched: false,
            room_watched: [false; 2],
            turns: 0,
        }
    }

    /// The same, with what was read of the host side already.
    #[must_use]
    pub fn begun(self, early: Early) -> Self {
        Self {
            inbound: Direction::begun(early),
            ..self
        }
    }

    /// One of its directions moves by splice.
    pub fn is_bulk(&self) -> bool {
        self.inbound.is_bulk() || self.outbound.is_bulk()
    }

    /// It holds bytes, which no event may be waited for.
    pub fn holds(&self) -> bool {
        self.inbound.holds() || self.outbound.holds()
    }

    /// A side that waits for room, of which no event would tell yet. It is told once: most flows
    /// never fill a socket's buffer, and an event for each one that is writable, which they all
    /// are from the beginning, would cost a round of the loop.
    pub fn room_to_watch(&mut self) -> Option<Side> {
        let [router, host] = &mut self.room_watched;
        let (watched, side) = if self.inbound.waits_for_room() && !*router {
            (router, Side::Router)
        } else if self.outbound.waits_for_room() && !*host {
            (host, Side::Host)
        } else {
            return None;
        };
        *watched = true;
        Some(side)
    }

    /// Its turn is over, with work left. How often it was.
    pub fn turn_over(&mut self) -> u8 {
        self.turns = self.turns.saturating_add(1);
        self.turns
    }

    /// Pipes that it holds.
    pub fn pipes(&self) -> usize {
        usize::from(self.inbound.has_pipe()) + usize::from(self.outbound.has_pipe())
    }

    /// Another worker goes on with it, which watches for nothing yet. To be called when it is in no epoll set.
    pub fn leave(&mut self, pipes: &mut PipePool) {
        pipes.go(self.pipes());
        self.queued = false;
        self.watched = false;
        self.room_watched = [false; 2];
    }

    /// The same of one that came in by a published port.
    #[must_use]
    pub fn passing(self, passage: Box<Passage>) -> Self {
        Self {
            passage: Some(passage),
            ..self
        }
    }

    /// It came in by a published port.
    pub fn is_published(&self) -> bool {
        self.passage.is_some()
    }

    /// One of its sockets.
    pub fn socket(&self, side: Side) -> BorrowedFd<'_> {
        match side {
            Side::Router => self.router.as_fd(),
            Side::Host => self.host.as_fd(),
        }
    }

    /// One side is broken.
    pub fn is_dying(&self) -> bool {
        self.death.is_some()
    }

    /// Takes up an event and pumps.
    pub fn ready(
        &mut self,
        side: Side,
        readiness: Readiness,
        scratch: &mut Scratch,
        now: Instant,
    ) -> Outcome {
        let (from, to) = match side {
            Side::Router => (&mut self.outbound, &mut self.inbound),
            Side::Host => (&mut self.inbound, &mut self.outbound),
        };
        if readiness.urgent() {
            from.urgent();
        }
        if readiness.readable() {
            from.source_ready(readiness.read_closed());
        }
        if readiness.writable() {
            to.destination_ready();
        }
        if readiness.error() {
            if self.death.is_some_and(|death| death.side != side) {
                // Now both sides are broken.
                return Outcome::Over;
            }
            if from.phase() == Phase::Ended {
                // Nobody will read the error from it.
                self.dies(side, now);
            }
        }
        self.pump(scratch, now)
    }

    /// Moves what can be moved.
    pub fn pump(&mut self, scratch: &mut Scratch, now: Instant) -> Outcome {
        let outcome = self.pump_both(scratch, now);
        if let Some(passage) = &self.passage {
            (passage.counters).carry(self.inbound.take_moved(), self.outbound.take_moved());
        }
        outcome
    }

    fn pump_both(&mut self, scratch: &mut Scratch, now: Instant) -> Outcome {
        if let Some(death) = self.death {
            return self.pump_last(death, scratch, now);
        }
        let last = self.inbound.phase() == Phase::Ended;
        let outbound = self.outbound.pump(&self.router, &self.host, scratch, last);
        let outbound = match outbound {
            Ok(pause) => pause,
            Err(broken) => {
                let side = match broken {
                    Broken::Source(_) => Side::Router,
                    Broken::Destination(_) => Side::Host,
                };
                return self.broke(side, &broken, scratch, now);
            }
        };
        let last = self.outbound.phase() == Phase::Ended;
        let inbound = match self.inbound.pump(&self.host, &self.router, scratch, last) {
            Ok(pause) => pause,
            Err(broken) => {
                let side = match broken {
                    Broken::Source(_) => Side::Host,
                    Broken::Destination(_) => Side::Router,
                };
                return self.broke(side, &broken, scratch, now);
            }
        };
        match (outbound, inbound) {
            (Pause::Ended, Pause::Ended) => Outcome::Over,
            (Pause::TurnOver, _) | (_, Pause::TurnOver) => Outcome::TurnOver,
            (Pause::Blocked | Pause::Ended, Pause::Blocked | Pause::Ended) => Outcome::Wait,
        }
    }

    fn broke(
        &mut self,
        side: Side,
        broken: &Broken,
        scratch: &mut Scratch,
        now: Instant,
    ) -> Outcome {
        let (Broken::Source(error) | Broken::Destination(error)) = broken;
        tracing::debug!(flow.side = ?side, %error, "flow broken");
        self.dies(side, now);
        self.pump_both(scratch, now)
    }

    /// A side has broken: what it had received is passed on, and then that it broke.
    pub fn dies(&mut self, side: Side, now: Instant) {
        self.death = Some(Death {
            side,
            deadline: now + DYING_LIFETIME,
        });
        match side {
            Side::Router => self.outbound.source_broke(),
            Side::Host => self.inbound.source_broke(),
        }
    }

    /// Moves what the broken side had received; over when the other side has all of it.
    fn pump_last(&mut self, death: Death, scratch: &mut Scratch, now: Instant) -> Outcome {
        if now >= death.deadline {
            return Outcome::Over;
        }
        let (direction, source, destination) = match death.side {
            Side::Router => (&mut self.outbound, &self.router, &self.host),
            Side::Host => (&mut self.inbound, &self.host, &self.router),
        };
        match direction.pump(source, destination, scratch, false) {
            Ok(Pause::TurnOver) => return Outcome::TurnOver,
            Ok(Pause::Blocked) if direction.holds() => return Outcome::Dying,
            // A broken socket never blocks a read; whatever it says, there is no more.
            Ok(Pause::Blocked | Pause::Ended) | Err(Broken::Source(_)) => {}
            Err(Broken::Destination(_)) => return Outcome::Over,
        }
        if direction.holds() {
            return Outcome::Dying;
        }
        match sys::tcp::unacknowledged(destination.as_fd()) {
            Ok(0) | Err(_) => Outcome::Over,
            Ok(_) => Outcome::Dying,
        }
    }

    /// Closes both sockets: by FIN where both directions ended, by RST otherwise.
    pub fn close(mut self, pipes: &mut PipePool) {
        let by_reset = self.death.is_some()
            || self.outbound.phase() != Phase::Ended
            || self.inbound.phase() != Phase::Ended;
        self.outbound.close(pipes);
        self.inbound.close(pipes);
        if by_reset {
            reset_on_close(&self.router);
            reset_on_close(&self.host);
        }
    }
}

/// Lets the close of a TCP socket send RST.
pub fn reset_on_close(socket: &OwnedFd) {
    // Fails for sockets that are no TCP sockets only.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}
