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

/// A card is held for no longer than this: RabbitMQ takes back what is held for half an hour.
const LONGEST_HOLD: Duration = Duration::from_secs(600);

/// What a host writes on its card.
#[derive(Clone, Serialize, Deserialize)]
struct Card {
    inbox: String,
    host: String,
    /// Written by the janitor, who holds no card for so long that the broker would take it back.
    #[serde(default)]
    copy: bool,
}

/// An inbox that is watched over.
struct Watched {
    text: Card,
    card: Acker,
    /// Since when the card has been held.
    since: Instant,
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
        copy: false,
    };
    // Texts: JSON can say them.
    serde_json::to_vec(&card).unwrap_or_default()
}

/// Leaves a card, as soon as the broker takes one.
pub(super) async fn leave_card(epoch: Arc<Epoch>, card: Vec<u8>) {
    let leaving = async {
        loop {
            epoch.gate_is_open().await;
            match publish::card(&epoch, &card).await {
                Ok(()) => return,
                Err(failure) => debug!(error = %failure, "no card yet"),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::select! {
        () = epoch.over.cancelled() => {}
        () = leaving => {}
    }
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
            // Not in the middle of a round: a message that is being moved would be moved twice.
            // The lock goes with its connection, which is closed in a moment.
            () = shared.closing.cancelled() => return Ok(()),
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
    let before = watched.remove(&card.inbox);
    let deserted_since = match &before {
        Some(before) if card.copy => before.deserted_since,
        // Its host has just spoken.
        _ => None,
    };
    let entry = Watched {
        text: card.clone(),
        card: arrived.acker,
        since: Instant::now(),
        deserted_since,
    };
    watched.insert(card.inbox, entry);
    if let Some(before) = before {
        throw_away(before.card).await;
    }
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
        if shared.closing.is_cancelled() {
            return;
        }
        if entry.since.elapsed() > LONGEST_HOLD {
            entry.since = Instant::now();
            let copy = Card {
                copy: true,
                ..entry.text.clone()
            };
            // It comes back as the next card of this inbox, and replaces the one that is held.
            let copy = serde_json::to_vec(&copy).unwrap_or_default();
            if let Err(failure) = publish::card(epoch, &copy).await {
                debug!(error = %failure, "the card is held for longer");
            }
        }
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
        let seen = topology::look(&channel, inbox.into()).await?;
        if seen.consumer_count() > 0 {
            topology::close(&channel).await;
            return Err(Failure::Ended("its host is back"));
        }
        if shared.closing.is_cancelled() {
            topology::close(&channel).await;
            return Err(Failure::Ended("the bus is being closed"));
        }
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
        return match publish::set_aside(shared, arrived).await {
            true => Ok(()),
            false => Err(Failure::Ended("a message could not be set aside")),
        };
    };
    // Before it is sent on: it must not come back here.
    topology::unbind(channel, inbox.into(), JOBS, key).await?;
    let (properties, encoding) = (&arrived.properties, shared.config.encoding);
    let message = wire::read(Address::One(to), encoding, properties, arrived.data);
    if message.kind.is_durable() {
        let sent = match publish::forward(shared, &message).await {
            Err(PublishError::Unroutable(_) | PublishError::TooLarge { .. }) => {
                let address = &message.to;
                let epitaph = Epitaph {
                    reason: "unrouted",
                    error: format!("{address} is gone: its host has left without a word"),
                    plugin: None,
                    stack: None,
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
