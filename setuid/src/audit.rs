//! What was decided, for the admin: one line to the system's log (/dev/log, where syslog and the journal
//! listen) for each request. The caller sees no more than that it was denied.
//!
//! Invariant: a line holds no byte that a caller chose without escaping, and no line break.
//!
//! Sources: RFC 3164 as syslog(3) writes it locally, systemd-journald.service(8).

use std::fmt;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

const SOCKET: &str = "/dev/log";
/// How long to wait for room in the log.
const PATIENCE: Duration = Duration::from_secs(1);
/// Facility "authpriv" (10), with severity "notice" (5) and "info" (6).
const NOTICE: u8 = 10 << 3 | 5;
const INFO: u8 = 10 << 3 | 6;
/// Longest line, bytes.
const MAX_LENGTH: usize = 900;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Done.
    Granted,
    /// Refused.
    Denied,
    /// Granted, but it could not be done.
    Failed,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Failed => "failed",
        })
    }
}

/// Write a decision about a caller's request. Where nobody listens there is no log; whoever installs
/// this program on such a machine has decided that.
pub fn write(uid: u32, decision: Decision, verb: &str, detail: &dyn fmt::Display) {
    let priority = match decision {
        Decision::Granted => INFO,
        Decision::Denied | Decision::Failed => NOTICE,
    };
    let pid = std::process::id();
    let detail = escape(&detail.to_string());
    let line =
        format!("<{priority}>mossnet-helper[{pid}]: {decision} uid={uid} verb={verb} {detail}");
    let sent = UnixDatagram::unbound().and_then(|socket| {
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.connect(SOCKET)?;
        socket.send(line.as_bytes())
    });
    let _ = sent;
}

/// Tell the caller, on standard error.
pub fn tell(words: &str) {
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "mossnet-helper: {words}");
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        if escaped.len() > MAX_LENGTH {
            break;
        }
        if character.is_ascii_graphic() || character == ' ' {
            escaped.push(character);
        } else {
            escaped.extend(character.escape_unicode());
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_and_short() {
        assert_eq!(
            escape("a b\n<0>evil\u{7f}é"),
            "a b\\u{a}<0>evil\\u{7f}\\u{e9}"
        );
        assert!(escape(&"\u{10ffff}".repeat(1000)).len() < MAX_LENGTH + 20);
    }
}
