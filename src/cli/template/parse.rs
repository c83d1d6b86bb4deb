//! A tree of the text.

use super::lex::{self, Word};
use super::{MAX_DEPTH, TemplateError};
use std::collections::VecDeque;

/// A piece of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// As it is.
    Text(String),
    /// `{{pipe}}`.
    Print(Pipe),
    /// `{{$name := pipe}}`.
    Let(String, Pipe),
    /// `{{if}}`, `{{range}}`, `{{with}}`.
    Block(Box<Block>),
}

/// A piece of the text with others in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) kind: BlockKind,
    /// Variables that it sets: (index and) element.
    pub(super) variables: Vec<String>,
    pub(super) over: Pipe,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockKind {
    If,
    Range,
    With,
}

impl BlockKind {
    fn of(name: &str) -> Option<Self> {
        match name {
            "if" => Some(Self::If),
            "range" => Some(Self::Range),
            "with" => Some(Self::With),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::If => "if",
            Self::Range => "range",
            Self::With => "with",
        }
    }
}

/// Calls, each taking the result of the former as its last argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pipe(pub(super) Vec<Call>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// `None`: the value itself.
    pub(super) function: Option<Function>,
    pub(super) arguments: Vec<Operand>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operand {
    Path {
        variable: Option<String>,
        fields: Vec<String>,
    },
    Text(String),
    Number(i64),
    Bool(bool),
    /// In parentheses, and fields of what comes out.
    Nested(Pipe, Vec<String>),
}

macro_rules! functions {
    ($($function:ident $name:literal)*) => {
        /// What can be called.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Function { $($function),* }

        impl Function {
            const ALL: &[Self] = &[$(Self::$function),*];

            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$function => $name),* }
            }
        }
    };
}

functions! {
    And "and" Eq "eq" Index "index" Join "join" Json "json" Len "len" Lower "lower" Ne "ne"
    Not "not" Or "or" Print "print" Println "println" Split "split" Upper "upper"
}

/// For the hint.
pub(super) fn function_names() -> String {
    let names: Vec<_> = Function::ALL.iter().map(|f| f.name()).collect();
    names.join(", ")
}

/// What the text is made of.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser {
        pieces: pieces(text)?,
        depth: 0,
    };
    let (nodes, end) = parser.nodes()?;
    match end {
        None => Ok(nodes),
        Some(end) => Err(TemplateError::Unexpected(format!("'{{{{{end}}}}}'"))),
    }
}

enum Piece {
    Text(String),
    Action(VecDeque<Word>),
}

/// Splits at `{{` and `}}`; applies `{{-` and `-}}`, drops comments.
fn pieces(text: &str) -> Result<VecDeque<Piece>, TemplateError> {
    let mut found = VecDeque::new();
    let mut rest = text;
    let mut trim_start = false;
    loop {
        let (before, opened) = match rest.split_once("{{") {
            Some((before, opened)) => (before, Some(opened)),
            None => (rest, None),
        };
        let mut before = if trim_start {
            before.trim_start()
        } else {
            before
        };
        let Some(opened) = opened else {
            push_text(&mut found, before);
            return Ok(found);
        };
        let at = text.len() - opened.len() - 2;
        let (action, after) = lex::action(opened).ok_or(TemplateError::Open { at })?;
        let mut action = action;
        if let Some(trimmed) = action.strip_prefix("- ") {
            before = before.trim_end();
            action = trimmed;
        }
        trim_start = action.ends_with(" -");
        if trim_start {
            action = action.strip_suffix('-').unwrap_or(action);
        }
        push_text(&mut found, before);
        if !action.trim_start().starts_with("/*") {
            let words: VecDeque<_> = lex::words(action)?.into();
            if words.is_empty() {
                return Err(TemplateError::Unexpected(
                    "'{{}}' with nothing in it".to_owned(),
                ));
            }
            found.push_back(Piece::Action(words));
        }
        rest = after;
    }
}

/// `\t` and `\n` are what a shell's quotes leave of a tab and a new line.
fn push_text(found: &mut VecDeque<Piece>, text: &str) {
    if !text.is_empty() {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        found.push_back(Piece::Text(text));
    }
}

struct Parser {
    pieces: VecDeque<Piece>,
    depth: usize,
}

