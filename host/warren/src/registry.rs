//! Which workers this host has, and which version of each is current. The only place where a swap
//! happens, in one assignment.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use warren_protocol::{WorkerId, WorkerType};
use warren_runtime::{Permit, Pool};

use crate::{
    breaker::{Breaker, Phase},
    trial::Trial,
};

/// The workers of one host. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Registry(Arc<RwLock<BTreeMap<WorkerType, Arc<Seat>>>>);

/// One worker: its identity, which stays, and its current version, which changes.
pub(crate) struct Seat {
    /// Its id on the bus; kept when the plugin is replaced.
    pub id: WorkerId,
    /// Cancelled when the worker starts nothing any more: it was removed, or the host stops.
    pub retired: CancellationToken,
    /// Cancelled when its runs are to end now.
    pub interrupt: CancellationToken,
    /// Everything of it that runs or is being settled, whatever the version.
    pub(crate) runs: TaskTracker,
    /// Whether it takes jobs, or pauses because they all fail.
    pub(crate) breaker: Breaker,
    /// How many deliveries it may hold while it does not pause.
    pub(crate) prefetch: u16,
    /// Whether it has joined the bus: before, no reply would find it.
    has_joined: AtomicBool,
    current: ArcSwap<Version>,
    swapped: Notify,
}

/// One version of a worker: the pool that runs it and where it came from.
pub(crate) struct Version {
    /// Runs it.
    pub pool: Pool,
    /// The file.
    pub file: PathBuf,
    /// The path prefix under which it serves HTTP.
    pub http_path: Option<String>,
    /// What happens to a job that fails.
    pub retry: Retry,
    /// Whether its first jobs have shown that it works.
    pub trial: Trial,
}

/// How often, and how soon, a failed job is run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    /// Runs of one job, the first included.
    pub attempts: u32,
    /// The wait before the second run; it doubles for each further one.
    pub base: Duration,
    /// The longest wait.
    pub cap: Duration,
    /// After so many failures in a row, of whatever jobs, the worker pauses; 0: never.
    pub breaker: u32,
}

impl Registry {
    /// The worker of this type.
    #[must_use]
    pub(crate) fn get(&self, worker_type: &WorkerType) -> Option<Arc<Seat>> {
        self.read().get(worker_type).cloned()
    }

    /// All workers, by type.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<Arc<Seat>> {
        self.read().values().cloned().collect()
    }

    /// The HTTP worker with the longest path prefix of `path`.
    #[must_use]
    pub(crate) fn route(&self, path: &str) -> Option<Arc<Seat>> {
        let seats = self.read();
        let joined = seats.values().filter(|seat| seat.has_joined());
        let matching = joined.filter_map(|seat| {
            let version = seat.current();
            let prefix = version.http_path.as_deref()?;
            path.starts_with(prefix).then_some((prefix.len(), seat))
        });
        matching
            .max_by_key(|(length, _)| *length)
            .map(|(_, seat)| seat.clone())
    }

    /// Puts a new worker in.
    pub(crate) fn insert(&self, seat: Arc<Seat>) {
        let worker_type = seat.id.worker_type().clone();
        let mut seats = self.0.write().unwrap_or_else(PoisonError::into_inner);
        seats.insert(worker_type, seat);
    }

    /// Takes a worker out. Its running jobs keep their version alive.
    pub(crate) fn remove(&self, worker_type: &WorkerType) -> Option<Arc<Seat>> {
        let mut seats = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let seat = seats.remove(worker_type)?;
        seat.current().pool.retire();
        Some(seat)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<WorkerType, Arc<Seat>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// A worker with its first version.
    #[must_use]
    pub(crate) fn new(
        id: WorkerId,
        version: Version,
        prefetch: u16,
        retired: CancellationToken,
        interrupt: CancellationToken,
    ) -> Self {
        Self {
            id,
            breaker: Breaker::new(),
            prefetch,
            retired,
            interrupt,
            runs: TaskTracker::new(),
            has_joined: AtomicBool::new(false),
            swapped: Notify::new(),
            current: ArcSwap::from_pointee(version),
        }
    }

    /// Whether it can be reached on the bus.
    #[must_use]
    pub(crate) fn has_joined(&self) -> bool {
        self.has_joined.load(Ordering::Acquire)
    }

    /// It can be reached on the bus from now on.
    pub(crate) fn set_joined(&self) {
        self.has_joined.store(true, Ordering::Release);
    }

    /// Whether it takes no jobs for a while, because they all fail.
    #[must_use]
    pub(crate) fn is_pausing(&self) -> bool {
        *self.breaker.phase().borrow() != Phase::Closed
    }

    /// The id to which the news of jobs goes that it has sent and that are given up; `None` where its
    /// plugin does not want to know.
    #[must_use]
    pub(crate) fn hears_errors(&self) -> Option<WorkerId> {
        let treats = self.current().pool.plugin().treats_errors();
        treats.then(|| self.id.clone())
    }

    /// The version that the next job gets.
    #[must_use]
    pub(crate) fn current(&self) -> Arc<Version> {
        self.current.load_full()
    }

    /// Makes a version the current one and returns the one before, which finishes what it runs.
    pub(crate) fn swap(&self, version: Version) -> Arc<Version> {
        let before = self.current.swap(Arc::new(version));
        self.breaker.renew();
        before.pool.retire();
        // Whoever waits for the version before has no reason to any more.
        self.swapped.notify_waiters();
        before
    }

    /// Returns at the next swap.
    pub(crate) async fn another_version(&self) {
        self.swapped.notified().await;
    }

    /// Waits for the right to one run of the current version: the one that is current when the
    /// right is granted, however long the wait was.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the line and nothing else.
    pub(crate) async fn permit(&self) -> (Arc<Version>, Option<Permit>) {
        loop {
            let swapped = self.swapped.notified();
            tokio::pin!(swapped);
            // From here on a swap is noticed, so the version that is read next is the current one.
            swapped.as_mut().enable();
            let version = self.current();
            tokio::select! {
                biased;
                () = swapped => {}
                permit = version.pool.permit() => return (version, permit),
            }
        }
    }
}

impl Version {
    /// The file's name, for people.
    #[must_use]
    pub(crate) fn file_name(&self) -> String {
        file_name(&self.file)
    }
}

/// A file's name without its folder, for people.
#[must_use]
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}
