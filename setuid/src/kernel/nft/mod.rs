//! Tables of our own in the host's nftables: `inet mossnet_host` for uplinks and `bridge mossnet_host`
//! for bridge ports. A table is replaced as a whole, in one transaction, from the record alone; where
//! the record has nothing for it, it goes. Nobody else's table is looked at or changed.
//!
//! Sources: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h, nft(8).

mod expression;
mod host;
mod port;

pub use host::{PREFIX as UPLINK_PREFIX, Published, Uplink, Watch, host_table};
pub use port::{PREFIX as PORT_PREFIX, Port, port_table};

use super::{Host, KernelError, Result};
use crate::attribute::{nest, put, put_text};
use crate::privilege;
use caps::Capability;
use expression::Expression;
use mossnet_netlink::{IfName, Message};
use std::borrow::Cow;

/// Of both tables.
pub const TABLE: &str = "mossnet_host";

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;

/// NFTA_* of linux/netfilter/nf_tables.h.
mod nfta {
    pub const TABLE_NAME: u16 = 1;
    pub const CHAIN_TABLE: u16 = 1;
    pub const CHAIN_NAME: u16 = 3;
    pub const CHAIN_HOOK: u16 = 4;
    pub const CHAIN_POLICY: u16 = 5;
    pub const CHAIN_TYPE: u16 = 7;
    pub const HOOK_NUMBER: u16 = 1;
    pub const HOOK_PRIORITY: u16 = 2;
    pub const HOOK_DEVICE: u16 = 3;
    pub const RULE_TABLE: u16 = 1;
    pub const RULE_CHAIN: u16 = 2;
    pub const RULE_EXPRESSIONS: u16 = 4;
    pub const SET_TABLE: u16 = 1;
    pub const SET_NAME: u16 = 2;
    pub const SET_FLAGS: u16 = 3;
    pub const SET_KEY_TYPE: u16 = 4;
    pub const SET_KEY_LENGTH: u16 = 5;
    pub const SET_DATA_TYPE: u16 = 6;
    pub const SET_DATA_LENGTH: u16 = 7;
    pub const SET_ID: u16 = 10;
    pub const ELEMENTS_TABLE: u16 = 1;
    pub const ELEMENTS_SET: u16 = 2;
    pub const ELEMENTS: u16 = 3;
    pub const ELEMENTS_SET_ID: u16 = 4;
    pub const ELEMENT_KEY: u16 = 1;
    pub const ELEMENT_DATA: u16 = 2;
    pub const LIST_ELEMENT: u16 = 1;
    pub const VALUE: u16 = 1;
}

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6, routed.
    Inet,
    /// Frames on bridges.
    Bridge,
}

/// Where a chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hook {
    kind: &'static str,
    number: u32,
    priority: i32,
}

/// A base chain that accepts what no rule stops.
#[derive(Debug)]
struct Chain {
    name: Cow<'static, str>,
    hook: Hook,
    /// The link whose packets it sees, at the ingress hook.
    device: Option<IfName>,
    rules: Vec<Vec<Expression>>,
}

/// A map from a mark to an address and port.
#[derive(Debug)]
struct Map {
    name: &'static str,
    id: u32,
    /// nft(8)'s number of the type of the data, and its length, bytes.
    data: (u32, u32),
    /// Mark, and the data.
    elements: Vec<(u32, Vec<u8>)>,
}

/// A table to be.
#[derive(Debug)]
pub struct Table {
    family: Family,
    maps: Vec<Map>,
    chains: Vec<Chain>,
}

impl Host {
    /// Make the kernel's table equal to `table`.
    pub fn replace_table(&mut self, table: &Table) -> Result<()> {
        let (bytes, acknowledged) = encode(table);
        let netfilter = &mut self.netfilter;
        let done = privilege::with(Capability::CAP_NET_ADMIN, || {
            netfilter.transaction(&bytes, acknowledged)
        })?;
        done.map_err(|refused| KernelError::Refused {
            what: match table.family {
                Family::Inet => "set the rules of uplinks",
                Family::Bridge => "set the rules of bridge ports",
            },
            refused,
        })
    }
}

/// A transaction, and the number of the message that is acknowledged.
struct Batch {
    family: u8,
    bytes: Vec<u8>,
    count: u32,
}

impl Batch {
    fn push(&mut self, kind: i32, flags: i32, fill: impl FnOnce(&mut Vec<u8>)) {
        let kind = (SUBSYSTEM << 8) | kind as u16;
        self.push_raw(kind, flags, self.family, 0, fill);
    }

