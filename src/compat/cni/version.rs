//! Versions of the specification, and what differs between them.

use super::refusal::{Code, Refusal};

/// Every version that the plugin speaks, the oldest first.
pub(super) const SUPPORTED: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// One of [`SUPPORTED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    const ALL: [Self; 5] = [
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The newest.
    pub(super) const NEWEST: Self = Self::V1_1_0;

    /// From the field `cniVersion`; without one a configuration is of the first version.
    pub(super) fn of(text: Option<&str>) -> Result<Self, Refusal> {
        let text = text.unwrap_or("0.1.0");
        let found = Self::ALL.into_iter().find(|version| version.text() == text);
        found.ok_or_else(|| {
            Refusal::new(
                Code::IncompatibleVersion,
                format!("CNI version '{text}' is not supported"),
            )
            .with_details(format!("supported versions: {}", SUPPORTED.join(", ")))
        })
    }

    /// As it is written.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Refuses a command that came with a later version.
    pub(super) fn require(self, least: Self, command: &str) -> Result<(), Refusal> {
        if self >= least {
            return Ok(());
        }
        Err(Refusal::new(
            Code::IncompatibleVersion,
            format!(
                "{command} needs CNI version {} or later, the configuration is {}",
                least.text(),
                self.text()
            ),
        ))
    }

    /// Addresses say which family they are of.
    pub(super) fn names_families(self) -> bool {
        self < Self::V1_0_0
    }

    /// Interfaces say their MTU.
    pub(super) fn shows_mtu(self) -> bool {
        self >= Self::V1_1_0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_that_are_supported() {
        for text in SUPPORTED {
            assert_eq!(Version::of(Some(text)).unwrap().text(), text);
        }
        for text in [None, Some("0.2.0"), Some("1.2.0"), Some("")] {
            assert_eq!(
                Version::of(text).unwrap_err().code,
                Code::IncompatibleVersion
            );
        }
        assert!(Version::V0_3_1.require(Version::V0_4_0, "CHECK").is_err());
        assert!(Version::V1_1_0.require(Version::V1_1_0, "GC").is_ok());
    }
}
