use std::fmt;
use std::time::Duration;

use crate::bindings::imports::warren::worker::bus::{CallError, SendError};
use crate::bindings::imports::warren::worker::sql;
use crate::bindings::imports::warren::worker::types::{Failure, Retry};
use crate::bindings::imports::wasi::config::store;

/// What most functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run failed, and whether running the job again may help.
///
/// Whatever comes from the host or from serde turns into one with `?`: what may go away by itself
/// (no live worker, a timeout, a database in use) is retried, a mistake is rejected.
///
/// ```
/// # use std::time::Duration;
/// # use warren_sdk::{Error, Result};
/// fn checked(amount: i64) -> Result<i64> {
///     match amount {
///         0 => Err(Error::reject("the amount is 0")),
///         n if n > 1000 => Err(Error::retry("above today's limit").after(Duration::from_secs(60))),
///         n => Ok(n),
///     }
/// }
/// assert!(checked(2000).is_err_and(|error| error.is_retryable()));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    verdict: Verdict,
    reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Reject,
    Retry { after: Option<Duration> },
}

impl Error {
    /// The job can never succeed: the host dead-letters it and tells the caller the reason.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Reject,
            reason: reason.into(),
        }
    }

    /// The failure may go away by itself: the host runs the job again, after its own backoff and
    /// up to the worker's number of attempts.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Retry { after: None },
            reason: reason.into(),
        }
    }

    /// Runs the job again, no sooner than `delay` from now.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.verdict = Verdict::Retry { after: Some(delay) };
        self
    }

    /// Whether the host will run the job again.
    pub fn is_retryable(&self) -> bool {
        matches!(self.verdict, Verdict::Retry { .. })
    }

    /// What the operator and the caller are told.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.verdict {
            Verdict::Reject => Failure::Reject(error.reason),
            Verdict::Retry { after } => Failure::Retry(Retry {
                after_ms: after.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
                reason: error.reason,
            }),
        }
    }
}

/// Data of the wrong shape stays of the wrong shape.
impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::reject(error.to_string())
    }
}

/// The host's text names the worker or the stop and says what happened.
impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NoLiveWorker(text)
            | CallError::QueueFull(text)
            | CallError::Timeout(text)
            | CallError::Unavailable(text) => Self::retry(text),
            CallError::UnknownType(text) | CallError::Failed(text) => Self::reject(text),
            CallError::Invalid(text) => Self::reject(format!("the call is not valid: {text}")),
            CallError::Other(text) => Self::retry(format!("the call failed: {text}")),
        }
    }
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Invalid(text)
            | SendError::Payload(text)
            | SendError::TooMany(text)
            | SendError::Denied(text) => Self::reject(format!("the job cannot be sent: {text}")),
            SendError::Other(text) => Self::retry(format!("the job could not be sent: {text}")),
        }
    }
}

impl From<sql::Error> for Error {
    fn from(error: sql::Error) -> Self {
        match error {
            sql::Error::Invalid(text) => Self::reject(format!("invalid statement: {text}")),
            sql::Error::Constraint(text) => Self::reject(format!("constraint violated: {text}")),
            sql::Error::Conflict(text) => Self::retry(format!("transaction conflict: {text}")),
            sql::Error::TooLarge(text) => Self::reject(format!("result too large: {text}")),
            sql::Error::Unavailable(text) => Self::retry(format!("database unavailable: {text}")),
            sql::Error::Other(text) => Self::retry(format!("database error: {text}")),
        }
    }
}

/// Configuration comes from somewhere that may be back later.
impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Upstream(text) | store::Error::Io(text) => {
                Self::retry(format!("configuration unavailable: {text}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_told_in_milliseconds() {
        let failure = Failure::from(Error::retry("busy").after(Duration::from_millis(1500)));
        assert_eq!(
            failure,
            Failure::Retry(Retry {
                after_ms: Some(1500),
                reason: "busy".to_owned()
            })
        );
    }

    #[test]
    fn what_may_go_away_is_retried_and_a_mistake_is_not() {
        assert!(Error::from(CallError::NoLiveWorker("WB".to_owned())).is_retryable());
        assert!(Error::from(sql::Error::Conflict("locked".to_owned())).is_retryable());
        assert!(!Error::from(CallError::UnknownType("WX".to_owned())).is_retryable());
        assert!(!Error::from(sql::Error::Invalid("syntax".to_owned())).is_retryable());
    }
}
