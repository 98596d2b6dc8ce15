//! `warren:worker/sql`: a relational database for each worker type. By default a private one of
//! SQLite under the folder that the host was handed, which workers of one type share, also across
//! processes that share the folder; where the operator names it, one of a PostgreSQL server.
//!
//! A run holds at most one connection: taken at its first statement, given back at its end or
//! before it waits for a call. What a run leaves open is rolled back, and nothing of it is left on
//! the connection for the next one.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use warren_protocol::WorkerType;

use crate::{
    Limits, Worker,
    bindings::warren::worker::sql::{Error, Host, Rows, Value},
    capability::{first_use::FirstUse, sqlite::LOCK_TIMEOUT},
    state::State,
};

mod created;
mod outside;
mod placeholders;
mod postgres;
mod rules;
mod schema;
mod sqlite;
mod statement;
mod transaction;
mod url;

pub use self::{
    outside::{Cell, Table},
    url::DatabaseUrl,
};
#[allow(unreachable_pub, reason = "the generated bindings name it in public")]
pub use transaction::Transaction;
use transaction::Transactions;

/// The longest statement, in bytes: values belong into parameters.
const MAX_STATEMENT_BYTES: usize = 100_000;

/// What a thread needs for its stack on which SQLite may work for a guest, in bytes: whoever opens
/// [`Databases`] gives as much to the threads of its runtime that may block. It is set aside, and touched only by
/// a guest that nests on purpose: 1000 views of each other, each 100 deep, take some 60 MB by the
/// sizes of SQLite's frames.
pub const THREAD_STACK_BYTES: usize = 96 << 20;

/// The databases of one host: opened when a worker first needs one, kept while plugins change.
#[derive(Debug)]
pub struct Databases {
    folder: PathBuf,
    open: Mutex<HashMap<Key, Pool>>,
    first_use: FirstUse,
}

/// What has connections of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Embedded(WorkerType),
    /// The server ends statements itself, at a limit that belongs to the connection.
    Postgres(DatabaseUrl, Duration),
}

#[derive(Clone, Debug)]
enum Pool {
    Sqlite(sqlite::Database),
    Postgres(PgPool),
}

/// The connection of one run.
enum Connection {
    Sqlite(sqlite::Connection),
    Postgres(postgres::Connection),
}

/// What begins or ends a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Begin,
    Commit,
    RollBack,
}

/// What one statement may take.
#[derive(Clone)]
struct Bounds {
    most_rows: usize,
    most_bytes: usize,
    statement_end: Instant,
    /// Of the run.
    deadline: Instant,
    cancelled: CancellationToken,
}

/// Why a statement has come to nothing.
#[derive(Debug)]
enum Failure {
    /// The guest is told, and the connection is as good as before.
    Told(Error),
    /// It was ended for its time.
    Stopped,
    /// The guest is told. The connection is gone, and with it a transaction that was open.
    Lost(Error),
}

impl Databases {
    /// Databases under `folder`, each in `<folder>/<TYPE>/worker.sqlite`.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            open: Mutex::default(),
            first_use: FirstUse::default(),
        }
    }

    /// The same, where somebody hears of the first use of each embedded database.
    #[must_use]
    pub fn telling(self, first_use: FirstUse) -> Self {
        Self { first_use, ..self }
    }

    /// Closes all, so that the write-ahead logs are folded into the database files.
    pub async fn close(&self) {
        let pools: Vec<Pool> = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.drain().map(|(_, pool)| pool).collect()
        };
        for pool in pools {
            match pool {
                Pool::Sqlite(pool) => pool.close().await,
                Pool::Postgres(pool) => pool.close().await,
            }
        }
    }

    /// The connections to a database; none is made yet.
    fn pool(&self, key: Key, most_bytes: u64) -> Result<Pool, Failure> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = open.get(&key) {
            return Ok(pool.clone());
        }
        let pool = match &key {
            Key::Embedded(worker_type) => {
                let folder = self.folder.join(worker_type.as_str());
                std::fs::create_dir_all(&folder).map_err(|error| {
                    let text = format!("cannot create the folder of the database: {error}");
                    Failure::Told(Error::Unavailable(text))
                })?;
                self.first_use.tell(worker_type);
                Pool::Sqlite(sqlite::Database::new(
                    &folder.join("worker.sqlite"),
                    most_bytes,
                ))
            }
            Key::Postgres(url, timeout) => Pool::Postgres(postgres::pool(url, *timeout)),
        };
        open.insert(key, pool.clone());
        Ok(pool)
    }
}

