use std::fmt::{self, Display};
use std::time::Duration;

use crate::bindings::imports::warren::worker::bus::{CallError, SendError};
use crate::bindings::imports::warren::worker::sql;
use crate::bindings::imports::warren::worker::types::{Failure, Retry};
use crate::bindings::imports::wasi::config::store;
use crate::bindings::imports::wasi::keyvalue;

/// What most functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run failed, and whether running the job again may help.
///
/// Whatever comes from the host or from serde turns into one with `?`: what may go away by itself
/// is retried, a mistake is rejected. A worker that knows better matches the error before that.
///
/// | from | retried | rejected |
/// |---|---|---|
/// | [`bus::call`](crate::bus::call) | `NoLiveWorker`, `QueueFull`, `Timeout`, `Unavailable`, `Other` | `Invalid`, `Denied`, `UnknownType`, `Failed` |
/// | [`bus::send`](crate::bus::send) | `Other` | `Invalid`, `Payload`, `TooMany`, `Denied` |
/// | [`sql`](crate::sql) | `Conflict`, `Unavailable`, `Other` | `Invalid`, `Constraint`, `TooLarge`, `Denied` |
/// | [`keyvalue`](crate::keyvalue) | `Other` | `NoSuchStore`, `AccessDenied`, `Other` that begins with `invalid:` |
/// | [`config`](crate::config) | cannot be read now | a value of another kind |
/// | [`http::client`](crate::http::client) | `Timeout`, `Unavailable` | `Denied`, `Invalid`, `TooLarge` |
/// | [`Reply::success`](crate::http::client::Reply::success) | 408, 425, 429, 5xx | any other status |
/// | [`Job::json`](crate::Job::json), serde | | data of another shape |
///
/// A call that timed out may have taken effect: match it where asking again does harm. Any other
/// error says what it means by [`OrReject`].
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
    /// Whether another transaction was in the way.
    is_conflict: bool,
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
            is_conflict: false,
        }
    }

    /// The failure may go away by itself: the host runs the job again, after its own backoff and
    /// up to the worker's number of attempts.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Retry { after: None },
            reason: reason.into(),
            is_conflict: false,
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

    pub(crate) fn is_conflict(&self) -> bool {
        self.is_conflict
    }

    /// What the operator and the caller are told.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

impl std::error::Error for Error {}

/// Says what a failure means for the job, with the reason that is told before the error's own text.
///
/// ```
/// use warren_sdk::{OrReject, Result};
///
/// fn year(text: &str) -> Result<u16> {
///     text.parse().or_reject("the year is not a number")
/// }
///
/// fn newest(years: &[u16]) -> Result<u16> {
///     years.iter().copied().max().or_retry("there is no film yet")
/// }
///
/// let error = year("MCMLXXIX").unwrap_err();
/// assert_eq!(error.reason(), "the year is not a number: invalid digit found in string");
/// assert!(newest(&[]).is_err_and(|error| error.is_retryable()));
/// ```
pub trait OrReject<T> {
    /// The value, or an [`Error`] for a job that can never succeed.
    ///
    /// # Errors
    /// Where there is no value.
    fn or_reject(self, reason: impl Display) -> Result<T>;

    /// The value, or an [`Error`] for a failure that may go away by itself.
    ///
    /// # Errors
    /// Where there is no value.
    fn or_retry(self, reason: impl Display) -> Result<T>;
}

impl<T, E: Display> OrReject<T> for Result<T, E> {
    fn or_reject(self, reason: impl Display) -> Result<T> {
        self.map_err(|error| Error::reject(format!("{reason}: {error}")))
    }

    fn or_retry(self, reason: impl Display) -> Result<T> {
        self.map_err(|error| Error::retry(format!("{reason}: {error}")))
    }
}

impl<T> OrReject<T> for Option<T> {
    fn or_reject(self, reason: impl Display) -> Result<T> {
        self.ok_or_else(|| Error::reject(reason.to_string()))
    }

    fn or_retry(self, reason: impl Display) -> Result<T> {
        self.ok_or_else(|| Error::retry(reason.to_string()))
    }
}

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
            CallError::Denied(text) => Self::reject(format!("the call is not allowed: {text}")),
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
            sql::Error::Conflict(text) => Self {
                is_conflict: true,
                ..Self::retry(format!("transaction conflict: {text}"))
            },
            sql::Error::TooLarge(text) => Self::reject(format!("result too large: {text}")),
            sql::Error::Unavailable(text) => Self::retry(format!("database unavailable: {text}")),
            sql::Error::Denied(text) => Self::reject(format!("not allowed: {text}")),
            sql::Error::Other(text) => Self::retry(format!("database error: {text}")),
        }
    }
}

/// What begins with `unavailable:` may work later; what else the host refuses is a mistake.
impl From<keyvalue::store::Error> for Error {
    fn from(error: keyvalue::store::Error) -> Self {
        use keyvalue::store::Error as Refused;
        match error {
            Refused::NoSuchStore => Self::reject("there is no bucket of this name"),
            Refused::AccessDenied => {
                Self::reject("the operator gives this worker no keys and values (`keyvalue`)")
            }
            Refused::Other(text) if text.starts_with("invalid:") => {
                Self::reject(format!("key-value store: {text}"))
            }
            Refused::Other(text) => Self::retry(format!("key-value store: {text}")),
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

    /// Every error that the documentation of [`Error`] lists, and whether it is retried.
    #[test]
    fn what_may_go_away_is_retried_and_a_mistake_is_not() {
        let text = || "why".to_owned();
        let check = |error: Error, is_retried: bool| {
            assert_eq!(error.is_retryable(), is_retried, "{error}");
            assert!(error.reason().contains("why"), "{error}");
        };
        check(CallError::NoLiveWorker(text()).into(), true);
        check(CallError::QueueFull(text()).into(), true);
        check(CallError::Timeout(text()).into(), true);
        check(CallError::Unavailable(text()).into(), true);
        check(CallError::Other(text()).into(), true);
        check(CallError::Invalid(text()).into(), false);
        check(CallError::Denied(text()).into(), false);
        check(CallError::UnknownType(text()).into(), false);
        check(CallError::Failed(text()).into(), false);
        check(SendError::Other(text()).into(), true);
        check(SendError::Invalid(text()).into(), false);
        check(SendError::Payload(text()).into(), false);
        check(SendError::TooMany(text()).into(), false);
        check(SendError::Denied(text()).into(), false);
        check(sql::Error::Conflict(text()).into(), true);
        check(sql::Error::Unavailable(text()).into(), true);
        check(sql::Error::Other(text()).into(), true);
        check(sql::Error::Invalid(text()).into(), false);
        check(sql::Error::Constraint(text()).into(), false);
        check(sql::Error::TooLarge(text()).into(), false);
        check(sql::Error::Denied(text()).into(), false);
        let other = |text: &str| keyvalue::store::Error::Other(text.to_owned());
        check(other("unavailable: why").into(), true);
        check(other("invalid: why").into(), false);
        check(store::Error::Upstream(text()).into(), true);
        check(store::Error::Io(text()).into(), true);
    }

    #[test]
    fn a_verdict_on_an_error_replaces_the_one_it_had() {
        let busy: Result<()> = Err(Error::retry("busy"));
        let error = busy.or_reject("the till is closed").unwrap_err();
        assert_eq!(error, Error::reject("the till is closed: busy"));
    }
}
