//! Compares a value with what was expected of it, and names each place where they differ. Pure.

use serde_json::Value as Json;

use super::pattern::Pattern;

/// Whether an object may have members that nobody has expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// It may not.
    #[default]
    Exact,
    /// It may, at every depth. Arrays keep their length.
    Subset,
}

/// A place where two values differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// Where, in the words of JSONPath: `$.items[0].id`.
    pub(super) path: String,
    /// What was expected there; `None`: nothing.
    pub(super) expected: Option<String>,
    /// What was there; `None`: nothing.
    pub(super) actual: Option<String>,
}

/// Every place where a value is not as expected, in the order of what was expected.
pub(super) fn differences(pattern: &Pattern, actual: &Json, mode: Mode) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(pattern, Some(actual), mode, "$", &mut found);
    found
}

fn compare(
    pattern: &Pattern,
    actual: Option<&Json>,
    mode: Mode,
    path: &str,
    found: &mut Vec<Difference>,
) {
    match (pattern, actual) {
        (Pattern::Marker(marker), actual) if marker.fits(actual) => {}
        (Pattern::Exactly(expected), Some(actual)) if is_same(expected, actual) => {}
        (Pattern::Object(members), Some(Json::Object(actual))) => {
            for (name, member) in members {
                compare(member, actual.get(name), mode, &below(path, name), found);
            }
            if mode == Mode::Exact {
                let is_expected = |name: &str| members.iter().any(|(member, _)| member == name);
                for (name, value) in actual.iter().filter(|(name, _)| !is_expected(name)) {
                    found.push(Difference {
                        path: below(path, name),
                        expected: None,
                        actual: Some(value.to_string()),
                    });
                }
            }
        }
        (Pattern::Array(items), Some(Json::Array(actual))) => {
            for index in 0..items.len().max(actual.len()) {
                let path = format!("{path}[{index}]");
                match (items.get(index), actual.get(index)) {
                    (Some(item), actual) => compare(item, actual, mode, &path, found),
                    (None, actual) => found.push(Difference {
                        path,
                        expected: None,
                        actual: actual.map(Json::to_string),
                    }),
                }
            }
        }
        (pattern, actual) => found.push(Difference {
            path: path.to_owned(),
            expected: Some(pattern.shown().to_string()),
            actual: actual.map(Json::to_string),
        }),
    }
}

/// `1` and `1.0` are one number.
fn is_same(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(one), Json::Number(other)) => {
            one == other || (one.is_f64() || other.is_f64()) && one.as_f64() == other.as_f64()
        }
        (one, other) => one == other,
    }
}

fn below(path: &str, name: &str) -> String {
    let is_plain = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_plain {
        format!("{path}.{name}")
    } else {
        format!("{path}[{}]", Json::from(name))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::testing::{document, pattern::Data};

    /// The differences between `expected` (TOML, the value of a key) and `actual` (JSON).
    #[track_caller]
    fn check(expected: &str, actual: &str, mode: Mode, differences_expected: &[&str]) {
        let file = document::parse(Path::new("t.toml"), &format!("x = {expected}")).unwrap();
        let document::Value::Table(entries) = &file.value else {
            panic!("no table")
        };
        let folder = Path::new("");
        let mut mistakes = Vec::new();
        let pattern = Data { folder }.expected(&entries[0].node, &mut mistakes);
        assert_eq!(mistakes, []);
        let actual = serde_json::from_str(actual).unwrap();
        let shown: Vec<_> = differences(&pattern, &actual, mode)
            .iter()
            .map(|difference| {
                let or_nothing = |text: &Option<String>| text.clone().unwrap_or("nothing".into());
                let (expected, actual) = (
                    or_nothing(&difference.expected),
                    or_nothing(&difference.actual),
                );
                format!("{}: {expected} / {actual}", difference.path)
            })
            .collect();
        assert_eq!(shown, differences_expected);
    }

    #[test]
    fn values_are_compared_exactly_and_every_place_is_named() {
        check(
            "{ a = 1, b = [true, \"x\"] }",
            r#"{"b":[true,"x"],"a":1}"#,
            Mode::Exact,
            &[],
        );
        check(
            "{ a = 1, b = [true, \"x\"], c = \"\" }",
            r#"{"a":2,"b":[true,"y",null],"d e":{}}"#,
            Mode::Exact,
            &[
                "$.a: 1 / 2",
                "$.b[1]: \"x\" / \"y\"",
                "$.b[2]: nothing / null",
                "$.c: \"\" / nothing",
                "$[\"d e\"]: nothing / {}",
            ],
        );
        check("[1]", "{}", Mode::Exact, &["$: [1] / {}"]);
        check("1.0", "1", Mode::Exact, &[]);
        check("1.5", "1", Mode::Exact, &["$: 1.5 / 1"]);
        check("\"1\"", "1", Mode::Exact, &["$: \"1\" / 1"]);
    }

    #[test]
    fn a_subset_tolerates_further_members_and_no_further_items() {
        let expected = "{ a = { b = 1 }, l = [{ x = 1 }] }";
        check(
            expected,
            r#"{"a":{"b":1,"c":2},"l":[{"x":1,"y":2}],"z":0}"#,
            Mode::Subset,
            &[],
        );
        check(
            expected,
            r#"{"a":{"c":2},"l":[{"x":1},{"x":1}]}"#,
            Mode::Subset,
            &["$.a.b: 1 / nothing", "$.l[1]: nothing / {\"x\":1}"],
        );
    }

    #[test]
    fn a_marker_stands_for_a_kind_of_values() {
        for (marker, fits, does_not) in [
            ("#string", "\"\"", "1"),
            ("#number", "1.5", "\"1\""),
            ("#integer", "7", "7.5"),
            ("#boolean", "false", "0"),
            ("#array", "[]", "{}"),
            ("#object", "{}", "[]"),
            ("#notnull", "0", "null"),
            ("#null", "null", "0"),
            (
                "#uuid",
                "\"67e55044-10b1-426f-9247-bb680e5fe0c8\"",
                "\"67e5\"",
            ),
            ("#regex ^a+$", "\"aa\"", "\"ab\""),
            ("#contains b", "\"abc\"", "\"ac\""),
            ("#json [1]", "[1]", "[2]"),
            ("##string", "\"#string\"", "\"x\""),
        ] {
            let expected = format!("'{marker}'");
            check(&expected, fits, Mode::Exact, &[]);
            let shown = match marker {
                "#null" => "null".to_owned(),
                "#json [1]" => "$[0]: 1 / 2".to_owned(),
                "##string" => "\"#string\"".to_owned(),
                marker => format!("\"{marker}\""),
            };
            let difference = match shown.strip_prefix("$[0]") {
                Some(_) => shown,
                None => format!("$: {shown} / {does_not}"),
            };
            check(&expected, does_not, Mode::Exact, &[&difference]);
        }
    }

    #[test]
    fn what_must_be_there_and_what_must_not_is_said_by_markers() {
        let expected = "{ a = '#present', b = '#notpresent', c = '#ignore' }";
        check(expected, r#"{"a":null}"#, Mode::Exact, &[]);
        check(
            expected,
            r#"{"b":1,"c":2}"#,
            Mode::Exact,
            &["$.a: \"#present\" / nothing", "$.b: \"#notpresent\" / 1"],
        );
    }
}
