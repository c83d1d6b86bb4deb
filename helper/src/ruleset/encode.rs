//! A ruleset as one nfnetlink batch: the old table goes and the new one comes in one transaction.
//!
//! Sources: linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h. Set key types are those of
//! nft(8), which lists them; the kernel keeps them without looking.

use super::elements::elements;
use super::model::{
    Base, Chain, ChainKind, Clause, Elements, Hook, Priority, Ruleset, Set, TableFamily,
};
use super::nat::Map;
use super::{expression, text};
use crate::netlink::Message;
use netlink_bindings::nftables::{
    Nfgenmsg, PushChainAttrs, PushRuleAttrs, PushSetAttrs, PushSetelemListAttrs, PushTableAttrs,
    SetElemFlags, SetFlags, TableFlags,
};
use netlink_bindings::utils::{finalize_nested_header, push_nested_header};
use std::borrow::Cow;

/// NFNETLINK_V0 messages around a transaction, and what they are for.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;

/// Elements in one message: an attribute holds at most 65,535 bytes.
const ELEMENTS_PER_MESSAGE: usize = 256;

/// Interface names fill a register.
const NAME_LENGTH: usize = libc::IFNAMSIZ;

/// A transaction, ready to be sent.
#[derive(Debug)]
pub struct Batch {
    /// All messages.
    pub bytes: Vec<u8>,
    /// Sequence number of the message that asks for an acknowledgement.
    pub acknowledged: u32,
    /// What each message does, by sequence number from 1.
    parts: Vec<String>,
    table: Cow<'static, str>,
    family: u8,
}

impl Batch {
    fn new(table: TableFamily) -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            acknowledged: 0,
            parts: Vec::new(),
            table: table.table(),
            family: match table {
                TableFamily::Inet | TableFamily::Podman | TableFamily::Ports(_) => {
                    libc::NFPROTO_INET as u8
                }
                TableFamily::Bridge => libc::NFPROTO_BRIDGE as u8,
                TableFamily::Netdev => libc::NFPROTO_NETDEV as u8,
            },
        };
        batch.frame(BATCH_BEGIN);
        batch
    }

    /// The last message asks for the answer, since answers come in order and an error must be seen
    /// first.
    fn end(mut self) -> Self {
        self.push_table("update table", libc::NFT_MSG_NEWTABLE, libc::NLM_F_ACK);
        self.acknowledged = self.parts.len() as u32;
        self.frame(BATCH_END);
        self
    }

    fn push(
        &mut self,
        part: impl Into<String>,
        kind: i32,
        flags: i32,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        let kind = (SUBSYSTEM << 8) | kind as u16;
        self.push_raw(part.into(), kind, flags, self.family, 0, fill);
    }

    fn push_table(&mut self, part: &str, kind: i32, flags: i32) {
        let table = self.table.clone();
        self.push(part, kind, flags, |attributes| {
            PushTableAttrs::new(attributes)
                .push_name_bytes(table.as_bytes())
                .end_nested();
        });
    }

    /// One that goes with the socket that this is sent by, whoever closes that, and that nobody else
    /// changes (before Linux 5.12: EOPNOTSUPP).
    fn push_owned_table(&mut self) {
        let table = self.table.clone();
        let (kind, flags) = (libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE);
        self.push("add table of our own", kind, flags, |attributes| {
            PushTableAttrs::new(attributes)
                .push_name_bytes(table.as_bytes())
                .push_flags(TableFlags::Owner as u32)
                .end_nested();
        });
    }

    /// As if the table had never been: deleting one that is not there would fail, so it is made first.
    fn clear(&mut self) {
        self.push_table("add table", libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE);
        self.push_table("delete table", libc::NFT_MSG_DELTABLE, 0);
    }

    fn push_raw(
        &mut self,
        part: String,
        kind: u16,
        flags: i32,
        family: u8,
        resource: u16,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut fixed = Nfgenmsg::new();
        fixed.nfgen_family = family;
        fixed._res_id_be = resource.to_be();
        let mut message = Message::new(kind, flags, fixed.as_slice());
        fill(message.attributes());
        self.parts.push(part);
        message.finish(self.parts.len() as u32, 0);
        self.bytes.extend_from_slice(message.bytes());
    }

    fn frame(&mut self, kind: u16) {
        self.push_raw("transaction".to_owned(), kind, 0, 0, SUBSYSTEM, |_| {});
    }

    /// What the message with this sequence number was to do.
    pub fn describe(&self, sequence: u32) -> &str {
        let index = (sequence as usize).checked_sub(1);
        index
            .and_then(|index| self.parts.get(index))
            .map_or("transaction", String::as_str)
    }
}

