//! A file of cases as a tree of values, each with its place. Unlike a configuration it holds data:
//! numbers with fractions and dates are values like any other.

use std::path::Path;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::config::{Mistake, Place};

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What TOML has.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Date(String),
    List(Vec<Node>),
    /// In the order of the file.
    Table(Vec<Entry>),
}

/// A key of a table, and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Of the key; the value has its own.
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Value {
    /// The name of its type, for a message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::Date(_) => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Node {
    /// The mistake that this value is.
    pub(super) fn mistake(&self, message: impl Into<String>, remedy: impl Into<String>) -> Mistake {
        Mistake {
            place: self.place.clone(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// Parses a file.
///
/// # Errors
/// Every place where it is not TOML.
pub(super) fn parse(path: &Path, content: &str) -> Result<Node, Vec<Mistake>> {
    let text = Text { path, content };
    let (root, errors) = DeTable::parse_recoverable(content);
    if errors.is_empty() {
        return Ok(Node {
            place: text.place(0, ""),
            value: Value::Table(text.entries("", root.get_ref())),
        });
    }
    let mistake = |error: &toml::de::Error| Mistake {
        place: text.place(error.span().map_or(0, |span| span.start), ""),
        message: format!("this is not TOML: {}", error.message()),
        remedy: "correct the line; `warren test --help` shows a file of cases".to_owned(),
    };
    Err(errors.iter().map(mistake).collect())
}

struct Text<'a> {
    path: &'a Path,
    content: &'a str,
}

impl Text<'_> {
    fn place(&self, offset: usize, key: &str) -> Place {
        let before = self.content.get(..offset).unwrap_or(self.content);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::Line {
            file: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            key: key.to_owned(),
        }
    }

    fn entries(&self, table: &str, content: &DeTable<'_>) -> Vec<Entry> {
        // The map is sorted by name; mistakes are told in the order of the file.
        let mut in_order: Vec<_> = content.iter().collect();
        in_order.sort_by_key(|(key, _)| key.span().start);
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let name: &str = AsRef::<str>::as_ref(key.get_ref());
            let path = match table {
                "" => name.to_owned(),
                table => format!("{table}.{name}"),
            };
            Entry {
                key: name.to_owned(),
                place: self.place(key.span().start, &path),
                node: self.node(&path, value),
            }
        };
        in_order.into_iter().map(entry).collect()
    }

    fn node(&self, path: &str, spanned: &Spanned<DeValue<'_>>) -> Node {
        let value = match spanned.get_ref() {
            DeValue::String(content) => Value::Text(content.to_string()),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::Integer(number),
                    // What 64 bits do not hold, a double holds nearly.
                    Err(_) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
                }
            }
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(truth) => Value::Bool(*truth),
            DeValue::Datetime(moment) => Value::Date(moment.to_string()),
            DeValue::Array(items) => {
                Value::List(items.iter().map(|item| self.node(path, item)).collect())
            }
            DeValue::Table(content) => Value::Table(self.entries(path, content)),
        };
        Node {
            place: self.place(spanned.span().start, path),
            value,
        }
    }
}
