//! JSON with comments and trailing commas, the format of MicroServices.js, as a tree.

use jsonc_parser::{
    CollectOptions, ParseOptions,
    ast::{Object, Value as Json},
    common::Ranged,
    parse_to_ast,
};

use super::{
    Mistake,
    text::{Text, dotted},
    tree::{Entry, Node, Value},
};

const REMEDY: &str =
    "write JSON (`//` and `/* */` comments and trailing commas are fine), or TOML in a .toml file";

/// Whether a file is JSON: by its name, and where that says nothing by how it begins. No TOML file
/// begins with a brace or a slash.
pub(super) fn is_json(text: &Text<'_>) -> bool {
    match text
        .path
        .extension()
        .and_then(|extension| extension.to_str())
    {
        Some("json" | "jsonc" | "json5") => true,
        Some("toml") => false,
        _ => text.content.trim_start().starts_with(['{', '/']),
    }
}

/// Parses a file.
///
/// # Errors
/// The first place where it is not JSON.
pub(super) fn parse(text: &Text<'_>) -> Result<Node, Vec<Mistake>> {
    // Comments and trailing commas, as MicroServices.js' own reader (comment-json) takes them;
    // nothing of the further liberties, which would hide slips.
    let options = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let parsed = parse_to_ast(text.content, &CollectOptions::default(), &options)
        .map_err(|error| {
            let message = format!(
                "this is not JSON: {}",
                error.kind().to_string().to_lowercase()
            );
            vec![text.syntax(error.range().start, &message, REMEDY)]
        })?
        .value;
    match parsed {
        Some(Json::Object(object)) => Ok(Node {
            place: text.place(object.range.start, ""),
            value: Value::Table(entries(text, "", &object)),
        }),
        Some(other) => Err(vec![text.syntax(
            other.start(),
            "the file is not an object",
            "put everything into one pair of braces: { … }",
        )]),
        None => Ok(Node {
            place: text.place(0, ""),
            value: Value::Table(Vec::new()),
        }),
    }
}

fn entries(text: &Text<'_>, table: &str, object: &Object<'_>) -> Vec<Entry> {
    object
        .properties
        .iter()
        .map(|property| {
            let path = dotted(table, property.name.as_str());
            Entry {
                key: property.name.as_str().to_owned(),
                place: text.place(property.range.start, &path),
                node: node(text, &path, &property.value),
            }
        })
        .collect()
}

fn node(text: &Text<'_>, path: &str, json: &Json<'_>) -> Node {
    let value = match json {
        Json::StringLit(string) => Value::Text(string.value.to_string()),
        Json::NumberLit(number) => number
            .value
            .parse()
            .map_or(Value::Other("a number with a fraction"), Value::Integer),
        Json::BooleanLit(truth) => Value::Bool(truth.value),
        Json::Object(object) => Value::Table(entries(text, path, object)),
        Json::Array(array) => Value::List(
            array
                .elements
                .iter()
                .map(|item| node(text, path, item))
                .collect(),
        ),
        Json::NullKeyword(_) => Value::Other("null"),
    };
    Node {
        place: text.place(json.start(), path),
        value,
    }
}
