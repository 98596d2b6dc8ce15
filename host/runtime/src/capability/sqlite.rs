//! Files of SQLite: connections to one, and where their work is done.
//!
//! A connection has no thread. What only reads and is soon done, is done *here*, on the thread of the
//! run that asks. Everything else is done *aside*, on a thread that may block, in one trip for all of
//! it: what writes waits for the disk, and may wait for another writer.
//!
//! Invariant: a connection is with one run at a time, and goes back without a transaction, or not at
//! all. Whoever waits for it may go away at any moment.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rusqlite::{OpenFlags, limits::Limit};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task, time,
};
use tokio_util::sync::CancellationToken;

mod error;
mod prepared;
mod watch;

pub(super) use self::{
    error::{Error, code, text},
    prepared::Prepared,
    watch::Watch,
};

/// How long a statement waits for another one's lock, and whoever needs a connection for one.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to open a file.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a connection stays open that nobody needs: its memory, its files, and a write-ahead log
/// that only the last one folds into the file.
const MAX_IDLE: Duration = Duration::from_mins(10);
/// The largest value that is read here, in bytes: one instruction of SQLite's may copy it, and is not
/// interrupted. More than a statement may have, so that no schema is too large to be read.
const HERE_VALUE_BYTES: i32 = 128 << 10;

/// What all connections to a file have in common.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) file: PathBuf,
    pub(super) max_connections: u32,
    pub(super) page_bytes: u32,
    pub(super) most_bytes: u64,
    /// What is done to a new one before anybody has it.
    pub(super) set_up: fn(&mut rusqlite::Connection, &Arc<Watch>) -> rusqlite::Result<()>,
}

/// The connections to a file. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    options: Options,
    places: Arc<Semaphore>,
    /// The last one back is the first to go: its cache is warm.
    idle: Mutex<Vec<Idle>>,
    is_closed: AtomicBool,
    /// Whether somebody looks after those that nobody needs.
    is_tended: AtomicBool,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

struct Connection {
    inner: rusqlite::Connection,
    watch: Arc<Watch>,
    /// The largest value, where there is time for it.
    most_value_bytes: i32,
}

/// A connection that somebody has.
pub(super) struct Lease {
    /// `None` only while it is dropped.
    held: Option<(Connection, OwnedSemaphorePermit)>,
    pool: Arc<Shared>,
}

impl Pool {
    /// None is opened yet.
    pub(super) fn new(options: Options) -> Self {
        let n_places = usize::try_from(options.max_connections).unwrap_or(usize::MAX);
        Self(Arc::new(Shared {
            places: Arc::new(Semaphore::new(n_places)),
            options,
            idle: Mutex::default(),
            is_closed: AtomicBool::new(false),
            is_tended: AtomicBool::new(false),
        }))
    }

    /// # Cancel safety
    /// What is being opened meanwhile is there for the next one.
    pub(super) async fn acquire(&self) -> Result<Lease, Error> {
        let pool = &self.0;
        let place = time::timeout(LOCK_TIMEOUT, pool.places.clone().acquire_owned());
        let place = place.await.map_err(|_| Error::AllInUse)?;
        let place = place.map_err(|_| Error::Closed)?;
        if pool.is_closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let pool = pool.clone();
        let idle = pool.idle().pop();
        if let Some(Idle { connection, .. }) = idle {
            let held = Some((connection, place));
            return Ok(Lease { held, pool });
        }
        let opening = task::spawn_blocking(move || {
            let held = Some((open(&pool.options)?, place));
            Ok(Lease { held, pool })
        });
        let lease = opening.await.map_err(|_| Error::Gone)??;
        tend(&self.0);
        Ok(lease)
    }

    /// Closes all, so that the write-ahead log is folded into the file. Waits for those that are in use,
    /// as long as a lock may take; they close when they come back.
    pub(super) async fn close(&self) {
        let pool = self.0.clone();
        pool.is_closed.store(true, Ordering::Release);
        let all = pool.places.acquire_many(pool.options.max_connections);
        let _all = time::timeout(LOCK_TIMEOUT, all).await;
        let idle = std::mem::take(&mut *pool.idle());
        let _ = task::spawn_blocking(move || drop(idle)).await;
    }
}

impl Connection {
    fn bound_values(&self, most_bytes: i32) -> rusqlite::Result<()> {
        let limit = Limit::SQLITE_LIMIT_LENGTH;
        self.inner.set_limit(limit, most_bytes).map(drop)
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_back(&self, connection: Connection, place: OwnedSemaphorePermit) {
        if self.is_closed.load(Ordering::Acquire) {
            return aside(move || drop((connection, place)));
        }
        let since = Instant::now();
        self.idle().push(Idle { connection, since });
        drop(place);
    }
}

impl Lease {
    /// Does what is soon done, or nothing: it must only read, and is ended when it takes too long or
    /// something is in its way. It may say itself that this is not the place.
    pub(super) fn here<T>(
        &self,
        work: impl FnOnce(&rusqlite::Connection, &Watch) -> Option<T>,
    ) -> Option<T> {
        let (connection, _) = self.held.as_ref()?;
        connection.bound_values(HERE_VALUE_BYTES).ok()?;
        connection.watch.begin_here();
        let done = work(&connection.inner, &connection.watch);
        connection.watch.end();
        done
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        let connection = self.held.as_ref().map(|(connection, _)| connection);
        connection.is_some_and(|connection| !connection.inner.is_autocommit())
    }

