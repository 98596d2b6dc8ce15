//! A file of SQLite: nothing to install, durable, and several processes may share the folder.
//!
//! Writes of this process wait for one connection, in the order in which they come: SQLite writes one
//! at a time anyway, and makes those that find it busy sleep. Reads run beside it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, ffi, params};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use warren_protocol::WorkerType;

use super::engine::{Engine, Failure, Key, Page, Swap, number};
use crate::capability::{
    first_use::FirstUse,
    sqlite::{self, Lease, Options, Pool, Watch},
};

/// The size of a page, in bytes. SQLite's own limit is a number of pages.
const PAGE_BYTES: u32 = 4096;
/// Connections that read.
const READERS: u32 = 4;
/// Keys are bytes: texts would end at a NUL in some of SQLite's functions.
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS pairs (
    bucket TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (bucket, key))";
const GET: &str = "SELECT value FROM pairs WHERE bucket = ? AND key = ?";
const SET: &str = "INSERT INTO pairs (bucket, key, value) VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET value = excluded.value";

/// What is said when somebody else has the turn.
const BUSY: &str = "others are writing";

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
    writer: Pool,
    readers: Pool,
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

    async fn connections(&self) -> Result<&Connections, Failure> {
        self.connections.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Connections, Failure> {
        tokio::fs::create_dir_all(&self.folder)
            .await
            .map_err(|error| {
                Failure::Unavailable(format!("cannot create the folder of the store: {error}"))
            })?;
        let readers = Options {
            file: self.folder.join("store.sqlite"),
            max_connections: READERS,
            page_bytes: PAGE_BYTES,
            most_bytes: self.most_bytes,
            set_up: |_, _| Ok(()),
        };
        let writer = Pool::new(Options {
            max_connections: 1,
            set_up: |connection, _| connection.execute_batch(SCHEMA),
            ..readers.clone()
        });
        // It is opened now, because readers need the table.
        drop(writer.acquire().await.map_err(unavailable)?);
        self.first_use.tell(&self.worker_type);
        Ok(Connections {
            writer,
            readers: Pool::new(readers),
        })
    }

    /// Reads on the thread that asks, or once more elsewhere if that takes its time.
    async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&Connection, &Watch) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Failure> {
        let lease = self.connections().await?.readers.acquire().await;
        let lease = lease.map_err(unavailable)?;
        let done = lease.here(|connection, watch| read(connection, watch).ok());
        match done {
            Some(value) => Ok(value),
            None => aside(lease, read).await,
        }
    }

    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection, &Watch) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Failure> {
        let lease = self.connections().await?.writer.acquire().await;
        aside(lease.map_err(unavailable)?, write).await
    }

    /// The lock for writing is taken at once: what is read in here is what is changed. What is not
    /// committed is rolled back when the connection goes back.
    async fn transaction<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Failure> {
        self.write(|connection, _| {
            connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            let value = write(connection)?;
            connection.prepare_cached("COMMIT")?.execute([])?;
            Ok(value)
        })
        .await
    }
}

#[async_trait]
impl Engine for Embedded {
    async fn get(&self, key: Key<'_>) -> Result<Option<Vec<u8>>, Failure> {
        let key = OwnKey::of(key);
        self.read(move |connection, _| get(connection, &key)).await
    }

    async fn set(&self, key: Key<'_>, value: Vec<u8>) -> Result<(), Failure> {
        let key = OwnKey::of(key);
        self.write(move |connection, _| set(connection, &key, &value))
            .await
    }

