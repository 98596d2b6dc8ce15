//! The verdict of one run, and why a call has no reply. The only thing that crosses from the
//! runtime to the bus.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Payload, Stop};

/// A new job that a worker hands over: where it goes and what it carries.
#[derive(Clone, Debug, PartialEq)]
pub struct Slip {
    /// At least one stop.
    pub stops: Vec<Stop>,
    /// What the job carries to its first stop.
    pub data: Payload,
}

/// What one run of a job leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing more is to be done.
    Done,
    /// The value goes to the next stop of the job's own route; at the last stop of a call it is
    /// the reply.
    Forward(Payload),
    /// The work goes on along a new route.
    Route(Slip),
    /// Run again later: an attempt that failed for a reason that may pass.
    Retry {
        /// No sooner than this from now; `None` leaves it to the host's backoff.
        after: Option<Duration>,
        /// For the operator and, after the last attempt, for the caller.
        reason: String,
    },
    /// The job can never succeed.
    Reject {
        /// For the operator and the caller.
        reason: String,
    },
}

/// Why a call has no reply, and what the sender of a job is told when it fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "kebab-case")]
pub enum CallError {
    /// The slip itself is wrong.
    #[error("{reason}")]
    Invalid {
        /// Names the culprit.
        reason: String,
    },
    /// No worker of the type has ever been on the bus.
    #[error(
        "no worker of type {worker_type} has ever been on the bus: check the type, or start one"
    )]
    UnknownType {
        /// The type that was addressed.
        worker_type: String,
    },
    /// The type is known, but no worker of it is alive, or that one worker is gone.
    #[error("no worker is alive at {address}: start one")]
    NoLiveWorker {
        /// The address, `TYPE:*` or a worker id.
        address: String,
    },
    /// The queue is at its limit.
    #[error("the queue of {worker_type} is full: slow down, or add workers")]
    QueueFull {
        /// The type whose queue is full.
        worker_type: String,
    },
    /// No reply came in time.
    #[error("no reply from {address} within {after_ms} ms")]
    Timeout {
        /// The first stop of the call.
        address: String,
        /// How long the caller waited, in milliseconds.
        after_ms: u64,
    },
    /// The broker cannot be reached or did not confirm.
    #[error("the bus is unavailable: {reason}")]
    Unavailable {
        /// What happened last.
        reason: String,
    },
    /// The worker that ran the job gave it up.
    #[error("worker {worker} failed after {attempts} attempt(s): {reason}")]
    Failed {
        /// The type or id of the worker that failed.
        worker: String,
        /// How often the job was started there.
        attempts: u32,
        /// The worker's reason, at most 4 KiB.
        reason: String,
    },
}

impl CallError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(
            self,
            Self::Invalid { .. } | Self::UnknownType { .. } | Self::Failed { .. }
        )
    }
}
