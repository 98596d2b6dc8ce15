//! What a run has used of the two things that nothing else counts: time on a processor, and calls of
//! the host.
//!
//! The time is that in which the run is polled, so that waiting is free, by the clock of the thread that
//! polls it: on a busy machine the processor is taken from a thread in the midst of a poll, and what
//! others do with it is not the run's. Reading that clock is a system call of half a microsecond, so a
//! poll that was short by the wall clock is charged by that (decision 9), and a look at the thread's clock
//! serves all polls of the next [`FRESH`]. Calls are counted where wasmtime asks for the state behind
//! them. Both are compared with their limits at the ticks of the engine, so that a run may go beyond by
//! what fits into one.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use crate::{Fault, Limits};

/// What one run has used. Lives as long as the run.
pub(crate) struct Meter {
    host_calls: u64,
    /// What this run may compute, if that is not what its worker's limits say.
    most_cpu: Option<Duration>,
    clock: Clock,
}

/// Runs while its run is polled. The other half of a [`Meter`], for whoever polls.
#[derive(Clone)]
pub(crate) struct Clock(Arc<Polls>);

/// Only ever written by whoever polls the run, one thread at a time.
struct Polls {
    /// Of the polls that have ended, in nanoseconds.
    used: AtomicU64,
    /// When the poll that goes on began, by the wall clock; [`NONE`] between polls.
    began: AtomicU64,
}

const NONE: u64 = u64::MAX;

/// The longest poll that is charged by the wall clock, in nanoseconds. What takes the processor from a
/// thread for long is not in it.
const SHORT: u64 = 50_000;
/// How old a look at the thread's clock may be when a poll begins, in nanoseconds. At the most so much of
/// what the thread did before is charged to a poll that is not short.
const FRESH: u64 = 100_000;

/// What a thread's clock showed, and when. Both in nanoseconds.
#[derive(Clone, Copy)]
struct Look {
    at: u64,
    computed: u64,
}

thread_local! {
    /// The last look at this thread's clock.
    static LOOK: Cell<Look> = const { Cell::new(Look { at: 0, computed: 0 }) };
}

impl Meter {
    /// Of a run that begins now.
    pub(crate) fn new() -> Self {
        Self {
            host_calls: 0,
            most_cpu: None,
            clock: Clock(Arc::new(Polls {
                used: AtomicU64::new(0),
                began: AtomicU64::new(NONE),
            })),
        }
    }

    /// Lets the run compute for so long and no longer, whatever its worker may.
    pub(crate) fn limit_cpu(&mut self, most: Duration) {
        self.most_cpu = Some(most);
    }

    /// The guest calls the host.
    #[inline]
    pub(crate) fn count_call(&mut self) {
        self.host_calls = self.host_calls.saturating_add(1);
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// The limit that the run has gone beyond.
    pub(crate) fn exceeded(&self, limits: &Limits) -> Option<Fault> {
        if self.host_calls > limits.host_calls {
            return Some(Fault::HostCalls {
                limit: limits.host_calls,
            });
        }
        let most_cpu = self.most_cpu.unwrap_or(limits.cpu);
        (self.clock.used() > most_cpu).then_some(Fault::Cpu(most_cpu))
    }
}

impl Clock {
    /// Polls the run, with the clock running meanwhile. Not within another run's poll on the same thread:
    /// the look that is taken here would be too young for that one.
    pub(crate) fn timed<T>(&self, poll: impl FnOnce() -> T) -> T {
        let now = Look::wall();
        if now.saturating_sub(LOOK.get().at) > FRESH {
            LOOK.set(Look::now());
        }
        self.0.began.store(now, Relaxed);
        let polled = poll();
        self.0.used.store(self.0.so_far(), Relaxed);
        self.0.began.store(NONE, Relaxed);
        polled
    }

    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.0.so_far())
    }
}

impl Polls {
    /// Within a poll only asked by the thread that polls.
    fn so_far(&self) -> u64 {
        let used = self.used.load(Relaxed);
        match self.began.load(Relaxed) {
            NONE => used,
            began => used.saturating_add(Look::charge(began)),
        }
    }
}

impl Look {
    fn now() -> Self {
        Self {
            at: Self::wall(),
            computed: nanoseconds(ClockId::ThreadCPUTime),
        }
    }

