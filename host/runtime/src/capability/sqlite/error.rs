//! What goes wrong with a connection, and what SQLite's errors say.

use rusqlite::ffi;

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
pub(in crate::capability) enum Error {
    /// Others have them all.
    #[error("every connection is in use")]
    AllInUse,
    #[error("the database is closed")]
    Closed,
    /// What was done on it has panicked, or was dropped.
    #[error("the connection is gone")]
    Gone,
    /// Its time was up, or nobody waited any more, before it began.
    #[error("it was stopped")]
    Stopped,
    #[error("{}", text(.0))]
    Sqlite(rusqlite::Error),
}

/// The primary result code (<https://sqlite.org/rescode.html>): the low byte, the rest says more
/// about it.
pub(in crate::capability) fn code(error: &rusqlite::Error) -> Option<i32> {
    extended_code(error).map(|code| code & 0xff)
}

/// Whether somebody else's lock was in the way.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(code(error), Some(ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED))
}

/// What an error says, without the statement.
pub(in crate::capability) fn text(error: &rusqlite::Error) -> String {
    let says = match error {
        rusqlite::Error::SqliteFailure(error, None) => Some(error.to_string()),
        rusqlite::Error::SqliteFailure(_, Some(says))
        | rusqlite::Error::SqlInputError { msg: says, .. } => Some(says.clone()),
        _ => None,
    };
    match (extended_code(error), says) {
        (Some(code), Some(says)) => format!("(code: {code}) {says}"),
        _ => error.to_string(),
    }
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqliteFailure(error, _) | rusqlite::Error::SqlInputError { error, .. } => {
            Some(error.extended_code)
        }
        _ => None,
    }
}
