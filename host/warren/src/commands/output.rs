//! Standard output and standard error of a command: lines, JSON lines and tables.
//!
//! Texts of dead letters come from plugins and from anybody on the bus: control characters, which a
//! terminal would obey, are shown as `U+FFFD`.

use std::io::{self, BufWriter, IsTerminal, Write};

use serde::Serialize;
use terminal_size::{Width, terminal_size_of};

/// Standard output, written at the end or when it is full.
pub(super) struct Output {
    out: BufWriter<io::Stdout>,
    /// How wide a line may be; `None` when it is not shown on a terminal.
    width: Option<usize>,
}

impl Output {
    pub(super) fn new() -> Self {
        let out = io::stdout();
        let size = out.is_terminal().then(|| terminal_size_of(&out)).flatten();
        Self {
            width: size.map(|(Width(width), _)| usize::from(width)),
            out: BufWriter::new(out),
        }
    }

    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// A line that is cut where the terminal ends.
    pub(super) fn cut_line(&mut self, text: &str) -> io::Result<()> {
        match self.width {
            Some(width) => self.line(&cut(text, width)),
            None => self.line(text),
        }
    }

    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.line("")
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// A table: the last column is as long as it wants to be.
    pub(super) fn table<const N: usize>(
        &mut self,
        heads: [&str; N],
        rows: &[[String; N]],
    ) -> io::Result<()> {
        let heads = heads.map(str::to_owned);
        let mut widths = [0; N];
        for row in std::iter::once(&heads).chain(rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in std::iter::once(&heads).chain(rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            self.cut_line(line.trim_end())?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Says something about what is being done.
#[allow(clippy::print_stderr, reason = "where a command speaks to a person")]
pub(super) fn say(text: &str) {
    eprintln!("{text}");
}

/// The first line of a text, as it can be shown.
pub(super) fn first_line(text: &str) -> String {
    clean(text.lines().next().unwrap_or_default())
}

/// A text without anything that a terminal would obey. Line breaks stay.
pub(super) fn clean(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => '\n',
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// A text of at most so many characters.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_told_what_to_do() {
        assert_eq!(clean("a\u{1b}[2Jb\tc\nd"), "a\u{fffd}[2Jb c\nd");
        assert_eq!(first_line("one\ntwo"), "one");
    }

    #[test]
    fn a_cut_text_shows_that_it_goes_on() {
        assert_eq!(cut("éèê", 3), "éèê");
        assert_eq!(cut("éèêë", 3), "éè…");
    }
}
