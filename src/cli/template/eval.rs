//! Prints a JSON value by a tree.

use super::TemplateError;
use super::parse::{Block, BlockKind, Call, Function, Node, Operand, Pipe};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::fmt::Write as _;

/// What the value's objects are like.
#[derive(Debug, Default)]
pub struct Shape {
    /// Fields that hold objects with keys of the user's choice: a key that is not there is no
    /// mistake.
    pub maps: &'static [&'static str],
    /// Fields that are left out where they are empty.
    pub optional: &'static [&'static str],
}

/// `None`: a key that is not there.
type Got<'v> = Option<Cow<'v, Value>>;

/// Fields of the top level that are not in `known`.
pub(super) fn check(nodes: &[Node], known: &[&str]) -> Result<(), TemplateError> {
    nodes.iter().try_for_each(|node| match node {
        Node::Text(_) => Ok(()),
        Node::Print(pipe) | Node::Let(_, pipe) => check_pipe(pipe, known),
        Node::Block(block) => {
            check_pipe(&block.over, known)?;
            check(&block.otherwise, known)?;
            match block.kind {
                BlockKind::If => check(&block.body, known),
                // The value is another one in there.
                BlockKind::Range | BlockKind::With => Ok(()),
            }
        }
    })
}

fn check_pipe(pipe: &Pipe, known: &[&str]) -> Result<(), TemplateError> {
    let operands = pipe.0.iter().flat_map(|call| &call.arguments);
    for operand in operands {
        match operand {
            Operand::Nested(pipe, _) => check_pipe(pipe, known)?,
            Operand::Path { variable, fields }
                if variable.as_ref().is_none_or(String::is_empty) =>
            {
                let Some(field) = fields.first() else {
                    continue;
                };
                let label = field == "Label" && known.contains(&"Labels");
                if !label && !known.contains(&field.as_str()) {
                    return Err(unknown(field, "", known.iter().map(|&k| k.to_owned())));
                }
            }
            Operand::Path { .. } | Operand::Text(_) | Operand::Number(_) | Operand::Bool(_) => {}
        }
    }
    Ok(())
}

fn unknown(field: &str, parent: &str, known: impl Iterator<Item = String>) -> TemplateError {
    TemplateError::Field {
        field: field.to_owned(),
        parent: parent.to_owned(),
        known: known.collect(),
    }
}

/// Prints `value`.
pub(super) fn render(
    nodes: &[Node],
    value: &Value,
    shape: &Shape,
) -> Result<String, TemplateError> {
    let mut printer = Printer {
        shape,
        root: value,
        variables: Vec::new(),
        text: String::new(),
    };
    printer.nodes(nodes, Some(&Cow::Borrowed(value)))?;
    Ok(printer.text)
}

struct Printer<'v> {
    shape: &'v Shape,
    root: &'v Value,
    variables: Vec<(String, Got<'v>)>,
    text: String,
}

