//! What stays prepared on one connection, and what of it may run on the thread of a run.
//!
//! Preparing what a guest has written can take long, much memory and a deep stack, and SQLite does not
//! ask meanwhile whether it shall go on. So it is always done aside, and a text may run here only while
//! nothing makes SQLite prepare it again: the schema is the same, and nothing was undone since.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rusqlite::Connection;

/// Texts that a connection keeps prepared.
const MAX_KEPT: usize = 16;
/// Room in its cache for statements of ours.
const OURS: usize = 16;

/// What is known of the texts that one connection keeps.
#[derive(Default)]
pub(in crate::capability) struct Prepared(Mutex<Texts>);

#[derive(Default)]
struct Texts {
    /// With the version of the schema for which it may run here.
    kept: HashMap<String, Option<i64>>,
    /// The version of the schema that has no column which computes when it is read.
    plain: Option<i64>,
}

impl Prepared {
    pub(super) fn make_room(connection: &Connection) {
        connection.set_prepared_statement_cache_capacity(MAX_KEPT + OURS);
    }

    /// A text is about to be prepared, or run again, aside.
    pub(in crate::capability) fn keep(&self, connection: &Connection, text: &str) {
        let mut texts = self.texts();
        if let Some(version) = texts.kept.get_mut(text) {
            *version = None;
            return;
        }
        if texts.kept.len() >= MAX_KEPT {
            // All together. What is thrown out alone would be prepared again without anybody's notice.
            connection.flush_prepared_statement_cache();
            texts.kept.clear();
        }
        texts.kept.insert(text.to_owned(), None);
    }

    /// A text that has run aside, and is quick, may run here under this version of the schema.
    pub(in crate::capability) fn allow_here(&self, text: &str, version: i64) {
        if let Some(known) = self.texts().kept.get_mut(text) {
            *known = Some(version);
        }
    }

    /// Under which version a text may run here.
    pub(in crate::capability) fn allowed_here(&self, text: &str) -> Option<i64> {
        self.texts().kept.get(text).copied().flatten()
    }

    /// Something makes SQLite prepare everything again.
    pub(in crate::capability) fn forget(&self) {
        for version in self.texts().kept.values_mut() {
            *version = None;
        }
    }

    /// Whether the schema of this version is known to be plain, and if not, what `look` says.
    pub(in crate::capability) fn is_plain(
        &self,
        version: i64,
        look: impl FnOnce() -> bool,
    ) -> bool {
        if self.texts().plain == Some(version) {
            return true;
        }
        let is_plain = look();
        if is_plain {
            self.texts().plain = Some(version);
        }
        is_plain
    }

    fn texts(&self) -> MutexGuard<'_, Texts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
