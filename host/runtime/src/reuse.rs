//! Instances that serve several runs, one after the other, where the operator wants it: idle ones
//! of one version of a worker, and when they are given up.
//!
//! Invariants: only a run that has ended well gives its instance back. What is seen of an earlier
//! run is the guest's own memory and nothing else. An idle instance never keeps anybody from
//! running: it gives way when the engine is full. Idle instances end with their [`crate::Pool`].

mod metrics;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use prometheus::{IntCounter, IntGauge};
use tokio::task::AbortHandle;

use crate::{Plugin, Worker, instance::Instance, limits::Denied, load::Load, run::FAR, state::Run};

pub use metrics::InstanceMetrics;
pub(crate) use metrics::{Dropped, End};

/// For how long an instance of a worker is kept. Plain data; the operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// Runs that one instance serves, at least 1.
    pub calls: u32,
    /// Linear memory beyond which it serves no further run, in bytes: it never shrinks.
    pub memory_bytes: u64,
    /// From its making to its end, or to the end of the run that it serves then.
    pub age: Duration,
}

/// The instances of one pool, and its figures of them.
pub(crate) struct Instances {
    reuse: Option<Reuse>,
    worker: Arc<Worker>,
    idle: Mutex<Idle>,
    created: IntCounter,
    reused: IntCounter,
    n_idle: IntGauge,
    /// How much the pool's runs compute.
    pub(crate) load: Arc<Load>,
}

#[derive(Default)]
struct Idle {
    /// The longest idle first. The next run takes the last, so that others grow old.
    waiting: Vec<Waiting>,
    /// Whether the pool has been replaced: nothing is kept any more.
    is_closed: bool,
    /// Whether the operator has been told that nothing comes of reuse.
    has_warned: bool,
    sweeper: Option<AbortHandle>,
}

struct Waiting {
    since: Instant,
    instance: Instance,
}

impl Instances {
    pub(crate) fn new(worker: &Arc<Worker>) -> Arc<Self> {
        let worker_type = worker.id.worker_type().as_str();
        let metrics = &worker.instances;
        Arc::new(Self {
            reuse: worker.reuse.clone(),
            worker: worker.clone(),
            idle: Mutex::default(),
            created: metrics.created(worker_type),
            reused: metrics.reused(worker_type),
            n_idle: metrics.idle(worker_type),
            load: Arc::new(Load::new()),
        })
    }

    /// Whether any is ever kept.
    pub(crate) fn are_reused(&self) -> bool {
        self.reuse.is_some()
    }

    /// An instance for a run: an idle one, or else a fresh one, which has not started yet.
    pub(crate) fn instance(&self, plugin: &Plugin, run: Run) -> Instance {
        if let Some(mut instance) = self.take() {
            self.reused.inc();
            instance.begin(run);
            return instance;
        }
        self.created.inc();
        let counts = self.reuse.is_some().then(|| self.worker.clone());
        Instance::new(plugin, &self.worker, run, End::new(counts))
    }

    /// The idle instance that was used last.
    fn take(&self) -> Option<Instance> {
        let age = self.reuse.as_ref()?.age;
        let mut expired = Vec::new();
        let mut idle = self.lock();
        let taken = loop {
            let Some(Waiting { instance, .. }) = idle.waiting.pop() else {
                break None;
            };
            self.n_idle.dec();
            if instance.born().elapsed() < age {
                break Some(instance);
            }
            expired.push(instance);
        };
        drop(idle);
        drop_all(expired, Dropped::Age);
        taken
    }

    /// An instance whose run has ended well, unless it holds something or is never used again: then
    /// it is dropped, and what it holds with it.
    pub(crate) fn unless_held(&self, mut instance: Instance) -> Option<Instance> {
        self.reuse.as_ref()?;
        if instance.holds_something() {
            instance.drop_for(Dropped::Held);
            return None;
        }
        Some(instance)
    }

