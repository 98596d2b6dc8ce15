//! What a RabbitMQ cluster does when a node is gone: the facts that Warren's behaviour rests on
//! (RELIABILITY "What is lost / duplicated"). No host takes part: where one of these fails, RabbitMQ
//! has changed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::time::{sleep, timeout};
use warren_tests::{Cluster, Cut, eventually};

use crate::secs;

const JOBS: &str = "jobs";
/// A node's silence is noticed within about 22 s.
const LIMIT: Duration = Duration::from_secs(40);
const DURABLE: QueueDeclareOptions = QueueDeclareOptions {
    passive: false,
    durable: true,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};
const EXCLUSIVE: QueueDeclareOptions = QueueDeclareOptions {
    passive: false,
    durable: false,
    exclusive: true,
    auto_delete: false,
    nowait: false,
};

type Step = BoxFuture<'static, lapin::Result<()>>;

/// What the broker said of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Confirmed,
    Returned,
    Refused,
    Silence,
}

/// So a job by id, and a reply, are told from lost ones; and so the inbox of a host is drawn again.
/// The old one must then be unbound: its bindings come back with its node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: tests/faults runs it"]
async fn a_classic_queue_without_its_node_is_not_found_and_comes_back_with_its_bindings() {
    let mut cluster = Cluster::start().await;
    let here = connect(&cluster, 0).await;
    let home = connect(&cluster, 2).await;
    declare(&home, "inbox", "classic", &["id-1"]).await;
    let lock = home.create_channel().await.unwrap();
    let locked = lock.queue_declare("lock".into(), EXCLUSIVE, FieldTable::default());
    locked.await.unwrap();
    let publisher = confirming(&here).await;
    assert_eq!(publish(&publisher, "id-1").await, Answer::Confirmed);

    for is_killed in [true, false] {
        if is_killed {
            cluster.kill(2).await;
            // The lock of a holder on that node is free at once.
            let lock = here.create_channel().await.unwrap();
            let locked = lock.queue_declare("lock".into(), EXCLUSIVE, FieldTable::default());
            locked.await.unwrap();
        } else {
            cluster.stop(2).await;
        }
        not_found(&here).await;
        assert_eq!(publish(&publisher, "id-1").await, Answer::Returned);

        cluster.start_again().await;
        eventually("the queue is back", async || {
            let channel = here.create_channel().await.unwrap();
            let declared = channel.queue_declare("inbox".into(), DURABLE, of_type("classic"));
            declared
                .await
                .ok()
                .filter(|queue| queue.message_count() > 0)
        })
        .await;
        assert_eq!(publish(&publisher, "id-1").await, Answer::Confirmed);
    }
    assert_eq!(n_messages(&here, "inbox").await, Some(3));
}

/// Nothing that the broker confirms is lost with its node; what it refuses may be there all the
/// same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: tests/faults runs it"]
async fn a_classic_queue_confirms_nothing_that_it_does_not_keep() {
    let mut cluster = Cluster::start().await;
    let here = connect(&cluster, 0).await;
    for (round, pause) in [("stop", 0), ("kill", 0), ("silence", 10)] {
        let home = connect(&cluster, 2).await;
        declare(&home, round, "classic", &[round]).await;
        let flood = Flood::start(&here, round, Duration::from_millis(pause)).await;
        sleep(secs(2)).await;
        match round {
            "stop" => cluster.stop(2).await,
            "kill" => cluster.kill(2).await,
            _ => cluster.cut(Cut::Unplugged(2)),
        }
        sleep(secs(if round == "silence" { 30 } else { 1 })).await;
        let counts = flood.finish().await;
        if round == "silence" {
            cluster.heal(Cut::Unplugged(2));
        } else {
            cluster.start_again().await;
        }
        let n = eventually("the queue is back", async || n_messages(&here, round).await).await;
        let n_of = |answer| counts.get(&answer).map_or(0, |(n, _)| *n);
        assert_eq!(n_of(Answer::Silence), 0, "{round}: {counts:?}");
        assert!(n_of(Answer::Returned) > 0, "{round}: {counts:?}");
        assert!(n_of(Answer::Confirmed) > 0, "{round}: {counts:?}");
        assert!(
            n as usize >= n_of(Answer::Confirmed),
            "{round}: {n} kept; {counts:?}"
        );
    }
}

/// So a stream beside the dead letters costs publishers seconds when its node dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: tests/faults runs it"]
async fn quorum_queues_and_streams_confirm_without_the_node_that_led_them() {
    let mut cluster = Cluster::start().await;
    declare_both(&cluster).await;
    for queue in ["stream", "quorum"] {
        let leader = cluster.leader_of(queue).await;
        let here = connect(&cluster, (leader + 1) % 3).await;
        let flood = Flood::start(&here, "both", Duration::from_millis(5)).await;
        sleep(secs(1)).await;
        cluster.kill(leader).await;
        sleep(secs(12)).await;
        let counts = flood.finish().await;
        cluster.start_again().await;
        let stall = all_confirmed(&counts);
        eprintln!("the leader of the {queue} killed: the longest confirm took {stall:?}");
        assert!(
            stall < secs(10),
            "{queue}: the longest confirm took {stall:?}"
        );
    }
}

