//! `--format` in the words of Go templates: fields (`{{.IPAM.Config}}`), functions and pipes
//! (`{{json .Labels}}`, `{{.Name | upper}}`), `range`, `if`, `with`, variables.
//!
//! `lex` makes words of an action, `parse` a tree of the text, `eval` prints a JSON value by it.
//! Invariant: no text makes any of them panic or recurse without bound.
//!
//! Source: the documentation of Go's `text/template`; the functions are those of Docker's CLI.

mod eval;
mod lex;
mod parse;

pub use eval::Shape;

use parse::Node;
use serde_json::Value;

/// How deep blocks and parentheses may nest.
const MAX_DEPTH: usize = 32;

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{{` without `}}`.
    #[error("the '{{{{' at byte {at} is not closed by '}}}}'")]
    Open {
        /// Where, counted from 0.
        at: usize,
    },
    /// A string without its end.
    #[error("a string is not closed")]
    OpenString,
    /// `range`, `if` or `with` without `end`.
    #[error("'{0}' has no '{{{{end}}}}'")]
    NoEnd(&'static str),
    /// A word where it has no meaning.
    #[error("unexpected {0}")]
    Unexpected(String),
    /// No such function.
    #[error("there is no function '{0}'")]
    Function(String),
    /// A function that cannot take what it was given.
    #[error("{function} {problem}")]
    Arguments {
        /// Which.
        function: &'static str,
        /// What it wants.
        problem: &'static str,
    },
    /// No such variable.
    #[error("there is no variable '${0}'")]
    Variable(String),
    /// No such field.
    #[error("there is no field '{field}'{}", within(parent))]
    Field {
        /// Which.
        field: String,
        /// Where it was looked for; empty at the top.
        parent: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A field of something that has none.
    #[error("'{parent}' has no fields, so none is called '{field}'")]
    NoFields {
        /// Which.
        field: String,
        /// Of what.
        parent: String,
    },
    /// Blocks or parentheses within one another.
    #[error("it nests deeper than {MAX_DEPTH} levels")]
    Depth,
}

fn within(parent: &str) -> String {
    if parent.is_empty() {
        return String::new();
    }
    format!(" in '{parent}'")
}

impl TemplateError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Field { known, .. } if !known.is_empty() => {
                let fields: Vec<_> = known.iter().map(|field| format!(".{field}")).collect();
                Some(format!("the fields are {}", fields.join(", ")))
            }
            Self::Function(_) => Some(format!("the functions are {}", parse::function_names())),
            _ => None,
        }
    }
}

/// A text that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// Understands a text.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        parse::parse(text).map(|nodes| Self { nodes })
    }

    /// Refuses a field of the top level that is not in `known`, without any value at hand.
    pub fn check(&self, known: &[&str]) -> Result<(), TemplateError> {
        eval::check(&self.nodes, known)
    }

    /// Prints `value`.
    pub fn render(&self, value: &Value, shape: &Shape) -> Result<String, TemplateError> {
        eval::render(&self.nodes, value, shape)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
