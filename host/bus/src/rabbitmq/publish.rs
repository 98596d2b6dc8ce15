//! Handing messages to the broker, and knowing what became of each.
//!
//! Every publish is mandatory and confirmed, on a channel that has no other unconfirmed publish
//! (a *lane*): decision 0001. lapin pairs a returned message with whichever confirm completes
//! next, so with two of them under way the wrong sender could be told that nobody is there.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lapin::{
    BasicProperties, Channel, Confirmation, Connection, PublisherConfirm,
    message::Delivery as Arrived,
    options::{BasicAckOptions, BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};
use tracing::warn;

use super::{
    Shared,
    bounded::{Failure, STEP_TIMEOUT, WRITE_TIMEOUT, within},
    epoch::Epoch,
    names::{self, CARD, DEAD, DEAD_LOG, JOBS, UNROUTED},
    wire,
};
use crate::{Epitaph, Message, PublishError, notice};

/// How many publishes are under way at once. A quorum queue confirms in 1 to 10 ms, so this is
/// room for some ten thousand messages a second.
const MAX_LANES: usize = 64;
/// How long a confirm that nobody waits for any more is waited for, so that its lane can be used
/// again. After it the lane is closed: whatever is wrong with it must not hold a place for ever.
const LATE_CONFIRM: Duration = Duration::from_secs(20);
/// How long a dead letter waits to be logged.
const LOG_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a dead letter waits until its sender is told.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(5);
/// A channel that is opened while the leader of a quorum queue fails is nacked until that node is
/// back (RabbitMQ 3.10.8, tried on three nodes), and a newer one is not: only a queue that refuses a
/// message on several channels is full.
const NACKS_TO_BELIEVE: u32 = 2;
/// Between two tries of a publish whose channel broke while the connection is well.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The publish channels of one epoch, opened when they are needed.
#[derive(Clone)]
pub(super) struct Lanes {
    /// The one that was used last comes first, so that a quiet host keeps few of them busy.
    idle: Arc<Mutex<Vec<Channel>>>,
    free: Arc<Semaphore>,
}

/// A lane whose message has been written and not been answered yet. Dropped before the answer (the
/// reply to a call is worth more than its confirm), it waits for it beside, and is free again then.
struct Busy {
    lanes: Lanes,
    work: Option<(Channel, PublisherConfirm, OwnedSemaphorePermit)>,
    runtime: Handle,
}

/// Where one message goes, in AMQP's terms.
pub(super) struct Parcel<'a> {
    pub(super) exchange: ShortString,
    pub(super) key: &'a str,
    pub(super) body: &'a [u8],
    pub(super) properties: BasicProperties,
}

/// Publishes a message to its address.
pub(super) async fn publish(shared: &Shared, message: &Message) -> Result<(), PublishError> {
    let (size, limit) = (message.body.len(), shared.config.max_message_bytes);
    if size > limit {
        return Err(PublishError::TooLarge { size, limit });
    }
    forward(shared, message).await
}

/// Publishes a message that the broker has had before to its address. Of any size: other hosts may
/// allow more than this one.
pub(super) async fn forward(shared: &Shared, message: &Message) -> Result<(), PublishError> {
    let key = message.to.to_string();
    let parcel = Parcel {
        exchange: JOBS.into(),
        key: &key,
        body: &message.body,
        properties: wire::properties(message)?,
    };
    send(shared, &parcel).await
}

/// Publishes a message to a delay tier, out of which it comes with its address as the key.
pub(super) async fn park(
    shared: &Shared,
    message: &Message,
    tier: &str,
    until_ms: u64,
) -> Result<(), PublishError> {
    let key = message.to.to_string();
    let parcel = Parcel {
        exchange: names::delay_tier(tier),
        key: &key,
        body: &message.body,
        properties: wire::parked(message, until_ms)?,
    };
    complete(shared, send(shared, &parcel).await)
}

/// Publishes a host's card, for the janitor. In this epoch, which is not told to others yet.
pub(super) async fn card(epoch: &Epoch, body: &[u8]) -> Result<(), Failure> {
    const PERSISTENT: u8 = 2;
    let parcel = Parcel {
        exchange: JOBS.into(),
        key: CARD,
        body,
        properties: BasicProperties::default().with_delivery_mode(PERSISTENT),
    };
    match timeout(STEP_TIMEOUT, epoch.lanes.send(&epoch.publishing, &parcel)).await {
        Ok(Ok(Confirmation::Ack(None))) => Ok(()),
        Ok(Ok(_)) => Err(Failure::Ended("the broker did not take this host's card")),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::Silence("leave a card", STEP_TIMEOUT)),
    }
}

