//! From the host side to the container.

use super::{FLIGHT_LEN, FramedFlows, READ_LEN};
use crate::relay::event_loop::{Key, Readiness};
use crate::relay::worker::Context;
use socket2::SockRef;
use std::io::{self, Read as _};

impl FramedFlows {
    /// An event of a host side.
    pub fn host_ready(&mut self, key: Key, readiness: Readiness, cx: &mut Context<'_>) {
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        if flow.asked.is_some() {
            flow.early_event = true;
            return;
        }
        if flow.leaves || flow.broken || flow.connection.has_ended() {
            // The kernel's flow is told again.
            return;
        }
        if readiness.urgent() {
            return self.leave(key, &[], "urgent data");
        }
        self.pass_inward(key, readiness.read_closed(), cx);
    }

    /// Sends the container what the host side has. `closing`: there may be more behind a short read.
    pub(super) fn pass_inward(&mut self, key: Key, closing: bool, cx: &mut Context<'_>) {
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        let (mut length, mut end) = (0, false);
        while let Some(rest) = self.buffer.get_mut(length..).filter(|r| !r.is_empty()) {
            match (&*SockRef::from(&flow.host)).read(rest) {
                Ok(0) => {
                    end = true;
                    break;
                }
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::debug!(flow.id = key.slot, %error, "flow broken");
                    flow.broken = true;
                    break;
                }
            }
            if !closing {
                break;
            }
        }
        let end = end && !flow.broken;
        let much = flow.connection.in_flight() + length > FLIGHT_LEN;
        if length == READ_LEN || much || length > flow.connection.room() {
            let unsent: Box<[u8]> = self.buffer.get(..length).unwrap_or_default().into();
            return self.leave(key, &unsent, "bulk inward");
        }
        if length > 0 || end {
            self.send(key, length, end, cx);
        }
        self.finish(key, cx);
    }

    /// Sends bytes of the buffer.
    fn send(&mut self, key: Key, length: usize, end: bool, cx: &mut Context<'_>) {
        let buffer = std::mem::take(&mut self.buffer);
        let bytes = buffer.get(..length).unwrap_or_default();
        self.send_bytes(key, bytes, end, cx);
        self.buffer = buffer;
    }

    /// Sends bytes, and maybe the end after them.
    pub(super) fn send_bytes(&mut self, key: Key, bytes: &[u8], end: bool, cx: &mut Context<'_>) {
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        let sent = self.sender.send(&flow.connection.send(bytes, end));
        if let Some(passage) = &flow.passage {
            passage.counters.carry(bytes.len() as u64, 0);
        }
        if !flow.watched {
            flow.watched = true;
            let since = flow.connection.unacknowledged();
            self.unsure.push_back((cx.now, key, since));
        }
        if let Err(error) = sent
            && matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV))
        {
            // The container is gone.
            self.abort(key, cx);
        }
    }
}
