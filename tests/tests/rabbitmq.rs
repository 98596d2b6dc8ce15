//! The RabbitMQ bus under what happens to a broker: it is not there yet, restarts, refuses, and has
//! queues of its own mind; and what others see of us on it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::sync::Mutex;
use warren_bus::{
    Bus, ConfigError, Health, Inbox, Kind, Message, PublishError, RabbitMq, RabbitMqConfig,
};
use warren_protocol::{Address, Encoding, WorkerId, WorkerType};
use warren_tests::{Broker, broker, eventually, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_starts_before_its_broker_works_when_the_broker_is_there() {
    let mut broker = Broker::start().await;
    broker.stop().await;
    let (bus, _inbox) = connect(&broker.url());
    let worker = new_worker();
    let mut jobs = bus.join(&worker, 10).await.unwrap();
    let problem = health(&bus, |health| health.problem.is_some())
        .await
        .problem
        .unwrap();
    let told = problem.contains("cannot use the broker") || problem.contains("not been reached");
    assert!(told, "{problem}");
    broker.start_again().await;
    consuming(&bus, &worker).await;
    bus.publish(job(&worker, "x")).await.unwrap();
    soon("a job", jobs.recv())
        .await
        .unwrap()
        .ack()
        .await
        .unwrap();
    bus.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_broker_under_load_loses_no_job() {
    const N_JOBS: usize = 500;
    let mut broker = Broker::start().await;
    let (bus, _inbox) = connect(&broker.url());
    let bus = Arc::new(bus);
    connected(&bus).await;
    let worker = new_worker();
    let mut jobs = bus.join(&worker, 20).await.unwrap();
    let done = Arc::new(Mutex::new(BTreeSet::new()));
    let ran = Arc::clone(&done);
    let runner = tokio::spawn(async move {
        while let Some(delivery) = jobs.recv().await {
            let id = delivery.message.id.clone();
            // What could not be acknowledged is run again: at least once.
            if delivery.ack().await.is_ok() {
                ran.lock().await.insert(id);
            }
        }
    });
    let (sender, to_publish) = (Arc::clone(&bus), worker.clone());
    let publisher = tokio::spawn(async move {
        let mut confirmed = BTreeSet::new();
        for n in 0..N_JOBS {
            let message = job(&to_publish, n.to_string());
            // As a caller does: the same message, the same id, until it is safe.
            soon("a confirm", async {
                while let Err(error) = sender.publish(message.clone()).await {
                    assert!(error.is_retryable(), "{error}");
                }
            })
            .await;
            confirmed.insert(message.id);
        }
        confirmed
    });
    eventually("a fifth of the load is done", async || {
        (done.lock().await.len() > N_JOBS / 5).then_some(())
    })
    .await;
    broker.stop().await;
    health(&bus, |health| !health.connected).await;
    broker.start_again().await;
    let confirmed = soon("the load is published", publisher).await.unwrap();
    assert_eq!(confirmed.len(), N_JOBS);
    eventually("every job has run", async || {
        confirmed.is_subset(&*done.lock().await).then_some(())
    })
    .await;
    bus.close().await;
    soon("the runner ends", runner).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_fails_a_publish_in_time_and_cancels_what_runs() {
    let mut broker = Broker::start().await;
    let mut config = RabbitMqConfig::new(vec![broker.url()], host_name());
    config.publish_timeout = Duration::from_millis(500);
    let (bus, _inbox) = RabbitMq::connect(config).unwrap();
    connected(&bus).await;
    let worker = new_worker();
    let mut jobs = bus.join(&worker, 1).await.unwrap();
    // The first publish opens its channel, which takes longer than the next ones.
    eventually("a job is stored", async || {
        bus.publish(job(&worker, "x")).await.ok()
    })
    .await;
    let running = soon("a job", jobs.recv()).await.unwrap();
    broker.kill().await;
    soon("the run is told", running.lost.cancelled()).await;
    assert!(running.ack().await.is_err());
    let refused = bus.publish(job(&worker, "y")).await.unwrap_err();
    assert!(matches!(refused, PublishError::Unavailable(_)), "{refused}");
    assert!(refused.is_retryable());
    // Back again, the job that nobody could acknowledge is there.
    broker.start_again().await;
    let again = soon("the job again", jobs.recv()).await.unwrap();
    assert!(again.redelivered);
    again.ack().await.unwrap();
    bus.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_explained_without_showing_it() {
    let url = broker::shared()
        .await
        .replace("guest:guest@", "guest:hunter2@");
    let (bus, _inbox) = connect(&url);
    assert!(!format!("{bus:?}").contains("hunter2"));
    let refused = |health: &Health| {
        let problem = health.problem.as_deref().unwrap_or_default();
        problem.contains("check the password of `guest`")
    };
    let problem = health(&bus, refused).await.problem.unwrap();
    assert!(!problem.contains("hunter2"), "{problem}");
    assert!(problem.contains("trying on"), "{problem}");
    bus.close().await;
}

#[tokio::test]
async fn a_url_that_cannot_be_read_is_refused_at_once() {
    let config = RabbitMqConfig::new(vec!["http://guest:hunter2@localhost".to_owned()], "host");
    let error = RabbitMq::connect(config).map(drop).unwrap_err();
    assert!(matches!(error, ConfigError::Url { number: 1, .. }));
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_other_arguments_stops_its_own_type_only() {
    let url = broker::shared().await;
    let (bad, good) = (new_worker(), new_worker());
    let tap = channel(&url).await;
    let queue = format!("warren.v1.q.{}", bad.worker_type());
    declare_queue(&tap, &queue, &[("x-queue-type", "classic")]).await;
    let (bus, _inbox) = connect(&url);
    connected(&bus).await;
    let mut bad_jobs = bus.join(&bad, 1).await.unwrap();
    let mut good_jobs = bus.join(&good, 1).await.unwrap();
    let named = |health: &Health| {
        let problem = health.problem.as_deref().unwrap_or_default();
        problem.contains(&queue) && problem.contains("delete")
    };
    let state = health(&bus, named).await;
    assert!(state.connected);
    assert_eq!(state.consuming, vec![good.worker_type().clone()]);
    bus.publish(job(&good, "x")).await.unwrap();
    soon("a job", good_jobs.recv())
        .await
        .unwrap()
        .ack()
        .await
        .unwrap();
    // The operator does as the problem says, and nobody has to restart anything.
    tap.queue_delete(
        queue.as_str().into(),
        lapin::options::QueueDeleteOptions::default(),
    )
    .await
    .unwrap();
    consuming(&bus, &bad).await;
    assert_eq!(
        health(&bus, |health| health.problem.is_none())
            .await
            .consuming
            .len(),
        2
    );
    bus.publish(job(&bad, "y")).await.unwrap();
    soon("a job", bad_jobs.recv())
        .await
        .unwrap()
        .ack()
        .await
        .unwrap();
    bus.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_deleted_is_made_again() {
    let url = broker::shared().await;
    let (bus, _inbox) = connect(&url);
    connected(&bus).await;
    let worker = new_worker();
    let mut jobs = bus.join(&worker, 1).await.unwrap();
    let queue = format!("warren.v1.q.{}", worker.worker_type());
    let options = lapin::options::QueueDeleteOptions::default();
    channel(&url)
        .await
        .queue_delete(queue.into(), options)
        .await
        .unwrap();
    eventually("jobs are taken again", async || {
        bus.publish(job(&worker, "x")).await.ok()
    })
    .await;
    soon("a job", jobs.recv())
        .await
        .unwrap()
        .ack()
        .await
        .unwrap();
    bus.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_are_announced_as_a_node_peer_announces_itself() {
    let url = broker::shared().await;
    let mut tap = Tap::open(&url).await;
    let (bus, _inbox) = connect(&url);
    connected(&bus).await;
    let (first, second) = (new_worker(), new_worker());
    let expected = |worker: &WorkerId| {
        let worker_type = worker.worker_type();
        format!(r#"{{"id":"{worker}","type":"{worker_type}"}}"#)
    };
    let _first_jobs = bus.join(&first, 1).await.unwrap();
    assert_eq!(
        tap.next_about(&first).await,
        ("worker.new.resend".to_owned(), expected(&first))
    );
    let _second_jobs = bus.join(&second, 1).await.unwrap();
    tap.next_about(&second).await;

    tap.say("worker.getAll", b"Hi workers, tell me who's online")
        .await;
    assert_eq!(
        tap.next_about(&first).await,
        ("worker.new.resend".to_owned(), expected(&first))
    );

    bus.leave(&first).await;
    assert_eq!(
        tap.next_about(&first).await,
        ("worker.del".to_owned(), expected(&first))
    );

    // Who has left is not there any more.
    tap.say("worker.getAll", b"Hi workers, tell me who's online")
        .await;
    assert_eq!(tap.next_about(&second).await.0, "worker.new.resend");
    assert_eq!(tap.next_about(&second).await.0, "worker.new.resend");
    bus.close().await;
    assert_eq!(
        tap.next_about(&second).await,
        ("worker.del".to_owned(), expected(&second))
    );
    let after_goodbye = tap
        .unread
        .iter()
        .find(|(_, body)| body.contains(first.as_str()));
    assert_eq!(after_goodbye, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topology_has_the_agreed_arguments() {
    let url = broker::shared().await;
    let host = host_name();
    let config = RabbitMqConfig::new(vec![url.clone()], host.clone());
    let (bus, _inbox) = RabbitMq::connect(config).unwrap();
    connected(&bus).await;
    let worker = new_worker();
    let _jobs = bus.join(&worker, 1).await.unwrap();
    let worker_type = worker.worker_type().as_str();
    // A declare with other arguments than the existing ones is refused, and ends the channel.
    let tap = channel(&url).await;
    declare_exchange(&tap, "warren.v1.jobs", ExchangeKind::Direct, true, &[]).await;
    declare_exchange(&tap, "warren.v1.unrouted", ExchangeKind::Fanout, true, &[]).await;
    let alternate = [("alternate-exchange", "warren.v1.unrouted")];
    declare_exchange(
        &tap,
        "warren.v1.dead",
        ExchangeKind::Direct,
        true,
        &alternate,
    )
    .await;
    declare_exchange(&tap, "notifications", ExchangeKind::Topic, false, &[]).await;
    let quorum = ("x-queue-type", "quorum");
    declare_queue(&tap, "warren.v1.unrouted", &[quorum]).await;
    declare_queue(&tap, &format!("warren.v1.dlq.{worker_type}"), &[quorum]).await;
    let work = [
        quorum,
        ("x-dead-letter-exchange", "warren.v1.dead"),
        ("x-dead-letter-routing-key", worker_type),
        ("x-dead-letter-strategy", "at-least-once"),
        ("x-overflow", "reject-publish"),
    ];
    declare_queue(&tap, &format!("warren.v1.q.{worker_type}"), &work).await;
    let inbox = format!("warren.v1.in.{host}");
    declare_queue(&tap, &inbox, &[("x-queue-type", "classic")]).await;
    bus.close().await;
    // A host that stops for good leaves no inbox behind.
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let gone = tap
        .queue_declare(inbox.into(), passive, FieldTable::default())
        .await;
    assert!(gone.unwrap_err().to_string().contains("404") || !tap.status().connected());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_publishes_at_once_each_get_their_own_answer() {
    let (bus, _inbox) = connect(&broker::shared().await);
    connected(&bus).await;
    let (known, unknown) = (new_worker(), new_worker());
    let _jobs = bus.join(&known, 1000).await.unwrap();
    for round in 0..5 {
        let publishes = (0..64).map(|n| {
            let worker = if n % 3 == 0 { &unknown } else { &known };
            bus.publish(job(worker, n.to_string()))
        });
        for (n, answer) in join_all(publishes).await.into_iter().enumerate() {
            let refused = matches!(answer, Err(PublishError::Unroutable(_)));
            assert_eq!(
                refused,
                n % 3 == 0,
                "round {round}, publish {n}: {answer:?}"
            );
            assert_eq!(answer.is_ok(), n % 3 != 0, "round {round}, publish {n}");
        }
    }
    bus.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_with_its_own_error() {
    let broker = Broker::start().await;
    let limit = r#"{"max-length":5}"#;
    broker
        .ctl(&[
            "set_policy",
            "full",
            r"^warren\.v1\.q\.",
            limit,
            "--apply-to",
            "queues",
        ])
        .await;
    let (bus, _inbox) = connect(&broker.url());
    connected(&bus).await;
    let worker = new_worker();
    let _jobs = bus.join(&worker, 1).await.unwrap();
    // A quorum queue notices that it is full a little late.
    let refused = eventually("the queue is full", async || {
        bus.publish(job(&worker, "x")).await.err()
    });
    let refused = refused.await;
    assert!(matches!(&refused, PublishError::QueueFull(_)), "{refused}");
    bus.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_of_the_broker_is_told_and_acknowledgements_go_on() {
    let broker = Broker::start().await;
    let (bus, _inbox) = connect(&broker.url());
    connected(&bus).await;
    let worker = new_worker();
    let mut jobs = bus.join(&worker, 10).await.unwrap();
    bus.publish(job(&worker, "before")).await.unwrap();
    let waiting = new_worker();
    drop(bus.join(&waiting, 1).await.unwrap());
    bus.leave(&waiting).await;
    bus.publish(job(&waiting, "waits")).await.unwrap();
    broker.ctl(&["set_vm_memory_high_watermark", "0"]).await;
    let (blocked, told) = tokio::join!(bus.publish(job(&worker, "meanwhile")), async {
        let told = health(&bus, |health| !health.connected).await;
        let before = soon("a job", jobs.recv()).await.unwrap();
        before.ack().await.unwrap();
        // A host that comes now takes what waits: that is what ends alarms.
        let (late, _inbox) = connect(&broker.url());
        let mut jobs = late.join(&waiting, 1).await.unwrap();
        let waits = soon("a job that waited", jobs.recv()).await.unwrap();
        waits.ack().await.unwrap();
        broker.ctl(&["set_vm_memory_high_watermark", "0.6"]).await;
        told
    });
    assert!(
        told.problem
            .unwrap()
            .contains("memory or disk alarm on the broker")
    );
    // How long the alarm lasts is up to the machine: longer than the timeout, or not.
    assert!(
        matches!(blocked, Ok(()) | Err(PublishError::Unavailable(_))),
        "{blocked:?}"
    );
    connected(&bus).await;
    bus.publish(job(&worker, "after")).await.unwrap();
    bus.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_a_foreign_client_is_read_liberally() {
    let url = broker::shared().await;
    let (bus, _inbox) = connect(&url);
    connected(&bus).await;
    let worker = new_worker();
    let mut jobs = bus.join(&worker, 1).await.unwrap();
    let key = format!("{}:*", worker.worker_type());
    let options = BasicPublishOptions::default();
    let bare = BasicProperties::default();
    channel(&url)
        .await
        .basic_publish("warren.v1.jobs".into(), key.into(), options, b"{}", bare)
        .await
        .unwrap();
    let delivery = soon("a job", jobs.recv()).await.unwrap();
    let message = &delivery.message;
    assert_eq!((message.attempt, message.kind), (1, Kind::Job));
    assert_eq!(
        (message.encoding, &message.body[..]),
        (Encoding::Json, &b"{}"[..])
    );
    assert!(!message.id.is_empty());
    delivery.ack().await.unwrap();
    bus.close().await;
}

/// Hears and says things on `notifications`, as any peer can.
struct Tap {
    channel: Channel,
    consumer: Consumer,
    unread: Vec<(String, String)>,
}

impl Tap {
    async fn open(url: &str) -> Self {
        let channel = channel(url).await;
        declare_exchange(&channel, "notifications", ExchangeKind::Topic, false, &[]).await;
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel
            .queue_declare("".into(), options, FieldTable::default())
            .await
            .unwrap();
        let (queue, all) = (queue.name().clone(), "worker.#".into());
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        channel
            .queue_bind(
                queue.clone(),
                "notifications".into(),
                all,
                options,
                none.clone(),
            )
            .await
            .unwrap();
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consumer = channel
            .basic_consume(queue, "tap".into(), options, none)
            .await
            .unwrap();
        Self {
            channel,
            consumer,
            unread: Vec::new(),
        }
    }

    /// The next announcement about a worker: its key and its body.
    async fn next_about(&mut self, worker: &WorkerId) -> (String, String) {
        loop {
            let is_about = |heard: &(String, String)| heard.1.contains(worker.as_str());
            if let Some(place) = self.unread.iter().position(is_about) {
                return self.unread.remove(place);
            }
            let heard = soon("an announcement", self.consumer.next())
                .await
                .unwrap()
                .unwrap();
            if heard.routing_key.as_str() != "worker.getAll" {
                // As every party publishes: an empty table of headers, and nothing else that it sees.
                let bare = BasicProperties::default().with_headers(FieldTable::default());
                assert_eq!(heard.properties, bare.with_app_id("warren".into()));
            }
            let body = String::from_utf8(heard.data).unwrap();
            self.unread.push((heard.routing_key.to_string(), body));
        }
    }

    async fn say(&self, key: &str, body: &[u8]) {
        let options = BasicPublishOptions::default();
        let bare = BasicProperties::default();
        self.channel
            .basic_publish("notifications".into(), key.into(), options, body, bare)
            .await
            .unwrap();
    }
}

fn connect(url: &str) -> (RabbitMq, Inbox) {
    RabbitMq::connect(RabbitMqConfig::new(vec![url.to_owned()], host_name())).unwrap()
}

async fn connected(bus: &RabbitMq) {
    health(bus, |health| health.connected).await;
}

async fn consuming(bus: &RabbitMq, worker: &WorkerId) {
    health(bus, |health| {
        health.consuming.contains(worker.worker_type())
    })
    .await;
}

async fn health(bus: &RabbitMq, is: impl Fn(&Health) -> bool) -> Health {
    let mut watched = bus.health();
    let health = soon("a change of the bus's health", watched.wait_for(is)).await;
    health.unwrap().clone()
}

async fn channel(url: &str) -> Channel {
    let connection = Connection::connect(url, ConnectionProperties::default());
    connection.await.unwrap().create_channel().await.unwrap()
}

async fn declare_queue(channel: &Channel, name: &str, arguments: &[(&str, &str)]) {
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(name.into(), options, table(arguments))
        .await
        .unwrap();
}

async fn declare_exchange(
    channel: &Channel,
    name: &str,
    kind: ExchangeKind,
    durable: bool,
    arguments: &[(&str, &str)],
) {
    let options = ExchangeDeclareOptions {
        durable,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(name.into(), kind, options, table(arguments))
        .await
        .unwrap();
}

fn table(arguments: &[(&str, &str)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    table
}

fn host_name() -> String {
    new_worker().worker_type().to_string()
}

/// A worker of a type that no other test has.
fn new_worker() -> WorkerId {
    let digits = WorkerId::draw(&WorkerType::new("T").unwrap());
    let name = digits.as_str().replace(':', "");
    WorkerId::draw(&WorkerType::new(&name).unwrap())
}

fn job(worker: &WorkerId, body: impl Into<Vec<u8>>) -> Message {
    Message::new(
        new_worker().to_string(),
        Address::Any(worker.worker_type().clone()),
        Encoding::Json,
        body.into().into(),
    )
}
