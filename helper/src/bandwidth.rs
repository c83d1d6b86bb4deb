//! How fast an endpoint may be, seen from its sandbox.
//!
//! Units: rates are bits per second, as interfaces are sold by; bursts are bytes, as the kernel counts them.
//! Sources: tc(8) (`RATE`), tc-tbf(8), CNI conventions (`bandwidth`).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Below this not even one packet passes in ten seconds.
const SLOWEST: u64 = 1_000;
/// Faster than this nothing is.
const FASTEST: u64 = 1_000_000_000_000_000;
/// Largest first: that is how a rate is shown.
const UNITS: [(&str, u64); 5] = [
    ("tbit", 1_000_000_000_000),
    ("gbit", 1_000_000_000),
    ("mbit", 1_000_000),
    ("kbit", 1_000),
    ("bit", 1),
];

/// What is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not a number with a unit.
    #[error("'{0}' is no rate; write bits per second, such as 500kbit, 10mbit or 1gbit")]
    Syntax(String),
    /// Too small or too large.
    #[error("a rate must be 1kbit to 1000tbit, not {0} bit/s")]
    Range(u64),
}

/// Bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Rate(u64);

impl Rate {
    /// The number.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Rounded up, per second.
    pub fn bytes(self) -> u64 {
        self.0.div_ceil(8)
    }
}

impl TryFrom<u64> for Rate {
    type Error = RateError;
    fn try_from(bits: u64) -> Result<Self, RateError> {
        match (SLOWEST..=FASTEST).contains(&bits) {
            true => Ok(Self(bits)),
            false => Err(RateError::Range(bits)),
        }
    }
}

impl From<Rate> for u64 {
    fn from(rate: Rate) -> Self {
        rate.0
    }
}

/// As tc(8) has it: a number, and bit, kbit, mbit, gbit or tbit, in powers of 1,000; the word `bit` may be
/// left out.
impl FromStr for Rate {
    type Err = RateError;
    fn from_str(text: &str) -> Result<Self, RateError> {
        let syntax = || RateError::Syntax(text.escape_debug().to_string());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.to_ascii_lowercase();
        let known = |(name, _): &&(&str, u64)| match unit.as_str() {
            "" => *name == "bit",
            "bit" => *name == "bit",
            letter if letter.len() == 1 => name.strip_suffix("bit") == Some(letter),
            whole => *name == whole,
        };
        let (_, factor) = UNITS.iter().find(known).ok_or_else(syntax)?;
        let number: u64 = number.parse().map_err(|_| syntax())?;
        number.saturating_mul(*factor).try_into()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, factor): &&(&str, u64)| self.0.is_multiple_of(*factor);
        let (name, factor) = UNITS.iter().find(whole).unwrap_or(&("bit", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

/// A limit in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// In the long run, Ethernet headers included.
    pub rate: Rate,
    /// What may pass at once after a silence, bytes; absent: what the rate carries in 20 ms. One packet always
    /// may.
    #[serde(default)]
    pub burst: Option<u32>,
}

impl From<Rate> for Limit {
    fn from(rate: Rate) -> Self {
        Self { rate, burst: None }
    }
}

/// Both directions; the default is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bandwidth {
    /// Of what the sandbox receives.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    pub inward: Option<Limit>,
    /// Of what it sends.
    #[serde(default, rename = "out", skip_serializing_if = "Option::is_none")]
    pub outward: Option<Limit>,
}

impl Bandwidth {
    /// Without a limit.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_for_tc() {
        for (text, bits, shown) in [
            ("1000", 1_000, "1kbit"),
            ("1500bit", 1_500, "1500bit"),
            ("500kbit", 500_000, "500kbit"),
            ("10Mbit", 10_000_000, "10mbit"),
            ("10m", 10_000_000, "10mbit"),
            ("2500mbit", 2_500_000_000, "2500mbit"),
            ("1G", 1_000_000_000, "1gbit"),
            ("3tbit", 3_000_000_000_000, "3tbit"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.bits(), rate.to_string().as_str()), (bits, shown));
            assert_eq!(shown.parse(), Ok(rate));
        }
        for bad in [
            "", "mbit", "1.5mbit", "10mb", "10 mbit", "-1", "10mbps", "é", "1kk",
        ] {
            let error = bad.parse::<Rate>().unwrap_err();
            assert!(matches!(error, RateError::Syntax(_)), "{bad}: {error}");
        }
        for bad in ["0", "999", "1001tbit", "18446744073709551615t"] {
            let error = bad.parse::<Rate>().unwrap_err();
            assert!(matches!(error, RateError::Range(_)), "{bad}: {error}");
        }
    }

    #[test]
    fn records_are_small_and_checked() {
        let unlimited = Bandwidth::default();
        assert_eq!(serde_json::to_string(&unlimited).unwrap(), "{}");
        let text = r#"{"in":{"rate":1000000,"burst":null}}"#;
        let read: Bandwidth = serde_json::from_str(text).unwrap();
        assert_eq!(read.inward.unwrap().rate.to_string(), "1mbit");
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        for bad in [
            r#"{"in":{"rate":0}}"#,
            r#"{"in":{"rate":"1mbit"}}"#,
            r#"{"up":{}}"#,
        ] {
            assert!(serde_json::from_str::<Bandwidth>(bad).is_err(), "{bad}");
        }
    }
}
