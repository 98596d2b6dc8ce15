//! Talking to other workers. Nobody needs to know where they run or in what language.

use std::time::Duration;

use crate::bindings::imports::warren::worker::bus;
use crate::payload::slip;
use crate::{IntoPayload, Payload, Result};

pub use bus::{CallError, SendError};

/// Sends a job along `stops` (each `TYPE:*` or the id of a worker) and does not wait for it.
///
/// The host holds it until this run has succeeded; a run that fails has sent nothing.
///
/// ```no_run
/// # fn handle() -> warren_sdk::Result<()> {
/// warren_sdk::bus::send(["AUDIT:*"], &"somebody logged in")?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Local grounds only: a malformed stop or payload, or more than this worker may send.
pub fn send<S: Into<String>>(
    stops: impl IntoIterator<Item = S>,
    data: impl IntoPayload,
) -> Result<(), SendError> {
    let slip = slip(stops, data).map_err(|error| SendError::Payload(error.to_string()))?;
    bus::send(&slip)
}

/// Sends a job at once and waits for the reply, as long as the host waits by default (10 s unless
/// configured).
///
/// ```no_run
/// # fn handle() -> warren_sdk::Result<()> {
/// # #[derive(serde::Deserialize)]
/// # struct Forecast { celsius: f64 }
/// let forecast: Forecast = warren_sdk::bus::call(["WEATHER:*"], &"Lyon")?.json()?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The [`CallError`] says why there is no reply. With `?` it becomes an [`Error`](crate::Error)
/// that is retried when trying again may help. After a timeout the job may still run.
pub fn call<S: Into<String>>(
    stops: impl IntoIterator<Item = S>,
    data: impl IntoPayload,
) -> Result<Payload, CallError> {
    call_within(None, stops, data)
}

/// As [`call`], but waits no longer than `timeout`, which the host caps by the time that this run
/// has left. None is the host's default.
///
/// # Errors
/// As [`call`].
pub fn call_within<S: Into<String>>(
    timeout: impl Into<Option<Duration>>,
    stops: impl IntoIterator<Item = S>,
    data: impl IntoPayload,
) -> Result<Payload, CallError> {
    let slip = slip(stops, data).map_err(|error| CallError::Invalid(error.to_string()))?;
    let timeout_ms = timeout
        .into()
        .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    bus::call(&slip, timeout_ms)
}
