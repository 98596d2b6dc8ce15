use crate::bindings::descriptor::exports::warren::worker::descriptor::Description;
use crate::bindings::handler::exports::warren::worker::handler;
use crate::bindings::imports::warren::worker::types::Failure;
use crate::{Job, Outcome, Result};

/// A worker that takes jobs from the bus. Export it with [`export_worker!`](crate::export_worker).
pub trait Worker {
    /// The type under which it works on the bus: a letter, then up to 63 letters, digits, `_`,
    /// `-` or `.`.
    const TYPE: &'static str;

    /// One line for the operator.
    const SUMMARY: &'static str;

    /// Runs one job.
    ///
    /// # Errors
    /// An [`Error`](crate::Error) is how the run ends, not a fault: it tells the host whether to
    /// run the job again. Nothing that the run sent with [`bus::send`](crate::bus::send) goes
    /// out then.
    fn handle(job: Job) -> Result<Outcome>;
}

/// Makes a [`Worker`] the plugin of this crate. The plugin's version is the crate's.
#[macro_export]
macro_rules! export_worker {
    ($worker:ident) => {
        impl $crate::bindings::descriptor::exports::warren::worker::descriptor::Guest for $worker {
            fn describe()
            -> $crate::bindings::descriptor::exports::warren::worker::descriptor::Description {
                $crate::describe::<$worker>(env!("CARGO_PKG_VERSION"))
            }
        }

        #[cfg(target_family = "wasm")]
        mod export_worker {
            use super::*;
            $crate::bindings::descriptor::export_descriptor!(
                $worker with_types_in $crate::bindings::descriptor
            );
            $crate::bindings::handler::export_handler!(
                $worker with_types_in $crate::bindings::handler
            );
        }
    };
}

#[doc(hidden)]
pub fn describe<W: Worker>(version: &str) -> Description {
    Description {
        worker_type: W::TYPE.to_owned(),
        version: version.to_owned(),
        summary: W::SUMMARY.to_owned(),
        accepts: Vec::new(),
        annotations: Vec::new(),
    }
}

impl<W: Worker> handler::Guest for W {
    fn handle(job: Job) -> Result<Outcome, Failure> {
        W::handle(job).map_err(Failure::from)
    }
}
