//! Statements for SQLite, from their text to what comes of them. All of this works where it is called.

use rusqlite::{
    Batch, CachedStatement, Connection, Row, Statement, StatementStatus,
    fallible_iterator::FallibleIterator,
    ffi,
    types::{Null, ValueRef},
};

use super::{Bounds, Collected, Failure, placeholders::numbered, rules::MAX_INSTRUCTIONS, schema};
use crate::{
    bindings::warren::worker::sql::{Error, Rows, Value},
    capability::sqlite::{self, Watch},
};

/// The longest statement that stays prepared, in bytes. What is longer is written by a machine, each
/// time anew.
const MAX_KEPT_BYTES: usize = 1 << 10;
/// What a prepared statement may take in memory to be kept, in bytes: a short one may name views.
const MAX_KEPT_MEMORY: i32 = 64 << 10;

/// Checks what SQLite itself would not: it takes a missing parameter for NULL.
pub(super) fn check_numbers(text: &str, n_given: usize) -> Result<(), Failure> {
    match numbered(text).find(|number| !(1..=n_given).contains(number)) {
        None => Ok(()),
        Some(number) => Err(Failure::invalid(format!(
            "the statement has a parameter ${number}, but the {n_given} values are numbered \
             from $1 on"
        ))),
    }
}

/// The rows of a statement that only reads and is soon done, where it is known to be one.
pub(super) fn read_here(
    connection: &Connection,
    watch: &Watch,
    text: &str,
    parameters: &[Value],
    bounds: &Bounds,
) -> Option<Rows> {
    let text = kept(text)?;
    let allowed = watch.prepared.allowed_here(text)?;
    schema::at_version(connection, |version| {
        if version != allowed {
            return None;
        }
        let mut statement = connection.prepare_cached(text).ok()?;
        read_if_quick(&mut statement, parameters, bounds)
    })?
}

/// The rows of all statements of a text, under the columns of the first that has any.
pub(super) fn query(
    connection: &Connection,
    watch: &Watch,
    text: &str,
    parameters: &[Value],
    bounds: &Bounds,
) -> Result<Rows, Failure> {
    let mut collected = Collected::new(Vec::new(), bounds);
    run_each(connection, watch, text, parameters, |statement| {
        read(statement, &mut collected)
    })?;
    Ok(collected.rows)
}

/// How many rows all statements of a text have changed.
pub(super) fn execute(
    connection: &Connection,
    watch: &Watch,
    text: &str,
    parameters: &[Value],
) -> Result<u64, Failure> {
    let mut n_changed = 0u64;
    run_each(connection, watch, text, parameters, |statement| {
        let before = connection.total_changes();
        let mut rows = statement.raw_query();
        while rows.next().map_err(read_error)?.is_some() {}
        drop(rows);
        // Where nothing has changed, `changes` is still the number of an earlier statement.
        if connection.total_changes() != before {
            n_changed = n_changed.saturating_add(connection.changes());
        }
        Ok(())
    })?;
    Ok(n_changed)
}

/// Whether a text is one statement without parameters. Where the characters stand in a text, it is
/// taken for another.
pub(super) fn is_plain(text: &str) -> bool {
    !trimmed(text).contains([';', '?', ':', '@', '$', '#'])
}

/// Whether a text may be kept: one statement, which is short and begins with its first word. (Only of
/// nothing but such texts SQLite makes a statement for sure.)
pub(super) fn kept(text: &str) -> Option<&str> {
    let text = trimmed(text);
    let is_kept = text.len() <= MAX_KEPT_BYTES
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.contains(';');
    is_kept.then_some(text)
}

fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c == ';' || c.is_ascii_whitespace())
}

