//! Parsers of single values: names, signals, host lines. Each says what is wrong and what
//! would be right; clap adds which flag it was.

use crate::api::types::HostTarget;
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::Duration;

/// Why a value was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// A name of a sandbox or network.
    #[error(
        "a name starts with a letter or digit and goes on with letters, digits, '_', '.' or '-', at most 128 in all"
    )]
    Name,
    /// UTS host names have at most 64 bytes.
    #[error(
        "a host name is 1 to 64 letters, digits, '.' or '-', and neither starts nor ends with '-' or '.'"
    )]
    Hostname,
    /// A search domain.
    #[error("a search domain is at most 253 letters, digits, '.', '-' or '_', or '.' alone")]
    SearchDomain,
    /// `container:` with nothing after it.
    #[error("container: needs the name of a sandbox after it")]
    Container,
    /// An alias on a network, or of a link.
    #[error(
        "an alias is a host name: labels of 1 to 63 letters, digits, '-' or '_', with dots between them"
    )]
    Alias,
    /// `--subnet`, `--ip-range`.
    #[error("expected an address and a prefix length, such as 192.168.0.0/16 or fd00:1::/64")]
    Prefix,
    /// `--aux-address`.
    #[error("expected NAME=ADDRESS, such as printer=192.168.0.9")]
    AuxAddress,
    /// `--label`, `--opt`.
    #[error("expected KEY=VALUE")]
    KeyValue,
    /// `--add-host`.
    #[error("expected NAME:ADDRESS, such as db:10.89.0.5 or db:fd00::5")]
    HostLine,
    /// `--add-host NAME:…` with something that is no address.
    #[error("'{0}' is not an IP address")]
    Address(String),
    /// Neither name nor number of a signal.
    #[error("no such signal; give a name such as TERM or SIGTERM, or a number from 1 to 64")]
    Signal,
    /// `--tail`.
    #[error("expected a number of lines, or 'all'")]
    Tail,
    /// `--duration`.
    #[error("expected a time such as 90, 90s, 5m, 1h or 500ms")]
    Duration,
    /// `--workdir`.
    #[error("a working directory must be an absolute path")]
    Workdir,
    /// `--cap-add`.
    #[error("no such capability; give a name such as NET_RAW, or ALL")]
    Capability,
}

/// Anything but nothing.
pub fn given(text: &str) -> Result<String, ValueError> {
    if text.is_empty() {
        return Err(ValueError::Empty);
    }
    Ok(text.to_owned())
}

/// Name of a sandbox or network.
pub fn name(text: &str) -> Result<String, ValueError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let first = text.bytes().next().ok_or(ValueError::Empty)?;
    if !first.is_ascii_alphanumeric() || text.len() > 128 || !text.bytes().all(legal) {
        return Err(ValueError::Name);
    }
    Ok(text.to_owned())
}

/// UTS host name.
pub fn hostname(text: &str) -> Result<String, ValueError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let edge = |c: char| c == '-' || c == '.';
    if text.is_empty()
        || text.len() > 64
        || !text.bytes().all(legal)
        || text.starts_with(edge)
        || text.ends_with(edge)
    {
        return Err(ValueError::Hostname);
    }
    Ok(text.to_owned())
}

/// `--dns-search`.
pub fn search_domain(text: &str) -> Result<String, ValueError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let empty_label = text != "." && (text.starts_with('.') || text.contains(".."));
    if text.is_empty() || text.len() > 253 || !text.bytes().all(legal) || empty_label {
        return Err(ValueError::SearchDomain);
    }
    Ok(text.to_owned())
}

/// `--add-host NAME:ADDRESS`, or with '='; IPv6 addresses with or without brackets;
/// `host-gateway` for the host.
pub fn host_line(text: &str) -> Result<(String, HostTarget), ValueError> {
    let (host, address) = text.split_once(['=', ':']).ok_or(ValueError::HostLine)?;
    let host = hostname(host)?;
    let bare = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    if bare.is_empty() {
        return Err(ValueError::HostLine);
    }
    let address = bare
        .parse()
        .map_err(|_| ValueError::Address(bare.to_owned()))?;
    Ok((host, address))
}

/// A signal by name, with or without SIG, or by number.
pub fn signal(text: &str) -> Result<i32, ValueError> {
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) {
            Ok(number)
        } else {
            Err(ValueError::Signal)
        };
    }
    let upper = text.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = realtime(short) {
        return Ok(number);
    }
    let name = match short {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        other => other,
    };
    format!("SIG{name}")
        .parse::<Signal>()
        .map(|signal| signal as i32)
        .map_err(|_| ValueError::Signal)
}

