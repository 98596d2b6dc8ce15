//! Messages that wait for their time, on the broker: retries with backoff, and what a full queue
//! has refused.
//!
//! A message is parked in a tier, a queue whose messages all wait equally long, and comes out in
//! the queue `due`, which every host reads: it is parked again until its time has come, and handed
//! over then. The largest tier that fits is taken, so a wait of an hour is a handful of hops.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{
    Consumer,
    message::Delivery as Arrived,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use rand::RngExt;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use warren_protocol::Address;

use super::{
    Shared,
    backoff::Backoff,
    bounded::{Failure, STEP_TIMEOUT, within},
    consume::Origin,
    epoch::Epoch,
    failure_log::FailureLog,
    names::{DUE, TIERS},
    publish, wire,
};
use crate::{Delivery, Epitaph, Message, PublishError};

/// How many due messages one host has in its hands.
const PREFETCH: u16 = 256;

/// How long a message waits whose queue was full when its time had come.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(5);
/// How long what is being sent on may take when the bus is closed: it waits for less than a second.
const LAST_TO_SEND: Duration = Duration::from_secs(2);
/// Between two tries while the broker does not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Parks a message until `until_ms`, or hands it over when that is now.
pub(super) async fn park(
    shared: &Shared,
    message: &Message,
    until_ms: u64,
) -> Result<(), PublishError> {
    let left = Duration::from_millis(until_ms.saturating_sub(wire::now_ms()));
    match tier(left) {
        Some(tier) => publish::park(shared, message, tier, until_ms).await,
        None => {
            sleep(left).await;
            publish::forward(shared, message).await
        }
    }
}

/// The largest tier that is not longer than what is left. `None`: too little for any.
fn tier(left: Duration) -> Option<&'static str> {
    let fits = |(_, seconds): &&(&'static str, u64)| Duration::from_secs(*seconds) <= left;
    TIERS.iter().rev().find(fits).map(|(tier, _)| *tier)
}

/// Reads what is due until the epoch is over. A failure costs the retries their punctuality, and
/// no job: they stay where they are.
pub(super) async fn run(shared: Arc<Shared>, epoch: Arc<Epoch>) {
    let mut backoff = Backoff::default();
    let mut log = FailureLog::default();
    loop {
        let failure = match open(&epoch).await {
            Ok((origin, consumer)) => {
                shared.board.retries(None);
                backoff.reset();
                pump(&shared, &epoch, &origin, consumer).await
            }
            Err(failure) => failure,
        };
        if epoch.over.is_cancelled() || shared.closing.is_cancelled() {
            return;
        }
        let problem = format!("retries are late ({failure}): {DUE} is not consumed; trying on");
        log.note(&problem);
        shared.board.retries(Some(problem));
        tokio::select! {
            () = epoch.over.cancelled() => return,
            () = shared.closing.cancelled() => return,
            () = sleep(backoff.next()) => {}
        }
    }
}

async fn open(epoch: &Epoch) -> Result<(Arc<Origin>, Consumer), Failure> {
    let opened = epoch.consuming.create_channel();
    let channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
    let limit = channel.basic_qos(PREFETCH, BasicQosOptions::default());
    within(STEP_TIMEOUT, "set the prefetch", limit).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let consumer = channel.basic_consume(DUE.into(), "warren-due".into(), options, none);
    let consumer = within(STEP_TIMEOUT, "consume what is due", consumer).await?;
    Ok((Origin::new(channel, &epoch.over), consumer))
}

