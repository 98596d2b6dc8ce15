//! A broker that runs out of memory or disk: it stops reading from whoever publishes.

use std::time::{Duration, Instant};

use serde_json::json;
use warren_tests::{
    Host,
    faults::{Checker, Ground, LEDGER, LEDGER_NEXT, Plan, Row, limits, names, prefetch, usage},
    try_within,
};

use crate::{readiness, secs};

const CONCURRENCY: u16 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f16_a_memory_alarm_stops_publishing_and_nothing_else() {
    let row = Row::new("F16", "memory alarm for 60 s under load");
    alarm(
        row,
        secs(60),
        &["set_vm_memory_high_watermark", "0"],
        &["set_vm_memory_high_watermark", "0.4"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f17_a_disk_alarm_stops_publishing_and_nothing_else() {
    let row = Row::new(
        "F17",
        "disk alarm for 30 s under load (limit raised, disk not full)",
    );
    alarm(
        row,
        secs(30),
        &["set_disk_free_limit", "99999GB"],
        &["set_disk_free_limit", "1MB"],
    )
    .await;
}

async fn alarm(mut row: Row, lasts: Duration, raise: &[&str], clear: &[&str]) {
    let ground = Ground::new().await;
    let host = ground.host("a", [LEDGER, LEDGER_NEXT], &limits(CONCURRENCY, ""));
    let host = host.start().await;
    // Enough for the whole alarm: 40 in a second, one in 20 with a second hop to be published.
    let n = usize::try_from(lasts.as_secs()).unwrap() * 50;
    let backlog = Plan::new("backlog", n).rate(2000.0).concurrency(64);
    let backlog = backlog.each(|index| match index % 20 {
        0 => (
            vec!["FL:*".to_owned(), "FM:*".to_owned()],
            json!({"work_ms": 100}),
        ),
        _ => (vec!["FL:*".to_owned()], json!({"work_ms": 100})),
    });
    let backlog = ground.load(backlog).finish().await;
    let live = ground.load(Plan::new("live", 10_000).rate(20.0));
    live.acknowledged(20).await;
    let before = usage(host.pid());

    ground.broker.ctl(raise).await;
    let raised = Instant::now();
    let degraded = readiness(&host, false, secs(5)).await;
    if let Ok(took) = &degraded {
        row.note(format!(
            "readiness degraded after {:.1} s",
            took.as_secs_f64()
        ));
        row.check(
            *took <= secs(1),
            format!("readiness degraded after {took:?}"),
        );
    }
    row.check_ok(degraded);
    tokio::time::sleep(secs(3)).await;
    let (n_ran, n_left) = progress(&ground.checker()).await;
    let n_live = live.n_acknowledged();
    tokio::time::sleep(lasts.saturating_sub(raised.elapsed())).await;
    let (n_ran_after, n_left_after) = progress(&ground.checker()).await;
    row.check(
        live.n_acknowledged() == n_live,
        "publishes were confirmed during the alarm",
    );
    // 4 at a time of 100 ms each; those with a second hop wait at the gate with their place given
    // back.
    let n_wanted = usize::try_from((lasts.as_secs().saturating_sub(8)) * 10).unwrap();
    row.check(
        n_ran_after >= n_ran + n_wanted,
        format!(
            "{} jobs ran during the alarm, {n_wanted} wanted",
            n_ran_after - n_ran
        ),
    );
    row.check(
        n_left_after + n_wanted <= n_left,
        format!("the queue went from {n_left} to {n_left_after}: acknowledgements do not flow"),
    );
    row.note(format!(
        "{} jobs done during the alarm",
        n_ran_after - n_ran
    ));
    let during = usage(host.pid());
    row.check(
        during.rss_kib < before.rss_kib * 6 / 5 + 20_000,
        format!(
            "memory went from {} to {} KiB",
            before.rss_kib, during.rss_kib
        ),
    );

    ground.broker.ctl(clear).await;
    let cleared = Instant::now();
    let resumed = try_within(secs(30), async || {
        (live.n_acknowledged() > n_live).then(|| cleared.elapsed())
    });
    let resumed = resumed.await.unwrap_or(secs(30));
    row.check_ok(ready_again(&host, cleared).await);
    live.stop();
    let mut sent = live.finish().await;
    sent.attempted.extend(backlog.attempted);
    sent.acknowledged.extend(backlog.acknowledged);
    let checker = ground.checker();
    let second = |key: &str| {
        let index = key
            .strip_prefix("backlog-")
            .and_then(|index| index.parse::<usize>().ok());
        let has_second = index.is_some_and(|index| index % 20 == 0);
        if has_second {
            vec![key.to_owned()]
        } else {
            Vec::new()
        }
    };
    let last = ground.checker().of("FM").expecting(second);
    let figures = checker.settle(&sent, secs(120)).await;
    row.injected(format!("1 alarm of {} s", lasts.as_secs()));
    row.figures(&figures.and(last.settle(&sent, secs(60)).await));
    row.allow_duplicates(sent.republished);
    row.recovery(resumed, secs(2));
    row.note("recovery: from the end of the alarm to the next confirm");
    row.check_ok(checker.at_rest(1, prefetch(CONCURRENCY)).await);
    row.finish();
}

async fn ready_again(host: &Host, cleared: Instant) -> Result<(), String> {
    readiness(host, true, secs(30)).await?;
    let took = cleared.elapsed();
    let is_soon = took <= secs(3);
    is_soon
        .then_some(())
        .ok_or(format!("ready again after {:.1} s", took.as_secs_f64()))
}

/// How many jobs have run, and how many wait. The broker is asked on connections that never
/// publish.
async fn progress(checker: &Checker<'_>) -> (usize, usize) {
    let n_ran = checker.effected().await.len();
    let n_left = checker
        .n_ready(&names::work("FL"))
        .await
        .unwrap_or_default();
    (n_ran, usize::try_from(n_left).unwrap())
}
