//! Waiting longer after each failure, and never exactly as long as the other hosts.

use std::time::Duration;

use rand::RngExt;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

/// How long to wait before the next try.
#[derive(Debug)]
pub(super) struct Backoff {
    n_failures: u32,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(LONGEST)
    }
}

impl Backoff {
    /// Never waits for longer than this; 30 s by default.
    pub(super) fn up_to(longest: Duration) -> Self {
        Self {
            n_failures: 0,
            longest,
        }
    }

    /// The next wait: 0.2 s, doubled each time up to the longest, less up to a half, so that a
    /// hundred hosts do not come back in the same moment.
    pub(super) fn next(&mut self) -> Duration {
        let doubled = FIRST.saturating_mul(2u32.saturating_pow(self.n_failures));
        self.n_failures = self.n_failures.saturating_add(1);
        doubled
            .min(self.longest)
            .mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// It worked: the next failure is a first one.
    pub(super) fn reset(&mut self) {
        self.n_failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_to_its_bound_and_stays_there() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..100).map(|_| backoff.next()).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2);
        assert!(waits[1] <= FIRST * 2 && waits[1] >= FIRST);
        assert!(
            waits[20..]
                .iter()
                .all(|wait| *wait <= LONGEST && *wait >= LONGEST / 2)
        );
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