async fn pump(
    shared: &Arc<Shared>,
    epoch: &Epoch,
    origin: &Arc<Origin>,
    mut consumer: Consumer,
) -> Failure {
    let under_way = TaskTracker::new();
    loop {
        let next = tokio::select! {
            () = epoch.over.cancelled() => return Failure::Ended("the epoch is over"),
            () = shared.closing.cancelled() => {
                // What is in our hands is sent on, or it would be sent on twice; the rest goes back.
                origin.cancel(&consumer).await;
                under_way.close();
                let _ = timeout(LAST_TO_SEND, under_way.wait()).await;
                origin.close_behind_barrier(&DUE.into()).await;
                return Failure::Ended("the bus is being closed");
            }
            next = consumer.next() => next,
        };
        match next {
            Some(Ok(arrived)) => {
                // As many as the prefetch at once: one that waits does not hold up the others.
                under_way.spawn(settle(Arc::clone(shared), Arc::clone(origin), arrived));
            }
            Some(Err(error)) => {
                origin.lose();
                return Failure::Refused("consume what is due", error);
            }
            None => return Failure::Ended("the broker has ended the consumer"),
        }
    }
}

/// Sends one message on, and takes it off `due` when it is safe elsewhere.
async fn settle(shared: Arc<Shared>, origin: Arc<Origin>, arrived: Arrived) {
    let until_ms = wire::due_at(&arrived.properties).unwrap_or_default();
    // Kept by the broker through the tier: the key is still the address.
    let Ok(to) = arrived.routing_key.as_str().parse::<Address>() else {
        // Where it cannot be stored, it comes again with the next channel.
        let _ = publish::set_aside(&shared, arrived).await;
        return;
    };
    let delivery = origin.deliver(arrived, to, shared.config.encoding);
    let safe = tokio::select! {
        () = delivery.lost.cancelled() => false,
        safe = send_on(&shared, &delivery, until_ms) => safe,
    };
    if safe {
        if let Err(error) = delivery.ack().await {
            debug!(%error, "a retry may be sent on twice");
        }
    } else {
        delivery.give_back();
    }
}

async fn send_on(shared: &Shared, delivery: &Delivery, until_ms: u64) -> bool {
    let message = &delivery.message;
    let mut until_ms = until_ms;
    loop {
        let error = match park(shared, message, until_ms).await {
            Ok(()) => return true,
            Err(error) => error,
        };
        match &error {
            PublishError::Unavailable(_) if shared.stop.is_cancelled() => return false,
            PublishError::Unavailable(_) => sleep(RETRY_PAUSE).await,
            PublishError::QueueFull(_) => {
                let wait = WAIT_FOR_ROOM.mul_f64(rand::rng().random_range(0.8..1.2));
                until_ms = wire::now_ms().saturating_add(wait.as_millis() as u64);
            }
            PublishError::Unroutable(_) | PublishError::TooLarge { .. } => {
                warn!("job.id" = message.id, %error, "a retry is dead-lettered");
                let epitaph = Epitaph {
                    reason: "unrouted",
                    error: error.to_string(),
                    plugin: None,
                    stack: None,
                    host: shared.host.as_str().to_owned(),
                };
                match publish::bury(shared, message, &epitaph).await {
                    Ok(()) => return true,
                    Err(_) if shared.stop.is_cancelled() => return false,
                    Err(_) => sleep(RETRY_PAUSE).await,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_tier_that_fits_is_taken() {
        let tier = |seconds: f64| tier(Duration::from_secs_f64(seconds));
        assert_eq!(tier(0.0), None);
        assert_eq!(tier(0.999), None);
        assert_eq!(tier(1.0), Some("1s"));
        assert_eq!(tier(4.9), Some("1s"));
        assert_eq!(tier(5.0), Some("5s"));
        assert_eq!(tier(3599.0), Some("10m"));
        assert_eq!(tier(1e9), Some("24h"));
    }

    #[test]
    fn a_wait_of_an_hour_is_a_handful_of_hops() {
        let mut left = Duration::from_secs_f64(3599.5);
        let mut n_hops = 0;
        while tier(left).is_some() {
            let fits = TIERS
                .iter()
                .rev()
                .find(|(_, s)| Duration::from_secs(*s) <= left);
            left -= Duration::from_secs(fits.unwrap().1);
            n_hops += 1;
        }
        assert!(n_hops <= 25, "{n_hops}");
        assert!(left < Duration::from_secs(1));
    }
}
