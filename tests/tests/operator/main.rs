//! The commands of an operator, through the built `warren`, on a real broker: `warren dlq` and
//! `warren topology`.
//!
//! Each test has a worker type of its own, drawn anew, so that they run side by side and the log of
//! dead letters, which cannot be emptied, does not disturb them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod ask;
mod bench;
mod look;
mod misuse;
mod replay;
mod topology;
