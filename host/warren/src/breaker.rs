//! The circuit breaker of one worker: when one job after the other fails, the fault is not in the
//! jobs. The worker stops taking any for a while, its queue keeps the work, and no job loses its
//! attempts to a database that is down for everybody, or to a build that traps on everything.
//!
//! Pure: no clock, no bus. [`crate::pausing`] does what a [`Reaction`] says.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

/// The wait before the first trial; it doubles with each trial that fails.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// So many different jobs that the plugin broke on, without one run to the end in between, are too
/// many: a poisoned job that comes again and again is one.
const MOST_BROKEN: usize = 20;

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
    /// The run was not to the end, but not for want of anything: the job was wrong, or has to wait.
    Fair,
    /// The plugin trapped or broke a limit: its fault, or the job's.
    Broken,
    /// The host was at fault.
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

/// When a run began: it only decides a trial that it is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Round(u64);

#[derive(Default)]
struct State {
    /// Bad signs in a row.
    n_bad: u32,
    /// The jobs that the plugin broke on since it last ran one to the end, by a hash of their id.
    broken: HashSet<u64>,
    /// Whether it is open because of those.
    is_broken: bool,
    /// Trials in a row that failed.
    n_trials: u32,
    /// Counts the trials.
    round: u64,
    /// Whether somebody looks after the pause. One is enough.
    is_looked_after: bool,
}

