//! What a host leaves on the broker that is killed, and who cleans it up.

use std::time::Instant;

use serde_json::json;
use warren_bus::{Bus, PublishError, RabbitMq, RabbitMqConfig};
use warren_protocol::{Address, WorkerId};
use warren_tests::{
    eventually,
    faults::{Ground, LEDGER, LEDGER_NEXT, Row, Sent, job, limits, names, publish_until_stored},
    try_within,
};

use crate::secs;

const CONCURRENCY: u16 = 4;
/// The janitor waits 60 s, and looks every 5.
const LATEST: u64 = 90;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f41_a_job_by_id_whose_host_dies_becomes_a_dead_letter() {
    const N_JOBS: usize = 20;
    let mut row = Row::new("F41", "job by worker id, its host dies");
    let ground = Ground::new().await;
    let config = limits(CONCURRENCY, "");
    let dies = ground.host("a", [LEDGER], &config).start().await;
    let stays = ground.host("b", [LEDGER_NEXT], &config).start().await;
    let id: WorkerId = dies.worker("FL").await.unwrap()["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let config = RabbitMqConfig::new(vec![ground.broker.url()], "caller");
    let (bus, _inbox) = RabbitMq::connect(config).unwrap();
    let mut sent = Sent::default();
    // The first few run when the host dies, the others lie in its inbox.
    for n in 0..N_JOBS {
        let key = format!("by-id-{n:02}");
        let mut message = job(&key, &[id.as_str()], json!({"work_ms": 120_000}));
        message.to = Address::One(id.clone());
        publish_until_stored(&bus, &message).await;
        sent.attempted.insert(key.clone());
        sent.acknowledged.insert(key);
    }
    eventually("jobs by id run", async || {
        let running = dies.worker("FL").await?["in_flight"].as_u64()?;
        (running == u64::from(CONCURRENCY)).then_some(())
    })
    .await;
    dies.kill().await;
    row.injected(format!("1 kill -9 with {N_JOBS} jobs by id"));

    let (since, checker) = (Instant::now(), ground.checker());
    let dead = try_within(secs(LATEST), async || {
        let n = checker.n_ready(&names::dead("FL")).await?;
        (n as usize >= N_JOBS).then(|| since.elapsed())
    });
    let took = dead.await.unwrap_or(secs(LATEST));
    row.recovery(took, secs(75));
    row.note("recovery: to the last dead letter, the janitor's grace of 60 s included");
    row.figures(&checker.settle(&sent, secs(5)).await);
    row.allow_duplicates(0);
    let late = bus.publish(job("late", &[id.as_str()], json!({}))).await;
    row.check(
        matches!(late, Err(PublishError::Unroutable(_))),
        format!("a later job for the id: {late:?}"),
    );
    let gone = try_within(secs(30), async || {
        let queues = ground.broker.ctl(&["list_queues", "-q", "name"]).await;
        let inboxes = queues
            .lines()
            .filter(|name| name.starts_with("warren.v1.in."));
        // The other host's and the caller's.
        (inboxes.count() == 2).then_some(())
    });
    row.check(
        gone.await.is_some(),
        "the inbox of the dead host is still there",
    );
    row.check(
        stays.admin("/readyz").await.status.is_success(),
        "the other host is not ready",
    );
    bus.close().await;
    row.finish();
}
