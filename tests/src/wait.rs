//! Waiting for something to happen, with a bound.

#![allow(clippy::panic, reason = "a test that waits in vain has failed")]

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

/// How long a test waits for something that should happen soon. Generous: it is reached only when
/// the test fails, and machines are slow and shared.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Waits until `check` yields a value, asking again every few milliseconds.
///
/// # Panics
/// When it has not after [`LIMIT`]: `what` says what did not happen.
pub async fn eventually<T>(what: &str, check: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(LIMIT, what, check).await
}

/// As [`eventually`], for what takes longer, or must not take as long.
///
/// # Panics
/// When it has not after `limit`: `what` says what did not happen.
pub async fn eventually_within<T>(
    limit: Duration,
    what: &str,
    check: impl AsyncFnMut() -> Option<T>,
) -> T {
    match try_within(limit, check).await {
        Some(value) => value,
        None => panic!("waited {} s in vain: {what}", limit.as_secs()),
    }
}

/// Waits until `check` yields a value, and gives up after `limit`.
pub async fn try_within<T>(
    limit: Duration,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = check().await {
            return Some(value);
        }
        if start.elapsed() > limit {
            return None;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for a future that should be ready soon.
///
/// # Panics
/// When it is not after [`LIMIT`]: `what` says what did not happen.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s in vain: {what}", LIMIT.as_secs()),
    }
}
