//! Hosts that come and go while the same jobs wait in their prefetch.

use lapin::{
    Connection, ConnectionProperties,
    options::{BasicGetOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::json;
use warren_tests::{
    eventually,
    faults::{Ground, LEDGER, Plan, Row, limits, names, prefetch},
};

use crate::secs;

/// Jobs that are begun in this time by one host at a time are far fewer than those that wait.
const WORK_MS: u64 = 400;
const N_JOBS: usize = 60;
const N_RESTARTS: usize = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f28_jobs_that_only_waited_in_a_host_do_not_age_with_its_restarts() {
    let mut row = Row::new(
        "F28",
        "25 rolling restarts of hosts, the same jobs prefetched",
    );
    let ground = Ground::new().await;
    // One at a time, with room in the prefetch for all the others.
    let config = limits(1, "");
    assert!(N_JOBS < usize::from(prefetch(1)));
    let start = async || ground.host("a", [LEDGER], &config).start().await;
    let mut host = start().await;
    let load = ground.load(Plan::new("f28", N_JOBS).of(["FL:*"], json!({"work_ms": WORK_MS})));
    let sent = load.finish().await;
    for n in 0..N_RESTARTS {
        let end = host.stop().await;
        row.check(
            end.code == Some(0),
            format!("stop {n}: exit code {:?}", end.code),
        );
        host = start().await;
        // Otherwise this restart proves nothing.
        eventually("the host holds the jobs", async || {
            let held = ground.checker().n_ready(&names::work("FL")).await;
            (held == Some(0)).then_some(())
        })
        .await;
    }
    host.stop().await;
    let counts = delivery_counts(&ground.broker.url()).await;
    let highest = counts.iter().max().copied().unwrap_or_default();
    row.check(!counts.is_empty(), "no job was left to look at");
    row.check(
        highest == 0,
        format!("jobs that never ran count as delivered up to {highest} times: {counts:?}"),
    );
    row.note(format!("{} jobs went through all restarts", counts.len()));

    let last = ground.host("a", [LEDGER], &limits(8, "")).start().await;
    row.injected(format!("{N_RESTARTS} SIGTERM"));
    let figures = ground.checker().settle(&sent, secs(60)).await;
    row.check(
        figures.dead.is_empty(),
        format!("healthy jobs are dead: {:?}", figures.dead),
    );
    row.check(
        figures.effected == N_JOBS,
        format!("{} of {N_JOBS} had their effect", figures.effected),
    );
    row.figures(&figures);
    row.allow_duplicates(0);
    let runs = ground.ledger.runs("FL").await;
    let attempt = runs.iter().map(|run| run.attempt).max();
    row.check(attempt == Some(1), format!("highest attempt {attempt:?}"));
    row.check_ok(ground.checker().at_rest(1, prefetch(8)).await);
    last.stop().await;
    row.finish();
}

/// How often the broker says that each waiting job has been delivered before.
async fn delivery_counts(url: &str) -> Vec<i64> {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let work = names::work("FL");
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    eventually("all jobs are back", async || {
        let declared = channel.queue_declare(work.as_str().into(), options, FieldTable::default());
        (declared.await.unwrap().message_count() > 0).then_some(())
    })
    .await;
    let mut counts = Vec::new();
    let get = BasicGetOptions { no_ack: false };
    // The end of the connection puts them back.
    while let Some(got) = channel.basic_get(work.as_str().into(), get).await.unwrap() {
        let headers = got
            .delivery
            .properties
            .headers()
            .clone()
            .unwrap_or_default();
        counts.push(match headers.inner().get("x-delivery-count") {
            Some(AMQPValue::LongLongInt(n)) => *n,
            None => 0,
            other => panic!("a delivery count is {other:?}"),
        });
    }
    connection.close(200, "done".into()).await.unwrap();
    counts
}
