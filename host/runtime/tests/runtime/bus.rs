//! What a guest sends is held until it has succeeded; what it calls goes out at once.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt;
use serde_json::{Value, json};
use warren_protocol::{CallError, Outcome, Payload, Slip};
use warren_runtime::{Call, CallFn, Fault, Pool};

use super::host::{Host, LONG, json as payload, order, reply, value};

/// Answers every call with `answer` and keeps what was called.
pub(crate) fn answering(answer: Result<Payload, CallError>) -> (CallFn, Arc<Mutex<Vec<Call>>>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let kept = calls.clone();
    let answering: CallFn = Arc::new(move |call| {
        kept.lock().unwrap().push(call);
        let answer = answer.clone();
        async move { answer }.boxed()
    });
    (answering, calls)
}

/// Runs an order whose sends must be refused, and returns why.
async fn refused(pool: &Pool, data: Value) -> String {
    let run = order(pool, data).await;
    assert_eq!(run.sends, []);
    match run.verdict {
        Ok(Outcome::Reject { reason } | Outcome::Retry { reason, .. }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn what_a_successful_run_has_sent_comes_back_in_order() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let to = json!(["A:*", "B:2000000000000"]);
    let data = json!({"to": "x"});
    let run = order(&pool, json!({"do": "send", "to": to, "n": 3, "data": data})).await;
    assert_eq!(run.verdict, Ok(Outcome::Done));
    let sent = |Slip { stops, data }: &Slip| {
        let stops: Vec<&str> = stops.iter().map(|stop| stop.as_str()).collect();
        assert_eq!(stops, ["A:*", "B:2000000000000"]);
        value(data)["index"].as_u64().unwrap()
    };
    let indices: Vec<u64> = run.sends.iter().map(sent).collect();
    assert_eq!(indices, [0, 1, 2]);
}

#[tokio::test]
async fn a_run_that_fails_has_sent_nothing() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let run = order(&pool, json!({"do": "send-then-panic", "n": 3})).await;
    assert!(matches!(run.verdict, Err(Fault::Trap(_))));
    assert_eq!(run.sends, []);
    let run = order(&pool, json!({"do": "send-then-reject", "n": 3})).await;
    assert!(matches!(run.verdict, Ok(Outcome::Reject { .. })));
    assert_eq!(run.sends, []);
}

#[tokio::test]
async fn one_run_may_send_only_so_many_jobs() {
    let host = Host::new();
    let pool = host.faulty(|worker| worker.limits.sends = 3).await;
    let run = order(&pool, json!({"do": "send", "n": 3})).await;
    assert_eq!(run.sends.len(), 3);
    let reason = refused(&pool, json!({"do": "send", "n": 4})).await;
    assert!(reason.contains("3 jobs"), "{reason}");
}

#[tokio::test]
async fn one_run_may_send_only_so_many_bytes() {
    let host = Host::new();
    let pool = host.faulty(|w| w.limits.payload_bytes = 1000).await;
    let data = "x".repeat(800);
    let run = order(&pool, json!({"do": "send", "n": 4, "data": data})).await;
    assert_eq!(run.sends.len(), 4);
    let reason = refused(&pool, json!({"do": "send", "n": 6, "data": data})).await;
    assert!(reason.contains("4000 bytes"), "{reason}");
}

#[tokio::test]
async fn a_wrong_stop_is_named() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let reason = refused(&pool, json!({"do": "send", "to": "A:17"})).await;
    assert!(reason.contains("`A:17`"), "{reason}");
    let reason = refused(&pool, json!({"do": "send", "to": []})).await;
    assert!(reason.contains("no stop"), "{reason}");
    let reason = refused(&pool, json!({"do": "send", "to": vec!["A:*"; 257]})).await;
    assert!(reason.contains("257 stops"), "{reason}");
}

