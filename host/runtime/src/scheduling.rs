//! How runs share the machine: how many instances live, and where those run that compute for long.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::Semaphore;

use crate::{background::Background, reuse::Instances};

/// What the runs of one engine share.
pub(crate) struct Scheduling {
    /// One permit for each instance that may live. The workers' own limits together may be more.
    pub(crate) instances: Arc<Semaphore>,
    /// One permit for each instance beyond those, in which a plugin is asked what it is or warmed.
    pub(crate) probes: Semaphore,
    /// The pools that keep idle instances. These live beside those that run, as long as there is
    /// room for both.
    reusing: Mutex<Vec<Weak<Instances>>>,
    /// Where runs go on that compute for long.
    pub(crate) background: Background,
}

/// Instances in which plugins may be asked what they are at the same time: beyond those that run.
pub(crate) const PROBES: u32 = 24;

impl Scheduling {
    pub(crate) fn new(max_instances: u32, n_threads: usize) -> io::Result<Self> {
        Ok(Self {
            instances: Arc::new(Semaphore::new(max_instances as usize)),
            probes: Semaphore::new(PROBES as usize),
            reusing: Mutex::default(),
            background: Background::start(n_threads)?,
        })
    }

    /// Notes a pool that keeps idle instances, for as long as it lives.
    pub(crate) fn add(&self, instances: &Arc<Instances>) {
        let mut reusing = self.reusing.lock().unwrap_or_else(PoisonError::into_inner);
        reusing.retain(|known| known.strong_count() > 0);
        reusing.push(Arc::downgrade(instances));
    }

    /// Makes room for one more instance, whose permit the caller holds already: with those that run
    /// and those that are idle there are then no more than may live.
    pub(crate) fn make_room(&self) {
        // Held until the evicted ones are gone: whoever comes next finds their places free.
        let reusing = self.reusing.lock().unwrap_or_else(PoisonError::into_inner);
        if reusing.is_empty() {
            return;
        }
        // Before the idle ones are counted: an instance becomes idle before its permit is back.
        let n_free = self.instances.available_permits();
        let pools: Vec<_> = reusing.iter().filter_map(Weak::upgrade).collect();
        let n_idle: usize = pools.iter().map(|pool| pool.n_idle()).sum();
        for _ in n_free..n_idle {
            evict_longest_idle(&pools);
        }
    }

    /// Drops the instance that has been idle for the longest. Returns whether there was one.
    pub(crate) fn evict(&self) -> bool {
        let reusing = self.reusing.lock().unwrap_or_else(PoisonError::into_inner);
        let pools: Vec<_> = reusing.iter().filter_map(Weak::upgrade).collect();
        evict_longest_idle(&pools)
    }
}

fn evict_longest_idle(pools: &[Arc<Instances>]) -> bool {
    let longest = pools
        .iter()
        .filter_map(|pool| Some((pool.longest_idle()?, pool)))
        .min_by_key(|(since, _)| *since);
    longest.is_some_and(|(_, pool)| pool.evict())
}
