//! Clauses as expressions of the nftables virtual machine: load into a register, then compare, look
//! up, or act. What nft(8) compiles the same text to, so that it lists it as that text.

use super::elements::padded;
use super::model::{Clause, Family, Protocol, SetId};
use netlink_bindings::nftables::{
    CmpOps, CtKeys, LookupFlags, MetaKeys, PayloadBase, PushExprAttrs, PushExprListAttrs,
    Registers, RejectInetCode, RejectTypes, VerdictCode,
};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{finalize_nested_header, push_header, push_nested_header};

/// linux/netfilter/nf_tables.h
pub const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_EXPR_DATA: u16 = 2;
const NFTA_LOOKUP_SET: u16 = 1;
const NFTA_LOOKUP_SREG: u16 = 2;
const NFTA_LOOKUP_DREG: u16 = 3;
const NFTA_LOOKUP_FLAGS: u16 = 5;

/// The registers used: 16 bytes each.
pub(super) const FIRST: u32 = Registers::Reg1 as u32;
const SECOND: u32 = Registers::Reg2 as u32;

/// FIN, SYN, RST, ACK in the thirteenth byte of a TCP header (RFC 9293).
const TCP_FLAGS_OFFSET: u32 = 13;
const TCP_FLAGS_MASK: u8 = 0x17;
const TCP_SYN: u8 = 0x02;

/// Established and related (NF_CT_STATE_BIT).
const CT_REPLY: u32 = 0x2 | 0x4;

const TPROXY_PORT: u16 = 7000;

/// Where the destination is in an IP header, and how long it is.
pub(super) fn destination(family: Family) -> (u32, u32) {
    match family {
        Family::V4 => (16, 4),
        Family::V6 => (24, 16),
    }
}

/// Appends expressions to a rule.
pub struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    /// Matched already: nft(8) leaves a repetition out.
    pub(super) family: Option<Family>,
    protocol: Option<Protocol>,
}

