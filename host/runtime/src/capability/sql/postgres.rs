//! PostgreSQL, on a server: workers with one URL and one `statement_timeout` share connections.
//!
//! What a guest may reach there is the business of the role that the URL names. What it leaves on a
//! connection is ours: each is put back to its beginning before the next run has it, and one on
//! which that is not possible, or on which a statement still works, is closed.

use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Connection as _, Either, Executor, PgConnection, PgPool,
    Postgres, Row, SqlSafeStr, Statement, ValueRef,
    pool::PoolConnection,
    postgres::{PgArguments, PgDatabaseError, PgPoolOptions, PgRow, PgSeverity, PgStatement},
};
use tokio::time::{Instant, timeout_at};

use super::{Bounds, Collected, Control, DatabaseUrl, Failure, LOCK_TIMEOUT};
use crate::bindings::warren::worker::sql::{Error, Rows, Value};

mod parameter;
mod values;

use parameter::Parameter;
use values::Kind;

/// Connections of this host to one database. A server has a hundred, for all hosts, unless it is
/// told otherwise.
const MAX_CONNECTIONS: u32 = 16;
/// Statements that a connection keeps prepared.
const CACHED_STATEMENTS: usize = 32;
/// The server ends a statement itself. One that it does not end is given up after this.
const GRACE: Duration = Duration::from_millis(500);
/// What ends a transaction that the guest has begun. A savepoint can only be set in one that is
/// open and in which no statement has failed: COMMIT itself answers to a failed one as to a good one.
const COMMIT: &str = "SAVEPOINT warren; COMMIT";
/// What `DISCARD ALL` does, except that what we have prepared stays. A guest that has reached for
/// that, or has prepared something itself, would decide what the next one's statements mean: the
/// figures tell.
const RESET: &str = "ROLLBACK; CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; \
    UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; \
    SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE from_sql) \
    FROM pg_catalog.pg_prepared_statements";

/// The connections to a database; none is made yet.
pub(super) fn pool(url: &DatabaseUrl, statement_timeout: Duration) -> PgPool {
    let milliseconds = |duration: Duration| duration.as_millis().max(1).to_string();
    let options = url
        .options()
        .clone()
        .options([
            ("statement_timeout", milliseconds(statement_timeout)),
            ("lock_timeout", milliseconds(LOCK_TIMEOUT)),
            // A statement ends with the connection on which it was sent: how a run is stopped.
            ("client_connection_check_interval", "1s".to_owned()),
            // A host that is gone without a word must not keep its locks for hours.
            ("tcp_keepalives_idle", "30".to_owned()),
            ("tcp_keepalives_interval", "10".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
            // Nobody reads them.
            ("client_min_messages", "error".to_owned()),
        ])
        .statement_cache_capacity(CACHED_STATEMENTS)
        .disable_statement_logging();
    let options = match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("warren"),
    };
    PgPoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(LOCK_TIMEOUT)
        .after_release(|connection, _| Box::pin(reset(connection)))
        .connect_lazy_with(options)
}

/// What is kept of each part of the server's errors, in bytes.
const MAX_ERROR_BYTES: usize = 4 << 10;

/// Puts a connection back to its beginning, and says whether that has worked.
async fn reset(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let rows = sqlx::raw_sql(RESET).fetch_all(&mut *connection);
    // A server that is gone without a word would keep the connection's place in the pool.
    let rows = tokio::time::timeout(LOCK_TIMEOUT, rows).await;
    let rows = rows.map_err(|_| sqlx::Error::PoolTimedOut)??;
    let figure = |index: usize| -> Option<usize> {
        let value = rows.last()?.try_get_raw(index).ok()?;
        value.as_str().ok()?.parse().ok()
    };
    Ok(figure(0) == Some(connection.cached_statements_size()) && figure(1) == Some(0))
}

