//! One netlink message: 16 bytes of header, a fixed part, attributes.

use crate::Refused;
use nix::errno::Errno;

/// struct nlmsghdr: length, type, flags, sequence, port (netlink(7)).
pub const HEADER_LENGTH: usize = 16;

/// The kernel's words on an error, linux/netlink.h.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The rest of an attribute's type are flags (NLA_TYPE_MASK).
const TYPE_MASK: u16 = 0x3fff;

/// A request being written.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request of `kind`, with `flags` besides NLM_F_REQUEST, and its fixed part.
    pub fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_LENGTH];
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self { bytes }
    }

    /// Where attributes are appended.
    pub fn attributes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Fill in length, sequence number and further flags.
    pub fn finish(&mut self, sequence: u32, more_flags: u16) {
        let padding = self.bytes.len().next_multiple_of(4) - self.bytes.len();
        self.bytes.extend(std::iter::repeat_n(0, padding));
        let length = self.bytes.len() as u32;
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | more_flags;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }

    /// The message as it travels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// One message that the kernel sent.
pub enum Received<'a> {
    /// A request was performed.
    Ack {
        /// Of the request.
        sequence: u32,
    },
    /// A request was refused.
    Error(Refused),
    /// The end of a dump.
    Done {
        /// Of the request.
        sequence: u32,
    },
    /// An object.
    Data {
        /// Of message: RTM_NEWLINK.
        kind: u16,
        /// Of the request.
        sequence: u32,
        /// Fixed part and attributes.
        payload: &'a [u8],
    },
}

/// Split a datagram into its messages. A malformed rest is dropped.
pub fn received(mut datagram: &[u8]) -> Vec<Received<'_>> {
    let mut messages = Vec::new();
    while let Some((message, rest)) = split(datagram) {
        messages.push(message);
        datagram = rest;
    }
    messages
}

fn split(datagram: &[u8]) -> Option<(Received<'_>, &[u8])> {
    let length = word(datagram, 0)? as usize;
    let kind = u16::from_ne_bytes(datagram.get(4..6)?.try_into().ok()?);
    let flags = u16::from_ne_bytes(datagram.get(6..8)?.try_into().ok()?);
    let sequence = word(datagram, 8)?;
    let payload = datagram.get(HEADER_LENGTH..length)?;
    let rest = datagram
        .get(length.next_multiple_of(4)..)
        .unwrap_or_default();
    let message = match i32::from(kind) {
        libc::NLMSG_ERROR => error(payload, flags, sequence)?,
        libc::NLMSG_DONE => Received::Done { sequence },
        _ => Received::Data {
            kind,
            sequence,
            payload,
        },
    };
    Some((message, rest))
}

/// struct nlmsgerr: a negated error number, the header of the request, attributes.
fn error(payload: &[u8], flags: u16, sequence: u32) -> Option<Received<'_>> {
    let code = i32::from_ne_bytes(payload.get(0..4)?.try_into().ok()?);
    if code == 0 {
        return Some(Received::Ack { sequence });
    }
    let has_attributes = i32::from(flags) & libc::NLM_F_ACK_TLVS != 0;
    let attributes = payload.get(4 + HEADER_LENGTH..).filter(|_| has_attributes);
    let words = attributes.and_then(|attributes| attribute(attributes, NLMSGERR_ATTR_MSG));
    let words = words.map(|bytes| {
        String::from_utf8_lossy(bytes)
            .trim_end_matches('\0')
            .to_owned()
    });
    Some(Received::Error(Refused {
        errno: Errno::from_raw(-code),
        words,
        sequence,
    }))
}

/// The value of the first attribute of `kind`.
pub fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(0..2)?.try_into().ok()?));
        let this = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let value = attributes.get(4..length)?;
        if this & TYPE_MASK == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(kind: i32, flags: i32, payload: &[u8]) -> Vec<u8> {
        let mut message = Message::new(kind as u16, flags, payload);
        message.finish(7, 0);
        message.bytes
    }

    #[test]
    fn an_error_carries_the_words_of_the_kernel() {
        let mut payload = (-libc::EPERM).to_ne_bytes().to_vec();
        payload.extend([0; HEADER_LENGTH]);
        payload.extend(7u16.to_ne_bytes());
        payload.extend(NLMSGERR_ATTR_MSG.to_ne_bytes());
        payload.extend(b"no\0\0");
        let datagram = reply(libc::NLMSG_ERROR, libc::NLM_F_ACK_TLVS, &payload);
        match received(&datagram).as_slice() {
            [Received::Error(refused)] => {
                assert_eq!(refused.errno, Errno::EPERM);
                assert_eq!(refused.words.as_deref(), Some("no"));
                assert_eq!(refused.sequence, 7);
            }
            _ => panic!("one error expected"),
        }
    }

    #[test]
    fn truncated_datagrams_yield_what_is_whole() {
        let mut datagram = reply(libc::NLMSG_ERROR, 0, &[0; 20]);
        let one = datagram.len();
        datagram.extend(reply(99, 0, b"abcd"));
        assert_eq!(received(&datagram).len(), 2);
        for cut in 0..datagram.len() {
            let expected = usize::from(cut >= one);
            assert_eq!(received(&datagram[..cut]).len(), expected, "cut at {cut}");
        }
    }
}
