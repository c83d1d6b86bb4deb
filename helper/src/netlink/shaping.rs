//! What holds traffic to a rate: token buckets, a link through which traffic is led that has to be held
//! where it comes in, and queues (rtnetlink(7), tc-tbf(8), tc-pfifo(8), linux/pkt_sched.h, linux/pkt_cls.h).

use super::link::{UP, link_message};
use super::{Message, Netlink, Refused, text, value};
use crate::names::IfName;
use mossnet_netlink::attribute;
use netlink_bindings::rt_link::PushLinkAttrs;
use netlink_bindings::utils::{finalize_nested_header, push_nested_header};

/// linux/rtnetlink.h.
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
/// TC_H_ROOT, TC_H_INGRESS and the handle that the latter always has.
const ROOT: u32 = 0xffff_ffff;
const INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
/// Of the bucket: `1:`.
const HANDLE: u32 = 0x0001_0000;
/// Of the queue, in ASCII `mo:`: nobody else's.
const QUEUE_HANDLE: u32 = 0x6d6f_0000;
/// Of the filter: the first to be asked.
const PRIORITY: u32 = 1;
/// struct tcmsg.
const FIXED: usize = 20;
/// linux/pkt_sched.h.
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const LINKLAYER_ETHERNET: u8 = 1;
/// linux/pkt_cls.h: a selector of one key that every packet matches.
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TC_U32_TERMINAL: u8 = 1;
/// linux/tc_act/tc_mirred.h: the packet goes out by another link, and no further here.
const TCA_MIRRED_PARMS: u16 = 2;
const TCA_EGRESS_REDIR: u32 = 1;
const TC_ACT_STOLEN: u32 = 4;

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Bytes per second.
    pub rate: u64,
    /// Its size, bytes. Larger packets are dropped, unless they can be cut.
    pub burst: u32,
    /// How much waits for it, bytes.
    pub queue: u32,
}

impl Netlink {
    /// What leaves a link is held to this; an earlier bucket is changed.
    pub fn hold(&mut self, index: u32, bucket: Bucket) -> Result<(), Refused> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let mut message = control(libc::RTM_NEWQDISC, flags, index, HANDLE, ROOT, 0);
        let bytes = message.attributes();
        text(bytes, TCA_KIND, "tbf");
        let options = push_nested_header(bytes, TCA_OPTIONS);
        value(bytes, TCA_TBF_PARMS, &parameters(bucket));
        value(bytes, TCA_TBF_RATE64, &bucket.rate.to_ne_bytes());
        value(bytes, TCA_TBF_BURST, &bucket.burst.to_ne_bytes());
        finalize_nested_header(bytes, options);
        self.request(message)
    }

    /// What leaves a link waits in a queue of as many packets where the other end takes no more. EEXIST where
    /// there is a queue that somebody made.
    pub fn add_queue(&mut self, index: u32, packets: u32) -> Result<(), Refused> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = control(libc::RTM_NEWQDISC, flags, index, QUEUE_HANDLE, ROOT, 0);
        text(message.attributes(), TCA_KIND, "pfifo");
        // struct tc_fifo_qopt
        value(message.attributes(), TCA_OPTIONS, &packets.to_ne_bytes());
        self.request(message)
    }

    /// Remove that queue; refused where it is not there, or is another one.
    pub fn remove_queue(&mut self, index: u32) -> Result<(), Refused> {
        self.request(control(libc::RTM_DELQDISC, 0, index, QUEUE_HANDLE, ROOT, 0))
    }

    /// The rate, bytes per second, to which what leaves a link is held.
    pub fn held(&mut self, index: u32) -> Result<Option<u64>, Refused> {
        let mut found = None;
        let request = control(libc::RTM_GETQDISC, 0, 0, 0, 0, 0);
        self.dump(request, |payload| {
            found = found.or(rate_of(payload, index));
        })?;
        Ok(found)
    }

    /// Make a link that gives back what it is given, where that came from; it is up.
    pub fn add_turnaround(&mut self, name: &IfName, mtu: u32) -> Result<(), Refused> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = link_message(libc::RTM_NEWLINK, flags, 0, UP);
        PushLinkAttrs::new(message.attributes())
            .push_ifname_bytes(name.as_str().as_bytes())
            .push_mtu(mtu)
            .nested_linkinfo()
            .push_kind(c"ifb")
            .end_nested()
            .end_nested();
        self.request(message)
    }

    /// Where what comes in by a link can be looked at before anything else.
    pub fn add_ingress(&mut self, index: u32) -> Result<(), Refused> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let (kind, handle) = (libc::RTM_NEWQDISC, INGRESS_HANDLE);
        let mut message = control(kind, flags, index, handle, INGRESS, 0);
        text(message.attributes(), TCA_KIND, "ingress");
        self.request(message)
    }

    /// All that comes in by a link, and is looked at, goes out by another first.
    pub fn lead_through(&mut self, index: u32, other: u32) -> Result<(), Refused> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let every = u32::from((libc::ETH_P_ALL as u16).to_be());
        let info = PRIORITY << 16 | every;
        let kind = libc::RTM_NEWTFILTER;
        let mut message = control(kind, flags, index, 0, INGRESS_HANDLE, info);
        let bytes = message.attributes();
        text(bytes, TCA_KIND, "u32");
        let options = push_nested_header(bytes, TCA_OPTIONS);
        value(bytes, TCA_U32_SEL, &everything());
        let actions = push_nested_header(bytes, TCA_U32_ACT);
        let first = push_nested_header(bytes, 1);
        text(bytes, TCA_KIND, "mirred");
        let redirect = push_nested_header(bytes, TCA_OPTIONS);
        value(bytes, TCA_MIRRED_PARMS, &redirection(other));
        for nested in [redirect, first, actions, options] {
            finalize_nested_header(bytes, nested);
        }
        self.request(message)
    }
}

