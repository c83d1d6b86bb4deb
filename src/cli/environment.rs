//! Environment variables from `-e` and `--env-file`, by Docker's rules: `NAME=VALUE` is taken as it
//! is, `NAME` alone passes ours on where it is set; no quotes, no expansion.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Why a variable was refused.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// `=VALUE`, or white space in a name.
    #[error(
        "environment variable '{0}': a name before '=' must not be empty or contain white space"
    )]
    Name(String),
    /// Requests are JSON.
    #[error("environment variable '{0}': its value is not UTF-8")]
    NotUtf8(String),
    /// The file cannot be read.
    #[error("read environment file {}", path.display())]
    File {
        /// `--env-file`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of it is wrong.
    #[error("environment file {}, line {line}", path.display())]
    Line {
        /// `--env-file`.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Why.
        source: Box<EnvironmentError>,
    },
}

type Variables = Vec<(String, String)>;

/// From `-e`, in order; `own` looks up our own variables.
pub fn from_flags(
    flags: &[String],
    own: impl Fn(&str) -> Option<OsString>,
) -> Result<Variables, EnvironmentError> {
    let mut variables = Vec::new();
    for flag in flags {
        variables.extend(variable(flag, &own)?);
    }
    Ok(variables)
}

/// From one `--env-file`.
pub fn read_file(
    path: &Path,
    own: impl Fn(&str) -> Option<OsString>,
) -> Result<Variables, EnvironmentError> {
    let text = std::fs::read_to_string(path).map_err(|source| EnvironmentError::File {
        path: path.to_path_buf(),
        source,
    })?;
    let mut variables = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let found = variable(line, &own).map_err(|source| EnvironmentError::Line {
            path: path.to_path_buf(),
            line: index + 1,
            source: Box::new(source),
        })?;
        variables.extend(found);
    }
    Ok(variables)
}

fn variable(
    text: &str,
    own: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(String, String)>, EnvironmentError> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text.trim_end(), None),
    };
    if name.is_empty() || name.contains(char::is_whitespace) || text.contains('\0') {
        return Err(EnvironmentError::Name(text.to_owned()));
    }
    if let Some(value) = value {
        return Ok(Some((name.to_owned(), value.to_owned())));
    }
    let Some(value) = own(name) else {
        return Ok(None);
    };
    let value = value
        .into_string()
        .map_err(|_| EnvironmentError::NotUtf8(name.to_owned()))?;
    Ok(Some((name.to_owned(), value)))
}

/// Keeps the last value of each name, in the order of those.
pub fn last_of_each(mut variables: Variables) -> Variables {
    let mut seen = HashSet::new();
    variables.reverse();
    variables.retain(|(name, _)| seen.insert(name.clone()));
    variables.reverse();
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::ffi::OsStringExt;

    fn own(name: &str) -> Option<OsString> {
        match name {
            "SET" => Some(OsString::from("ours")),
            "BYTES" => Some(OsString::from_vec(vec![0xff])),
            _ => None,
        }
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn flags() {
        let flags = ["A=1", "SET", "UNSET", "B=x=y", "C="].map(str::to_owned);
        let expected = [
            pair("A", "1"),
            pair("SET", "ours"),
            pair("B", "x=y"),
            pair("C", ""),
        ];
        assert_eq!(from_flags(&flags, own).unwrap(), expected);
        for bad in ["=x", "a b=c", "=", "BYTES"] {
            assert!(from_flags(&[bad.to_owned()], own).is_err(), "{bad}");
        }
    }

    #[test]
    fn files() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all("\u{feff}# comment\n\n  A=1 # kept\nSET\nUNSET\nQ=\"x\"\n".as_bytes())
            .unwrap();
        let expected = [
            pair("A", "1 # kept"),
            pair("SET", "ours"),
            pair("Q", "\"x\""),
        ];
        assert_eq!(read_file(file.path(), own).unwrap(), expected);
        file.write_all(b"a b=c\n").unwrap();
        let error = read_file(file.path(), own).unwrap_err();
        assert!(error.to_string().ends_with("line 7"), "{error}");
        assert!(read_file(Path::new("/nonexistent"), own).is_err());
    }

    #[test]
    fn the_last_value_wins() {
        let given = vec![pair("A", "1"), pair("B", "2"), pair("A", "3")];
        assert_eq!(last_of_each(given), [pair("B", "2"), pair("A", "3")]);
    }
}
