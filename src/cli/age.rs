//! Times as Docker words them: `5 minutes ago`, `About an hour`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Time since an RFC 3339 time in UTC, in words; the text itself where it is none.
pub(super) fn since(time: &str, now: SystemTime) -> String {
    let Some(then) = seconds(time) else {
        return time.to_owned();
    };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    words(Duration::from_secs(now.saturating_sub(then)))
}

/// An RFC 3339 time in UTC as Go prints one, and Docker with it: `2026-11-24 15:04:05.12 +0000 UTC`; the
/// text itself where it is none.
pub(super) fn as_go_prints(time: &str) -> String {
    let parts = time.strip_suffix('Z').and_then(|time| time.split_once('T'));
    let Some((date, clock)) = parts else {
        return time.to_owned();
    };
    let clock = match clock.split_once('.') {
        Some(_) => clock.trim_end_matches('0').trim_end_matches('.'),
        None => clock,
    };
    format!("{date} {clock} +0000 UTC")
}

/// A length of time in words.
fn words(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..MINUTE => format!("{seconds} seconds"),
        MINUTE..120 => "About a minute".to_owned(),
        120..HOUR => format!("{} minutes", seconds / MINUTE),
        HOUR..5400 => "About an hour".to_owned(),
        5400..172_800 => format!("{} hours", (seconds + HOUR / 2) / HOUR),
        172_800..1_209_600 => format!("{} days", seconds / DAY),
        1_209_600..5_184_000 => format!("{} weeks", seconds / DAY / 7),
        5_184_000..63_072_000 => format!("{} months", seconds / DAY / 30),
        _ => format!("{} years", seconds / DAY / 365),
    }
}

/// Seconds since 1970 of `2026-11-24T15:04:05[.123]Z`.
fn seconds(time: &str) -> Option<u64> {
    let (date, clock) = time.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut clock = clock
        .split('.')
        .next()?
        .splitn(3, ':')
        .map(str::parse::<u64>);
    let (hour, minute, second) = (
        clock.next()?.ok()?,
        clock.next()?.ok()?,
        clock.next()?.ok()?,
    );
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days of a calendar whose year starts in March, so that the leap day comes last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let since_1970 = days.checked_sub(719_468)?;
    Some(since_1970 * DAY + hour * HOUR + minute * MINUTE + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2026-11-24T15:04:05.123456Z", Some(1_795_532_645)),
            ("2026-11-24", None),
            ("2026-13-24T15:04:05Z", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn lengths_are_worded_as_docker_does() {
        for (length, expected) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (130, "2 minutes"),
            (3700, "About an hour"),
            (7300, "2 hours"),
            (2 * DAY, "2 days"),
            (20 * DAY, "2 weeks"),
            (100 * DAY, "3 months"),
            (1000 * DAY, "2 years"),
        ] {
            assert_eq!(words(Duration::from_secs(length)), expected);
        }
        let now = UNIX_EPOCH + Duration::from_secs(90);
        assert_eq!(since("1970-01-01T00:01:00Z", now), "30 seconds");
        assert_eq!(since("soon", now), "soon");
    }

    #[test]
    fn go_prints_no_more_of_a_fraction_than_it_has() {
        for (time, printed) in [
            ("2026-11-24T15:04:05Z", "2026-11-24 15:04:05 +0000 UTC"),
            (
                "2026-11-24T15:04:10.120Z",
                "2026-11-24 15:04:10.12 +0000 UTC",
            ),
            ("2026-11-24T15:04:10.000Z", "2026-11-24 15:04:10 +0000 UTC"),
            ("yesterday", "yesterday"),
        ] {
            assert_eq!(as_go_prints(time), printed);
        }
    }
}
