//! Figures of the worker's own, on the host's `/metrics` as `warren_guest_<name>`.
//!
//! Names are `[a-z][a-z0-9_]*`, at most 64 bytes, and a metric must always be given the same
//! label names. The host drops what is malformed or too much, and says so in its log. How many
//! jobs ran and how long they took is counted by the host itself.
//!
//! ```no_run
//! use warren_sdk::metrics;
//!
//! metrics::count("logins_total", &[("method", "password")], 1);
//! metrics::observe("photo_bytes", &[], 48_213.0);
//! metrics::gauge("stock_level", &[("shelf", "7")], 3.0);
//! let digest = metrics::time("digest_seconds", &[], || /* some work */ 42);
//! ```

use std::time::Instant;

use crate::bindings::imports::warren::worker::metrics;

/// Adds to a counter. Its name ends with `_total`.
pub fn count(name: &str, labels: &[(&str, &str)], by: u64) {
    metrics::count(name, &owned(labels), by);
}

/// Adds an observation to a histogram, in the base unit that its name ends with. That decides the
/// buckets: `_seconds` from 1 ms to 30 s, `_bytes` from 256 B to 64 MiB, anything else from 0.001
/// to 10,000.
pub fn observe(name: &str, labels: &[(&str, &str)], value: f64) {
    metrics::observe(name, &owned(labels), value);
}

/// Sets a gauge.
pub fn gauge(name: &str, labels: &[(&str, &str)], value: f64) {
    metrics::gauge(name, &owned(labels), value);
}

/// Does a part of the work and adds how long it took to a histogram, whose name ends with
/// `_seconds`. What fails is timed as well.
///
/// ```no_run
/// use warren_sdk::{metrics, sql};
///
/// # fn handle() -> warren_sdk::Result<()> {
/// let rows = metrics::time("query_seconds", &[("table", "movies")], || {
///     sql::query("SELECT title FROM movies", &[])
/// })?;
/// # Ok(())
/// # }
/// ```
pub fn time<T>(name: &str, labels: &[(&str, &str)], work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let value = work();
    observe(name, labels, begun.elapsed().as_secs_f64());
    value
}

fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    labels
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
