//! Knows when this process has stood still: stopped by a signal, swapped out, its machine asleep.
//!
//! A host that is frozen for longer than the broker bears loses its connection without noticing.
//! When it thaws, a guest could write to a database before the first error arrives, though another
//! host has the job by then. So whoever runs a guest asks here first.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const TICK: Duration = Duration::from_secs(1);
/// Less than the two heartbeats of seven seconds after which a broker may give a host up.
const LONGEST_STANDSTILL: Duration = Duration::from_secs(10);

/// Beats while the process runs.
pub(crate) struct Pulse {
    start: Instant,
    /// The last beat, in milliseconds after the start.
    last_ms: AtomicU64,
    n_standstills: AtomicU64,
}

/// A moment in the life of a process.
#[derive(Clone, Copy)]
pub(crate) struct Moment(u64);

impl Pulse {
    /// The pulse of this process, which begins to beat with the first handle, on a thread of its own: the
    /// runtime's may all be busy. It ends with the last one.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn of_process() -> std::io::Result<Arc<Self>> {
        static BEATING: Mutex<Weak<Pulse>> = Mutex::new(Weak::new());
        let mut beating = BEATING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pulse) = beating.upgrade() {
            return Ok(pulse);
        }
        let pulse = Self::start()?;
        *beating = Arc::downgrade(&pulse);
        Ok(pulse)
    }

    fn start() -> std::io::Result<Arc<Self>> {
        let pulse = Arc::new(Self::new());
        let beating = Arc::downgrade(&pulse);
        thread::Builder::new()
            .name("warren-pulse".to_owned())
            .spawn(move || {
                while let Some(pulse) = beating.upgrade() {
                    pulse.beat(pulse.start.elapsed());
                    drop(pulse);
                    thread::sleep(TICK);
                }
            })?;
        Ok(pulse)
    }

    /// Now, to be compared with later.
    pub(crate) fn moment(&self) -> Moment {
        Moment(self.n_standstills.load(Ordering::Acquire))
    }

    /// Whether the process has stood still since then. True in the first moment after it already.
    pub(crate) fn has_stood_still_since(&self, moment: Moment) -> bool {
        self.moment().0 != moment.0 || self.is_standstill(self.start.elapsed())
    }

    fn new() -> Self {
        Self {
            start: Instant::now(),
            last_ms: AtomicU64::new(0),
            n_standstills: AtomicU64::new(0),
        }
    }

    fn beat(&self, now: Duration) {
        if self.is_standstill(now) {
            // Before the beat that hides it.
            self.n_standstills.fetch_add(1, Ordering::AcqRel);
            tracing::warn!(
                after_s = LONGEST_STANDSTILL.as_secs(),
                "this process stood still for longer: the jobs that ran are run again"
            );
        }
        self.last_ms.store(millis(now), Ordering::Release);
    }

    fn is_standstill(&self, now: Duration) -> bool {
        let since = millis(now).saturating_sub(self.last_ms.load(Ordering::Acquire));
        since > millis(LONGEST_STANDSTILL)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Duration = Duration::from_secs(5);

    #[test]
    fn short_pauses_are_no_standstill() {
        let pulse = Pulse::new();
        let moment = pulse.moment();
        for second in 1..100 {
            pulse.beat(Duration::from_secs(second * 9));
        }
        assert_eq!(pulse.moment().0, moment.0);
    }

    #[test]
    fn a_standstill_is_known_before_and_after_the_next_beat() {
        let pulse = Pulse::new();
        pulse.beat(BEFORE);
        let moment = pulse.moment();
        let thaw = BEFORE + LONGEST_STANDSTILL + TICK;
        assert!(pulse.is_standstill(thaw));
        pulse.beat(thaw);
        assert!(pulse.moment().0 != moment.0);
        // What begins now has not seen it.
        assert!(!pulse.is_standstill(thaw + TICK));
    }
}
