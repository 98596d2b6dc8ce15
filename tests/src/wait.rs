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
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        if start.elapsed() > LIMIT {
            panic!("waited {} s in vain: {what}", LIMIT.as_secs());
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