/// Moves a message that came with a key that is no address to the parking lot, as it is. `false`: it
/// could not be, and stays unsettled on its channel.
pub(super) async fn set_aside(shared: &Shared, arrived: Arrived) -> bool {
    let key = arrived.routing_key.clone();
    warn!(
        key = key.as_str(),
        "a message has no address as its key: set aside in {UNROUTED}"
    );
    // Headers of a dead-lettered message make the next dead letter stick.
    let mut headers = arrived.properties.headers().clone().unwrap_or_default();
    headers = wire::without_deaths(&headers);
    let parcel = Parcel {
        exchange: UNROUTED.into(),
        key: key.as_str(),
        body: &arrived.data,
        properties: arrived.properties.clone().with_headers(headers),
    };
    if complete(shared, send(shared, &parcel).await).is_err() {
        return false;
    }
    let acked = arrived.acker.ack(BasicAckOptions::default());
    matches!(within(WRITE_TIMEOUT, "acknowledge", acked).await, Ok(true))
}

/// What belongs to the topology is always there: if it is not, it is being declared again.
fn complete(shared: &Shared, sent: Result<(), PublishError>) -> Result<(), PublishError> {
    match sent {
        Err(PublishError::Unroutable(key)) => {
            shared.mend.notify_one();
            Err(PublishError::Unavailable(format!(
                "a queue of the topology is missing, it is being declared again ({key})"
            )))
        }
        sent => sent,
    }
}

/// Publishes a message to the dead letters of its type. Of any size: the broker has had it before.
pub(super) async fn bury(
    shared: &Shared,
    message: &Message,
    epitaph: &Epitaph,
) -> Result<(), PublishError> {
    let parcel = Parcel {
        exchange: DEAD.into(),
        key: message.to.worker_type().as_str(),
        body: &message.body,
        properties: wire::dead_letter(message, epitaph)?,
    };
    complete(shared, send(shared, &parcel).await)?;
    // The letter is safe. What is missing in the log is only missing in lists.
    let copy = Parcel {
        exchange: DEAD_LOG.into(),
        ..parcel
    };
    if !matches!(timeout(LOG_TIMEOUT, send(shared, &copy)).await, Ok(Ok(()))) {
        warn!(
            "job.id" = message.id,
            "a dead letter is not in the log of dead letters"
        );
    }
    if let Some(news) = notice::of(message, epitaph) {
        tell(shared, &news).await;
    }
    Ok(())
}

/// Tells a sender of its dead letter. One that is not there any more needs no news.
async fn tell(shared: &Shared, news: &Message) {
    match timeout(NOTICE_TIMEOUT, publish(shared, news)).await {
        Ok(Ok(()) | Err(PublishError::Unroutable(_))) => {}
        told => warn!(
            to = %news.to,
            error = ?told.ok(),
            "a sender could not be told that its job was given up"
        ),
    }
}

/// Tries until the broker has answered or the time is up. A try whose answer was lost is repeated
/// with the same id: twice is better than never, and the id tells.
async fn send(shared: &Shared, parcel: &Parcel<'_>) -> Result<(), PublishError> {
    let limit = shared.config.publish_timeout;
    let deadline = Instant::now() + limit;
    let mut last_failure = None;
    let mut n_nacks = 0;
    let answered = timeout_at(deadline, async {
        loop {
            let Some(epoch) = shared.living_epoch().await else {
                return Err(PublishError::Unavailable("the bus is closed".to_owned()));
            };
            let sending = async {
                epoch.gate_is_open().await;
                let connection = &epoch.publishing;
                if n_nacks == 0 {
                    epoch.lanes.send(connection, parcel).await
                } else {
                    epoch.lanes.send_on_new(connection, parcel).await
                }
            };
            let failure = tokio::select! {
                confirmation = sending => match confirmation {
                    Ok(Confirmation::Nack(_)) if n_nacks < NACKS_TO_BELIEVE => {
                        n_nacks += 1;
                        tokio::time::sleep(RETRY_PAUSE).await;
                        continue;
                    }
                    Ok(confirmation) => return verdict(confirmation, parcel.key),
                    Err(failure) => failure,
                },
                () = epoch.over.cancelled() => Failure::Ended("the connection ended"),
            };
            if failure.is_mismatch() {
                return Err(too_large(&failure, parcel));
            }
            if failure.is_not_found() {
                // Our exchange is gone. What runs goes on while it is declared again.
                shared.mend.notify_one();
            }
            last_failure = Some(failure.to_string());
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    });
    match answered.await {
        Ok(verdict) => verdict,
        Err(_) => {
            let why = shared.board.link_problem().or(last_failure);
            let why = why.unwrap_or_else(|| "no answer from the broker".to_owned());
            Err(PublishError::Unavailable(format!(
                "{why} (after {} s)",
                limit.as_secs()
            )))
        }
    }
}

/// The one thing about a publish that the broker refuses as a mismatch: a body that is larger than
/// its `max_message_size`. It says how large that is, in words.
pub(super) fn too_large(failure: &Failure, parcel: &Parcel<'_>) -> PublishError {
    let size = parcel.body.len();
    let limit = last_number(&failure.to_string()).unwrap_or(size.saturating_sub(1));
    PublishError::TooLarge { size, limit }
}

/// The last number in a text.
fn last_number(text: &str) -> Option<usize> {
    let end = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let start = end.trim_end_matches(|c: char| c.is_ascii_digit());
    end.get(start.len()..)?.parse().ok()
}

pub(super) fn verdict(confirmation: Confirmation, key: &str) -> Result<(), PublishError> {
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(_)) => Err(PublishError::Unroutable(key.to_owned())),
        Confirmation::Nack(_) => Err(PublishError::QueueFull(key.to_owned())),
        // A lane is always in confirm mode, so the broker has said nothing about this message.
        Confirmation::NotRequested => Err(PublishError::Unavailable(
            "the broker did not confirm".to_owned(),
        )),
    }
}

