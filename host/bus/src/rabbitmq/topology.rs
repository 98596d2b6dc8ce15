//! The exchanges and queues, with their exact arguments (RELIABILITY "RabbitMQ topology"): what is
//! wanted is plain data, in the order in which it is declared.
//!
//! Everything that a message's safety hangs on is in the arguments; what an operator tunes
//! (max-length) is a policy. A declare with other arguments is refused by the broker with 406, so
//! they never change under one name.

use lapin::{
    Channel, ExchangeKind, Queue,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use warren_protocol::WorkerType;

use super::{
    bounded::{Failure, STEP_TIMEOUT, within},
    names::{
        self, CARD, DEAD, DEAD_LOG, DUE, HOSTS, JOBS, PEERS_ACKS, PEERS_CLAIMS, PEERS_IN, TIERS,
        UNROUTED,
    },
};

/// How long the log of dead letters goes back. A dead letter itself stays until somebody takes it.
const DEAD_LOG_AGE: &str = "30D";

/// One thing that is to be on the broker.
#[derive(Clone, Debug)]
pub(super) enum Entity {
    Exchange {
        name: ShortString,
        kind: ExchangeKind,
        durable: bool,
        arguments: FieldTable,
    },
    /// Durable and shared, unless exclusive: then it lives as long as its connection.
    Queue {
        name: ShortString,
        exclusive: bool,
        arguments: FieldTable,
    },
    Binding {
        queue: ShortString,
        exchange: ShortString,
        key: ShortString,
    },
}

/// What every host needs, whatever it serves.
pub(super) fn common() -> Vec<Entity> {
    let mut wanted = vec![
        durable_exchange(JOBS, ExchangeKind::Direct, &[]),
        durable_exchange(UNROUTED, ExchangeKind::Fanout, &[]),
        durable_exchange(
            DEAD,
            ExchangeKind::Direct,
            &[("alternate-exchange", UNROUTED)],
        ),
        durable_queue(UNROUTED, quorum(&[])),
        binding(UNROUTED, UNROUTED, ""),
        // A stream, since looking into a queue takes its messages out and puts them back: that
        // counts as a delivery and changes their order. Not bound to the exchange of the dead
        // letters: what reaches the stream would count as routed there, and a dead letter whose
        // queue was deleted would not go to the parking lot.
        durable_exchange(DEAD_LOG, ExchangeKind::Fanout, &[]),
        durable_queue(
            DEAD_LOG,
            arguments(&[("x-queue-type", "stream"), ("x-max-age", DEAD_LOG_AGE)]),
        ),
        binding(DEAD_LOG, DEAD_LOG, ""),
        // A broker with a delivery limit of its own parks what it would drop.
        durable_queue(HOSTS, quorum(&[("x-dead-letter-exchange", UNROUTED)])),
        binding(HOSTS, JOBS, CARD),
        // What is for Node workers, whoever is the gateway to them. It outlives each gateway.
        inbox(PEERS_IN),
        // Without a limit: what a tier lets go is never refused. A refused dead letter would hold
        // one of the tier's 32 slots and be tried again only after three minutes.
        durable_exchange(DUE, ExchangeKind::Fanout, &[]),
        durable_queue(DUE, quorum(&[("x-dead-letter-exchange", UNROUTED)])),
        binding(DUE, DUE, ""),
    ];
    for (tier, seconds) in TIERS {
        let name = names::delay_tier(tier);
        let mut arguments = quorum(&[
            ("x-dead-letter-exchange", DUE),
            ("x-dead-letter-strategy", "at-least-once"),
            ("x-overflow", "reject-publish"),
        ]);
        let ttl = i64::try_from(seconds * 1000).unwrap_or(i64::MAX);
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(ttl));
        wanted.extend([
            durable_exchange(name.as_str(), ExchangeKind::Fanout, &[]),
            durable_queue(name.as_str(), arguments),
            binding(name.as_str(), name.as_str(), ""),
        ]);
    }
    wanted
}

/// What one worker type needs, whoever serves it.
pub(super) fn of_type(worker_type: &WorkerType) -> Vec<Entity> {
    let (work, dead_letters) = (
        names::work_queue(worker_type),
        names::dead_letter_queue(worker_type),
    );
    // At-least-once dead-lettering needs reject-publish: with drop-head it silently becomes
    // at-most-once. No delivery limit: clean stops of hosts count as deliveries too.
    let work_arguments = quorum(&[
        ("x-dead-letter-exchange", DEAD),
        ("x-dead-letter-routing-key", worker_type.as_str()),
        ("x-dead-letter-strategy", "at-least-once"),
        ("x-overflow", "reject-publish"),
    ]);
    vec![
        durable_queue(dead_letters.as_str(), quorum(&[])),
        binding(dead_letters.as_str(), DEAD, worker_type.as_str()),
        durable_queue(work.as_str(), work_arguments),
        binding(work.as_str(), JOBS, names::any_worker(worker_type).as_str()),
    ]
}

/// The queue of everything that is addressed to one of a host's workers. Classic: replies are
/// transient, and a quorum write per reply would cost more than the hop.
pub(super) fn inbox(name: &str) -> Entity {
    durable_queue(name, arguments(&[("x-queue-type", "classic")]))
}

