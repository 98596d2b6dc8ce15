//! Plugins that are replaced under load, some of them by builds that trap on every job.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use warren_tests::{
    Host, Site, digest_of, eventually,
    faults::{Figures, Ground, LEDGER, Ledger, Plan, Row, limits, names, prefetch, usage},
    host::plugin,
    try_within, variant,
};

use crate::secs;

const CONCURRENCY: u16 = 8;
/// What a build that traps on everything may cost an attempt.
const MOST_ATTEMPTS: u64 = 20;
const N_CLIENTS: usize = 4;
const PAUSE_OF_A_CLIENT: Duration = Duration::from_millis(40);
/// Every so many swaps a build comes that traps on every job.
const EVERY: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f31_a_build_that_traps_on_everything_is_taken_back() {
    let mut row = Row::new("F31", "a new build traps on every job, with one before it");
    let ground = Ground::new().await;
    let config = limits(CONCURRENCY, "retry_base = \"500ms\"").replace("breaker = 0\n", "");
    let host = ground.host("a", [LEDGER], &config).start().await;
    let good = host.worker("FL").await.unwrap()["digest"].clone();
    let load = ground.load(Plan::new("f31", Row::sized(800, 3000)).rate(150.0));
    load.acknowledged(100).await;
    let deployed = Instant::now();
    host.drop_in("ledger.wasm", plugin("ledger_broken"));
    eventually("it is taken back", async || {
        let file = host.file("ledger.wasm").await?;
        (file["state"] == "rolled-back" && file["digest"] == good).then_some(())
    })
    .await;
    row.recovery(deployed.elapsed(), secs(10));
    let sent = load.finish().await;
    row.injected("1 bad build");
    let figures = ground.checker().settle(&sent, secs(60)).await;
    row.figures(&figures);
    row.check(
        figures.dead.is_empty(),
        format!("{} jobs are dead", figures.dead.len()),
    );
    row.allow_duplicates(0);
    let cost = failures(&host, "trap").await;
    row.check(
        (1..=MOST_ATTEMPTS).contains(&cost),
        format!("{cost} jobs lost an attempt"),
    );
    row.note(format!("{cost} jobs lost an attempt"));
    row.check_ok(ground.checker().at_rest(1, prefetch(CONCURRENCY)).await);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f31_a_first_build_that_traps_on_everything_leaves_the_queue_alone() {
    let mut row = Row::new("F31b", "the first build traps on every job");
    let ground = Ground::new().await;
    let config = limits(CONCURRENCY, "retry_base = \"500ms\"").replace("breaker = 0\n", "");
    let setup = ground.host("a", [], &config);
    let setup = setup.with_file("plugins/ledger.wasm", plugin("ledger_broken"));
    let host = setup.start().await;
    let sent = ground.load(Plan::new("f31b", 200)).finish().await;
    eventually("the worker pauses", async || {
        let worker = host.worker("FL").await?;
        (worker["pausing"] == true).then_some(())
    })
    .await;
    // Several trials, and the retries of what failed before.
    tokio::time::sleep(secs(8)).await;
    let cost = failures(&host, "trap").await;
    row.check(
        (1..=MOST_ATTEMPTS).contains(&cost),
        format!("{cost} jobs lost an attempt"),
    );
    row.note(format!("{cost} jobs lost an attempt"));
    let dead = ground.checker().n_ready(&names::dead("FL")).await;
    row.check(dead == Some(0), format!("dead letters: {dead:?}"));
    host.drop_in("ledger.wasm", plugin(LEDGER));
    row.injected("1 bad build");
    let figures = ground.checker().settle(&sent, secs(60)).await;
    row.figures(&figures);
    row.allow_duplicates(0);
    row.check_ok(ground.checker().at_rest(1, prefetch(CONCURRENCY)).await);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f32_swaps_under_load_lose_and_repeat_nothing_on_rabbitmq() {
    let ground = Ground::new().await;
    let row = Row::new(
        "F32",
        "swaps under load, every tenth build bad, on RabbitMQ",
    );
    let (mut row, host) = swaps(row, &Site::of(&ground.broker), &ground.ledger).await;
    row.check_ok(ground.checker().at_rest(1, prefetch(CONCURRENCY)).await);
    let dead = ground.checker().n_ready(&names::dead("FL")).await;
    row.check(dead == Some(0), format!("dead letters: {dead:?}"));
    drop(host);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f32_swaps_under_load_lose_and_repeat_nothing_on_the_embedded_bus() {
    let row = Row::new(
        "F32e",
        "swaps under load, every tenth build bad, on the embedded bus",
    );
    let ledger = Ledger::new();
    let (row, host) = swaps(row, &Site::embedded(), &ledger).await;
    drop(host);
    row.finish();
}

/// Replaces the ledger again and again while jobs come through HTTP, and counts what they did.
async fn swaps(mut row: Row, site: &Site, ledger: &Ledger) -> (Row, Arc<Host>) {
    let n_swaps = Row::sized(20, 1000);
    // With the circuit breaker: it keeps the work away from a bad build until it has been taken back.
    let config = limits(CONCURRENCY, "retry_base = \"500ms\"").replace("breaker = 0\n", "");
    let host = warren_tests::Setup::new(site)
        .with_plugins([LEDGER, "http_faulty"])
        .with_config(&config)
        .with_variable("WARREN_DATA_DIR", &ledger.slot("a").to_string_lossy());
    let host = Arc::new(host.start().await);
    let id = host.worker("FL").await.unwrap()["id"].clone();
    let (stop, n_sent) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients: Vec<_> = (0..N_CLIENTS)
        .map(|_| tokio::spawn(send_until(stop.clone(), host.clone(), n_sent.clone())))
        .collect();

    let builds = [("one", plugin(LEDGER)), ("two", plugin("ledger_two"))];
    let broken = plugin("ledger_broken");
    let mut expected = BTreeMap::new();
    let mut resident = Vec::new();
    let mut took = Vec::new();
    for n in 0..n_swaps {
        let is_bad = n % EVERY == EVERY - 1;
        let (build, bytes) = &builds[n % 2];
        let bytes = variant(if is_bad { &broken } else { bytes }, n);
        let digest = digest_of(&bytes);
        let begun = Instant::now();
        host.drop_in("ledger.wasm", &bytes);
        if is_bad {
            eventually(&format!("bad build {n} is taken back"), async || {
                let file = host.file("ledger.wasm").await?;
                (file["held_digest"] == digest).then_some(())
            })
            .await;
            continue;
        }
        eventually(&format!("build {n} serves"), async || {
            let worker = host.worker("FL").await?;
            (worker["digest"] == digest).then_some(())
        })
        .await;
        took.push(begun.elapsed());
        // A job that comes now is run by this build and none before it. Its answer is waited for, so
        // that none after it can have run it.
        let key = format!("probe-{n:05}");
        call(&host, &key).await;
        expected.insert(key, *build);
        if n % (n_swaps / 10).max(1) == 0 {
            resident.push(usage(host.pid()).rss_kib);
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let n_sent = n_sent.load(Ordering::Relaxed);
    let keys: Vec<String> = (0..n_sent).map(|n| format!("job-{n:06}")).collect();
    let all = keys.iter().chain(expected.keys());
    let n_all = n_sent + expected.len();
    try_within(secs(60), async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let effects = ledger.effects("FL").await;
        (effects.len() >= n_all).then_some(())
    })
    .await;
    let mut runs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for run in ledger.effects("FL").await {
        runs.entry(run.key).or_default().push(run.build);
    }
    let lost = all.clone().filter(|key| !runs.contains_key(*key)).cloned();
    let figures = Figures {
        attempted: n_all,
        acknowledged: n_all,
        effected: runs.len(),
        duplicated: runs.values().map(|builds| builds.len() - 1).sum(),
        lost: lost.collect(),
        ..Figures::default()
    };
    row.injected(format!("{n_swaps} swaps, {} bad", n_swaps / EVERY));
    row.figures(&figures);
    row.allow_duplicates(0);
    let wrong = expected.iter().filter(|(key, build)| {
        runs.get(*key)
            .is_some_and(|builds| builds.iter().any(|other| other != *build))
    });
    let wrong: Vec<_> = wrong.collect();
    row.check(
        wrong.is_empty(),
        format!("new jobs were run by a retired build: {wrong:?}"),
    );
    row.check(
        host.worker("FL").await.unwrap()["id"] == id,
        "the worker has another id",
    );
    // The first swaps fill caches and pools.
    let (early, late) = (resident[1], *resident.last().unwrap());
    row.check(
        late <= early + early / 4 + 16 * 1024,
        format!("resident memory grew from {early} to {late} KiB: {resident:?}"),
    );
    took.sort();
    let at = |part: usize| took[(took.len() - 1) * part / 100].as_millis();
    row.note(format!(
        "file written to serving: median {} ms, p99 {} ms; resident {early} → {late} KiB",
        at(50),
        at(99)
    ));
    (row, host)
}

/// Sends a job every now and then, each with the next key. Every one must be taken.
async fn send_until(stop: Arc<AtomicBool>, host: Arc<Host>, n_sent: Arc<AtomicUsize>) {
    while !stop.load(Ordering::Relaxed) {
        let n = n_sent.fetch_add(1, Ordering::Relaxed);
        send(&host, &format!("job-{n:06}")).await;
        tokio::time::sleep(PAUSE_OF_A_CLIENT).await;
    }
}

async fn call(host: &Host, key: &str) {
    let order = json!({ "key": key }).to_string();
    let response = host.post("/faulty/?do=call&to=FL:*", order).await;
    assert_eq!(response.status, 200, "{}", response.text());
}

async fn send(host: &Host, key: &str) {
    let order = json!({ "key": key }).to_string();
    let response = host.post("/faulty/?do=send&to=FL:*", order).await;
    assert_eq!(response.status, 200, "{}", response.text());
}

/// How many runs of FL have failed for this reason.
async fn failures(host: &Host, reason: &str) -> u64 {
    let series = format!(r#"warren_job_failures_total{{reason="{reason}",worker="FL"}} "#);
    let text = host.admin("/metrics").await.text();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(&series)?.trim().parse().ok());
    value.unwrap_or_default()
}
