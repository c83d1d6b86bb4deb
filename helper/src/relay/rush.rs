//! What the relay says unasked: `rush ADDRESS`, a container sends datagrams faster than it takes them; `rush
//! over ADDRESS`, no longer. An order to do something about it, and nothing that must be done.

use std::net::IpAddr;

/// One such word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rush {
    /// Whose; it may be anybody's.
    pub address: IpAddr,
    /// It begins, or is over.
    pub begins: bool,
}

impl Rush {
    /// Reads one; any other word is none.
    pub fn parse(word: &str) -> Option<Self> {
        let rest = word.strip_prefix("rush ")?;
        let (begins, address) = match rest.strip_prefix("over ") {
            Some(address) => (false, address),
            None => (true, rest),
        };
        let address = address.parse().ok()?;
        Some(Self { address, begins })
    }
}

/// Words that nobody has followed yet.
#[derive(Debug, Default)]
pub struct Rushes(Vec<Rush>);

/// More than endpoints that a core could serve in a rush: a relay that says more is out of its mind.
const MOST: usize = 256;

impl Rushes {
    /// Keeps one.
    pub fn add(&mut self, rush: Rush) {
        if self.0.len() < MOST {
            self.0.push(rush);
        }
    }

    /// All, in order.
    pub fn take(&mut self) -> Vec<Rush> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read() {
        let rush = |begins, address: &str| Rush {
            address: address.parse().unwrap(),
            begins,
        };
        assert_eq!(Rush::parse("rush 10.0.0.2"), Some(rush(true, "10.0.0.2")));
        assert_eq!(Rush::parse("rush fd00::2"), Some(rush(true, "fd00::2")));
        assert_eq!(
            Rush::parse("rush over 10.0.0.2"),
            Some(rush(false, "10.0.0.2"))
        );
        for other in [
            "ok",
            "rush",
            "rush ",
            "rush over",
            "rush over x",
            "rush a b",
        ] {
            assert_eq!(Rush::parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_nobody_follows_is_bounded() {
        let mut rushes = Rushes::default();
        for _ in 0..2 * MOST {
            rushes.add(Rush::parse("rush 10.0.0.2").unwrap());
        }
        assert_eq!(rushes.take().len(), MOST);
        assert!(rushes.take().is_empty());
    }
}