impl Breaker {
    /// Closed.
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            phase: watch::Sender::new(Phase::Closed),
        }
    }

    /// For a run that begins now.
    pub(crate) fn round(&self) -> Round {
        Round(self.lock().round)
    }

    /// Takes in how the run of a job ended. `most_bad`: so many bad ones in a row are too many; 0:
    /// the worker never pauses.
    pub(crate) fn note(&self, sign: Sign, job_id: &str, begun: Round, most_bad: u32) -> Reaction {
        let mut state = self.lock();
        let phase = *self.phase.borrow();
        let decides = begun.0 == state.round;
        match (phase, sign) {
            (_, Sign::None) => Reaction::Settle,
            (Phase::Closed, Sign::Good) => {
                state.n_bad = 0;
                state.broken.clear();
                Reaction::Settle
            }
            (Phase::Closed, Sign::Fair) => {
                state.broken.clear();
                Reaction::Settle
            }
            (Phase::Closed, Sign::Bad) => {
                state.n_bad += 1;
                if most_bad == 0 || state.n_bad < most_bad {
                    return Reaction::Settle;
                }
                self.open(&mut state)
            }
            (Phase::Closed, Sign::Broken) => {
                if most_bad == 0 {
                    return Reaction::Settle;
                }
                state.broken.insert(hash(job_id));
                if state.broken.len() < MOST_BROKEN {
                    return Reaction::Settle;
                }
                state.is_broken = true;
                self.open(&mut state)
            }
            // Begun before the pause: it says nothing about now.
            (Phase::Open, Sign::Good | Sign::Fair) => Reaction::Settle,
            (Phase::Open, Sign::Bad) => Reaction::PutBack,
            (Phase::Trial, Sign::Bad) if !decides => Reaction::PutBack,
            (Phase::Trial, Sign::Good | Sign::Fair) if !decides => Reaction::Settle,
            // While a database is down, a poisoned job is still a poisoned job. But many of them are
            // a broken plugin then, too.
            (_, Sign::Broken) if !state.is_broken => {
                state.broken.insert(hash(job_id));
                if state.broken.len() < MOST_BROKEN {
                    return Reaction::Settle;
                }
                state.is_broken = true;
                self.phase.send_replace(Phase::Open);
                Reaction::PutBack
            }
            (Phase::Open, Sign::Broken) => Reaction::PutBack,
            (Phase::Trial, Sign::Broken) if !decides => Reaction::PutBack,
            (Phase::Trial, Sign::Good | Sign::Fair) => {
                (state.n_bad, state.n_trials) = (0, 0);
                state.broken.clear();
                state.is_broken = false;
                self.phase.send_replace(Phase::Closed);
                Reaction::Settle
            }
            (Phase::Trial, Sign::Bad | Sign::Broken) => {
                state.n_trials += 1;
                self.phase.send_replace(Phase::Open);
                Reaction::PutBack
            }
        }
    }

    fn open(&self, state: &mut State) -> Reaction {
        self.phase.send_replace(Phase::Open);
        if std::mem::replace(&mut state.is_looked_after, true) {
            Reaction::PutBack
        } else {
            Reaction::Pause
        }
    }

    /// Opens it, because the version that serves has been condemned. Returns whether somebody has to
    /// look after the pause.
    pub(crate) fn condemn(&self) -> bool {
        let mut state = self.lock();
        state.is_broken = true;
        *self.phase.borrow() == Phase::Closed && self.open(&mut state) == Reaction::Pause
    }

    /// Another version serves: what the one before did says nothing about it, and a pause need not
    /// be long.
    pub(crate) fn renew(&self) {
        let mut state = self.lock();
        (state.n_bad, state.n_trials) = (0, 0);
        state.broken.clear();
    }

    /// The pause is over: one job at a time.
    pub(crate) fn try_again(&self) {
        let mut state = self.lock();
        state.round += 1;
        self.phase.send_replace(Phase::Trial);
    }

    /// Ends the pause for good, unless the breaker has opened again: then whoever looks after the
    /// pause goes on (`false`).
    pub(crate) fn end_pause(&self) -> bool {
        let mut state = self.lock();
        let is_over = *self.phase.borrow() == Phase::Closed;
        if is_over {
            state.is_looked_after = false;
        }
        is_over
    }

    /// How long the pause lasts.
    pub(crate) fn pause(&self) -> Duration {
        FIRST_PAUSE
            .saturating_mul(2u32.saturating_pow(self.lock().n_trials))
            .min(LONGEST_PAUSE)
    }

    /// The phase, and every change of it.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(job_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    job_id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(breaker: &Breaker, sign: Sign) -> Reaction {
        breaker.note(sign, "a job", breaker.round(), 2)
    }

    fn opened() -> Breaker {
        let breaker = Breaker::new();
        assert_eq!(note(&breaker, Sign::Bad), Reaction::Settle);
        assert_eq!(note(&breaker, Sign::Bad), Reaction::Pause);
        breaker
    }

    fn phase(breaker: &Breaker) -> Phase {
        *breaker.phase().borrow()
    }

    #[test]
    fn one_success_in_between_keeps_it_closed() {
        let breaker = Breaker::new();
        for _ in 0..10 {
            assert_eq!(note(&breaker, Sign::Bad), Reaction::Settle);
            assert_eq!(note(&breaker, Sign::Good), Reaction::Settle);
        }
        assert_eq!(phase(&breaker), Phase::Closed);
    }

    #[test]
    fn failures_of_the_jobs_own_are_no_sign() {
        let breaker = Breaker::new();
        for sign in [Sign::None, Sign::Fair].repeat(10) {
            assert_eq!(note(&breaker, sign), Reaction::Settle);
        }
        assert_eq!(phase(&breaker), Phase::Closed);
    }

    #[test]
    fn while_it_is_open_failures_cost_nothing() {
        let breaker = opened();
        assert_eq!(note(&breaker, Sign::Bad), Reaction::PutBack);
        assert_eq!(note(&breaker, Sign::Good), Reaction::Settle);
        assert_eq!(phase(&breaker), Phase::Open);
    }

    #[test]
    fn a_trial_decides_and_the_pause_grows_to_its_bound() {
        let breaker = opened();
        assert_eq!(breaker.pause(), FIRST_PAUSE);
        for _ in 0..10 {
            breaker.try_again();
            assert_eq!(note(&breaker, Sign::Bad), Reaction::PutBack);
            assert_eq!(phase(&breaker), Phase::Open);
        }
        assert_eq!(breaker.pause(), LONGEST_PAUSE);
        breaker.try_again();
        assert_eq!(note(&breaker, Sign::Good), Reaction::Settle);
        assert_eq!(phase(&breaker), Phase::Closed);
        assert_eq!(breaker.pause(), FIRST_PAUSE);
        assert!(breaker.end_pause());
    }

    #[test]
    fn a_job_that_is_rejected_ends_a_trial_as_well() {
        let breaker = opened();
        breaker.try_again();
        assert_eq!(note(&breaker, Sign::None), Reaction::Settle);
        assert_eq!(phase(&breaker), Phase::Trial);
        assert_eq!(note(&breaker, Sign::Fair), Reaction::Settle);
        assert_eq!(phase(&breaker), Phase::Closed);
    }

    #[test]
    fn a_run_from_before_the_trial_does_not_decide_it() {
        let breaker = opened();
        let before = breaker.round();
        breaker.try_again();
        assert_eq!(
            breaker.note(Sign::Good, "a job", before, 2),
            Reaction::Settle
        );
        assert_eq!(
            breaker.note(Sign::Bad, "a job", before, 2),
            Reaction::PutBack
        );
        assert_eq!(phase(&breaker), Phase::Trial);
    }

    #[test]
    fn a_breaker_that_opens_again_before_its_pause_has_ended_is_looked_after_already() {
        let breaker = opened();
        breaker.try_again();
        note(&breaker, Sign::Good);
        assert_eq!(note(&breaker, Sign::Bad), Reaction::Settle);
        assert_eq!(note(&breaker, Sign::Bad), Reaction::PutBack);
        assert!(!breaker.end_pause());
        breaker.try_again();
        note(&breaker, Sign::Good);
        assert!(breaker.end_pause());
    }

    #[test]
    fn without_a_bound_it_never_opens() {
        let breaker = Breaker::new();
        for _ in 0..100 {
            let reaction = breaker.note(Sign::Bad, "a job", breaker.round(), 0);
            assert_eq!(reaction, Reaction::Settle);
        }
    }

    fn break_on(breaker: &Breaker, jobs: std::ops::Range<usize>) -> Vec<Reaction> {
        let run = |job: usize| breaker.note(Sign::Broken, &job.to_string(), breaker.round(), 2);
        jobs.map(run).collect()
    }

    #[test]
    fn a_plugin_that_breaks_on_twenty_jobs_in_a_row_pauses_and_the_next_ones_cost_nothing() {
        let breaker = Breaker::new();
        let reactions = break_on(&breaker, 0..MOST_BROKEN + 5);
        let (first, rest) = reactions.split_at(MOST_BROKEN - 1);
        assert!(first.iter().all(|reaction| *reaction == Reaction::Settle));
        assert_eq!(rest[0], Reaction::Pause);
        assert!(
            rest[1..]
                .iter()
                .all(|reaction| *reaction == Reaction::PutBack)
        );
        breaker.try_again();
        assert_eq!(break_on(&breaker, 0..1), [Reaction::PutBack]);
        assert_eq!(phase(&breaker), Phase::Open);
        breaker.try_again();
        assert_eq!(note(&breaker, Sign::Good), Reaction::Settle);
        assert_eq!(phase(&breaker), Phase::Closed);
        // And it takes as many again.
        let reactions = break_on(&breaker, 0..MOST_BROKEN - 1);
        assert!(
            reactions
                .iter()
                .all(|reaction| *reaction == Reaction::Settle)
        );
    }

    #[test]
    fn one_poisoned_job_opens_nothing_however_often_it_comes() {
        let breaker = Breaker::new();
        for _ in 0..100 {
            assert_eq!(note(&breaker, Sign::Broken), Reaction::Settle);
        }
        assert_eq!(phase(&breaker), Phase::Closed);
    }

    #[test]
    fn a_poisoned_job_during_a_pause_is_settled_as_ever() {
        let breaker = opened();
        assert_eq!(note(&breaker, Sign::Broken), Reaction::Settle);
        breaker.try_again();
        assert_eq!(note(&breaker, Sign::Broken), Reaction::Settle);
        assert_eq!(phase(&breaker), Phase::Trial);
    }

    #[test]
    fn a_plugin_that_breaks_on_everything_once_the_database_is_back_pauses_again() {
        let breaker = opened();
        breaker.try_again();
        let reactions = break_on(&breaker, 0..MOST_BROKEN);
        assert_eq!(reactions[MOST_BROKEN - 1], Reaction::PutBack);
        assert_eq!(phase(&breaker), Phase::Open);
    }

    #[test]
    fn a_version_that_is_condemned_pauses_until_a_job_succeeds() {
        let breaker = Breaker::new();
        assert!(breaker.condemn());
        assert!(!breaker.condemn());
        assert_eq!(break_on(&breaker, 0..1), [Reaction::PutBack]);
        breaker.try_again();
        assert_eq!(note(&breaker, Sign::Good), Reaction::Settle);
        assert_eq!(phase(&breaker), Phase::Closed);
    }

    #[test]
    fn another_version_begins_with_nothing_against_it() {
        let breaker = Breaker::new();
        break_on(&breaker, 0..MOST_BROKEN - 1);
        breaker.renew();
        assert_eq!(break_on(&breaker, 0..1), [Reaction::Settle]);
        assert_eq!(phase(&breaker), Phase::Closed);
    }
}