    /// Keeps an instance whose run has ended well, or drops it where it is not to serve another.
    pub(crate) fn give_back(self: &Arc<Self>, mut instance: Instance) {
        let Some(reuse) = &self.reuse else {
            return;
        };
        if let Some(why) = worn_out(&mut instance, reuse) {
            if why == Dropped::Memory && instance.n_runs() == 1 {
                self.warn(&instance, reuse);
            }
            instance.drop_for(why);
            return;
        }
        instance.rest();
        let mut idle = self.lock();
        if idle.is_closed {
            drop(idle);
            instance.drop_for(Dropped::Replaced);
            return;
        }
        let since = Instant::now();
        idle.waiting.push(Waiting { since, instance });
        self.n_idle.inc();
        if idle.sweeper.is_none() {
            let sweeper = tokio::spawn(sweep(Arc::downgrade(self)));
            idle.sweeper = Some(sweeper.abort_handle());
        }
    }

    /// Says once that every instance is too large to be used again.
    fn warn(&self, instance: &Instance, reuse: &Reuse) {
        if std::mem::replace(&mut self.lock().has_warned, true) {
            return;
        }
        tracing::warn!(
            worker.id = %self.worker.id,
            used_bytes = instance.store.data().memory.used_bytes(),
            reuse_bytes = reuse.memory_bytes,
            "no instance is used again: one run already leaves it with more memory than \
             `reuse.memory`; raise that, and `memory` if need be"
        );
    }

    /// Drops all idle ones, now and from now on.
    pub(crate) fn close(&self) {
        let mut idle = self.lock();
        idle.is_closed = true;
        let dropped = std::mem::take(&mut idle.waiting);
        drop(idle);
        self.forget(dropped, Dropped::Replaced);
    }

    /// How many are idle.
    pub(crate) fn n_idle(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Since when the longest idle one has been idle.
    pub(crate) fn longest_idle(&self) -> Option<Instant> {
        self.lock().waiting.first().map(|waiting| waiting.since)
    }

    /// Drops the longest idle one, for somebody who needs its place. Returns whether there was one.
    pub(crate) fn evict(&self) -> bool {
        let mut idle = self.lock();
        if idle.waiting.is_empty() {
            return false;
        }
        let evicted = idle.waiting.remove(0);
        drop(idle);
        self.forget(vec![evicted], Dropped::Evicted);
        true
    }

    /// Drops those that are too old, and says when the next one will be. `None`: nothing is idle,
    /// and the sweeper ends.
    fn expire(&self, age: Duration) -> Option<Instant> {
        let now = Instant::now();
        let mut idle = self.lock();
        let waiting = std::mem::take(&mut idle.waiting);
        let (expired, kept): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|waiting| now.duration_since(waiting.instance.born()) >= age);
        let oldest = kept.iter().map(|waiting| waiting.instance.born()).min();
        idle.waiting = kept;
        if oldest.is_none() {
            idle.sweeper = None;
        }
        drop(idle);
        self.forget(expired, Dropped::Age);
        oldest.map(|born| born + age)
    }

    fn forget(&self, dropped: Vec<Waiting>, why: Dropped) {
        self.n_idle
            .sub(i64::try_from(dropped.len()).unwrap_or(i64::MAX));
        drop_all(dropped.into_iter().map(|waiting| waiting.instance), why);
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Instances {
    fn drop(&mut self) {
        self.close();
        if let Some(sweeper) = self.lock().sweeper.take() {
            sweeper.abort();
        }
    }
}

/// Gives the memory of idle instances back when they are old, however little there is to do.
async fn sweep(instances: Weak<Instances>) {
    loop {
        let next = instances.upgrade().and_then(|instances| {
            let age = instances.reuse.as_ref()?.age.min(FAR);
            instances.expire(age)
        });
        let Some(next) = next else { return };
        tokio::time::sleep_until(next.into()).await;
    }
}

/// Why an instance whose run has ended well serves no further one.
fn worn_out(instance: &mut Instance, reuse: &Reuse) -> Option<Dropped> {
    let memory = &instance.store.data().memory;
    if memory.denied != Denied::Nothing {
        // It went on without, but who knows in which state.
        Some(Dropped::Denied)
    } else if memory.used_bytes() > reuse.memory_bytes {
        Some(Dropped::Memory)
    } else if instance.holds_something() {
        Some(Dropped::Held)
    } else if instance.n_runs() >= reuse.calls {
        Some(Dropped::Calls)
    } else if instance.born().elapsed() >= reuse.age {
        Some(Dropped::Age)
    } else {
        None
    }
}

fn drop_all(instances: impl IntoIterator<Item = Instance>, why: Dropped) {
    for instance in instances {
        instance.drop_for(why);
    }
}