impl<'a> Writer<'a> {
    /// Into the nested attribute that is open at the end of `bytes`.
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self {
            bytes,
            family: None,
            protocol: None,
        }
    }

    /// A whole rule.
    pub fn rule(mut self, rule: &[Clause]) {
        for clause in rule {
            self.clause(*clause);
        }
    }

    fn clause(&mut self, clause: Clause) {
        match clause {
            Clause::Iif(name) => self.interface(MetaKeys::Iifname, CmpOps::Eq, &padded(name)),
            Clause::IifStarts(name) => {
                self.interface(MetaKeys::Iifname, CmpOps::Eq, name.as_bytes());
            }
            Clause::IifStartsNot(name) => {
                self.interface(MetaKeys::Iifname, CmpOps::Neq, name.as_bytes());
            }
            Clause::IifIn(set) => self.interface_in(MetaKeys::Iifname, set, false),
            Clause::IifNotIn(set) => self.interface_in(MetaKeys::Iifname, set, true),
            Clause::Ether(kind) => self.ether(kind),
            Clause::Own(own) => self.own(own),
            Clause::ForeignMac => self.foreign_mac(),
            Clause::Saddr(family, set) => self.saddr(family, set),
            Clause::NoSource(family) => self.no_source(family),
            Clause::Icmp(first, last) => self.icmp(Protocol::Icmp, first, last),
            Clause::Icmpv6(first, last) => self.icmp(Protocol::Icmpv6, first, last),
            Clause::Length(length) => self.length(length),
            Clause::NeighbourOption(kind) => self.neighbour_option(kind),
            Clause::UdpFrom(set) => self.udp_from(set),
            Clause::Framed => self.framed(),
            Clause::FramedAnswer => self.framed_answer(),
            Clause::NotL4(protocol) => self.not_protocol(protocol),
            Clause::Oif(name) => self.interface(MetaKeys::Oifname, CmpOps::Eq, &padded(name)),
            Clause::OifIn(set) => self.interface_in(MetaKeys::Oifname, set, false),
            Clause::L4(protocol) => self.protocol(protocol),
            Clause::TcpOpens(opens) => self.tcp_opens(opens),
            Clause::NotForHost => {
                self.load_meta(MetaKeys::Pkttype);
                self.compare(CmpOps::Neq, &[libc::PACKET_HOST]);
            }
            Clause::Daddr(family, set) => {
                self.family(family);
                self.load_daddr(family, FIRST);
                self.look_up(set, false);
            }
            Clause::IifDaddr(family, set) => {
                self.family(family);
                self.load_meta(MetaKeys::Iifname);
                self.load_daddr(family, SECOND);
                self.look_up(set, false);
            }
            Clause::HopsBelow(family, hops) => self.hops_below(family, hops),
            Clause::DontFragment => self.dont_fragment(),
            Clause::Mark(mark) => self.marked(mark),
            Clause::Reply => self.reply(),
            Clause::SetMark(mark) => self.set_mark(mark),
            Clause::Tproxy(family) => self.tproxy(family),
            Clause::Goto(chain) => self.goto(chain),
            Clause::Accept => self.verdict(VerdictCode::Accept),
            Clause::Drop => self.verdict(VerdictCode::Drop),
            Clause::Reject => self.reject(),
            Clause::Masquerade => self.named(c"masq"),
            Clause::Untracked => self.named(c"notrack"),
            Clause::Nat(nat) => self.nat(nat),
            Clause::Answer(answer) => self.answer(answer),
            Clause::Fast(step) => self.step(step),
        }
    }

    /// One list element; `fill` writes the expression.
    pub(super) fn element(
        &mut self,
        fill: impl FnOnce(PushExprAttrs<PushExprListAttrs<&mut Vec<u8>>>),
    ) {
        fill(PushExprListAttrs::new(&mut *self.bytes).nested_elem());
    }

    /// An expression without data.
    fn named(&mut self, name: &std::ffi::CStr) {
        self.element(|expression| {
            expression.push_name(name).end_nested().end_nested();
        });
    }

    pub(super) fn load_meta(&mut self, key: MetaKeys) {
        self.load_meta_into(key, FIRST);
    }

    pub(super) fn load_meta_into(&mut self, key: MetaKeys, register: u32) {
        self.element(|expression| {
            expression
                .nested_data_meta()
                .push_key(key as u32)
                .push_dreg(register)
                .end_nested();
        });
    }

    pub(super) fn load_payload(
        &mut self,
        base: PayloadBase,
        offset: u32,
        length: u32,
        register: u32,
    ) {
        self.element(|expression| {
            expression
                .nested_data_payload()
                .push_dreg(register)
                .push_base(base as u32)
                .push_offset(offset)
                .push_len(length)
                .end_nested();
        });
    }

    pub(super) fn load_daddr(&mut self, family: Family, register: u32) {
        let (offset, length) = destination(family);
        self.load_payload(PayloadBase::NetworkHeader, offset, length, register);
    }

    pub(super) fn load_saddr(&mut self, family: Family, register: u32) {
        let (offset, length) = match family {
            Family::V4 => (12, 4),
            Family::V6 => (8, 16),
        };
        self.load_payload(PayloadBase::NetworkHeader, offset, length, register);
    }

    fn marked(&mut self, mark: u32) {
        self.load_meta(MetaKeys::Mark);
        self.compare(CmpOps::Eq, &mark.to_ne_bytes());
    }

    fn dont_fragment(&mut self) {
        self.family(Family::V4);
        self.load_payload(PayloadBase::NetworkHeader, 6, 2, FIRST);
        self.mask(&[0x40, 0]);
        self.compare(CmpOps::Neq, &[0; 2]);
    }

    pub(super) fn compare(&mut self, operation: CmpOps, value: &[u8]) {
        self.element(|expression| {
            expression
                .nested_data_cmp()
                .push_sreg(FIRST)
                .push_op(operation as u32)
                .nested_data()
                .push_value(value)
                .end_nested()
                .end_nested();
        });
    }

    pub(super) fn mask(&mut self, mask: &[u8]) {
        let zeroes = vec![0; mask.len()];
        self.element(|expression| {
            expression
                .nested_data_bitwise()
                .push_sreg(FIRST)
                .push_dreg(FIRST)
                .push_len(mask.len() as u32)
                .nested_mask()
                .push_value(mask)
                .end_nested()
                .nested_xor()
                .push_value(&zeroes)
                .end_nested()
                .end_nested();
        });
    }

    pub(super) fn look_up(&mut self, set: SetId, inverted: bool) {
        let flags = if inverted {
            LookupFlags::Invert as u32
        } else {
            0
        };
        self.look_up_named(set.name(), None, flags);
    }

    /// Written attribute by attribute: `netlink_bindings` 0.3 numbers those of this expression
    /// wrongly (set id before the registers). `value`: where what a map says goes.
    pub(super) fn look_up_named(&mut self, name: &str, value: Option<u32>, flags: u32) {
        self.element(|expression| {
            let mut expression = expression.push_name(c"lookup");
            let bytes = expression.as_vec_mut();
            let data = push_nested_header(bytes, NFTA_EXPR_DATA);
            let name = name.as_bytes();
            push_header(bytes, NFTA_LOOKUP_SET, name.len() as u16 + 1);
            bytes.extend_from_slice(name);
            bytes.push(0);
            let value = value.map(|register| (NFTA_LOOKUP_DREG, register));
            let others = [(NFTA_LOOKUP_SREG, FIRST), (NFTA_LOOKUP_FLAGS, flags)];
            for (attribute, value) in others.into_iter().chain(value) {
                push_header(bytes, attribute, 4);
                bytes.extend_from_slice(&value.to_be_bytes());
            }
            finalize_nested_header(bytes, data);
            expression.end_nested().end_nested();
        });
    }

    pub(super) fn immediate(&mut self, register: u32, value: &[u8]) {
        self.element(|expression| {
            expression
                .nested_data_immediate()
                .push_dreg(register)
                .nested_data()
                .push_value(value)
                .end_nested()
                .end_nested();
        });
    }

    fn interface(&mut self, key: MetaKeys, operation: CmpOps, name: &[u8]) {
        self.load_meta(key);
        self.compare(operation, name);
    }

    fn interface_in(&mut self, key: MetaKeys, set: SetId, inverted: bool) {
        self.load_meta(key);
        self.look_up(set, inverted);
    }

    pub(super) fn family(&mut self, family: Family) {
        if self.family.replace(family) == Some(family) {
            return;
        }
        self.load_meta(MetaKeys::Nfproto);
        self.compare(CmpOps::Eq, &[family.number()]);
    }

    pub(super) fn protocol(&mut self, protocol: Protocol) {
        if self.protocol.replace(protocol) == Some(protocol) {
            return;
        }
        self.load_meta(MetaKeys::L4Proto);
        self.compare(CmpOps::Eq, &[protocol.number()]);
    }

    fn tcp_opens(&mut self, opens: bool) {
        self.protocol(Protocol::Tcp);
        self.load_payload(PayloadBase::TransportHeader, TCP_FLAGS_OFFSET, 1, FIRST);
        self.mask(&[TCP_FLAGS_MASK]);
        self.compare(if opens { CmpOps::Eq } else { CmpOps::Neq }, &[TCP_SYN]);
    }

    fn hops_below(&mut self, family: Family, hops: u8) {
        self.family(family);
        let offset = match family {
            Family::V4 => 8,
            Family::V6 => 7,
        };
        self.load_payload(PayloadBase::NetworkHeader, offset, 1, FIRST);
        self.compare(CmpOps::Lt, &[hops]);
    }

    pub(super) fn load_ct(&mut self, key: CtKeys) {
        self.element(|expression| {
            expression
                .nested_data_ct()
                .push_key(key as u32)
                .push_dreg(FIRST)
                .end_nested();
        });
    }

    fn reply(&mut self) {
        self.load_ct(CtKeys::State);
        self.mask(&CT_REPLY.to_ne_bytes());
        self.compare(CmpOps::Neq, &[0; 4]);
    }

    fn set_mark(&mut self, mark: u32) {
        self.immediate(FIRST, &mark.to_ne_bytes());
        self.element(|expression| {
            expression
                .nested_data_meta()
                .push_key(MetaKeys::Mark as u32)
                .push_sreg(FIRST)
                .end_nested();
        });
    }

    /// Breaks off by itself for packets of the other family.
    fn tproxy(&mut self, family: Family) {
        match family {
            Family::V4 => self.immediate(FIRST, &std::net::Ipv4Addr::LOCALHOST.octets()),
            Family::V6 => self.immediate(FIRST, &std::net::Ipv6Addr::LOCALHOST.octets()),
        }
        self.immediate(SECOND, &TPROXY_PORT.to_be_bytes());
        self.element(|expression| {
            expression
                .nested_data_tproxy()
                .push_family(u32::from(family.number()))
                .push_reg_addr(FIRST)
                .push_reg_port(SECOND)
                .end_nested();
        });
    }

    fn verdict(&mut self, code: VerdictCode) {
        self.element(|expression| {
            expression
                .nested_data_immediate()
                .push_dreg(Registers::RegVerdict as u32)
                .nested_data()
                .nested_verdict()
                .push_code(code as u32)
                .end_nested()
                .end_nested()
                .end_nested();
        });
    }

    fn goto(&mut self, chain: &str) {
        self.element(|expression| {
            expression
                .nested_data_immediate()
                .push_dreg(Registers::RegVerdict as u32)
                .nested_data()
                .nested_verdict()
                .push_code(VerdictCode::Goto as u32)
                .push_chain_bytes(chain.as_bytes())
                .end_nested()
                .end_nested()
                .end_nested();
        });
    }

    fn reject(&mut self) {
        self.element(|expression| {
            expression
                .nested_data_reject()
                .push_type(RejectTypes::IcmpxUnreach as u32)
                .push_icmp_code(RejectInetCode::IcmpxAdminProhibited as u8)
                .end_nested();
        });
    }
}
