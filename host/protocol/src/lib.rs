//! The words of the bus, and nothing but the words: jobs, routes, outcomes, addresses, encodings
//! and announcements.
//!
//! Invariant: pure. No I/O, no async, no clock (time is an argument), no knowledge of AMQP or of
//! WebAssembly. Whatever arrives here from outside is hostile and is answered with an error.

mod address;
mod announcement;
mod codec;
mod encoding;
mod envelope;
mod error;
mod job;
mod mixed;
mod outcome;
mod payload;
pub mod topic;

pub use address::{Address, AddressError, Stop, WorkerId, WorkerType};
pub use announcement::{GET_ALL, GET_WORKER_LIST, ListEntry};
pub use encoding::Encoding;
pub use envelope::{Acknowledgement, Ending, ErrorTarget, JobError};
pub use error::CodecError;
pub use job::{Identity, Job, job_id};
pub use outcome::{CallError, Outcome, Slip};
pub use payload::Payload;
