//! SQLite, in this process: one file for each worker type, which processes may share.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use futures_util::TryStreamExt;
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Either, Executor, Row, SqlSafeStr, Sqlite, SqlitePool,
    Statement, TypeInfo, ValueRef,
    pool::PoolConnection,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
        SqliteStatement, SqliteSynchronous,
    },
};

use super::{Bounds, Collected, Control, Failure, LOCK_TIMEOUT, placeholders::numbered, rules};
use crate::{
    bindings::warren::worker::sql::{Error, Rows, Value},
    capability::busy,
};

/// The size of a page of a database, in bytes. Its own limit is a number of pages.
const PAGE_BYTES: u64 = 4096;
/// Rows that SQLite may be ahead of the reader. Each may hold megabytes.
const ROW_BUFFER: usize = 4;
/// Connections to one database. SQLite writes one at a time; readers run beside the writer.
const MAX_CONNECTIONS: u32 = 8;
/// How many instructions of SQLite's virtual machine run between two looks at the deadline: about
/// a tenth of a millisecond.
const OPERATIONS_BETWEEN_CHECKS: i32 = 10_000;

/// The connections to a file. A worker must not fill the disk of its host: what a database may have
/// is a setting of each connection to it.
pub(super) fn pool(file: &Path, most_bytes: u64) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A job is acknowledged after its effects: they must survive a power cut too.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(LOCK_TIMEOUT)
        .pragma(
            "max_page_count",
            (most_bytes / PAGE_BYTES).max(1).to_string(),
        )
        // A cached statement keeps the columns that it once had: when a table has changed since,
        // sqlx reads past the end of a row and panics.
        .statement_cache_capacity(0)
        .row_buffer_size(ROW_BUFFER)
        // The text is the guest's, and may be megabytes.
        .disable_statement_logging();
    SqlitePoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(LOCK_TIMEOUT)
        // A file does not go away as a server does, and each question costs two changes of thread.
        .test_before_acquire(false)
        .after_connect(|connection, _| Box::pin(rules::install(connection)))
        .after_release(|connection, _| {
            Box::pin(async move {
                let is_open = {
                    let mut handle = connection.lock_handle().await?;
                    // First the handler: the deadline of a run that was stopped has passed, and must
                    // not stop the rollback too.
                    handle.remove_progress_handler();
                    rules::is_in_transaction(&mut handle)
                };
                // Only a run that was stopped leaves one.
                if is_open {
                    sqlx::query("ROLLBACK").execute(&mut *connection).await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}

/// The connection of one run.
pub(super) struct Connection {
    inner: PoolConnection<Sqlite>,
    /// When the statement that works now has to end; SQLite's thread looks at it.
    statement_end: Arc<Mutex<Instant>>,
}

impl Connection {
    pub(super) async fn acquire(pool: &SqlitePool, bounds: &Bounds) -> Result<Self, Failure> {
        let opened = busy::opened(LOCK_TIMEOUT, || pool.acquire());
        let mut inner = opened.await.map_err(read_error)?;
        let statement_end = Arc::new(Mutex::new(bounds.statement_end));
        let (deadline, cancelled, end) = (
            bounds.deadline,
            bounds.cancelled.clone(),
            statement_end.clone(),
        );
        inner
            .lock_handle()
            .await
            .map_err(read_error)?
            .set_progress_handler(OPERATIONS_BETWEEN_CHECKS, move || {
                let end = *end.lock().unwrap_or_else(PoisonError::into_inner);
                Instant::now() < deadline.min(end) && !cancelled.is_cancelled()
            });
        Ok(Self {
            inner,
            statement_end,
        })
    }

    /// Closes it, so that nothing of it stays.
    pub(super) async fn close(self) {
        let _ = self.inner.close().await;
    }

    pub(super) async fn control(
        &mut self,
        control: Control,
        bounds: &Bounds,
    ) -> Result<(), Failure> {
        let statement = match control {
            // IMMEDIATE takes the write lock now: a transaction that reads first and writes later
            // would otherwise fail half way when another one wrote in between.
            Control::Begin => "BEGIN IMMEDIATE",
            Control::Commit => "COMMIT",
            Control::RollBack => "ROLLBACK",
        };
        self.execute(statement.to_owned(), Vec::new(), bounds)
            .await
            .map(drop)
    }

    pub(super) async fn query(
        &mut self,
        statement: String,
        parameters: Vec<Value>,
        bounds: &Bounds,
    ) -> Result<Rows, Failure> {
        let statement = self.prepare(statement, parameters.len(), bounds).await?;
        let columns = statement.columns().iter();
        let columns = columns.map(|column| column.name().to_owned()).collect();
        let mut collected = Collected::new(columns, bounds);
        let mut stream = statement
            .query_with(bind(parameters)?)
            .fetch(&mut *self.inner);
        while let Some(row) = stream.try_next().await.map_err(read_error)? {
            collected.push(|| read_row(&row))?;
        }
        Ok(collected.rows)
    }

    pub(super) async fn execute(
        &mut self,
        statement: String,
        parameters: Vec<Value>,
        bounds: &Bounds,
    ) -> Result<u64, Failure> {
        let done = if parameters.is_empty() && is_plain(&statement) {
            // There is nothing to check, and to prepare it costs two changes of thread.
            self.begin(bounds);
            let statement = AssertSqlSafe(statement).into_sql_str();
            (&mut *self.inner).execute(sqlx::query(statement)).await
        } else {
            let statement = self.prepare(statement, parameters.len(), bounds).await?;
            let query = statement.query_with(bind(parameters)?);
            query.execute(&mut *self.inner).await
        };
        Ok(done.map_err(read_error)?.rows_affected())
    }

    /// The time of a statement runs from here.
    fn begin(&self, bounds: &Bounds) {
        *self
            .statement_end
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = bounds.statement_end;
    }

    /// Checks a statement before it runs: SQLite itself takes a missing parameter for NULL.
    async fn prepare(
        &mut self,
        statement: String,
        n_given: usize,
        bounds: &Bounds,
    ) -> Result<SqliteStatement, Failure> {
        self.begin(bounds);
        if let Some(number) = numbered(&statement).find(|number| !(1..=n_given).contains(number)) {
            return Err(Failure::invalid(format!(
                "the statement has a parameter ${number}, but the {n_given} values are numbered \
                 from $1 on"
            )));
        }
        let statement = (&mut *self.inner)
            .prepare(AssertSqlSafe(statement).into_sql_str())
            .await
            .map_err(read_error)?;
        match statement.parameters() {
            Some(Either::Right(n_wanted)) if n_wanted != n_given => Err(Failure::invalid(format!(
                "the statement has {n_wanted} parameters, but {n_given} values are given"
            ))),
            _ => Ok(statement),
        }
    }
}

/// Whether it is one statement without parameters. Of several, a mistake in the second shall keep the
/// first from running as well; where the characters stand in a text, it is only prepared for nothing.
fn is_plain(statement: &str) -> bool {
    let end = |c: char| c == ';' || c.is_ascii_whitespace();
    !statement
        .trim_end_matches(end)
        .contains([';', '?', ':', '@', '$', '#'])
}

fn bind(parameters: Vec<Value>) -> Result<SqliteArguments, Failure> {
    use sqlx::Arguments;
    let mut arguments = SqliteArguments::default();
    for value in parameters {
        match value {
            Value::Null => arguments.add(None::<i64>),
            Value::Boolean(value) => arguments.add(value),
            Value::Integer(value) => arguments.add(value),
            Value::Real(value) => arguments.add(value),
            Value::Text(value) => arguments.add(value),
            Value::Blob(value) => arguments.add(value),
        }
        .map_err(|error| Failure::invalid(error.to_string()))?;
    }
    Ok(arguments)
}

fn read_row(row: &SqliteRow) -> Result<Vec<Value>, Failure> {
    (0..row.len())
        .map(|index| {
            let raw = row.try_get_raw(index).map_err(read_error)?;
            if raw.is_null() {
                return Ok(Value::Null);
            }
            // The type of the value, not of the column: SQLite stores what it is given. The
            // unchecked getters skip sqlx's comparison with the declared type.
            match raw.type_info().name() {
                "INTEGER" | "BOOLEAN" => row.try_get_unchecked(index).map(Value::Integer),
                "REAL" => row.try_get_unchecked(index).map(Value::Real),
                "BLOB" => row.try_get_unchecked(index).map(Value::Blob),
                _ => row.try_get_unchecked(index).map(Value::Text),
            }
            .map_err(read_error)
        })
        .collect()
}

/// Sorts SQLite's result codes (<https://sqlite.org/rescode.html>) by what the guest does next.
fn read_error(error: sqlx::Error) -> Failure {
    let text = error.to_string();
    let code = match &error {
        sqlx::Error::Database(database) => {
            database.code().and_then(|code| code.parse::<i32>().ok())
        }
        sqlx::Error::PoolTimedOut => {
            let text = "every connection is in use".to_owned();
            return Failure::Told(Error::Unavailable(text));
        }
        sqlx::Error::PoolClosed | sqlx::Error::Io(_) => {
            return Failure::Told(Error::Unavailable(text));
        }
        // A parameter of another form, such as `:name`.
        sqlx::Error::Protocol(_) => return Failure::invalid(text),
        _ => None,
    };
    // The low byte is the primary code, the rest says more about it.
    Failure::Told(match code.map(|code| code & 0xff) {
        Some(19) => Error::Constraint(text),
        Some(5 | 6) => Error::Conflict(text),
        Some(9) => return Failure::Stopped,
        Some(10 | 13 | 14) => Error::Unavailable(text),
        Some(18) => Error::TooLarge(text),
        Some(23) => Error::Denied(text),
        Some(1 | 20 | 25) => Error::Invalid(text),
        _ => Error::Other(text),
    })
}
