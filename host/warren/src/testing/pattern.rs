//! Data in a file of cases: what is given, as JSON, and what is expected, as a pattern.
//!
//! TOML says nearly all that JSON does. For the rest, and for what varies from run to run, a text that
//! begins with `#` is a marker (the words are Karate's). A text of data that begins with `#` is
//! written with two.

use std::path::Path;

use regex::Regex;
use serde_json::{Map, Number, Value as Json};

use super::document::{Node, Value};
use crate::config::{Mistake, closest};

/// What is expected of a value.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// This value. Never an object or an array.
    Exactly(Json),
    /// An object with these members.
    Object(Vec<(String, Pattern)>),
    /// An array of these items.
    Array(Vec<Pattern>),
    /// Something of a kind.
    Marker(Marker),
}

/// A kind of values.
#[derive(Clone, Debug)]
pub(super) enum Marker {
    Ignore,
    Present,
    NotPresent,
    NotNull,
    String,
    Number,
    Integer,
    Boolean,
    Array,
    Object,
    Uuid,
    Regex(Regex),
    Contains(String),
}

/// The markers that stand alone.
const ALONE: [(&str, Marker); 11] = [
    ("ignore", Marker::Ignore),
    ("present", Marker::Present),
    ("notpresent", Marker::NotPresent),
    ("notnull", Marker::NotNull),
    ("string", Marker::String),
    ("number", Marker::Number),
    ("integer", Marker::Integer),
    ("boolean", Marker::Boolean),
    ("array", Marker::Array),
    ("object", Marker::Object),
    ("uuid", Marker::Uuid),
];
/// Those that say what value is meant; they may stand in what is given, too.
const VALUES: [&str; 3] = ["null", "json", "file"];
/// Those that have an argument beside.
const WITH_ARGUMENT: [&str; 2] = ["regex", "contains"];

/// A text as it was meant.
enum Said<'a> {
    Text(&'a str),
    Value(Json),
    Marker(Marker),
}

/// Reads data: where files are, and what is wrong.
pub(super) struct Data<'a> {
    /// The folder of the file of cases: `#file` begins there.
    pub(super) folder: &'a Path,
}

impl Data<'_> {
    /// A value that is given. What cannot be read is null, beside its mistake.
    pub(super) fn given(&self, node: &Node, mistakes: &mut Vec<Mistake>) -> Json {
        match &node.value {
            Value::Text(text) => match self.said(node, text, mistakes) {
                Said::Text(text) => Json::from(text),
                Said::Value(value) => value,
                Said::Marker(_) => {
                    mistakes.push(node.mistake(
                        format!("`{text}` says what is expected, and this value is given"),
                        "write the value itself",
                    ));
                    Json::Null
                }
            },
            Value::List(items) => {
                let items = items.iter().map(|item| self.given(item, mistakes));
                Json::Array(items.collect())
            }
            Value::Table(entries) => {
                let members = entries.iter();
                let members =
                    members.map(|entry| (entry.key.clone(), self.given(&entry.node, mistakes)));
                Json::Object(members.collect::<Map<_, _>>())
            }
            other => plain(other),
        }
    }

    /// A value that is expected.
    pub(super) fn expected(&self, node: &Node, mistakes: &mut Vec<Mistake>) -> Pattern {
        match &node.value {
            Value::Text(text) => match self.said(node, text, mistakes) {
                Said::Text(text) => Pattern::Exactly(Json::from(text)),
                // A file may have markers of its own.
                Said::Value(value) => self.of_json(node, &value, mistakes),
                Said::Marker(marker) => Pattern::Marker(marker),
            },
            Value::List(items) => {
                let items = items.iter().map(|item| self.expected(item, mistakes));
                Pattern::Array(items.collect())
            }
            Value::Table(entries) => {
                let members = entries.iter();
                let members =
                    members.map(|entry| (entry.key.clone(), self.expected(&entry.node, mistakes)));
                Pattern::Object(members.collect())
            }
            other => Pattern::Exactly(plain(other)),
        }
    }

    fn of_json(&self, node: &Node, value: &Json, mistakes: &mut Vec<Mistake>) -> Pattern {
        match value {
            Json::String(text) => match self.said(node, text, mistakes) {
                Said::Text(text) => Pattern::Exactly(Json::from(text)),
                Said::Value(value) => self.of_json(node, &value, mistakes),
                Said::Marker(marker) => Pattern::Marker(marker),
            },
            Json::Array(items) => {
                let items = items.iter().map(|item| self.of_json(node, item, mistakes));
                Pattern::Array(items.collect())
            }
            Json::Object(members) => {
                let members = members.iter();
                let members = members
                    .map(|(name, value)| (name.clone(), self.of_json(node, value, mistakes)));
                Pattern::Object(members.collect())
            }
            other => Pattern::Exactly(other.clone()),
        }
    }

    fn said<'a>(&self, node: &Node, text: &'a str, mistakes: &mut Vec<Mistake>) -> Said<'a> {
        let Some(marker) = text.strip_prefix('#') else {
            return Said::Text(text);
        };
        if marker.starts_with('#') {
            return Said::Text(marker);
        }
        let (name, argument) = marker.split_once(' ').unwrap_or((marker, ""));
        let read = match (name, argument) {
            ("null", "") => Ok(Said::Value(Json::Null)),
            ("json", json) => serde_json::from_str(json)
                .map(Said::Value)
                .map_err(|error| (format!("this is not JSON: {error}"), "#json {\"a\": null}")),
            ("file", file) => self.file(file).map(Said::Value),
            ("regex", pattern) => Regex::new(pattern)
                .map(|regex| Said::Marker(Marker::Regex(regex)))
                .map_err(|error| (format!("{error}"), "#regex ^[0-9]+$")),
            ("contains", part) if !part.is_empty() => {
                Ok(Said::Marker(Marker::Contains(part.to_owned())))
            }
            _ => match ALONE.iter().find(|(alone, _)| *alone == marker) {
                Some((_, marker)) => Ok(Said::Marker(marker.clone())),
                None => {
                    mistakes.push(unknown(node, text, name));
                    return Said::Value(Json::Null);
                }
            },
        };
        read.unwrap_or_else(|(message, form)| {
            mistakes.push(node.mistake(message, format!("write it as \"{form}\"")));
            Said::Value(Json::Null)
        })
    }

    fn file(&self, name: &str) -> Result<Json, (String, &'static str)> {
        const FORM: &str = "#file movie.json";
        let path = self.folder.join(name);
        let content = std::fs::read(&path)
            .map_err(|error| (format!("cannot read {}: {error}", path.display()), FORM))?;
        serde_json::from_slice(&content)
            .map_err(|error| (format!("{} is not JSON: {error}", path.display()), FORM))
    }
}