    fn wall() -> u64 {
        nanoseconds(ClockId::Monotonic)
    }

    /// What a poll has computed that began at `began` and goes on. Never more than the time that it
    /// has taken.
    fn charge(began: u64) -> u64 {
        let taken = Self::wall().saturating_sub(began);
        if taken <= SHORT {
            return taken;
        }
        let computed = nanoseconds(ClockId::ThreadCPUTime).saturating_sub(LOOK.get().computed);
        taken.min(computed)
    }
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let (seconds, rest) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    let seconds = seconds.unwrap_or_default().saturating_mul(1_000_000_000);
    seconds.saturating_add(rest.unwrap_or_default())
}

/// How long this thread has had a processor.
pub(crate) fn thread_time() -> Duration {
    Duration::from_nanos(nanoseconds(ClockId::ThreadCPUTime))
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, hint::spin_loop, pin::pin, thread::sleep, time::Instant};

    use super::*;

    const LONG: Duration = Duration::from_millis(20);

    /// Keeps the processor for so long.
    fn compute(time: Duration) {
        let begun = thread_time();
        while thread_time() - begun < time {
            spin_loop();
        }
    }

    fn limits(cpu: Duration, host_calls: u64) -> Limits {
        Limits {
            cpu,
            host_calls,
            ..Limits::default()
        }
    }

    #[tokio::test]
    async fn a_run_is_charged_for_what_it_computes_and_not_for_what_it_waits() {
        let meter = Meter::new();
        let begun = Instant::now();
        let run = async {
            compute(LONG);
            tokio::task::yield_now().await;
            // Also what others keep the thread from: only the processor counts.
            sleep(LONG);
            compute(LONG);
            // The poll that goes on counts before it has ended.
            meter.clock.used()
        };
        let mut run = pin!(run);
        let mut run = poll_fn(|context| meter.clock.timed(|| run.as_mut().poll(context)));
        assert!(futures_util::poll!(&mut run).is_pending());
        let used = meter.clock.used();
        assert!(used >= LONG);
        compute(LONG);
        assert_eq!(meter.clock.used(), used);
        let all = run.await;
        assert!(all >= used + LONG);
        assert!(all + 2 * LONG <= begun.elapsed(), "{all:?}");
        assert_eq!(meter.exceeded(&limits(LONG, 0)), Some(Fault::Cpu(LONG)));
        assert_eq!(meter.exceeded(&limits(Duration::MAX, 0)), None);
    }

    /// What its thread did before is charged to a poll up to a bound, and others' time hardly.
    #[test]
    fn a_run_is_charged_for_each_of_its_polls() {
        const N: u32 = 1000;
        const EACH: Duration = Duration::from_micros(10);
        // Too long for the wall clock.
        const MIDDLING: Duration = Duration::from_nanos(SHORT + 10_000);
        let meter = Meter::new();
        let begun = Instant::now();
        for _ in 0..N {
            meter.clock.timed(|| compute(EACH));
        }
        let used = meter.clock.used();
        assert!(N * EACH <= used && used <= begun.elapsed(), "{used:?}");
        for _ in 0..10 {
            compute(EACH);
            meter.clock.timed(|| sleep(LONG));
        }
        let most = 10 * (Duration::from_nanos(FRESH) + Duration::from_millis(1));
        let more = meter.clock.used() - used;
        assert!(more <= most, "{more:?}");
        // After a look that is not new.
        let before = meter.clock.used();
        for _ in 0..100 {
            compute(EACH);
            meter.clock.timed(|| compute(MIDDLING));
        }
        let more = meter.clock.used() - before;
        let most = 100 * (MIDDLING + Duration::from_nanos(FRESH) + EACH);
        assert!(100 * MIDDLING <= more && more <= most, "{more:?}");
    }

    #[test]
    fn as_many_calls_as_allowed_are_allowed() {
        let mut meter = Meter::new();
        meter.count_call();
        meter.count_call();
        let exceeded = |host_calls| meter.exceeded(&limits(Duration::MAX, host_calls));
        assert_eq!(exceeded(2), None);
        assert_eq!(exceeded(1), Some(Fault::HostCalls { limit: 1 }));
    }
}
