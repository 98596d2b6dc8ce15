//! Saying once what goes on failing.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tracing::{debug, warn};

/// How often a failure that goes on is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Several brokers, tried in turn, fail in as many ways; more texts than these are forgotten.
const MAX_TEXTS: usize = 32;

/// Logs a failure when it is new, and now and then when it goes on.
#[derive(Default)]
pub(super) struct FailureLog {
    told: HashMap<String, Instant>,
}

impl FailureLog {
    pub(super) fn note(&mut self, problem: &str) {
        let last = self.told.get(problem);
        if last.is_some_and(|when| when.elapsed() < LOG_EVERY) {
            return debug!(problem, "the bus still does not work as it should");
        }
        warn!(problem, "the bus does not work as it should");
        if self.told.len() >= MAX_TEXTS {
            self.told.clear();
        }
        self.told.insert(problem.to_owned(), Instant::now());
    }
}
