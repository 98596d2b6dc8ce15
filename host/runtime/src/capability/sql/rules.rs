//! What a guest's SQL may not do: reach another file. SQLite offers that through ATTACH (and
//! VACUUM INTO, which attaches) and through some pragmas; its authorizer is asked about each while
//! a statement is prepared, so no way of writing the statement gets around it.
//!
//! And what it may use: one value of a gigabyte, or one function call that takes an hour, is over
//! before anybody looks at the deadline. SQLite has limits for that, one set for each connection
//! (<https://sqlite.org/security.html> has the list that this follows).

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    ptr,
};

use libsqlite3_sys::{
    SQLITE_ATTACH, SQLITE_CREATE_TEMP_INDEX, SQLITE_CREATE_TEMP_TABLE, SQLITE_CREATE_TEMP_TRIGGER,
    SQLITE_CREATE_TEMP_VIEW, SQLITE_CREATE_VTABLE, SQLITE_DENY, SQLITE_DETACH,
    SQLITE_LIMIT_ATTACHED, SQLITE_LIMIT_COLUMN, SQLITE_LIMIT_LENGTH,
    SQLITE_LIMIT_LIKE_PATTERN_LENGTH, SQLITE_LIMIT_SQL_LENGTH, SQLITE_OK, SQLITE_PRAGMA,
    sqlite3_get_autocommit, sqlite3_limit, sqlite3_set_authorizer,
};
use sqlx::{SqliteConnection, sqlite::LockedSqliteHandle};

use super::MAX_STATEMENT_BYTES;

/// Pragmas that only read the schema, or keep a number for the guest.
const ALLOWED_PRAGMAS: [&[u8]; 7] = [
    b"foreign_key_list",
    b"index_info",
    b"index_list",
    b"table_info",
    b"table_list",
    b"table_xinfo",
    b"user_version",
];

/// The largest text, blob or row, in bytes. A function such as `instr` takes the square of it in
/// the worst case, and cannot be interrupted.
const MAX_VALUE_BYTES: c_int = 1 << 20;
/// Columns of a table, a result or an index.
const MAX_COLUMNS: c_int = 100;
/// Bytes of the pattern of LIKE and GLOB, which take its product with the length of the text.
const MAX_PATTERN_BYTES: c_int = 1000;

/// The limits. `ATTACH` is denied as well; this is the second lock on that door.
#[allow(
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "a small constant"
)]
const LIMITS: [(c_int, c_int); 5] = [
    (SQLITE_LIMIT_ATTACHED, 0),
    (SQLITE_LIMIT_COLUMN, MAX_COLUMNS),
    (SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES),
    (SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MAX_PATTERN_BYTES),
    (SQLITE_LIMIT_SQL_LENGTH, MAX_STATEMENT_BYTES as c_int),
];

/// Puts a connection under the rules. After this, `SQLITE_AUTH` is the answer to what is not
/// allowed.
#[allow(
    unsafe_code,
    reason = "sqlx hands out the raw handle for what it does not wrap; see host/decisions/0002"
)]
pub(super) async fn install(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut handle = connection.lock_handle().await?;
    let raw = handle.as_raw_handle().as_ptr();
    for (what, most) in LIMITS {
        // SAFETY: the handle is valid while it is locked; the call only stores a number.
        unsafe { sqlite3_limit(raw, what, most) };
    }
    // SAFETY: the handle is valid while it is locked; the callback has no state and lives as long
    // as the program.
    let result = unsafe { sqlite3_set_authorizer(raw, Some(authorize), ptr::null_mut()) };
    if result == SQLITE_OK {
        Ok(())
    } else {
        Err(sqlx::Error::Configuration(
            "SQLite refused the authorizer".into(),
        ))
    }
}

/// Whether a transaction is open on a connection.
#[allow(
    unsafe_code,
    reason = "sqlx hands out the raw handle for what it does not wrap; see host/decisions/0002"
)]
pub(super) fn is_in_transaction(handle: &mut LockedSqliteHandle<'_>) -> bool {
    let raw = handle.as_raw_handle().as_ptr();
    // SAFETY: the handle is valid while it is locked; the call only reads a flag.
    unsafe { sqlite3_get_autocommit(raw) == 0 }
}

#[allow(unsafe_code, reason = "the form that SQLite calls")]
unsafe extern "C" fn authorize(
    _state: *mut c_void,
    action: c_int,
    subject: *const c_char,
    _detail: *const c_char,
    _database: *const c_char,
    _trigger: *const c_char,
) -> c_int {
    match action {
        SQLITE_ATTACH | SQLITE_DETACH => SQLITE_DENY,
        // They are in a file of their own, without a limit, and outlive the run on its connection,
        // where they stand before what the next one means.
        SQLITE_CREATE_TEMP_INDEX
        | SQLITE_CREATE_TEMP_TABLE
        | SQLITE_CREATE_TEMP_TRIGGER
        | SQLITE_CREATE_TEMP_VIEW
        | SQLITE_CREATE_VTABLE => SQLITE_DENY,
        SQLITE_PRAGMA if subject.is_null() => SQLITE_DENY,
        SQLITE_PRAGMA => {
            // SAFETY: SQLite passes the pragma's name as a C string that lives for the call.
            let name = unsafe { CStr::from_ptr(subject) }.to_bytes();
            let allowed = ALLOWED_PRAGMAS
                .iter()
                .any(|pragma| pragma.eq_ignore_ascii_case(name));
            if allowed { SQLITE_OK } else { SQLITE_DENY }
        }
        _ => SQLITE_OK,
    }
}
