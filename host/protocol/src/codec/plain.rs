//! What JSON's grammar allows and a reader refuses: nesting without end, numbers that no number holds,
//! halves of surrogate pairs. Nearly no text has any of them, and to see that takes a fifth of the time
//! that reading takes.

use std::slice::Iter;

use super::MAX_DEPTH;

/// A number with fewer digits and no exponent is in range.
const SAFE_DIGITS: usize = 300;

/// Whether a text that keeps to the grammar has surely nothing of it. `false`: it has to be read.
pub(super) fn is_plain(text: &[u8]) -> bool {
    let (mut depth, mut digits) = (0usize, 0usize);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'0'..=b'9' => {
                digits += 1;
                if digits > SAFE_DIGITS {
                    return false;
                }
                continue;
            }
            // `true` and `false` have one, too, after a letter.
            b'e' | b'E' if digits > 0 => return false,
            b'"' if !is_plain_string(&mut bytes) => return false,
            b'{' | b'[' if depth == MAX_DEPTH => return false,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        digits = 0;
    }
    true
}

/// Goes behind the end of a string.
fn is_plain_string(bytes: &mut Iter<'_, u8>) -> bool {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return true,
            b'\\' if bytes.next() == Some(&b'u') => {
                // Where surrogates are, from D800 to DFFF, and some that are none.
                if matches!(bytes.next(), None | Some(b'd' | b'D')) {
                    return false;
                }
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Mode, json},
        *,
    };

    #[test]
    fn what_is_plain_can_be_read() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        let plain = [
            r#"{"a":[1,-2.5,true,false,null],"e":"1e5"}"#.to_owned(),
            r#""}{][ \" \\ \n \u00e9 \\ud800""#.to_owned(),
            "1".repeat(SAFE_DIGITS),
            deep(MAX_DEPTH),
            format!("[{}]", vec![deep(MAX_DEPTH - 1); 3].join(",")),
        ];
        for text in &plain {
            assert!(is_plain(text.as_bytes()), "{text}");
            assert!(json::read(text.as_bytes(), Mode::Check).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_a_reader_refuses_is_never_plain() {
        let refused = [
            r#"{"a":"\ud800"}"#.to_owned(),
            r#"["\uDFFF\uD800"]"#.to_owned(),
            r#"["\\\ud800"]"#.to_owned(),
            "1e400".to_owned(),
            "[0,-1.5E+999]".to_owned(),
            "9".repeat(400),
            format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1)),
            format!(
                "{}1{}",
                r#"{"a":"#.repeat(MAX_DEPTH + 1),
                "}".repeat(MAX_DEPTH + 1)
            ),
        ];
        for text in &refused {
            assert!(json::read(text.as_bytes(), Mode::Check).is_err(), "{text}");
            assert!(!is_plain(text.as_bytes()), "{text}");
        }
    }
}
