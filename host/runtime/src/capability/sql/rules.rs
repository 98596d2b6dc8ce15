//! What a guest's SQL may not do: reach another file. SQLite offers that through ATTACH (and
//! VACUUM INTO, which attaches) and through some pragmas; its authorizer is asked about each while
//! a statement is prepared, so no way of writing the statement gets around it.
//!
//! What it may use: one value of a gigabyte, or one function call that takes an hour, is over
//! before anybody looks at the deadline. SQLite has limits for that, one set for each connection
//! (<https://sqlite.org/security.html> has the list that this follows).
//!
//! And what it may not do on the thread of a run: whatever may take long between two looks at the time.

use std::sync::Arc;

use rusqlite::{
    hooks::{AuthAction, AuthContext, Authorization},
    limits::Limit,
};

use super::MAX_STATEMENT_BYTES;
use crate::capability::sqlite::Watch;

/// Pragmas that only read the schema, or keep a number for the guest.
const ALLOWED_PRAGMAS: [&str; 7] = [
    "foreign_key_list",
    "index_info",
    "index_list",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",
];
/// Pragmas that may be read and not set.
const READABLE_PRAGMA: &str = "schema_version";

/// Functions that are done at once, or in a time that grows with the length of a value alone. Not
/// `count`, which counts a whole table in one instruction.
const QUICK_FUNCTIONS: [&str; 42] = [
    "abs",
    "avg",
    "changes",
    "coalesce",
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "dense_rank",
    "first_value",
    "if",
    "ifnull",
    "iif",
    "julianday",
    "lag",
    "last_insert_rowid",
    "last_value",
    "lead",
    "length",
    "likelihood",
    "likely",
    "lower",
    "max",
    "min",
    "nullif",
    "octet_length",
    "random",
    "rank",
    "round",
    "row_number",
    "sign",
    "substr",
    "substring",
    "sum",
    "time",
    "total",
    "total_changes",
    "typeof",
    "unixepoch",
    "unlikely",
    "upper",
];
/// What tables begin with that are functions, and take as long as they like for a row; and those of FTS.
const SLOW_TABLES: [&str; 5] = ["dbstat", "json_each", "json_tree", "fts", "pragma_"];
/// Pragmas that look at nothing but one number.
const QUICK_PRAGMAS: [&str; 2] = ["schema_version", "user_version"];

/// The largest text, blob or row, in bytes. A function such as `instr` takes the square of it in
/// the worst case, and cannot be interrupted.
const MAX_VALUE_BYTES: i32 = 1 << 20;
/// How deep an expression may nest. A column that is computed of others, and a view of others, nests by as
/// much again for each: 100 columns or 1000 views. SQLite recurses over all of it, on the stack that
/// [`THREAD_STACK_BYTES`](crate::THREAD_STACK_BYTES) is for.
const MAX_DEPTH: i32 = 100;
/// Instructions of a prepared statement. Columns that are computed of others double it with each. SQLite
/// makes room for twice as many each time, so that somewhat fewer may be too many; its word for that is `SQLITE_NOMEM`.
pub(super) const MAX_INSTRUCTIONS: i32 = 250_000;
/// Columns of a table, a result or an index.
const MAX_COLUMNS: i32 = 100;
/// Bytes of the pattern of LIKE and GLOB, which take its product with the length of the text.
const MAX_PATTERN_BYTES: i32 = 1000;

/// The limits. `ATTACH` is denied as well; this is the second lock on that door.
#[allow(
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "a small constant"
)]
const LIMITS: [(Limit, i32); 7] = [
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_COLUMN, MAX_COLUMNS),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, MAX_DEPTH),
    (Limit::SQLITE_LIMIT_VDBE_OP, MAX_INSTRUCTIONS),
    (Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MAX_PATTERN_BYTES),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_STATEMENT_BYTES as i32),
];

/// Puts a connection under the rules. After this, `SQLITE_AUTH` is the answer to what is not
/// allowed, or not here.
pub(super) fn install(
    connection: &mut rusqlite::Connection,
    watch: &Arc<Watch>,
) -> rusqlite::Result<()> {
    for (what, most) in LIMITS {
        connection.set_limit(what, most)?;
    }
    let watch = watch.clone();
    connection.authorizer(Some(move |asked: AuthContext<'_>| {
        if !is_allowed(&asked.action) {
            return Authorization::Deny;
        }
        if !is_quick(&asked) {
            if watch.is_here() {
                return Authorization::Deny;
            }
            watch.set_slow();
        }
        Authorization::Allow
    }))
}

fn is_allowed(action: &AuthAction<'_>) -> bool {
    match action {
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => false,
        // They are in a file of their own, without a limit, and outlive the run on its connection,
        // where they stand before what the next one means.
        AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::CreateVtable { .. } => false,
        AuthAction::Pragma {
            pragma_name,
            pragma_value,
        } => {
            let is = |name: &str| pragma_name.eq_ignore_ascii_case(name);
            ALLOWED_PRAGMAS.into_iter().any(is) || pragma_value.is_none() && is(READABLE_PRAGMA)
        }
        // Among them ATTACH and DETACH whose name is an expression: SQLite does not know it yet.
        AuthAction::Unknown { .. } => false,
        _ => true,
    }
}

/// Whether it may be a part of what is done on the thread of a run. What a view or a trigger does is
/// written elsewhere, and may be much.
fn is_quick(asked: &AuthContext<'_>) -> bool {
    asked.accessor.is_none()
        && match asked.action {
            AuthAction::Function { function_name } => {
                let is = |name: &&str| function_name.eq_ignore_ascii_case(name);
                QUICK_FUNCTIONS.iter().any(is)
            }
            AuthAction::Read { table_name, .. } => {
                let begins = |name: &str| {
                    let beginning = table_name.get(..name.len());
                    beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(name))
                };
                !SLOW_TABLES.into_iter().any(begins)
            }
            AuthAction::Pragma { pragma_name, .. } => {
                let is = |name: &&str| pragma_name.eq_ignore_ascii_case(name);
                QUICK_PRAGMAS.iter().any(is)
            }
            // They read nothing, but COMMIT waits for the disk.
            AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => false,
            _ => true,
        }
}
