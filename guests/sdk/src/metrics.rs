//! Figures of the worker's own, on the host's `/metrics` as `warren_guest_<name>`.
//!
//! Names are `[a-z][a-z0-9_]*`, at most 64 bytes, and a metric must always be given the same
//! label names. The host drops what is malformed or too much, and says so in its log.
//!
//! ```no_run
//! use warren_sdk::metrics;
//!
//! metrics::count("logins_total", &[("method", "password")], 1);
//! metrics::observe("query_seconds", &[], 0.012);
//! metrics::gauge("queue_length", &[], 3.0);
//! ```

use crate::bindings::imports::warren::worker::metrics;

/// Adds to a counter.
pub fn count(name: &str, labels: &[(&str, &str)], by: u64) {
    metrics::count(name, &owned(labels), by);
}

/// Adds an observation to a histogram, in the metric's base unit (seconds, bytes).
pub fn observe(name: &str, labels: &[(&str, &str)], value: f64) {
    metrics::observe(name, &owned(labels), value);
}

/// Sets a gauge.
pub fn gauge(name: &str, labels: &[(&str, &str)], value: f64) {
    metrics::gauge(name, &owned(labels), value);
}

fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    labels
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
