//! What happens to hosts: they are killed, told to stop, and frozen.

use std::time::{Duration, Instant};

use serde_json::json;
use warren_tests::{
    Host, eventually,
    faults::{Ground, LEDGER, Plan, Row, limits, prefetch},
};

use crate::{now_ms, secs, until_next_effect};

const CONCURRENCY: u16 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f01_a_host_that_is_killed_loses_no_job() {
    let mut row = Row::new("F01", "host killed with -9, idle and under load");
    let ground = Ground::new().await;
    let config = limits(CONCURRENCY, "");
    let mut hosts = [
        host(&ground, "a", &config).await,
        host(&ground, "b", &config).await,
    ];
    // Idle: nothing to lose, and nothing in the way of the next.
    let [a, b] = hosts;
    a.kill().await;
    hosts = [host(&ground, "a", &config).await, b];

    let n_kills = Row::sized(3, 8);
    let plan = Plan::new("f01", Row::sized(1200, 4000)).of(["FL:*"], json!({"work_ms": 20}));
    let load = ground.load(plan.rate(150.0));
    load.acknowledged(50).await;
    let mut slowest = Duration::ZERO;
    for n in 0..n_kills {
        tokio::time::sleep(Duration::from_millis(300 + 370 * n % 900)).await;
        let [victim, other] = hosts;
        let (slot, spare) = if n % 2 == 0 { ("a", "b") } else { ("b", "a") };
        victim.kill().await;
        slowest = slowest.max(until_next_effect(&ground.ledger, |run| run.slot == spare).await);
        // The one that has just come back is killed last.
        hosts = [other, host(&ground, slot, &config).await];
    }
    let sent = load.finish().await;
    let checker = ground.checker();
    row.injected(format!("{} kill -9, 1 of them idle", n_kills + 1));
    row.figures(&checker.settle(&sent, secs(60)).await);
    row.allow_duplicates(usize::try_from(n_kills).unwrap() * usize::from(prefetch(CONCURRENCY)));
    row.recovery(slowest, secs(2));
    row.check_ok(checker.at_rest(2, prefetch(CONCURRENCY)).await);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f03_a_host_that_is_told_to_stop_repeats_no_job() {
    const GRACE: Duration = Duration::from_secs(10);
    let mut row = Row::new("F03", "rolling SIGTERM under load");
    let ground = Ground::new().await;
    let config = format!("shutdown_grace = \"10s\"\n{}", limits(CONCURRENCY, ""));
    let mut hosts = [
        host(&ground, "a", &config).await,
        host(&ground, "b", &config).await,
    ];
    let n_stops = Row::sized(3, 10);
    let plan = Plan::new("f03", Row::sized(1000, 4000)).of(["FL:*"], json!({"work_ms": 50}));
    let load = ground.load(plan.rate(150.0));
    load.acknowledged(50).await;
    let mut longest = Duration::ZERO;
    for n in 0..n_stops {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let [victim, other] = hosts;
        let end = victim.stop().await;
        longest = longest.max(end.took);
        row.check(end.code == Some(0), format!("exit code {:?}", end.code));
        let slot = if n % 2 == 0 { "a" } else { "b" };
        hosts = [other, host(&ground, slot, &config).await];
    }
    let sent = load.finish().await;
    let checker = ground.checker();
    row.injected(format!("{n_stops} SIGTERM"));
    row.figures(&checker.settle(&sent, secs(60)).await);
    row.allow_duplicates(sent.republished);
    row.check(
        longest <= GRACE + secs(2),
        format!("the slowest stop took {:.1} s", longest.as_secs_f64()),
    );
    row.note(format!("slowest stop {:.1} s", longest.as_secs_f64()));
    let runs = ground.ledger.runs("FL").await;
    let highest = runs.iter().map(|run| run.attempt).max();
    row.check(highest == Some(1), format!("highest attempt {highest:?}"));
    row.check_ok(checker.at_rest(2, prefetch(CONCURRENCY)).await);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f04_a_frozen_host_is_replaced_and_has_no_effect_when_it_thaws() {
    let mut row = Row::new("F04", "host frozen (SIGSTOP) for 5 s and for 45 s");
    let ground = Ground::new().await;
    // The deadline is not what ends the frozen run.
    let config = limits(4, "deadline = \"5m\"");
    let frozen = host(&ground, "frozen", &config).await;

    // Shorter than what the broker bears: nothing happens.
    let order = json!({"begin": true, "work_ms": 2000});
    let short = ground.load(Plan::new("f04-5s", 4).of(["FL:*"], order.clone()));
    begun(&ground, "f04-5s", "frozen", 4).await;
    frozen.signal("STOP");
    tokio::time::sleep(secs(5)).await;
    frozen.signal("CONT");
    let short = short.finish().await;
    let figures = ground.checker().settle(&short, secs(30)).await;
    row.check(
        figures.effected == 4 && figures.duplicated == 0,
        format!("5 s: {figures:?}"),
    );

    let long = ground.load(Plan::new("f04-45s", 4).of(["FL:*"], order));
    begun(&ground, "f04-45s", "frozen", 4).await;
    frozen.signal("STOP");
    let (stopped, stopped_ms) = (Instant::now(), now_ms());
    let spare = host(&ground, "spare", &config).await;
    begun(&ground, "f04-45s", "spare", 4).await;
    let first = ground.ledger.runs("FL").await;
    let first = first
        .iter()
        .filter(|run| run.slot == "spare" && run.phase == "begun");
    let first = first.map(|run| run.at_ms).min().unwrap_or_default();
    let redelivered = Duration::from_millis(u64::try_from(first - stopped_ms).unwrap_or_default());
    tokio::time::sleep(secs(45).saturating_sub(stopped.elapsed())).await;
    frozen.signal("CONT");
    frozen.ready().await;
    let mut sent = long.finish().await;
    // Any effect of the thawed guests would be there within their 2 s of work.
    tokio::time::sleep(secs(3)).await;
    let runs = ground.ledger.effects("FL").await;
    let stale = runs.iter().filter(|run| {
        run.slot == "frozen" && run.key.starts_with("f04-45s") && run.at_ms > stopped_ms
    });
    let stale = stale.count();
    sent.attempted.extend(short.attempted);
    sent.acknowledged.extend(short.acknowledged);
    row.injected("SIGSTOP 5 s and 45 s, each with 4 jobs running");
    row.figures(&ground.checker().settle(&sent, secs(60)).await);
    row.allow_duplicates(0);
    row.recovery(redelivered, secs(24));
    row.note("recovery: from the freeze to the run on another host");
    row.check(
        stale == 0,
        format!("{stale} runs had their effect after the thaw, though another host had the job"),
    );
    row.check_ok(ground.checker().at_rest(2, prefetch(4)).await);
    drop(spare);
    row.finish();
}

async fn host(ground: &Ground, slot: &str, config: &str) -> Host {
    ground.host(slot, [LEDGER], config).start().await
}

async fn begun(ground: &Ground, prefix: &str, slot: &str, n: usize) {
    eventually("the jobs have begun", async || {
        let runs = ground.ledger.runs("FL").await;
        let begun = runs
            .iter()
            .filter(|run| run.slot == slot && run.phase == "begun" && run.key.starts_with(prefix));
        (begun.count() >= n).then_some(())
    })
    .await;
}
