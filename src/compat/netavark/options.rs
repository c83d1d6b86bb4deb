//! Options of networks: strings by name, as `podman network create --opt` takes them. Pure.

use super::refusal::NetworkRefusal;
use mossnet_helper::ruleset::Isolation;
use std::collections::BTreeMap;
use std::str::FromStr;

/// Options of one network, or of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a>(pub Option<&'a BTreeMap<String, String>>);

impl<'a> Options<'a> {
    /// The text of one; set but empty is unset.
    pub fn text(self, name: &str) -> Option<&'a str> {
        let value = self.0?.get(name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// The value of one.
    pub fn value<T: FromStr>(
        self,
        option: &'static str,
        wanted: &'static str,
    ) -> Result<Option<T>, NetworkRefusal> {
        let parse = |value: &str| {
            value.parse().map_err(|_| NetworkRefusal::Option {
                option,
                value: value.to_owned(),
                wanted,
            })
        };
        self.text(option).map(parse).transpose()
    }

    /// A yes or no, as Go writes it.
    pub fn flag(self, option: &'static str) -> Result<bool, NetworkRefusal> {
        match self.text(option) {
            None | Some("false" | "0" | "f" | "F" | "False" | "FALSE") => Ok(false),
            Some("true" | "1" | "t" | "T" | "True" | "TRUE") => Ok(true),
            Some(value) => Err(NetworkRefusal::Option {
                option,
                value: value.to_owned(),
                wanted: "true or false",
            }),
        }
    }

    /// `isolate`: true, false, strict.
    pub fn isolation(self) -> Result<Isolation, NetworkRefusal> {
        match self.text("isolate") {
            Some("strict") => Ok(Isolation::Strict),
            _ => match self.flag("isolate") {
                Ok(true) => Ok(Isolation::Isolated),
                Ok(false) => Ok(Isolation::None),
                Err(NetworkRefusal::Option { option, value, .. }) => Err(NetworkRefusal::Option {
                    option,
                    value,
                    wanted: "true, false or strict",
                }),
                Err(other) => Err(other),
            },
        }
    }

    /// Bytes; 0 is unset. What Ethernet can carry at all (RFC 791: 68).
    pub fn mtu(self) -> Result<Option<u32>, NetworkRefusal> {
        let wanted = "a number of bytes from 68 to 65535";
        let mtu: Option<u32> = self.value("mtu", wanted)?;
        match mtu {
            None | Some(0) => Ok(None),
            Some(mtu) if (68..=65535).contains(&mtu) => Ok(Some(mtu)),
            Some(mtu) => Err(NetworkRefusal::Option {
                option: "mtu",
                value: mtu.to_string(),
                wanted,
            }),
        }
    }

    /// `vlan`: 1 to 4094.
    pub fn vlan(self) -> Result<Option<u16>, NetworkRefusal> {
        let wanted = "a VLAN from 1 to 4094";
        match self.value::<u16>("vlan", wanted)? {
            Some(vlan) if !(1..=4094).contains(&vlan) => Err(NetworkRefusal::Option {
                option: "vlan",
                value: vlan.to_string(),
                wanted,
            }),
            vlan => Ok(vlan),
        }
    }
}
