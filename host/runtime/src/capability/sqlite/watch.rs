//! What may stop a statement: its time, whoever does not wait for it any more, and a lock that takes too
//! long. SQLite asks while it works, on the thread that works; so all of this is set beforehand.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{LOCK_TIMEOUT, Prepared};
use crate::meter::thread_time;

/// How many instructions of SQLite's virtual machine run between two looks: a microsecond or two, where
/// none of them copies much or walks through a large row.
const OPERATIONS_BETWEEN_LOOKS: i32 = 50;
/// How long a statement may compute on the thread of a run, which others wait for.
const BUDGET: Duration = Duration::from_millis(1);
/// How long it may take there, computing or not: the disk may be slow, and the processor with others.
const PATIENCE: Duration = Duration::from_millis(10);
/// The pauses of who waits for a lock; the last one again and again.
const PAUSES_MS: [u64; 6] = [1, 2, 5, 10, 15, 20];

/// The watch over one connection.
pub(in crate::capability) struct Watch {
    pub(in crate::capability) prepared: Prepared,
    now: Mutex<Now>,
    /// Whether what is being prepared may take long in a single instruction.
    is_slow: AtomicBool,
}

/// What it works at.
#[derive(Default)]
struct Now {
    /// On the thread of a run: since when, and what that thread had computed by then.
    here: Option<(Instant, Duration)>,
    until: Option<Instant>,
    stop: Option<CancellationToken>,
}

impl Watch {
    pub(super) fn over(connection: &mut rusqlite::Connection) -> rusqlite::Result<Arc<Self>> {
        let watch = Arc::new(Self {
            prepared: Prepared::default(),
            now: Mutex::default(),
            is_slow: AtomicBool::new(false),
        });
        let it = watch.clone();
        let is_over = move || it.is_over();
        connection.progress_handler(OPERATIONS_BETWEEN_LOOKS, Some(is_over))?;
        let (it, mut since) = (watch.clone(), Instant::now());
        connection.busy_handler(Some(move |n_before: i32| {
            if n_before == 0 {
                since = Instant::now();
            }
            if it.is_here() || it.is_over() || since.elapsed() >= LOCK_TIMEOUT {
                return false;
            }
            let n_before = usize::try_from(n_before).unwrap_or_default();
            let pause = PAUSES_MS.get(n_before).or(PAUSES_MS.last());
            thread::sleep(Duration::from_millis(pause.copied().unwrap_or_default()));
            true
        }))?;
        Ok(watch)
    }

    /// Whether what works now has to end.
    pub(in crate::capability) fn is_over(&self) -> bool {
        let now = self.now();
        if let Some((since, computed)) = now.here {
            let taken = since.elapsed();
            return taken >= PATIENCE
                || taken >= BUDGET && thread_time().saturating_sub(computed) >= BUDGET;
        }
        let is_late = now.until.is_some_and(|until| Instant::now() >= until);
        is_late
            || now
                .stop
                .as_ref()
                .is_some_and(CancellationToken::is_cancelled)
    }

    /// Whether it works on the thread of a run.
    pub(in crate::capability) fn is_here(&self) -> bool {
        self.now().here.is_some()
    }

    /// What is being prepared may take long in a single instruction.
    pub(in crate::capability) fn set_slow(&self) {
        self.is_slow.store(true, Ordering::Relaxed);
    }

    /// Whether that was said since the work began.
    pub(in crate::capability) fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }

    pub(super) fn begin_here(&self) {
        self.begin(Now {
            here: Some((Instant::now(), thread_time())),
            ..Now::default()
        });
    }

    pub(super) fn begin_aside(&self, until: Option<Instant>, stop: CancellationToken) {
        self.begin(Now {
            here: None,
            until,
            stop: Some(stop),
        });
    }

    /// What comes next is not stopped by what was.
    pub(super) fn end(&self) {
        *self.now() = Now::default();
    }

    fn begin(&self, now: Now) {
        self.is_slow.store(false, Ordering::Relaxed);
        *self.now() = now;
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
