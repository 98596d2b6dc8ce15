//! What the bytes of a file say about it before wasmtime sees them.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use crate::{LoadError, engine::MAX_FILE_BYTES};

const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// The most digits that the length of a section may have in LEB128.
const MAX_DIGITS: u32 = 5;

/// Whether this is a component that ends where one of its sections does. One that is being copied hardly
/// ever does, and what it exports comes last. Only the header and the beginnings of the sections are
/// read.
///
/// # Errors
/// When it cannot be read.
pub fn is_whole(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    match ends_with_a_section(file) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        found => found,
    }
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
    if bytes.starts_with(COMPONENT) {
        // Reading what is in memory does not fail.
        if is_whole(&mut Cursor::new(bytes)).unwrap_or_default() {
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
fn ends_with_a_section(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    let end = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let header: [u8; COMPONENT.len()] = read(file)?;
    if header != COMPONENT {
        return Ok(false);
    }
    let mut at = COMPONENT.len() as u64;
    while at < end {
        let [kind] = read(file)?;
        let (mut length, mut n_digits) = (0u64, 0);
        loop {
            let [digit] = read(file)?;
            length |= u64::from(digit & 0x7f) << (7 * n_digits);
            n_digits += 1;
            if digit & 0x80 == 0 {
                break;
            }
            if n_digits == MAX_DIGITS {
                return Ok(false);
            }
        }
        at += 1 + u64::from(n_digits) + length;
        // A custom section has a name at least. Zeros are room that was made for what is still to come.
        if at > end || (kind, length) == (0, 0) {
            return Ok(false);
        }
        // As far from here, and not to `at`: a reader with a buffer keeps it.
        file.seek_relative(length.cast_signed())?;
    }
    Ok(true)
}

fn read<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// The same for a reader with a buffer, however small.
    #[track_caller]
    fn check(bytes: &[u8], expected: bool) {
        let mut file = Cursor::new(bytes);
        let mut buffered = BufReader::with_capacity(3, file.clone());
        assert_eq!(is_whole(&mut file).unwrap(), expected, "{bytes:?}");
        assert_eq!(is_whole(&mut buffered).unwrap(), expected, "{bytes:?}");
        if bytes.starts_with(COMPONENT) {
            assert_eq!(validate(bytes).is_ok(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_component_is_whole_where_a_section_ends() {
        // Two custom sections, the second with a length of two digits.
        let mut bytes = COMPONENT.to_vec();
        bytes.extend([0, 2, 1, b'a']);
        let first = bytes.len();
        bytes.extend([0, 0x82, 0x00, 1, b'b']);
        for end in 0..=bytes.len() {
            let expected = [COMPONENT.len(), first, bytes.len()].contains(&end);
            check(&bytes[..end], expected);
        }
        check(MODULE, false);
    }

    #[test]
    fn a_length_has_five_digits_at_the_most() {
        let with = |length: &[u8]| [COMPONENT, &[0], length, &[0]].concat();
        check(&with(&[0x81, 0x80, 0x80, 0x80, 0x00]), true);
        check(&with(&[0x81, 0x80, 0x80, 0x80, 0x80, 0x00]), false);
        check(&with(&[0xff, 0xff, 0xff, 0xff, 0x7f]), false);
    }

    /// As a file is for which room was made before it is written.
    #[test]
    fn zeros_are_no_sections() {
        check(&[0; 16], false);
        let section = [0, 2, 1, b'a'];
        check(&[COMPONENT, &[0; 8]].concat(), false);
        check(&[COMPONENT, &section, &[0; 8]].concat(), false);
    }
}
