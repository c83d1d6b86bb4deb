//! Expressions about frames and what they claim of their sender: the guard's.

use super::expression::{FIRST, Writer, destination};
use super::model::{
    EtherType, Family, Own, Protocol, SYN_AND_ACK, SetId, TIMESTAMP_HEAD, TIMESTAMP_KIND,
    option_head,
};
use crate::framed::{FRAMED_MASK, FRAMED_TIMESTAMP};
use netlink_bindings::nftables::{CmpOps, MetaKeys, PayloadBase};

/// Registers of 4 bytes (NFT_REG32_00 and on), for keys whose parts follow one another: an interface
/// index in the first, a MAC address in the two after it, an address after those.
const AFTER_INDEX: u32 = 9;
const AFTER_MAC: u32 = 11;

/// Source and type of an Ethernet frame; sender's MAC address in ARP, before its address (RFC 826);
/// the first option of neighbour discovery (RFC 4861).
const ETHER_SOURCE: u32 = 6;
const ETHER_TYPE: u32 = 12;
const ARP_SENDER: u32 = 8;
const OPTION: u32 = 24;

/// The first option in a TCP header, and the echoed value where that is a timestamp behind two NOPs
/// (RFC 7323, appendix A).
const TCP_OPTION: u32 = 20;
const TIMESTAMP_ECHO: u32 = 28;
/// Where the flags are.
const TCP_FLAGS: u32 = 13;

/// Before the packet that an ICMP error is about (RFC 792, RFC 4443).
const ICMP_HEADER: u32 = 8;

impl Writer<'_> {
    pub(super) fn ether(&mut self, kind: EtherType) {
        self.family = kind.family();
        self.load_payload(PayloadBase::LinkLayerHeader, ETHER_TYPE, 2, FIRST);
        self.compare(CmpOps::Eq, &kind.number().to_be_bytes());
    }

    pub(super) fn foreign_mac(&mut self) {
        self.load_meta(MetaKeys::Iif);
        self.load_payload(PayloadBase::LinkLayerHeader, ETHER_SOURCE, 6, AFTER_INDEX);
        self.look_up(SetId::OwnMac, true);
    }

    pub(super) fn saddr(&mut self, family: Family, set: SetId) {
        self.load_saddr(family, FIRST);
        self.look_up(set, false);
    }

    pub(super) fn length(&mut self, length: u16) {
        self.load_payload(PayloadBase::NetworkHeader, 4, 2, FIRST);
        self.compare(CmpOps::Eq, &length.to_be_bytes());
    }

    pub(super) fn neighbour_option(&mut self, kind: u8) {
        self.load_payload(PayloadBase::TransportHeader, OPTION, 2, FIRST);
        self.compare(CmpOps::Eq, &option_head(kind).to_be_bytes());
    }

    pub(super) fn udp_from(&mut self, set: SetId) {
        self.load_payload(PayloadBase::TransportHeader, 0, 2, FIRST);
        self.look_up(set, false);
    }

    /// The echoed timestamp first: next to nothing gets past it, and the head of the option is the same in
    /// most segments. Aligned loads of four bytes are what the kernel is quick at. What is too short for
    /// them does not match, nor does a fragment but the first.
    pub(super) fn framed(&mut self) {
        let transport = PayloadBase::TransportHeader;
        self.load_payload(transport, TIMESTAMP_ECHO, 4, FIRST);
        self.mask(&FRAMED_MASK.to_be_bytes());
        self.compare(CmpOps::Eq, &FRAMED_TIMESTAMP.to_be_bytes());
        self.load_payload(transport, TCP_OPTION, 4, FIRST);
        self.compare(CmpOps::Eq, &TIMESTAMP_HEAD.to_be_bytes());
    }

    /// What answers a SYN begins with its segment size, four bytes more; before the timestamps stand two NOPs,
    /// or that selective acknowledgements are understood.
    pub(super) fn framed_answer(&mut self) {
        let transport = PayloadBase::TransportHeader;
        self.load_payload(transport, TIMESTAMP_ECHO + 4, 4, FIRST);
        self.mask(&FRAMED_MASK.to_be_bytes());
        self.compare(CmpOps::Eq, &FRAMED_TIMESTAMP.to_be_bytes());
        self.load_payload(transport, TCP_OPTION + 6, 2, FIRST);
        self.compare(CmpOps::Eq, &TIMESTAMP_KIND.to_be_bytes());
        self.load_payload(transport, TCP_FLAGS, 1, FIRST);
        self.compare(CmpOps::Eq, &[SYN_AND_ACK]);
    }

    pub(super) fn not_protocol(&mut self, protocol: Protocol) {
        self.load_meta(MetaKeys::L4Proto);
        self.compare(CmpOps::Neq, &[protocol.number()]);
    }

    /// Port, MAC address and address in the registers that follow one another, then one look-up.
    pub(super) fn own(&mut self, own: Own) {
        self.load_meta(MetaKeys::Iif);
        let network = PayloadBase::NetworkHeader;
        match own {
            Own::Source(_) | Own::Target | Own::Quoted(_) => {
                self.load_payload(PayloadBase::LinkLayerHeader, ETHER_SOURCE, 6, AFTER_INDEX);
            }
            Own::ArpSender | Own::ArpMac => self.load_payload(network, ARP_SENDER, 6, AFTER_INDEX),
            Own::OptionMac => {
                self.load_payload(PayloadBase::TransportHeader, OPTION + 2, 6, AFTER_INDEX);
            }
        }
        match own {
            Own::Source(family) => self.load_saddr(family, AFTER_MAC),
            Own::ArpSender => self.load_payload(network, ARP_SENDER + 6, 4, AFTER_MAC),
            Own::Target => self.load_payload(PayloadBase::TransportHeader, 8, 16, AFTER_MAC),
            Own::Quoted(family) => {
                let (offset, length) = destination(family);
                let offset = ICMP_HEADER + offset;
                self.load_payload(PayloadBase::TransportHeader, offset, length, AFTER_MAC);
            }
            Own::ArpMac | Own::OptionMac => {}
        }
        self.look_up(own.set(), false);
    }

    pub(super) fn no_source(&mut self, family: Family) {
        match family {
            Family::V4 => {
                self.load_payload(PayloadBase::NetworkHeader, ARP_SENDER + 6, 4, FIRST);
                self.compare(CmpOps::Eq, &[0; 4]);
            }
            Family::V6 => {
                self.load_saddr(family, FIRST);
                self.compare(CmpOps::Eq, &[0; 16]);
            }
        }
    }

    pub(super) fn icmp(&mut self, version: Protocol, first: u8, last: u8) {
        self.protocol(version);
        self.load_payload(PayloadBase::TransportHeader, 0, 1, FIRST);
        if first == last {
            self.compare(CmpOps::Eq, &[first]);
        } else {
            self.compare(CmpOps::Gte, &[first]);
            self.compare(CmpOps::Lte, &[last]);
        }
    }
}
