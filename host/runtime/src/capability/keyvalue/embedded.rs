//! A file of SQLite: nothing to install, durable, and several processes may share the folder.
//!
//! Writes of this process wait for one connection, in the order in which they come: SQLite writes one
//! at a time anyway, and makes those that find it busy sleep. Reads run beside it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{
    ConnectOptions, Row, Sqlite, SqlitePool,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::OnceCell;
use warren_protocol::WorkerType;

use super::engine::{Engine, Failure, Key, Page, Swap, number};
use crate::capability::{busy, first_use::FirstUse};

/// The size of a page, in bytes. SQLite's own limit is a number of pages.
const PAGE_BYTES: u32 = 4096;
/// Connections that read.
const READERS: u32 = 4;
/// How long a write waits for another process's, and for its turn in this one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Keys are bytes: texts would end at a NUL in some of SQLite's functions.
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS pairs (
    bucket TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (bucket, key))";
const GET: &str = "SELECT value FROM pairs WHERE bucket = ? AND key = ?";
const SET: &str = "INSERT INTO pairs (bucket, key, value) VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET value = excluded.value";

/// The store of one worker type.
#[derive(Debug)]
pub(super) struct Embedded {
    folder: PathBuf,
    worker_type: WorkerType,
    most_bytes: u64,
    first_use: FirstUse,
    connections: OnceCell<Connections>,
}

#[derive(Debug)]
struct Connections {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Embedded {
    pub(super) fn new(
        folder: &Path,
        worker_type: WorkerType,
        most_bytes: u64,
        first_use: FirstUse,
    ) -> Self {
        Self {
            folder: folder.join(worker_type.as_str()),
            worker_type,
            most_bytes,
            first_use,
            connections: OnceCell::new(),
        }
    }

    pub(super) async fn close(&self) {
        if let Some(Connections { writer, readers }) = self.connections.get() {
            readers.close().await;
            writer.close().await;
        }
    }

    async fn readers(&self) -> Result<&SqlitePool, Failure> {
        Ok(&self.connections().await?.readers)
    }

    async fn writer(&self) -> Result<&SqlitePool, Failure> {
        Ok(&self.connections().await?.writer)
    }

    /// The lock for writing is taken at once: what is read in here is what is changed. What is not
    /// committed is rolled back when the connection goes back. (Not sqlx's own transactions: SQLite
    /// ends one itself when the store is full, and they lose count.)
    async fn transaction(&self) -> Result<PoolConnection<Sqlite>, Failure> {
        let mut connection = self.writer().await?.acquire().await.map_err(read_error)?;
        let begin = sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection);
        begin.await.map_err(read_error)?;
        Ok(connection)
    }

    async fn connections(&self) -> Result<&Connections, Failure> {
        self.connections.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Connections, Failure> {
        tokio::fs::create_dir_all(&self.folder)
            .await
            .map_err(|error| {
                Failure::Unavailable(format!("cannot create the folder of the store: {error}"))
            })?;
        let options = SqliteConnectOptions::new()
            .filename(self.folder.join("store.sqlite"))
            .create_if_missing(true)
            .page_size(PAGE_BYTES)
            .journal_mode(SqliteJournalMode::Wal)
            // A job is acknowledged after its effects: they must survive a power cut too.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma(
                "max_page_count",
                (self.most_bytes / u64::from(PAGE_BYTES)).max(1).to_string(),
            )
            .disable_statement_logging();
        let pool = |n_connections| {
            SqlitePoolOptions::new()
                .max_connections(n_connections)
                .acquire_timeout(BUSY_TIMEOUT)
                .after_release(|connection, _| {
                    Box::pin(async move {
                        // That there is none is the usual case and answered with an error.
                        let _ = sqlx::query("ROLLBACK").execute(connection).await;
                        Ok(true)
                    })
                })
        };
        let open = || {
            let writer = pool(1).connect_with(options.clone());
            async {
                let writer = writer.await?;
                sqlx::query(SCHEMA).execute(&writer).await?;
                Ok(writer)
            }
        };
        let writer = busy::opened(BUSY_TIMEOUT, open).await.map_err(read_error)?;
        self.first_use.tell(&self.worker_type);
        Ok(Connections {
            writer,
            readers: pool(READERS).connect_lazy_with(options),
        })
    }
}

#[async_trait]
impl Engine for Embedded {
    async fn get(&self, key: Key<'_>) -> Result<Option<Vec<u8>>, Failure> {
        let query = sqlx::query_scalar(GET)
            .bind(key.bucket)
            .bind(key.key.as_bytes());
        let value = query.fetch_optional(self.readers().await?).await;
        value.map_err(read_error)
    }

    async fn set(&self, key: Key<'_>, value: Vec<u8>) -> Result<(), Failure> {
        let query = sqlx::query(SET)
            .bind(key.bucket)
            .bind(key.key.as_bytes())
            .bind(value);
        let done = query.execute(self.writer().await?).await;
        done.map(drop).map_err(read_error)
    }