    /// Does all of this where it may block, until then or until it is stopped.
    ///
    /// # Cancel safety
    /// Dropping the future stops it: what was not committed is undone.
    pub(super) async fn aside<T: Send + 'static>(
        slot: &mut Option<Self>,
        until: Option<Instant>,
        stop: &CancellationToken,
        work: impl FnOnce(&rusqlite::Connection, &Watch) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let lease = slot.take().ok_or(Error::Gone)?;
        let stop = stop.child_token();
        let _abandoned = stop.clone().drop_guard();
        let done = task::spawn_blocking(move || {
            let (connection, _) = lease.held.as_ref()?;
            connection.bound_values(connection.most_value_bytes).ok()?;
            connection.watch.begin_aside(until, stop);
            // It may have waited for a thread. What is short would be over before SQLite asks.
            let is_over = connection.watch.is_over();
            let done = (!is_over).then(|| work(&connection.inner, &connection.watch));
            connection.watch.end();
            Some((lease, done))
        });
        // It panics, or the runtime ends.
        let (lease, done) = done.await.ok().flatten().ok_or(Error::Gone)?;
        *slot = Some(lease);
        done.ok_or(Error::Stopped)
    }

    /// Closes it, so that nothing of it stays.
    pub(super) async fn close(mut self) {
        if let Some(held) = self.held.take() {
            let _ = task::spawn_blocking(move || drop(held)).await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some((connection, place)) = self.held.take() else {
            return;
        };
        if connection.inner.is_autocommit() {
            return self.pool.put_back(connection, place);
        }
        // Only a run that was stopped leaves a transaction, or one that has begun it by a statement.
        let pool = self.pool.clone();
        aside(move || {
            connection.watch.prepared.forget();
            if connection.inner.execute_batch("ROLLBACK").is_ok() {
                pool.put_back(connection, place);
            }
        });
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.options.file).finish()
    }
}

/// Has something done where it may block, and waits for nothing.
fn aside(work: impl FnOnce() + Send + 'static) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

/// Opens a file, again and again while somebody else opens it for the first time: turning the
/// write-ahead log on needs the file for oneself, and does not always wait for it.
fn open(options: &Options) -> Result<Connection, Error> {
    let until = Instant::now() + LOCK_TIMEOUT;
    loop {
        match open_once(options, until) {
            Err(error) if error::is_busy(&error) && Instant::now() < until => thread::sleep(PAUSE),
            ended => return ended.map_err(Error::Sqlite),
        }
    }
}

fn open_once(options: &Options, until: Instant) -> rusqlite::Result<Connection> {
    let Options {
        file,
        page_bytes,
        most_bytes,
        set_up,
        ..
    } = options;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut inner = rusqlite::Connection::open_with_flags::<&Path>(file, flags)?;
    let watch = Watch::over(&mut inner)?;
    watch.begin_aside(Some(until), CancellationToken::new());
    // A file must not fill the disk of its host: what it may have is a setting of each connection.
    let max_pages = (most_bytes / u64::from(*page_bytes)).max(1);
    // A job is acknowledged after its effects: they must survive a power cut too.
    inner.execute_batch(&format!(
        "PRAGMA page_size = {page_bytes}; PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON; \
         PRAGMA synchronous = FULL; PRAGMA max_page_count = {max_pages}"
    ))?;
    Prepared::make_room(&inner);
    set_up(&mut inner, &watch)?;
    watch.end();
    Ok(Connection {
        most_value_bytes: inner.limit(Limit::SQLITE_LIMIT_LENGTH)?,
        inner,
        watch,
    })
}

/// Closes connections that nobody has needed for long, while there is a pool.
fn tend(pool: &Arc<Shared>) {
    if pool.is_tended.swap(true, Ordering::AcqRel) {
        return;
    }
    let pool = Arc::downgrade(pool);
    tokio::spawn(async move {
        loop {
            time::sleep(MAX_IDLE / 2).await;
            let Some(pool) = pool.upgrade() else { return };
            let mut old = Vec::new();
            {
                let mut idle = pool.idle();
                let is_old = |idle: &mut Idle| idle.since.elapsed() > MAX_IDLE;
                old.extend(idle.extract_if(.., is_old));
            }
            if !old.is_empty() {
                let _ = task::spawn_blocking(move || drop(old)).await;
            }
        }
    });
}