/// The transaction that makes the kernel's table equal to `ruleset`.
pub fn encode(ruleset: &Ruleset) -> Batch {
    let mut batch = Batch::new(ruleset.table);
    batch.clear();
    if ruleset.table.is_owned() {
        batch.push_owned_table();
    } else {
        batch.push_table("add table", libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE);
    }
    let mut ids = 1..;
    for (set, id) in ruleset.sets.iter().zip(&mut ids) {
        push_set(&mut batch, id, set);
        push_elements(&mut batch, libc::NFT_MSG_NEWSETELEM, Some(id), set);
    }
    for (map, id) in ruleset.maps.iter().zip(&mut ids) {
        push_map(&mut batch, id, map);
    }
    for chain in &ruleset.chains {
        push_chain(&mut batch, chain);
    }
    for chain in &ruleset.chains {
        for rule in &chain.rules {
            push_rule(&mut batch, &chain.name, rule);
        }
    }
    batch.end()
}

/// The transaction that takes the elements of `removed` out of sets of the kernel's table and puts
/// those of `added` in.
pub fn change(table: TableFamily, removed: &[Set], added: &[Set]) -> Batch {
    let mut batch = Batch::new(table);
    for set in removed {
        push_elements(&mut batch, libc::NFT_MSG_DELSETELEM, None, set);
    }
    for set in added {
        push_elements(&mut batch, libc::NFT_MSG_NEWSETELEM, None, set);
    }
    batch.end()
}

/// The transaction that takes a table away, whether or not it is there.
pub fn removal(table: TableFamily) -> Batch {
    let mut batch = Batch::new(table);
    batch.push_table("add table", libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE);
    batch.push_table("delete table", libc::NFT_MSG_DELTABLE, libc::NLM_F_ACK);
    batch.acknowledged = batch.parts.len() as u32;
    batch.frame(BATCH_END);
    batch
}

fn push_map(batch: &mut Batch, id: u32, map: &Map) {
    let (table, name) = (batch.table.clone(), map.id.name());
    let flags = libc::NLM_F_CREATE;
    batch.push(
        format!("add map {name}"),
        libc::NFT_MSG_NEWSET,
        flags,
        |attributes| map.describe(attributes, &table, id),
    );
    for entries in map.entries.chunks(ELEMENTS_PER_MESSAGE) {
        batch.push(
            format!("add elements to map {name}"),
            libc::NFT_MSG_NEWSETELEM,
            flags,
            |attributes| map.fill(attributes, &table, id, entries),
        );
    }
}

/// Byte order of keys, which nft(8) keeps with a set and needs for listing it: type 0, 4 bytes.
pub(super) const HOST_ORDER: [u8; 6] = [0, 4, 1, 0, 0, 0];
const NETWORK_ORDER: [u8; 6] = [0, 4, 2, 0, 0, 0];

/// nft(8)'s numbers of data types.
mod data_type {
    pub const IPV4: u32 = 7;
    pub const IPV6: u32 = 8;
    pub const ETHER: u32 = 9;
    pub const SERVICE: u32 = 13;
    pub const IFINDEX: u32 = 20;
    pub const IFNAME: u32 = 41;
    /// One type after another.
    pub const fn pair(first: u32, second: u32) -> u32 {
        first << 6 | second
    }
}

