//! Sending single jobs and waiting for an answer: what a program does that is no host.
//!
//! It announces nothing and serves nothing, so that nobody on the bus takes it for a worker. What is
//! answered comes to a queue that belongs to its connection: however the program ends, the broker
//! removes it.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::{
    Channel, Consumer, ExchangeKind,
    options::BasicConsumeOptions,
    types::{FieldTable, ShortString},
};
use tokio::time::sleep;
use warren_protocol::{Address, Encoding, WorkerId, WorkerType};

use super::{
    super::{
        bounded::{Failure, STEP_TIMEOUT, within},
        names::{self, JOBS},
        publish::Parcel,
        topology, wire,
    },
    Depth, Operator, OperatorError,
    inspect::look_at_exchange,
};
use crate::{ABSENCE_GRACE, Message, PublishError};

/// Between two looks at whether anybody serves a type.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where the answers for one id arrive.
pub struct Mailbox {
    id: WorkerId,
    encoding: Encoding,
    consumer: Consumer,
    /// Closed when it is dropped, and its consumer with it.
    _channel: Channel,
}

impl Operator {
    /// Hands a message over, and returns when the broker has stored it where its receiver gets it.
    ///
    /// # Errors
    /// As [`Bus::publish`](crate::Bus::publish). On a broker that no host has ever used, nobody is at
    /// the address.
    pub async fn publish(&self, message: &Message) -> Result<(), PublishError> {
        let (size, limit) = (message.body.len(), self.max_message_bytes);
        if size > limit {
            return Err(PublishError::TooLarge { size, limit });
        }
        let key = message.to.to_string();
        let parcel = Parcel {
            exchange: JOBS.into(),
            key: &key,
            body: &message.body,
            properties: wire::properties(message)?,
        };
        match self.send(&parcel).await {
            Err(PublishError::Unavailable(_)) if self.has_no_hosts().await => {
                Err(PublishError::Unroutable(key))
            }
            sent => sent,
        }
    }

    /// Opens a mailbox for an id that nobody else has.
    ///
    /// # Errors
    /// [`OperatorError::Missing`] on a broker that no host has ever used; others when the broker
    /// refuses or does not answer.
    pub async fn mailbox(&self, id: &WorkerId) -> Result<Mailbox, OperatorError> {
        let channel = self.channel().await?;
        // Named like an inbox, so that a user who may be a host may do this as well.
        let queue: ShortString = format!("warren.v1.in.{}", id.as_str().replace(':', "-")).into();
        let wanted = [
            topology::exclusive(queue.clone()),
            topology::binding(queue.as_str(), JOBS, id.as_str()),
        ];
        match topology::declare_all(&channel, &wanted).await {
            Err(failure) if failure.is_not_found() => {
                return Err(OperatorError::Missing {
                    queue: JOBS.to_owned(),
                    remedy: "no host has ever used this virtual host; start one",
                });
            }
            declared => declared?,
        }
        let options = BasicConsumeOptions {
            // Who waits is the only one who can use an answer; there is nobody to give it back to.
            no_ack: true,
            exclusive: true,
            ..BasicConsumeOptions::default()
        };
        let (tag, none) = ("warren-mailbox".into(), FieldTable::default());
        let consumer = channel.basic_consume(queue, tag, options, none);
        let consumer = within(STEP_TIMEOUT, "consume answers", consumer).await?;
        Ok(Mailbox {
            id: id.clone(),
            encoding: self.encoding,
            consumer,
            _channel: channel,
        })
    }

    /// Returns when nobody, on any host, has consumed the jobs of a type that is known for a while
    /// ([`ABSENCE_GRACE`]).
    pub async fn absence(&self, worker_type: &WorkerType) {
        let mut absent_since: Option<Instant> = None;
        loop {
            match self.depth_of(names::work_queue(worker_type)).await {
                Ok(Some(Depth { consumers: 0, .. })) => {
                    let since = *absent_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= ABSENCE_GRACE {
                        return;
                    }
                }
                // Without an answer nobody is known to be absent.
                _ => absent_since = None,
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether the exchange for jobs is missing, which every host declares.
    async fn has_no_hosts(&self) -> bool {
        let looked = async {
            let channel = self.channel().await?;
            look_at_exchange(&channel, JOBS.into(), ExchangeKind::Direct).await?;
            topology::close(&channel).await;
            Ok::<_, Failure>(())
        };
        looked.await.is_err_and(|failure| failure.is_not_found())
    }
}

impl Mailbox {
    /// The next message for the id.
    ///
    /// # Errors
    /// When the connection ends.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Message, OperatorError> {
        match self.consumer.next().await {
            Some(Ok(arrived)) => Ok(wire::read(
                Address::One(self.id.clone()),
                self.encoding,
                &arrived.properties,
                arrived.data,
            )),
            Some(Err(error)) => Err(Failure::Refused("wait for an answer", error).into()),
            None => Err(Failure::Ended("the broker has ended the queue of answers").into()),
        }
    }
}
