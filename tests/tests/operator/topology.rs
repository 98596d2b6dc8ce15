//! The topology, checked, planned, applied and pruned.

use lapin::{
    ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};
use serde_json::json;
use warren_protocol::Encoding;
use warren_tests::{Broker, broker};

use crate::bench::{Bench, id_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_told_planned_and_declared() {
    let bench = Bench::bare(&broker::shared().await).await;
    let own = bench.own.clone();
    let check = format!("topology check --type {own}");
    let checked = bench.warren(&check).await.ended_with(1).text();
    for part in [
        &format!("missing  queue {}", bench.queue("q")),
        &format!("missing  queue {}", bench.queue("dlq")),
        &format!("warren topology apply --type {own}"),
        "rabbitmqctl list_bindings -p /",
        "rabbitmqctl list_policies -p /",
    ] {
        assert!(checked.contains(part), "{part:?} is not in {checked}");
    }
    let planned = bench
        .warren(&format!("topology plan --type {own}"))
        .await
        .ended_with(0);
    let would = format!("would declare queue {}", bench.queue("q"));
    assert!(planned.text().contains(&would), "{}", planned.text());
    // Neither has changed anything.
    assert_eq!(bench.n_ready(&bench.queue("q")).await, None);
    assert_eq!(bench.n_ready(&bench.queue("dlq")).await, None);

    let applied = bench
        .warren(&format!("topology apply --type {own}"))
        .await
        .ended_with(0);
    let declared = format!("declared queue {}", bench.queue("q"));
    assert!(applied.text().contains(&declared), "{}", applied.text());
    bench.warren(&check).await.ended_with(0);
    // The bindings, too: a dead letter arrives, and a replayed one.
    bench.bury_many(1).await;
    bench
        .warren(&format!("dlq replay {own}"))
        .await
        .ended_with(0);
    assert_eq!(bench.n_ready(&bench.queue("q")).await, Some(1));
    let again = bench
        .warren(&format!("topology apply --type {own}"))
        .await
        .ended_with(0);
    assert!(
        again.text().contains("declared 0 exchanges and queues"),
        "{}",
        again.text()
    );
    assert_eq!(bench.n_ready(&bench.queue("q")).await, Some(1));
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_other_arguments_is_told_in_the_brokers_words_and_mended_as_told() {
    let bench = Bench::bare(&broker::shared().await).await;
    let own = bench.own.clone();
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let channel = bench.channel().await;
    let none = FieldTable::default();
    channel
        .queue_declare(bench.queue("q").into(), durable, none)
        .await
        .unwrap();
    for command in ["check", "plan", "apply"] {
        let command = format!("topology {command} --type {own}");
        let told = bench.warren(&command).await.ended_with(1).text();
        for part in [
            &format!("differs  queue {}", bench.queue("q")),
            "inequivalent arg",
            &format!("warren topology prune {own} --drain --yes"),
        ] {
            assert!(told.contains(part), "{part:?} is not in {told}");
        }
    }
    // Nothing was declared beside it.
    assert_eq!(bench.n_ready(&bench.queue("dlq")).await, None);

    // As told: its jobs survive.
    let job = bench.job("kept", Encoding::Json, &json!(null));
    let (queue, options) = (bench.queue("q"), BasicPublishOptions::default());
    let properties = lapin::BasicProperties::default().with_message_id("kept".into());
    let sent = channel.basic_publish("".into(), queue.into(), options, &job.body, properties);
    sent.await.unwrap();
    warren_tests::eventually("the job is there", async || {
        (bench.n_ready(&bench.queue("q")).await == Some(1)).then_some(())
    })
    .await;
    for command in [
        format!("topology prune {own} --drain --yes"),
        format!("topology apply --type {own}"),
        format!("dlq replay {own} --reason unrouted"),
        format!("topology check --type {own}"),
    ] {
        bench.warren(&command).await.ended_with(0);
    }
    let jobs = bench.take_all(&bench.queue("q")).await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(id_of(&jobs[0].properties), "kept");
    assert_eq!(jobs[0].data, job.body);
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_that_is_served_is_not_pruned() {
    let bench = Bench::new().await;
    let own = bench.own.clone();
    let channel = bench.channel().await;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let queue = bench.queue("q");
    let consumer = channel.basic_consume(queue.as_str().into(), "c".into(), options, none);
    let consumer = consumer.await.unwrap();
    let prune = format!("topology prune {own} --drain --yes");
    let refused = bench.warren(&prune).await.ended_with(1);
    assert!(refused.err.contains("1 consumers"), "{}", refused.err);
    let dry = format!("topology prune {own} --dry-run --json");
    assert_eq!(
        bench.warren(&dry).await.ended_with(1).line("dry_run")["refused"],
        true
    );
    assert_eq!(bench.n_ready(&queue).await, Some(0));
    // It is still bound: what is replayed arrives.
    drop(consumer);
    channel.close(200, "".into()).await.unwrap();
    bench.bury_many(1).await;
    bench
        .warren(&format!("dlq replay {own}"))
        .await
        .ended_with(0);
    assert_eq!(bench.n_ready(&queue).await, Some(1));
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retired_type_leaves_its_jobs_as_dead_letters_and_then_nothing() {
    let bench = Bench::new().await;
    let own = bench.own.clone();
    bench.bury_many(100).await;
    bench
        .warren(&format!("dlq replay {own}"))
        .await
        .ended_with(0);
    assert_eq!(bench.n_ready(&bench.queue("q")).await, Some(100));

    let refused = bench
        .warren(&format!("topology prune {own} --drain"))
        .await
        .ended_with(64);
    assert!(refused.err.contains("--yes"), "{}", refused.err);
    let refused = bench
        .warren(&format!("topology prune {own} --yes"))
        .await
        .ended_with(1);
    assert!(refused.err.contains("100 jobs wait"), "{}", refused.err);

    let prune = format!("topology prune {own} --drain --yes --json");
    let summary = bench.warren(&prune).await.ended_with(0).line("summary");
    assert_eq!(
        (&summary["drained"], &summary["dead_kept"]),
        (&json!(100), &json!(100))
    );
    assert_eq!(bench.n_ready(&bench.queue("q")).await, None);
    let listed = bench
        .warren(&format!("dlq ls {own} --reason unrouted --json"))
        .await;
    let listed = listed.ended_with(0);
    let letters = listed
        .json()
        .into_iter()
        .filter(|line| line["kind"] == "letter");
    assert_eq!(letters.count(), 100);
    // Nobody is told that it was sent.
    let replay = bench
        .warren(&format!("dlq replay {own} --limit 1"))
        .await
        .ended_with(1);
    assert!(
        replay.err.contains("no worker has ever been"),
        "{}",
        replay.err
    );

    bench
        .warren(&format!("dlq drop {own} --yes"))
        .await
        .ended_with(0);
    let summary = bench.warren(&prune).await.ended_with(0).line("summary");
    assert_eq!(summary["dead_deleted"], true);
    assert_eq!(bench.n_ready(&bench.queue("dlq")).await, None);
    let nothing = bench
        .warren(&format!("topology prune {own} --yes"))
        .await
        .ended_with(0);
    assert!(nothing.text().contains("nothing of"), "{}", nothing.text());
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_differs_on_own_broker_is_mended_by_the_lines_that_are_printed() {
    let broker = Broker::start().await;
    let url = broker.url();
    let connection = lapin::Connection::connect(&url, lapin::ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let (name, kind) = ("warren.v1.dead", ExchangeKind::Direct);
    let declared = channel.exchange_declare(name.into(), kind, durable, FieldTable::default());
    declared.await.unwrap();

    let warren = |arguments: &'static str| {
        let url = broker.url();
        async move {
            warren_tests::Command::new(Some(&url), arguments)
                .run()
                .await
        }
    };
    let told = warren("topology check").await.ended_with(1).text();
    assert!(told.contains("differs  exchange warren.v1.dead"), "{told}");
    assert!(told.contains("missing  exchange warren.v1.jobs"), "{told}");
    warren("topology apply").await.ended_with(1);
    let queues = broker.ctl(&["list_queues", "name"]).await;
    assert!(!queues.contains("warren.v1"), "{queues}");

    let line = told
        .lines()
        .find_map(|line| line.trim().strip_prefix("rabbitmqctl eval "));
    broker
        .ctl(&["eval", line.unwrap().trim_matches('\'')])
        .await;
    warren("topology apply").await.ended_with(0);
    warren("topology check").await.ended_with(0);
    let bindings = broker.ctl(&[
        "list_bindings",
        "source_name",
        "routing_key",
        "destination_name",
    ]);
    assert!(
        bindings
            .await
            .contains("warren.v1.dlq.log\t\twarren.v1.dlq.log")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_of_a_type_without_a_queue_are_replayed_out_of_the_parking_lot_of_own_broker()
{
    let broker = Broker::start().await;
    let bench = Bench::bare(&broker.url()).await;
    bench.bury_many(3).await;
    let listed = bench.warren("dlq ls").await.ended_with(0).text();
    assert!(
        listed.contains("3 more lie in warren.v1.unrouted"),
        "{listed}"
    );
    bench
        .warren(&format!("topology apply --type {}", bench.own))
        .await
        .ended_with(0);
    let ran = bench.warren("dlq replay --unrouted").await.ended_with(0);
    assert!(ran.text().starts_with("3 replayed"), "{}", ran.text());
    let ids = bench.ids(&bench.queue("q")).await;
    assert_eq!(ids.into_keys().collect::<Vec<_>>(), ["n0", "n1", "n2"]);
    assert_eq!(bench.n_ready("warren.v1.unrouted").await, Some(0));
    bench.leave().await;
}
