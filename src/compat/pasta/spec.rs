//! What `-t`, `-u`, `-T` and `-U` say: which ports lead to which.
//!
//! Pure. A word is `none`, `auto`, `all`, or `[ADDRESS][%INTERFACE]/PORTS`, where PORTS are ranges with
//! commas between, each with the ports that it leads to after a colon, or with `~` before it, and then
//! left out. Several words add up. Invariant: no port is in the list of one address twice.
//!
//! Sources: pasta(1).

use crate::ports::{HostAddr, Port, PortRange};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// All ports that a side forwards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ports {
    /// No word.
    #[default]
    Unsaid,
    /// None.
    None,
    /// Those that somebody listens at on the other side, as they come and go.
    Auto,
    /// These, which all must be free.
    Listed(Vec<Listed>),
    /// Whatever is free of these.
    Open(Vec<Listed>),
}

/// Ports at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Where.
    pub addr: HostAddr,
    /// Only what comes by this interface.
    pub interface: Option<String>,
    /// Each port, and the one that it leads to.
    pub ports: BTreeMap<Port, Port>,
}

/// Ports from here on are the kernel's to give away (ip_local_port_range, as it is mostly).
const EPHEMERAL: u16 = 32_768;
/// IFNAMSIZ, without the final zero.
const LONGEST_NAME: usize = 15;

/// A word that is none of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not a port, a range, an address.
    #[error("invalid port specifier '{0}'")]
    Invalid(String),
    /// A port stands there twice.
    #[error("port {port} is forwarded twice in '{word}'")]
    Twice {
        /// Which.
        port: Port,
        /// Where.
        word: String,
    },
    /// Lists and words exclude each other.
    #[error("'{0}' cannot be combined with other ports")]
    Alone(String),
}

impl Ports {
    /// Adds what another word says.
    pub fn add(&mut self, word: &str) -> Result<(), SpecError> {
        let alone = || SpecError::Alone(word.to_owned());
        let single = match word {
            "none" => Some(Self::None),
            "auto" => Some(Self::Auto),
            "all" => Some(Self::Open(vec![everything(HostAddr::Any, None)])),
            _ => None,
        };
        if let Some(single) = single {
            let was = std::mem::replace(self, single);
            return match was == Self::Unsaid || was == *self {
                true => Ok(()),
                false => Err(alone()),
            };
        }
        let (listed, open) = parse(word)?;
        match (&mut *self, open) {
            (Self::Unsaid, true) => *self = Self::Open(vec![listed]),
            (Self::Unsaid, false) => *self = Self::Listed(vec![listed]),
            (Self::Open(all), true) | (Self::Listed(all), false) => join(all, listed, word)?,
            (Self::Open(_) | Self::Listed(_) | Self::None | Self::Auto, _) => return Err(alone()),
        }
        Ok(())
    }
}

fn join(all: &mut Vec<Listed>, more: Listed, word: &str) -> Result<(), SpecError> {
    let same = |one: &&mut Listed| one.addr == more.addr && one.interface == more.interface;
    let Some(one) = all.iter_mut().find(same) else {
        all.push(more);
        return Ok(());
    };
    for (port, to) in more.ports {
        if one.ports.insert(port, to).is_some() {
            let word = word.to_owned();
            return Err(SpecError::Twice { port, word });
        }
    }
    Ok(())
}

fn everything(addr: HostAddr, interface: Option<String>) -> Listed {
    let ports = (1..EPHEMERAL).filter_map(Port::new);
    Listed {
        addr,
        interface,
        ports: ports.map(|port| (port, port)).collect(),
    }
}

