//! The number by which the host's netns knows another one (ip-netns(8), RTM_NEWNSID). It holds for
//! as long as the other one lives.

use super::{Host, KernelError, Result};
use crate::attribute::{each, put, word};
use mossnet_netlink::Message;
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// linux/rtnetlink.h and linux/net_namespace.h.
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// struct rtgenmsg, padded.
const FIXED: [u8; 4] = [0; 4];

/// Such a number, 0 or above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceId(pub i32);

impl Host {
    /// The number of a namespace; it is given one if it has none.
    pub fn namespace_id(&mut self, netns: BorrowedFd<'_>) -> Result<NamespaceId> {
        if let Some(known) = self.known_namespace_id(netns)? {
            return Ok(known);
        }
        let mut message = Message::new(RTM_NEWNSID, 0, &FIXED);
        put(message.attributes(), NETNSA_NSID, &(-1i32).to_ne_bytes());
        put_netns(&mut message, netns);
        match self.change("number a network namespace", message) {
            // A link that leads there has been made meanwhile.
            Err(error) if error.errno() == Some(Errno::EEXIST) => {}
            other => other?,
        }
        let id = self.known_namespace_id(netns)?;
        id.ok_or(KernelError::Missing("the number of a network namespace"))
    }

    fn known_namespace_id(&mut self, netns: BorrowedFd<'_>) -> Result<Option<NamespaceId>> {
        let mut message = Message::new(RTM_GETNSID, 0, &FIXED);
        put_netns(&mut message, netns);
        let mut found = None;
        self.query("look up a network namespace", message, |payload| {
            let attributes = payload.get(FIXED.len()..).unwrap_or_default();
            found = each(attributes)
                .find(|(kind, _)| *kind == NETNSA_NSID)
                .and_then(|(_, value)| word(value));
        })?;
        // -1: none.
        let id = found.map(u32::cast_signed).filter(|id| *id >= 0);
        Ok(id.map(NamespaceId))
    }
}

fn put_netns(message: &mut Message, netns: BorrowedFd<'_>) {
    let fd = netns.as_raw_fd().to_ne_bytes();
    put(message.attributes(), NETNSA_FD, &fd);
}
