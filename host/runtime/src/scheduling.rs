//! How runs share the machine: how many instances live, and whose turn it is among the guests that
//! compute for long.
//!
//! A guest gives way at every tick, but a thread that goes from one computing guest to the next
//! still keeps everybody else waiting for a tick each: sockets, timers, other jobs. So a run that
//! has used up a few ticks needs a *turn* for each further one, and there is one turn per tick less
//! than there are threads. Turns are given out by the ticker and never given back: a guest that
//! takes one and then waits for something else keeps nobody from the next.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

use crate::reuse::Instances;

/// What the runs of one engine share.
pub(crate) struct Scheduling {
    /// One permit for each instance that may live. The workers' own limits together may be more.
    pub(crate) instances: Arc<Semaphore>,
    /// One permit for each instance beyond those, in which a plugin is asked what it is or warmed.
    pub(crate) probes: Semaphore,
    /// The pools that keep idle instances. These live beside those that run, as long as there is
    /// room for both.
    reusing: Mutex<Vec<Weak<Instances>>>,
    turns: Semaphore,
    turns_per_tick: usize,
}

/// Instances in which plugins may be asked what they are at the same time: beyond those that run.
pub(crate) const PROBES: u32 = 24;
/// Ticks that a run may use before it has to wait for its turns. Most jobs never get there.
pub(crate) const FREE_TICKS: u32 = 5;

impl Scheduling {
    pub(crate) fn new(max_instances: u32, n_threads: usize) -> Self {
        let turns_per_tick = n_threads.saturating_sub(1).max(1);
        Self {
            instances: Arc::new(Semaphore::new(max_instances as usize)),
            probes: Semaphore::new(PROBES as usize),
            reusing: Mutex::default(),
            turns: Semaphore::new(turns_per_tick),
            turns_per_tick,
        }
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

    /// A tick: turns that nobody took are lost.
    pub(crate) fn tick(&self) {
        let missing = self
            .turns_per_tick
            .saturating_sub(self.turns.available_permits());
        self.turns.add_permits(missing);
    }

    /// Waits for a turn, first come, first served.
    pub(crate) async fn turn(&self) {
        if let Ok(turn) = self.turns.acquire().await {
            turn.forget();
        }
    }
}

fn evict_longest_idle(pools: &[Arc<Instances>]) -> bool {
    let longest = pools
        .iter()
        .filter_map(|pool| Some((pool.longest_idle()?, pool)))
        .min_by_key(|(since, _)| *since);
    longest.is_some_and(|(_, pool)| pool.evict())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn each_tick_gives_one_turn_less_than_there_are_threads() {
        let scheduling = Scheduling::new(1, 3);
        for _ in 0..3 {
            assert!(scheduling.turn().now_or_never().is_some());
            assert!(scheduling.turn().now_or_never().is_some());
            assert!(scheduling.turn().now_or_never().is_none());
            scheduling.tick();
        }
    }

    #[test]
    fn turns_that_nobody_took_do_not_add_up() {
        let scheduling = Scheduling::new(1, 2);
        for _ in 0..10 {
            scheduling.tick();
        }
        assert!(scheduling.turn().now_or_never().is_some());
        assert!(scheduling.turn().now_or_never().is_none());
    }
}
