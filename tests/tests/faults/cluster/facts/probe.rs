//! Publishers without Warren, which write down what the broker said of each publish.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::time::{sleep, timeout};
use warren_tests::Cluster;

pub(super) const JOBS: &str = "jobs";
/// A node's silence is noticed within about 22 s.
const LIMIT: Duration = Duration::from_secs(40);
pub(super) const DURABLE: QueueDeclareOptions = QueueDeclareOptions {
    passive: false,
    durable: true,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};
pub(super) const EXCLUSIVE: QueueDeclareOptions = QueueDeclareOptions {
    passive: false,
    durable: false,
    exclusive: true,
    auto_delete: false,
    nowait: false,
};

/// What the broker said of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    Confirmed,
    Returned,
    Refused,
    Silence,
}

pub(super) async fn connect(cluster: &Cluster, node: usize) -> Connection {
    let url = cluster.url(node);
    Connection::connect(&url, ConnectionProperties::default())
        .await
        .unwrap()
}

pub(super) async fn confirming(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.unwrap();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    channel
}

pub(super) async fn declare(connection: &Connection, queue: &str, queue_type: &str, keys: &[&str]) {
    let channel = connection.create_channel().await.unwrap();
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let none = FieldTable::default;
    let declared = channel.exchange_declare(JOBS.into(), ExchangeKind::Direct, options, none());
    declared.await.unwrap();
    let declared = channel.queue_declare(queue.into(), DURABLE, of_type(queue_type));
    declared.await.unwrap();
    for key in keys {
        let (key, options) = ((*key).into(), QueueBindOptions::default());
        let bound = channel.queue_bind(queue.into(), JOBS.into(), key, options, none());
        bound.await.unwrap();
    }
}

pub(super) fn of_type(queue_type: &str) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert(
        "x-queue-type".into(),
        AMQPValue::LongString(queue_type.into()),
    );
    if queue_type == "stream" {
        table.insert("x-max-age".into(), AMQPValue::LongString("30D".into()));
    }
    table
}

pub(super) async fn n_messages(connection: &Connection, queue: &str) -> Option<u32> {
    let channel = connection.create_channel().await.unwrap();
    let passive = QueueDeclareOptions {
        passive: true,
        ..DURABLE
    };
    let declared = channel.queue_declare(queue.into(), passive, FieldTable::default());
    declared.await.ok().map(|queue| queue.message_count())
}

pub(super) async fn publish(channel: &Channel, key: &str) -> Answer {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let properties = BasicProperties::default().with_delivery_mode(2);
    let body = [b'x'; 300];
    let sent = channel.basic_publish(JOBS.into(), key.into(), options, &body, properties);
    answer(sent.await.unwrap()).await
}

async fn answer(confirm: lapin::PublisherConfirm) -> Answer {
    match timeout(LIMIT, confirm).await {
        Ok(Ok(Confirmation::Ack(None))) => Answer::Confirmed,
        Ok(Ok(Confirmation::Ack(Some(_)))) => Answer::Returned,
        Ok(Ok(Confirmation::Nack(_))) => Answer::Refused,
        _ => Answer::Silence,
    }
}

/// Publishes that do not wait for each other.
pub(super) struct Flood {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<BTreeMap<Answer, (usize, Duration)>>,
}

impl Flood {
    pub(super) async fn start(connection: &Connection, key: &'static str, pause: Duration) -> Self {
        let channel = confirming(connection).await;
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = stop.clone();
        let task = tokio::spawn(async move {
            let mut publishes = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let channel = channel.clone();
                publishes.push(tokio::spawn(async move {
                    let since = Instant::now();
                    (publish(&channel, key).await, since.elapsed())
                }));
                // As fast as it goes is some 10 in a millisecond.
                if !pause.is_zero() || publishes.len() % 10 == 0 {
                    sleep(pause.max(Duration::from_millis(1))).await;
                }
            }
            let mut counts = BTreeMap::new();
            for publish in publishes {
                let (answer, took) = publish.await.unwrap();
                let (n, longest) = counts.entry(answer).or_insert((0, Duration::ZERO));
                *n += 1;
                *longest = took.max(*longest);
            }
            counts
        });
        Self { stop, task }
    }

    /// How many got each answer, and the longest that it took.
    pub(super) async fn finish(self) -> BTreeMap<Answer, (usize, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}