#[tokio::test]
async fn a_route_to_a_wrong_stop_is_a_fault() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let run = order(&pool, json!({"do": "route", "to": "A:17"})).await;
    let Err(Fault::Payload(text)) = run.verdict else {
        panic!("{:?}", run.verdict)
    };
    assert!(text.contains("`A:17`"), "{text}");
}

#[tokio::test]
async fn a_call_carries_its_slip_and_brings_the_reply() {
    let (call, calls) = answering(Ok(payload(&json!({"n": 1}))));
    let host = Host::new();
    let pool = host.faulty(|worker| worker.call = call).await;
    let answer = reply(
        &pool,
        json!({"do": "call", "to": "B:*", "data": [1], "ms": 1234}),
    )
    .await;
    assert_eq!(answer, json!({"reply": {"n": 1}}));
    let calls = calls.lock().unwrap();
    let [call] = calls.as_slice() else {
        panic!("{calls:?}")
    };
    assert_eq!(call.slip.stops[0].as_str(), "B:*");
    assert_eq!(value(&call.slip.data), json!([1]));
    assert_eq!(call.timeout, Duration::from_millis(1234));
    assert_eq!(call.trace_parent.as_deref(), Some("00-01-02-01"));
}

#[tokio::test]
async fn a_call_waits_no_longer_than_the_run_may() {
    let (call, calls) = answering(Ok(payload(&json!({}))));
    let host = Host::new();
    let pool = host.faulty(|worker| worker.call = call).await;
    reply(&pool, json!({"do": "call", "ms": 3_600_000})).await;
    reply(&pool, json!({"do": "call", "ms": u64::MAX})).await;
    reply(&pool, json!({"do": "call"})).await;
    let waits: Vec<Duration> = calls.lock().unwrap().iter().map(|c| c.timeout).collect();
    assert!(waits[0] < LONG && waits[1] < LONG, "{waits:?}");
    assert_eq!(waits[2], Duration::from_secs(10), "the default");
}

#[tokio::test]
async fn a_call_that_is_malformed_does_not_go_out() {
    let (call, calls) = answering(Ok(payload(&json!({}))));
    let host = Host::new();
    let pool = host.faulty(|worker| worker.call = call).await;
    let answer = reply(&pool, json!({"do": "call", "to": "A:17"})).await;
    assert_eq!(answer["error"], "invalid");
    assert!(calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_guest_can_tell_the_errors_of_a_call_apart() {
    let host = Host::new();
    let text = || "why".to_owned();
    let check = async |error: CallError, expected: &str| {
        let (call, _) = answering(Err(error));
        let pool = host.faulty(|worker| worker.call = call).await;
        let answer = reply(&pool, json!({"do": "call"})).await;
        assert_eq!(answer["error"], expected, "{answer}");
        assert_ne!(answer["text"], "");
    };
    check(CallError::Invalid { reason: text() }, "invalid").await;
    let worker_type = text();
    check(CallError::UnknownType { worker_type }, "unknown-type").await;
    let address = text();
    check(CallError::NoLiveWorker { address }, "no-live-worker").await;
    let worker_type = text();
    check(CallError::QueueFull { worker_type }, "queue-full").await;
    let (address, after_ms) = (text(), 5);
    check(CallError::Timeout { address, after_ms }, "timeout").await;
    check(CallError::Unavailable { reason: text() }, "unavailable").await;
    let (worker, attempts, reason) = (text(), 3, text());
    let failed = CallError::Failed {
        worker,
        attempts,
        reason,
    };
    check(failed, "failed").await;
}

#[tokio::test]
async fn a_reply_that_is_too_large_is_an_error_of_the_call() {
    let (call, _) = answering(Ok(payload(&json!("x".repeat(2000)))));
    let host = Host::new();
    let pool = host
        .faulty(|worker| {
            worker.call = call;
            worker.limits.payload_bytes = 1000;
        })
        .await;
    let answer = reply(&pool, json!({"do": "call"})).await;
    assert_eq!(answer["error"], "other", "{answer}");
}
