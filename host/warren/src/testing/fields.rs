//! Reads tables: each key is asked for by its name, and what nobody has asked for is a mistake that
//! names the key which was probably meant. All mistakes are collected; none ends the reading.

use std::time::Duration;

use super::document::{Entry, Node, Value};
use crate::config::{Mistake, Place, closest, parse_duration};

/// A table that is being read.
pub(super) struct Fields<'a> {
    /// Where the table was written.
    pub(super) place: &'a Place,
    entries: &'a [Entry],
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The keys of what should be a table.
    pub(super) fn of(node: &'a Node, mistakes: &mut Vec<Mistake>) -> Option<Self> {
        let Value::Table(entries) = &node.value else {
            mistakes.push(node.mistake(
                format!("a table is expected, this is {}", node.value.kind()),
                "write its keys in braces, or under a [[case.…]] header of its own",
            ));
            return None;
        };
        Some(Self {
            place: &node.place,
            entries,
            asked: Vec::new(),
        })
    }

    /// The value of a key, if it is there.
    pub(super) fn take(&mut self, name: &'static str) -> Option<&'a Node> {
        self.asked.push(name);
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        Some(&entry.node)
    }

    /// The items of a list of tables: `[[case.call]]`. One that stands alone is a list of one.
    pub(super) fn tables(&mut self, name: &'static str) -> &'a [Node] {
        match self.take(name) {
            None => &[],
            Some(Node {
                value: Value::List(items),
                ..
            }) => items,
            Some(node) => std::slice::from_ref(node),
        }
    }

    /// Notes every key that nobody has asked for.
    pub(super) fn finish(self, mistakes: &mut Vec<Mistake>) {
        for entry in self.entries {
            if self.asked.contains(&entry.key.as_str()) {
                continue;
            }
            let list = self.asked.join(", ");
            let remedy = match closest(&entry.key, &self.asked) {
                Some(name) => format!("did you mean `{name}`? known here: {list}"),
                None => format!("remove it; known here: {list}"),
            };
            mistakes.push(Mistake {
                place: entry.place.clone(),
                message: format!("unknown key `{}`", entry.key),
                remedy,
            });
        }
    }
}

/// A text.
pub(super) fn text(node: &Node, mistakes: &mut Vec<Mistake>) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        other => {
            let message = format!("a text is expected, this is {}", other.kind());
            mistakes.push(node.mistake(message, "write it in quotes"));
            None
        }
    }
}

/// A text, or several.
pub(super) fn texts(node: &Node, mistakes: &mut Vec<Mistake>) -> Vec<String> {
    match &node.value {
        Value::List(items) => items
            .iter()
            .filter_map(|item| text(item, mistakes))
            .collect(),
        _ => text(node, mistakes).into_iter().collect(),
    }
}

/// True or false.
pub(super) fn truth(node: &Node, mistakes: &mut Vec<Mistake>) -> bool {
    match &node.value {
        Value::Bool(truth) => *truth,
        other => {
            let message = format!("true or false is expected, this is {}", other.kind());
            mistakes.push(node.mistake(message, "write true, or leave it out"));
            false
        }
    }
}

/// A whole number within bounds.
pub(super) fn whole(node: &Node, least: u32, most: u32, mistakes: &mut Vec<Mistake>) -> u32 {
    let number = match &node.value {
        Value::Integer(number) => u32::try_from(*number).ok(),
        _ => None,
    };
    match number.filter(|number| (least..=most).contains(number)) {
        Some(number) => number,
        None => {
            let message = format!("a whole number from {least} to {most} is expected");
            mistakes.push(node.mistake(message, "write it without quotes"));
            least
        }
    }
}

/// A duration such as `"50ms"`.
pub(super) fn duration(node: &Node, mistakes: &mut Vec<Mistake>) -> Duration {
    let text = match &node.value {
        Value::Text(text) => text.as_str(),
        _ => "",
    };
    parse_duration(text).unwrap_or_else(|| {
        let message = format!("a duration is expected, this is {}", node.value.kind());
        mistakes.push(node.mistake(message, "write \"50ms\", \"2s\" or \"1m\""));
        Duration::ZERO
    })
}

/// One of a few words.
pub(super) fn word(
    node: &Node,
    words: &[&'static str],
    mistakes: &mut Vec<Mistake>,
) -> Option<&'static str> {
    let written = text(node, mistakes)?;
    let found = words.iter().find(|word| **word == written).copied();
    if found.is_none() {
        let list = words.join(", ");
        let remedy = match closest(&written, words) {
            Some(word) => format!("did you mean \"{word}\"? known here: {list}"),
            None => format!("known here: {list}"),
        };
        mistakes.push(node.mistake(format!("unknown word \"{written}\""), remedy));
    }
    found
}