/// struct tcmsg.
fn control(kind: u16, flags: i32, index: u32, handle: u32, parent: u32, info: u32) -> Message {
    let mut fixed = [0; FIXED];
    for (at, word) in [(4, index), (8, handle), (12, parent), (16, info)] {
        fixed[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    Message::new(kind, flags, &fixed)
}

/// struct tc_tbf_qopt: two of tc_ratespec (the second, of peaks, is empty), then limit, buffer and MTU. The
/// buffer is said in bytes, by an attribute of its own.
fn parameters(bucket: Bucket) -> Vec<u8> {
    let rate = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    let mut bytes = vec![0, LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0];
    bytes.extend(rate.to_ne_bytes());
    bytes.extend([0; 12]);
    for word in [bucket.queue, 0, 0] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes
}

/// struct tc_u32_sel with one struct tc_u32_key: mask 0, value 0, at 0.
fn everything() -> Vec<u8> {
    let mut bytes = vec![TC_U32_TERMINAL, 0, 1, 0];
    bytes.extend([0; 12 + 16]);
    bytes
}

/// struct tc_mirred: index, capabilities, action, two counters, kind, link.
fn redirection(other: u32) -> Vec<u8> {
    let words = [0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, other];
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Of a bucket of this link.
fn rate_of(payload: &[u8], index: u32) -> Option<u64> {
    let word = |at: usize| {
        Some(u32::from_ne_bytes(
            payload.get(at..at + 4)?.try_into().ok()?,
        ))
    };
    if word(4)? != index || word(12)? != ROOT {
        return None;
    }
    let attributes = payload.get(FIXED..)?;
    if attribute(attributes, TCA_KIND)? != b"tbf\0" {
        return None;
    }
    let options = attribute(attributes, TCA_OPTIONS)?;
    if let Some(rate) = attribute(options, TCA_TBF_RATE64) {
        return Some(u64::from_ne_bytes(rate.try_into().ok()?));
    }
    let parameters = attribute(options, TCA_TBF_PARMS)?;
    let rate = parameters.get(8..12)?.try_into().ok()?;
    Some(u32::from_ne_bytes(rate).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        let bucket = Bucket {
            rate: 1 << 33,
            burst: 5,
            queue: 7,
        };
        let parameters = parameters(bucket);
        assert_eq!(parameters.len(), 36);
        assert_eq!(parameters[8..12], u32::MAX.to_ne_bytes());
        assert_eq!(everything().len(), 32);
        assert_eq!(redirection(1).len(), 28);
    }

    #[test]
    fn only_a_bucket_of_the_link_counts() {
        let mut message = control(libc::RTM_NEWQDISC, 0, 5, HANDLE, ROOT, 0);
        let bytes = message.attributes();
        text(bytes, TCA_KIND, "tbf");
        let options = push_nested_header(bytes, TCA_OPTIONS);
        let bucket = Bucket {
            rate: 125_000,
            burst: 5,
            queue: 7,
        };
        value(bytes, TCA_TBF_PARMS, &parameters(bucket));
        finalize_nested_header(bytes, options);
        let payload = message.bytes()[mossnet_netlink::HEADER_LENGTH..].to_vec();
        assert_eq!(rate_of(&payload, 5), Some(125_000));
        assert_eq!(rate_of(&payload, 6), None);
        for cut in 0..payload.len() {
            assert!(rate_of(&payload[..cut], 5).is_none(), "{cut}");
        }
    }
}
