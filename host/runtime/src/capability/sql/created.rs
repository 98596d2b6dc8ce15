//! What a guest creates unless it is there, at the beginning of nearly every run. That it is there is
//! known from the last time, as long as the schema is the same: SQLite counts its changes, also those
//! of other processes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rusqlite::Connection;

use super::{Failure, schema::version, statement::kept};

/// How many texts are known.
const MAX_KNOWN: usize = 64;

/// Texts that did nothing, and the version of the schema for which that is so.
#[derive(Debug, Default)]
pub(super) struct Created(Mutex<HashMap<String, i64>>);

/// Whether a text creates something. Only what does nothing comes to be known, so that it need not say
/// IF NOT EXISTS in so many words.
pub(super) fn is_one(text: &str) -> bool {
    let word = kept(text).and_then(|text| text.get(.."CREATE".len()));
    word.is_some_and(|word| word.eq_ignore_ascii_case("CREATE"))
}

impl Created {
    /// `Some` if the text would do nothing.
    pub(super) fn is_known(&self, connection: &Connection, text: &str) -> Option<()> {
        let known = self.lock().get(text).copied()?;
        (version(connection)? == known).then_some(())
    }

    /// Executes a text, and knows it if it has done nothing.
    pub(super) fn execute(
        &self,
        connection: &Connection,
        text: &str,
        execute: impl FnOnce() -> Result<u64, Failure>,
    ) -> Result<u64, Failure> {
        if !connection.is_autocommit() {
            return execute();
        }
        let before = version(connection);
        let n_changed = execute()?;
        // The same before and after: nobody has changed anything meanwhile, whoever it is.
        if let Some(version) = before.filter(|_| version(connection) == before) {
            let mut known = self.lock();
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
            known.insert(text.to_owned(), version);
        }
        Ok(n_changed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
