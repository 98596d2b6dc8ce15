//! The Node peer itself, without any host: it speaks as MicroServices.js 0.0.10 does, and it is as
//! easily killed. Only so do tests with a host show by a peer's health that the host does no harm.
//!
//! Each test has a virtual host of its own, so that they run side by side.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod fixtures;
mod fragile;
mod trio;
mod turns;