/// An interface's index and a MAC address, which fills two registers.
const INDEX_MAC: u32 = data_type::pair(data_type::IFINDEX, data_type::ETHER);
const INDEX_MAC_LENGTH: u32 = 12;
/// The same the other way round.
const MAC_INDEX: u32 = data_type::pair(data_type::ETHER, data_type::IFINDEX);
const MAC_INDEX_LENGTH: u32 = 12;

/// nft(8)'s number of the type of keys, their length in bytes, flags.
fn key_type(elements: &Elements) -> (u32, u32, u32) {
    let name = NAME_LENGTH as u32;
    match elements {
        Elements::Interfaces(_) => (data_type::IFNAME, name, 0),
        Elements::Prefixes4(_) => (data_type::IPV4, 4, SetFlags::Interval as u32),
        Elements::Prefixes6(_) => (data_type::IPV6, 16, SetFlags::Interval as u32),
        Elements::Gateways4(_) => (
            data_type::pair(data_type::IFNAME, data_type::IPV4),
            name + 4,
            0,
        ),
        Elements::Gateways6(_) => (
            data_type::pair(data_type::IFNAME, data_type::IPV6),
            name + 16,
            0,
        ),
        Elements::Macs(_) => (INDEX_MAC, INDEX_MAC_LENGTH, 0),
        Elements::Own4(_) => (
            data_type::pair(INDEX_MAC, data_type::IPV4),
            INDEX_MAC_LENGTH + 4,
            0,
        ),
        Elements::Own6(_) => (
            data_type::pair(INDEX_MAC, data_type::IPV6),
            INDEX_MAC_LENGTH + 16,
            0,
        ),
        Elements::Ports(_) => (data_type::SERVICE, 2, 0),
        Elements::At4(_) => (data_type::IPV4, 4, SetFlags::Map as u32),
        Elements::At6(_) => (data_type::IPV6, 16, SetFlags::Map as u32),
    }
}

fn push_set(batch: &mut Batch, id: u32, set: &Set) {
    let (kind, length, flags) = key_type(&set.elements);
    let order = match &set.elements {
        Elements::Interfaces(_) => HOST_ORDER,
        Elements::Prefixes4(_)
        | Elements::Prefixes6(_)
        | Elements::Gateways4(_)
        | Elements::Gateways6(_)
        | Elements::Macs(_)
        | Elements::Own4(_)
        | Elements::Own6(_)
        | Elements::Ports(_)
        | Elements::At4(_)
        | Elements::At6(_) => NETWORK_ORDER,
    };
    let what = format!("add set {}", set.id.name());
    let table = batch.table.clone();
    batch.push(
        what,
        libc::NFT_MSG_NEWSET,
        libc::NLM_F_CREATE,
        |attributes| {
            let mut described = PushSetAttrs::new(attributes)
                .push_table_bytes(table.as_bytes())
                .push_name_bytes(set.id.name().as_bytes())
                .push_flags(flags)
                .push_key_type(kind)
                .push_key_len(length);
            if flags & SetFlags::Map as u32 != 0 {
                described = described
                    .push_data_type(MAC_INDEX)
                    .push_data_len(MAC_INDEX_LENGTH)
                    // Made anew whenever it changes: of a known size, it is the kernel's quickest kind.
                    .nested_desc()
                    .push_size(elements(&set.elements).len() as u32)
                    .end_nested();
            }
            described.push_id(id).push_userdata(&order).end_nested();
        },
    );
}