    async fn exists(&self, key: Key<'_>) -> Result<bool, Failure> {
        let query =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pairs WHERE bucket = ? AND key = ?)")
                .bind(key.bucket)
                .bind(key.key.as_bytes());
        let exists = query.fetch_one(self.readers().await?).await;
        exists.map_err(read_error)
    }

    /// In the order of the keys; the cursor is the last one of a page.
    async fn list_keys(
        &self,
        bucket: &str,
        cursor: Option<String>,
        n_keys: usize,
    ) -> Result<Page, Failure> {
        // No key is less than the empty one, which may be a key itself.
        let (after, is_first) = match &cursor {
            Some(cursor) => (cursor.as_bytes(), false),
            None => (b"".as_slice(), true),
        };
        let query = sqlx::query(
            "SELECT key FROM pairs WHERE bucket = ? AND (key > ? OR (? AND key = x'')) \
             ORDER BY key LIMIT ?",
        )
        .bind(bucket)
        .bind(after)
        .bind(is_first)
        .bind(i64::try_from(n_keys).unwrap_or(i64::MAX));
        let rows = query.fetch_all(self.readers().await?).await;
        let keys = rows.map_err(read_error)?.into_iter().map(|row| {
            let key: Vec<u8> = row.try_get(0).map_err(read_error)?;
            String::from_utf8(key).map_err(|_| Failure::Invalid("a key is not text".to_owned()))
        });
        let keys: Vec<String> = keys.collect::<Result<_, _>>()?;
        let is_full = keys.len() == n_keys;
        let cursor = keys.last().filter(|_| is_full).cloned();
        Ok(Page { keys, cursor })
    }

    async fn increment(&self, key: Key<'_>, delta: i64) -> Result<i64, Failure> {
        let mut transaction = self.transaction().await?;
        let query = sqlx::query_scalar(GET)
            .bind(key.bucket)
            .bind(key.key.as_bytes());
        let value: Option<Vec<u8>> = query
            .fetch_optional(&mut *transaction)
            .await
            .map_err(read_error)?;
        let before = match value {
            Some(value) => number(&value).ok_or_else(Failure::no_number)?,
            None => 0,
        };
        let sum = before.checked_add(delta).ok_or_else(Failure::overflow)?;
        let query = sqlx::query(SET)
            .bind(key.bucket)
            .bind(key.key.as_bytes())
            .bind(sum.to_string().into_bytes());
        query.execute(&mut *transaction).await.map_err(read_error)?;
        commit(transaction).await?;
        Ok(sum)
    }

    async fn swap(
        &self,
        key: Key<'_>,
        seen: Option<&[u8]>,
        value: Vec<u8>,
    ) -> Result<Swap, Failure> {
        let query = match seen {
            Some(seen) => sqlx::query(
                "UPDATE pairs SET value = ?3 WHERE bucket = ?1 AND key = ?2 AND value = ?4",
            )
            .bind(key.bucket)
            .bind(key.key.as_bytes())
            .bind(value)
            .bind(seen),
            None => sqlx::query(
                "INSERT INTO pairs (bucket, key, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(key.bucket)
            .bind(key.key.as_bytes())
            .bind(value),
        };
        let done = query.execute(self.writer().await?).await;
        if done.map_err(read_error)?.rows_affected() > 0 {
            return Ok(Swap::Done);
        }
        Ok(Swap::Other(self.get(key).await?))
    }

    async fn get_many(
        &self,
        bucket: &str,
        keys: &[String],
        most_bytes: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let mut connection = self.readers().await?.acquire().await.map_err(read_error)?;
        let (mut values, mut n_bytes) = (Vec::with_capacity(keys.len()), 0usize);
        for key in keys {
            let query = sqlx::query_scalar(GET).bind(bucket).bind(key.as_bytes());
            let value: Option<Vec<u8>> = query
                .fetch_optional(&mut *connection)
                .await
                .map_err(read_error)?;
            n_bytes = n_bytes.saturating_add(value.as_ref().map_or(0, Vec::len));
            if n_bytes > most_bytes {
                let more = format!("more than {most_bytes}");
                return Err(Failure::too_large(more, most_bytes));
            }
            values.push(value);
        }
        Ok(values)
    }

    /// All or none: so many commits would take their time.
    async fn set_many(&self, bucket: &str, pairs: Vec<(String, Vec<u8>)>) -> Result<(), Failure> {
        let mut transaction = self.transaction().await?;
        for (key, value) in pairs {
            let query = sqlx::query(SET)
                .bind(bucket)
                .bind(key.into_bytes())
                .bind(value);
            query.execute(&mut *transaction).await.map_err(read_error)?;
        }
        commit(transaction).await
    }

    async fn delete_many(&self, bucket: &str, keys: &[String]) -> Result<(), Failure> {
        let mut transaction = self.transaction().await?;
        for key in keys {
            let query = sqlx::query("DELETE FROM pairs WHERE bucket = ? AND key = ?")
                .bind(bucket)
                .bind(key.as_bytes());
            query.execute(&mut *transaction).await.map_err(read_error)?;
        }
        commit(transaction).await
    }
}

async fn commit(mut transaction: PoolConnection<Sqlite>) -> Result<(), Failure> {
    let committed = sqlx::query("COMMIT").execute(&mut *transaction).await;
    committed.map(drop).map_err(read_error)
}

/// The statements are ours and right: what goes wrong is the disk, or somebody else's turn.
fn read_error(error: sqlx::Error) -> Failure {
    let code = error
        .as_database_error()
        .and_then(|error| error.code()?.parse::<i32>().ok());
    // The low byte is the primary code (<https://sqlite.org/rescode.html>).
    Failure::Unavailable(match (code.map(|code| code & 0xff), &error) {
        (Some(5 | 6), _) | (_, sqlx::Error::PoolTimedOut) => "others are writing".to_owned(),
        (Some(13), _) => "the store is full (`database_size`)".to_owned(),
        _ => error.to_string(),
    })
}