impl Lanes {
    /// Sends on a lane of its own and waits for the answer. A lane goes back to the pool only
    /// after a whole exchange; an error closes it, and so does a nack.
    pub(super) async fn send(
        &self,
        connection: &Connection,
        parcel: &Parcel<'_>,
    ) -> Result<Confirmation, Failure> {
        let lanes = self.clone();
        let Ok(permit) = Arc::clone(&lanes.free).acquire_owned().await else {
            return Err(Failure::Ended("the bus is closed"));
        };
        let lane = match lanes.take_idle() {
            Some(lane) => lane,
            None => open_lane(connection).await?,
        };
        lanes.exchange(lane, permit, parcel).await
    }

    /// As [`Lanes::send`], on a lane that nothing has been sent on.
    async fn send_on_new(
        &self,
        connection: &Connection,
        parcel: &Parcel<'_>,
    ) -> Result<Confirmation, Failure> {
        let lanes = self.clone();
        let Ok(permit) = Arc::clone(&lanes.free).acquire_owned().await else {
            return Err(Failure::Ended("the bus is closed"));
        };
        let lane = open_lane(connection).await?;
        lanes.exchange(lane, permit, parcel).await
    }

    async fn exchange(
        self,
        lane: Channel,
        permit: OwnedSemaphorePermit,
        parcel: &Parcel<'_>,
    ) -> Result<Confirmation, Failure> {
        let lanes = self;
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let written = lane.basic_publish(
            parcel.exchange.clone(),
            parcel.key.into(),
            options,
            parcel.body,
            parcel.properties.clone(),
        );
        let refused = |error| Failure::Refused("publish", error);
        let confirm = written.await.map_err(refused)?;
        let mut busy = Busy {
            lanes,
            work: Some((lane, confirm, permit)),
            runtime: Handle::current(),
        };
        let Some((_, confirm, _)) = &mut busy.work else {
            return Err(Failure::Ended("the lane is gone"));
        };
        let confirmation = confirm.await.map_err(refused);
        let Some((lane, _, _permit)) = busy.work.take() else {
            return Err(Failure::Ended("the lane is gone"));
        };
        let confirmation = confirmation?;
        if !matches!(confirmation, Confirmation::Nack(_)) {
            busy.lanes.give_back(lane);
        }
        Ok(confirmation)
    }

    fn give_back(&self, lane: Channel) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(lane);
    }

    fn take_idle(&self) -> Option<Channel> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Some((lane, confirm, permit)) = self.work.take() else {
            return;
        };
        let lanes = self.lanes.clone();
        self.runtime.spawn(async move {
            if let Ok(Ok(_)) = tokio::time::timeout(LATE_CONFIRM, confirm).await {
                lanes.give_back(lane);
            }
            drop(permit);
        });
    }
}

async fn open_lane(connection: &Connection) -> Result<Channel, Failure> {
    let opened = connection.create_channel();
    let lane = within(STEP_TIMEOUT, "open a channel", opened).await?;
    let answer = lane.confirm_select(ConfirmSelectOptions::default());
    within(STEP_TIMEOUT, "ask for confirms", answer).await?;
    Ok(lane)
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            idle: Arc::default(),
            free: Arc::new(Semaphore::new(MAX_LANES)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_limit_is_the_last_number_of_its_words() {
        let words =
            "PRECONDITION_FAILED - message size 2097152 is larger than configured max size 1048576";
        assert_eq!(last_number(words), Some(1_048_576));
        assert_eq!(last_number(&format!("{words})")), Some(1_048_576));
        assert_eq!(last_number("none"), None);
    }
}
