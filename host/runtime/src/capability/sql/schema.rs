//! What a database says about its own schema.

use rusqlite::Connection;

/// Columns that are computed when they are read: by functions that nobody is asked about, and as many
/// times as a chain of them says.
const HAS_VIRTUAL_COLUMNS: &str = "SELECT EXISTS (SELECT 1 FROM sqlite_schema AS t, \
     pragma_table_xinfo(t.name) AS c WHERE t.type = 'table' AND c.hidden = 2)";

/// The number that SQLite counts up with each change of the schema, also by other processes.
pub(super) fn version(connection: &Connection) -> Option<i64> {
    at_version(connection, |version| version)
}

/// Does something at one state of the database, whose schema has this version.
pub(super) fn at_version<T>(connection: &Connection, work: impl FnOnce(i64) -> T) -> Option<T> {
    let mut statement = connection.prepare_cached("PRAGMA schema_version").ok()?;
    let mut rows = statement.query([]).ok()?;
    let version = rows.next().ok()??.get(0).ok()?;
    // As long as this statement has not ended, its connection sees no change of others.
    let done = work(version);
    drop(rows);
    Some(done)
}

/// Whether no table has a column that is computed when it is read.
pub(super) fn is_plain(connection: &Connection) -> bool {
    let asked = connection.prepare_cached(HAS_VIRTUAL_COLUMNS);
    let has = asked.and_then(|mut statement| statement.query_one([], |row| row.get::<_, bool>(0)));
    has.is_ok_and(|has| !has)
}
