//! What runs any SQL that a test can think of.

use serde_json::{Value, json};
use warren_sdk::sql::{self, Rows, Transaction};
use warren_sdk::{Error, Result, params};

use crate::harm;

/// Runs each statement by itself and says what came of each.
pub(crate) fn run(statements: &[String], parameters: &[Value]) -> Value {
    let parameters: Vec<_> = parameters.iter().map(parameter).collect();
    let one = |statement: &String| shown(sql::query(statement, &parameters));
    statements.iter().map(one).collect()
}

/// Runs each statement in one transaction, going on after errors, and commits it. The last answer is
/// that of the commit.
pub(crate) fn transaction(statements: &[String]) -> Value {
    let transaction = match Transaction::begin() {
        Ok(transaction) => transaction,
        Err(error) => return json!([failed(&error)]),
    };
    let one = |statement: &String| shown(transaction.query(statement, &[]));
    let mut answers: Vec<Value> = statements.iter().map(one).collect();
    answers.push(match transaction.commit() {
        Ok(()) => json!("committed"),
        Err(error) => failed(&error),
    });
    answers.into()
}

/// Reads a number, adds one and writes it, once for each job. Whoever reads before another has
/// written would undo that one's work.
pub(crate) fn add(job_id: &str) -> Result<i64> {
    sql::transaction(|tx| {
        let done = "INSERT INTO jobs (job) VALUES ($1) ON CONFLICT (job) DO NOTHING";
        let is_first = tx.execute(done, &params![job_id])? == 1;
        let rows = tx.query("SELECT n FROM sums WHERE id = 1", &[])?;
        let n: i64 = match rows.first() {
            Some(row) => row.get("n")?,
            None => return Err(Error::reject("there is no sum")),
        };
        if is_first {
            let update = "UPDATE sums SET n = $1 WHERE id = 1";
            tx.execute(update, &params![n + 1])?;
        }
        Ok(n)
    })
}

/// A parameter as JSON says it; bytes are `{"blob": [0, 255]}`.
fn parameter(value: &Value) -> sql::Value {
    match value {
        Value::Null => sql::Value::Null,
        Value::Bool(truth) => sql::Value::Boolean(*truth),
        Value::Number(number) => match number.as_i64() {
            Some(number) => sql::Value::Integer(number),
            None => sql::Value::Real(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => sql::Value::Text(text.clone()),
        Value::Array(_) | Value::Object(_) => {
            let bytes = value["blob"].as_array().into_iter().flatten();
            let byte = |byte: &Value| byte.as_u64().and_then(|byte| u8::try_from(byte).ok());
            sql::Value::Blob(bytes.filter_map(byte).collect())
        }
    }
}

fn shown(answer: Result<Rows, sql::Error>) -> Value {
    match answer {
        Ok(rows) => json!({ "columns": rows.columns, "rows": values(&rows) }),
        Err(error) => failed(&error),
    }
}

fn failed(error: &sql::Error) -> Value {
    let (name, text) = name(error);
    json!({ "error": name, "text": text })
}

/// Leaves a transaction open and never returns.
pub(crate) fn hold<T>(statements: &[String]) -> Result<T> {
    let _open = begin(statements)?;
    harm::turn_for_ever()
}

/// Leaves a transaction open and traps.
pub(crate) fn panic<T>(statements: &[String]) -> Result<T> {
    let _open = begin(statements)?;
    panic!("the test asked for a panic in a transaction")
}

/// Leaves a transaction open and ends well: its handle is never dropped.
pub(crate) fn leave(statements: &[String]) -> Result<()> {
    std::mem::forget(begin(statements)?);
    Ok(())
}

fn begin(statements: &[String]) -> Result<Transaction> {
    let transaction = Transaction::begin()?;
    for statement in statements {
        transaction.execute(statement, &[])?;
    }
    Ok(transaction)
}

/// As JSON says them; what it cannot say, as Rust prints it.
fn values(rows: &Rows) -> Vec<Vec<Value>> {
    let value = |value: &sql::Value| match value {
        sql::Value::Null => Value::Null,
        sql::Value::Integer(number) => (*number).into(),
        sql::Value::Text(text) => text.as_str().into(),
        sql::Value::Boolean(truth) => (*truth).into(),
        other => format!("{other:?}").into(),
    };
    let rows = rows.rows.iter();
    rows.map(|row| row.iter().map(value).collect()).collect()
}

fn name(error: &sql::Error) -> (&'static str, &str) {
    match error {
        sql::Error::Invalid(text) => ("invalid", text),
        sql::Error::Constraint(text) => ("constraint", text),
        sql::Error::Conflict(text) => ("conflict", text),
        sql::Error::TooLarge(text) => ("too-large", text),
        sql::Error::Unavailable(text) => ("unavailable", text),
        sql::Error::Denied(text) => ("denied", text),
        sql::Error::Other(text) => ("other", text),
    }
}
