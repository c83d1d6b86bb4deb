//! The rings of gates and taps, which come a moment later than the sockets.
//!
//! On the path: [`router_side`](super) → **here** → [`worker`](crate::relay::worker), once, some 20 ms after its start.
//!
//! For each AF_PACKET ring the kernel waits for a grace period (`synchronize_net`), longer than all else takes until a
//! container may run. So nobody waits for it: a worker begins with a gate that has none, and without a tap (until
//! then the kernel speaks all flows). A second socket for the gate is silent until its ring is there; then it begins to hear, the
//! first one ceases to, and the worker, woken, handles what the first one still holds before it takes up the second.
//!
//! Invariant: no frame is missed, since one socket hears before the other ceases to; what comes between these two calls
//! comes twice, as a SYN that was sent again. The threads here have no capability, and when seccomp restricts them have
//! nothing left to ask for that takes one. They close the first socket, too, which takes another grace period.

use super::{RouterSideError, open};
use crate::relay::event_loop::event;
use crate::relay::gate;
use crate::relay::sandbox;
use crate::sys::packet::{self, Asked, Deaf, FrameRing, Ringed};
use nix::sys::eventfd::EventFd;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

/// AF_PACKET sockets of all workers; one of each kind for each.
pub struct Packets {
    /// Heard from the beginning.
    pub gates: Vec<Arc<OwnedFd>>,
    /// To replace them.
    pub ringed: Vec<Deaf>,
    /// None, where no flows are to be framed.
    pub taps: Vec<Deaf>,
}

/// What comes to a worker.
#[derive(Debug)]
pub struct Rings {
    /// In the place of its gate. `None` where the kernel has no ring to give: the gate stays as it is.
    pub gate: Option<(OwnedFd, FrameRing)>,
    /// On all interfaces, for framed flows.
    pub tap: Option<(OwnedFd, FrameRing)>,
    /// To be dropped when the worker has done with the gate that it had.
    pub done: Sender<()>,
}

/// Where it comes to.
#[derive(Debug)]
pub struct Coming {
    /// Becomes readable then. Others may use it, too.
    pub wake: Arc<EventFd>,
    /// Once.
    pub rings: Receiver<Rings>,
}

/// Asks for the rings; each worker's gate, and where its rings will come to. Returns when all threads that this takes
/// run, without capabilities.
pub fn expect(packets: Packets) -> Result<Vec<(Arc<OwnedFd>, Coming)>, RouterSideError> {
    let mut workers = Vec::with_capacity(packets.gates.len());
    let mut receivers = Vec::with_capacity(packets.gates.len());
    for gate in &packets.gates {
        let wake = event().map_err(open("event of a worker"))?;
        let (sender, rings) = channel();
        receivers.push((Arc::clone(&wake), sender));
        workers.push((Arc::clone(gate), Coming { wake, rings }));
    }
    let (ready, started) = sync_channel(1);
    let run = move || match sandbox::drop_capabilities() {
        Ok(()) => {
            let (gates, taps) = (packet::ask(packets.ringed), packet::ask(packets.taps));
            if ready.send(Ok(())).is_ok() {
                hand_over(packets.gates, (gates, taps), receivers);
            }
        }
        Err(error) => {
            let _ = ready.send(Err(RouterSideError::Restrict(error)));
        }
    };
    let thread = std::thread::Builder::new().name("rings".into());
    thread.spawn(run).map_err(RouterSideError::Thread)?;
    let broken = |_| RouterSideError::Thread(io::ErrorKind::BrokenPipe.into());
    started.recv().map_err(broken)??;
    Ok(workers)
}

fn hand_over(
    old: Vec<Arc<OwnedFd>>,
    (gates, taps): (Asked, Asked),
    workers: Vec<(Arc<EventFd>, Sender<Rings>)>,
) {
    let taps = all(taps, "no framed flows: no ring for a tap").into_iter();
    let gates = all(gates, "gate without a ring");
    if !gates.is_empty() {
        for gate in &old {
            if let Err(error) = packet::silence(gate) {
                // What it hears is heard by the other one, too.
                tracing::info!(%error, "a gate that is replaced still hears");
            }
        }
    }
    let (done, all_done) = channel();
    let gates = gates
        .into_iter()
        .map(Some)
        .chain(std::iter::repeat_with(|| None));
    let taps = taps.map(Some).chain(std::iter::repeat_with(|| None));
    for ((wake, worker), (gate, tap)) in workers.into_iter().zip(gates.zip(taps)) {
        let done = done.clone();
        // Gone: so is the relay, in a moment.
        let _ = worker.send(Rings { gate, tap, done });
        let _ = wake.write(1);
    }
    drop(done);
    // Nobody says anything: it ends when the last worker has dropped its sender.
    let _ = all_done.recv();
    drop(old);
}

/// All of them, hearing, or none.
fn all(asked: Asked, otherwise: &str) -> Vec<(OwnedFd, FrameRing)> {
    let rings: io::Result<Vec<Ringed>> = asked.wait(gate::LARGEST).into_iter().collect();
    let rings = rings.and_then(|rings| rings.into_iter().map(Ringed::listen).collect());
    rings.unwrap_or_else(|error| {
        tracing::info!(%error, "{otherwise}");
        Vec::new()
    })
}

#[cfg(test)]
mod tests;
