//! What every source is turned into before it is read: values with the place they were written at.

use super::{Mistake, Place};

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What the formats have in common.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A text in quotes.
    Text(String),
    /// A text of a source without types (environment, command line): it may mean a number, too.
    Untyped(String),
    Integer(i128),
    Bool(bool),
    List(Vec<Node>),
    /// In the order of the file.
    Table(Vec<Entry>),
    /// What no key takes, by its name: "a date".
    Other(&'static str),
}

/// A key of a table, and its value.
#[derive(Clone, Debug, PartialEq)]
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
            Self::Text(_) | Self::Untyped(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

impl Node {
    /// A text of a source without types, under a key such as `log.level`: the same tree that a file
    /// with this one key would give.
    pub(super) fn under(key: &str, place: &Place, text: &str) -> Self {
        let leaf = Self {
            place: place.clone(),
            value: Value::Untyped(text.to_owned()),
        };
        key.rsplit('.').fold(leaf, |node, name| {
            let entry = Entry {
                key: name.to_owned(),
                place: place.clone(),
                node,
            };
            Self {
                place: place.clone(),
                value: Value::Table(vec![entry]),
            }
        })
    }

    /// The mistake that this value is.
    pub(super) fn mistake(&self, message: impl Into<String>, remedy: impl Into<String>) -> Mistake {
        Mistake {
            place: self.place.clone(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}