    fn push_raw(
        &mut self,
        kind: u16,
        flags: i32,
        family: u8,
        resource: u16,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        let [high, low] = resource.to_be_bytes();
        let mut message = Message::new(kind, flags, &[family, 0, high, low]);
        fill(message.attributes());
        self.count += 1;
        message.finish(self.count, 0);
        self.bytes.extend_from_slice(message.bytes());
    }

    fn name_table(&mut self, kind: i32, flags: i32) {
        self.push(kind, flags, |out| put_text(out, nfta::TABLE_NAME, TABLE));
    }
}

fn encode(table: &Table) -> (Vec<u8>, u32) {
    let mut batch = Batch {
        family: match table.family {
            Family::Inet => libc::NFPROTO_INET as u8,
            Family::Bridge => libc::NFPROTO_BRIDGE as u8,
        },
        bytes: Vec::new(),
        count: 0,
    };
    batch.push_raw(BATCH_BEGIN, 0, 0, SUBSYSTEM, |_| {});
    // Deleting a table that is not there would fail, so it is made first.
    let last = if table.chains.is_empty() {
        batch.name_table(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE);
        batch.name_table(libc::NFT_MSG_DELTABLE, libc::NLM_F_ACK);
        batch.count
    } else {
        batch.name_table(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE);
        batch.name_table(libc::NFT_MSG_DELTABLE, 0);
        batch.name_table(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE);
        for map in &table.maps {
            push_map(&mut batch, map);
        }
        for chain in &table.chains {
            push_chain(&mut batch, chain);
        }
        // Answers come in order, and an error must be seen first.
        batch.name_table(libc::NFT_MSG_NEWTABLE, libc::NLM_F_ACK);
        batch.count
    };
    batch.push_raw(BATCH_END, 0, 0, SUBSYSTEM, |_| {});
    (batch.bytes, last)
}

/// nft(8)'s number of the type "mark", 4 bytes.
const MARK_TYPE: u32 = 19;
/// Of NFT_SET_*.
const MAP_FLAG: u32 = 8;

fn push_map(batch: &mut Batch, map: &Map) {
    batch.push(libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE, |out| {
        put_text(out, nfta::SET_TABLE, TABLE);
        put_text(out, nfta::SET_NAME, map.name);
        for (kind, value) in [
            (nfta::SET_FLAGS, MAP_FLAG),
            (nfta::SET_KEY_TYPE, MARK_TYPE),
            (nfta::SET_KEY_LENGTH, 4),
            (nfta::SET_DATA_TYPE, map.data.0),
            (nfta::SET_DATA_LENGTH, map.data.1),
            (nfta::SET_ID, map.id),
        ] {
            put(out, kind, &value.to_be_bytes());
        }
    });
    // An attribute holds at most 65,535 bytes.
    for elements in map.elements.chunks(256) {
        batch.push(libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE, |out| {
            put_text(out, nfta::ELEMENTS_TABLE, TABLE);
            put_text(out, nfta::ELEMENTS_SET, map.name);
            put(out, nfta::ELEMENTS_SET_ID, &map.id.to_be_bytes());
            nest(out, nfta::ELEMENTS, |out| {
                for (mark, data) in elements {
                    nest(out, nfta::LIST_ELEMENT, |out| {
                        let key = mark.to_ne_bytes();
                        nest(out, nfta::ELEMENT_KEY, |out| put(out, nfta::VALUE, &key));
                        nest(out, nfta::ELEMENT_DATA, |out| put(out, nfta::VALUE, data));
                    });
                }
            });
        });
    }
}

/// NF_ACCEPT.
const ACCEPT: u32 = 1;

fn push_chain(batch: &mut Batch, chain: &Chain) {
    batch.push(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, |out| {
        put_text(out, nfta::CHAIN_TABLE, TABLE);
        put_text(out, nfta::CHAIN_NAME, &chain.name);
        nest(out, nfta::CHAIN_HOOK, |out| {
            put(out, nfta::HOOK_NUMBER, &chain.hook.number.to_be_bytes());
            put(out, nfta::HOOK_PRIORITY, &chain.hook.priority.to_be_bytes());
            if let Some(device) = &chain.device {
                put_text(out, nfta::HOOK_DEVICE, device.as_str());
            }
        });
        put(out, nfta::CHAIN_POLICY, &ACCEPT.to_be_bytes());
        put_text(out, nfta::CHAIN_TYPE, chain.hook.kind);
    });
    for rule in &chain.rules {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
        batch.push(libc::NFT_MSG_NEWRULE, flags, |out| {
            put_text(out, nfta::RULE_TABLE, TABLE);
            put_text(out, nfta::RULE_CHAIN, &chain.name);
            nest(out, nfta::RULE_EXPRESSIONS, |out| {
                for expression in rule {
                    nest(out, nfta::LIST_ELEMENT, |out| expression.encode(out));
                }
            });
        });
    }
}