impl Connection {
    async fn acquire(pool: &Pool) -> Result<Self, Failure> {
        Ok(match pool {
            Pool::Sqlite(pool) => Self::Sqlite(sqlite::Connection::acquire(pool).await?),
            Pool::Postgres(pool) => Self::Postgres(postgres::Connection::acquire(pool).await?),
        })
    }

    async fn query(
        &mut self,
        statement: String,
        parameters: Vec<Value>,
        bounds: &Bounds,
    ) -> Result<Rows, Failure> {
        check(&statement)?;
        match self {
            Self::Sqlite(connection) => connection.query(statement, parameters, bounds).await,
            Self::Postgres(connection) => connection.query(statement, parameters, bounds).await,
        }
    }

    async fn execute(
        &mut self,
        statement: String,
        parameters: Vec<Value>,
        bounds: &Bounds,
    ) -> Result<u64, Failure> {
        check(&statement)?;
        match self {
            Self::Sqlite(connection) => connection.execute(statement, parameters, bounds).await,
            Self::Postgres(connection) => connection.execute(statement, parameters, bounds).await,
        }
    }

    async fn control(&mut self, control: Control, bounds: &Bounds) -> Result<(), Failure> {
        match self {
            Self::Sqlite(connection) => connection.control(control, bounds).await,
            Self::Postgres(connection) => connection.control(control, bounds).await,
        }
    }

    /// Closes it, so that the database forgets what was not committed.
    async fn close(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await,
            Self::Postgres(connection) => connection.close(),
        }
    }
}

/// What no engine takes.
fn check(statement: &str) -> Result<(), Failure> {
    if statement.len() > MAX_STATEMENT_BYTES {
        return Err(Failure::invalid(format!(
            "the statement has {} bytes; at most {MAX_STATEMENT_BYTES} are taken: use parameters",
            statement.len()
        )));
    }
    if statement.contains('\0') {
        return Err(Failure::invalid("the statement holds a NUL character"));
    }
    Ok(())
}

/// The rows of a result, until they are too many.
struct Collected {
    rows: Rows,
    bytes: usize,
    most_rows: usize,
    most_bytes: usize,
}

impl Collected {
    fn new(columns: Vec<String>, bounds: &Bounds) -> Self {
        Self {
            rows: Rows {
                columns,
                rows: Vec::new(),
            },
            bytes: 0,
            most_rows: bounds.most_rows,
            most_bytes: bounds.most_bytes,
        }
    }

