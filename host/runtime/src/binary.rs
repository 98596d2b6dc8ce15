//! What the bytes of a file say about it before wasmtime sees them.

use crate::{LoadError, engine::MAX_FILE_BYTES};

const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// Whether these are the bytes of a component that ends where one of its sections does. One that is
/// being copied hardly ever does, and what it exports comes last.
#[must_use]
pub fn is_whole(bytes: &[u8]) -> bool {
    bytes.strip_prefix(COMPONENT).is_some_and(are_whole)
}

/// Tells the usual mistakes apart before wasmtime sees the bytes.
pub(crate) fn validate(bytes: &[u8]) -> Result<(), LoadError> {
    let wrong = |text: String| Err(LoadError::Invalid(text));
    if bytes.len() > MAX_FILE_BYTES {
        return wrong(format!(
            "the file has {} bytes; at most {MAX_FILE_BYTES} are taken",
            bytes.len()
        ));
    }
    if let Some(sections) = bytes.strip_prefix(COMPONENT) {
        if are_whole(sections) {
            return Ok(());
        }
        return wrong(format!(
            "the file ends after {} bytes in the middle of a section: it is truncated, so copy it \
             again",
            bytes.len()
        ));
    }
    if bytes.starts_with(MODULE) {
        return wrong(
            "it is a core module, not a component: build it with `--target wasm32-wasip2`, or wrap \
             it with `wasm-tools component new`"
                .to_owned(),
        );
    }
    if bytes.len() < COMPONENT.len() {
        return wrong(format!(
            "the file has only {} bytes: it is truncated",
            bytes.len()
        ));
    }
    wrong("it is not WebAssembly: the file does not begin with the magic bytes `\\0asm`".to_owned())
}

/// Whether the last section ends where the file does. A section is a byte for its kind, its
/// length in LEB128, and as many bytes.
fn are_whole(mut sections: &[u8]) -> bool {
    while let [_kind, rest @ ..] = sections {
        let mut length = 0usize;
        let mut digits = rest.iter().take(5).enumerate();
        let body = loop {
            let Some((index, digit)) = digits.next() else {
                return false;
            };
            length |= usize::from(digit & 0x7f) << (7 * index);
            if digit & 0x80 == 0 {
                break rest.get(index + 1..).unwrap_or_default();
            }
        };
        let Some(next) = body.get(length..) else {
            return false;
        };
        sections = next;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_whole_where_a_section_ends() {
        // Two custom sections, the second with a length of two digits.
        let mut bytes = COMPONENT.to_vec();
        bytes.extend([0, 2, 1, b'a']);
        let first = bytes.len();
        bytes.extend([0, 0x82, 0x00, 1, b'b']);
        for end in 0..=bytes.len() {
            let expected = [COMPONENT.len(), first, bytes.len()].contains(&end);
            assert_eq!(is_whole(&bytes[..end]), expected, "{end}");
        }
        assert!(!is_whole(MODULE));
    }
}