/// The list, and whether it was made by leaving out.
fn parse(word: &str) -> Result<(Listed, bool), SpecError> {
    let invalid = || SpecError::Invalid(word.to_owned());
    let (place, list) = match word.split_once('/') {
        Some((place, list)) => (Some(place), list),
        None => (None, word),
    };
    let (addr, interface) = match place {
        Some(place) => parse_place(place).ok_or_else(invalid)?,
        None => (HostAddr::Any, None),
    };
    let (mut ranges, mut left_out) = (Vec::new(), Vec::new());
    for part in list.split(',') {
        match part.strip_prefix('~') {
            Some(range) => left_out.push(parse_range(range).ok_or_else(invalid)?),
            None => ranges.push(parse_mapping(part).ok_or_else(invalid)?),
        }
    }
    let open = ranges.is_empty();
    let mut listed = if open {
        everything(addr, interface)
    } else {
        let ports = BTreeMap::new();
        Listed {
            addr,
            interface,
            ports,
        }
    };
    let is_left_out = |port: Port| left_out.iter().any(|range| range.offset(port).is_some());
    for (from, to) in ranges {
        let pairs = from.iter().zip(to.iter());
        for (port, to) in pairs.filter(|(port, _)| !is_left_out(*port)) {
            if listed.ports.insert(port, to).is_some() {
                let word = word.to_owned();
                return Err(SpecError::Twice { port, word });
            }
        }
    }
    listed.ports.retain(|port, _| !is_left_out(*port));
    Ok((listed, open))
}

fn parse_place(place: &str) -> Option<(HostAddr, Option<String>)> {
    let (address, interface) = match place.split_once('%') {
        Some((address, interface)) => (address, Some(interface)),
        None => (place, None),
    };
    let named = |name: &&str| {
        !name.is_empty() && name.len() <= LONGEST_NAME && !name.contains(['/', '%', ' '])
    };
    if interface.is_some_and(|name| !named(&name)) || place.is_empty() {
        return None;
    }
    let addr = match address {
        "" => HostAddr::Any,
        address => HostAddr::only(address.parse::<IpAddr>().ok()?),
    };
    Some((addr, interface.map(str::to_owned)))
}

fn parse_mapping(text: &str) -> Option<(PortRange, PortRange)> {
    let Some((from, to)) = text.split_once(':') else {
        let range = parse_range(text)?;
        return Some((range, range));
    };
    let (from, to) = (parse_range(from)?, parse_range(to)?);
    (from.count() == to.count()).then_some((from, to))
}

fn parse_range(text: &str) -> Option<PortRange> {
    match text.split_once('-') {
        Some((first, last)) => PortRange::new(parse_port(first)?, parse_port(last)?).ok(),
        None => parse_port(text).map(PortRange::one),
    }
}

fn parse_port(text: &str) -> Option<Port> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl Listed {
    /// Ports in a row that lead to ports in a row.
    pub fn runs(&self) -> Vec<(PortRange, Port)> {
        let mut runs: Vec<(PortRange, Port)> = Vec::new();
        for (port, to) in &self.ports {
            let longer = runs
                .last()
                .and_then(|(range, first)| follow(*range, *first, (*port, *to)));
            match (longer, runs.last_mut()) {
                (Some(longer), Some(last)) => last.0 = longer,
                _ => runs.push((PortRange::one(*port), *to)),
            }
        }
        runs
    }
}

