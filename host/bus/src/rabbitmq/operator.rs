//! An operator's hands on the broker: looking at dead letters, moving them, putting the topology
//! right, and sending jobs, for the length of one command.
//!
//! A pair of connections without an epoch: when one breaks, the command ends, says how far it came
//! and is started again. Every step is safe to repeat.
//!
//! Invariants: nothing is taken off a queue before the broker has confirmed where else it is; what
//! only looks (`log`, `inspect`) changes nothing on the broker; every await has a bound.

mod ask;
mod inspect;
mod letter;
mod log;
mod presence;
mod prune;
mod publisher;
mod take;

use std::time::Duration;

use futures_util::future::try_join;
use lapin::{Channel, Connection, types::ShortString};
use tokio::time::timeout;
use warren_protocol::{Encoding, WorkerType};

use super::{
    bounded::{CLOSE_TIMEOUT, CONNECT_TIMEOUT, Failure, STEP_TIMEOUT, within},
    config::{Broker, ConfigError, RabbitMqConfig},
    link,
    names::{self, DEAD_LOG, UNROUTED},
    publish::{self, Lanes, Parcel},
    topology,
};
use crate::PublishError;

pub use ask::Mailbox;
pub use inspect::{Finding, State, Thing};
pub use letter::DeadLetter;
pub use prune::{Retired, TypeQueues};
pub use publisher::Publisher;
pub use take::{Action, Order, Outcome, Tally};

/// How long reaching the broker may take in all, however many nodes are tried.
const REACH_TIMEOUT: Duration = Duration::from_secs(9);

/// A connection to the broker for one command.
pub struct Operator {
    /// Never publishes: in a memory alarm, acknowledgements still go through.
    consuming: Connection,
    publishing: Connection,
    lanes: Lanes,
    encoding: Encoding,
    publish_timeout: Duration,
    max_message_bytes: usize,
    vhost: String,
}

/// Where dead letters lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadQueue {
    /// Those of one type.
    Of(WorkerType),
    /// Those that came for a type without a queue: the parking lot.
    Unrouted,
}

/// What the broker says of a queue. What a consumer holds is in neither number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Messages that wait.
    pub ready: u32,
    /// Who takes messages from it.
    pub consumers: u32,
}

/// Why a command could not go on. Never shows a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// The broker's address cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No node of the broker could be reached.
    #[error("{0}")]
    Unreachable(String),
    /// A queue that is needed is not on the broker.
    #[error("{queue} is not on the broker: {remedy}")]
    Missing {
        /// Its name.
        queue: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A queue is still used, or holds what would be lost.
    #[error("{0}")]
    InUse(String),
    /// The broker refused a step, or did not answer in time.
    #[error("{0}")]
    Failed(String),
}

impl Operator {
    /// Connects to the first node that answers.
    ///
    /// # Errors
    /// [`OperatorError::Config`] and [`OperatorError::Unreachable`], within ten seconds.
    pub async fn connect(config: &RabbitMqConfig) -> Result<Self, OperatorError> {
        let brokers = config.brokers()?;
        let n_brokers = u32::try_from(brokers.len()).unwrap_or(u32::MAX).max(1);
        let limit = CONNECT_TIMEOUT.min(REACH_TIMEOUT / n_brokers);
        let mut problems = Vec::new();
        for broker in &brokers {
            match connect_both(broker, limit).await {
                Ok((consuming, publishing)) => {
                    return Ok(Self {
                        consuming,
                        publishing,
                        lanes: Lanes::default(),
                        encoding: config.encoding,
                        publish_timeout: config.publish_timeout,
                        max_message_bytes: config.max_message_bytes,
                        vhost: broker.uri.vhost.clone(),
                    });
                }
                Err(failure) => problems.push(format!(
                    "cannot use the broker {} ({failure}): {}",
                    broker.shown,
                    link::remedy(broker, &failure)
                )),
            }
        }
        Err(OperatorError::Unreachable(problems.join("; ")))
    }

    /// The virtual host, as `rabbitmqctl -p` wants it.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// What waits in a queue of dead letters. `None`: there is no such queue.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn depth(&self, queue: &DeadQueue) -> Result<Option<Depth>, OperatorError> {
        self.depth_of(queue.name()).await
    }

    /// Closes the connections. What was taken and not settled goes back.
    pub async fn close(self) {
        const SUCCESS: u16 = 200;
        for connection in [&self.consuming, &self.publishing] {
            let answer = connection.close(SUCCESS, "OK".into());
            // Nothing is left to do for a connection that does not even close.
            let _ = within(CLOSE_TIMEOUT, "close", answer).await;
        }
    }

    async fn channel(&self) -> Result<Channel, Failure> {
        let opened = self.consuming.create_channel();
        within(STEP_TIMEOUT, "open a channel", opened).await
    }

    async fn depth_of(&self, queue: ShortString) -> Result<Option<Depth>, OperatorError> {
        let channel = self.channel().await?;
        match topology::look(&channel, queue).await {
            Ok(queue) => {
                topology::close(&channel).await;
                Ok(Some(Depth {
                    ready: queue.message_count(),
                    consumers: queue.consumer_count(),
                }))
            }
            // It has closed the channel, too.
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Publishes, and returns when the broker has it.
    async fn send(&self, parcel: &Parcel<'_>) -> Result<(), PublishError> {
        let sent = self.lanes.send(&self.publishing, parcel);
        match timeout(self.publish_timeout, sent).await {
            Ok(Ok(confirmation)) => publish::verdict(confirmation, parcel.key),
            Ok(Err(failure)) if failure.is_mismatch() => Err(publish::too_large(&failure, parcel)),
            Ok(Err(failure)) => Err(PublishError::Unavailable(failure.to_string())),
            Err(_) => Err(PublishError::Unavailable(format!(
                "the broker has not confirmed within {} s; a memory or disk alarm there blocks \
                 publishers",
                self.publish_timeout.as_secs()
            ))),
        }
    }
}

impl DeadQueue {
    /// The name of the queue on the broker.
    fn name(&self) -> ShortString {
        match self {
            Self::Of(worker_type) => names::dead_letter_queue(worker_type),
            Self::Unrouted => UNROUTED.into(),
        }
    }
}

impl From<Failure> for OperatorError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.to_string())
    }
}

/// The error of a log that is not there.
fn no_log() -> OperatorError {
    OperatorError::Missing {
        queue: DEAD_LOG.to_owned(),
        remedy: "run `warren topology apply`, or start a host of this version",
    }
}

async fn connect_both(
    broker: &Broker,
    limit: Duration,
) -> Result<(Connection, Connection), Failure> {
    let dial = |use_for| link::dial(broker, format!("warren operator {use_for}"));
    match timeout(limit, try_join(dial("consume"), dial("publish"))).await {
        Ok(connected) => connected,
        Err(_) => Err(Failure::Silence("connect", limit)),
    }
}
