//! `network prune --filter`: which networks are meant. Pure.

use super::refusal::malformed;
use crate::api::control::Answer;
use crate::network::Network;
use crate::network::model::Millis;

/// One condition; a network must meet all.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    /// Has this label, with this value if one is said.
    Label(String, Option<String>),
    /// Has not.
    NotLabel(String, Option<String>),
    /// Was made before.
    Until(Millis),
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Filter(Vec<Condition>);

impl Filter {
    /// Reads pairs of key and value; times that are said as an age are counted from `now`.
    pub(super) fn parse(pairs: &[(String, String)], now: Millis) -> Answer<Self> {
        let condition = |(key, value): &(String, String)| match key.as_str() {
            "label" => {
                let (name, value) = label(value)?;
                Ok(Condition::Label(name, value))
            }
            "label!" => {
                let (name, value) = label(value)?;
                Ok(Condition::NotLabel(name, value))
            }
            "until" => Ok(Condition::Until(until(value, now)?)),
            _ => {
                let message = format!("filter '{}' is not known", key.escape_debug());
                Err(malformed(message).with_hint("there are: until, label, label!"))
            }
        };
        pairs.iter().map(condition).collect::<Answer<_>>().map(Self)
    }

    /// Whether a network is meant.
    pub(super) fn matches(&self, network: &Network) -> bool {
        let has = |name: &String, value: &Option<String>| {
            let label = network.labels.get(name);
            label.is_some_and(|label| value.as_ref().is_none_or(|value| value == label))
        };
        self.0.iter().all(|condition| match condition {
            Condition::Label(name, value) => has(name, value),
            Condition::NotLabel(name, value) => !has(name, value),
            Condition::Until(before) => network.created < *before,
        })
    }
}

fn label(text: &str) -> Answer<(String, Option<String>)> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(malformed("a label filter has no name")
            .with_hint("give --filter label=NAME or label=NAME=VALUE"));
    }
    Ok((name.to_owned(), value))
}

/// An age as Go writes it (`1h30m`), seconds since 1970, or a date as RFC 3339 has it, in UTC.
fn until(text: &str, now: Millis) -> Answer<Millis> {
    let seconds = |text: &str| text.parse::<Millis>().ok()?.checked_mul(1000);
    let read = age(text).map(|age| now.saturating_sub(age));
    let read = read.or_else(|| seconds(text)).or_else(|| date(text));
    read.ok_or_else(|| {
        let message = format!("filter until={} is no time", text.escape_debug());
        malformed(message)
            .with_hint("give an age such as 24h, or a date such as 2026-11-24T15:04:05Z")
    })
}

fn age(text: &str) -> Option<Millis> {
    let mut rest = text;
    let mut sum: Millis = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        let unit: Millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        sum = sum.checked_add(number.parse::<Millis>().ok()?.checked_mul(unit)?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(sum)
}

/// `2026-11-24`, `2026-11-24T15:04`, `2026-11-24T15:04:05`, each with or without `Z`.
fn date(text: &str) -> Option<Millis> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (day, time) = text.split_once('T').unwrap_or((text, "00:00:00"));
    let numbers = |text: &str, by: char| -> Option<Vec<u64>> {
        text.split(by).map(|word| word.parse().ok()).collect()
    };
    let &[year, month, day] = &numbers(day, '-')?[..] else {
        return None;
    };
    let time = numbers(time.split('.').next()?, ':')?;
    let (&hour, &minute) = (time.first()?, time.get(1)?);
    let second = time.get(2).copied().unwrap_or(0);
    let legal = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !legal || time.len() > 3 {
        return None;
    }
    let days = super::clock::days_from_civil(year, month, day);
    Some((days * 86_400 + hour * 3600 + minute * 60 + second) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::model::samples;

    const NOW: Millis = 1_800_000_000_000;

    fn filter(pairs: &[(&str, &str)]) -> Answer<Filter> {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Filter::parse(&pairs, NOW)
    }

    #[test]
    fn all_conditions_must_hold() {
        let mut network = samples::network("mynet", 1, "10.89.3.0/24");
        network.labels.insert("tier".into(), "web".into());
        network.created = NOW - 7_200_000;
        let matches = |pairs: &[(&str, &str)]| filter(pairs).unwrap().matches(&network);
        assert!(matches(&[]));
        assert!(matches(&[("label", "tier")]) && matches(&[("label", "tier=web")]));
        assert!(!matches(&[("label", "tier=db")]) && !matches(&[("label", "other")]));
        assert!(matches(&[("label!", "tier=db")]) && !matches(&[("label!", "tier")]));
        assert!(matches(&[("until", "1h")]) && !matches(&[("until", "2h30m")]));
        assert!(!matches(&[("label", "tier"), ("until", "3h")]));
    }

    #[test]
    fn times_are_read_as_docker_reads_them() {
        let read = |text: &str| until(text, NOW).ok();
        assert_eq!(read("90s"), Some(NOW - 90_000));
        assert_eq!(read("1h30m"), Some(NOW - 5_400_000));
        assert_eq!(read("1000"), Some(1_000_000));
        assert_eq!(read("1970-01-02"), Some(86_400_000));
        assert_eq!(read("2000-03-01T00:00:01Z"), Some(951_868_801_000));
        for bad in ["", "1", "x", "1d", "2026-13-01", "2026-11-24T25:00"] {
            assert_eq!(read(bad), (bad == "1").then_some(1000), "{bad}");
        }
        for (key, value) in [
            ("name", "x"),
            ("label", ""),
            ("label", "=x"),
            ("until", "soon"),
        ] {
            assert!(filter(&[(key, value)]).is_err(), "{key}={value}");
        }
    }
}