/// `RTMIN`, `RTMIN+N`, `RTMAX`, `RTMAX-N`, as the C library counts them (signal(7)).
fn realtime(name: &str) -> Option<i32> {
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;
    let number = match name {
        "RTMIN" => RTMIN,
        "RTMAX" => RTMAX,
        _ => {
            if let Some(above) = name.strip_prefix("RTMIN+") {
                RTMIN.checked_add(above.parse::<u8>().ok()?.into())?
            } else {
                let below = name.strip_prefix("RTMAX-")?;
                RTMAX.checked_sub(below.parse::<u8>().ok()?.into())?
            }
        }
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// `--tail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// From the beginning.
    All,
    /// The last lines.
    Lines(usize),
}

/// `--tail N` or `all`.
pub fn tail(text: &str) -> Result<Tail, ValueError> {
    if text == "all" {
        return Ok(Tail::All);
    }
    text.parse().map(Tail::Lines).map_err(|_| ValueError::Tail)
}

/// `--duration`: a whole number of a unit, seconds where there is none.
pub fn duration(text: &str) -> Result<Duration, ValueError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => return Err(ValueError::Duration),
    };
    let number: u32 = number.parse().map_err(|_| ValueError::Duration)?;
    if number == 0 {
        return Err(ValueError::Duration);
    }
    Ok(Duration::from_millis(u64::from(number) * milliseconds))
}

/// `--workdir`.
pub fn workdir(text: &str) -> Result<PathBuf, ValueError> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        return Err(ValueError::Workdir);
    }
    Ok(path)
}

/// `net_raw`, `CAP_NET_RAW` and so on, as `CAP_NET_RAW`; or `ALL`.
pub fn capability(text: &str) -> Result<String, ValueError> {
    let upper = text.to_ascii_uppercase();
    if upper == "ALL" {
        return Ok(upper);
    }
    let whole = if upper.starts_with("CAP_") {
        upper
    } else {
        format!("CAP_{upper}")
    };
    whole
        .parse::<caps::Capability>()
        .map(|capability| capability.to_string())
        .map_err(|_| ValueError::Capability)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("KILL", 9),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("IOT", 6),
            ("USR1", 10),
            ("WINCH", 28),
        ] {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for text in [
            "",
            "0",
            "65",
            "-1",
            "SIG",
            "SIGSIGTERM",
            "TERMS",
            "RTMIN+31",
            "RTMIN+-1",
        ] {
            assert_eq!(signal(text), Err(ValueError::Signal), "{text}");
        }
    }

    #[test]
    fn host_lines() {
        let line = |host: &str, address: &str| Ok((host.to_owned(), address.parse().unwrap()));
        assert_eq!(host_line("db:10.89.0.5"), line("db", "10.89.0.5"));
        assert_eq!(host_line("db=10.89.0.5"), line("db", "10.89.0.5"));
        assert_eq!(host_line("db:fd00::5"), line("db", "fd00::5"));
        assert_eq!(host_line("db:[fd00::5]"), line("db", "fd00::5"));
        let host = Ok(("h".to_owned(), HostTarget::HostGateway));
        assert_eq!(host_line("h:host-gateway"), host);
        assert_eq!(host_line("db"), Err(ValueError::HostLine));
        assert_eq!(host_line("db:"), Err(ValueError::HostLine));
        assert_eq!(host_line(":10.0.0.1"), Err(ValueError::Hostname));
        assert_eq!(host_line("a b:10.0.0.1"), Err(ValueError::Hostname));
        assert_eq!(
            host_line("db:10.0.0.256"),
            Err(ValueError::Address("10.0.0.256".to_owned()))
        );
    }

    #[test]
    fn capabilities() {
        for text in ["NET_RAW", "net_raw", "CAP_NET_RAW", "cap_net_raw"] {
            assert_eq!(capability(text), Ok("CAP_NET_RAW".to_owned()));
        }
        assert_eq!(capability("all"), Ok("ALL".to_owned()));
        assert_eq!(capability("NET"), Err(ValueError::Capability));
    }

    #[test]
    fn names_of_hosts_and_domains() {
        assert!(hostname("a-b.c").is_ok());
        for bad in ["", "-a", "a-", ".a", "a_b", &"x".repeat(65)] {
            assert_eq!(hostname(bad), Err(ValueError::Hostname), "{bad}");
        }
        for good in [".", "example.org", "_tcp.example.org", "a."] {
            assert!(search_domain(good).is_ok(), "{good}");
        }
        for bad in ["", "..", "a..b", ".a", "a b", "a\nnameserver"] {
            assert_eq!(search_domain(bad), Err(ValueError::SearchDomain), "{bad}");
        }
    }

    #[test]
    fn other_values() {
        assert_eq!(tail("all"), Ok(Tail::All));
        assert_eq!(tail("0"), Ok(Tail::Lines(0)));
        assert_eq!(tail("-1"), Err(ValueError::Tail));
        for (text, milliseconds) in [
            ("90", 90_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("7ms", 7),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)));
        }
        for text in ["", "s", "0", "0ms", "-1", "1.5s", "5 m", "5M", "4294967296"] {
            assert_eq!(duration(text), Err(ValueError::Duration), "{text}");
        }
        assert_eq!(workdir("/x"), Ok(PathBuf::from("/x")));
        assert_eq!(workdir("x"), Err(ValueError::Workdir));
        assert_eq!(given(""), Err(ValueError::Empty));
    }
}