/// A quorum queue has a new leader within seconds (`aten` watches it). A stream waits until the
/// nodes give each other up (`net_ticktime`), and with it whatever is published to both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: tests/faults runs it"]
async fn a_silent_node_holds_up_its_streams_for_longer_than_its_quorum_queues() {
    let cluster = Cluster::start().await;
    declare_both(&cluster).await;
    let leader = cluster.leader_of("stream").await;
    assert_eq!(cluster.leader_of("quorum").await, leader);
    let here = connect(&cluster, (leader + 1) % 3).await;
    // A channel that waits for a stream soon stops its whole connection: each has its own.
    let alone = connect(&cluster, (leader + 1) % 3).await;
    let quorum = Flood::start(&alone, "alone", Duration::from_millis(5)).await;
    let both = Flood::start(&here, "both", Duration::from_millis(5)).await;
    sleep(secs(1)).await;
    cluster.cut(Cut::Unplugged(leader));
    sleep(secs(30)).await;
    let (quorum, both) = (
        all_confirmed(&quorum.finish().await),
        all_confirmed(&both.finish().await),
    );
    cluster.heal(Cut::Unplugged(leader));
    eprintln!("the longest confirm: {quorum:?} of a quorum queue, {both:?} of a stream too");
    assert!(quorum < secs(10), "{quorum:?}");
    assert!(both < secs(35), "{both:?}");
}

/// Both on the same node, which leads them.
async fn declare_both(cluster: &Cluster) {
    let home = connect(cluster, 2).await;
    declare(&home, "quorum", "quorum", &["both", "alone"]).await;
    declare(&home, "stream", "stream", &["both"]).await;
}

/// The longest that a confirm took.
#[track_caller]
fn all_confirmed(counts: &BTreeMap<Answer, (usize, Duration)>) -> Duration {
    let is_all_confirmed = counts.keys().all(|answer| *answer == Answer::Confirmed);
    assert!(is_all_confirmed, "{counts:?}");
    counts[&Answer::Confirmed].1
}

/// Every step with the queue `inbox` is answered with 404 at once, on a channel of its own.
async fn not_found(connection: &Connection) {
    let none = FieldTable::default;
    let inbox = || "inbox".into();
    let passive = QueueDeclareOptions {
        passive: true,
        ..DURABLE
    };
    let check = async |step: &str, take: &dyn Fn(Channel) -> Step| {
        let channel = connection.create_channel().await.unwrap();
        let answer = timeout(secs(2), take(channel)).await;
        let error = answer.expect("an answer at once").unwrap_err().to_string();
        let is_told = error.contains("NOT_FOUND") && error.contains("is down or inaccessible");
        assert!(is_told, "{step}: {error}");
    };
    check("declare", &|channel| {
        async move {
            channel
                .queue_declare(inbox(), DURABLE, of_type("classic"))
                .await
                .map(drop)
        }
        .boxed()
    })
    .await;
    check("declare passively", &|channel| {
        async move {
            channel
                .queue_declare(inbox(), passive, none())
                .await
                .map(drop)
        }
        .boxed()
    })
    .await;
    check("bind", &|channel| {
        let (key, options) = ("id-1".into(), QueueBindOptions::default());
        async move {
            channel
                .queue_bind(inbox(), JOBS.into(), key, options, none())
                .await
        }
        .boxed()
    })
    .await;
    check("unbind", &|channel| {
        let key = "id-1".into();
        async move {
            channel
                .queue_unbind(inbox(), JOBS.into(), key, none())
                .await
        }
        .boxed()
    })
    .await;
    check("consume", &|channel| {
        let (tag, options) = ("tag".into(), BasicConsumeOptions::default());
        async move {
            channel
                .basic_consume(inbox(), tag, options, none())
                .await
                .map(drop)
        }
        .boxed()
    })
    .await;
    check("delete", &|channel| {
        let options = QueueDeleteOptions::default();
        async move { channel.queue_delete(inbox(), options).await.map(drop) }.boxed()
    })
    .await;
}

async fn connect(cluster: &Cluster, node: usize) -> Connection {
    let url = cluster.url(node);
    Connection::connect(&url, ConnectionProperties::default())
        .await
        .unwrap()
}

async fn confirming(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.unwrap();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    channel
}

async fn declare(connection: &Connection, queue: &str, queue_type: &str, keys: &[&str]) {
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

fn of_type(queue_type: &str) -> FieldTable {
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

async fn n_messages(connection: &Connection, queue: &str) -> Option<u32> {
    let channel = connection.create_channel().await.unwrap();
    let passive = QueueDeclareOptions {
        passive: true,
        ..DURABLE
    };
    let declared = channel.queue_declare(queue.into(), passive, FieldTable::default());
    declared.await.ok().map(|queue| queue.message_count())
}

async fn publish(channel: &Channel, key: &str) -> Answer {
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
struct Flood {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<BTreeMap<Answer, (usize, Duration)>>,
}

impl Flood {
    async fn start(connection: &Connection, key: &'static str, pause: Duration) -> Self {
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
    async fn finish(self) -> BTreeMap<Answer, (usize, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}
