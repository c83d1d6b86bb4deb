//! `--filter` of `network ls` and `network prune`.
//!
//! As in Docker: of several values of one key one must match, of several labels all.

use crate::api::network_types::NetworkInfo;
use std::mem::discriminant;
use std::str::FromStr;

/// Networks that are always there.
const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

/// Why a filter was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No `=`.
    #[error("expected KEY=VALUE, such as name=mynet")]
    Form,
    /// A key that is none.
    #[error("there is no filter '{key}'; use one of {known}")]
    Key {
        /// As given.
        key: String,
        /// What there is.
        known: &'static str,
    },
    /// A value that is none.
    #[error("filter '{key}' takes {wanted}, not '{value}'")]
    Value {
        /// Which.
        key: &'static str,
        /// As given.
        value: String,
        /// What it takes.
        wanted: &'static str,
    },
}

/// One `--filter` of `network ls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkFilter {
    /// Part of the name; `^` and `$` hold it to beginning and end.
    Name(String),
    /// Beginning of the id.
    Id(String),
    /// Whole name of the driver.
    Driver(String),
    /// `local`, and no other.
    Scope(String),
    /// Key, or key and value.
    Label(String),
    /// `type=custom`: not predefined.
    Custom(bool),
    /// Nobody is on it, and it could be removed.
    Dangling(bool),
}

impl FromStr for NetworkFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let (key, value) = text.split_once('=').ok_or(FilterError::Form)?;
        let owned = value.to_owned();
        let wrong = |key, wanted| FilterError::Value {
            key,
            value: value.to_owned(),
            wanted,
        };
        match key {
            "name" => Ok(Self::Name(owned)),
            "id" => Ok(Self::Id(owned)),
            "driver" => Ok(Self::Driver(owned)),
            "scope" => Ok(Self::Scope(owned)),
            "label" => Ok(Self::Label(owned)),
            "type" => match value {
                "custom" => Ok(Self::Custom(true)),
                "builtin" => Ok(Self::Custom(false)),
                _ => Err(wrong("type", "builtin or custom")),
            },
            "dangling" => match value {
                "true" | "1" => Ok(Self::Dangling(true)),
                "false" | "0" => Ok(Self::Dangling(false)),
                _ => Err(wrong("dangling", "true or false")),
            },
            other => Err(FilterError::Key {
                key: other.to_owned(),
                known: "driver, id, name, label, scope, type, dangling",
            }),
        }
    }
}

impl NetworkFilter {
    fn matches(&self, network: &NetworkInfo) -> bool {
        match self {
            Self::Name(part) => contains(&network.name, part),
            Self::Id(beginning) => network.id.as_str().starts_with(beginning.as_str()),
            Self::Driver(driver) => network.driver == *driver,
            Self::Scope(scope) => network.scope == *scope,
            Self::Label(wanted) => {
                let (key, value) = match wanted.split_once('=') {
                    Some((key, value)) => (key, Some(value)),
                    None => (wanted.as_str(), None),
                };
                let found = network.labels.get(key);
                found.is_some_and(|found| value.is_none_or(|value| value == found))
            }
            Self::Custom(custom) => *custom != is_predefined(network),
            Self::Dangling(dangling) => {
                *dangling == (network.containers.is_empty() && !is_predefined(network))
            }
        }
    }
}

/// Whether a network passes.
pub(super) fn passes(filters: &[NetworkFilter], network: &NetworkInfo) -> bool {
    filters.iter().all(|filter| {
        let kind = discriminant(filter);
        if matches!(filter, NetworkFilter::Label(_)) {
            return filter.matches(network);
        }
        let mut same = filters.iter().filter(|other| discriminant(*other) == kind);
        same.any(|filter| filter.matches(network))
    })
}

fn is_predefined(network: &NetworkInfo) -> bool {
    PREDEFINED.contains(&network.name.as_str())
}

fn contains(name: &str, part: &str) -> bool {
    let (part, from_start) = match part.strip_prefix('^') {
        Some(part) => (part, true),
        None => (part, false),
    };
    let (part, to_end) = match part.strip_suffix('$') {
        Some(part) => (part, true),
        None => (part, false),
    };
    match (from_start, to_end) {
        (true, true) => name == part,
        (true, false) => name.starts_with(part),
        (false, true) => name.ends_with(part),
        (false, false) => name.contains(part),
    }
}

/// One `--filter` of `network prune`, which the daemon applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneFilter {
    pub(super) key: String,
    pub(super) value: String,
}

impl FromStr for PruneFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let (key, value) = text.split_once('=').ok_or(FilterError::Form)?;
        if !["until", "label", "label!"].contains(&key) {
            return Err(FilterError::Key {
                key: key.to_owned(),
                known: "until, label, label!",
            });
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::graph::tests::{example, network};

    fn passing(filters: &[&str]) -> Vec<String> {
        let filters: Vec<NetworkFilter> =
            filters.iter().map(|text| text.parse().unwrap()).collect();
        let (mut networks, _) = example();
        networks.push(network(8, "empty", "bridge", &[]));
        networks.push(network(9, "host", "host", &[]));
        networks
            .into_iter()
            .filter(|network| passes(&filters, network))
            .map(|network| network.name)
            .collect()
    }

    #[test]
    fn filters_pick_networks() {
        for (filters, expected) in [
            (&[][..], &["bridge", "mynet", "vault", "empty", "host"][..]),
            (&["name=a"], &["vault"]),
            (&["name=et"], &["mynet"]),
            (&["name=^h"], &["host"]),
            (&["name=t$"], &["mynet", "vault", "host"]),
            (&["name=^vault$"], &["vault"]),
            (&["name=mynet", "name=vault"], &["mynet", "vault"]),
            (&["driver=host"], &["host"]),
            (&["scope=global"], &[]),
            (&["type=builtin"], &["bridge", "host"]),
            (&["type=custom"], &["mynet", "vault", "empty"]),
            (&["type=custom", "name=v"], &["vault"]),
            (&["dangling=true"], &["empty"]),
            (&["dangling=0"], &["bridge", "mynet", "vault", "host"]),
            (&["id=0909"], &["host"]),
            (&["label=env"], &["mynet"]),
            (&["label=env=lab"], &["mynet"]),
            (&["label=env=lab", "label=other"], &[]),
        ] {
            assert_eq!(passing(filters), expected, "{filters:?}");
        }
    }

    #[test]
    fn wrong_filters_are_refused() {
        for (text, message) in [
            ("name", "expected KEY=VALUE"),
            (
                "colour=red",
                "there is no filter 'colour'; use one of driver, id",
            ),
            (
                "dangling=perhaps",
                "filter 'dangling' takes true or false, not 'perhaps'",
            ),
            ("type=odd", "filter 'type' takes builtin or custom"),
        ] {
            let error = text.parse::<NetworkFilter>().unwrap_err().to_string();
            assert!(error.starts_with(message), "{text}: {error}");
        }
        let filter = "label!=env=lab".parse::<PruneFilter>().unwrap();
        assert_eq!(
            (filter.key.as_str(), filter.value.as_str()),
            ("label!", "env=lab")
        );
        assert!("name=x".parse::<PruneFilter>().is_err());
        assert!("until".parse::<PruneFilter>().is_err());
    }
}
