//! Hosts and Node peers (`tests/peer`) on one broker. The peers are as strict and as fragile as
//! MicroServices.js 0.0.10 (`tests/tests/peers` holds them against its protocol), so a peer that
//! stays well was not harmed.
//!
//! Each test has a virtual host of its own, so that they run side by side.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod bench;
mod better;
mod claims;
mod gateway;
mod hand_over;
mod migrate;
mod mixed_pools;
mod trios;
