//! Removes what killed hosts leave on the broker: their inboxes. One host at a time does it,
//! whichever holds the lock.
//!
//! AMQP cannot list queues, so every host leaves a card with the name of its inbox before it
//! declares it. An inbox that nobody has consumed for a while is emptied, message by message and
//! confirmed, deleted when it is empty and unused, and only then its card is thrown away.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use lapin::{
    Acker, Channel, Consumer,
    message::Delivery as Arrived,
    options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, QueueDeleteOptions},
    types::{FieldTable, ShortString},
};
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};
use warren_protocol::{Address, WorkerId};

use super::{
    Shared,
    bounded::{Failure, STEP_TIMEOUT, WRITE_TIMEOUT, within},
    epoch::Epoch,
    names::{HOSTS, JANITOR, JOBS},
    publish, topology, wire,
};
use crate::{Epitaph, Kind, PublishError};

/// Between two tries to take the lock, and between two rounds of whoever has it.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long an inbox is without a consumer before its host is taken for dead: longer than a restart
/// of the broker and the longest wait between two tries to connect.
const GRACE: Duration = Duration::from_secs(60);

/// What a host writes on its card.
#[derive(Serialize, Deserialize)]
struct Card {
    inbox: String,
    host: String,
}

/// An inbox that is watched over.
struct Watched {
    card: Acker,
    /// Since when it has been seen without a consumer, or not at all.
    deserted_since: Option<Instant>,
}

/// What was seen of an inbox.
enum Sight {
    Used,
    Deserted,
    /// It does not exist: not yet, or not any more.
    Missing,
    /// Its node is down.
    OutOfReach,
}

/// The body of a host's card.
pub(super) fn card(inbox: &str, host: &str) -> Vec<u8> {
    let card = Card {
        inbox: inbox.to_owned(),
        host: host.to_owned(),
    };
    // Two texts: JSON can say them.
    serde_json::to_vec(&card).unwrap_or_default()
}

/// Tries to be the janitor, and is it for as long as it can, until the epoch is over.
pub(super) async fn run(shared: Arc<Shared>, epoch: Arc<Epoch>) {
    loop {
        tokio::select! {
            () = epoch.over.cancelled() => return,
            () = shared.closing.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        match take_lock(&epoch).await {
            Ok(lock) => {
                debug!("this host is the janitor");
                let ended = tokio::select! {
                    () = epoch.over.cancelled() => return,
                    () = shared.closing.cancelled() => return topology::close(&lock).await,
                    ended = watch_over(&shared, &epoch, &lock) => ended,
                };
                if let Err(failure) = ended {
                    debug!(error = %failure, "this host is not the janitor any more");
                }
            }
            // Somebody else is.
            Err(failure) => debug!(error = %failure, "not the janitor"),
        }
    }
}

/// The lock is an exclusive queue: it lives as long as this connection, and others are refused.
async fn take_lock(epoch: &Epoch) -> Result<Channel, Failure> {
    let opened = epoch.consuming.create_channel();
    let channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
    topology::declare(&channel, &topology::exclusive(JANITOR.into())).await?;
    Ok(channel)
}

async fn watch_over(shared: &Shared, epoch: &Epoch, lock: &Channel) -> Result<(), Failure> {
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let cards = lock.basic_consume(HOSTS.into(), "warren-janitor".into(), options, none);
    let mut cards: Consumer = within(STEP_TIMEOUT, "consume the cards", cards).await?;
    let mut watched = HashMap::new();
    let mut rounds = tokio::time::interval(INTERVAL);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            card = cards.next() => match card {
                Some(Ok(card)) => take_card(&mut watched, card).await,
                Some(Err(error)) => return Err(Failure::Refused("consume the cards", error)),
                None => return Err(Failure::Ended("the broker has ended the consumer")),
            },
            _ = rounds.tick() => round(shared, epoch, &mut watched).await,
        }
    }
}

/// Keeps one card for each inbox: a host leaves one whenever it connects.
async fn take_card(watched: &mut HashMap<String, Watched>, arrived: Arrived) {
    let Ok(card) = serde_json::from_slice::<Card>(&arrived.data) else {
        warn!("a host's card cannot be read and is thrown away");
        return throw_away(arrived.acker).await;
    };
    // Whatever is on a card will be deleted: only an inbox may be.
    if !card.inbox.starts_with("warren.v1.in.") {
        warn!(
            queue = card.inbox,
            "a host's card names no inbox and is thrown away"
        );
        return throw_away(arrived.acker).await;
    }
    if watched.contains_key(&card.inbox) {
        return throw_away(arrived.acker).await;
    }
    let entry = Watched {
        card: arrived.acker,
        deserted_since: None,
    };
    watched.insert(card.inbox, entry);
}