/// The run with one more, if that is the next one.
fn follow(range: PortRange, first: Port, (port, to): (Port, Port)) -> Option<PortRange> {
    let offset = u16::try_from(range.count()).ok()?;
    let next = range.last().checked_add(1)? == port && first.checked_add(offset)? == to;
    next.then(|| PortRange::new(range.first(), port).ok())?
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.addr)?;
        if let Some(interface) = &self.interface {
            write!(f, "%{interface}")?;
        }
        for (range, to) in self.runs() {
            write!(f, " {range}:{to}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ports(words: &[&str]) -> Result<Ports, SpecError> {
        let mut ports = Ports::default();
        words.iter().try_for_each(|word| ports.add(word))?;
        Ok(ports)
    }

    fn text(words: &[&str]) -> String {
        match ports(words) {
            Ok(Ports::Listed(all)) => all
                .iter()
                .map(Listed::to_string)
                .collect::<Vec<_>>()
                .join("; "),
            Ok(Ports::Open(all)) => format!("open {}", all[0].ports.len()),
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_words_of_the_manual() {
        for (words, expected) in [
            (&["22"][..], "* 22:22"),
            (&["22:23"], "* 22:23"),
            (&["22,25"], "* 22:22 25:25"),
            (&["22-80"], "* 22-80:22"),
            (&["22-80:32-90"], "* 22-80:32"),
            (&["192.0.2.1/22"], "192.0.2.1 22:22"),
            (&["192.0.2.1%eth0/22"], "192.0.2.1%eth0 22:22"),
            (&["%eth0/22"], "*%eth0 22:22"),
            (&["::1/8080-8081:80-81"], "[::1] 8080-8081:80"),
            (&["2000-5000,~3000-3010"], "* 2000-2999:2000 3011-5000:3011"),
            (&["192.0.2.1/20-30,~25"], "192.0.2.1 20-24:20 26-30:26"),
            (&["8080-8080:80-80"], "* 8080:80"),
            (&["80", "81", "127.0.0.1/80"], "* 80-81:80; 127.0.0.1 80:80"),
            (&["~20000-20010"], "open 32756"),
            (&["none"], "None"),
            (&["auto"], "Auto"),
            (&["all"], "open 32767"),
            (&[], "Unsaid"),
        ] {
            assert_eq!(text(words), expected, "{words:?}");
        }
    }

    #[test]
    fn what_is_none_of_them() {
        for word in [
            "",
            "0",
            "65536",
            "99999",
            "foo",
            "-1",
            "1-",
            "2-1",
            "1:2-3",
            "1-2:3",
            "1,",
            "+1",
            "/1",
            "x/1",
            "1.2.3/4",
            "%/1",
            "%averyverylongname/1",
            "~",
            "1:~2",
            " 1",
            "1 ",
            "auto,1",
            "[::1]/1",
            "1:2:3",
        ] {
            assert_eq!(ports(&[word]), Err(SpecError::Invalid(word.to_owned())));
        }
        for words in [
            &["none", "1"][..],
            &["1", "auto"],
            &["1", "~2"],
            &["auto", "none"],
        ] {
            assert!(
                matches!(ports(words), Err(SpecError::Alone(_))),
                "{words:?}"
            );
        }
        for words in [
            &["1-3,2"][..],
            &["1", "1:2"],
            &["::ffff:1.2.3.4/5", "1.2.3.4/5"],
        ] {
            assert!(
                matches!(ports(words), Err(SpecError::Twice { .. })),
                "{words:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_word_is_taken_or_refused(word in "[0-9a-z:/,~%.-]{0,24}") {
            let mut ports = Ports::default();
            if ports.add(&word).is_ok() && let Ports::Listed(all) = &ports {
                for listed in all {
                    let pairs = listed.runs().into_iter().map(|(range, _)| range.count());
                    prop_assert_eq!(pairs.sum::<usize>(), listed.ports.len());
                }
            }
        }

        #[test]
        fn ranges_lead_where_they_say(first in 1u16..60_000, count in 1u16..200, to in 1u16..60_000, gone in 0u16..200) {
            let (last, to_last) = (first + count - 1, to + count - 1);
            let left_out = first.saturating_add(gone);
            let word = format!("{first}-{last}:{to}-{to_last},~{left_out}");
            let mut ports = Ports::default();
            ports.add(&word).unwrap();
            let Ports::Listed(all) = ports else { panic!("{word}") };
            let expected = (0..count).filter(|n| *n != gone);
            let expected: Vec<_> = expected.map(|n| (first + n, to + n)).collect();
            let found: Vec<_> = all[0].ports.iter().map(|(a, b)| (a.get(), b.get())).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
