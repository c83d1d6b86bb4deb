//! The RST that answers a segment to which nobody listens (RFC 9293 §3.10.7.1).

use super::WireError;
use super::ip::{Header, Packet, Protocol};
use super::tcp::{Control, Flags, Segment};

/// A whole IP packet that resets the connection which `packet` belongs to, as its destination
/// would have sent it. `None` for a segment that is itself a reset.
pub fn reset(packet: &Packet<'_>) -> Result<Option<Vec<u8>>, WireError> {
    let segment = Segment::of(packet)?;
    if segment.flags().contains(Flags::RST) {
        return Ok(None);
    }
    let (sequence, acknowledgement, flags) = if segment.flags().contains(Flags::ACK) {
        (segment.acknowledgement(), 0, Flags::RST)
    } else {
        let acknowledgement = segment.sequence().wrapping_add(segment.sequence_length());
        (0, acknowledgement, Flags::RST.with(Flags::ACK))
    };
    let addresses = packet.addresses().reversed();
    let control = Control {
        source_port: segment.destination_port(),
        destination_port: segment.source_port(),
        sequence,
        acknowledgement,
        flags,
        window: 0,
    };
    Header::new(addresses, Protocol::Tcp)
        .emit(&control.emit(addresses))
        .map(Some)
}
