//! Write Warren workers in Rust.
//!
//! A worker is a type that implements [`Worker`] (it takes jobs from the bus) or
//! [`HttpWorker`](http::HttpWorker) (it answers HTTP requests), and one line that exports it:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use warren_sdk::{Job, Outcome, Result, Worker};
//!
//! /// Doubles a number.
//! pub struct Doubler;
//!
//! #[derive(Deserialize, Serialize)]
//! struct Number {
//!     value: i64,
//! }
//!
//! impl Worker for Doubler {
//!     const TYPE: &'static str = "DX";
//!     const SUMMARY: &'static str = "Doubles a number";
//!
//!     fn handle(job: Job) -> Result<Outcome> {
//!         let Number { value } = job.json()?;
//!         Outcome::forward(&Number { value: value * 2 })
//!     }
//! }
//!
//! warren_sdk::export_worker!(Doubler);
//! ```
//!
//! Beside what it is given, a worker reaches the world through the host only: [`bus`] to talk to
//! other workers, [`sql`] for a database, [`keyvalue`] for keys and values, [`http::client`], [`config`],
//! [`log`], [`metrics`], and [`context`] for what is known of the run. The host waits where a call
//! waits; there is no `async` here.
//!
//! Every run starts in a fresh instance (unless the operator chose otherwise), so statics do not
//! carry over, and may be repeated after a crash, so effects are to be made idempotent by
//! `job.id`. An [`Error`] says whether the host should try again: it lists what `?` makes of each
//! error of the host.
//!
//! Imports work only inside a host. A native build (`cargo test --target x86_64-unknown-linux-gnu`)
//! is for unit tests of what does not call them; one that does ends the whole test process.

#[doc(hidden)]
pub mod bindings;

pub mod bus;
pub mod config;
pub mod context;
mod error;
pub mod errors;
pub mod http;
pub mod keyvalue;
pub mod log;
pub mod metrics;
mod payload;
pub mod sql;
mod worker;

pub use bindings::imports::warren::worker::types::{Job, Outcome, Payload};
pub use error::{Error, OrReject, Result};
pub use payload::IntoPayload;
pub use worker::Worker;

#[doc(hidden)]
pub use worker::describe;

/// It holds a whole worker, which is compiled with the examples.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
