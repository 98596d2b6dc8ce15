//! Jobs that wait for a later time on the broker, dead letters that have nowhere to go, and replies
//! whose caller is away for a moment.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::json;
use warren_bus::{Bus, Kind, Message, RabbitMq, RabbitMqConfig};
use warren_tests::{
    eventually_within,
    faults::{
        Ground, LEDGER, LEDGER_NEXT, Plan, Row, Run, Sent, Who, job, limits, names, prefetch,
        publish_until_stored, worker_of,
    },
    soon, try_within,
};

use crate::{now_ms, secs};

const CONCURRENCY: u16 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f36_retries_keep_their_times_and_survive_a_broker() {
    let mut row = Row::new(
        "F36",
        "jobs that fail 3 times, with and without a broker restart",
    );
    let mut ground = Ground::new().await;
    // The plan: 2, 4 and 8 s.
    let config = limits(CONCURRENCY, "retry_base = \"2s\"");
    let host = ground.host("a", [LEDGER], &config).start().await;
    let plan = |name: &str| Plan::new(name, 20).of(["FL:*"], json!({"fail": 3}));
    let mut sent = ground.load(plan("timed")).finish().await;
    ground.checker().settle(&sent, secs(60)).await;
    let runs = by_key(ground.ledger.runs("FL").await);
    let mut worst = 0.0_f64;
    for (key, runs) in &runs {
        let attempts: Vec<i64> = runs.iter().map(|run| run.attempt).collect();
        row.check(
            attempts == [1, 2, 3, 4],
            format!("{key}: attempts {attempts:?}"),
        );
        for (pair, planned) in runs.windows(2).zip([2.0, 4.0, 8.0]) {
            let waited = seconds(pair[1].at_ms - pair[0].at_ms);
            worst = worst.max((waited - planned).abs() / planned);
            row.check(
                (planned * 0.75..=planned * 1.25 + 1.0).contains(&waited),
                format!("{key}: waited {waited:.1} s where {planned} s were planned"),
            );
        }
    }
    row.note(format!("the worst wait was {:.0} % off", worst * 100.0));

    let parked = ground.load(plan("parked")).finish().await;
    eventually_within(secs(20), "every job has failed twice", async || {
        let runs = ground.ledger.runs("FL").await;
        let n = runs
            .iter()
            .filter(|run| run.key.starts_with("parked") && run.attempt == 2);
        (n.count() >= 20).then_some(())
    })
    .await;
    ground.broker.stop().await;
    ground.broker.start_again().await;
    host.ready().await;
    sent.attempted.extend(parked.attempted);
    sent.acknowledged.extend(parked.acknowledged);
    let figures = ground.checker().settle(&sent, secs(60)).await;
    for (key, runs) in by_key(ground.ledger.runs("FL").await) {
        let done = runs.iter().find(|run| run.phase == "done");
        let attempt = done.map(|run| run.attempt);
        row.check(
            attempt == Some(4),
            format!("{key}: done in attempt {attempt:?}"),
        );
    }
    row.injected("40 jobs × 3 failures, 1 broker restart");
    row.figures(&figures);
    row.allow_duplicates(0);
    row.check_ok(ground.checker().at_rest(1, prefetch(CONCURRENCY)).await);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f37_a_retry_whose_type_is_gone_becomes_a_dead_letter() {
    let mut row = Row::new("F37", "target of a parked retry deleted");
    let ground = Ground::new().await;
    let host = ground.host("a", [LEDGER, LEDGER_NEXT], &limits(CONCURRENCY, ""));
    let host = host.start().await;
    let order = json!({"fail": 1, "retry_ms": 8000});
    let orphans = Plan::new("orphan", 10).of(["FM:*"], order.clone());
    let orphans = ground.load(orphans).finish().await;
    let others = ground
        .load(Plan::new("other", 10).of(["FL:*"], order))
        .finish()
        .await;
    eventually_within(secs(20), "the first attempts have failed", async || {
        let n = ground.ledger.runs("FM").await.len() + ground.ledger.runs("FL").await.len();
        (n >= 20).then_some(())
    })
    .await;
    host.take_out("ledger_next.wasm");
    host.logged("worker left", ["FM"]).await;
    ground
        .broker
        .ctl(&["delete_queue", &names::work("FM")])
        .await;
    let figures = ground.checker().settle(&others, secs(30)).await;
    let gone = ground.checker().of("FM");
    let dead = try_within(secs(30), async || {
        (gone.n_ready(&names::dead("FM")).await? >= 10).then_some(())
    });
    let n_dead = gone.keys_in(&names::dead("FM")).await.len();
    row.check(
        dead.await.is_some() || n_dead == 10,
        format!("{n_dead} of 10 dead letters"),
    );
    let late = lateness(&ground, 8.0).await;
    row.injected("1 queue with its binding");
    row.figures(&figures.and(gone.count(&orphans).await));
    row.allow_duplicates(0);
    row.note(format!("the others' retries: at most {late:.1} s late"));
    row.check(
        late <= 3.0,
        format!("the others' retries were {late:.1} s late"),
    );
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f38_dead_letters_without_a_queue_are_parked() {
    let mut row = Row::new("F38", "dead-letter queue deleted");
    let ground = Ground::new().await;
    let host = ground
        .host("a", [LEDGER], &limits(CONCURRENCY, ""))
        .start()
        .await;
    let reject = json!({"reject": "on purpose"});
    let mut sent = Sent::default();
    ground
        .broker
        .ctl(&["delete_queue", &names::dead("FL")])
        .await;
    let deleted = Instant::now();
    let plan = Plan::new("parked", 20).of(["FL:*"], reject.clone());
    let parked = ground.load(plan).finish().await;
    let checker = ground.checker();
    let arrived = try_within(secs(20), async || {
        let n_parked = checker.n_ready(names::UNROUTED).await.unwrap_or_default();
        let n_dead = checker
            .n_ready(&names::dead("FL"))
            .await
            .unwrap_or_default();
        (n_parked + n_dead >= 20).then_some(n_parked)
    });
    let n_parked = arrived.await.unwrap_or_default();
    row.check(n_parked > 0, "nothing is in the parking lot");
    let back = try_within(secs(60), async || {
        checker
            .n_ready(&names::dead("FL"))
            .await
            .map(|_| deleted.elapsed())
    });
    match back.await {
        Some(took) => row.recovery(took, secs(31)),
        None => row.check(
            false,
            "the dead-letter queue was not declared again within 60 s",
        ),
    }
    row.note("recovery: from the deletion to the queue's return");
    let plan = Plan::new("later", 20).of(["FL:*"], reject);
    let later = ground.load(plan).finish().await;
    for more in [parked, later] {
        sent.attempted.extend(more.attempted);
        sent.acknowledged.extend(more.acknowledged);
    }
    let kept = try_within(secs(20), async || {
        let n_parked = checker.n_ready(names::UNROUTED).await.unwrap_or_default();
        let n_dead = checker
            .n_ready(&names::dead("FL"))
            .await
            .unwrap_or_default();
        (n_parked + n_dead >= 40).then_some(())
    });
    row.check(
        kept.await.is_some(),
        "40 jobs were given up, and fewer are kept",
    );
    row.injected("1 deletion, 40 jobs given up");
    row.figures(&checker.count(&sent).await);
    row.allow_duplicates(0);
    row.note(format!("{n_parked} in warren.v1.unrouted"));
    drop(host);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f40_a_reply_reaches_a_caller_that_was_away() {
    let mut row = Row::new(
        "F40",
        "caller's connections reset while its reply is pending",
    );
    let ground = Ground::new().await;
    let host = ground
        .host("a", [LEDGER], &limits(CONCURRENCY, ""))
        .start()
        .await;
    let proxy = ground.proxy().await;
    let config = RabbitMqConfig::new(vec![proxy.url()], "caller");
    let (bus, mut inbox) = RabbitMq::connect(config).unwrap();
    let caller = worker_of("FT");
    let _jobs = bus.join(&caller, 10).await.unwrap();
    let n = 10;
    let mut wanted = Vec::new();
    for index in 0..n {
        let key = format!("f40-{index}");
        let call = Message {
            kind: Kind::Job,
            correlation_id: Some(key.clone()),
            reply_to: Some(caller.clone()),
            ..job(&key, &["FL:*"], json!({"begin": true, "work_ms": 2000}))
        };
        publish_until_stored(&bus, &call).await;
        wanted.push(key);
    }
    eventually_within(secs(20), "a call runs", async || {
        (!ground.ledger.runs("FL").await.is_empty()).then_some(())
    })
    .await;
    let n_cut = proxy.rst(Who::All);
    let cut = Instant::now();
    let mut answered = Vec::new();
    while answered.len() < n {
        let delivery = soon("a reply reaches the caller", inbox.recv())
            .await
            .unwrap();
        answered.extend(delivery.message.correlation_id.clone());
        // One that was not acknowledged in time comes again.
        let _ = delivery.ack().await;
        answered.sort();
        answered.dedup();
    }
    let took = cut.elapsed();
    row.injected(format!("{n_cut} RST with {n} calls pending"));
    row.check(answered == wanted, format!("answered: {answered:?}"));
    row.recovery(took, secs(10));
    row.note("recovery: to the last of 10 replies, of jobs that take 2 s");
    bus.close().await;
    drop(host);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f47_a_retry_into_a_full_queue_delays_nobody_else() {
    let mut row = Row::new(
        "F47",
        "target of retries full (max-length 100) while others retry",
    );
    let ground = Ground::new().await;
    let config = limits(CONCURRENCY, "");
    let fast = ground.host("fast", [LEDGER], &config).start().await;
    // Has the other type, until all its retries are parked.
    let slow = ground.host("slow", [LEDGER_NEXT], &config).start().await;
    let order = json!({"fail": 1, "retry_ms": 8000});
    let stuck = Plan::new("stuck", 60).of(["FM:*"], order.clone());
    let stuck = ground.load(stuck).finish().await;
    eventually_within(secs(20), "the retries are parked", async || {
        (ground.ledger.runs("FM").await.len() >= 60).then_some(())
    })
    .await;
    slow.stop().await;
    let pattern = r"^warren\.v1\.q\.FM$";
    let policy = [
        "set_policy",
        "full",
        pattern,
        r#"{"max-length":100}"#,
        "--apply-to",
        "queues",
    ];
    ground.broker.ctl(&policy).await;
    let filling = Plan::new("filling", 160)
        .of(["FM:*"], json!({}))
        .patience(secs(3));
    let filling = ground
        .load(filling.rate(400.0).concurrency(32))
        .finish()
        .await;
    row.check(filling.n_full > 0, "the queue did not fill");
    let began = now_ms();
    let others = ground
        .load(Plan::new("other", 40).of(["FL:*"], order))
        .finish()
        .await;
    let figures = ground.checker().settle(&others, secs(40)).await;
    let late = lateness(&ground, 8.0).await;
    row.note(format!(
        "the others' retries: at most {late:.1} s late, of 8 s"
    ));
    row.check(
        late <= 3.0,
        format!("the others' retries were {late:.1} s late"),
    );
    // Long enough for the stuck ones to be due, and refused.
    let wait = 12_000_i64.saturating_sub(now_ms() - began);
    tokio::time::sleep(Duration::from_millis(
        u64::try_from(wait).unwrap_or_default(),
    ))
    .await;

    let slow = ground.host("slow", [LEDGER_NEXT], &config).start().await;
    let healed = Instant::now();
    let mut sent = stuck;
    sent.attempted.extend(filling.attempted);
    sent.acknowledged.extend(filling.acknowledged);
    let other_figures = ground.checker().of("FM").settle(&sent, secs(60)).await;
    row.injected("1 full queue, 60 retries for it, 40 for another");
    row.recovery(healed.elapsed(), secs(60));
    row.note("recovery: from a host for the full queue to the last of its retries");
    sent.attempted.extend(others.attempted);
    sent.acknowledged.extend(others.acknowledged);
    let mut figures = figures.and(other_figures);
    (figures.attempted, figures.acknowledged) = (sent.attempted.len(), sent.acknowledged.len());
    row.figures(&figures);
    row.allow_duplicates(0);
    drop((fast, slow));
    row.finish();
}

/// By how much the retries of `FL` came later than planned, in seconds, jitter aside.
async fn lateness(ground: &Ground, planned: f64) -> f64 {
    let runs = by_key(ground.ledger.runs("FL").await);
    let waits = runs.values().filter_map(|runs| {
        let failed = runs.iter().find(|run| run.phase == "failed")?;
        let done = runs.iter().find(|run| run.phase == "done")?;
        Some(seconds(done.at_ms - failed.at_ms))
    });
    waits.fold(0.0, |latest, waited| f64::max(latest, waited - planned))
}

/// The runs of each job, in the order of their times.
fn by_key(mut runs: Vec<Run>) -> BTreeMap<String, Vec<Run>> {
    runs.sort_by_key(|run| run.at_ms);
    let mut by_key: BTreeMap<String, Vec<Run>> = BTreeMap::new();
    for run in runs {
        by_key.entry(run.key.clone()).or_default().push(run);
    }
    by_key
}

fn seconds(ms: i64) -> f64 {
    f64::from(i32::try_from(ms).unwrap_or(i32::MAX)) / 1000.0
}
