//! `warren:worker/sql`: a private SQLite database for each worker type, under the folder that the
//! host was handed. Workers of one type share it, also across processes that share the folder.
//!
//! A run holds at most one connection: taken at its first statement, given back at its end or
//! before it waits for a call. What a run leaves open is rolled back.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
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
use tokio_util::sync::CancellationToken;
use warren_protocol::WorkerType;

use crate::{
    Limits, Worker,
    bindings::warren::worker::sql::{Error, Host, Rows, Value},
    state::State,
};

mod rules;
mod transaction;

#[allow(unreachable_pub, reason = "the generated bindings name it in public")]
pub use transaction::Transaction;
use transaction::Transactions;

/// The longest statement, in bytes: values belong into parameters.
const MAX_STATEMENT_BYTES: usize = 100_000;
/// The size of a page of a database, in bytes. Its own limit is a number of pages.
const PAGE_BYTES: u64 = 4096;
/// Rows that SQLite may be ahead of the reader. Each may hold megabytes.
const ROW_BUFFER: usize = 4;
/// What SQLite's own end of a statement is called until it is known which limit has ended it.
const STOPPED: &str = "the statement was stopped at the deadline of the run";
/// Connections to one database. SQLite writes one at a time; readers run beside the writer.
const MAX_CONNECTIONS: u32 = 8;
/// How long a statement waits for another process's write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many instructions of SQLite's virtual machine run between two looks at the deadline: about
/// a tenth of a millisecond.
const OPERATIONS_BETWEEN_CHECKS: i32 = 10_000;

/// The databases of one host: opened when a worker first needs one, kept while plugins change.
#[derive(Debug)]
pub struct Databases {
    folder: PathBuf,
    open: Mutex<HashMap<WorkerType, SqlitePool>>,
}

impl Databases {
    /// Databases under `folder`, each in `<folder>/<TYPE>/worker.sqlite`.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            open: Mutex::default(),
        }
    }

    /// Closes all, so that the write-ahead logs are folded into the database files.
    pub async fn close(&self) {
        let pools: Vec<SqlitePool> = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.drain().map(|(_, pool)| pool).collect()
        };
        for pool in pools {
            pool.close().await;
        }
    }

    /// The connections of one worker type; none is made yet.
    fn pool(&self, worker_type: &WorkerType, most_bytes: u64) -> Result<SqlitePool, Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = open.get(worker_type) {
            return Ok(pool.clone());
        }
        let folder = self.folder.join(worker_type.as_str());
        std::fs::create_dir_all(&folder).map_err(|error| {
            Error::Unavailable(format!("cannot create the folder of the database: {error}"))
        })?;
        let pool = connections(&folder.join("worker.sqlite"), most_bytes);
        open.insert(worker_type.clone(), pool.clone());
        Ok(pool)
    }
}

