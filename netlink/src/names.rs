//! Names that cross the boundary between daemon and helper, each checked once when it is built.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Interface names are 1 to 15 bytes (IFNAMSIZ, netdevice(7)).
    #[error(
        "interface name '{0}' must be 1 to 15 bytes of printable ASCII without '/', ':' or space, and not '.' or '..'"
    )]
    Interface(String),
    /// Six bytes, as in `02:42:0a:59:00:02`.
    #[error("MAC address '{0}' must be six bytes in hexadecimal, such as 02:42:0a:59:00:02")]
    MacSyntax(String),
    /// Multicast or all zero: no interface can carry it.
    #[error("MAC address '{0}' is multicast or zero; use a unicast one, such as 02:42:0a:59:00:02")]
    MacNotUnicast(String),
    /// 64 lower-case hexadecimal digits.
    #[error("sandbox id '{0}' must be 64 lower-case hexadecimal digits")]
    SandboxId(String),
}

/// A network interface name: 1 to 15 bytes (`IFNAMSIZ` - 1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);

impl IfName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for IfName {
    type Error = NameError;
    fn try_from(name: String) -> Result<Self, NameError> {
        let legal = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'%';
        if name.is_empty()
            || name.len() > 15
            || name == "."
            || name == ".."
            || !name.bytes().all(legal)
        {
            return Err(NameError::Interface(name));
        }
        Ok(Self(name))
    }
}

impl FromStr for IfName {
    type Err = NameError;
    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::try_from(name.to_owned())
    }
}

impl From<IfName> for String {
    fn from(name: IfName) -> Self {
        name.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A unicast Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The six bytes in transmission order.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl TryFrom<[u8; 6]> for MacAddr {
    type Error = NameError;
    fn try_from(octets: [u8; 6]) -> Result<Self, NameError> {
        let mac = Self(octets);
        if octets[0] & 1 == 1 || octets == [0; 6] {
            return Err(NameError::MacNotUnicast(mac.to_string()));
        }
        Ok(mac)
    }
}

impl FromStr for MacAddr {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let syntax = || NameError::MacSyntax(text.to_owned());
        let mut octets = [0u8; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().ok_or_else(syntax)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(syntax());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| syntax())?;
        }
        if parts.next().is_some() {
            return Err(syntax());
        }
        Self::try_from(octets)
    }
}

impl TryFrom<String> for MacAddr {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The identity of one sandbox (or of one process in it): 64 hexadecimal digits, shown as 12.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxId(String);

impl SandboxId {
    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The first twelve digits, as Docker shows ids.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl From<[u8; 32]> for SandboxId {
    fn from(random: [u8; 32]) -> Self {
        Self(random.iter().map(|b| format!("{b:02x}")).collect())
    }
}

impl TryFrom<String> for SandboxId {
    type Error = NameError;
    fn try_from(id: String) -> Result<Self, NameError> {
        let legal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if id.len() != 64 || !id.bytes().all(legal) {
            return Err(NameError::SandboxId(id));
        }
        Ok(Self(id))
    }
}

impl From<SandboxId> for String {
    fn from(id: SandboxId) -> Self {
        id.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_follow_the_kernel() {
        for good in ["eth0", "br-0123456789ab", "a", "lo"] {
            assert!(good.parse::<IfName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a:b",
            "0123456789abcdef",
            "é",
            "a%d",
        ] {
            assert!(bad.parse::<IfName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn mac_addresses_round_trip_and_must_be_unicast() {
        let mac: MacAddr = "02:42:0a:59:00:02".parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:0a:59:00:02");
        for bad in [
            "",
            "02:42",
            "02:42:0a:59:00:02:03",
            "zz:42:0a:59:00:02",
            "+2:42:0a:59:00:02",
        ] {
            assert!(
                matches!(bad.parse::<MacAddr>(), Err(NameError::MacSyntax(_))),
                "{bad}"
            );
        }
        for bad in [
            "01:42:0a:59:00:02",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
        ] {
            assert!(
                matches!(bad.parse::<MacAddr>(), Err(NameError::MacNotUnicast(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn sandbox_ids_are_sixty_four_hex_digits() {
        let id = SandboxId::from([0xab; 32]);
        assert_eq!(id.short(), "abababababab");
        assert!(SandboxId::try_from("ab".repeat(32)).is_ok());
        assert!(SandboxId::try_from("AB".repeat(32)).is_err());
        assert!(SandboxId::try_from("ab".repeat(31)).is_err());
    }
}
