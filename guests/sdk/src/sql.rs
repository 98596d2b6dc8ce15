//! A relational database, private to this type of worker unless the operator chose otherwise: SQLite,
//! or PostgreSQL ([`dialect`] tells). Parameters are written `$1`, `$2` on both.
//!
//! With `?`, what may go away by itself ([`Error::Conflict`], [`Error::Unavailable`]) makes the host
//! run the job again, and everything else rejects it: the statement or the input is wrong, or the
//! operator does not allow it. [`Error::Other`] is tried again.
//!
//! ```no_run
//! use warren_sdk::{params, sql};
//!
//! # fn handle() -> warren_sdk::Result<()> {
//! sql::execute("INSERT INTO movies (title, year) VALUES ($1, $2)", &params!["Alien", 1979])?;
//! let rows = sql::query("SELECT title FROM movies WHERE year < $1", &params![1980])?;
//! for row in rows.iter() {
//!     let title: String = row.get("title")?;
//! }
//! # Ok(())
//! # }
//! ```

mod value;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::thread;
use std::time::Duration;

use crate::Result;
use crate::bindings::imports::warren::worker::sql;

pub use sql::{Error, Rows, Transaction, Value, dialect, execute, query};
pub use value::FromValue;

/// The parameters of a statement, each anything that a [`Value`](crate::sql::Value) is made from.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        [$($crate::sql::Value::from($value)),*]
    };
}

/// How often a transaction is run before its conflict becomes that of the job.
const ATTEMPTS: u32 = 8;
/// The longest pause before the second time, doubled for each further one: half a second in all.
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// Runs `work` in a transaction and commits it, or rolls it back when `work` fails.
///
/// Where another transaction was in the way ([`Error::Conflict`]), all of it is run again a moment
/// later, up to 8 times: `work` must have no effects but those in the database.
///
/// ```no_run
/// use warren_sdk::{params, sql};
///
/// # fn handle(from: i64, to: i64, amount: i64) -> warren_sdk::Result<()> {
/// sql::transaction(|tx| {
///     let add = "UPDATE accounts SET balance = balance + $1 WHERE id = $2";
///     tx.execute(add, &params![-amount, from])?;
///     tx.execute(add, &params![amount, to])?;
///     Ok(())
/// })
/// # }
/// ```
///
/// # Errors
/// What `work` returns, or why the transaction could not begin or be committed.
pub fn transaction<T>(mut work: impl FnMut(&Transaction) -> Result<T>) -> Result<T> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match attempt(&mut work) {
            Err(error) if error.is_conflict() => {
                // Not all of those who have met at the same moment again.
                let draw = RandomState::new().build_hasher().finish();
                let nanos = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
                thread::sleep(Duration::from_nanos(draw % nanos.max(1)));
                pause *= 2;
            }
            result => return result,
        }
    }
    attempt(&mut work)
}

fn attempt<T>(work: &mut impl FnMut(&Transaction) -> Result<T>) -> Result<T> {
    // A transaction that is dropped is rolled back.
    let transaction = Transaction::begin()?;
    let value = work(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

/// One row of a result.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    columns: &'a [String],
    values: &'a [Value],
}

impl Rows {
    /// The rows, in the order of the statement.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|values| Row {
            columns: &self.columns,
            values,
        })
    }

    /// The first row, if there is one.
    pub fn first(&self) -> Option<Row<'_>> {
        self.iter().next()
    }
}

impl Row<'_> {
    /// The value of a column by its name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no such column or it holds another type. A column that
    /// may be NULL is read as an `Option`.
    pub fn get<T: FromValue>(&self, column: &str) -> Result<T, Error> {
        let value = self
            .columns
            .iter()
            .position(|name| name == column)
            .and_then(|index| self.values.get(index))
            .ok_or_else(|| Error::Invalid(format!("the result has no column `{column}`")))?;
        T::from_value(value.clone())
            .map_err(|error| Error::Invalid(format!("column `{column}`: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        Rows {
            columns: vec!["id".to_owned(), "title".to_owned()],
            rows: vec![params![1, "Alien"].into(), params![2, ()].into()],
        }
    }

    #[test]
    fn columns_are_read_by_name_and_type() {
        let rows = rows();
        let row = rows.first().unwrap();
        assert_eq!(row.get("id"), Ok(1_i64));
        assert_eq!(row.get("title"), Ok("Alien".to_owned()));
    }

    #[test]
    fn null_is_read_only_as_an_option() {
        let rows = rows();
        let row = rows.iter().nth(1).unwrap();
        assert_eq!(row.get::<Option<String>>("title"), Ok(None));
        let error = row.get::<String>("title").unwrap_err();
        assert_eq!(
            error,
            Error::Invalid("column `title`: NULL is not text".to_owned())
        );
    }

    #[test]
    fn a_missing_column_is_named() {
        let error = rows().first().unwrap().get::<i64>("year").unwrap_err();
        assert_eq!(
            error,
            Error::Invalid("the result has no column `year`".to_owned())
        );
    }
}
