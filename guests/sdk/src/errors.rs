//! Hearing of jobs that were given up.
//!
//! ```
//! # use warren_sdk::{Job, Outcome, Worker};
//! use warren_sdk::errors::{Cause, JobError, TreatErrors};
//! use warren_sdk::{Result, log};
//!
//! # /// Sends mail.
//! # pub struct Shop;
//! # impl Worker for Shop {
//! #     const TYPE: &'static str = "SHOP";
//! #     const SUMMARY: &'static str = "Sells";
//! #     fn handle(job: Job) -> Result<Outcome> {
//! #         Ok(Outcome::Done)
//! #     }
//! # }
//! impl TreatErrors for Shop {
//!     fn treat_error(error: JobError) -> Result<()> {
//!         match error.cause {
//!             Cause::Rejected(reason) => log::error!("{} will never do {}: {reason}", error.stop, error.id),
//!             cause => log::warn!("{} was given up after {}: {cause:?}", error.id, error.attempts),
//!         }
//!         Ok(())
//!     }
//! }
//!
//! warren_sdk::export_worker!(Shop);
//! warren_sdk::export_errors!(Shop);
//! ```

use crate::Result;
use crate::bindings::errors::exports::warren::worker::errors;

pub use errors::{Cause, JobError};

/// A worker that hears of the jobs which it sent, with [`bus::send`](crate::bus::send) or by sending
/// its own job on, and which were given up. Export it with [`export_errors!`](crate::export_errors)
/// beside the macro for the worker.
pub trait TreatErrors {
    /// Takes in that a job was given up; it is among the dead letters.
    ///
    /// Whoever called is told by the call; this is for jobs that nobody waits for.
    ///
    /// # Errors
    /// The host logs the reason, and that is all: this is not run again, whatever the
    /// [`Error`](crate::Error) says, and what it has sent does not go out.
    fn treat_error(error: JobError) -> Result<()>;
}

/// Exports a [`TreatErrors`](crate::errors::TreatErrors) from the plugin of this crate.
#[macro_export]
macro_rules! export_errors {
    ($worker:ident) => {
        #[cfg(target_family = "wasm")]
        mod export_errors {
            use super::*;
            $crate::bindings::errors::export_errors!(
                $worker with_types_in $crate::bindings::errors
            );
        }
    };
}

impl<W: TreatErrors> errors::Guest for W {
    fn treat_error(error: JobError) -> Result<(), String> {
        W::treat_error(error).map_err(|error| error.reason().to_owned())
    }
}
