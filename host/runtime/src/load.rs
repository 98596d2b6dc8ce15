//! How much the runs of one worker compute, compared with its share of the machine.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The part of the machine that a worker may use up before its runs count as heavy. What it leaves is
/// enough for everybody else to find a processor at once.
const SHARE: f64 = 0.5;
/// What a worker that has used less may save up, in seconds: a burst of short runs is nothing heavy.
const SAVED: f64 = 0.02;
/// How long it counts as heavy after its last run at the most, in seconds.
const FORGIVEN: f64 = 0.5;

/// The account of one worker, in seconds of processor time.
pub(crate) struct Load {
    /// Processors' seconds that it may use in a second.
    rate: f64,
    account: Mutex<Account>,
}

struct Account {
    /// Below 0: it has used more than its share.
    credit: f64,
    updated: Instant,
}

impl Load {
    pub(crate) fn new() -> Self {
        let n_processors = std::thread::available_parallelism().map_or(1, usize::from);
        #[expect(
            clippy::cast_precision_loss,
            reason = "no machine has so many processors"
        )]
        Self::with_rate(n_processors as f64 * SHARE)
    }

    fn with_rate(rate: f64) -> Self {
        Self {
            rate,
            account: Mutex::new(Account {
                credit: SAVED,
                updated: Instant::now(),
            }),
        }
    }

    /// Whether the worker has lately used more than its share.
    pub(crate) fn is_heavy(&self) -> bool {
        self.update(Instant::now(), Duration::ZERO) < 0.0
    }

    /// Notes what a run has used.
    pub(crate) fn charge(&self, used: Duration) {
        self.update(Instant::now(), used);
    }

    fn update(&self, now: Instant, used: Duration) -> f64 {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(account.updated);
        let saved = (account.credit + passed.as_secs_f64() * self.rate).min(SAVED);
        account.credit = (saved - used.as_secs_f64()).max(-FORGIVEN * self.rate);
        account.updated = now;
        account.credit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_worker_that_keeps_to_its_share_is_never_heavy() {
        let load = Load::with_rate(0.5);
        let begun = Instant::now();
        for n in 1..1000 {
            assert!(load.update(begun + n * 10 * MS, 5 * MS) >= 0.0, "{n}");
        }
    }

    #[test]
    fn a_worker_that_uses_more_is_heavy_until_some_time_after() {
        let load = Load::with_rate(0.5);
        let begun = Instant::now();
        for n in 1..1000 {
            load.update(begun + n * 10 * MS, 8 * MS);
        }
        let end = begun + 9990 * MS;
        assert!(load.update(end + 400 * MS, Duration::ZERO) < 0.0);
        assert!(load.update(end + 510 * MS, Duration::ZERO) >= 0.0);
    }

    #[test]
    fn a_burst_is_not_heavy_at_once() {
        let load = Load::with_rate(0.5);
        let now = Instant::now();
        assert!(load.update(now, 15 * MS) >= 0.0);
        assert!(load.update(now, 15 * MS) < 0.0);
    }
}
