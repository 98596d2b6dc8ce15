//! The names on the broker. They carry the version of the topology; what a name stands for never
//! changes in place.

use std::sync::atomic::{AtomicU64, Ordering};

use lapin::types::ShortString;
use warren_protocol::WorkerType;

use super::ConfigError;

/// Every job goes here; the key is its stop.
pub(super) const JOBS: &str = "warren.v1.jobs";
/// Dead letters, by worker type.
pub(super) const DEAD: &str = "warren.v1.dead";
/// Dead letters of a type that has no dead-letter queue: an exchange and a queue.
pub(super) const UNROUTED: &str = "warren.v1.unrouted";
/// Everything that entered or left a dead-letter queue, to look at without touching one: an exchange
/// and a stream.
pub(super) const DEAD_LOG: &str = "warren.v1.dlq.log";
/// The key on [`DEAD_LOG`] of a note that a dead letter has left its queue. No type is called so.
pub(super) const LEFT: &str = "#left";
/// What has waited long enough: an exchange and a queue, read by every host.
pub(super) const DUE: &str = "warren.v1.due";
/// One card for each inbox, so that the janitor can find those that nobody reads any more.
pub(super) const HOSTS: &str = "warren.v1.hosts";
/// The key on [`JOBS`] of a host's card. No address looks so.
pub(super) const CARD: &str = "#host";
/// The janitor's lock: an exclusive queue.
pub(super) const JANITOR: &str = "warren.v1.janitor";
/// The peer gateway's lock, and where it hears its peers: an exclusive queue.
pub(super) const PEERS: &str = "warren.v1.peers";
/// What is addressed to workers of MicroServices.js by id. Only the gateway consumes it.
pub(super) const PEERS_IN: &str = "warren.v1.peers.in";
/// The acknowledgements of Node workers, which outlive a gateway: the next one must not hand over again
/// what a Node worker has taken.
pub(super) const PEERS_ACKS: &str = "warren.v1.peers.acks";
/// The jobs of Node senders that have been stored of late, so that the next gateway knows them when they
/// are sent again.
pub(super) const PEERS_CLAIMS: &str = "warren.v1.peers.claims";
/// The key on [`JOBS`] that leads there. No address looks so.
pub(super) const CLAIMED: &str = "#claimed";
pub(super) use warren_protocol::topic::{NOTIFICATIONS, POLLING};

/// How long a message waits in each delay tier, shortest first: the tier's name and its seconds.
pub(super) const TIERS: [(&str, u64); 8] = [
    ("1s", 1),
    ("5s", 5),
    ("30s", 30),
    ("2m", 120),
    ("10m", 600),
    ("1h", 3600),
    ("6h", 6 * 3600),
    ("24h", 24 * 3600),
];

/// The longest host name: queue names end at 255 bytes.
const MAX_HOST_BYTES: usize = 100;

/// A host's name, checked to fit into queue names, and the number of its inbox.
#[derive(Debug)]
pub(super) struct Host {
    name: String,
    /// Counts the inboxes that this host has had: one whose node is down cannot be declared
    /// elsewhere.
    n_inboxes: AtomicU64,
}

impl Host {
    pub(super) fn new(name: &str) -> Result<Self, ConfigError> {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if !name.is_empty() && name.len() <= MAX_HOST_BYTES && name.bytes().all(known) {
            Ok(Self {
                name: name.to_owned(),
                n_inboxes: AtomicU64::new(0),
            })
        } else {
            let shown = name.chars().take(MAX_HOST_BYTES).collect();
            Err(ConfigError::Host(shown))
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.name
    }

    /// The queue of everything that is addressed to one of this host's workers.
    pub(super) fn inbox(&self) -> ShortString {
        self.numbered_inbox(self.n_inboxes.load(Ordering::Relaxed))
    }

    /// Gives up the inbox for one with another name, and returns the name of the old one.
    pub(super) fn draw_new_inbox(&self) -> ShortString {
        self.numbered_inbox(self.n_inboxes.fetch_add(1, Ordering::Relaxed))
    }

    fn numbered_inbox(&self, number: u64) -> ShortString {
        let name = &self.name;
        match number {
            0 => format!("warren.v1.in.{name}").into(),
            n => format!("warren.v1.in.{name}-{n}").into(),
        }
    }

    /// The queue on which this host hears `worker.getAll`. A new name in each epoch: after a
    /// half-open cut the broker still holds the old one for a dead connection, and answers 405.
    pub(super) fn registration(&self, epoch: u64, n_tries: u64) -> ShortString {
        match n_tries {
            0 => format!("warren.v1.reg.{}.{epoch}", self.name).into(),
            n => format!("warren.v1.reg.{}.{epoch}-{n}", self.name).into(),
        }
    }
}

/// A delay tier's exchange and queue, which have one name.
pub(super) fn delay_tier(tier: &str) -> ShortString {
    format!("warren.v1.delay.{tier}").into()
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
