//! Makes sure that a quorum queue has got the acknowledgements of a channel before that channel is
//! closed.
//!
//! AMQP has no answer to an acknowledgement, and RabbitMQ forgets some of those that it has read:
//! a channel process with more than 32 commands that the queue has not confirmed keeps further
//! acknowledgements to itself (`rabbit_fifo_client`, its soft limit) and drops them when the channel
//! ends. The jobs are then run again, though nothing has failed. A `basic.get` is a command that the
//! channel process waits for: after the first one the queue has confirmed what it had been sent, so
//! that the channel process sends the rest, and after the second one it has that, too.

use std::sync::Arc;

use lapin::{
    Channel,
    message::BasicGetMessage,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions},
    types::ShortString,
};
use tokio_util::task::TaskTracker;
use tracing::debug;
use warren_protocol::{Address, WorkerType};

use super::{
    Shared,
    bounded::{Failure, STEP_TIMEOUT, within},
    publish, topology, wire,
};

/// What ends a channel on which a quorum queue was consumed.
pub(super) struct Barrier {
    pub(super) shared: Arc<Shared>,
    /// The queue of jobs of one type.
    pub(super) queue: ShortString,
    pub(super) worker_type: WorkerType,
    /// What is to come to an end before the connection is closed.
    pub(super) background: TaskTracker,
}

impl Barrier {
    /// Closes the channel in the background, when the queue has its acknowledgements. Everything
    /// that came on it has been settled.
    pub(super) fn close(self, channel: Channel, runtime: &tokio::runtime::Handle) {
        let background = self.background.clone();
        let closing = async move {
            if channel.status().connected() {
                if let Err(failure) = self.pass(&channel).await {
                    debug!(error = %failure, "some jobs may be run again");
                }
                topology::close(&channel).await;
            }
        };
        background.spawn_on(closing, runtime);
    }

    async fn pass(&self, channel: &Channel) -> Result<(), Failure> {
        let mut taken = Vec::new();
        for _ in 0..2 {
            taken.extend(get(channel, &self.queue).await?);
        }
        // What they took along goes back like any job that nobody has begun. These
        // acknowledgements find the channel process without a backlog.
        for message in taken {
            self.put_back(message).await?;
        }
        Ok(())
    }

    async fn put_back(&self, message: BasicGetMessage) -> Result<(), Failure> {
        let arrived = message.delivery;
        let to = arrived.routing_key.as_str().parse();
        let to = to.unwrap_or_else(|_| Address::Any(self.worker_type.clone()));
        let encoding = self.shared.config.encoding;
        let copy = wire::read(to, encoding, &arrived.properties, arrived.data);
        let settled = if publish::forward(&self.shared, &copy).await.is_ok() {
            let acked = arrived.acker.ack(BasicAckOptions::default());
            within(STEP_TIMEOUT, "acknowledge", acked).await
        } else {
            let options = BasicNackOptions {
                requeue: true,
                ..BasicNackOptions::default()
            };
            within(STEP_TIMEOUT, "give a job back", arrived.acker.nack(options)).await
        };
        settled.map(drop)
    }
}

/// As [`Barrier`], for a queue whose messages simply go back.
pub(super) async fn pass(channel: &Channel, queue: &ShortString) -> Result<(), Failure> {
    for _ in 0..2 {
        if let Some(message) = get(channel, queue).await? {
            let options = BasicNackOptions {
                requeue: true,
                ..BasicNackOptions::default()
            };
            let back = message.delivery.acker.nack(options);
            within(STEP_TIMEOUT, "give a message back", back).await?;
        }
    }
    Ok(())
}

async fn get(channel: &Channel, queue: &ShortString) -> Result<Option<BasicGetMessage>, Failure> {
    let answer = channel.basic_get(queue.clone(), BasicGetOptions::default());
    within(STEP_TIMEOUT, "wait for acknowledgements", answer).await
}