fn plain(value: &Value) -> Json {
    match value {
        Value::Integer(number) => Json::from(*number),
        Value::Float(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
        Value::Bool(truth) => Json::from(*truth),
        Value::Date(moment) => Json::from(moment.as_str()),
        // The callers have taken the others apart.
        Value::Text(_) | Value::List(_) | Value::Table(_) => Json::Null,
    }
}

fn unknown(node: &Node, text: &str, name: &str) -> Mistake {
    let alone = ALONE.iter().map(|(name, _)| *name);
    let known: Vec<_> = alone.chain(VALUES).chain(WITH_ARGUMENT).collect();
    let meant = match closest(name, &known) {
        Some(name) => format!("did you mean `#{name}`? "),
        None => String::new(),
    };
    let list = known.join(" #");
    node.mistake(
        format!("unknown marker `{text}`"),
        format!(
            "{meant}known are #{list}; a text that begins with # is written with two: `#{text}`"
        ),
    )
}

impl Marker {
    /// How it was written.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Regex(regex) => format!("#regex {regex}"),
            Self::Contains(part) => format!("#contains {part}"),
            Self::Ignore => "#ignore".to_owned(),
            Self::Present => "#present".to_owned(),
            Self::NotPresent => "#notpresent".to_owned(),
            Self::NotNull => "#notnull".to_owned(),
            Self::String => "#string".to_owned(),
            Self::Number => "#number".to_owned(),
            Self::Integer => "#integer".to_owned(),
            Self::Boolean => "#boolean".to_owned(),
            Self::Array => "#array".to_owned(),
            Self::Object => "#object".to_owned(),
            Self::Uuid => "#uuid".to_owned(),
        }
    }

    /// Whether a value is of this kind; `None`: there is none.
    pub(super) fn fits(&self, value: Option<&Json>) -> bool {
        let Some(value) = value else {
            return matches!(self, Self::Ignore | Self::NotPresent);
        };
        let text = value.as_str();
        match self {
            Self::Ignore | Self::Present => true,
            Self::NotPresent => false,
            Self::NotNull => !value.is_null(),
            Self::String => value.is_string(),
            Self::Number => value.is_number(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Boolean => value.is_boolean(),
            Self::Array => value.is_array(),
            Self::Object => value.is_object(),
            Self::Uuid => text.is_some_and(|text| uuid::Uuid::try_parse(text).is_ok()),
            Self::Regex(regex) => text.is_some_and(|text| regex.is_match(text)),
            Self::Contains(part) => text.is_some_and(|text| text.contains(part)),
        }
    }
}

impl Pattern {
    /// As JSON, for people: markers as they were written.
    pub(super) fn shown(&self) -> Json {
        match self {
            Self::Exactly(value) => value.clone(),
            Self::Object(members) => {
                let members = members.iter();
                let members = members.map(|(name, member)| (name.clone(), member.shown()));
                Json::Object(members.collect())
            }
            Self::Array(items) => Json::Array(items.iter().map(Self::shown).collect()),
            Self::Marker(marker) => Json::from(marker.shown()),
        }
    }
}
