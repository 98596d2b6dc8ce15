//! What the operator sees of the host: log lines and metrics.

pub mod logs;
pub mod metrics;
mod process_time;
pub(crate) mod progress;
