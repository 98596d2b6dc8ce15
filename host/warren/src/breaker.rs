//! The circuit breaker of one worker: when one job after the other fails, the fault is not in the
//! jobs. The worker stops taking any for a while, its queue keeps the work, and no job loses its
//! attempts to a database that is down for everybody.
//!
//! Pure: no clock, no bus. [`crate::pausing`] does what a [`Reaction`] says.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

/// The wait before the first trial; it doubles with each trial that fails.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Whether a worker takes jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It does.
    Closed,
    /// It takes none for a while.
    Open,
    /// It takes one at a time, to see whether things work again.
    Trial,
}

/// What one run says about the world outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// The run came to its end.
    Good,
    /// The run failed, and may succeed later.
    Bad,
    /// The job, the plugin or the host was at fault, or the guest named the wait itself.
    None,
}

/// What is to be done about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// It is settled like any other.
    Settle,
    /// As [`Reaction::Settle`], and the worker pauses from now on.
    Pause,
    /// The job goes back and is none the worse for it.
    PutBack,
}

/// The breaker of one worker.
pub(crate) struct Breaker {
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
}

#[derive(Default)]
struct State {
    /// Bad signs in a row.
    n_bad: u32,
    /// Trials in a row that failed.
    n_trials: u32,
}

impl Breaker {
    /// Closed.
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            phase: watch::Sender::new(Phase::Closed),
        }
    }

    /// Takes in how a run ended. `most_bad`: so many bad ones in a row are too many; 0: the worker
    /// never pauses.
    pub(crate) fn note(&self, sign: Sign, most_bad: u32) -> Reaction {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let phase = *self.phase.borrow();
        match (phase, sign) {
            (_, Sign::None) => Reaction::Settle,
            (Phase::Closed, Sign::Good) => {
                state.n_bad = 0;
                Reaction::Settle
            }
            (Phase::Closed, Sign::Bad) => {
                state.n_bad += 1;
                if most_bad == 0 || state.n_bad < most_bad {
                    return Reaction::Settle;
                }
                self.phase.send_replace(Phase::Open);
                Reaction::Pause
            }
            // Begun before the pause: it says nothing about now.
            (Phase::Open, Sign::Good) => Reaction::Settle,
            (Phase::Open, Sign::Bad) => Reaction::PutBack,
            (Phase::Trial, Sign::Good) => {
                *state = State::default();
                self.phase.send_replace(Phase::Closed);
                Reaction::Settle
            }
            (Phase::Trial, Sign::Bad) => {
                state.n_trials += 1;
                self.phase.send_replace(Phase::Open);
                Reaction::PutBack
            }
        }
    }

    /// The pause is over: one job at a time.
    pub(crate) fn try_again(&self) {
        self.phase.send_replace(Phase::Trial);
    }

    /// How long the pause lasts.
    pub(crate) fn pause(&self) -> Duration {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        FIRST_PAUSE
            .saturating_mul(2u32.saturating_pow(state.n_trials))
            .min(LONGEST_PAUSE)
    }

    /// The phase, and every change of it.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Breaker {
        let breaker = Breaker::new();
        assert_eq!(breaker.note(Sign::Bad, 2), Reaction::Settle);
        assert_eq!(breaker.note(Sign::Bad, 2), Reaction::Pause);
        breaker
    }

    #[test]
    fn one_success_in_between_keeps_it_closed() {
        let breaker = Breaker::new();
        for _ in 0..10 {
            assert_eq!(breaker.note(Sign::Bad, 2), Reaction::Settle);
            assert_eq!(breaker.note(Sign::Good, 2), Reaction::Settle);
        }
        assert_eq!(*breaker.phase().borrow(), Phase::Closed);
    }

    #[test]
    fn failures_of_the_jobs_own_are_no_sign() {
        let breaker = Breaker::new();
        for _ in 0..10 {
            assert_eq!(breaker.note(Sign::None, 2), Reaction::Settle);
        }
        assert_eq!(*breaker.phase().borrow(), Phase::Closed);
    }

    #[test]
    fn while_it_is_open_failures_cost_nothing() {
        let breaker = opened();
        assert_eq!(breaker.note(Sign::Bad, 2), Reaction::PutBack);
        assert_eq!(breaker.note(Sign::Good, 2), Reaction::Settle);
        assert_eq!(*breaker.phase().borrow(), Phase::Open);
    }

    #[test]
    fn a_trial_decides_and_the_pause_grows_to_its_bound() {
        let breaker = opened();
        assert_eq!(breaker.pause(), FIRST_PAUSE);
        for _ in 0..10 {
            breaker.try_again();
            assert_eq!(breaker.note(Sign::Bad, 2), Reaction::PutBack);
            assert_eq!(*breaker.phase().borrow(), Phase::Open);
        }
        assert_eq!(breaker.pause(), LONGEST_PAUSE);
        breaker.try_again();
        assert_eq!(breaker.note(Sign::Good, 2), Reaction::Settle);
        assert_eq!(*breaker.phase().borrow(), Phase::Closed);
        assert_eq!(breaker.pause(), FIRST_PAUSE);
    }

    #[test]
    fn without_a_bound_it_never_opens() {
        let breaker = Breaker::new();
        for _ in 0..100 {
            assert_eq!(breaker.note(Sign::Bad, 0), Reaction::Settle);
        }
    }
}
