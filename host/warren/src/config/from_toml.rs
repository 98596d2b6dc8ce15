//! TOML, Warren's own format, as a tree.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Mistake,
    text::{Text, dotted},
    tree::{Entry, Node, Value},
};

const REMEDY: &str = "correct the line; config/warren.toml in the repository shows every key";

/// Parses a file.
///
/// # Errors
/// Every place where it is not TOML.
pub(super) fn parse(text: &Text<'_>) -> Result<Node, Vec<Mistake>> {
    let (root, errors) = DeTable::parse_recoverable(text.content);
    if errors.is_empty() {
        let value = Value::Table(entries(text, "", root.get_ref()));
        return Ok(Node {
            place: text.place(0, ""),
            value,
        });
    }
    let mistake = |error: &toml::de::Error| {
        let offset = error.span().map_or(0, |span| span.start);
        text.syntax(
            offset,
            &format!("this is not TOML: {}", error.message()),
            REMEDY,
        )
    };
    Err(errors.iter().map(mistake).collect())
}

fn entries(text: &Text<'_>, table: &str, content: &DeTable<'_>) -> Vec<Entry> {
    // The map is sorted by name; mistakes are told in the order of the file.
    let mut in_order: Vec<_> = content.iter().collect();
    in_order.sort_by_key(|(key, _)| key.span().start);
    in_order
        .into_iter()
        .map(|(key, value)| {
            let path = dotted(table, key.get_ref());
            Entry {
                key: key.get_ref().to_string(),
                place: text.place(key.span().start, &path),
                node: node(text, &path, value),
            }
        })
        .collect()
}

fn node(text: &Text<'_>, path: &str, spanned: &Spanned<DeValue<'_>>) -> Node {
    let value = match spanned.get_ref() {
        DeValue::String(content) => Value::Text(content.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("a number that is too large"), Value::Integer),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Boolean(truth) => Value::Bool(*truth),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| node(text, path, item)).collect())
        }
        DeValue::Table(content) => Value::Table(entries(text, path, content)),
    };
    Node {
        place: text.place(spanned.span().start, path),
        value,
    }
}
