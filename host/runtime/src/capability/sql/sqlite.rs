//! SQLite, in this process: one file for each worker type, which processes may share.

use std::{path::Path, sync::Arc};

use super::{
    Bounds, Control, Failure,
    created::{self, Created},
    rules,
    statement::{self, check_numbers, is_plain},
};
use crate::{
    bindings::warren::worker::sql::{Error, Rows, Value},
    capability::sqlite::{self, Lease, Options, Watch},
};

/// The size of a page of a database, in bytes. Its own limit is a number of pages.
const PAGE_BYTES: u32 = 4096;
/// Connections to one database. SQLite writes one at a time; readers run beside the writer.
const MAX_CONNECTIONS: u32 = 8;

/// What the runs of one worker type share. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Database {
    connections: sqlite::Pool,
    created: Arc<Created>,
}

impl Database {
    /// Nothing is opened yet.
    pub(super) fn new(file: &Path, most_bytes: u64) -> Self {
        Self {
            connections: sqlite::Pool::new(Options {
                file: file.to_owned(),
                max_connections: MAX_CONNECTIONS,
                page_bytes: PAGE_BYTES,
                most_bytes,
                set_up: rules::install,
            }),
            created: Arc::default(),
        }
    }

    pub(super) async fn close(&self) {
        self.connections.close().await;
    }
}

/// The connection of one run.
pub(super) struct Connection {
    /// `None` when somebody has stopped waiting for it.
    lease: Option<Lease>,
    created: Arc<Created>,
}

impl Connection {
    pub(super) async fn acquire(database: &Database) -> Result<Self, Failure> {
        let lease = database.connections.acquire().await.map_err(unavailable)?;
        Ok(Self {
            lease: Some(lease),
            created: database.created.clone(),
        })
    }

    /// Closes it, so that nothing of it stays.
    pub(super) async fn close(self) {
        if let Some(lease) = self.lease {
            lease.close().await;
        }
    }

    pub(super) async fn control(
        &mut self,
        control: Control,
        bounds: &Bounds,
    ) -> Result<(), Failure> {
        let text = match control {
            // IMMEDIATE takes the write lock now: a transaction that reads first and writes later
            // would otherwise fail half way when another one wrote in between.
            Control::Begin => "BEGIN IMMEDIATE",
            Control::Commit => "COMMIT",
            Control::RollBack => "ROLLBACK",
        };
        let work = |connection: &_, watch: &_| statement::execute(connection, watch, text, &[]);
        self.aside(bounds, work).await.map(drop)
    }

    pub(super) async fn query(
        &mut self,
        text: String,
        parameters: Vec<Value>,
        bounds: &Bounds,
    ) -> Result<Rows, Failure> {
        check_numbers(&text, parameters.len())?;
        if let Some(lease) = &self.lease {
            let was_open = lease.is_in_transaction();
            let rows = lease.here(|connection, watch| {
                statement::read_here(connection, watch, &text, &parameters, bounds)
            });
            if let Some(rows) = rows {
                return Ok(rows);
            }
            if was_open && !lease.is_in_transaction() {
                // A full disk undoes more than the statement that meets it.
                let text = "the database has rolled the transaction back";
                return Err(Failure::Lost(Error::Unavailable(text.to_owned())));
            }
        }
        let most = bounds.clone();
        let work = move |connection: &_, watch: &_| {
            statement::query(connection, watch, &text, &parameters, &most)
        };
        self.aside(bounds, work).await
    }

    pub(super) async fn execute(
        &mut self,
        text: String,
        parameters: Vec<Value>,
        bounds: &Bounds,
    ) -> Result<u64, Failure> {
        check_numbers(&text, parameters.len())?;
        let is_creation = parameters.is_empty() && is_plain(&text) && created::is_one(&text);
        if is_creation && self.is_created(&text) {
            return Ok(0);
        }
        let created = self.created.clone();
        let work = move |connection: &_, watch: &_| {
            if is_creation {
                return created.execute(connection, &text, || {
                    statement::execute(connection, watch, &text, &parameters)
                });
            }
            statement::execute(connection, watch, &text, &parameters)
        };
        self.aside(bounds, work).await
    }

    /// Whether it is known that the text would do nothing.
    fn is_created(&self, text: &str) -> bool {
        let lease = self.lease.as_ref();
        let lease = lease.filter(|lease| !lease.is_in_transaction());
        let is_known = lease
            .and_then(|lease| lease.here(|connection, _| self.created.is_known(connection, text)));
        is_known.is_some()
    }

    async fn aside<T: Send + 'static>(
        &mut self,
        bounds: &Bounds,
        work: impl FnOnce(&rusqlite::Connection, &Watch) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let until = Some(bounds.statement_end.min(bounds.deadline));
        let done = Lease::aside(&mut self.lease, until, &bounds.cancelled, work);
        done.await.map_err(|error| match error {
            sqlite::Error::Stopped => Failure::Stopped,
            error => Failure::Lost(told(error)),
        })?
    }
}

fn unavailable(error: sqlite::Error) -> Failure {
    match error {
        sqlite::Error::Sqlite(error) => statement::read_error(error),
        error => Failure::Told(told(error)),
    }
}

fn told(error: sqlite::Error) -> Error {
    Error::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests;
