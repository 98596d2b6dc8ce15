//! The time of day, for the floors below that have no clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock: milliseconds since 1970 (UTC), as messages carry it.
#[must_use]
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