impl<'v> Printer<'v> {
    fn nodes(&mut self, nodes: &[Node], dot: Option<&Cow<'v, Value>>) -> Result<(), TemplateError> {
        let outer = self.variables.len();
        for node in nodes {
            match node {
                Node::Text(text) => self.text.push_str(text),
                Node::Print(pipe) => {
                    let got = self.pipe(pipe, dot)?;
                    self.text.push_str(&printed(got.as_deref()));
                }
                Node::Let(name, pipe) => {
                    let got = self.pipe(pipe, dot)?;
                    self.variables.push((name.clone(), got));
                }
                Node::Block(block) => self.block(block, dot)?,
            }
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn block(&mut self, block: &Block, dot: Option<&Cow<'v, Value>>) -> Result<(), TemplateError> {
        let got = self.pipe(&block.over, dot)?;
        if !truth(got.as_deref()) {
            return self.nodes(&block.otherwise, dot);
        }
        let outer = self.variables.len();
        match block.kind {
            BlockKind::If | BlockKind::With => {
                if let Some(name) = block.variables.first() {
                    self.variables.push((name.clone(), got.clone()));
                }
                let inner = if block.kind == BlockKind::If {
                    dot
                } else {
                    got.as_ref()
                };
                self.nodes(&block.body, inner)?;
            }
            BlockKind::Range => {
                for (key, element) in elements(got) {
                    match block.variables.as_slice() {
                        [] => {}
                        [one] => self.variables.push((one.clone(), Some(element.clone()))),
                        [first, second, ..] => {
                            self.variables.push((first.clone(), Some(Cow::Owned(key))));
                            self.variables.push((second.clone(), Some(element.clone())));
                        }
                    }
                    self.nodes(&block.body, Some(&element))?;
                    self.variables.truncate(outer);
                }
            }
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn pipe(&self, pipe: &Pipe, dot: Option<&Cow<'v, Value>>) -> Result<Got<'v>, TemplateError> {
        let mut last: Option<Got<'v>> = None;
        for call in &pipe.0 {
            last = Some(self.call(call, last, dot)?);
        }
        Ok(last.flatten())
    }

    fn call(
        &self,
        call: &Call,
        piped: Option<Got<'v>>,
        dot: Option<&Cow<'v, Value>>,
    ) -> Result<Got<'v>, TemplateError> {
        let Some(function) = call.function else {
            if let [Operand::Path { variable, .. }, Operand::Text(key)] = call.arguments.as_slice()
            {
                let labels = Operand::Path {
                    variable: variable.clone(),
                    fields: vec!["Labels".to_owned()],
                };
                let labels = self.operand(&labels, dot)?;
                return Ok(Some(Cow::Owned(label(labels.as_deref(), key))));
            }
            let first = call.arguments.first();
            return first.map_or(Ok(None), |operand| self.operand(operand, dot));
        };
        let arguments = call.arguments.iter().map(|o| self.operand(o, dot));
        let mut arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        arguments.extend(piped);
        apply(function, arguments)
    }

    fn operand(
        &self,
        operand: &Operand,
        dot: Option<&Cow<'v, Value>>,
    ) -> Result<Got<'v>, TemplateError> {
        let owned = |value| Ok(Some(Cow::Owned(value)));
        match operand {
            Operand::Text(text) => owned(json!(text)),
            Operand::Number(number) => owned(json!(number)),
            Operand::Bool(truth) => owned(json!(truth)),
            Operand::Nested(pipe, fields) => self.walk(self.pipe(pipe, dot)?, fields),
            Operand::Path { variable, fields } => {
                let start = match variable.as_deref() {
                    None => dot.cloned(),
                    Some("") => Some(Cow::Borrowed(self.root)),
                    Some(name) => self.variable(name)?,
                };
                self.walk(start, fields)
            }
        }
    }

    fn variable(&self, name: &str) -> Result<Got<'v>, TemplateError> {
        let found = self.variables.iter().rev().find(|(known, _)| known == name);
        match found {
            Some((_, got)) => Ok(got.clone()),
            None => Err(TemplateError::Variable(name.to_owned())),
        }
    }

    fn walk(&self, start: Got<'v>, fields: &[String]) -> Result<Got<'v>, TemplateError> {
        let mut got = start;
        let mut parent = "";
        for field in fields {
            let next = match got.as_deref() {
                // Nothing in nothing is nothing.
                None | Some(Value::Null) => return Ok(None),
                Some(Value::Object(object)) => {
                    let absent = !object.contains_key(field)
                        && !self.shape.maps.contains(&parent)
                        && !self.shape.optional.contains(&field.as_str());
                    if absent {
                        return Err(unknown(field, parent, object.keys().cloned()));
                    }
                    object.contains_key(field)
                }
                Some(_) => {
                    return Err(TemplateError::NoFields {
                        field: field.clone(),
                        parent: if parent.is_empty() { "." } else { parent }.to_owned(),
                    });
                }
            };
            got = match got {
                Some(value) if next => child(value, field),
                _ if self.shape.optional.contains(&field.as_str()) => Some(Cow::Owned(Value::Null)),
                _ => None,
            };
            parent = field;
        }
        Ok(got)
    }
}

fn child<'v>(value: Cow<'v, Value>, field: &str) -> Got<'v> {
    match value {
        Cow::Borrowed(value) => value.get(field).map(Cow::Borrowed),
        Cow::Owned(mut value) => value.get_mut(field).map(|v| Cow::Owned(v.take())),
    }
}

/// Docker's rows hold their labels as `a=1,b=2`.
fn label(labels: Option<&Value>, key: &str) -> Value {
    let text = labels.and_then(Value::as_str).unwrap_or_default();
    let found = text
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| *name == key);
    json!(found.map_or("", |(_, value)| value))
}

fn elements(got: Got<'_>) -> Vec<(Value, Cow<'_, Value>)> {
    match got {
        Some(Cow::Borrowed(Value::Array(values))) => values
            .iter()
            .enumerate()
            .map(|(index, value)| (json!(index), Cow::Borrowed(value)))
            .collect(),
        Some(Cow::Borrowed(Value::Object(object))) => object
            .iter()
            .map(|(key, value)| (json!(key), Cow::Borrowed(value)))
            .collect(),
        Some(Cow::Owned(Value::Array(values))) => values
            .into_iter()
            .enumerate()
            .map(|(index, value)| (json!(index), Cow::Owned(value)))
            .collect(),
        Some(Cow::Owned(Value::Object(object))) => object
            .into_iter()
            .map(|(key, value)| (json!(key), Cow::Owned(value)))
            .collect(),
        Some(_) | None => Vec::new(),
    }
}

