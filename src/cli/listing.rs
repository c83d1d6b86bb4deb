//! How lists and inspections are printed: tables as Docker's, JSON by the line, or a template.

use super::args::ListArgs;
use super::error::CliError;
use super::table;
use super::template::{Shape, Template, TemplateError};
use serde::Serialize;
use serde_json::{Map, Value};

/// `--format` of lists and inspections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// As the user says.
    Template(Template),
    /// The same in columns, with headings.
    TableTemplate(Template),
}

/// Why a format was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// No word of ours and no template.
    #[error("expected table, json, or a template such as '{{{{.Name}}}}'")]
    Word,
    /// The same where there are no tables.
    #[error("expected json, or a template such as '{{{{.Name}}}}'")]
    InspectWord,
    /// A template that cannot be understood.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// `--format` of a list.
pub fn format(text: &str) -> Result<Format, FormatError> {
    match text {
        "table" => return Ok(Format::Table),
        "json" => return Ok(Format::Json),
        _ => {}
    }
    if !text.contains("{{") {
        return Err(FormatError::Word);
    }
    match text.strip_prefix("table ") {
        Some(columns) => Ok(Format::TableTemplate(Template::parse(
            columns.trim_start(),
        )?)),
        None => Ok(Format::Template(Template::parse(text)?)),
    }
}

/// `--format` of an inspection.
pub fn inspect_format(text: &str) -> Result<Format, FormatError> {
    match format(text) {
        Ok(Format::Table | Format::TableTemplate(_)) | Err(FormatError::Word) => {
            Err(FormatError::InspectWord)
        }
        other => other,
    }
}

/// What a list has.
pub(super) struct Columns {
    /// Every field of a row, with the heading of its column.
    pub(super) fields: &'static [(&'static str, &'static str)],
    /// Those of the table, in order.
    pub(super) table: &'static [&'static str],
}

impl Columns {
    /// Refuses a template that names a field that is not there.
    pub(super) fn check(&self, args: &ListArgs) -> Result<(), CliError> {
        let known: Vec<&str> = self.fields.iter().map(|(field, _)| *field).collect();
        match &args.format {
            Format::Table | Format::Json => Ok(()),
            Format::Template(template) | Format::TableTemplate(template) => {
                template.check(&known).map_err(CliError::Template)
            }
        }
    }

    /// The text of a list.
    pub(super) fn text<T: Serialize>(
        &self,
        rows: &[T],
        args: &ListArgs,
    ) -> Result<String, CliError> {
        let mut text = String::new();
        match &args.format {
            Format::Json => {
                for row in rows {
                    text += &serde_json::to_string(row)?;
                    text.push('\n');
                }
            }
            Format::Table if args.quiet => {
                for row in rows {
                    text += &cell(serde_json::to_value(row)?.get("ID"));
                    text.push('\n');
                }
            }
            Format::Table => {
                let headings = self
                    .table
                    .iter()
                    .map(|field| self.heading(field).to_owned());
                let mut lines = vec![headings.collect()];
                for row in rows {
                    let row = serde_json::to_value(row)?;
                    lines.push(
                        self.table
                            .iter()
                            .map(|field| cell(row.get(field)))
                            .collect(),
                    );
                }
                text = table::columns(&lines);
            }
            Format::Template(template) => {
                for row in rows {
                    let row = serde_json::to_value(row)?;
                    text += &rendered(template, &row)?;
                    text.push('\n');
                }
            }
            Format::TableTemplate(template) => {
                let headings = self.fields.iter();
                let headings: Map<String, Value> = headings
                    .map(|(field, heading)| ((*field).to_owned(), Value::from(*heading)))
                    .collect();
                // What a template does to a value may make no sense of a heading.
                let headings = rendered(template, &Value::Object(headings)).unwrap_or_default();
                let mut lines = vec![cells(&headings)];
                for row in rows {
                    lines.push(cells(&rendered(template, &serde_json::to_value(row)?)?));
                }
                text = table::columns(&lines);
            }
        }
        Ok(text)
    }

    fn heading(&self, field: &str) -> &'static str {
        let found = self.fields.iter().find(|(known, _)| *known == field);
        found.map_or("", |(_, heading)| heading)
    }
}

fn rendered(template: &Template, row: &Value) -> Result<String, CliError> {
    template
        .render(row, &Shape::default())
        .map_err(CliError::Template)
}

fn cells(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_owned).collect()
}

/// A value as a cell of a table.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(values)) => {
            let values: Vec<_> = values.iter().map(|value| cell(Some(value))).collect();
            values.join(",")
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: Columns = Columns {
        fields: &[
            ("ID", "NETWORK ID"),
            ("Name", "NAME"),
            ("Subnets", "SUBNETS"),
        ],
        table: &["ID", "Name"],
    };

    fn list(words: &str, quiet: bool) -> Result<String, CliError> {
        let args = ListArgs {
            quiet,
            no_trunc: false,
            format: format(words).unwrap(),
        };
        COLUMNS.check(&args)?;
        let rows = [
            json!({"ID": "aa", "Name": "bridge", "Subnets": ["a", "b"]}),
            json!({"ID": "bb", "Name": "a-longer-name", "Subnets": []}),
        ];
        COLUMNS.text(&rows, &args)
    }

    #[test]
    fn lists_come_as_asked_for() {
        for (words, quiet, expected) in [
            (
                "table",
                false,
                "NETWORK ID   NAME\naa           bridge\nbb           a-longer-name\n",
            ),
            ("table", true, "aa\nbb\n"),
            ("{{.ID}} {{.Subnets}}", true, "aa [a b]\nbb []\n"),
            (
                "{{.ID}}\\t{{.Name}}",
                false,
                "aa\tbridge\nbb\ta-longer-name\n",
            ),
            (
                "table {{.Name}}\\t{{.ID}}\\t{{join .Subnets \"/\"}}",
                false,
                "\nbridge          aa        a/b\na-longer-name   bb        \n",
            ),
            (
                "table {{.Name}}: {{.ID}}",
                false,
                "NAME: NETWORK ID\nbridge: aa\na-longer-name: bb\n",
            ),
        ] {
            let expected: Vec<_> = expected.lines().map(str::trim_end).collect();
            let text = list(words, quiet).unwrap();
            assert_eq!(text.lines().collect::<Vec<_>>(), expected, "{words}");
        }
        let json = list("json", false).unwrap();
        assert_eq!(json.lines().count(), 2);
        assert!(json.starts_with(r#"{"ID":"aa","Name":"bridge""#), "{json}");
    }

    #[test]
    fn wrong_formats_are_refused() {
        assert_eq!(format("yaml"), Err(FormatError::Word));
        assert_eq!(inspect_format("table"), Err(FormatError::InspectWord));
        assert_eq!(inspect_format("yaml"), Err(FormatError::InspectWord));
        assert!(matches!(format("{{"), Err(FormatError::Template(_))));
        let error = list("{{.Id}}", false).unwrap_err();
        assert_eq!(error.to_string(), "--format: there is no field 'Id'");
    }
}
