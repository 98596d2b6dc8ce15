//! How runs share the machine: how many instances live, and whose turn it is among the guests that
//! compute for long.
//!
//! A guest gives way at every tick, but a thread that goes from one computing guest to the next
//! still keeps everybody else waiting for a tick each: sockets, timers, other jobs. So a run that
//! has used up a few ticks needs a *turn* for each further one, and there is one turn per tick less
//! than there are threads. Turns are given out by the ticker and never given back: a guest that
//! takes one and then waits for something else keeps nobody from the next.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// What the runs of one engine share.
pub(crate) struct Scheduling {
    /// One permit for each instance that may live. The workers' own limits together may be more.
    pub(crate) instances: Arc<Semaphore>,
    turns: Semaphore,
    turns_per_tick: usize,
}

/// Ticks that a run may use before it has to wait for its turns. Most jobs never get there.
pub(crate) const FREE_TICKS: u32 = 5;

impl Scheduling {
    pub(crate) fn new(max_instances: u32, n_threads: usize) -> Self {
        let turns_per_tick = n_threads.saturating_sub(1).max(1);
        Self {
            instances: Arc::new(Semaphore::new(max_instances as usize)),
            turns: Semaphore::new(turns_per_tick),
            turns_per_tick,
        }
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
