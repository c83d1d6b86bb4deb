//! Names of networks and sandboxes: Docker's grammar, checked once when a name is built.
//!
//! Also the names that are made up here: of sandboxes without one, of interfaces, and MAC
//! addresses. Sources: Docker's `[a-zA-Z0-9][a-zA-Z0-9_.-]*`; netdevice(7) for 15 bytes.

use mossnet_helper::{IfName, MacAddr, NameError as HelperNameError, SandboxId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Longest name: it also appears as one DNS label plus room for a short suffix.
pub const MAX_NAME: usize = 128;

/// A name of a network or sandbox was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not in Docker's grammar.
    #[error(
        "{what} name '{name}' is malformed: only letters, digits, '_', '.' and '-' are allowed, a letter or digit first, at most 128 characters"
    )]
    Malformed {
        /// `network` or `sandbox`.
        what: &'static str,
        /// The name.
        name: String,
    },
}

fn well_formed(name: &str) -> bool {
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    first && name.len() <= MAX_NAME && name.bytes().all(legal)
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                if well_formed(&name) {
                    Ok(Self(name))
                } else {
                    Err(NameError::Malformed { what: $what, name })
                }
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::try_from(name.to_owned())
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// Name of a network.
    NetworkName,
    "network"
);
name_type!(
    /// Name of a sandbox.
    SandboxName,
    "sandbox"
);

/// Adjectives of made-up names.
const ADJECTIVES: [&str; 32] = [
    "amber", "brave", "calm", "clever", "damp", "deep", "eager", "early", "fern", "fresh",
    "gentle", "green", "hidden", "humble", "jolly", "keen", "lively", "lucid", "mellow", "misty",
    "nimble", "old", "patient", "quiet", "rapid", "shady", "silent", "soft", "still", "sunny",
    "velvet", "wild",
];
/// Kinds of moss and their company, the nouns of made-up names.
const NOUNS: [&str; 32] = [
    "moss", "peat", "sphagnum", "bryum", "fern", "lichen", "stone", "brook", "hollow", "bark",
    "cushion", "dicranum", "hypnum", "mnium", "spore", "frond", "thicket", "glade", "log", "root",
    "creek", "pebble", "boulder", "bog", "fen", "heath", "marsh", "mire", "swamp", "tuft", "mat",
    "carpet",
];

/// A made-up sandbox name out of random bytes: `quiet_moss`, with digits from the second attempt
/// on, when plain ones may be used up.
pub fn made_up_name(random: [u8; 4], attempt: u32) -> SandboxName {
    let adjective = ADJECTIVES[usize::from(random[0]) % ADJECTIVES.len()];
    let noun = NOUNS[usize::from(random[1]) % NOUNS.len()];
    SandboxName(match attempt {
        0 => format!("{adjective}_{noun}"),
        _ => format!(
            "{adjective}_{noun}{}",
            u16::from_le_bytes([random[2], random[3]])
        ),
    })
}

/// `br-` and the first twelve digits of the network's id: 15 bytes.
pub fn bridge_name(network: &SandboxId) -> Result<IfName, HelperNameError> {
    format!("br-{}", network.short()).parse()
}

/// `ve-` and the first twelve digits of the endpoint's id: 15 bytes.
pub fn router_ifname(endpoint: &SandboxId) -> Result<IfName, HelperNameError> {
    format!("ve-{}", endpoint.short()).parse()
}

/// MAC address of an endpoint: `02:42` and the IPv4 address, as Docker makes it, else the last
/// four bytes of the IPv6 address. So it is as stable as the lease is.
pub fn mac_for(address: IpAddr) -> Result<MacAddr, HelperNameError> {
    let [a, b, c, d] = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [a, b, c, d]
        }
    };
    MacAddr::try_from([0x02, 0x42, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_follow_docker() {
        for good in ["web", "a", "0", "my-net.example_1", &"x".repeat(128)] {
            assert!(good.parse::<SandboxName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            ".a",
            "_a",
            "a b",
            "a/b",
            "ä",
            "a\n",
            &"x".repeat(129),
        ] {
            assert!(bad.parse::<NetworkName>().is_err(), "{bad:?}");
        }
        let error = "a b".parse::<NetworkName>().unwrap_err().to_string();
        assert!(
            error.starts_with("network name 'a b' is malformed"),
            "{error}"
        );
    }

    #[test]
    fn addresses_make_macs() {
        let v4 = mac_for("10.89.0.2".parse().unwrap()).unwrap();
        assert_eq!(v4.to_string(), "02:42:0a:59:00:02");
        let v6 = mac_for("fd00::1:2".parse().unwrap()).unwrap();
        assert_eq!(v6.to_string(), "02:42:00:01:00:02");
    }

    proptest! {
        #[test]
        fn any_id_names_interfaces(id in any::<[u8; 32]>()) {
            let id = SandboxId::from(id);
            prop_assert_eq!(bridge_name(&id).unwrap().as_str().len(), 15);
            prop_assert!(router_ifname(&id).unwrap().as_str().starts_with("ve-"));
        }

        #[test]
        fn made_up_names_are_names(random in any::<[u8; 4]>(), attempt in 0u32..3) {
            let name = made_up_name(random, attempt);
            prop_assert!(name.as_str().parse::<SandboxName>().is_ok());
        }

        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in ".*") {
            if let Ok(name) = text.parse::<SandboxName>() {
                prop_assert_eq!(name.as_str(), text);
            }
        }
    }
}
