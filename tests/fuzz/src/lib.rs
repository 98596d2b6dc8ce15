//! What strangers hand to a host, as functions of bytes: a configuration, a message, a plugin. Each
//! takes any bytes, returns when the promises of the code under it hold, and panics when one does
//! not.
//!
//! [`fuzz_target!`] makes a libFuzzer target of one (`targets/`, run by `tests/fuzz/run`); a plain
//! test feeds them the seeds and the checked-in corpus. They never know which of the two calls.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a target reports by a panic"
)]

pub mod config;
pub mod envelope;
mod feedback;
mod memory;
pub mod plugin;
pub mod seeds;

pub use feedback::fuzz_input;
