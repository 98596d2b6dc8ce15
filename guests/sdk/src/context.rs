//! What is known about the run in progress. No call here waits.

use std::time::Duration;

use crate::bindings::imports::warren::worker::context;

pub use context::{attempt, header, is_cancelled, trace_parent, worker_id};

/// How long until the host stops this run. Zero when the deadline has passed.
pub fn time_left() -> Duration {
    Duration::from_millis(context::deadline_ms())
}
