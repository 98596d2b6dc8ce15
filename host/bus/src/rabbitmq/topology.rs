//! The exchanges and queues, with their exact arguments (RELIABILITY "RabbitMQ topology").
//!
//! Everything that a message's safety hangs on is in the arguments; what an operator tunes
//! (max-length) is a policy. A declare with other arguments is refused by the broker with 406, so
//! they never change under one name.

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use warren_protocol::WorkerType;

use super::{
    bounded::{Failure, STEP_TIMEOUT, within},
    names::{self, DEAD, Host, JOBS, NOTIFICATIONS, UNROUTED},
};

/// Declares what every host needs: the exchanges, the parking lot and this host's inbox.
pub(super) async fn declare_common(channel: &Channel, host: &Host) -> Result<(), Failure> {
    let alternate = arguments(&[("alternate-exchange", UNROUTED)]);
    exchange(
        channel,
        JOBS,
        ExchangeKind::Direct,
        true,
        FieldTable::default(),
    )
    .await?;
    exchange(
        channel,
        UNROUTED,
        ExchangeKind::Fanout,
        true,
        FieldTable::default(),
    )
    .await?;
    exchange(channel, DEAD, ExchangeKind::Direct, true, alternate).await?;
    queue(channel, UNROUTED.into(), DURABLE, quorum(&[])).await?;
    bind(channel, UNROUTED.into(), UNROUTED, "".into()).await?;
    // Classic: replies are transient, and a quorum write per reply would cost more than the hop.
    let classic = arguments(&[("x-queue-type", "classic")]);
    queue(channel, host.inbox(), DURABLE, classic).await
}

/// Declares the queues of one worker type.
pub(super) async fn declare_type(
    channel: &Channel,
    worker_type: &WorkerType,
) -> Result<(), Failure> {
    let dead_letters = names::dead_letter_queue(worker_type);
    queue(channel, dead_letters.clone(), DURABLE, quorum(&[])).await?;
    bind(channel, dead_letters, DEAD, worker_type.as_str().into()).await?;
    // At-least-once dead-lettering needs reject-publish: with drop-head it silently becomes
    // at-most-once. No delivery limit: clean stops of hosts count as deliveries too.
    let work = quorum(&[
        ("x-dead-letter-exchange", DEAD),
        ("x-dead-letter-routing-key", worker_type.as_str()),
        ("x-dead-letter-strategy", "at-least-once"),
        ("x-overflow", "reject-publish"),
    ]);
    let name = names::work_queue(worker_type);
    queue(channel, name.clone(), DURABLE, work).await?;
    bind(channel, name, JOBS, names::any_worker(worker_type)).await
}

/// Declares MicroServices.js' exchange the way all its parties do.
pub(super) async fn declare_notifications(channel: &Channel) -> Result<(), Failure> {
    let none = FieldTable::default();
    exchange(channel, NOTIFICATIONS, ExchangeKind::Topic, false, none).await
}

/// Declares a queue that lives as long as this connection.
pub(super) async fn declare_exclusive(channel: &Channel, name: ShortString) -> Result<(), Failure> {
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    queue(channel, name, options, FieldTable::default()).await
}

/// Binds a queue to an exchange.
pub(super) async fn bind(
    channel: &Channel,
    queue: ShortString,
    exchange: &str,
    key: ShortString,
) -> Result<(), Failure> {
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    let answer = channel.queue_bind(queue, exchange.into(), key, options, none);
    within(STEP_TIMEOUT, "bind a queue", answer).await
}

const DURABLE: QueueDeclareOptions = QueueDeclareOptions {
    passive: false,
    durable: true,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};

async fn queue(
    channel: &Channel,
    name: ShortString,
    options: QueueDeclareOptions,
    arguments: FieldTable,
) -> Result<(), Failure> {
    let answer = channel.queue_declare(name, options, arguments);
    within(STEP_TIMEOUT, "declare a queue", answer)
        .await
        .map(drop)
}

async fn exchange(
    channel: &Channel,
    name: &str,
    kind: ExchangeKind,
    durable: bool,
    arguments: FieldTable,
) -> Result<(), Failure> {
    let options = ExchangeDeclareOptions {
        durable,
        ..ExchangeDeclareOptions::default()
    };
    let answer = channel.exchange_declare(name.into(), kind, options, arguments);
    within(STEP_TIMEOUT, "declare an exchange", answer).await
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