/// A worker must not fill the disk of its host: what a database may have is a setting of each
/// connection to it.
fn connections(file: &Path, most_bytes: u64) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A job is acknowledged after its effects: they must survive a power cut too.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
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
        .acquire_timeout(BUSY_TIMEOUT)
        .after_connect(|connection, _| Box::pin(rules::install(connection)))
        .after_release(|connection, _| {
            Box::pin(async move {
                // First the handler: the deadline of a run that was stopped has passed, and must
                // not stop the rollback too.
                connection.lock_handle().await?.remove_progress_handler();
                // A run that was stopped may have left a transaction open. That there is none is
                // the usual case and answered with an error.
                let _ = sqlx::query("ROLLBACK").execute(&mut *connection).await;
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}

/// The database side of one run.
pub(crate) struct Session {
    worker_type: WorkerType,
    databases: Arc<Databases>,
    connection: Option<PoolConnection<Sqlite>>,
    transactions: Transactions,
    limits: Limits,
    is_granted: bool,
    /// When the statement that works now has to end; SQLite's thread looks at it.
    statement_end: Arc<Mutex<Instant>>,
}

impl Session {
    pub(crate) fn new(worker: &Worker) -> Self {
        Self {
            worker_type: worker.id.worker_type().clone(),
            databases: worker.databases.clone(),
            connection: None,
            transactions: Transactions::default(),
            limits: worker.limits.clone(),
            is_granted: worker.reach.grants.sql,
            statement_end: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// Gives the connection back unless a transaction needs it: a run that waits for another
    /// worker must not hold what that worker may need.
    pub(crate) fn release(&mut self) {
        if !self.transactions.is_any_open() {
            self.connection = None;
        }
    }

    async fn connection(
        &mut self,
        deadline: Instant,
        cancelled: &CancellationToken,
    ) -> Result<&mut PoolConnection<Sqlite>, Error> {
        if !self.is_granted {
            let reason = "the operator does not give this worker a database (`sql`)";
            return Err(Error::Other(reason.to_owned()));
        }
        if self.connection.is_none() {
            let pool = self
                .databases
                .pool(&self.worker_type, self.limits.database_bytes)?;
            let mut connection = pool.acquire().await.map_err(read_error)?;
            let (cancelled, end) = (cancelled.clone(), self.statement_end.clone());
            connection
                .lock_handle()
                .await
                .map_err(read_error)?
                .set_progress_handler(OPERATIONS_BETWEEN_CHECKS, move || {
                    let end = *end.lock().unwrap_or_else(PoisonError::into_inner);
                    Instant::now() < deadline.min(end) && !cancelled.is_cancelled()
                });
            self.connection = Some(connection);
        }
        // Every statement asks for the connection: its time runs from here.
        let end = self.statement_end.lock();
        *end.unwrap_or_else(PoisonError::into_inner) =
            Instant::now() + self.limits.statement_timeout;
        self.connection
            .as_mut()
            .ok_or_else(|| Error::Other("no connection".to_owned()))
    }
}

impl State {
    async fn sql_query(
        &mut self,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<Rows, Error> {
        let result = self.query_now(statement, parameters).await;
        self.sql_ended(result).await
    }

    async fn sql_execute(
        &mut self,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<u64, Error> {
        let result = self.execute_now(statement, parameters).await;
        self.sql_ended(result).await
    }

    /// Says which limit has stopped a statement. A run that goes on after that has no transaction
    /// any more: SQLite rolls some back itself when it is interrupted, and what the guest executes
    /// next would not be part of one.
    async fn sql_ended<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        match result {
            Err(Error::Unavailable(text))
                if text == STOPPED && !self.run.is_over(&self.worker.limits) =>
            {
                let was_open = self.roll_back_open().await;
                let timeout = self.run.sql.limits.statement_timeout;
                let undone = if was_open {
                    ", and its transaction was rolled back"
                } else {
                    ""
                };
                Err(Error::Unavailable(format!(
                    "the statement took longer than {timeout:?} (`statement_timeout`){undone}"
                )))
            }
            result => result,
        }
    }

    async fn query_now(
        &mut self,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<Rows, Error> {
        let (most_bytes, most_rows) = (
            self.run.sql.limits.payload_bytes,
            self.run.sql.limits.sql_rows,
        );
        let run = &mut self.run;
        let connection = run.sql.connection(run.deadline, &run.cancelled).await?;
        let statement = prepare(connection, statement, parameters.len()).await?;
        let columns = statement.columns().iter();
        let mut rows = Rows {
            columns: columns.map(|column| column.name().to_owned()).collect(),
            rows: Vec::new(),
        };
        let mut stream = statement
            .query_with(bind(parameters)?)
            .fetch(&mut **connection);
        let mut bytes = 0usize;
        while let Some(row) = stream.try_next().await.map_err(read_error)? {
            if rows.rows.len() == most_rows {
                return Err(Error::TooLarge(format!(
                    "more than {most_rows} rows (`sql_rows`)"
                )));
            }
            let values = read_row(&row)?;
            bytes = values.iter().map(size).fold(bytes, usize::saturating_add);
            if bytes > most_bytes {
                return Err(Error::TooLarge(format!("more than {most_bytes} bytes")));
            }
            rows.rows.push(values);
        }
        Ok(rows)
    }

    async fn execute_now(
        &mut self,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<u64, Error> {
        let run = &mut self.run;
        let connection = run.sql.connection(run.deadline, &run.cancelled).await?;
        let statement = prepare(connection, statement, parameters.len()).await?;
        let query = statement.query_with(bind(parameters)?);
        let done = query.execute(&mut **connection).await.map_err(read_error)?;
        Ok(done.rows_affected())
    }
}

impl Host for State {
    async fn query(
        &mut self,
        statement: String,
        parameters: Vec<Value>,
    ) -> wasmtime::Result<Result<Rows, Error>> {
        Ok(self.sql_query(statement, parameters).await)
    }

    async fn execute(
        &mut self,
        statement: String,
        parameters: Vec<Value>,
    ) -> wasmtime::Result<Result<u64, Error>> {
        Ok(self.sql_execute(statement, parameters).await)
    }
}

/// Checks a statement before it runs: SQLite itself takes a missing parameter for NULL.
async fn prepare(
    connection: &mut PoolConnection<Sqlite>,
    statement: String,
    n_given: usize,
) -> Result<SqliteStatement, Error> {
    if statement.len() > MAX_STATEMENT_BYTES {
        return Err(Error::Invalid(format!(
            "the statement has {} bytes; at most {MAX_STATEMENT_BYTES} are taken: use parameters",
            statement.len()
        )));
    }
    let statement = (&mut **connection)
        .prepare(AssertSqlSafe(statement).into_sql_str())
        .await
        .map_err(read_error)?;
    match statement.parameters() {
        Some(Either::Right(n_wanted)) if n_wanted != n_given => Err(Error::Invalid(format!(
            "the statement has {n_wanted} parameters, but {n_given} values are given"
        ))),
        _ => Ok(statement),
    }
}

fn bind(parameters: Vec<Value>) -> Result<SqliteArguments, Error> {
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
        .map_err(|error| Error::Invalid(error.to_string()))?;
    }
    Ok(arguments)
}

fn read_row(row: &SqliteRow) -> Result<Vec<Value>, Error> {
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

/// What a value takes in memory, in bytes: a million empty texts are not nothing.
fn size(value: &Value) -> usize {
    let beside = match value {
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        _ => 0,
    };
    size_of::<Value>().saturating_add(beside)
}

/// Sorts SQLite's result codes (<https://sqlite.org/rescode.html>) by what the guest does next.
fn read_error(error: sqlx::Error) -> Error {
    let text = error.to_string();
    let code = match &error {
        sqlx::Error::Database(database) => {
            database.code().and_then(|code| code.parse::<i32>().ok())
        }
        sqlx::Error::PoolTimedOut => {
            return Error::Unavailable("every connection is in use".to_owned());
        }
        sqlx::Error::PoolClosed | sqlx::Error::Io(_) => return Error::Unavailable(text),
        _ => None,
    };
    // The low byte is the primary code, the rest says more about it.
    match code.map(|code| code & 0xff) {
        Some(19) => Error::Constraint(text),
        Some(5 | 6) => Error::Conflict(text),
        Some(9) => Error::Unavailable(STOPPED.to_owned()),
        Some(10 | 13 | 14) => Error::Unavailable(text),
        Some(18) => Error::TooLarge(text),
        Some(1 | 20 | 23 | 25) => Error::Invalid(text),
        _ => Error::Other(text),
    }
}