/// The connection of one run.
pub(super) struct Connection {
    /// Always there, but for the end.
    inner: Option<PoolConnection<Postgres>>,
    /// A statement was sent, and its end has not been seen.
    is_busy: bool,
    is_in_transaction: bool,
    /// Why no further statement of the open transaction can succeed.
    failed: Option<Error>,
}

impl Connection {
    pub(super) async fn acquire(pool: &PgPool) -> Result<Self, Failure> {
        let inner = pool.acquire().await.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => Failure::Told(Error::Unavailable(format!(
                "no connection to the database within {LOCK_TIMEOUT:?}: it cannot be reached, or \
                 all {MAX_CONNECTIONS} connections of this host are in use"
            ))),
            // Whatever the server says to a connection, it may say something else later.
            error => Failure::Told(Error::Unavailable(format!(
                "no connection to the database: {error}"
            ))),
        })?;
        Ok(Self {
            inner: Some(inner),
            is_busy: false,
            is_in_transaction: false,
            failed: None,
        })
    }

    /// Closes it. The server ends what still works there, and rolls back what is open.
    pub(super) fn close(mut self) {
        self.is_busy = true;
    }

    pub(super) async fn query(
        &mut self,
        statement: String,
        parameters: Vec<Value>,
        bounds: &Bounds,
    ) -> Result<Rows, Failure> {
        match self.run(Task::Query(&statement, &parameters), bounds).await {
            Ok(Done::Rows(rows)) => Ok(rows),
            Ok(Done::Changed(_)) => Err(Failure::Told(Error::Other("no rows".to_owned()))),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn execute(
        &mut self,
        statement: String,
        parameters: Vec<Value>,
        bounds: &Bounds,
    ) -> Result<u64, Failure> {
        let task = Task::Execute(&statement, &parameters);
        self.run(task, bounds).await.map(|done| match done {
            Done::Changed(n_rows) => n_rows,
            Done::Rows(_) => 0,
        })
    }

    pub(super) async fn control(
        &mut self,
        control: Control,
        bounds: &Bounds,
    ) -> Result<(), Failure> {
        let statement = match control {
            // As SQLite: a transaction sees the database as if it were alone. The levels below let
            // two that read before they write lose the change of one.
            Control::Begin => "BEGIN ISOLATION LEVEL SERIALIZABLE",
            Control::Commit => COMMIT,
            Control::RollBack => "ROLLBACK",
        };
        let result = self.run(Task::Control(statement), bounds).await;
        self.is_in_transaction = match control {
            Control::Begin => result.is_ok(),
            // Where it has failed, it is still to be rolled back.
            Control::Commit => result.is_err(),
            Control::RollBack => false,
        };
        if !self.is_in_transaction {
            self.failed = None;
        }
        result.map(drop)
    }

    /// Does a task within the time that there is. One that has met a prepared statement of before
    /// the tables were changed is done once more.
    async fn run(&mut self, task: Task<'_>, bounds: &Bounds) -> Result<Done, Failure> {
        let gone = || Error::Unavailable("the connection to the database is gone".to_owned());
        let Some(connection) = self.inner.as_deref_mut().filter(|_| !self.is_busy) else {
            return Err(Failure::Lost(gone()));
        };
        // Until it is known to have ended, also where nobody waits for that any more.
        self.is_busy = true;
        let end = (bounds.statement_end + GRACE).min(bounds.deadline);
        let is_in_transaction = self.is_in_transaction;
        let both = async {
            match task.run(connection, bounds).await {
                Err(Step::Run(error)) if is_stale(&error) => {
                    if let Err(error) = connection.clear_cached_statements().await {
                        return Err(Step::Run(error));
                    }
                    if is_in_transaction {
                        return Err(Step::Run(error));
                    }
                    task.run(connection, bounds).await
                }
                result => result,
            }
        };
        let Ok(result) = timeout_at(Instant::from_std(end), both).await else {
            return Err(Failure::Stopped);
        };
        let failure = match result {
            Ok(value) => {
                self.is_busy = false;
                return Ok(value);
            }
            Err(Step::Told(error)) => Failure::Told(error),
            Err(Step::Lost(error)) => Failure::Lost(error),
            Err(Step::Prepare(error) | Step::Run(error)) => read_error(error),
        };
        self.is_busy = matches!(failure, Failure::Lost(_));
        match failure {
            Failure::Told(error) if is_in_transaction => {
                // The server answers all that follows with the same words.
                Err(Failure::Told(self.failed.get_or_insert(error).clone()))
            }
            failure => Err(failure),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.is_busy
            && let Some(connection) = self.inner.take()
        {
            drop(connection.detach());
        }
    }
}

/// What is sent to the server.
#[derive(Clone, Copy)]
enum Task<'a> {
    Query(&'a str, &'a [Value]),
    Execute(&'a str, &'a [Value]),
    Control(&'static str),
}

/// What has come of it.
enum Done {
    Rows(Rows),
    Changed(u64),
}

impl Task<'_> {
    async fn run(self, connection: &mut PgConnection, bounds: &Bounds) -> Result<Done, Step> {
        match self {
            Self::Query(text, parameters) => {
                let (statement, arguments) = prepare(connection, text, parameters).await?;
                let mut columns = Columns::of(&statement)?;
                let mut collected = Collected::new(std::mem::take(&mut columns.names), bounds);
                let mut stream = statement.query_with(arguments).fetch(connection);
                while let Some(row) = stream.try_next().await.map_err(Step::Run)? {
                    // More of the result is on its way: it would take long to read it all.
                    let pushed = collected.push(|| columns.read(&row));
                    pushed.map_err(Step::Lost)?;
                }
                drop(stream);
                Ok(Done::Rows(collected.rows))
            }
            Self::Execute(text, parameters) => {
                let (statement, arguments) = prepare(connection, text, parameters).await?;
                let query = statement.query_with(arguments);
                let done = query.execute(connection).await.map_err(Step::Run)?;
                Ok(Done::Changed(done.rows_affected()))
            }
            Self::Control(text) => {
                let done = sqlx::raw_sql(text).execute(connection).await;
                let done = done.map_err(Step::Prepare)?;
                Ok(Done::Changed(done.rows_affected()))
            }
        }
    }
}

/// The columns of a result.
struct Columns {
    names: Vec<String>,
    kinds: Vec<Kind>,
}

impl Columns {
    /// Each has a type for which there is a value.
    fn of(statement: &PgStatement) -> Result<Self, Step> {
        let columns = statement.columns();
        let kinds = columns.iter().map(Kind::of_column);
        Ok(Self {
            kinds: kinds.collect::<Result<_, _>>().map_err(Step::Told)?,
            names: columns.iter().map(|c| c.name().to_owned()).collect(),
        })
    }

    fn read(&self, row: &PgRow) -> Result<Vec<Value>, Error> {
        let read = |(index, kind): (usize, &Kind)| {
            let raw = row.try_get_raw(index);
            let raw = raw.map_err(|error| Error::Other(error.to_string()))?;
            if raw.is_null() {
                return Ok(Value::Null);
            }
            let bytes = raw
                .as_bytes()
                .map_err(|error| Error::Other(error.to_string()))?;
            kind.read(bytes).map_err(|problem| {
                let name = row.try_column(index).map_or("?", Column::name);
                Error::Invalid(format!("column `{name}` {problem}"))
            })
        };
        self.kinds.iter().enumerate().map(read).collect()
    }
}

/// Where a task has ended.
enum Step {
    /// Before anything was sent.
    Told(Error),
    Prepare(sqlx::Error),
    /// What was prepared, now or earlier, has failed.
    Run(sqlx::Error),
    /// In the middle of a result.
    Lost(Error),
}

async fn prepare(
    connection: &mut PgConnection,
    text: &str,
    parameters: &[Value],
) -> Result<(PgStatement, PgArguments), Step> {
    let statement = connection
        .prepare(AssertSqlSafe(text.to_owned()).into_sql_str())
        .await;
    let statement = statement.map_err(|error| match code(&error) {
        Some("42601") if text.contains('?') => Step::Told(Error::Invalid(format!(
            "{error}; parameters are written $1, $2 here, not ?"
        ))),
        _ => Step::Prepare(error),
    })?;
    let arguments = match statement.parameters() {
        Some(Either::Left(types)) if types.len() == parameters.len() => {
            use sqlx::Arguments;
            let mut arguments = PgArguments::default();
            for (index, (value, wanted)) in parameters.iter().zip(types).enumerate() {
                let invalid = |problem: String| {
                    let number = index + 1;
                    Step::Told(Error::Invalid(format!("parameter ${number} {problem}")))
                };
                let parameter = Parameter::new(value, wanted).map_err(invalid)?;
                arguments
                    .add(parameter)
                    .map_err(|error| invalid(error.to_string()))?;
            }
            arguments
        }
        wanted => {
            let n_wanted = match wanted {
                Some(Either::Left(types)) => types.len(),
                _ => 0,
            };
            return Err(Step::Told(Error::Invalid(format!(
                "the statement has {n_wanted} parameters, but {} values are given",
                parameters.len()
            ))));
        }
    };
    Ok((statement, arguments))
}

fn database(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

fn code(error: &sqlx::Error) -> Option<&str> {
    database(error).map(PgDatabaseError::code)
}

/// Whether a prepared statement no longer fits the tables that it names: what is analysed anew
/// gives no such error when it runs.
fn is_stale(error: &sqlx::Error) -> bool {
    let Some(error) = database(error) else {
        return false;
    };
    match error.code() {
        "0A000" => error.message().contains("cached plan"),
        "42501" => false,
        code => code.starts_with("42") || code == "26000",
    }
}

/// A guest may raise an error of hundreds of megabytes.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_ERROR_BYTES))
        .unwrap_or_default()
}

/// Sorts PostgreSQL's codes (<https://www.postgresql.org/docs/current/errcodes-appendix.html>) by
/// what the guest does next.
fn read_error(error: sqlx::Error) -> Failure {
    let Some(database) = database(&error) else {
        return Failure::Lost(match error {
            // Copying to or from the client, for one: it has no part of that protocol.
            sqlx::Error::Protocol(text) => Error::Invalid(format!(
                "the statement talks to its client in a way that has no place here: {text}"
            )),
            error => Error::Unavailable(format!("the connection to the database is gone: {error}")),
        });
    };
    let mut text = cut(database.message()).to_owned();
    for more in [database.detail(), database.hint()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(cut(more));
    }
    let class = database.code().get(..2).unwrap_or_default();
    let error = match (class, database.code()) {
        ("57", "57014") => return Failure::Stopped,
        // Two that create the same table at the same time.
        ("23", _) if database.schema() == Some("pg_catalog") => Error::Conflict(text),
        ("XX", _) if text.contains("concurrently") => Error::Conflict(text),
        ("0A", _) if text.contains("cached plan") => Error::Conflict(text),
        (_, "40002") | ("23" | "44" | "P0", _) => Error::Constraint(text),
        ("40", _) | (_, "55P03") => Error::Conflict(text),
        (_, "42501") => Error::Denied(text),
        // 25006: a server that only reads, until another one has become the first.
        ("08" | "28" | "3D" | "53" | "57" | "58", _) | (_, "25006") => Error::Unavailable(text),
        ("54", _) => Error::TooLarge(text),
        (
            "0A" | "20" | "21" | "22" | "24" | "25" | "26" | "2B" | "2D" | "2F" | "34" | "3B"
            | "3F" | "42" | "55",
            _,
        ) => Error::Invalid(text),
        _ => Error::Other(text),
    };
    match database.severity() {
        PgSeverity::Fatal | PgSeverity::Panic => Failure::Lost(error),
        _ => Failure::Told(error),
    }
}
