//! Replaying and dropping: what leaves the queue of dead letters, how, and what stays.

use std::time::{Duration, Instant};

use lapin::types::AMQPValue;
use serde_json::json;
use warren_protocol::Encoding;
use warren_tests::{Broker, Command, eventually, faults::Row, past_ms};

use crate::bench::{Bench, headers, id_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_job_is_itself_in_a_first_attempt() {
    let bench = Bench::new().await;
    let mut job = bench.job("again", Encoding::MessagePack, &json!({"n": 1}));
    job.deadline_ms = Some(past_ms());
    job.correlation_id = Some("c1".to_owned());
    job.trace_parent = Some("00-aa-bb-01".to_owned());
    let body = job.body.clone();
    bench.bury(job, "max_attempts", "no").await;
    let mut future = bench.job("future", Encoding::Json, &json!({"n": 2}));
    future.deadline_ms = Some(past_ms() + 3_600_000);
    bench.bury(future, "permanent", "no").await;

    let replay = format!("dlq replay {} --json", bench.own);
    let summary = bench.warren(&replay).await.ended_with(0).line("summary");
    assert_eq!(
        (&summary["replayed"], &summary["late"]),
        (&json!(2), &json!(1))
    );

    let jobs = bench.take_all(&bench.queue("q")).await;
    assert_eq!(jobs.len(), 2);
    let find = |id: &str| {
        jobs.iter()
            .find(|job| id_of(&job.properties) == id)
            .unwrap()
    };
    let again = find("again");
    assert_eq!(again.data, body);
    assert_eq!(again.routing_key.as_str(), format!("{}:*", bench.own));
    let properties = &again.properties;
    assert_eq!(properties.delivery_mode(), &Some(2));
    assert_eq!(
        properties.content_type().as_ref().unwrap().as_str(),
        "application/msgpack"
    );
    assert_eq!(properties.correlation_id().as_ref().unwrap().as_str(), "c1");
    let kept = headers(properties);
    assert_eq!(
        kept.get("x-warren-attempt"),
        Some(&AMQPValue::LongLongInt(1))
    );
    assert!(kept.contains_key("traceparent"));
    for dead in [
        "reason", "error", "stack", "plugin", "host", "died", "deadline",
    ] {
        assert!(!kept.contains_key(&format!("x-warren-{dead}")), "{kept:?}");
    }
    assert!(headers(&find("future").properties).contains_key("x-warren-deadline"));

    assert_eq!(bench.n_ready(&bench.queue("dlq")).await, Some(0));
    let list = format!("dlq ls {} --json", bench.own);
    let listed = bench.warren(&list).await.ended_with(0);
    assert_eq!(listed.line("queue")["logged"], 0);
    let show = format!("dlq show again --type {}", bench.own);
    let shown = bench.warren(&show).await.ended_with(1);
    assert!(shown.err.contains("replayed or dropped"), "{}", shown.err);

    // It fails again, under the same id, and is there again.
    let job = bench.job("again", Encoding::Json, &json!({"n": 1}));
    bench.bury(job, "permanent", "still no").await;
    let listed = bench.warren(&list).await.ended_with(0);
    assert_eq!(listed.line("queue")["logged"], 1);
    assert_eq!(listed.line("letter")["error"], "still no");
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_says_what_a_dry_run_counts_and_a_replay_takes() {
    let bench = Bench::new().await;
    let own = bench.own.clone();
    for (id, reason, error, method) in [
        ("a", "trap", "unreachable executed", "GET"),
        ("b", "trap", "out of bounds", "POST"),
        ("c", "permanent", "no such film", "GET"),
        ("d", "expired", "too late", "GET"),
    ] {
        let data = json!({"params": {"method": method}, "n": 5});
        let job = bench.job(id, Encoding::Bson, &data);
        bench.bury(job, reason, error).await;
    }
    for (filter, expected) in [
        ("", 4),
        ("--id a", 1),
        ("--id a --id d", 2),
        ("--id nobody", 0),
        ("--reason trap", 2),
        ("--reason trap --reason expired", 3),
        ("--error bounds", 1),
        ("--plugin abab", 4),
        ("--plugin other.wasm", 0),
        ("--since 1h", 4),
        ("--until 1h", 0),
        ("--since 2099-01-01T00:00:00Z", 0),
        ("--until 2099-01-01T00:00:00Z", 4),
        ("--where /params/method=GET", 3),
        ("--where /params/method=GET --where /n=5", 3),
        ("--where /n=6", 0),
        ("--reason trap --where /params/method=GET", 1),
    ] {
        let dry = format!("dlq replay {own} --dry-run --json {filter}");
        let dry = bench.warren(&dry).await.ended_with(0).line("dry_run");
        assert_eq!(dry["matching"], expected, "{filter}");
    }
    assert_eq!(bench.n_ready(&bench.queue("q")).await, Some(0));

    let replay = format!("dlq replay {own} --json --where /params/method=GET --limit 2");
    let summary = bench.warren(&replay).await.ended_with(0).line("summary");
    assert_eq!(summary["replayed"], 2);
    let replayed = bench.take_all(&bench.queue("q")).await;
    let mut ids: Vec<_> = replayed.iter().map(|job| id_of(&job.properties)).collect();
    ids.sort();
    assert_eq!(ids, ["a", "c"]);
    let left = bench.ids(&bench.queue("dlq")).await;
    assert_eq!(left.into_keys().collect::<Vec<_>>(), ["b", "d"]);
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_is_gone_and_only_that() {
    let bench = Bench::new().await;
    let own = bench.own.clone();
    bench.bury_many(50).await;
    let refused = bench
        .warren(&format!("dlq drop {own} --id n7"))
        .await
        .ended_with(64);
    assert!(refused.err.contains("--yes"), "{}", refused.err);
    assert_eq!(bench.n_ready(&bench.queue("dlq")).await, Some(50));
    let drop = format!("dlq drop {own} --where /n=7 --yes --json");
    let summary = bench.warren(&drop).await.ended_with(0).line("summary");
    assert_eq!(
        (&summary["dropped"], &summary["passed"]),
        (&json!(1), &json!(49))
    );
    let listed = bench
        .warren(&format!("dlq ls {own} --json"))
        .await
        .ended_with(0);
    assert_eq!(listed.line("queue")["logged"], 49);
    let left = eventually("the others are back", async || {
        (bench.n_ready(&bench.queue("dlq")).await == Some(49)).then_some(())
    });
    left.await;
    let ids = bench.ids(&bench.queue("dlq")).await;
    assert_eq!(ids.len(), 49);
    assert!(!ids.contains_key("n7"));
    assert_eq!(bench.n_ready(&bench.queue("q")).await, Some(0));
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_has_ever_served_stays_and_makes_the_command_fail() {
    let bench = Bench::new().await;
    let own = bench.own.clone();
    bench.bury_many(3).await;
    let replay = format!("dlq replay {own} --to NoSuchType:*");
    let ran = bench.warren(&replay).await.ended_with(1);
    assert!(ran.err.contains("NoSuchType:*"), "{}", ran.err);
    assert!(ran.text().contains("3 could not be done"), "{}", ran.text());
    let listed = bench
        .warren(&format!("dlq ls {own} --json"))
        .await
        .ended_with(0);
    assert_eq!(
        listed.line("queue"),
        json!({
            "kind": "queue", "type": own, "logged": 3, "ready": 3,
        })
    );
    // Elsewhere they can be served.
    let other = Bench::at(&bench.url).await;
    let replay = format!("dlq replay {own} --to {}:*", other.own);
    bench.warren(&replay).await.ended_with(0);
    assert_eq!(other.ids(&other.queue("q")).await.len(), 3);
    other.leave().await;
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_is_kept() {
    let bench = Bench::new().await;
    bench.bury_many(11).await;
    let replay = format!("dlq replay {} --rate 10", bench.own);
    let ran = bench.warren(&replay).await.ended_with(0);
    assert!(ran.took >= Duration::from_secs(1), "{:?}", ran.took);
    assert_eq!(bench.n_ready(&bench.queue("q")).await, Some(11));
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_queue_refuses_stays_and_own_broker_says_so() {
    let broker = Broker::start().await;
    let bench = Bench::at(&broker.url()).await;
    bench.bury_many(20).await;
    let limit = r#"{"max-length": 5}"#;
    broker
        .ctl(&["set_policy", "full", r"^warren\.v1\.q\.", limit])
        .await;
    let replay = format!("dlq replay {} --json", bench.own);
    let ran = eventually("the policy counts", async || {
        let ran = bench.warren(&replay).await;
        (ran.code == Some(1)).then_some(ran)
    })
    .await;
    let failed = ran.line("failed");
    assert!(
        failed["error"].as_str().unwrap().contains("full"),
        "{failed}"
    );
    let (mut there, waiting) = (
        bench.ids(&bench.queue("dlq")).await,
        bench.ids(&bench.queue("q")).await,
    );
    assert!(!there.is_empty() && !waiting.is_empty());
    there.extend(waiting);
    assert_eq!(there.len(), 20);
    bench.leave().await;
}

/// F46. At its full size where `tests/faults` runs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f46_a_replay_that_is_killed_loses_nothing_and_own_broker_is_emptied_by_the_next() {
    let mut row = Row::new("F46", "`warren dlq replay` killed with -9");
    let (n_jobs, n_kills) = Row::sized((1500, 2), (10_000, 5));
    let broker = Broker::start().await;
    let bench = Bench::at(&broker.url()).await;
    bench.bury_many(n_jobs).await;
    let replay = format!("dlq replay {}", bench.own);
    let queue = bench.queue("q");
    for kill in 1..=n_kills {
        let (mut child, _folder) = Command::new(Some(&bench.url), &replay).spawn();
        let goal = u32::try_from(kill * n_jobs / (n_kills + 1)).unwrap();
        eventually("the replay is under way", async || {
            (bench.n_ready(&queue).await >= Some(goal)).then_some(())
        })
        .await;
        child.kill().await.unwrap();
        assert!(child.wait().await.unwrap().code().is_none());
    }
    // The broker takes back what the killed ones held.
    let begun = Instant::now();
    eventually("a run finds nothing more", async || {
        let ran = bench.warren(&replay).await.ended_with(0);
        println!("{}", ran.text().trim());
        let is_empty = bench.n_ready(&bench.queue("dlq")).await == Some(0);
        (is_empty && ran.text().starts_with("0 replayed")).then_some(())
    })
    .await;
    row.note(format!(
        "the runs after the kills took {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    let ids = bench.ids(&queue).await;
    let is_there = |n: &usize| ids.contains_key(&format!("n{n}"));
    let n_lost = (0..n_jobs).filter(|n| !is_there(n)).count();
    let n_twice: usize = ids.values().map(|n| n - 1).sum();
    row.injected(format!("{n_kills} kill -9"));
    row.counted(n_jobs, n_lost, ids.len() - (n_jobs - n_lost), n_twice);
    // No more than what was under way at each kill.
    row.allow_duplicates(64 * n_kills);
    row.note("counted are the copies of each id in the work queue; nobody runs them");
    // The log knows it, too.
    let listed = bench.warren(&format!("dlq ls {} --json", bench.own)).await;
    let logged = &listed.ended_with(0).line("queue")["logged"];
    row.check(*logged == 0, format!("the log still lists {logged}"));
    bench.leave().await;
    row.finish();
}
