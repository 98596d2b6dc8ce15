//! Handing messages to the broker, and knowing what became of each.
//!
//! Every publish is mandatory and confirmed, on a channel that has no other unconfirmed publish
//! (a *lane*): decision 0001. lapin pairs a returned message with whichever confirm completes
//! next, so with two of them under way the wrong sender could be told that nobody is there.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    Shared,
    bounded::{Failure, STEP_TIMEOUT, within},
    epoch::Epoch,
    names::{DEAD, JOBS},
    wire,
};
use crate::{Epitaph, Message, PublishError};

/// How many publishes are under way at once. A quorum queue confirms in 1 to 10 ms, so this is
/// room for some ten thousand messages a second.
const MAX_LANES: usize = 64;
/// Between two tries of a publish whose channel broke while the connection is well.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The publish channels of one epoch, opened when they are needed.
pub(super) struct Lanes {
    /// The one that was used last comes first, so that a quiet host keeps few of them busy.
    idle: Mutex<Vec<Channel>>,
    free: Semaphore,
}

/// Where one message goes, in AMQP's terms.
struct Parcel<'a> {
    exchange: &'static str,
    key: &'a str,
    body: &'a [u8],
    properties: BasicProperties,
}

/// Publishes a message to its address.
pub(super) async fn publish(shared: &Shared, message: &Message) -> Result<(), PublishError> {
    let (size, limit) = (message.body.len(), shared.config.max_message_bytes);
    if size > limit {
        return Err(PublishError::TooLarge { size, limit });
    }
    let key = message.to.to_string();
    let parcel = Parcel {
        exchange: JOBS,
        key: &key,
        body: &message.body,
        properties: wire::properties(message)?,
    };
    send(shared, &parcel).await
}

/// Publishes a message to the dead letters of its type. Of any size: the broker has had it before.
pub(super) async fn bury(
    shared: &Shared,
    message: &Message,
    epitaph: &Epitaph,
) -> Result<(), PublishError> {
    let parcel = Parcel {
        exchange: DEAD,
        key: message.to.worker_type().as_str(),
        body: &message.body,
        properties: wire::dead_letter(message, epitaph)?,
    };
    send(shared, &parcel).await
}

/// Tries until the broker has answered or the time is up. A try whose answer was lost is repeated
/// with the same id: twice is better than never, and the id tells.
async fn send(shared: &Shared, parcel: &Parcel<'_>) -> Result<(), PublishError> {
    let limit = shared.config.publish_timeout;
    let deadline = Instant::now() + limit;
    let mut last_failure = None;
    let answered = timeout_at(deadline, async {
        loop {
            let Some(epoch) = shared.living_epoch().await else {
                return Err(PublishError::Unavailable("the bus is closed".to_owned()));
            };
            let failure = tokio::select! {
                confirmation = epoch.lanes.send(&epoch, parcel) => match confirmation {
                    Ok(confirmation) => return verdict(confirmation, parcel.key),
                    Err(failure) => failure,
                },
                () = epoch.over.cancelled() => Failure::Ended("the connection ended"),
            };
            if failure.is_mismatch() {
                // The one thing about a publish that the broker refuses so: a body that is larger
                // than its `max_message_size`. It says how large that is, in words.
                let size = parcel.body.len();
                let limit = last_number(&failure.to_string()).unwrap_or(size.saturating_sub(1));
                return Err(PublishError::TooLarge { size, limit });
            }
            if failure.is_not_found() {
                // Our exchange is gone: the next epoch declares it again.
                epoch.end(format!("the topology is gone ({failure})"));
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

/// The last number in a text.
fn last_number(text: &str) -> Option<usize> {
    let end = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let start = end.trim_end_matches(|c: char| c.is_ascii_digit());
    end.get(start.len()..)?.parse().ok()
}

fn verdict(confirmation: Confirmation, key: &str) -> Result<(), PublishError> {
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
    /// after a whole exchange; dropping this future, or an error, closes it.
    async fn send(&self, epoch: &Epoch, parcel: &Parcel<'_>) -> Result<Confirmation, Failure> {
        let Ok(_permit) = self.free.acquire().await else {
            return Err(Failure::Ended("the bus is closed"));
        };
        let lane = match self.take_idle() {
            Some(lane) => lane,
            None => open_lane(epoch).await?,
        };
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let written = lane.basic_publish(
            parcel.exchange.into(),
            parcel.key.into(),
            options,
            parcel.body,
            parcel.properties.clone(),
        );
        let refused = |error| Failure::Refused("publish", error);
        let confirmation = written.await.map_err(refused)?.await.map_err(refused)?;
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(lane);
        Ok(confirmation)
    }

    fn take_idle(&self) -> Option<Channel> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop()
    }
}

async fn open_lane(epoch: &Epoch) -> Result<Channel, Failure> {
    let opened = epoch.publishing.create_channel();
    let lane = within(STEP_TIMEOUT, "open a channel", opened).await?;
    let answer = lane.confirm_select(ConfirmSelectOptions::default());
    within(STEP_TIMEOUT, "ask for confirms", answer).await?;
    Ok(lane)
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            idle: Mutex::default(),
            free: Semaphore::new(MAX_LANES),
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
