//! Words of one action, between `{{` and `}}`.

use super::TemplateError;

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// `.A.B`, `$x.A`, `.`, `$`.
    Path {
        /// The variable that it starts at; `None`: the current value. The name is empty for `$`.
        variable: Option<String>,
        /// Fields from there.
        fields: Vec<String>,
    },
    /// `.A` right after `)`.
    Fields(Vec<String>),
    /// A function, a keyword, `true`, `false`.
    Name(String),
    /// A string.
    Text(String),
    /// A number.
    Number(i64),
    /// `|`, `(`, `)`, `,`, `:=`.
    Sign(&'static str),
}

impl Word {
    /// As the user wrote it, more or less; for messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Path { variable, fields } => {
                let start = variable.as_ref().map(|name| format!("${name}"));
                let fields: String = fields.iter().map(|field| format!(".{field}")).collect();
                match (start, fields.is_empty()) {
                    (None, true) => "'.'".to_owned(),
                    (start, _) => format!("'{}{fields}'", start.unwrap_or_default()),
                }
            }
            Self::Fields(fields) => format!("'.{}'", fields.join(".")),
            Self::Name(name) => format!("'{name}'"),
            Self::Text(text) => format!("{text:?}"),
            Self::Number(number) => format!("'{number}'"),
            Self::Sign(sign) => format!("'{sign}'"),
        }
    }
}

/// The text of an action up to its end, and what follows. `text` starts after `{{`.
pub(super) fn action(text: &str) -> Option<(&str, &str)> {
    let comment = text.trim_start_matches('-').trim_start();
    if comment.starts_with("/*") {
        let end = text.find("*/")? + 2;
        let close = end + text.get(end..)?.find("}}")?;
        return Some((text.get(..close)?, text.get(close + 2..)?));
    }
    // The end may not be looked for within a string.
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text.get(at..).is_some_and(|rest| rest.starts_with("}}")) => {
                return Some((text.get(..at)?, text.get(at + 2..)?));
            }
            None => {}
        }
    }
    None
}

/// The words of an action.
pub(super) fn words(mut text: &str) -> Result<Vec<Word>, TemplateError> {
    let mut found = Vec::new();
    loop {
        text = text.trim_start();
        let Some(first) = text.chars().next() else {
            return Ok(found);
        };
        let (word, rest) = match first {
            '.' => path(None, text),
            '$' => {
                let (name, rest) = split_name(text.strip_prefix('$').unwrap_or_default());
                path(Some(name.to_owned()), rest)
            }
            '"' => quoted(text)?,
            '`' => raw(text)?,
            '-' | '0'..='9' => number(text)?,
            c if c.is_alphabetic() || c == '_' => {
                let (name, rest) = split_name(text);
                (Word::Name(name.to_owned()), rest)
            }
            c => sign(text).ok_or_else(|| TemplateError::Unexpected(format!("{c:?}")))?,
        };
        let closes = word == Word::Sign(")");
        found.push(word);
        text = rest;
        if closes
            && let (Word::Path { fields, .. }, rest) = path(None, text)
            && !fields.is_empty()
        {
            found.push(Word::Fields(fields));
            text = rest;
        }
    }
}

fn split_name(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn path(variable: Option<String>, mut text: &str) -> (Word, &str) {
    let mut fields = Vec::new();
    while let Some(rest) = text.strip_prefix('.') {
        let (name, rest) = split_name(rest);
        if name.is_empty() {
            // `.` alone; a second one is the parser's to refuse.
            if variable.is_none() && fields.is_empty() {
                text = rest;
            }
            break;
        }
        fields.push(name.to_owned());
        text = rest;
    }
    (Word::Path { variable, fields }, text)
}

fn quoted(text: &str) -> Result<(Word, &str), TemplateError> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let rest = text.get(at + 1..).unwrap_or_default();
                return Ok((Word::Text(value), rest));
            }
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, other)) => value.push(other),
                None => return Err(TemplateError::OpenString),
            },
            other => value.push(other),
        }
    }
    Err(TemplateError::OpenString)
}

fn raw(text: &str) -> Result<(Word, &str), TemplateError> {
    let inner = text.strip_prefix('`').unwrap_or_default();
    let (value, rest) = inner.split_once('`').ok_or(TemplateError::OpenString)?;
    Ok((Word::Text(value.to_owned()), rest))
}

fn number(text: &str) -> Result<(Word, &str), TemplateError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let length = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    let end = length + (text.len() - digits.len());
    let (written, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    match written.parse() {
        Ok(number) => Ok((Word::Number(number), rest)),
        Err(_) => Err(TemplateError::Unexpected(format!("'{written}'"))),
    }
}

fn sign(text: &str) -> Option<(Word, &str)> {
    ["|", "(", ")", ",", ":="]
        .into_iter()
        .find_map(|sign| Some((Word::Sign(sign), text.strip_prefix(sign)?)))
}
