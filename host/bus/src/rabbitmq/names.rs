//! The names on the broker. They carry the version of the topology; what a name stands for never
//! changes in place.

use lapin::types::ShortString;
use warren_protocol::WorkerType;

use super::ConfigError;

/// Every job goes here; the key is its stop.
pub(super) const JOBS: &str = "warren.v1.jobs";
/// Dead letters, by worker type.
pub(super) const DEAD: &str = "warren.v1.dead";
/// Dead letters of a type that has no dead-letter queue: an exchange and a queue.
pub(super) const UNROUTED: &str = "warren.v1.unrouted";
/// MicroServices.js' own exchange: the announcements.
pub(super) const NOTIFICATIONS: &str = "notifications";

/// The longest host name: queue names end at 255 bytes.
const MAX_HOST_BYTES: usize = 100;

/// A host's name, checked to fit into queue names.
#[derive(Clone, Debug)]
pub(super) struct Host(String);

impl Host {
    pub(super) fn new(name: &str) -> Result<Self, ConfigError> {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if !name.is_empty() && name.len() <= MAX_HOST_BYTES && name.bytes().all(known) {
            Ok(Self(name.to_owned()))
        } else {
            let shown = name.chars().take(MAX_HOST_BYTES).collect();
            Err(ConfigError::Host(shown))
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The queue of everything that is addressed to one of this host's workers.
    pub(super) fn inbox(&self) -> ShortString {
        format!("warren.v1.in.{}", self.0).into()
    }

    /// The queue on which this host hears `worker.getAll`. A new name in each epoch: after a
    /// half-open cut the broker still holds the old one for a dead connection, and answers 405.
    pub(super) fn registration(&self, epoch: u64, n_tries: u64) -> ShortString {
        match n_tries {
            0 => format!("warren.v1.reg.{}.{epoch}", self.0).into(),
            n => format!("warren.v1.reg.{}.{epoch}-{n}", self.0).into(),
        }
    }
}

/// The durable queue of a type's jobs.
pub(super) fn work_queue(worker_type: &WorkerType) -> ShortString {
    format!("warren.v1.q.{worker_type}").into()
}

/// Where a type's dead letters are kept.
pub(super) fn dead_letter_queue(worker_type: &WorkerType) -> ShortString {
    format!("warren.v1.dlq.{worker_type}").into()
}

/// The key of jobs for any worker of a type.
pub(super) fn any_worker(worker_type: &WorkerType) -> ShortString {
    format!("{worker_type}:*").into()
}