/// Runs all statements of a text. All are prepared before the first of them runs: a mistake in the
/// second keeps the first from running as well.
fn run_each(
    connection: &Connection,
    watch: &Watch,
    text: &str,
    parameters: &[Value],
    mut run: impl FnMut(&mut Statement<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if let Some(text) = kept(text) {
        let done = run_kept(connection, watch, text, parameters, run);
        if done.is_err() || !leaves_others_prepared(text) {
            watch.prepared.forget();
        }
        return done;
    }
    watch.prepared.forget();
    let mut statements = Vec::new();
    let mut batch = Batch::new(connection, text);
    while let Some(statement) = batch.next().map_err(read_error)? {
        // SQLite itself asks only within a statement, and not in a short one.
        if watch.is_over() {
            return Err(Failure::Stopped);
        }
        statements.push(statement);
    }
    let n_wanted = statements.iter().map(Statement::parameter_count).sum();
    check_number(n_wanted, parameters.len())?;
    let mut n_bound = 0;
    for mut statement in statements {
        if watch.is_over() {
            return Err(Failure::Stopped);
        }
        n_bound += bind(&mut statement, parameters, n_bound)?;
        run(&mut statement)?;
    }
    Ok(())
}

/// Runs a statement that may stay prepared. If it has only read, the next time it may run on the thread of
/// a run.
fn run_kept(
    connection: &Connection,
    watch: &Watch,
    text: &str,
    parameters: &[Value],
    mut run: impl FnMut(&mut Statement<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    watch.prepared.keep(connection, text);
    let mut statement = connection.prepare_cached(text).map_err(read_error)?;
    // Within a transaction the schema may be one that never comes to be.
    let before = if statement.readonly() && connection.is_autocommit() {
        schema::version(connection)
    } else {
        None
    };
    let done = check_number(statement.parameter_count(), parameters.len())
        .and_then(|()| bind(&mut statement, parameters, 0))
        .and_then(|_| run(&mut statement));
    let stays = let_go(statement, watch);
    done?;
    if let Some(version) = before
        && stays
        && schema::version(connection) == before
        && watch
            .prepared
            .is_plain(version, || schema::is_plain(connection))
    {
        watch.prepared.allow_here(text, version);
    }
    Ok(())
}

/// Whether other statements stay prepared whatever this one does. ANALYZE, for one, has SQLite prepare all
/// of them again.
fn leaves_others_prepared(text: &str) -> bool {
    const DO: [&str; 9] = [
        "SELECT", "VALUES", "WITH", "INSERT", "UPDATE", "DELETE", "REPLACE", "BEGIN", "COMMIT",
    ];
    let end = text.find(|c: char| !c.is_ascii_alphabetic());
    let word = end.map_or(text, |end| text.get(..end).unwrap_or_default());
    DO.iter().any(|it| it.eq_ignore_ascii_case(word))
}

fn check_number(n_wanted: usize, n_given: usize) -> Result<(), Failure> {
    if n_wanted == n_given {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "the statement has {n_wanted} parameters, but {n_given} values are given"
    )))
}

fn read_if_quick(
    statement: &mut Statement<'_>,
    parameters: &[Value],
    bounds: &Bounds,
) -> Option<Rows> {
    if !statement.readonly() || statement.parameter_count() != parameters.len() {
        return None;
    }
    bind(statement, parameters, 0).ok()?;
    let mut collected = Collected::new(Vec::new(), bounds);
    read(statement, &mut collected).ok()?;
    Some(collected.rows)
}

/// Keeps a statement prepared, unless it is large, or could be taken for one that is quick. Says whether it
/// did.
fn let_go(statement: CachedStatement<'_>, watch: &Watch) -> bool {
    let is_slow = watch.is_slow() && statement.readonly();
    let stays = !is_slow && statement.get_status(StatementStatus::MemUsed) <= MAX_KEPT_MEMORY;
    if !stays {
        statement.discard();
    }
    stays
}