async fn throw_away(card: Acker) {
    let acked = card.ack(BasicAckOptions::default());
    if let Err(failure) = within(WRITE_TIMEOUT, "acknowledge", acked).await {
        debug!(error = %failure, "the card comes again");
    }
}

async fn round(shared: &Shared, epoch: &Epoch, watched: &mut HashMap<String, Watched>) {
    let mut done = Vec::new();
    for (inbox, entry) in watched.iter_mut() {
        let sight = look(epoch, inbox).await;
        if matches!(sight, Ok(Sight::Used | Sight::OutOfReach) | Err(_)) {
            entry.deserted_since = None;
            continue;
        }
        let since = *entry.deserted_since.get_or_insert_with(Instant::now);
        if since.elapsed() < GRACE {
            continue;
        }
        if matches!(sight, Ok(Sight::Missing)) {
            done.push(inbox.clone());
            continue;
        }
        match remove(shared, epoch, inbox).await {
            Ok(n_moved) => {
                info!(inbox, n_moved, "removed the inbox of a host that is gone");
                done.push(inbox.clone());
            }
            Err(failure) => debug!(inbox, error = %failure, "the inbox is not removed yet"),
        }
    }
    for inbox in done {
        if let Some(entry) = watched.remove(&inbox) {
            throw_away(entry.card).await;
        }
    }
}

async fn look(epoch: &Epoch, inbox: &str) -> Result<Sight, Failure> {
    let opened = epoch.consuming.create_channel();
    let channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
    match topology::look(&channel, inbox.into()).await {
        Ok(queue) => {
            topology::close(&channel).await;
            Ok(if queue.consumer_count() > 0 {
                Sight::Used
            } else {
                Sight::Deserted
            })
        }
        Err(failure) if failure.is_missing_queue() => Ok(Sight::Missing),
        Err(failure) if failure.is_not_found() => Ok(Sight::OutOfReach),
        Err(failure) => Err(failure),
    }
}

/// Empties an inbox and deletes it. Says how many messages were moved. One that is consumed again,
/// or not empty, is refused by the broker and stays.
async fn remove(shared: &Shared, epoch: &Epoch, inbox: &str) -> Result<usize, Failure> {
    let opened = epoch.consuming.create_channel();
    let channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
    let mut n_moved = 0;
    loop {
        let got = channel.basic_get(inbox.into(), BasicGetOptions::default());
        let Some(got) = within(STEP_TIMEOUT, "empty an inbox", got).await? else {
            break;
        };
        move_on(shared, &channel, inbox, got.delivery).await?;
        n_moved += 1;
    }
    let options = QueueDeleteOptions {
        if_unused: true,
        if_empty: true,
        nowait: false,
    };
    let answer = channel.queue_delete(inbox.into(), options);
    within(STEP_TIMEOUT, "delete an inbox", answer).await?;
    topology::close(&channel).await;
    Ok(n_moved)
}

/// A job goes to its address, if that leads elsewhere by now, or to the dead letters. Nobody waits
/// for a reply any more.
async fn move_on(
    shared: &Shared,
    channel: &Channel,
    inbox: &str,
    arrived: Arrived,
) -> Result<(), Failure> {
    let key: ShortString = arrived.routing_key.clone();
    let Ok(to) = key.as_str().parse::<WorkerId>() else {
        publish::set_aside(shared, arrived).await;
        return Ok(());
    };
    // Before it is sent on: it must not come back here.
    topology::unbind(channel, inbox.into(), JOBS, key).await?;
    let (properties, encoding) = (&arrived.properties, shared.config.encoding);
    let message = wire::read(Address::One(to), encoding, properties, arrived.data);
    if message.kind.is_durable() {
        let sent = match publish::publish(shared, &message).await {
            Err(PublishError::Unroutable(address)) => {
                let epitaph = Epitaph {
                    reason: "unrouted",
                    error: format!("{address} is gone: its host has left without a word"),
                    plugin: None,
                    host: shared.host.as_str().to_owned(),
                };
                publish::bury(shared, &message, &epitaph).await
            }
            sent => sent,
        };
        if sent.is_err() {
            return Err(Failure::Ended("a message of the inbox could not be moved"));
        }
    } else {
        debug_assert!(matches!(message.kind, Kind::Reply | Kind::Error));
    }
    let acked = arrived.acker.ack(BasicAckOptions::default());
    within(WRITE_TIMEOUT, "acknowledge", acked).await.map(drop)
}
