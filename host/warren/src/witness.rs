//! Whoever wants to see how runs of jobs end: what the bus does not tell, because nothing is sent for
//! it. A host that serves has none.

use std::{fmt, sync::Arc};

use warren_bus::Message;
use warren_protocol::{Outcome, Slip};
use warren_runtime::{Fault, JobRun};

/// Sees every run of a job when it has been settled. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Witness(Arc<dyn Fn(Seen) + Send + Sync>);

/// One run of a job.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Which attempt it was.
    pub(crate) attempt: u32,
    /// The guest's verdict, or why it has none.
    pub(crate) verdict: Result<Outcome, Fault>,
    /// What it sent.
    pub(crate) sends: Vec<Slip>,
    /// Where the guest was when it failed.
    pub(crate) stack: Option<String>,
    /// The word for what became of the job: `ok`, `retry`, `dead`, `failed`, `interrupted`.
    pub(crate) end: &'static str,
}

impl Witness {
    pub(crate) fn new(sees: impl Fn(Seen) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sees))
    }

    pub(crate) fn tell(&self, seen: Seen, end: &'static str) {
        (self.0)(Seen { end, ..seen });
    }
}

impl Seen {
    /// A run that has ended and is not settled yet.
    pub(crate) fn of(message: &Message, run: &JobRun) -> Self {
        Self {
            attempt: message.attempt,
            verdict: run.verdict.clone(),
            sends: run.sends.clone(),
            stack: run.stack.clone(),
            end: "",
        }
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness")
    }
}
