//! What a publisher is told: confirms that do not come, addresses that nobody has, full queues.

use std::time::Instant;

use serde_json::json;
use warren_bus::PublishError;
use warren_tests::{
    faults::{
        At, Ground, LEDGER, LEDGER_NEXT, Load, Method, Plan, Proxy, Row, Sent, Who, limits, names,
        prefetch,
    },
    try_within,
};

use crate::secs;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_a_confirm_that_is_late_makes_two_messages_of_one_id_at_the_most() {
    let mut row = Row::new(
        "F13",
        "confirms withheld for 15 s, of a producer and then of a host",
    );
    let ground = Ground::new().await;
    let (ours, theirs) = (ground.proxy().await, ground.proxy().await);
    let setup = ground.host("a", [LEDGER], &limits(8, "deadline = \"60s\""));
    let host = setup.with_broker(&theirs.url()).start().await;
    let next = ground
        .host("b", [LEDGER_NEXT], &limits(8, ""))
        .start()
        .await;

    let plan = Plan::new("producer", 80).rate(60.0).of(["FL:*"], json!({}));
    let (sent, n_ours) = withhold(&ours, Load::start(&[ours.url()], plan)).await;
    let plan = Plan::new("host", 80)
        .rate(60.0)
        .of(["FL:*", "FM:*"], json!({}));
    let (more, n_theirs) = withhold(&theirs, ground.load(plan)).await;
    let mut all = sent;
    all.attempted.extend(more.attempted.clone());
    all.acknowledged.extend(more.acknowledged.clone());
    all.republished += more.republished;
    let checker = ground.checker();
    let figures = checker.settle(&all, secs(60)).await;
    let figures = figures.and(ground.checker().of("FM").settle(&more, secs(60)).await);
    row.figures(&figures);
    row.allow_duplicates(n_ours + n_theirs);
    row.injected(format!(
        "{n_ours} confirms of producers and {n_theirs} of the host withheld"
    ));
    let most = async |worker_type: &str| {
        let effects = ground.checker().of(worker_type).effected().await;
        effects.values().copied().max().unwrap_or_default()
    };
    let (first, second) = (most("FL").await, most("FM").await);
    row.note(format!(
        "at most {first} runs of a job at hop 1, {second} at hop 2"
    ));
    row.check(
        first <= 2 && second <= 2,
        format!("{first} runs of one job at hop 1, {second} at hop 2, 2 allowed"),
    );
    row.check_ok(checker.at_rest(1, prefetch(8)).await);
    drop((host, next));
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_only_those_whom_nobody_serves_are_told_so() {
    let mut row = Row::new("F14", "every other job to an unknown type, 64 in flight");
    let ground = Ground::new().await;
    let host = ground.host("a", [LEDGER], &limits(16, "")).start().await;
    let n = Row::sized(1500, 6000);
    let plan = Plan::new("f14", n)
        .rate(2000.0)
        .concurrency(64)
        .each(|index| {
            let stop = if index % 2 == 0 { "FL:*" } else { "FZ:*" };
            (vec![stop.to_owned()], json!({}))
        });
    let sent = ground.load(plan).finish().await;
    let is_even = |key: &str| key.trim_end_matches(|c: char| "02468".contains(c)) != key;
    let wrong = sent
        .refused
        .iter()
        .filter(|(key, error)| is_even(key) || !matches!(error, PublishError::Unroutable(_)));
    let n_wrong = wrong.count();
    row.injected(format!("{} unroutable jobs", n / 2));
    row.figures(&ground.checker().settle(&sent, secs(60)).await);
    row.allow_duplicates(0);
    row.check(
        sent.refused.len() == n / 2 && n_wrong == 0,
        format!(
            "{} were refused, {n_wrong} of them wrongly",
            sent.refused.len()
        ),
    );
    row.check(
        sent.acknowledged.iter().all(|key| is_even(key)),
        "a job for nobody was confirmed",
    );
    row.note(format!(
        "{:.0} publishes a second",
        f64::from(u32::try_from(n).unwrap()) / sent.took.as_secs_f64()
    ));
    drop(host);
    row.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_a_full_queue_says_so_and_takes_jobs_again_when_it_is_drained() {
    let mut row = Row::new("F15", "queue full (max-length 100, reject-publish)");
    let ground = Ground::new().await;
    ground
        .host("a", [LEDGER], &limits(8, ""))
        .start()
        .await
        .stop()
        .await;
    let pattern = r"^warren\.v1\.q\.FL$";
    let policy = [
        "set_policy",
        "full",
        pattern,
        r#"{"max-length":100}"#,
        "--apply-to",
        "queues",
    ];
    ground.broker.ctl(&policy).await;
    let load = ground.load(Plan::new("f15", 400).rate(400.0).concurrency(16));
    let checker = ground.checker();
    let full = try_within(secs(20), async || {
        tokio::time::sleep(secs(1)).await;
        (checker.n_ready(&names::work("FL")).await? >= 100).then_some(())
    });
    row.check(full.await.is_some(), "the queue did not fill");
    tokio::time::sleep(secs(1)).await;
    let n_stored = load.n_acknowledged();
    let since = Instant::now();
    let host = ground.host("a", [LEDGER], &limits(8, "")).start().await;
    let sent = load.finish().await;
    let drained = since.elapsed();
    row.injected("1 policy");
    row.figures(&checker.settle(&sent, secs(60)).await);
    row.allow_duplicates(0);
    // A quorum queue may take a few more than its limit.
    row.check(
        (100..150).contains(&n_stored),
        format!("{n_stored} stored in 100 places"),
    );
    row.check(sent.n_full > 0, "nobody was told that the queue is full");
    row.check(
        sent.refused.is_empty(),
        format!("{} refused for good", sent.refused.len()),
    );
    row.note(format!("told {} times that it is full", sent.n_full));
    row.recovery(drained, secs(30));
    row.note("recovery: from the start of a host to the last confirm");
    row.check_ok(checker.at_rest(1, prefetch(8)).await);
    drop(host);
    row.finish();
}

/// Holds the confirms of one side for 15 s, once jobs flow: a link that comes up needs confirms of
/// its own. Says how many.
async fn withhold(proxy: &Proxy, load: Load) -> (Sent, usize) {
    load.acknowledged(10).await;
    let confirms = At::to_client(Method::BASIC_ACK).on(Who::Role("publish"));
    let held = proxy.hold(confirms);
    held.reached().await;
    tokio::time::sleep(secs(15)).await;
    let n = held.n_held();
    held.release();
    (load.finish().await, n)
}