    async fn exists(&self, key: Key<'_>) -> Result<bool, Failure> {
        const EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM pairs WHERE bucket = ? AND key = ?)";
        let OwnKey { bucket, key } = OwnKey::of(key);
        self.read(move |connection, _| {
            let mut exists = connection.prepare_cached(EXISTS)?;
            Ok(exists.query_one(params![bucket, key], |row| row.get(0))?)
        })
        .await
    }

    /// In the order of the keys; the cursor is the last one of a page.
    async fn list_keys(
        &self,
        bucket: &str,
        cursor: Option<String>,
        n_keys: usize,
    ) -> Result<Page, Failure> {
        // No key is less than the empty one, which may be a key itself.
        const LIST: &str = "SELECT key FROM pairs
            WHERE bucket = ? AND (key > ? OR (? AND key = x'')) ORDER BY key LIMIT ?";
        let is_first = cursor.is_none();
        let after = cursor.unwrap_or_default().into_bytes();
        let (bucket, limit) = (bucket.to_owned(), i64::try_from(n_keys).unwrap_or(i64::MAX));
        let keys = self.read(move |connection, _| {
            let mut list = connection.prepare_cached(LIST)?;
            let keys = list.query_map(params![bucket, after, is_first, limit], |row| row.get(0))?;
            Ok(keys.collect::<Result<Vec<Vec<u8>>, _>>()?)
        });
        let keys = keys.await?.into_iter().map(|key| {
            String::from_utf8(key).map_err(|_| Failure::Invalid("a key is not text".to_owned()))
        });
        let keys: Vec<String> = keys.collect::<Result<_, _>>()?;
        let is_full = keys.len() == n_keys;
        let cursor = keys.last().filter(|_| is_full).cloned();
        Ok(Page { keys, cursor })
    }

    async fn increment(&self, key: Key<'_>, delta: i64) -> Result<i64, Failure> {
        let key = OwnKey::of(key);
        self.transaction(move |connection| {
            let before = match get(connection, &key)? {
                Some(value) => number(&value).ok_or_else(Failure::no_number)?,
                None => 0,
            };
            let sum = before.checked_add(delta).ok_or_else(Failure::overflow)?;
            set(connection, &key, sum.to_string().as_bytes())?;
            Ok(sum)
        })
        .await
    }

    async fn swap(
        &self,
        key: Key<'_>,
        seen: Option<&[u8]>,
        value: Vec<u8>,
    ) -> Result<Swap, Failure> {
        const REPLACE: &str =
            "UPDATE pairs SET value = ? WHERE bucket = ? AND key = ? AND value = ?";
        const INSERT: &str = "INSERT INTO pairs (value, bucket, key) VALUES (?, ?, ?)
            ON CONFLICT DO NOTHING";
        let (own, seen) = (OwnKey::of(key), seen.map(<[u8]>::to_vec));
        let n_swapped = self.write(move |connection, _| {
            let OwnKey { bucket, key } = own;
            Ok(match seen {
                Some(seen) => {
                    let mut replace = connection.prepare_cached(REPLACE)?;
                    replace.execute(params![value, bucket, key, seen])?
                }
                None => {
                    let mut insert = connection.prepare_cached(INSERT)?;
                    insert.execute(params![value, bucket, key])?
                }
            })
        });
        if n_swapped.await? > 0 {
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
        let own = |key| OwnKey::of(Key { bucket, key });
        let keys: Vec<OwnKey> = keys.iter().map(|key| own(key)).collect();
        self.read(move |connection, watch| {
            let (mut values, mut n_bytes) = (Vec::with_capacity(keys.len()), 0usize);
            for key in &keys {
                // Each of them is too short for SQLite to look at the time itself.
                if watch.is_over() {
                    return Err(Failed::Stopped);
                }
                let value = get(connection, key)?;
                n_bytes = n_bytes.saturating_add(value.as_ref().map_or(0, Vec::len));
                if n_bytes > most_bytes {
                    let more = format!("more than {most_bytes}");
                    return Err(Failure::too_large(more, most_bytes).into());
                }
                values.push(value);
            }
            Ok(values)
        })
        .await
    }

    /// All or none: so many commits would take their time.
    async fn set_many(&self, bucket: &str, pairs: Vec<(String, Vec<u8>)>) -> Result<(), Failure> {
        let bucket: Arc<str> = bucket.into();
        self.transaction(move |connection| {
            for (key, value) in pairs {
                let (bucket, key) = (bucket.clone(), key.into_bytes());
                set(connection, &OwnKey { bucket, key }, &value)?;
            }
            Ok(())
        })
        .await
    }

    async fn delete_many(&self, bucket: &str, keys: &[String]) -> Result<(), Failure> {
        const DELETE: &str = "DELETE FROM pairs WHERE bucket = ? AND key = ?";
        let (bucket, keys) = (bucket.to_owned(), keys.to_vec());
        self.transaction(move |connection| {
            let mut delete = connection.prepare_cached(DELETE)?;
            for key in keys {
                delete.execute(params![bucket, key.as_bytes()])?;
            }
            Ok(())
        })
        .await
    }
}

/// A key that goes along to another thread.
struct OwnKey {
    bucket: Arc<str>,
    key: Vec<u8>,
}

impl OwnKey {
    fn of(Key { bucket, key }: Key<'_>) -> Self {
        Self {
            bucket: bucket.into(),
            key: key.as_bytes().to_vec(),
        }
    }
}

fn get(
    connection: &Connection,
    OwnKey { bucket, key }: &OwnKey,
) -> Result<Option<Vec<u8>>, Failed> {
    let mut get = connection.prepare_cached(GET)?;
    let value = get.query_row(params![bucket, key], |row| row.get(0));
    Ok(value.optional()?)
}

fn set(
    connection: &Connection,
    OwnKey { bucket, key }: &OwnKey,
    value: &[u8],
) -> Result<(), Failed> {
    let mut set = connection.prepare_cached(SET)?;
    set.execute(params![bucket, key, value])?;
    Ok(())
}

/// Does it on a thread that may block. Nobody stops it but who does not wait any more.
async fn aside<T: Send + 'static>(
    lease: Lease,
    work: impl FnOnce(&Connection, &Watch) -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failure> {
    let (mut lease, nobody) = (Some(lease), CancellationToken::new());
    let done = Lease::aside(&mut lease, None, &nobody, work).await;
    done.map_err(unavailable)?.map_err(|failed| match failed {
        Failed::Told(failure) => failure,
        Failed::Stopped => Failure::Unavailable("it was stopped".to_owned()),
        Failed::Sqlite(error) => read_error(&error),
    })
}

/// Why something has come to nothing.
enum Failed {
    Told(Failure),
    Stopped,
    Sqlite(rusqlite::Error),
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self::Told(failure)
    }
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn unavailable(error: sqlite::Error) -> Failure {
    match error {
        sqlite::Error::AllInUse => Failure::Unavailable(BUSY.to_owned()),
        sqlite::Error::Sqlite(error) => read_error(&error),
        error => Failure::Unavailable(error.to_string()),
    }
}

/// The statements are ours and right: what goes wrong is the disk, or somebody else's turn.
fn read_error(error: &rusqlite::Error) -> Failure {
    Failure::Unavailable(match sqlite::code(error) {
        Some(ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED) => BUSY.to_owned(),
        Some(ffi::SQLITE_FULL) => "the store is full (`database_size`)".to_owned(),
        _ => sqlite::text(error),
    })
}
