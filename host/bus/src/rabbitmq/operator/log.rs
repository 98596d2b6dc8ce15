//! Reading the log of dead letters, which disturbs nothing: a stream keeps what is read.
//!
//! # Where the end is
//!
//! A stream has no end: a consumer waits for more. A mark of our own would show how far we are, but
//! looking should not need the right to write. The message count of a passive declare lags by
//! seconds. So a *fence* is used: a request on the consumer's own channel. A channel's process works
//! through its requests one by one, and answers an acknowledgement (for a stream: credit) by sending
//! what the stream has, up to the credit, before it looks at the next request; replies and
//! deliveries of one channel arrive in the order in which they were sent. Hence: acknowledge all
//! that has come, send a request, and when nothing came before its answer, nothing was there. A
//! second fence a moment later covers a broker whose replica on this node is behind its leader.

use std::{collections::BTreeSet, ops::ControlFlow, time::Duration};

use futures_util::{FutureExt, StreamExt};
use lapin::{
    message::Delivery as Arrived,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::sleep;

use super::{
    super::{
        bounded::{Failure, STEP_TIMEOUT, WRITE_TIMEOUT, within},
        names::{DEAD_LOG, LEFT},
        topology, wire,
    },
    DeadLetter, Operator, OperatorError,
    letter::Left,
    no_log,
    presence::Presence,
};

/// How many messages are on their way at once. They are as large as jobs are.
const CREDIT: u16 = 32;
/// After the first fence that nothing came before.
const SECOND_LOOK: Duration = Duration::from_millis(50);
/// The clock of the host that gave a job up and that of the broker may differ by so much.
const CLOCK_MARGIN_MS: u64 = 10 * 60 * 1000;
const OFFSET: &str = "x-stream-offset";

/// Where to begin.
#[derive(Clone, Copy)]
enum Start {
    First,
    /// With what the broker stored at this second since 1970 or later.
    Second(u64),
    Offset(u64),
}

impl Operator {
    /// The dead letters that are still there according to the log, oldest first, each with its place
    /// in the log. `pick` sees every letter, also those that have left, and says what to keep of it.
    ///
    /// `since_ms`: leaves out what was given up before (milliseconds since 1970).
    ///
    /// # Errors
    /// When the log is missing or cannot be read.
    pub async fn dead_letters<T>(
        &self,
        since_ms: Option<u64>,
        mut pick: impl FnMut(DeadLetter) -> Option<T>,
    ) -> Result<Vec<(u64, T)>, OperatorError> {
        let start = since_ms.map_or(Start::First, |since_ms| {
            Start::Second(since_ms.saturating_sub(CLOCK_MARGIN_MS) / 1000)
        });
        let mut presence = Presence::new();
        self.read(start, |offset, arrived| {
            if arrived.routing_key.as_str() == LEFT {
                if let Some(left) = Left::read(&arrived.properties) {
                    presence.left(left.worker_type, left.id);
                }
            } else if let Some(letter) = self.letter(arrived) {
                let (worker_type, id) = (letter.worker_type.clone(), letter.message.id.clone());
                let is_early = since_ms.is_some_and(|since| letter.died_ms < Some(since));
                let kept = if is_early { None } else { pick(letter) };
                presence.came(offset, worker_type, id, kept);
            }
            ControlFlow::Continue(())
        })
        .await?;
        Ok(presence.there())
    }

    /// The letters at these places of the log, in its order, one by one.
    ///
    /// # Errors
    /// When the log is missing or cannot be read, or `each` fails.
    pub async fn letters_at<E: From<OperatorError>>(
        &self,
        mut places: BTreeSet<u64>,
        mut each: impl FnMut(DeadLetter) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(&first) = places.first() else {
            return Ok(());
        };
        let mut failed = None;
        self.read(Start::Offset(first), |offset, arrived| {
            if places.remove(&offset)
                && let Some(letter) = self.letter(arrived)
                && let Err(error) = each(letter)
            {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            if places.is_empty() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })
        .await?;
        failed.map_or(Ok(()), Err)
    }

    /// Fails when there is no log: notes of leaving would go to the parking lot.
    pub(super) async fn check_log(&self) -> Result<(), OperatorError> {
        match self.depth_of(DEAD_LOG.into()).await? {
            Some(_) => Ok(()),
            None => Err(no_log()),
        }
    }

    fn letter(&self, arrived: Arrived) -> Option<DeadLetter> {
        let (key, properties) = (arrived.routing_key, arrived.properties);
        DeadLetter::read(self.encoding, key.as_str(), &properties, arrived.data)
    }

    /// Reads to the end, or until told to stop.
    async fn read(
        &self,
        start: Start,
        mut each: impl FnMut(u64, Arrived) -> ControlFlow<()>,
    ) -> Result<(), OperatorError> {
        let channel = self.channel().await?;
        let credit = channel.basic_qos(CREDIT, BasicQosOptions::default());
        within(STEP_TIMEOUT, "set the credit", credit).await?;
        let mut arguments = FieldTable::default();
        arguments.insert(OFFSET.into(), start.argument());
        let (options, tag) = (BasicConsumeOptions::default(), "warren-operator".into());
        let consumer = channel.basic_consume(DEAD_LOG.into(), tag, options, arguments);
        let mut consumer = match within(STEP_TIMEOUT, "read the log", consumer).await {
            Ok(consumer) => consumer,
            Err(failure) if failure.is_not_found() => return Err(no_log()),
            // A stream is read from a replica on the node that one is connected to.
            Err(failure) if failure.is_mismatch() => {
                return Err(OperatorError::Failed(format!(
                    "{failure}: name another node of the cluster with --broker"
                )));
            }
            Err(failure) => return Err(failure.into()),
        };
        let mut n_quiet = 0;
        while n_quiet < 2 {
            // The fence.
            topology::look(&channel, DEAD_LOG.into()).await?;
            let mut last = None;
            while let Some(next) = consumer.next().now_or_never() {
                let arrived = match next {
                    Some(Ok(arrived)) => arrived,
                    Some(Err(error)) => return Err(Failure::Refused("read the log", error).into()),
                    None => return Err(Failure::Ended("the broker has ended the log").into()),
                };
                last = Some(arrived.acker.clone());
                let headers = arrived.properties.headers().as_ref();
                let offset = headers.and_then(|table| wire::integer(table.inner().get(OFFSET)?));
                if each(offset.unwrap_or_default(), arrived).is_break() {
                    topology::close(&channel).await;
                    return Ok(());
                }
            }
            if let Some(last) = last {
                n_quiet = 0;
                let acked = last.ack(BasicAckOptions { multiple: true });
                within(WRITE_TIMEOUT, "ask for more of the log", acked).await?;
            } else {
                n_quiet += 1;
                sleep(SECOND_LOOK).await;
            }
        }
        topology::close(&channel).await;
        Ok(())
    }
}

impl Start {
    fn argument(self) -> AMQPValue {
        match self {
            Self::First => wire::text("first"),
            Self::Second(second) => AMQPValue::Timestamp(second),
            Self::Offset(offset) => {
                AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX))
            }
        }
    }
}