/// Add or remove elements; `id`: of a set that is made in the same transaction.
fn push_elements(batch: &mut Batch, kind: i32, id: Option<u32>, set: &Set) {
    let table = batch.table.clone();
    let doing = if kind == libc::NFT_MSG_NEWSETELEM {
        "add elements to"
    } else {
        "take elements from"
    };
    for some in elements(&set.elements).chunks(ELEMENTS_PER_MESSAGE) {
        let what = format!("{doing} set {}", set.id.name());
        batch.push(what, kind, libc::NLM_F_CREATE, |attributes| {
            let mut named = PushSetelemListAttrs::new(attributes)
                .push_table_bytes(table.as_bytes())
                .push_set_bytes(set.id.name().as_bytes());
            if let Some(id) = id {
                named = named.push_set_id(id);
            }
            let mut list = named.nested_elements();
            for element in some {
                let pushed = list.nested_elem().nested_key();
                let mut pushed = pushed.push_value(&element.key).end_nested();
                if let Some(data) = &element.data {
                    pushed = pushed.nested_data().push_value(data).end_nested();
                }
                let flags = if element.after {
                    SetElemFlags::IntervalEnd as u32
                } else {
                    0
                };
                list = pushed.push_flags(&flags.to_be_bytes()).end_nested();
            }
            list.end_nested().end_nested();
        });
    }
}

fn push_chain(batch: &mut Batch, chain: &Chain) {
    let what = format!("add chain {}", chain.name);
    let table = batch.table.clone();
    batch.push(
        what,
        libc::NFT_MSG_NEWCHAIN,
        libc::NLM_F_CREATE,
        |attributes| {
            let named = PushChainAttrs::new(attributes)
                .push_table_bytes(table.as_bytes())
                .push_name_bytes(chain.name.as_bytes());
            match chain.base {
                Some(base) => push_base(named, base, &chain.devices).end_nested(),
                None => named.end_nested(),
            };
        },
    );
}

fn push_base<P: netlink_bindings::traits::Pusher>(
    chain: PushChainAttrs<P>,
    base: Base,
    devices: &[String],
) -> PushChainAttrs<P> {
    let hook = match base.hook {
        Hook::Prerouting => libc::NF_INET_PRE_ROUTING,
        Hook::Input => libc::NF_INET_LOCAL_IN,
        Hook::Forward => libc::NF_INET_FORWARD,
        Hook::Output => libc::NF_INET_LOCAL_OUT,
        Hook::Postrouting => libc::NF_INET_POST_ROUTING,
        Hook::Ingress => libc::NF_NETDEV_INGRESS,
    };
    let priority = match base.priority {
        Priority::Raw => libc::NF_IP_PRI_RAW,
        Priority::Mangle => libc::NF_IP_PRI_MANGLE,
        Priority::Dstnat => libc::NF_IP_PRI_NAT_DST,
        Priority::Filter => libc::NF_IP_PRI_FILTER,
        Priority::Srcnat => libc::NF_IP_PRI_NAT_SRC,
        Priority::BridgeFilter => libc::NF_BR_PRI_FILTER_BRIDGED,
    };
    let mut hooked = chain.nested_hook().push_num(hook as u32);
    hooked = hooked.push_priority(priority);
    if !devices.is_empty() {
        let mut list = hooked.nested_devs();
        for device in devices {
            list = list.push_name_bytes(device.as_bytes());
        }
        hooked = list.end_nested();
    }
    hooked
        .end_nested()
        .push_policy(if base.drop {
            libc::NF_DROP
        } else {
            libc::NF_ACCEPT
        } as u32)
        .push_type(match base.kind {
            ChainKind::Filter => c"filter",
            ChainKind::Nat => c"nat",
            ChainKind::Route => c"route",
        })
}

fn push_rule(batch: &mut Batch, chain: &str, rule: &[Clause]) {
    let what = format!("add rule '{}' to chain {chain}", text::rule_text(rule));
    let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
    let table = batch.table.clone();
    batch.push(what, libc::NFT_MSG_NEWRULE, flags, |attributes| {
        PushRuleAttrs::new(&mut *attributes)
            .push_table_bytes(table.as_bytes())
            .push_chain_bytes(chain.as_bytes())
            .end_nested();
        let list = push_nested_header(attributes, expression::NFTA_RULE_EXPRESSIONS);
        expression::Writer::new(attributes).rule(rule);
        finalize_nested_header(attributes, list);
    });
}
