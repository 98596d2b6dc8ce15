//! A file as text, and the places in it.

use std::path::Path;

use super::{Mistake, Place};

/// A file that is being parsed.
pub(super) struct Text<'a> {
    pub(super) path: &'a Path,
    pub(super) content: &'a str,
}

impl Text<'_> {
    /// The place at a byte offset.
    pub(super) fn place(&self, offset: usize, key: &str) -> Place {
        let before = self.content.get(..offset).unwrap_or(self.content);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::Line {
            file: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            key: key.to_owned(),
        }
    }

    /// A place where the format itself is broken. The source line is not shown with it: it may hold
    /// a secret.
    pub(super) fn syntax(&self, offset: usize, message: &str, remedy: &str) -> Mistake {
        Mistake {
            place: self.place(offset, ""),
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        }
    }
}

/// `workers` and `WB` give `workers.WB`.
pub(super) fn dotted(table: &str, key: &str) -> String {
    if table.is_empty() {
        key.to_owned()
    } else {
        format!("{table}.{key}")
    }
}