/// One of MicroServices.js' exchanges, declared the way all its parties do.
pub(super) fn peers_exchange(name: &str) -> Entity {
    Entity::Exchange {
        name: name.into(),
        kind: ExchangeKind::Topic,
        durable: false,
        arguments: FieldTable::default(),
    }
}

/// The acknowledgements of Node workers. The oldest ones go: they are of use for as long as a gateway
/// needs to take over.
pub(super) fn peers_acks() -> Entity {
    const KEPT_MS: i64 = 60_000;
    const MOST: i64 = 100_000;
    let mut arguments = arguments(&[("x-queue-type", "classic")]);
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(KEPT_MS));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(MOST));
    durable_queue(PEERS_ACKS, arguments)
}

/// What was stored for Node senders: for as long as they send it again.
pub(super) fn peers_claims() -> Entity {
    const KEPT_MS: i64 = 15_000;
    const MOST: i64 = 50_000;
    let mut arguments = arguments(&[("x-queue-type", "classic")]);
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(KEPT_MS));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(MOST));
    durable_queue(PEERS_CLAIMS, arguments)
}

/// A queue that lives as long as this connection.
pub(super) fn exclusive(name: ShortString) -> Entity {
    Entity::Queue {
        name,
        exclusive: true,
        arguments: FieldTable::default(),
    }
}

/// A queue's place on an exchange.
pub(super) fn binding(queue: &str, exchange: &str, key: &str) -> Entity {
    Entity::Binding {
        queue: queue.into(),
        exchange: exchange.into(),
        key: key.into(),
    }
}

/// Declares one after the other.
pub(super) async fn declare_all(channel: &Channel, wanted: &[Entity]) -> Result<(), Failure> {
    for entity in wanted {
        declare(channel, entity).await?;
    }
    Ok(())
}

/// Declares one thing: nothing happens when it is there as it is wanted. Says what the broker says
/// of a queue: how many messages are ready in it, and how many consumers it has.
pub(super) async fn declare(channel: &Channel, entity: &Entity) -> Result<Option<Queue>, Failure> {
    match entity.clone() {
        Entity::Exchange {
            name,
            kind,
            durable,
            arguments,
        } => {
            let options = ExchangeDeclareOptions {
                durable,
                ..ExchangeDeclareOptions::default()
            };
            let answer = channel.exchange_declare(name, kind, options, arguments);
            within(STEP_TIMEOUT, "declare an exchange", answer).await?;
            Ok(None)
        }
        Entity::Queue {
            name,
            exclusive,
            arguments,
        } => {
            let options = QueueDeclareOptions {
                durable: !exclusive,
                exclusive,
                ..QueueDeclareOptions::default()
            };
            let answer = channel.queue_declare(name, options, arguments);
            let queue = within(STEP_TIMEOUT, "declare a queue", answer).await?;
            Ok(Some(queue))
        }
        Entity::Binding {
            queue,
            exchange,
            key,
        } => {
            let (options, none) = (QueueBindOptions::default(), FieldTable::default());
            let answer = channel.queue_bind(queue, exchange, key, options, none);
            within(STEP_TIMEOUT, "bind a queue", answer).await?;
            Ok(None)
        }
    }
}

/// Takes a queue off an exchange.
pub(super) async fn unbind(
    channel: &Channel,
    queue: ShortString,
    exchange: &str,
    key: ShortString,
) -> Result<(), Failure> {
    let answer = channel.queue_unbind(queue, exchange.into(), key, FieldTable::default());
    within(STEP_TIMEOUT, "unbind a queue", answer).await
}

/// Asks for a queue without making it: how many messages are ready in it, and how many consumers it
/// has. A queue that is not there is an error that ends the channel.
pub(super) async fn look(channel: &Channel, queue: ShortString) -> Result<Queue, Failure> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let answer = channel.queue_declare(queue, options, FieldTable::default());
    within(STEP_TIMEOUT, "look at a queue", answer).await
}

/// Closes a channel that has done its work.
pub(super) async fn close(channel: &Channel) {
    const SUCCESS: u16 = 200;
    let answer = channel.close(SUCCESS, "OK".into());
    // One that does not close ends with its connection.
    let _ = within(STEP_TIMEOUT, "close a channel", answer).await;
}

fn durable_exchange(name: &str, kind: ExchangeKind, pairs: &[(&str, &str)]) -> Entity {
    Entity::Exchange {
        name: name.into(),
        kind,
        durable: true,
        arguments: arguments(pairs),
    }
}

fn durable_queue(name: &str, arguments: FieldTable) -> Entity {
    Entity::Queue {
        name: name.into(),
        exclusive: false,
        arguments,
    }
}

fn quorum(more: &[(&str, &str)]) -> FieldTable {
    let mut table = arguments(more);
    table.insert("x-queue-type".into(), long("quorum"));
    table
}

fn arguments(pairs: &[(&str, &str)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert((*name).into(), long(value));
    }
    table
}

/// RabbitMQ compares arguments with their AMQP type: texts are long strings.
fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}
