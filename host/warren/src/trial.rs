//! The trial of one version of a worker, from the moment it serves: whether its first jobs show
//! that it works, or that the version before it should come back.
//!
//! Pure: no clock, no bus. [`crate::reload`] does what a [`Judgement`] says.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, PoisonError},
};

/// So many jobs that came to a good end prove a version: what fails later is not its newness.
const PROOF: u32 = 20;
/// So many different jobs that failed without one success in between, and the version is at fault,
/// not the jobs.
const MOST_FAILED: usize = 10;

/// What one run says about the version that ran it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// It came to its end.
    Good,
    /// It trapped, broke a limit, said something unusable, or asked to be run again without a plan.
    Failed,
    /// It rejected the job. That may be right, unless a version has never done anything else.
    Rejected,
    /// Nothing: it was interrupted, or waits on purpose.
    None,
}

/// Where a version stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Its first jobs are being watched.
    #[default]
    OnTrial,
    /// It works.
    Proven,
    /// It fails at everything.
    Condemned,
}

/// The trial of one version.
#[derive(Default)]
pub(crate) struct Trial(Mutex<State>);

#[derive(Default)]
struct State {
    judgement: Judgement,
    n_good: u32,
    /// The jobs that failed since the last success, by a hash of their id: one that is run again
    /// counts once.
    failed: HashSet<u64>,
    /// What the last of them said.
    last_words: String,
}

impl Trial {
    /// Takes in how a run ended. Returns the judgement when this run has decided it. `words` is
    /// asked only when it is kept.
    pub(crate) fn note(
        &self,
        evidence: Evidence,
        job_id: &str,
        words: impl FnOnce() -> String,
    ) -> Option<Judgement> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.judgement != Judgement::OnTrial {
            return None;
        }
        match evidence {
            Evidence::None => return None,
            // Rejections between successes are the jobs' fault.
            Evidence::Rejected if state.n_good > 0 => return None,
            Evidence::Good => {
                state.n_good += 1;
                state.failed.clear();
                if state.n_good < PROOF {
                    return None;
                }
                state.judgement = Judgement::Proven;
            }
            Evidence::Failed | Evidence::Rejected => {
                let mut hasher = DefaultHasher::new();
                job_id.hash(&mut hasher);
                state.failed.insert(hasher.finish());
                if state.failed.len() < MOST_FAILED {
                    return None;
                }
                state.last_words = words();
                state.judgement = Judgement::Condemned;
            }
        }
        Some(state.judgement)
    }

    /// It has been proven at another time.
    pub(crate) fn trust(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.judgement = Judgement::Proven;
    }

    /// There is nothing to go back to: it has to be tried on.
    pub(crate) fn go_on(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// The breaker has opened on this version: condemns it if nothing has proven it before.
    pub(crate) fn fail(&self, why: String) -> Option<Judgement> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.judgement != Judgement::OnTrial {
            return None;
        }
        state.last_words = why;
        state.judgement = Judgement::Condemned;
        Some(Judgement::Condemned)
    }

    /// Where the version stands.
    pub(crate) fn judgement(&self) -> Judgement {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .judgement
    }

    /// What the run said that condemned it.
    pub(crate) fn last_words(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last_words
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each letter is a run of another job: `g`ood, `f`ailed, `r`ejected, `n`othing; `F` is a run
    /// of the same job again.
    fn check(runs: &str, expected: Judgement) {
        let trial = Trial::default();
        for (n, run) in runs.chars().enumerate() {
            let evidence = match run {
                'g' => Evidence::Good,
                'r' => Evidence::Rejected,
                'n' => Evidence::None,
                _ => Evidence::Failed,
            };
            let job = if run == 'F' { 0 } else { n + 1 };
            trial.note(evidence, &job.to_string(), || format!("run {n}"));
        }
        assert_eq!(trial.judgement(), expected, "{runs}");
    }

    #[test]
    fn a_version_that_fails_at_its_first_ten_jobs_is_condemned() {
        check(&"f".repeat(9), Judgement::OnTrial);
        check(&"f".repeat(10), Judgement::Condemned);
        check(&"fn".repeat(10), Judgement::Condemned);
    }

    #[test]
    fn one_job_that_is_run_again_and_again_condemns_nothing() {
        check(&"F".repeat(100), Judgement::OnTrial);
    }

    #[test]
    fn failures_between_successes_condemn_nothing() {
        check(&"fffffffffg".repeat(2), Judgement::OnTrial);
        check(&"fffffffffg".repeat(20), Judgement::Proven);
    }

    #[test]
    fn twenty_good_jobs_prove_a_version_for_good() {
        check(&"g".repeat(19), Judgement::OnTrial);
        check(&"g".repeat(20), Judgement::Proven);
        check(&("g".repeat(20) + &"f".repeat(100)), Judgement::Proven);
    }

    #[test]
    fn a_version_that_has_only_ever_rejected_is_condemned() {
        check(&"r".repeat(10), Judgement::Condemned);
        check(&("g".to_owned() + &"r".repeat(50)), Judgement::OnTrial);
    }

    #[test]
    fn the_run_that_decides_says_so_and_its_words_are_kept() {
        let trial = Trial::default();
        for n in 0..9 {
            assert_eq!(
                trial.note(Evidence::Failed, &n.to_string(), String::new),
                None
            );
        }
        let decided = trial.note(Evidence::Failed, "9", || "it trapped".to_owned());
        assert_eq!(decided, Some(Judgement::Condemned));
        assert_eq!(trial.last_words(), "it trapped");
        assert_eq!(trial.note(Evidence::Failed, "10", String::new), None);
    }

    #[test]
    fn a_version_without_an_alternative_is_tried_on_and_can_still_prove_itself() {
        let trial = Trial::default();
        assert_eq!(trial.fail("why".to_owned()), Some(Judgement::Condemned));
        trial.go_on();
        for n in 0..PROOF {
            trial.note(Evidence::Good, &n.to_string(), String::new);
        }
        assert_eq!(trial.judgement(), Judgement::Proven);
    }

    #[test]
    fn an_open_breaker_condemns_only_what_is_not_proven() {
        let trial = Trial::default();
        assert_eq!(trial.fail("why".to_owned()), Some(Judgement::Condemned));
        let trial = Trial::default();
        for n in 0..PROOF {
            trial.note(Evidence::Good, &n.to_string(), String::new);
        }
        assert_eq!(trial.fail("why".to_owned()), None);
    }
}
