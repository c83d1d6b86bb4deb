//! Words to options, as getopt_long(3) takes them apart, with its own texts for what it refuses: callers
//! look for them (podman tries again without an option that is "unrecognized").
//!
//! Pure. Long names may be cut short where that is unambiguous; options end at the first word that is none.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// One option: its short form, its name, whether it takes a value.
pub type Known = (Option<char>, &'static str, bool);

/// An option that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Its long name.
    pub name: &'static str,
    /// Its value, where it takes one.
    pub value: OsString,
}

/// What getopt_long(3) prints.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// A long option that there is not.
    #[error("unrecognized option '--{0}'")]
    Unrecognized(String),
    /// A short one.
    #[error("invalid option -- '{0}'")]
    Invalid(String),
    /// It begins several.
    #[error("option '--{0}' is ambiguous")]
    Ambiguous(String),
    /// A long option lacks its value.
    #[error("option '--{0}' requires an argument")]
    NoValue(&'static str),
    /// A short one.
    #[error("option requires an argument -- '{0}'")]
    NoShortValue(char),
    /// It has one, and takes none.
    #[error("option '--{0}' doesn't allow an argument")]
    NeedlessValue(&'static str),
}

/// Options in order, and the words that are left.
pub fn parse(words: Vec<OsString>, known: &[Known]) -> Result<(Vec<Given>, Vec<OsString>), Misuse> {
    let mut words = words.into_iter().peekable();
    let mut given = Vec::new();
    while let Some(word) = words.next_if(is_option) {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            break;
        }
        match bytes.strip_prefix(b"--") {
            Some(long) => given.push(parse_long(long, known, || words.next())?),
            None => parse_short(&bytes[1..], known, &mut given, || words.next())?,
        }
    }
    Ok((given, words.collect()))
}

fn is_option(word: &OsString) -> bool {
    word.len() > 1 && word.as_bytes().starts_with(b"-")
}

fn parse_long(
    word: &[u8],
    known: &[Known],
    next: impl FnOnce() -> Option<OsString>,
) -> Result<Given, Misuse> {
    let at = word.iter().position(|byte| *byte == b'=');
    let (name, joined) = match at {
        Some(at) => (
            &word[..at],
            Some(OsString::from_vec(word[at + 1..].to_vec())),
        ),
        None => (word, None),
    };
    let text = || String::from_utf8_lossy(name).into_owned();
    let mut begun = known
        .iter()
        .filter(|option| option.1.as_bytes().starts_with(name));
    let exact = known.iter().find(|option| option.1.as_bytes() == name);
    let option = match (exact, begun.next(), begun.next()) {
        (Some(option), _, _) | (None, Some(option), None) => option,
        (None, None, _) => return Err(Misuse::Unrecognized(text())),
        (None, Some(_), Some(_)) => return Err(Misuse::Ambiguous(text())),
    };
    let value = match (option.2, joined) {
        (true, joined) => joined.or_else(next).ok_or(Misuse::NoValue(option.1))?,
        (false, None) => OsString::new(),
        (false, Some(_)) => return Err(Misuse::NeedlessValue(option.1)),
    };
    Ok(Given {
        name: option.1,
        value,
    })
}

/// Letters in a row; the rest of the word is the value of one that takes one.
fn parse_short(
    letters: &[u8],
    known: &[Known],
    given: &mut Vec<Given>,
    next: impl FnOnce() -> Option<OsString>,
) -> Result<(), Misuse> {
    for (at, byte) in letters.iter().enumerate() {
        let letter = char::from(*byte);
        let option = known.iter().find(|option| option.0 == Some(letter));
        let Some((_, name, takes_value)) = option else {
            return Err(Misuse::Invalid(letter.to_string()));
        };
        if *takes_value {
            let rest = &letters[at + 1..];
            let joined = (!rest.is_empty()).then(|| OsString::from_vec(rest.to_vec()));
            let value = joined.or_else(next).ok_or(Misuse::NoShortValue(letter))?;
            given.push(Given { name, value });
            return Ok(());
        }
        given.push(Given {
            name,
            value: OsString::new(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: &[Known] = &[
        (Some('q'), "quiet", false),
        (Some('t'), "tcp-ports", true),
        (None, "tcp-what", true),
        (None, "dns", true),
        (None, "dns-forward", true),
    ];

    fn parsed(words: &str) -> Result<(String, String), String> {
        let words = words
            .split(' ')
            .filter(|w| !w.is_empty())
            .map(OsString::from);
        let (given, left) = parse(words.collect(), KNOWN).map_err(|misuse| misuse.to_string())?;
        let given = given
            .iter()
            .map(|g| format!("{}={}", g.name, g.value.display()));
        let left = left.iter().map(|word| word.display().to_string());
        Ok((
            given.collect::<Vec<_>>().join(" "),
            left.collect::<Vec<_>>().join(" "),
        ))
    }

    #[test]
    fn words_are_taken_apart_as_getopt_does() {
        for (words, given, left) in [
            ("", "", ""),
            ("-q -t 80 sh -q", "quiet= tcp-ports=80", "sh -q"),
            ("-qt80 --quiet", "quiet= tcp-ports=80 quiet=", ""),
            (
                "--tcp-ports=80 --dns 1 --dns-f 2",
                "tcp-ports=80 dns=1 dns-forward=2",
                "",
            ),
            ("--tcp-ports= 4", "tcp-ports=", "4"),
            ("-t -q", "tcp-ports=-q", ""),
            ("-q -- --quiet", "quiet=", "--quiet"),
            ("- -q", "", "- -q"),
        ] {
            let expected = Ok((given.to_owned(), left.to_owned()));
            assert_eq!(parsed(words), expected, "{words}");
        }
        for (words, text) in [
            ("--x", "unrecognized option '--x'"),
            (
                "--map-guest-addr=1",
                "unrecognized option '--map-guest-addr'",
            ),
            ("-qx", "invalid option -- 'x'"),
            ("--tcp 80", "option '--tcp' is ambiguous"),
            (
                "--dns-forward",
                "option '--dns-forward' requires an argument",
            ),
            ("-t", "option requires an argument -- 't'"),
            ("--quiet=1", "option '--quiet' doesn't allow an argument"),
        ] {
            assert_eq!(parsed(words), Err(text.to_owned()), "{words}");
        }
    }

    proptest! {
        #[test]
        fn any_words_are_taken_or_refused(words in proptest::collection::vec(proptest::collection::vec(1..=255u8, 0..12), 0..8)) {
            let words: Vec<OsString> = words.into_iter().map(OsString::from_vec).collect();
            let count = words.len();
            if let Ok((_, left)) = parse(words, KNOWN) {
                prop_assert!(left.len() <= count);
            }
        }
    }
}
