//! This host's inbox: everything that is addressed to one of its workers by id. A queue of its
//! own, so that a reply never waits behind jobs.
//!
//! It lives on one node of the broker. When that node is down the queue can neither be used nor
//! declared elsewhere; the host goes on with an inbox of another name, and the janitor empties the
//! old one when its node is back.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    options::{BasicConsumeOptions, BasicQosOptions, QueueDeleteOptions},
    types::{FieldTable, ShortString},
};
use tokio::{sync::mpsc, time::timeout};
use tracing::warn;
use warren_protocol::{Address, WorkerId};

use super::{
    Shared,
    backoff::Backoff,
    bounded::{Failure, STEP_TIMEOUT, within},
    consume::Origin,
    epoch::Epoch,
    janitor,
    names::JOBS,
    publish, topology,
};
use crate::{Delivery, INBOX_PREFETCH};

/// How long the inbox waits for its card.
const CARD_TIMEOUT: Duration = Duration::from_secs(1);
/// After so many failures in a row something is wrong with more than the inbox.
const MOST_FAILURES: u32 = 5;

/// The inbox as it is consumed on one channel.
pub(super) struct Opened {
    origin: Arc<Origin>,
    consumer: Consumer,
}

/// Why the inbox is not consumed any more.
enum Stop {
    /// It was asked to stop.
    Done,
    Failed(Failure),
}

/// Declares the inbox, binds the ids that lead here, and starts to consume.
pub(super) async fn open(shared: &Shared, epoch: &Arc<Epoch>) -> Result<Opened, Failure> {
    match try_open(shared, epoch).await {
        Err(failure) if failure.is_not_found() => {
            let old = shared.host.draw_new_inbox();
            warn!(
                inbox = old.as_str(),
                error = %failure,
                "the node of this host's inbox is down: going on with a new inbox"
            );
            shared.membership.abandon(old);
            try_open(shared, epoch).await
        }
        opened => opened,
    }
}

async fn try_open(shared: &Shared, epoch: &Arc<Epoch>) -> Result<Opened, Failure> {
    let inbox = shared.host.inbox();
    // Before the inbox: what is on no card, the janitor never finds. But not for long: a broker that
    // is short of memory takes no card, and it needs hosts that consume.
    let card = janitor::card(inbox.as_str(), shared.host.as_str());
    let left = epoch
        .background
        .spawn(janitor::leave_card(Arc::clone(epoch), card));
    let _ = timeout(CARD_TIMEOUT, left).await;
    let opened = epoch.consuming.create_channel();
    let channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
    topology::declare(&channel, &topology::inbox(inbox.as_str())).await?;
    for id in shared.membership.ids() {
        bind(&channel, &inbox, &id).await?;
    }
    let limit = channel.basic_qos(INBOX_PREFETCH, BasicQosOptions::default());
    within(STEP_TIMEOUT, "set the prefetch", limit).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let consumer = channel.basic_consume(inbox, "warren-inbox".into(), options, none);
    let consumer = within(STEP_TIMEOUT, "consume the inbox", consumer).await?;
    Ok(Opened {
        origin: Origin::new(channel, &epoch.over),
        consumer,
    })
}

/// Hands on what arrives until the epoch is over. An inbox that breaks is opened again; one that
/// breaks again and again ends the epoch.
pub(super) async fn run(
    shared: Arc<Shared>,
    epoch: Arc<Epoch>,
    opened: Opened,
    sender: mpsc::Sender<Delivery>,
) {
    let _ended = epoch.inbox_ended.clone().drop_guard();
    let mut opened = Some(opened);
    let mut backoff = Backoff::default();
    let mut n_failures = 0;
    while n_failures < MOST_FAILURES {
        let stop = match opened.take() {
            Some(opened) => {
                n_failures = 0;
                pump(&shared, &epoch, opened, &sender).await
            }
            None => match open(&shared, &epoch).await {
                Ok(again) => {
                    opened = Some(again);
                    continue;
                }
                Err(failure) => Stop::Failed(failure),
            },
        };
        let Stop::Failed(failure) = stop else { return };
        if !epoch.consuming.status().connected() {
            return; // The link tells it, once for all.
        }
        warn!(error = %failure, "the inbox of this host failed and is opened again");
        n_failures += 1;
        tokio::select! {
            () = epoch.over.cancelled() => return,
            () = shared.closing.cancelled() => return,
            () = tokio::time::sleep(backoff.next()) => {}
        }
    }
    epoch.end("the inbox of this host cannot be opened again");
}

