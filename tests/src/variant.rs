//! Builds of a plugin that differ in nothing but their digest.

use std::fmt::Display;

use sha2::{Digest, Sha256};

/// The same component with a custom section more, which says `mark`.
#[must_use]
pub fn variant(component: &[u8], mark: impl Display) -> Vec<u8> {
    const CUSTOM_SECTION: u8 = 0;
    const NAME: &[u8] = b"test-build";
    let mark = mark.to_string();
    let mut section = leb128(NAME.len());
    section.extend_from_slice(NAME);
    section.extend_from_slice(mark.as_bytes());
    let mut bytes = component.to_vec();
    bytes.push(CUSTOM_SECTION);
    bytes.extend(leb128(section.len()));
    bytes.extend(section);
    bytes
}

/// The SHA-256 of a file, as the host shows it.
#[must_use]
pub fn digest_of(file: &[u8]) -> String {
    let digest = Sha256::digest(file);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let digit = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            bytes.push(digit);
            return bytes;
        }
        bytes.push(digit | 0x80);
    }
}
