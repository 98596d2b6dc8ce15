//! Finds the tables of lines in a plugin's file: in the core modules of the component, however deep.
//! Nothing of it is checked beyond what reading needs: the file has been validated before, by
//! wasmtime.

use std::ops::Range;

/// What is kept of one plugin, in bytes. A Rust guest of 700 KB with debug information has 200 KB.
const MAX_KEPT_BYTES: usize = 4 << 20;
/// Components within components. Tools make two levels.
const MAX_DEPTH: usize = 8;

/// The table of lines of one core module.
pub(super) struct Lines {
    /// Where its code is in the file.
    pub(super) code: Range<usize>,
    /// `.debug_line`.
    pub(super) table: Box<[u8]>,
    /// `.debug_line_str`: names of files and folders.
    pub(super) texts: Box<[u8]>,
}

/// A table is a list of compiled units.
pub(super) struct Unit {
    pub(super) header_bytes: usize,
    pub(super) end: usize,
}

/// The tables of all core modules in a component.
pub(super) fn lines(bytes: &[u8]) -> Vec<Lines> {
    let (mut found, mut left) = (Vec::new(), MAX_KEPT_BYTES);
    component(bytes, 0, MAX_DEPTH, &mut found, &mut left);
    found
}

/// The unit that begins at `start`; `None` at the end, and for the 64-bit form, which nobody uses
/// for WebAssembly.
pub(super) fn line_unit(table: &[u8], start: usize) -> Option<Unit> {
    let word = |at: usize| -> Option<usize> {
        let bytes = table.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    let length = word(start)?;
    let version = u16::from_le_bytes(table.get(start + 4..start + 6)?.try_into().ok()?);
    // Version 5 says the sizes of an address and of a segment before.
    let header_bytes = word(start + if version >= 5 { 8 } else { 6 })?;
    let end = start.checked_add(4)?.checked_add(length)?;
    (length < 0xffff_fff0 && end <= table.len()).then_some(Unit { header_bytes, end })
}

/// `base`: where `bytes` are in the file.
fn component(bytes: &[u8], base: usize, depth: usize, found: &mut Vec<Lines>, left: &mut usize) {
    const CORE_MODULE: u8 = 1;
    const COMPONENT: u8 = 4;
    for (kind, start, body) in sections(bytes) {
        match kind {
            CORE_MODULE => found.extend(module(body, base + start, left)),
            COMPONENT if depth > 0 => component(body, base + start, depth - 1, found, left),
            _ => {}
        }
    }
}

fn module(bytes: &[u8], base: usize, left: &mut usize) -> Option<Lines> {
    const CUSTOM: u8 = 0;
    const CODE: u8 = 10;
    let (mut code, mut table, mut texts) = (0..0, &[][..], &[][..]);
    for (kind, start, body) in sections(bytes) {
        match (kind, (kind == CUSTOM).then(|| named(body)).flatten()) {
            (CODE, _) => code = base + start..base + start + body.len(),
            (_, Some((b".debug_line", content))) => table = content,
            (_, Some((b".debug_line_str", content))) => texts = content,
            _ => {}
        }
    }
    *left = left.checked_sub(table.len().saturating_add(texts.len()))?;
    (!table.is_empty()).then(|| Lines {
        code,
        table: table.into(),
        texts: texts.into(),
    })
}

/// The sections of a module or a component: kind, place of the content, content.
fn sections(bytes: &[u8]) -> impl Iterator<Item = (u8, usize, &[u8])> {
    const HEADER_BYTES: usize = 8;
    let mut at = HEADER_BYTES;
    std::iter::from_fn(move || {
        let kind = *bytes.get(at)?;
        let (length, n_digits) = number(bytes.get(at + 1..)?)?;
        let start = at + 1 + n_digits;
        let end = start.checked_add(length)?;
        let content = bytes.get(start..end)?;
        at = end;
        Some((kind, start, content))
    })
}

/// The name and the content of a custom section.
fn named(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, n_digits) = number(body)?;
    body.get(n_digits..)?.split_at_checked(length)
}

/// A number in LEB128, and how many bytes it takes.
fn number(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, digit) in bytes.iter().take(5).enumerate() {
        value |= usize::from(digit & 0x7f) << (7 * index);
        if digit & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}
