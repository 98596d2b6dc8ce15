//! What has come of the jobs of one measurement: counts that add up, and latencies.
//!
//! Invariant: sent = answered + failed + unanswered, once the measurement is over.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use hdrhistogram::Histogram;
use warren_protocol::CallError;

use super::super::ask::code;

/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;
/// The longest latency that is told from longer ones: the longest that a call waits.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Jobs and what became of them.
pub(super) struct Record {
    pub(super) sent: u64,
    /// With a reply, or where nobody waits for one, stored by the bus.
    pub(super) answered: u64,
    /// By the word of the error.
    pub(super) failed: BTreeMap<String, Failures>,
    /// Still open when the measurement was broken off.
    pub(super) unanswered: u64,
    /// Of the answered ones, those whose answer came before the time was up.
    pub(super) answered_in_time: u64,
    /// Of all, those that had ended before the time was up.
    pub(super) ended_in_time: u64,
    /// Of the answered ones: from when they were due to the answer.
    pub(super) latency: Times,
    /// From when a job was due to when it was sent.
    pub(super) lag: Times,
}

/// Failures of one kind.
pub(super) struct Failures {
    pub(super) n: u64,
    /// The text of the first one.
    pub(super) example: String,
}

/// A histogram of durations, in microseconds.
pub(super) struct Times(Histogram<u64>);

impl Record {
    /// # Errors
    /// Never: the bounds of the histograms are constants.
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            sent: 0,
            answered: 0,
            failed: BTreeMap::new(),
            unanswered: 0,
            answered_in_time: 0,
            ended_in_time: 0,
            latency: Times::new()?,
            lag: Times::new()?,
        })
    }

    /// A job has ended.
    pub(super) fn end(&mut self, result: Result<(), CallError>, latency: Duration, in_time: bool) {
        self.ended_in_time += u64::from(in_time);
        match result {
            Ok(()) => {
                self.answered += 1;
                self.answered_in_time += u64::from(in_time);
                self.latency.note(latency);
            }
            Err(error) => {
                let word = code(&error).unwrap_or_else(|_| "other".to_owned());
                let failures = self.failed.entry(word).or_insert_with(|| Failures {
                    n: 0,
                    example: error.to_string(),
                });
                failures.n += 1;
            }
        }
    }

    pub(super) fn n_failed(&self) -> u64 {
        self.failed.values().map(|failures| failures.n).sum()
    }
}

impl Times {
    fn new() -> anyhow::Result<Self> {
        let longest = micros(LONGEST);
        let times = Histogram::new_with_max(longest, DIGITS).context("making a histogram")?;
        Ok(Self(times))
    }

    pub(super) fn note(&mut self, time: Duration) {
        self.0.saturating_record(micros(time).max(1));
    }

    /// So many of a hundred are not longer. Zero where there is none.
    pub(super) fn percentile(&self, percentile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_percentile(percentile))
    }

    pub(super) fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    /// In microseconds.
    pub(super) fn mean(&self) -> f64 {
        self.0.mean()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whole microseconds.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
