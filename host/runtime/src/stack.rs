//! Where a guest was when it ended: the calls that it was in, by name. What the names are is the
//! guest's choice, so they are bounded, and hold nothing that a terminal would obey.

use std::fmt::{self, Write};

use wasmtime::{FrameInfo, WasmBacktrace};

/// Calls that are shown, the innermost first.
const MAX_FRAMES: usize = 16;
/// The longest name, in bytes: those of generic Rust functions are long.
const MAX_NAME_BYTES: usize = 150;
/// A longer name is shown as it is.
const MAX_MANGLED_BYTES: usize = 1 << 10;

/// The calls that a guest was in. Empty where nobody knows.
#[derive(Debug, Default)]
pub(crate) struct Stack(pub(crate) Vec<Frame>);

/// One call.
#[derive(Debug)]
pub(crate) struct Frame {
    /// The name of the function, or its number.
    pub(crate) function: String,
    /// How far into the plugin's file the instruction is, in bytes.
    pub(crate) offset: Option<usize>,
}

impl Stack {
    /// Reads the stack that wasmtime has noted. Costs microseconds.
    pub(crate) fn of(error: &wasmtime::Error) -> Self {
        let trace = error.downcast_ref::<WasmBacktrace>();
        let frames = trace.map(WasmBacktrace::frames).unwrap_or_default();
        Self(frames.iter().take(MAX_FRAMES).map(Frame::of).collect())
    }
}

impl Frame {
    fn of(frame: &FrameInfo) -> Self {
        let function = match frame.func_name() {
            Some(name) => readable(name),
            None => format!("function {}", frame.func_index()),
        };
        Self {
            function,
            offset: frame.module_offset(),
        }
    }
}

/// The name as it is in the source, without the hash at the end of a name of Rust. A short name may
/// stand for a megabyte: no more of it is written than is shown.
fn readable(name: &str) -> String {
    let mut text = Bounded(String::new());
    if name.len() > MAX_MANGLED_BYTES {
        return visible(name, MAX_NAME_BYTES);
    }
    // An error says that there is enough.
    let _ = write!(text, "{:#}", rustc_demangle::demangle(name));
    visible(&text.0, MAX_NAME_BYTES)
}

/// A text that takes a little more than a name may have.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() > MAX_NAME_BYTES {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// At most so many bytes of a text of the guest, without control characters.
pub(crate) fn visible(text: &str, most_bytes: usize) -> String {
    let end = text.floor_char_boundary(most_bytes);
    let kept = text.get(..end).unwrap_or_default();
    let mut shown: String = kept
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if end < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_rust_is_read_and_a_bomb_is_not_unfolded() {
        assert_eq!(readable("_ZN3foo3bar17h0123456789abcdefE"), "foo::bar");
        // Each level names the one before twice.
        let mut bomb = "_RNvC1a1bINtC1a1c".to_owned();
        for _ in 0..40 {
            bomb.push_str("TB5_B5_E");
        }
        assert!(readable(&bomb).len() <= MAX_NAME_BYTES + "…".len());
        let long = "x".repeat(1 << 20);
        assert!(readable(&long).len() <= MAX_NAME_BYTES + "…".len());
    }

    #[test]
    fn a_name_is_cut_at_a_character_and_obeys_no_terminal() {
        assert_eq!(visible("a\u{1b}[2Jb", 100), "a\u{fffd}[2Jb");
        assert_eq!(visible("ääää", 5), "ää…");
        assert_eq!(visible("ää", 4), "ää");
    }
}