/// `else` or `end`, with what follows `else`.
struct End {
    name: &'static str,
    rest: VecDeque<Word>,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Parser {
    /// Up to `{{else}}`, `{{end}}`, or the end of the text.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<End>), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.pop_front() {
            let mut words = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(words) => words,
            };
            let name = match words.front() {
                Some(Word::Name(name)) => name.as_str(),
                _ => "",
            };
            if let Some(kind) = BlockKind::of(name) {
                words.pop_front();
                nodes.push(Node::Block(Box::new(self.block(kind, words)?)));
                continue;
            }
            let end = ["else", "end"].into_iter().find(|end| *end == name);
            if let Some(name) = end {
                words.pop_front();
                if name == "end" {
                    nothing_left(&words)?;
                }
                return Ok((nodes, Some(End { name, rest: words })));
            }
            nodes.push(self.print(words)?);
        }
        Ok((nodes, None))
    }

    fn print(&mut self, mut words: VecDeque<Word>) -> Result<Node, TemplateError> {
        let mut variables = variables(&mut words)?;
        let pipe = self.pipe(&mut words)?;
        nothing_left(&words)?;
        match (variables.pop(), variables.is_empty()) {
            (None, _) => Ok(Node::Print(pipe)),
            (Some(name), true) => Ok(Node::Let(name, pipe)),
            (Some(_), false) => Err(TemplateError::Unexpected("','".to_owned())),
        }
    }

    fn block(
        &mut self,
        kind: BlockKind,
        mut words: VecDeque<Word>,
    ) -> Result<Block, TemplateError> {
        self.deeper()?;
        let variables = variables(&mut words)?;
        if variables.len() > 1 && kind != BlockKind::Range {
            return Err(TemplateError::Unexpected("','".to_owned()));
        }
        let over = self.pipe(&mut words)?;
        nothing_left(&words)?;
        let (body, end) = self.nodes()?;
        let mut end = end.ok_or(TemplateError::NoEnd(kind.name()))?;
        let mut otherwise = Vec::new();
        if end.name == "else" {
            if let Some(Word::Name(name)) = end.rest.front()
                && let Some(next) = BlockKind::of(name)
            {
                // `{{else if …}}` shares our `{{end}}`.
                end.rest.pop_front();
                let chained = self.block(next, end.rest)?;
                otherwise.push(Node::Block(Box::new(chained)));
            } else {
                nothing_left(&end.rest)?;
                let (nodes, end) = self.nodes()?;
                match end {
                    Some(end) if end.name == "end" => otherwise = nodes,
                    Some(end) => {
                        return Err(TemplateError::Unexpected(format!("'{{{{{end}}}}}'")));
                    }
                    None => return Err(TemplateError::NoEnd(kind.name())),
                }
            }
        }
        self.depth -= 1;
        Ok(Block {
            kind,
            variables,
            over,
            body,
            otherwise,
        })
    }

    fn deeper(&mut self) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TemplateError::Depth);
        }
        Ok(())
    }

    /// Up to `)` or the end.
    fn pipe(&mut self, words: &mut VecDeque<Word>) -> Result<Pipe, TemplateError> {
        let mut calls = vec![self.call(words)?];
        while words.front() == Some(&Word::Sign("|")) {
            words.pop_front();
            let call = self.call(words)?;
            if call.function.is_none() {
                return Err(TemplateError::Unexpected(
                    "value after '|', where a function is wanted".to_owned(),
                ));
            }
            calls.push(call);
        }
        Ok(Pipe(calls))
    }

    fn call(&mut self, words: &mut VecDeque<Word>) -> Result<Call, TemplateError> {
        let mut function = None;
        if let Some(Word::Name(name)) = words.front()
            && !matches!(name.as_str(), "true" | "false")
        {
            let known = Function::ALL.iter().find(|f| f.name() == name);
            function = Some(*known.ok_or_else(|| TemplateError::Function(name.clone()))?);
            words.pop_front();
        }
        let mut arguments = Vec::new();
        while let Some(operand) = self.operand(words)? {
            arguments.push(operand);
        }
        if function.is_none() && arguments.is_empty() {
            let what = words.front().map_or("end".to_owned(), Word::shown);
            return Err(TemplateError::Unexpected(what));
        }
        let label = matches!(
            arguments.as_slice(),
            [Operand::Path { fields, .. }, Operand::Text(_)]
                if fields.last().is_some_and(|field| field == "Label")
        );
        if function.is_none() && arguments.len() > 1 && !label {
            return Err(TemplateError::Unexpected(
                "second value; functions take several".to_owned(),
            ));
        }
        Ok(Call {
            function,
            arguments,
        })
    }

    fn operand(&mut self, words: &mut VecDeque<Word>) -> Result<Option<Operand>, TemplateError> {
        if matches!(words.front(), Some(Word::Sign("|" | ")"))) {
            return Ok(None);
        }
        let Some(word) = words.pop_front() else {
            return Ok(None);
        };
        match word {
            Word::Path { variable, fields } => Ok(Some(Operand::Path { variable, fields })),
            Word::Text(text) => Ok(Some(Operand::Text(text))),
            Word::Number(number) => Ok(Some(Operand::Number(number))),
            Word::Name(name) if name == "true" => Ok(Some(Operand::Bool(true))),
            Word::Name(name) if name == "false" => Ok(Some(Operand::Bool(false))),
            Word::Sign("(") => self.nested(words).map(Some),
            other => Err(TemplateError::Unexpected(other.shown())),
        }
    }

    fn nested(&mut self, words: &mut VecDeque<Word>) -> Result<Operand, TemplateError> {
        self.deeper()?;
        let pipe = self.pipe(words)?;
        if words.pop_front() != Some(Word::Sign(")")) {
            return Err(TemplateError::Unexpected("end; a '(' is open".to_owned()));
        }
        self.depth -= 1;
        let fields = match words.front_mut() {
            Some(Word::Fields(fields)) => std::mem::take(fields),
            _ => return Ok(Operand::Nested(pipe, Vec::new())),
        };
        words.pop_front();
        Ok(Operand::Nested(pipe, fields))
    }
}

/// `$a :=` and `$a, $b :=` at the beginning.
fn variables(words: &mut VecDeque<Word>) -> Result<Vec<String>, TemplateError> {
    let Some(end) = words.iter().position(|word| *word == Word::Sign(":=")) else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for (index, word) in words.drain(..=end).enumerate() {
        match word {
            Word::Path {
                variable: Some(name),
                fields,
            } if index % 2 == 0 && index <= 2 && fields.is_empty() && !name.is_empty() => {
                names.push(name);
            }
            Word::Sign("," | ":=") if index % 2 == 1 => {}
            other => return Err(TemplateError::Unexpected(other.shown())),
        }
    }
    Ok(names)
}

fn nothing_left(words: &VecDeque<Word>) -> Result<(), TemplateError> {
    match words.front() {
        None => Ok(()),
        Some(word) => Err(TemplateError::Unexpected(word.shown())),
    }
}
