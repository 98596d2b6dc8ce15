//! What people do to a broker while hosts use it: queues, exchanges, bindings and permissions go
//! away or are other than expected, and the broker ends a channel or a consumer.

use std::time::{Duration, Instant};

use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::json;
use warren_bus::{Bus, PublishError, RabbitMq, RabbitMqConfig};
use warren_tests::{
    Broker, eventually,
    faults::{Ground, LEDGER, LEDGER_NEXT, Plan, Row, Sent, Who, job, limits, names, prefetch},
    try_within,
};

use crate::{links::through, readiness, secs};

const CONCURRENCY: u16 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f18_a_work_queue_that_is_deleted_comes_back() {
    let mut row = Row::new("F18", "work queue deleted while it is consumed");
    let ground = Ground::new().await;
    let host = ground
        .host("a", [LEDGER], &limits(CONCURRENCY, ""))
        .start()
        .await;
    let mut sent = ground.load(Plan::new("before", 200)).finish().await;
    let checker = ground.checker();
    checker.settle(&sent, secs(30)).await;
    row.check_ok(checker.at_rest(1, prefetch(CONCURRENCY)).await);
    let (bus, _inbox) = bus(&ground.broker);
    let n_times = Row::sized(1, 3);
    let mut slowest = Duration::ZERO;
    for n in 0..n_times {
        ground
            .broker
            .ctl(&["delete_queue", &names::work("FL")])
            .await;
        // The queue is gone for a moment: that is said, and not silence.
        let deleted = Instant::now();
        let key = format!("probe{n}");
        let probe = job(&key, &["FL:*"], json!({}));
        let mut n_unroutable = 0;
        let taken = try_within(secs(30), async || match bus.publish(probe.clone()).await {
            Ok(()) => Some(()),
            Err(PublishError::Unroutable(_)) => {
                n_unroutable += 1;
                None
            }
            Err(error) => panic!("{error}"),
        });
        row.check(
            taken.await.is_some(),
            "nobody takes jobs of the type any more",
        );
        let ran = try_within(secs(30), async || {
            let effects = ground.ledger.effects("FL").await;
            let mut effects = effects.iter();
            effects.any(|run| run.key == key).then(|| deleted.elapsed())
        });
        slowest = slowest.max(ran.await.unwrap_or(secs(60)));
        row.note(format!("told {n_unroutable} times that it is gone"));
        sent.attempted.insert(key.clone());
        sent.acknowledged.insert(key);
        let more = ground
            .load(Plan::new(&format!("after{n}"), 200))
            .finish()
            .await;
        row.check(
            more.refused.is_empty(),
            format!("{:?}", more.refused.first()),
        );
        merge(&mut sent, more);
    }
    row.injected(format!("{n_times} deletions of an empty queue"));
    row.figures(&checker.settle(&sent, secs(30)).await);
    row.allow_duplicates(0);
    row.recovery(slowest, secs(5));
    let log = host.log();
    row.check(
        log.contains(&names::work("FL")) || log.contains("ended the consumer"),
        "the log says nothing",
    );
    bus.close().await;
    row.check_ok(checker.at_rest(1, prefetch(CONCURRENCY)).await);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f19_bindings_and_exchanges_that_are_deleted_come_back() {
    let mut row = Row::new("F19", "binding deleted, exchange deleted");
    let ground = Ground::new().await;
    let host = ground
        .host("a", [LEDGER], &limits(CONCURRENCY, ""))
        .start()
        .await;
    let (connection, channel) = open(&ground.broker).await;
    let (bus, _inbox) = bus(&ground.broker);
    let mut slowest = Duration::ZERO;
    let mut sent = Sent::default();
    for what in ["binding", "exchange"] {
        if what == "binding" {
            let none = FieldTable::default();
            channel
                .queue_unbind(
                    names::work("FL").into(),
                    "warren.v1.jobs".into(),
                    "FL:*".into(),
                    none,
                )
                .await
                .unwrap();
        } else {
            let options = ExchangeDeleteOptions::default();
            channel
                .exchange_delete("warren.v1.jobs".into(), options)
                .await
                .unwrap();
        }
        let gone = Instant::now();
        let key = format!("f19-{what}");
        let message = job(&key, &["FL:*"], json!({}));
        let mut n_unroutable = 0;
        let repaired = try_within(secs(60), async || {
            match bus.publish(message.clone()).await {
                Ok(()) => Some(gone.elapsed()),
                Err(PublishError::Unroutable(_)) => {
                    n_unroutable += 1;
                    None
                }
                Err(_) => None,
            }
        });
        match repaired.await {
            Some(took) => {
                slowest = slowest.max(took);
                sent.acknowledged.insert(key.clone());
                let words = format!(
                    "{what}: {n_unroutable} told unroutable, {:.1} s",
                    took.as_secs_f64()
                );
                row.note(words);
            }
            None => row.check(false, format!("the {what} was not repaired within 60 s")),
        }
        sent.attempted.insert(key);
    }
    let more = ground.load(Plan::new("after", 200)).finish().await;
    merge(&mut sent, more);
    row.injected("1 binding and 1 exchange deleted");
    row.figures(&ground.checker().settle(&sent, secs(30)).await);
    row.allow_duplicates(0);
    row.recovery(slowest, secs(31));
    row.check_ok(ground.checker().at_rest(1, prefetch(CONCURRENCY)).await);
    bus.close().await;
    drop((connection, host));
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f20_a_queue_with_other_arguments_stops_its_type_and_no_other() {
    let mut row = Row::new(
        "F20",
        "work queue of one type exists with other arguments (406)",
    );
    let ground = Ground::new().await;
    let (connection, channel) = open(&ground.broker).await;
    let mut classic = FieldTable::default();
    classic.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("classic".into()),
    );
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(names::work("FM").into(), options, classic)
        .await
        .unwrap();
    one_type_is_ill(&mut row, &ground, None, &["FM", &names::work("FM")]).await;
    row.injected("1 foreign queue");
    drop(connection);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f21_a_permission_that_is_missing_stops_its_type_and_no_other() {
    let mut row = Row::new("F21", "no permission for the queue of one type (403)");
    let ground = Ground::new().await;
    let broker = &ground.broker;
    broker.ctl(&["add_user", "limited", "secret-word"]).await;
    let all_but_fm = r"^(warren\.v1\.(?!q\.FM).*|notifications|polling)$";
    let set = [
        "set_permissions",
        "limited",
        all_but_fm,
        all_but_fm,
        all_but_fm,
    ];
    broker.ctl(&set).await;
    let account = Some("limited:secret-word");
    one_type_is_ill(&mut row, &ground, account, &["FM", &names::work("FM")]).await;
    row.injected("1 user without FM");
    row.finish();
}

/// Starts a host with two types, of which FM cannot be consumed: FL works, FM says why, and the
/// link stays as it is.
async fn one_type_is_ill(row: &mut Row, ground: &Ground, account: Option<&str>, words: &[&str]) {
    let proxy = ground.proxy().await;
    let mut url = proxy.url();
    if let Some(account) = account {
        url = url.replace("guest:guest", account);
    }
    let setup = ground.host("a", [LEDGER, LEDGER_NEXT], &limits(CONCURRENCY, ""));
    let host = setup.with_broker(&url).start_unready().await;
    let checker = ground.checker();
    eventually("FL is consumed", async || {
        let queues = checker.queues().await;
        let mut queues = queues.iter();
        let is_there = queues.any(|queue| queue.name == names::work("FL") && queue.consumers == 1);
        is_there.then_some(())
    })
    .await;
    let mut said = String::new();
    let clear = try_within(secs(10), async || {
        said = host.admin("/readyz").await.text();
        words.iter().all(|word| said.contains(word)).then_some(())
    });
    row.check(
        clear.await.is_some(),
        format!("readiness does not say {words:?}: {said}"),
    );
    row.check(!said.contains("secret-word"), "the password is shown");
    row.note(format!(
        "said: {}",
        said.trim().chars().take(300).collect::<String>()
    ));
    let n_before = proxy.n_accepted();
    let sent = ground
        .load(Plan::new("healthy", 500).rate(60.0))
        .finish()
        .await;
    row.figures(&checker.settle(&sent, secs(30)).await);
    row.allow_duplicates(0);
    let n_again = proxy.n_accepted() - n_before;
    row.check(
        n_again == 0,
        format!("{n_again} connections more while FL worked"),
    );
    row.check(
        proxy.n_connections(Who::All) == n_before,
        "connections have ended",
    );
    row.check_ok(checker.at_rest(1, prefetch(CONCURRENCY)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f22_a_channel_that_a_consumer_timeout_ends_is_built_again() {
    let mut row = Row::new("F22", "consumer timeout (15 s, not 30 min) ends a channel");
    let ground = Ground::new().await;
    let set = |ms: u32| {
        format!(
            "application:set_env(rabbit, consumer_timeout, {ms}), \
             application:set_env(rabbit, channel_tick_interval, 2000)."
        )
    };
    ground.broker.ctl(&["eval", &set(15_000)]).await;
    let proxy = ground.proxy().await;
    let host = through(&ground, &proxy, "a");
    let host = host
        .with_config(&limits(CONCURRENCY, "deadline = \"4m\""))
        .start()
        .await;
    let order = json!({"begin": true, "work_ms": 22_000});
    let mut sent = ground
        .load(Plan::new("long", 1).of(["FL:*"], order))
        .finish()
        .await;
    let begun = Instant::now();
    // The one that is running keeps the channel's time; a new channel has the new one.
    eventually("the long job runs", async || {
        (!ground.ledger.runs("FL").await.is_empty()).then_some(())
    })
    .await;
    ground.broker.ctl(&["eval", &set(600_000)]).await;
    let runs_again = try_within(secs(60), async || {
        let runs = ground.ledger.runs("FL").await;
        (runs.iter().filter(|run| run.phase == "begun").count() > 1).then(|| begun.elapsed())
    });
    let runs_again = runs_again.await;
    row.note(format!("the job ran again after {runs_again:?}"));
    let ended = Instant::now();
    let more = ground.load(Plan::new("after", 200)).finish().await;
    row.check_ok(readiness(&host, true, secs(10)).await);
    let recovered = ended.elapsed();
    merge(&mut sent, more);
    let figures = ground.checker().settle(&sent, secs(90)).await;
    row.injected("1 timeout");
    row.check(runs_again.is_some(), "the broker did not end the channel");
    row.figures(&figures);
    row.allow_duplicates(0);
    row.recovery(recovered, secs(5));
    row.note("recovery: from the second run to 200 further jobs confirmed and a ready host");
    row.check_ok(ground.checker().at_rest(1, prefetch(CONCURRENCY)).await);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f23_a_consumer_that_is_cancelled_loses_nothing_that_runs() {
    let mut row = Row::new("F23", "consumer cancelled by the broker while jobs run");
    let ground = Ground::new().await;
    let host = ground
        .host("a", [LEDGER], &limits(CONCURRENCY, ""))
        .start()
        .await;
    let order = json!({"begin": true, "work_ms": 3000});
    let mut sent = ground
        .load(Plan::new("running", 8).of(["FL:*"], order))
        .finish()
        .await;
    eventually("all of them run", async || {
        (ground.ledger.runs("FL").await.len() == 8).then_some(())
    })
    .await;
    // The queue goes with the messages that the host holds: what runs is all that there is.
    ground
        .broker
        .ctl(&["delete_queue", &names::work("FL")])
        .await;
    let cancelled = Instant::now();
    let checker = ground.checker();
    let again = try_within(secs(60), async || {
        let queues = checker.queues().await;
        let mut queues = queues.iter();
        let is_there = queues.any(|queue| queue.name == names::work("FL") && queue.consumers == 1);
        is_there.then(|| cancelled.elapsed())
    });
    let again = again.await.unwrap_or(secs(60));
    let more = ground.load(Plan::new("after", 200)).finish().await;
    row.check(
        more.refused.is_empty(),
        format!("{:?}", more.refused.first()),
    );
    merge(&mut sent, more);
    row.injected("1 cancellation with 8 jobs running");
    row.figures(&checker.settle(&sent, secs(30)).await);
    row.allow_duplicates(0);
    row.recovery(again, secs(7));
    row.note("recovery: to the next consumer, seen with rabbitmqctl (2 s a look)");
    row.check_ok(checker.at_rest(1, prefetch(CONCURRENCY)).await);
    drop(host);
    row.finish();
}

fn merge(sent: &mut Sent, more: Sent) {
    sent.attempted.extend(more.attempted);
    sent.acknowledged.extend(more.acknowledged);
    sent.republished += more.republished;
}

fn bus(broker: &Broker) -> (RabbitMq, warren_bus::Inbox) {
    RabbitMq::connect(RabbitMqConfig::new(vec![broker.url()], "caller")).unwrap()
}

async fn open(broker: &Broker) -> (Connection, Channel) {
    let properties = ConnectionProperties::default();
    let connection = Connection::connect(&broker.url(), properties)
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}
