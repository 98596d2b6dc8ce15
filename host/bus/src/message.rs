//! What travels on the bus: a message with everything that a broker or a host must know of it
//! without reading its body.

use bytes::Bytes;
use warren_protocol::{Address, Encoding, WorkerId};

/// What a message is, told from the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Work for a worker. Durable.
    Job,
    /// The answer to a call: a job whose due stop is the caller. Transient, and never queued
    /// behind jobs.
    Reply,
    /// The news that a job of the receiver has failed. Transient.
    Error,
    /// All that one run leads to, in one message, so that all of it is sent or none
    /// ([`Message::bundle`]). Whoever takes it sends its parts. Durable.
    Bundle,
}

impl Kind {
    /// Whether the message outlives a restart of the broker.
    #[must_use]
    pub fn is_durable(self) -> bool {
        matches!(self, Self::Job | Self::Bundle)
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Set once and kept over retries and redeliveries.
    pub id: String,
    /// Who gets it.
    pub to: Address,
    /// What it is.
    pub kind: Kind,
    /// The encoding of `body`.
    pub encoding: Encoding,
    /// The envelope (a `Job`, or a `JobError` for [`Kind::Error`]) in that encoding.
    pub body: Bytes,
    /// The call that the message belongs to, carried along every hop.
    pub correlation_id: Option<String>,
    /// Who waits for the reply of that call, carried along every hop.
    pub reply_to: Option<WorkerId>,
    /// 1 on the first run; a run that was interrupted does not count.
    pub attempt: u32,
    /// Nobody runs the job after this moment: milliseconds since 1970 (UTC). `None`: no limit.
    pub deadline_ms: Option<u64>,
    /// When the message was first handed to a bus: milliseconds since 1970 (UTC). Kept over
    /// retries; `None` until then.
    pub first_ms: Option<u64>,
    /// W3C trace context.
    pub trace_parent: Option<String>,
    /// The work was begun by a worker of MicroServices.js, not by one of a host. Carried along every
    /// hop. Such a worker does not call: what answers it is as durable as a job, and it is told when
    /// its job is given up.
    pub from_peer: bool,
    /// Who is told when the job is given up and nobody waits for its answer: the worker that sent it,
    /// where that one wants to know ([`Bus::bury`](crate::Bus::bury)).
    pub errors_to: Option<WorkerId>,
}

impl Message {
    /// A job in its first attempt that nobody waits for.
    #[must_use]
    pub fn new(id: String, to: Address, encoding: Encoding, body: Bytes) -> Self {
        Self {
            id,
            to,
            kind: Kind::Job,
            encoding,
            body,
            correlation_id: None,
            reply_to: None,
            attempt: 1,
            deadline_ms: None,
            first_ms: None,
            trace_parent: None,
            from_peer: false,
            errors_to: None,
        }
    }
}

/// Why a job was given up. Travels with the dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epitaph {
    /// A word from the list in RELIABILITY "Poison and dead letters": `permanent`,
    /// `max_attempts`, `trap`, `timeout`, `oom`, `decode`, `expired`, `unrouted`, `busy` or `host` when
    /// the host could not run it, and the limit that was hit: `cpu`, `host_calls`, `tables`, `stack`,
    /// `resources`.
    pub reason: &'static str,
    /// The text for a person, at most 4 KiB.
    pub error: String,
    /// The plugin's version and digest, where one ran.
    pub plugin: Option<String>,
    /// Where the guest was when it failed, at most 4 KiB.
    pub stack: Option<String>,
    /// The host that gave the job up.
    pub host: String,
}