async fn pump(
    shared: &Shared,
    epoch: &Epoch,
    opened: Opened,
    sender: &mpsc::Sender<Delivery>,
) -> Stop {
    let Opened {
        origin,
        mut consumer,
    } = opened;
    loop {
        let next = tokio::select! {
            () = epoch.over.cancelled() => return Stop::Done,
            () = shared.closing.cancelled() => return end(&origin, consumer).await,
            // Nobody reads the inbox: what is in it stays there.
            () = sender.closed() => return Stop::Done,
            next = consumer.next() => next,
        };
        let arrived = match next {
            Some(Ok(arrived)) => arrived,
            Some(Err(error)) => {
                origin.lose();
                return Stop::Failed(Failure::Refused("consume the inbox", error));
            }
            None => return Stop::Failed(Failure::Ended("the broker has ended the inbox")),
        };
        let Ok(to) = arrived.routing_key.as_str().parse::<WorkerId>() else {
            // Where it cannot be stored, it comes again with the next channel.
            let _ = publish::set_aside(shared, arrived).await;
            continue;
        };
        let delivery = origin.deliver(arrived, Address::One(to), shared.config.encoding);
        tokio::select! {
            () = epoch.over.cancelled() => return Stop::Done,
            () = shared.closing.cancelled() => return end(&origin, consumer).await,
            _ = sender.send(delivery) => {}
        }
    }
}

/// Ends the consumption of an inbox that is to be deleted. Closing the channel puts back what has
/// not been settled, so that the broker can tell whether the inbox is empty.
async fn end(origin: &Origin, consumer: Consumer) -> Stop {
    drop(consumer);
    origin.close().await;
    Stop::Done
}

/// Leads an id to the inbox.
pub(super) async fn bind(
    channel: &Channel,
    inbox: &ShortString,
    id: &WorkerId,
) -> Result<(), Failure> {
    let binding = topology::binding(inbox.as_str(), JOBS, id.as_str());
    topology::declare(channel, &binding).await.map(drop)
}

/// Lets go of an id. A binding that stays behind leads to an inbox that is going to be deleted.
pub(super) async fn unbind(shared: &Shared, epoch: &Epoch, id: &WorkerId) {
    let inbox = shared.host.inbox();
    let unbound = async {
        let opened = epoch.consuming.create_channel();
        let channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
        topology::unbind(&channel, inbox, JOBS, id.as_str().into()).await?;
        topology::close(&channel).await;
        Ok::<_, Failure>(())
    };
    if let Err(failure) = unbound.await {
        tracing::debug!("worker.id" = %id, error = %failure, "the id still leads here");
    }
}

/// Removes the inbox: this host is not coming back. What is still in it is not lost: then it stays
/// for the janitor.
pub(super) async fn delete(shared: &Shared, epoch: &Epoch) {
    let options = QueueDeleteOptions {
        if_empty: true,
        ..QueueDeleteOptions::default()
    };
    let deleted = async {
        let opened = epoch.consuming.create_channel();
        let channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
        let answer = channel.queue_delete(shared.host.inbox(), options);
        within(STEP_TIMEOUT, "delete the inbox", answer).await
    };
    if let Err(failure) = deleted.await {
        warn!(error = %failure, "the inbox of this host is left to the janitor");
    }
}
