//! This host's inbox: everything that is addressed to one of its workers by id. A queue of its
//! own, so that a reply never waits behind jobs.

use std::sync::Arc;

use futures_util::StreamExt;
use lapin::{
    Consumer,
    options::{BasicConsumeOptions, BasicQosOptions, QueueDeleteOptions},
    types::FieldTable,
};
use tokio::sync::mpsc;
use tracing::warn;
use warren_protocol::{Address, WorkerId};

use super::{
    Shared,
    bounded::{Failure, STEP_TIMEOUT, WRITE_TIMEOUT, within},
    consume::Origin,
    epoch::Epoch,
    names::JOBS,
    topology,
};
use crate::{Delivery, INBOX_PREFETCH};

/// The inbox as it is consumed in one epoch.
pub(super) struct Opened {
    origin: Arc<Origin>,
    consumer: Consumer,
}

/// Binds the ids that lead here, and starts to consume.
pub(super) async fn open(shared: &Shared, epoch: &Epoch) -> Result<Opened, Failure> {
    let queue = shared.host.inbox();
    for id in shared.membership.ids() {
        let to_inbox = topology::binding(queue.as_str(), JOBS, id.as_str());
        topology::declare(&epoch.control, &to_inbox).await?;
    }
    let opened = epoch.consuming.create_channel();
    let channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
    let limit = channel.basic_qos(INBOX_PREFETCH, BasicQosOptions::default());
    within(STEP_TIMEOUT, "set the prefetch", limit).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let consumer = channel.basic_consume(queue, "warren-inbox".into(), options, none);
    let consumer = within(STEP_TIMEOUT, "consume the inbox", consumer).await?;
    Ok(Opened {
        origin: Origin::new(channel, &epoch.over),
        consumer,
    })
}

/// Hands on what arrives until the epoch is over, and ends the epoch when the inbox breaks.
pub(super) async fn pump(
    shared: Arc<Shared>,
    epoch: Arc<Epoch>,
    opened: Opened,
    sender: mpsc::Sender<Delivery>,
) {
    let _ended = epoch.inbox_ended.clone().drop_guard();
    let Opened {
        origin,
        mut consumer,
    } = opened;
    loop {
        let next = tokio::select! {
            () = epoch.over.cancelled() => return,
            () = shared.closing.cancelled() => return end(&origin, consumer).await,
            // Nobody reads the inbox: what is in it stays there.
            () = sender.closed() => return,
            next = consumer.next() => next,
        };
        let arrived = match next {
            Some(Ok(arrived)) => arrived,
            Some(Err(error)) => return epoch.end(format!("the inbox failed: {error}")),
            None => return epoch.end("the broker has ended the inbox: was it deleted?"),
        };
        let Ok(to) = arrived.routing_key.as_str().parse::<WorkerId>() else {
            warn!("a message in the inbox has no worker's id as its key, dropped");
            let acked = arrived
                .acker
                .ack(lapin::options::BasicAckOptions::default());
            let _ = within(WRITE_TIMEOUT, "acknowledge", acked).await;
            continue;
        };
        let delivery = origin.deliver(arrived, Address::One(to), shared.config.encoding);
        tokio::select! {
            () = epoch.over.cancelled() => return,
            () = shared.closing.cancelled() => return end(&origin, consumer).await,
            _ = sender.send(delivery) => {}
        }
    }
}

/// Ends the consumption of an inbox that is to be deleted. Closing the channel puts back what has
/// not been settled, so that the broker can tell whether the inbox is empty.
async fn end(origin: &Origin, consumer: Consumer) {
    drop(consumer);
    origin.close().await;
}

/// Lets go of an id.
pub(super) async fn unbind(shared: &Shared, epoch: &Epoch, id: &WorkerId) {
    let (queue, key) = (shared.host.inbox(), id.as_str().into());
    let answer = epoch
        .control
        .queue_unbind(queue, JOBS.into(), key, FieldTable::default());
    epoch.check(within(STEP_TIMEOUT, "unbind an id", answer).await);
}

/// Removes the inbox: this host is not coming back. What is still in it is not lost: then it stays.
pub(super) async fn delete(shared: &Shared, epoch: &Epoch) {
    let options = QueueDeleteOptions {
        if_empty: true,
        ..QueueDeleteOptions::default()
    };
    let answer = epoch.control.queue_delete(shared.host.inbox(), options);
    if let Err(failure) = within(STEP_TIMEOUT, "delete the inbox", answer).await {
        warn!(error = %failure, "the inbox of this host is left behind on the broker");
    }
}