    fn push<E: From<Error>>(
        &mut self,
        read: impl FnOnce() -> Result<Vec<Value>, E>,
    ) -> Result<(), E> {
        let (most_rows, most_bytes) = (self.most_rows, self.most_bytes);
        if self.rows.rows.len() == most_rows {
            let text = format!("more than {most_rows} rows (`sql_rows`)");
            return Err(Error::TooLarge(text).into());
        }
        let values = read()?;
        self.bytes = values
            .iter()
            .map(size)
            .fold(self.bytes, usize::saturating_add);
        if self.bytes > most_bytes {
            return Err(Error::TooLarge(format!("more than {most_bytes} bytes")).into());
        }
        self.rows.rows.push(values);
        Ok(())
    }
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

impl Failure {
    fn invalid(text: impl Into<String>) -> Self {
        Self::Told(Error::Invalid(text.into()))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

/// The database side of one run.
pub(crate) struct Session {
    key: Key,
    databases: Arc<Databases>,
    connection: Option<Connection>,
    transactions: Transactions,
    limits: Limits,
    is_granted: bool,
}

impl Session {
    pub(crate) fn new(worker: &Worker) -> Self {
        let reach = &worker.reach;
        let key = match &reach.database {
            None => Key::Embedded(worker.id.worker_type().clone()),
            Some(url) => Key::Postgres(url.clone(), worker.limits.statement_timeout),
        };
        Self {
            key,
            databases: worker.databases.clone(),
            connection: None,
            transactions: Transactions::default(),
            limits: worker.limits.clone(),
            is_granted: reach.grants.sql,
        }
    }

    /// Gives the connection back unless a transaction needs it: a run that waits for another
    /// worker must not hold what that worker may need.
    pub(crate) fn release(&mut self) {
        if !self.transactions.is_any_open() {
            self.connection = None;
        }
    }

    /// What the next statement may take: its time runs from here.
    fn bounds(&self, deadline: Instant, cancelled: &CancellationToken) -> Bounds {
        Bounds {
            most_rows: self.limits.sql_rows,
            most_bytes: self.limits.payload_bytes,
            statement_end: Instant::now() + self.limits.statement_timeout,
            deadline,
            cancelled: cancelled.clone(),
        }
    }

    async fn connection(&mut self) -> Result<&mut Connection, Failure> {
        if !self.is_granted {
            let reason = "the operator does not give this worker a database (`sql`)";
            return Err(Failure::Told(Error::Denied(reason.to_owned())));
        }
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let pool = self
                    .databases
                    .pool(self.key.clone(), self.limits.database_bytes)?;
                Connection::acquire(&pool).await?
            }
        };
        Ok(self.connection.insert(connection))
    }
}

impl State {
    async fn sql_query(
        &mut self,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<Rows, Error> {
        let run = &mut self.run;
        let bounds = run.sql.bounds(run.deadline, &run.cancelled);
        let result = match run.sql.connection().await {
            Ok(connection) => connection.query(statement, parameters, &bounds).await,
            Err(failure) => Err(failure),
        };
        self.sql_ended(result).await
    }

    async fn sql_execute(
        &mut self,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<u64, Error> {
        let run = &mut self.run;
        let bounds = run.sql.bounds(run.deadline, &run.cancelled);
        let result = match run.sql.connection().await {
            Ok(connection) => connection.execute(statement, parameters, &bounds).await,
            Err(failure) => Err(failure),
        };
        self.sql_ended(result).await
    }

    async fn sql_control(&mut self, control: Control) -> Result<(), Error> {
        let result = self.control_now(control).await;
        self.sql_ended(result).await
    }

    async fn control_now(&mut self, control: Control) -> Result<(), Failure> {
        let run = &mut self.run;
        let bounds = run.sql.bounds(run.deadline, &run.cancelled);
        let connection = run.sql.connection().await?;
        connection.control(control, &bounds).await
    }

    /// Says which limit has stopped a statement. A run that goes on after that has no transaction
    /// any more: SQLite rolls some back itself when it is interrupted, and what the guest executes
    /// next would not be part of one.
    async fn sql_ended<T>(&mut self, result: Result<T, Failure>) -> Result<T, Error> {
        match result {
            Ok(value) => Ok(value),
            Err(Failure::Told(error)) => Err(error),
            Err(Failure::Lost(error)) => {
                self.sql_forget().await;
                Err(error)
            }
            Err(Failure::Stopped) if self.run.is_over(&self.worker.limits) => {
                let text = "the statement was stopped at the deadline of the run";
                Err(Error::Unavailable(text.to_owned()))
            }
            Err(Failure::Stopped) => {
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
        }
    }

    /// Closes the connection, and with it a transaction that is open on it.
    async fn sql_forget(&mut self) {
        let session = &mut self.run.sql;
        session.transactions.forget();
        if let Some(connection) = session.connection.take() {
            connection.close().await;
        }
    }
}

impl Host for State {
    async fn dialect(&mut self) -> wasmtime::Result<String> {
        let name = match self.run.sql.key {
            Key::Embedded(_) => "sqlite",
            Key::Postgres(..) => "postgresql",
        };
        Ok(name.to_owned())
    }

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
