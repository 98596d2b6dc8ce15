//! The numbered placeholders (`$1`) of a statement for SQLite, which takes them for names: one that
//! no value is given for would be NULL without a word.

/// The numbers of the placeholders, wherever they stand as such: not in texts, quoted names and
/// comments. One that is no number (`$x`) is 0, one that is too
/// large the largest there is.
pub(super) fn numbered(statement: &str) -> impl Iterator<Item = usize> {
    let mut rest = statement;
    std::iter::from_fn(move || {
        while let Some(first) = rest.chars().next() {
            let after = rest.get(first.len_utf8()..).unwrap_or_default();
            match first {
                '\'' | '"' | '`' => rest = behind(after, first),
                '[' => rest = behind(after, ']'),
                '-' if after.starts_with('-') => rest = behind(after, '\n'),
                '/' if after.starts_with('*') => {
                    let body = after.get(1..).unwrap_or_default();
                    rest = body.split_once("*/").map_or("", |(_, rest)| rest);
                }
                '$' => {
                    let name = word(after);
                    rest = after.get(name.len()..).unwrap_or_default();
                    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
                    return Some(match name {
                        "" => 0,
                        _ if is_number => name.parse().unwrap_or(usize::MAX),
                        _ => 0,
                    });
                }
                // A `$` inside of a name belongs to it.
                _ if is_part_of_name(first) => {
                    rest = after.get(word(after).len()..).unwrap_or_default();
                }
                _ => rest = after,
            }
        }
        None
    })
}

/// What stands behind the next `end`. A doubled one ends one text and begins the next, which comes
/// to the same.
fn behind(text: &str, end: char) -> &str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}

/// The characters that a name goes on with.
fn word(text: &str) -> &str {
    let end = text.find(|c| !is_part_of_name(c)).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// As SQLite's tokenizer sees it.
fn is_part_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_count_where_they_are_placeholders() {
        for (statement, expected) in [
            ("SELECT 1", &[][..]),
            ("SELECT $2, $1,$2", &[2, 1, 2]),
            ("SELECT '$1', 'it''s $2', \"$3\", `$4`, [$5], $6", &[6]),
            ("SELECT 1 -- $1\n, $2 /* $3 '*/ , $4", &[2, 4]),
            ("SELECT a$1, ä$2, x'00', $3+$4", &[3, 4]),
            ("SELECT $0, $x, $, $1x", &[0, 0, 0, 0]),
            ("SELECT $99999999999999999999999", &[usize::MAX]),
            ("SELECT '$1", &[]),
            ("SELECT ?1, ?, $1", &[1]),
            ("/* $1", &[]),
        ] {
            let found: Vec<_> = numbered(statement).collect();
            assert_eq!(found, expected, "{statement}");
        }
    }
}
