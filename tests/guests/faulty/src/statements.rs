//! What runs any SQL that a test can think of.

use serde_json::{Value, json};
use warren_sdk::sql::{self, Error, Rows};
use warren_sdk::{Result, sql::Transaction};

use crate::harm;

/// Runs each statement by itself and says what came of each.
pub(crate) fn run(statements: &[String]) -> Value {
    statements
        .iter()
        .map(|statement| match sql::query(statement, &[]) {
            Ok(rows) => json!({ "columns": rows.columns, "rows": values(&rows) }),
            Err(error) => {
                let (name, text) = name(&error);
                json!({ "error": name, "text": text })
            }
        })
        .collect()
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
        other => format!("{other:?}").into(),
    };
    let rows = rows.rows.iter();
    rows.map(|row| row.iter().map(value).collect()).collect()
}

fn name(error: &Error) -> (&'static str, &str) {
    match error {
        Error::Invalid(text) => ("invalid", text),
        Error::Constraint(text) => ("constraint", text),
        Error::Conflict(text) => ("conflict", text),
        Error::TooLarge(text) => ("too-large", text),
        Error::Unavailable(text) => ("unavailable", text),
        Error::Other(text) => ("other", text),
    }
}