/// Gives a statement its values, and says how many of those it has that are not numbered. Others of
/// them went to statements before it.
fn bind(
    statement: &mut Statement<'_>,
    parameters: &[Value],
    n_before: usize,
) -> Result<usize, Failure> {
    let mut n_bound = 0;
    for index in 1..=statement.parameter_count() {
        let number = match statement.parameter_name(index) {
            None => {
                n_bound += 1;
                n_before + n_bound
            }
            Some(name) => number(name)?,
        };
        // `check_numbers` and `check_number` leave only a `?9` of several statements: NULL.
        let Some(value) = number.checked_sub(1).and_then(|n| parameters.get(n)) else {
            break;
        };
        match value {
            Value::Null => statement.raw_bind_parameter(index, Null),
            Value::Boolean(value) => statement.raw_bind_parameter(index, value),
            Value::Integer(value) => statement.raw_bind_parameter(index, value),
            Value::Real(value) => statement.raw_bind_parameter(index, value),
            Value::Text(value) => statement.raw_bind_parameter(index, value.as_str()),
            Value::Blob(value) => statement.raw_bind_parameter(index, value.as_slice()),
        }
        .map_err(read_error)?;
    }
    Ok(n_bound)
}

/// The number in `?1` or `$1`, which SQLite takes for a name.
fn number(name: &str) -> Result<usize, Failure> {
    let digits = name.strip_prefix(['?', '$']).unwrap_or_default();
    let end = digits.find(|c: char| !c.is_ascii_digit());
    let digits = end.map_or(digits, |end| digits.get(..end).unwrap_or_default());
    digits.parse().map_err(|_| {
        Failure::invalid(format!(
            "the parameter {name} has no number: write $1, $2, and so on"
        ))
    })
}

/// Runs a statement to its end. What its columns are called is known for sure once it has run: where a
/// table has changed, SQLite prepares it again by itself.
fn read(statement: &mut Statement<'_>, collected: &mut Collected) -> Result<(), Failure> {
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(read_error)? {
        collected.push(|| read_row(row))?;
    }
    drop(rows);
    if collected.rows.columns.is_empty() {
        let names = statement.column_names();
        collected.rows.columns = names.map(str::to_owned).collect();
    }
    Ok(())
}

fn read_row(row: &Row<'_>) -> Result<Vec<Value>, Failure> {
    let n_columns = row.as_ref().column_count();
    (0..n_columns)
        .map(|index| {
            // The type of the value, not of the column: SQLite stores what it is given.
            Ok(match row.get_ref(index).map_err(read_error)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(value) => Value::Integer(value),
                ValueRef::Real(value) => Value::Real(value),
                ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
                ValueRef::Text(bytes) => match str::from_utf8(bytes) {
                    Ok(text) => Value::Text(text.to_owned()),
                    Err(error) => {
                        let text = format!("a text is not Unicode: {error}");
                        return Err(Failure::Told(Error::Other(text)));
                    }
                },
            })
        })
        .collect()
}

/// Sorts SQLite's result codes (<https://sqlite.org/rescode.html>) by what the guest does next.
pub(super) fn read_error(error: rusqlite::Error) -> Failure {
    let text = sqlite::text(&error);
    Failure::Told(match sqlite::code(&error) {
        Some(ffi::SQLITE_CONSTRAINT) => Error::Constraint(text),
        Some(ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED) => Error::Conflict(text),
        Some(ffi::SQLITE_INTERRUPT) => return Failure::Stopped,
        Some(ffi::SQLITE_IOERR | ffi::SQLITE_FULL | ffi::SQLITE_CANTOPEN) => {
            Error::Unavailable(text)
        }
        Some(ffi::SQLITE_TOOBIG) => Error::TooLarge(text),
        Some(ffi::SQLITE_AUTH) => Error::Denied(text),
        Some(ffi::SQLITE_NOMEM) => Error::Invalid(format!(
            "{text}: the statement takes more of SQLite's instructions than are allowed (at most \
             {MAX_INSTRUCTIONS}); views of views and columns that are computed of others multiply them"
        )),
        Some(ffi::SQLITE_ERROR | ffi::SQLITE_MISMATCH | ffi::SQLITE_RANGE) => Error::Invalid(text),
        _ => Error::Other(text),
    })
}
