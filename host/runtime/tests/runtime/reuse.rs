//! Instances that serve several runs: when they are given up, and that a run finds nothing of the
//! ones before it but the guest's own memory.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use warren_protocol::Outcome;
use warren_runtime::{Fault, JobRun, Occasion, Pool, Reuse, Worker};

use super::host::{
    Host, LONG, SHORT, capture, guest, job, occasion, order, order_until, reply, value,
};

const REUSE: Reuse = Reuse {
    calls: 1000,
    memory_bytes: 32 << 20,
    age: LONG,
};

/// The guest `faulty`, with instances that are reused.
async fn reusing(host: &Host, set: impl FnOnce(&mut Worker, &mut Reuse)) -> Pool {
    host.faulty(|worker| {
        let mut reuse = REUSE;
        set(worker, &mut reuse);
        worker.reuse = Some(reuse);
    })
    .await
}

/// How many runs, this one included, the instance has served that comes next.
async fn n_served(pool: &Pool) -> u64 {
    let state = reply(pool, json!({"do": "state"})).await;
    state["runs"].as_u64().unwrap()
}

/// A figure of the instances of FX.
fn figure(host: &Host, name: &str, reason: Option<&str>) -> u64 {
    let reason = reason.map_or(String::new(), |reason| format!(r#"reason="{reason}","#));
    let series = format!(r#"warren_instances_{name}{{{reason}worker="FX"}} "#);
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&host.registry.gather())
        .unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.map_or(0, |value| value.parse().unwrap())
}

fn n_dropped(host: &Host, reason: &str) -> u64 {
    figure(host, "dropped_total", Some(reason))
}

/// Runs an order as another job than the usual one.
async fn order_as(pool: &Pool, data: Value, occasion: Occasion) -> JobRun {
    let permit = pool.permit().await.unwrap();
    let mut job = job(&data);
    job.id.clone_from(&occasion.job_id);
    let stop = CancellationToken::new();
    pool.run(&permit, &job, occasion, stop).await
}

fn other_occasion() -> Occasion {
    Occasion {
        job_id: "J2".to_owned(),
        attempt: 7,
        correlation_id: None,
        trace_parent: None,
    }
}

/// Leaves so many idle instances.
async fn leave_idle(pool: &Pool, n: usize) {
    let runs = (0..n).map(|_| reply(pool, json!({"do": "wait", "ms": 100})));
    join_all(runs).await;
    assert_eq!(pool.idle_instances(), n);
}

/// Waits until no instance is idle, without giving it a reason.
async fn until_none_is_idle(pool: &Pool) {
    let started = Instant::now();
    while pool.idle_instances() > 0 {
        assert!(started.elapsed() < LONG, "they are kept");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_instance_serves_one_run_after_the_other() {
    let host = Host::new();
    let pool = reusing(&host, |_, _| ()).await;
    for n in 1..=5 {
        assert_eq!(n_served(&pool).await, n);
        assert_eq!(pool.idle_instances(), 1);
    }
    assert_eq!(figure(&host, "created_total", None), 1);
    assert_eq!(figure(&host, "reused_total", None), 4);
    assert_eq!(figure(&host, "idle", None), 1);
    drop(pool);
    assert_eq!(figure(&host, "idle", None), 0);
    assert_eq!(n_dropped(&host, "replaced"), 1);
}

#[tokio::test]
async fn without_reuse_every_run_makes_an_instance_and_leaves_none() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    for _ in 0..3 {
        assert_eq!(n_served(&pool).await, 1);
    }
    assert_eq!(pool.idle_instances(), 0);
    assert_eq!(figure(&host, "created_total", None), 3);
    assert_eq!(figure(&host, "reused_total", None), 0);
}

#[tokio::test]
async fn an_instance_that_has_served_its_number_of_runs_serves_no_more() {
    let host = Host::new();
    let pool = reusing(&host, |_, reuse| reuse.calls = 3).await;
    for n in [1, 2, 3, 1, 2, 3, 1] {
        assert_eq!(n_served(&pool).await, n);
    }
    assert_eq!(n_dropped(&host, "calls"), 2);
}

#[tokio::test]
async fn an_instance_that_has_grown_serves_no_more() {
    let host = Host::new();
    let pool = reusing(&host, |_, reuse| reuse.memory_bytes = 4 << 20).await;
    assert_eq!(n_served(&pool).await, 1);
    assert_eq!(n_served(&pool).await, 2);
    reply(&pool, json!({"do": "large", "n": 3000})).await;
    assert_eq!(pool.idle_instances(), 0);
    assert_eq!(n_dropped(&host, "memory"), 1);
    assert_eq!(n_served(&pool).await, 1);
}

#[tokio::test]
async fn an_operator_is_told_once_that_a_guest_is_too_large_to_be_reused() {
    let host = Host::new();
    let pool = reusing(&host, |_, reuse| reuse.memory_bytes = 64 << 10).await;
    let (captured, _guard) = capture();
    for _ in 0..3 {
        assert_eq!(n_served(&pool).await, 1);
    }
    let text = captured.text();
    assert_eq!(
        text.matches("no instance is used again").count(),
        1,
        "{text}"
    );
}

#[tokio::test]
async fn memory_comes_back_at_the_age_of_an_instance_though_nothing_runs() {
    let host = Host::new();
    let pool = reusing(&host, |_, reuse| reuse.age = SHORT).await;
    for _ in 0..2 {
        let started = Instant::now();
        leave_idle(&pool, 2).await;
        until_none_is_idle(&pool).await;
        assert!(started.elapsed() >= SHORT);
    }
    assert_eq!(n_dropped(&host, "age"), 4);
    assert_eq!(n_served(&pool).await, 1);
}

#[tokio::test]
async fn an_instance_that_comes_of_age_in_a_run_ends_with_it() {
    let host = Host::new();
    let pool = reusing(&host, |_, reuse| reuse.age = Duration::from_millis(50)).await;
    reply(&pool, json!({"do": "wait", "ms": 60})).await;
    assert_eq!(pool.idle_instances(), 0);
    assert_eq!(n_dropped(&host, "age"), 1);
}

#[tokio::test]
async fn an_instance_ends_with_any_failure() {
    let host = Host::new();
    let pool = reusing(&host, |worker, _| {
        worker.limits.deadline = SHORT;
        worker.limits.memory_bytes = 8 << 20;
        worker.limits.payload_bytes = 1 << 20;
    })
    .await;
    let failing = [
        json!({"do": "panic"}),
        json!({"do": "abort"}),
        json!({"do": "exit"}),
        json!({"do": "recurse"}),
        json!({"do": "allocate"}),
        json!({"do": "loop"}),
        json!({"do": "sleep"}),
        json!({"do": "send-then-panic"}),
        json!({"do": "sql-panic", "statements": ["CREATE TABLE t (n)"]}),
        // A result that is too large.
        json!({"do": "large", "n": 2000}),
        // A route that is none.
        json!({"do": "route", "to": "A:17"}),
    ];
    for (n, data) in failing.into_iter().enumerate() {
        assert_eq!(n_served(&pool).await, 1, "{data}");
        let run = order(&pool, data.clone()).await;
        assert!(run.verdict.is_err(), "{data}");
        assert_eq!(run.sends, [], "{data}");
        assert_eq!(pool.idle_instances(), 0, "{data}");
        assert_eq!(n_dropped(&host, "fault"), n as u64 + 1, "{data}");
    }
}

#[tokio::test]
async fn an_instance_ends_with_an_interruption() {
    let host = Host::new();
    let pool = reusing(&host, |_, _| ()).await;
    assert_eq!(n_served(&pool).await, 1);
    let stop = CancellationToken::new();
    let interrupt = async {
        tokio::task::yield_now().await;
        stop.cancel();
    };
    let sleep = order_until(&pool, json!({"do": "sleep"}), stop.clone());
    let (run, ()) = tokio::join!(sleep, interrupt);
    assert_eq!(run.verdict, Err(Fault::Interrupted));
    assert_eq!(pool.idle_instances(), 0);
    assert_eq!(n_served(&pool).await, 1);
}

#[tokio::test]
async fn an_instance_that_was_denied_memory_ends_though_it_went_on_without() {
    let host = Host::new();
    let pool = reusing(&host, |_, _| ()).await;
    let grown = reply(&pool, json!({"do": "grow", "n": 1})).await;
    assert_eq!(grown, json!({"granted": true}));
    assert_eq!(pool.idle_instances(), 1);
    let grown = reply(&pool, json!({"do": "grow", "n": 1000})).await;
    assert_eq!(grown, json!({"granted": false}));
    assert_eq!(pool.idle_instances(), 0);
    assert_eq!(n_dropped(&host, "denied"), 1);
}

#[tokio::test]
async fn a_rejection_is_about_the_job_and_a_retry_is_not() {
    let host = Host::new();
    let pool = reusing(&host, |_, _| ()).await;
    assert_eq!(n_served(&pool).await, 1);
    let run = order(&pool, json!({"do": "reject"})).await;
    assert!(matches!(run.verdict, Ok(Outcome::Reject { .. })));
    assert_eq!(n_served(&pool).await, 2);
    let run = order(&pool, json!({"do": "retry"})).await;
    assert!(matches!(run.verdict, Ok(Outcome::Retry { .. })));
    assert_eq!(n_dropped(&host, "retry"), 1);
    assert_eq!(n_served(&pool).await, 1);
}

#[tokio::test]
async fn a_transaction_that_is_left_open_is_rolled_back_and_ends_its_instance() {
    let host = Host::new();
    let pool = reusing(&host, |_, _| ()).await;
    let run = |data| reply(&pool, data);
    run(json!({"do": "sql-run", "statements": ["CREATE TABLE t (n)"]})).await;
    assert_eq!(pool.idle_instances(), 1);
    let leave = json!({"do": "sql-leave", "statements": ["INSERT INTO t VALUES (1)"]});
    assert_eq!(order(&pool, leave).await.verdict, Ok(Outcome::Done));
    assert_eq!(pool.idle_instances(), 0);
    assert_eq!(n_dropped(&host, "held"), 1);
    let select = json!({"do": "sql-run", "statements": ["SELECT n FROM t"]});
    assert_eq!(run(select).await[0]["rows"], json!([]));
    // One that is over holds nothing.
    let insert = json!({"do": "sql"});
    run(insert).await;
    assert_eq!(n_served(&pool).await, 1);
    assert_eq!(n_dropped(&host, "held"), 1);
}

#[tokio::test]
async fn idle_instances_hold_no_connection_to_the_database() {
    let host = Host::new();
    let pool = reusing(&host, |_, _| ()).await;
    leave_idle(&pool, 12).await;
    let select = || json!({"do": "sql-run", "statements": ["SELECT 1"]});
    let runs = (0..12).map(|_| reply(&pool, select()));
    join_all(runs).await;
    assert_eq!(pool.idle_instances(), 12);
    // All connections would be theirs, and this one would wait in vain.
    let other = host.faulty(|_| ()).await;
    let read = reply(&other, select()).await;
    assert_eq!(read[0]["rows"], json!([[1]]), "{read}");
}

#[tokio::test]
async fn a_run_is_told_of_its_own_occasion() {
    let host = Host::new();
    let pool = reusing(&host, |_, _| ()).await;
    let told = reply(&pool, json!({"do": "context"})).await;
    assert_eq!(told["trace_parent"], "00-01-02-01");
    let run = order_as(&pool, json!({"do": "context"}), other_occasion()).await;
    let Ok(Outcome::Forward(told)) = run.verdict else {
        panic!("{run:?}")
    };
    let told = value(&told);
    assert_eq!(told["attempt"], 7);
    assert_eq!(told["job_id"], "J2");
    assert_eq!(told["trace_parent"], Value::Null);
    assert_eq!(told["correlation_id"], Value::Null);
    assert_eq!(figure(&host, "reused_total", None), 1);
}

#[tokio::test]
async fn each_run_has_the_whole_deadline() {
    let host = Host::new();
    let deadline = Duration::from_millis(800);
    let pool = reusing(&host, |worker, _| worker.limits.deadline = deadline).await;
    for _ in 0..4 {
        reply(&pool, json!({"do": "wait", "ms": 300})).await;
    }
    // The instance has been idle for longer than a run may take.
    tokio::time::sleep(deadline).await;
    let told = reply(&pool, json!({"do": "context"})).await;
    assert!(told["deadline_ms"].as_u64().unwrap() > 500, "{told}");
    assert_eq!(figure(&host, "created_total", None), 1);
    // And the second run's own deadline counts.
    let run = order(&pool, json!({"do": "loop"})).await;
    assert_eq!(run.verdict, Err(Fault::Deadline(deadline)));
}

#[tokio::test]
async fn whoever_stops_one_run_does_not_stop_the_next() {
    let host = Host::new();
    let pool = reusing(&host, |_, _| ()).await;
    let stop = CancellationToken::new();
    order_until(&pool, json!({"do": "state"}), stop.clone()).await;
    stop.cancel();
    assert_eq!(n_served(&pool).await, 2);
    let told = reply(&pool, json!({"do": "context"})).await;
    assert_eq!(told["is_cancelled"], false);
}

#[tokio::test]
async fn what_a_run_without_success_has_sent_goes_out_with_no_other() {
    let host = Host::new();
    let pool = reusing(&host, |worker, _| worker.limits.sends = 3).await;
    for _ in 0..2 {
        let run = order(&pool, json!({"do": "send-then-reject", "n": 3})).await;
        assert!(matches!(run.verdict, Ok(Outcome::Reject { .. })));
        assert_eq!(run.sends, []);
        let run = order(&pool, json!({"do": "send", "to": "A:*", "n": 3})).await;
        assert_eq!(run.verdict, Ok(Outcome::Done), "each may send three");
        assert_eq!(run.sends.len(), 3);
        assert!(run.sends.iter().all(|slip| slip.stops[0].as_str() == "A:*"));
    }
    assert_eq!(figure(&host, "created_total", None), 1);
}

#[tokio::test]
async fn each_run_writes_its_own_log() {
    let host = Host::new();
    let pool = reusing(&host, |worker, _| worker.limits.log_bytes = 10_000).await;
    let (captured, _guard) = capture();
    for occasion in [occasion(), other_occasion()] {
        let job_id = occasion.job_id.clone();
        let before = captured.text().len();
        order_as(&pool, json!({"do": "print"}), occasion.clone()).await;
        order_as(&pool, json!({"do": "log"}), occasion.clone()).await;
        let text = captured.text().split_off(before);
        for said in ["a line on stdout", "a line on stderr", "an info line"] {
            let line = text.lines().find(|line| line.contains(said)).unwrap();
            assert!(line.contains(&job_id), "{line}");
        }
        // A run that has written more than it may does not silence the next one.
        order_as(&pool, json!({"do": "write", "n": 100}), occasion).await;
    }
    // A stream that the guest keeps is no reason to drop it.
    assert_eq!(figure(&host, "created_total", None), 1);
    assert_eq!(captured.text().matches("more than `log`").count(), 2);
}

#[tokio::test]
async fn the_last_words_of_a_run_are_its_own() {
    let host = Host::new();
    let pool = reusing(&host, |_, _| ()).await;
    let (captured, _guard) = capture();
    let murmur = json!({"do": "murmur", "reason": "a secret of J1"});
    reply(&pool, murmur).await;
    let panic = json!({"do": "panic", "reason": "the end of J2"});
    let run = order_as(&pool, panic, other_occasion()).await;
    let Err(Fault::Trap(text)) = run.verdict else {
        panic!("{run:?}")
    };
    assert!(text.contains("the end of J2"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    let text = captured.text();
    let line = text.lines().find(|line| line.contains("secret")).unwrap();
    assert!(line.contains("J1") && !line.contains("J2"), "{line}");
    assert_eq!(figure(&host, "reused_total", None), 1);
}

#[tokio::test]
async fn a_worker_that_is_replaced_keeps_no_instance() {
    let host = Host::new();
    let pool = reusing(&host, |_, _| ()).await;
    leave_idle(&pool, 2).await;
    let retire = async {
        while pool.in_flight() == 0 {
            tokio::task::yield_now().await;
        }
        pool.retire();
        assert_eq!(pool.idle_instances(), 0);
    };
    let run = reply(&pool, json!({"do": "wait", "ms": 100}));
    let (waited, ()) = tokio::join!(run, retire);
    assert_eq!(waited, json!({"waited": 100}), "what runs goes on");
    assert_eq!(pool.idle_instances(), 0);
    assert_eq!(n_dropped(&host, "replaced"), 2);
}

#[tokio::test]
async fn idle_instances_make_room_for_other_workers() {
    let host = Host::of(3);
    let pool = reusing(&host, |_, _| ()).await;
    leave_idle(&pool, 3).await;
    let other = Pool::new(host.load(guest("faulty")).await.unwrap(), host.worker("FY"));
    assert_eq!(n_served(&other).await, 1);
    assert_eq!(pool.idle_instances(), 2, "one place was needed");
    let runs = (0..3).map(|_| reply(&other, json!({"do": "wait", "ms": 50})));
    join_all(runs).await;
    assert_eq!(pool.idle_instances(), 0);
    assert_eq!(n_dropped(&host, "evicted"), 3);
}

#[tokio::test]
async fn the_instance_that_has_been_idle_for_the_longest_makes_room() {
    let host = Host::of(2);
    let pool = reusing(&host, |_, _| ()).await;
    leave_idle(&pool, 2).await;
    // The one that is used last counts its runs.
    assert_eq!(n_served(&pool).await, 1);
    let other = Pool::new(host.load(guest("faulty")).await.unwrap(), host.worker("FY"));
    n_served(&other).await;
    assert_eq!(pool.idle_instances(), 1);
    assert_eq!(n_served(&pool).await, 2);
}

#[tokio::test]
async fn a_full_host_still_uses_its_idle_instances() {
    let host = Host::of(1);
    let pool = reusing(&host, |_, _| ()).await;
    for n in 1..=3 {
        assert_eq!(n_served(&pool).await, n);
    }
}

#[tokio::test]
async fn there_are_never_more_instances_than_runs_at_the_same_time() {
    let host = Host::new();
    let pool = Arc::new(reusing(&host, |worker, _| worker.limits.concurrency = 2).await);
    let runs = (0..40).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move { reply(&pool, json!({"do": "wait", "ms": 5})).await })
    });
    for run in join_all(runs).await {
        run.unwrap();
    }
    assert_eq!(figure(&host, "created_total", None), 2);
    assert_eq!(figure(&host, "reused_total", None), 38);
    assert_eq!(pool.idle_instances(), 2);
}

/// Serves a request with `http_faulty` and reads the whole response.
async fn status(pool: &Pool, query: &str) -> Option<u16> {
    let body = Full::new(Bytes::from("{}")).map_err(|never| match never {});
    let request = http::Request::post(format!("http://localhost/faulty/?{query}"))
        .header("host", "localhost")
        .body(body.boxed_unsync())
        .unwrap();
    let permit = pool.permit().await.unwrap();
    let stop = CancellationToken::new();
    let response = pool.serve(permit, request, occasion(), stop).await.ok()?;
    let status = response.response.status().as_u16();
    response.response.into_body().collect().await.ok()?;
    pool.idle().await;
    Some(status)
}

#[tokio::test]
async fn requests_are_served_by_one_instance_until_it_fails() {
    let host = Host::new();
    let mut worker = host.worker("FX");
    worker.reuse = Some(REUSE);
    worker.limits.deadline = SHORT;
    let pool = Pool::new(host.load(guest("http_faulty")).await.unwrap(), worker);
    for query in [
        "do=echo",
        "do=stream",
        "do=log",
        "do=send&to=A:*",
        "do=error",
    ] {
        assert!(status(&pool, query).await.is_some(), "{query}");
        assert_eq!(pool.idle_instances(), 1, "{query}");
    }
    assert_eq!(figure(&host, "created_total", None), 1);
    assert_eq!(figure(&host, "reused_total", None), 4);
    for (n, query) in ["do=panic", "do=sleep"].into_iter().enumerate() {
        assert_eq!(status(&pool, query).await, None, "{query}");
        assert_eq!(n_dropped(&host, "fault"), n as u64 + 1, "{query}");
        assert_eq!(status(&pool, "do=echo").await, Some(200));
        assert_eq!(pool.idle_instances(), 1);
    }
}

#[tokio::test]
async fn a_response_that_still_streams_keeps_its_instance() {
    let host = Host::new();
    let mut worker = host.worker("FX");
    worker.reuse = Some(REUSE);
    worker.limits.deadline = SHORT;
    let pool = Pool::new(host.load(guest("http_faulty")).await.unwrap(), worker);
    let body = Full::new(Bytes::new()).map_err(|never| match never {});
    let request = http::Request::post("http://localhost/faulty/?do=stream&n=8")
        .header("host", "localhost")
        .body(body.boxed_unsync())
        .unwrap();
    let permit = pool.permit().await.unwrap();
    let stop = CancellationToken::new();
    let _unread = pool.serve(permit, request, occasion(), stop).await.unwrap();
    assert_eq!(pool.idle_instances(), 0);
    assert_eq!(status(&pool, "do=echo").await, Some(200));
    assert_eq!(figure(&host, "created_total", None), 2);
    // It was stopped at its deadline, and is not used again.
    assert_eq!(pool.idle_instances(), 1);
    assert_eq!(n_dropped(&host, "fault"), 1);
}