/// As Go sees it: what is empty or zero is false.
fn truth(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(truth)) => *truth,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(values)) => !values.is_empty(),
        Some(Value::Object(object)) => !object.is_empty(),
    }
}

/// As Go prints it, but nothing for null.
fn printed(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "<no value>".to_owned();
    };
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(|v| printed(Some(v))).collect();
            format!("[{}]", values.join(" "))
        }
        Value::Object(object) => format!("map[{}]", pairs(object)),
    }
}

fn pairs(object: &Map<String, Value>) -> String {
    let mut text = String::new();
    for (key, value) in object {
        let gap = if text.is_empty() { "" } else { " " };
        let _ = write!(text, "{gap}{key}:{}", printed(Some(value)));
    }
    text
}

fn apply<'v>(function: Function, arguments: Vec<Got<'v>>) -> Result<Got<'v>, TemplateError> {
    let wants = |problem| TemplateError::Arguments {
        function: function.name(),
        problem,
    };
    let values: Vec<Option<&Value>> = arguments.iter().map(Option::as_deref).collect();
    let result = match (function, values.as_slice()) {
        (Function::Json, [value]) => json!(value.unwrap_or(&Value::Null).to_string()),
        (Function::Lower, [value]) => json!(printed(*value).to_lowercase()),
        (Function::Upper, [value]) => json!(printed(*value).to_uppercase()),
        (Function::Not, [value]) => json!(!truth(*value)),
        (Function::Len, [value]) => match value {
            Some(Value::String(text)) => json!(text.len()),
            Some(Value::Array(values)) => json!(values.len()),
            Some(Value::Object(object)) => json!(object.len()),
            Some(Value::Null) | None => json!(0),
            Some(Value::Bool(_) | Value::Number(_)) => {
                return Err(wants("takes a list, a map or a string"));
            }
        },
        (Function::Join, [Some(Value::Array(values)), Some(Value::String(between))]) => {
            let values: Vec<_> = values.iter().map(|v| printed(Some(v))).collect();
            json!(values.join(between))
        }
        (Function::Split, [Some(Value::String(text)), Some(Value::String(between))]) => {
            json!(text.split(between.as_str()).collect::<Vec<_>>())
        }
        (Function::Eq, [first, others @ ..]) if !others.is_empty() => {
            json!(others.iter().any(|other| other == first))
        }
        (Function::Ne, [first, second]) => json!(first != second),
        (Function::And | Function::Or, [_, ..]) => {
            let wanted = function == Function::Or;
            let decides = arguments.iter().position(|v| truth(v.as_deref()) == wanted);
            let index = decides.unwrap_or(arguments.len() - 1);
            return Ok(arguments.into_iter().nth(index).flatten());
        }
        (Function::Index, [start, keys @ ..]) => return index(*start, keys, &wants),
        (Function::Print | Function::Println, values) => {
            let values: Vec<_> = values.iter().map(|v| printed(*v)).collect();
            let end = if function == Function::Println {
                "\n"
            } else {
                ""
            };
            json!(values.join(" ") + end)
        }
        (Function::Json | Function::Lower | Function::Upper | Function::Not | Function::Len, _) => {
            return Err(wants("takes one value"));
        }
        (Function::Join, _) => {
            return Err(wants("takes a list and what goes between its elements"));
        }
        (Function::Split, _) => return Err(wants("takes a string and what separates its parts")),
        (Function::Eq | Function::Ne | Function::And | Function::Or, _) => {
            return Err(wants("takes two values"));
        }
        (Function::Index, _) => return Err(wants("takes a list or map and what to look up")),
    };
    Ok(Some(Cow::Owned(result)))
}

fn index<'v>(
    start: Option<&Value>,
    keys: &[Option<&Value>],
    wants: &impl Fn(&'static str) -> TemplateError,
) -> Result<Got<'v>, TemplateError> {
    let mut value = start;
    for key in keys {
        value = match (value, key) {
            (Some(Value::Object(object)), Some(Value::String(key))) => object.get(key),
            (Some(Value::Array(values)), Some(Value::Number(number))) => {
                let index = number.as_u64().and_then(|n| usize::try_from(n).ok());
                let found = index.and_then(|index| values.get(index));
                Some(found.ok_or_else(|| wants("found no element of that number"))?)
            }
            (None | Some(Value::Null), _) => None,
            _ => return Err(wants("takes a list and a number, or a map and a string")),
        };
    }
    Ok(value.cloned().map(Cow::Owned))
}
