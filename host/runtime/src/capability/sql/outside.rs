//! Statements on a worker's database that are none of a guest: what a test of a guest puts there
//! before a run, and looks for after it. The worker's grants, limits and engine are those of its runs.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::{Failure, Session};
use crate::{
    Worker,
    bindings::warren::worker::sql::{Error, Rows, Value},
};

/// The result of a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The names of the columns, in the order of the statement.
    pub columns: Vec<String>,
    /// The rows, each with one value for each column.
    pub rows: Vec<Vec<Cell>>,
}

/// One value of a row, in the forms that the contract has.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// SQL NULL.
    Null,
    /// SQLite has integers instead.
    Boolean(bool),
    /// Up to 64 bits.
    Integer(i64),
    /// A double.
    Real(f64),
    /// Unicode text, and what the contract returns as text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Worker {
    /// Runs one statement that changes something.
    ///
    /// # Errors
    /// A text for whoever wrote the statement.
    pub async fn execute_sql(&self, statement: &str) -> Result<u64, String> {
        let (mut session, end) = (Session::new(self), CancellationToken::new());
        let bounds = session.bounds(Instant::now() + self.limits.deadline, &end);
        let done = match session.connection().await {
            Ok(connection) => {
                let statement = statement.to_owned();
                connection.execute(statement, Vec::new(), &bounds).await
            }
            Err(failure) => Err(failure),
        };
        done.map_err(text)
    }

    /// Runs one statement that returns rows.
    ///
    /// # Errors
    /// As [`Worker::execute_sql`].
    pub async fn query_sql(&self, statement: &str) -> Result<Table, String> {
        let (mut session, end) = (Session::new(self), CancellationToken::new());
        let bounds = session.bounds(Instant::now() + self.limits.deadline, &end);
        let done = match session.connection().await {
            Ok(connection) => {
                let statement = statement.to_owned();
                connection.query(statement, Vec::new(), &bounds).await
            }
            Err(failure) => Err(failure),
        };
        let Rows { columns, rows } = done.map_err(text)?;
        let cells = |row: Vec<Value>| row.into_iter().map(Cell::from).collect();
        Ok(Table {
            columns,
            rows: rows.into_iter().map(cells).collect(),
        })
    }
}

impl From<Value> for Cell {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Boolean(truth) => Self::Boolean(truth),
            Value::Integer(number) => Self::Integer(number),
            Value::Real(number) => Self::Real(number),
            Value::Text(text) => Self::Text(text),
            Value::Blob(bytes) => Self::Blob(bytes),
        }
    }
}

fn text(failure: Failure) -> String {
    match failure {
        Failure::Stopped => "the statement took too long (`statement_timeout`)".to_owned(),
        Failure::Told(error) | Failure::Lost(error) => match error {
            Error::Invalid(text)
            | Error::Constraint(text)
            | Error::Conflict(text)
            | Error::TooLarge(text)
            | Error::Unavailable(text)
            | Error::Denied(text)
            | Error::Other(text) => text,
        },
    }
}
