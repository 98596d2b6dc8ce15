//! The bus: how jobs reach a host and leave it. Two real implementations behind one trait,
//! [`Embedded`] in this process and [`RabbitMq`], and one conformance suite that both pass.
//!
//! Invariant: the only crate that names lapin. It moves messages and does not look into a body, but
//! for those of MicroServices.js (`rabbitmq::peers`), whose protocol is in the bodies, and to tell a
//! sender what it had sent (`notice`); it does not know what a plugin is.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod absence;
mod bundle;
mod delivery;
mod embedded;
mod message;
mod notice;
mod rabbitmq;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use warren_protocol::{WorkerId, WorkerType};

pub use bundle::BundleError;
pub use delivery::{Delivery, SettleError};
pub use embedded::{Embedded, EmbeddedBroker};
pub use message::{Epitaph, Kind, Message};
pub use rabbitmq::{
    BrokerFiles, ConfigError, FileProblem, PeerCount, PeerReport, PeerWorker, PeersConfig,
    RabbitMq, RabbitMqConfig, operator,
};

/// The largest body that a bus takes by default: 16 MiB.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// How long a type is without a consumer before calls to it fail: longer than a host takes to be
/// replaced or to find its broker again, shorter than a person waits.
pub const ABSENCE_GRACE: Duration = Duration::from_secs(5);

/// How long what is sent on for a worker of MicroServices.js may wait until it is begun: five tries,
/// two seconds each, after which such a worker gives up itself.
pub const PEER_PATIENCE: Duration = Duration::from_secs(10);

/// How many unsettled deliveries an inbox holds. A reply is settled as soon as its call is found,
/// so this bounds a burst, not the number of calls.
pub(crate) const INBOX_PREFETCH: u16 = 500;

/// The messages that were addressed to this host's worker ids: replies, errors, and jobs by id.
/// It has a queue of its own, so that a reply never waits behind jobs. Bounded by the prefetch of
/// the inbox.
pub type Inbox = mpsc::Receiver<Delivery>;

/// The jobs for one worker type that this host may run, oldest first. Survives reconnects; ends
/// after [`Bus::leave`], when what had been handed out before has been read.
pub type Subscription = mpsc::Receiver<Delivery>;

/// Moves messages between workers, wherever they run.
///
/// A message is delivered at least once: to one of the subscribers of its type, or to the one
/// worker that it names. It stays the bus's until its [`Delivery`] is acknowledged.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Puts a worker on the bus: jobs of its type and messages for its id reach this host, and
    /// others are told that it is there (arrival is announced last).
    ///
    /// `prefetch`: how many unsettled deliveries the subscription may hold, at least 1.
    ///
    /// With the bus in reach this returns when the worker is consuming, or when a few seconds have
    /// not been enough. While the bus is out of reach it returns at once all the same, and the
    /// subscription begins to yield when the connection is there: whether the worker is consuming
    /// is asked with [`Bus::health`].
    ///
    /// # Errors
    /// [`JoinError`] when this worker's type is already served by this host.
    async fn join(&self, worker: &WorkerId, prefetch: u16) -> Result<Subscription, JoinError>;

    /// Takes a worker off the bus: says goodbye first, then takes no new job of its type. What its
    /// subscription has already been given stays to be settled, and messages for its id still
    /// arrive, until [`Bus::forget`].
    async fn leave(&self, worker: &WorkerId);

    /// Stops taking messages for the id of a worker that has left and finished.
    async fn forget(&self, worker: &WorkerId);

    /// Hands a message over and returns when it is safe: stored where its receiver will get it.
    /// A short outage is waited through; with the bus out of reach for longer it fails within the
    /// publish timeout.
    ///
    /// # Errors
    /// [`PublishError`] says what the sender can do about it. After
    /// [`PublishError::Unavailable`] the message may or may not have been stored; sending it
    /// again, with the same id, is right.
    ///
    /// # Cancel safety
    /// When the future is dropped the message may or may not be published.
    async fn publish(&self, message: Message) -> Result<(), PublishError>;

    /// Keeps a message away until a moment (milliseconds since 1970, UTC), and hands it over then.
    /// Returns when it is safe: with RabbitMQ the wait survives this host and the broker's restart.
    /// Less than a second is waited for here. What turns out to have no receiver then is buried; a
    /// full queue is tried again.
    ///
    /// # Errors
    /// As [`Bus::publish`], while it is handed over at once.
    async fn park(&self, message: Message, until_ms: u64) -> Result<(), PublishError>;

    /// Gives back a delivery that nobody has started, for any worker of its address, in a way that
    /// does not count as a delivery: a message that is delivered again and again is taken for one
    /// that kills its hosts.
    async fn put_back(&self, delivery: Delivery);

    /// Changes how many unsettled deliveries the subscription of a worker may hold. 0 pauses it:
    /// the worker stays on the bus, its queue keeps the work. What it holds already stays its own.
    async fn set_prefetch(&self, worker: &WorkerId, prefetch: u16);

    /// Returns when a type that is known has had no consumer for a while ([`ABSENCE_GRACE`]), on
    /// any host: whoever waits for its answer waits in vain. A type that nobody has ever served is
    /// told by [`Bus::publish`] instead.
    async fn absence(&self, worker_type: &WorkerType);

    /// Puts a message that was given up among the dead letters of its type, and returns when it is
    /// stored there. Where [`Message::errors_to`] says so, the sender is then told, as long as it is
    /// there: by a [`Kind::Error`] without a correlation id.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    async fn bury(&self, message: Message, epitaph: Epitaph) -> Result<(), PublishError>;

    /// The state of the link, and every change of it.
    fn health(&self) -> watch::Receiver<Health>;

    /// What the gateway to workers of MicroServices.js sees and does. `None` where there is none:
    /// on the embedded bus, and where it is switched off.
    fn peers(&self) -> Option<PeerReport> {
        None
    }

    /// Says goodbye for every worker that is still joined, gives back what nobody has started,
    /// and closes. Bounded by a few seconds.
    async fn close(&self);
}

/// The state of a bus, as `/readyz` reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether messages can be published.
    pub connected: bool,
    /// The worker types whose jobs are being consumed right now.
    pub consuming: Vec<WorkerType>,
    /// What is wrong, for a person. Never holds a password. `None` when all is well.
    pub problem: Option<Arc<str>>,
    /// What is wrong without keeping any job from being run: the announcements of workers fail.
    pub notice: Option<Arc<str>>,
    /// How many dead letters each served type has, as last seen.
    pub dead_letters: Vec<(WorkerType, u64)>,
    /// How many messages lie in the parking lot of what could not even be dead-lettered, as last
    /// seen.
    pub n_unrouted: u64,
}

/// A worker could not join.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// One host serves a type once; versions are swapped behind one worker.
    #[error("worker type {0} is already on the bus from this host")]
    Taken(WorkerType),
    /// The bus has been closed.
    #[error("the bus is closed")]
    Closed,
}

/// A message was not stored, or nobody can say whether it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Nobody has ever served this address.
    #[error("no worker has ever been at {0}")]
    Unroutable(String),
    /// The queue is at its limit and refused it.
    #[error("the queue of {0} is full")]
    QueueFull(String),
    /// The message, or its id, is larger than the bus takes.
    #[error("the message or its id has {size} bytes; the bus takes {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Out of reach, or the confirm did not come in time: stored or not, nobody knows.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
}

impl PublishError {
    /// Whether the same message may be accepted later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::QueueFull(_) | Self::Unavailable(_))
    }
}
