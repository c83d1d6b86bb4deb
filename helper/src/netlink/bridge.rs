//! What only bridges and their ports have (rtnetlink(7), ip-link(8), bridge(8)).

use super::link::{UP, link_message, push_veth};
use super::{Netlink, Refused};
use crate::names::{IfName, MacAddr};
use netlink_bindings::rt_link::PushLinkAttrs;

/// The VLAN that ports are in where nobody asks: the kernel's own default.
const DEFAULT_VLAN: u16 = 1;

/// A bridge to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewBridge<'a> {
    /// Name.
    pub name: &'a IfName,
    /// Fixed; absent: it follows the ports.
    pub mac: Option<MacAddr>,
    /// Bytes.
    pub mtu: u32,
}

impl Netlink {
    /// Make a bridge. Forwarding starts at once: STP is off. Multicast is flooded: snooping drops
    /// neighbour discovery where nobody queries.
    pub fn add_bridge(&mut self, bridge: NewBridge<'_>) -> Result<(), Refused> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = link_message(libc::RTM_NEWLINK, flags, 0, UP);
        let mut attributes = PushLinkAttrs::new(message.attributes())
            .push_ifname_bytes(bridge.name.as_str().as_bytes())
            .push_mtu(bridge.mtu);
        if let Some(mac) = bridge.mac {
            attributes = attributes.push_address(&mac.octets());
        }
        attributes
            .nested_linkinfo()
            .nested_data_bridge()
            .push_stp_state(0)
            .push_mcast_snooping(0)
            .end_nested()
            .end_nested();
        self.request(message)
    }

    /// Make a veth pair between two bridges; its ends are left down.
    pub fn add_trunk(&mut self, one: &IfName, other: &IfName) -> Result<(), Refused> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = link_message(libc::RTM_NEWLINK, flags, 0, 0);
        let attributes = message.attributes();
        PushLinkAttrs::new(&mut *attributes)
            .push_ifname_bytes(one.as_str().as_bytes())
            .end_nested();
        push_veth(attributes, |peer| {
            peer.push_ifname_bytes(other.as_str().as_bytes())
                .end_nested();
        });
        self.request(message)
    }

    /// Make a link a port of a bridge, and set it up.
    pub fn set_port(&mut self, index: u32, bridge: u32, mtu: u32) -> Result<(), Refused> {
        let mut message = link_message(libc::RTM_NEWLINK, 0, index, UP);
        PushLinkAttrs::new(message.attributes())
            .push_mtu(mtu)
            .push_master(bridge)
            .end_nested();
        self.request(message)
    }

    /// Keep a port from reaching other isolated ones (or let it).
    pub fn isolate_port(&mut self, index: u32, isolated: bool) -> Result<(), Refused> {
        let mut message = link_message(libc::RTM_NEWLINK, 0, index, 0);
        PushLinkAttrs::new(message.attributes())
            .nested_linkinfo()
            .nested_slave_data_bridge()
            .push_isolated(isolated.into())
            .end_nested()
            .end_nested();
        self.request(message)
    }

    /// Let a port send back what came in by it.
    pub fn let_port_turn(&mut self, index: u32) -> Result<(), Refused> {
        let mut message = link_message(libc::RTM_NEWLINK, 0, index, 0);
        PushLinkAttrs::new(message.attributes())
            .nested_linkinfo()
            .nested_slave_data_bridge()
            .push_mode(1)
            .end_nested()
            .end_nested();
        self.request(message)
    }

    /// Put every port and the bridge itself, untagged, into one VLAN; `None`: VLANs mean nothing. The
    /// default VLAN can change only while filtering is off.
    pub fn set_bridge_vlan(&mut self, index: u32, vlan: Option<u16>) -> Result<(), Refused> {
        let mut message = link_message(libc::RTM_NEWLINK, 0, index, 0);
        PushLinkAttrs::new(message.attributes())
            .nested_linkinfo()
            .nested_data_bridge()
            .push_vlan_filtering(0)
            .push_vlan_default_pvid(vlan.unwrap_or(DEFAULT_VLAN))
            .end_nested()
            .end_nested();
        self.request(message)?;
        if vlan.is_none() {
            return Ok(());
        }
        let mut message = link_message(libc::RTM_NEWLINK, 0, index, 0);
        PushLinkAttrs::new(message.attributes())
            .nested_linkinfo()
            .nested_data_bridge()
            .push_vlan_filtering(1)
            .end_nested()
            .end_nested();
        self.request(message)
    }
}
