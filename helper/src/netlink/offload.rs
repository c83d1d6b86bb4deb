//! What a link does with packets before anything else sees them (ethtool(8), generic netlink,
//! Documentation/networking/ethtool-netlink.rst).

use super::{Message, Netlink, Refused, text, value};
use mossnet_netlink::attribute;
use netlink_bindings::utils::{finalize_nested_header, push_nested_header};
use nix::errno::Errno;

/// linux/genetlink.h: the family that knows the others.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// linux/ethtool_netlink_generated.h.
const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;
/// struct genlmsghdr: command, version, two bytes unused.
const FIXED: usize = 4;
const VERSION: u8 = 1;

/// What can be switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Packets that come in and belong together go on as one (generic receive offload).
    Gro,
    /// The same for UDP datagrams of one size, whoever they are for (Linux 5.12).
    UdpGro,
}

impl Feature {
    /// As `ethtool -k` and the kernel call it.
    fn name(self) -> &'static str {
        match self {
            Self::Gro => "rx-gro",
            Self::UdpGro => "rx-udp-gro-forwarding",
        }
    }
}

impl Netlink {
    /// Switch features of a link on. EOPNOTSUPP where the kernel has no such way (before 5.6) or feature.
    pub fn switch_on(&mut self, index: u32, features: &[Feature]) -> Result<(), Refused> {
        let family = self.family("ethtool")?;
        let mut message = Message::new(family, 0, &[ETHTOOL_MSG_FEATURES_SET, VERSION, 0, 0]);
        let bytes = message.attributes();
        let header = push_nested_header(bytes, ETHTOOL_A_FEATURES_HEADER);
        value(bytes, ETHTOOL_A_HEADER_DEV_INDEX, &index.to_ne_bytes());
        finalize_nested_header(bytes, header);
        let wanted = push_nested_header(bytes, ETHTOOL_A_FEATURES_WANTED);
        let bits = push_nested_header(bytes, ETHTOOL_A_BITSET_BITS);
        for feature in features {
            let bit = push_nested_header(bytes, ETHTOOL_A_BITSET_BITS_BIT);
            text(bytes, ETHTOOL_A_BITSET_BIT_NAME, feature.name());
            value(bytes, ETHTOOL_A_BITSET_BIT_VALUE, &[]);
            finalize_nested_header(bytes, bit);
        }
        finalize_nested_header(bytes, bits);
        finalize_nested_header(bytes, wanted);
        // The answer lists what did not become as it was wanted: nothing, of a veth.
        self.query(message, |_| {})
    }

    /// The number that a family of generic netlink has since the kernel started.
    fn family(&mut self, name: &str) -> Result<u16, Refused> {
        let mut message = Message::new(GENL_ID_CTRL, 0, &[CTRL_CMD_GETFAMILY, VERSION, 0, 0]);
        text(message.attributes(), CTRL_ATTR_FAMILY_NAME, name);
        let mut number = None;
        let asked = self.query(message, |payload| {
            number = number.or(family_in(payload));
        });
        match asked {
            Err(refused) if refused.errno == Errno::ENOENT => Err(Errno::EOPNOTSUPP.into()),
            Err(refused) => Err(refused),
            Ok(()) => number.ok_or_else(|| Errno::EOPNOTSUPP.into()),
        }
    }
}

fn family_in(payload: &[u8]) -> Option<u16> {
    let value = attribute(payload.get(FIXED..)?, CTRL_ATTR_FAMILY_ID)?;
    Some(u16::from_ne_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_cut_short_names_no_family() {
        let mut message = Message::new(GENL_ID_CTRL, 0, &[1, VERSION, 0, 0]);
        let bytes = message.attributes();
        text(bytes, CTRL_ATTR_FAMILY_NAME, "ethtool");
        value(bytes, CTRL_ATTR_FAMILY_ID, &21u16.to_ne_bytes());
        let payload = message.bytes()[mossnet_netlink::HEADER_LENGTH..].to_vec();
        assert_eq!(family_in(&payload), Some(21));
        for cut in 0..payload.len() {
            assert_eq!(family_in(&payload[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn a_family_that_there_is_not_is_no_error_of_the_link() {
        let mut generic = Netlink::generic().unwrap();
        assert!(generic.family("ethtool").unwrap() > GENL_ID_CTRL);
        let refused = generic.family("mossnet").unwrap_err();
        assert_eq!(refused.errno, Errno::EOPNOTSUPP);
    }
}
