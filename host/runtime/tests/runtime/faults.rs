//! Each way in which a run can go wrong: what it is called, and that the next run is well.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use warren_protocol::Outcome;
use warren_runtime::{Fault, JobRun, Pool};

use super::host::{Host, SHORT, order, order_until, reply};

/// How late a stop may be: some ticks, and a busy machine. Less than the 610 ms after which a
/// busy tokio looks at its timers.
const LATE: Duration = Duration::from_millis(280);

/// Runs an order that must fail, and then one that must not.
async fn fault(pool: &Pool, data: Value) -> Fault {
    let JobRun { verdict, sends, .. } = order(pool, data).await;
    assert_eq!(sends, [], "a failed run has sent nothing");
    assert_eq!(
        reply(pool, json!({"do": "state"})).await,
        json!({"runs": 1})
    );
    verdict.unwrap_err()
}

async fn stopped_at_its_deadline(data: Value) {
    let host = Host::new();
    let pool = host
        .faulty(|worker| {
            worker.limits.deadline = SHORT;
            worker.limits.host_calls = u64::MAX;
        })
        .await;
    let pool = Arc::new(pool);
    // A task of its own, as in the host: a runtime that always has a task to run looks at its
    // timers only after every 61.
    let spawned = pool.clone();
    let run = tokio::spawn(async move { order(&spawned, data).await });
    let run = run.await.unwrap();
    assert_eq!(run.verdict, Err(Fault::Deadline(SHORT)));
    assert!(
        run.took >= SHORT && run.took < SHORT + LATE,
        "{:?}",
        run.took
    );
    assert_eq!(
        reply(&pool, json!({"do": "state"})).await,
        json!({"runs": 1})
    );
}

async fn interrupted_at_once(data: Value) {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let stop = CancellationToken::new();
    let interrupt = async {
        // The guest has begun when it gives way for the first time.
        tokio::task::yield_now().await;
        stop.cancel();
    };
    let (run, ()) = tokio::join!(order_until(&pool, data, stop.clone()), interrupt);
    assert_eq!(run.verdict, Err(Fault::Interrupted));
    assert!(run.took < LATE, "{:?}", run.took);
    assert_eq!(
        reply(&pool, json!({"do": "state"})).await,
        json!({"runs": 1})
    );
}

#[tokio::test]
async fn an_endless_loop_is_stopped_at_its_deadline() {
    stopped_at_its_deadline(json!({"do": "loop"})).await;
}

#[tokio::test]
async fn an_endless_loop_of_host_calls_is_stopped_at_its_deadline() {
    stopped_at_its_deadline(json!({"do": "host-calls"})).await;
}

#[tokio::test]
async fn a_sleeping_guest_is_stopped_at_its_deadline() {
    stopped_at_its_deadline(json!({"do": "sleep"})).await;
}

#[tokio::test]
async fn a_looping_guest_can_be_interrupted() {
    interrupted_at_once(json!({"do": "loop"})).await;
}

#[tokio::test]
async fn a_sleeping_guest_can_be_interrupted() {
    interrupted_at_once(json!({"do": "sleep"})).await;
}

#[tokio::test]
async fn a_run_that_is_stopped_before_it_begins_does_not_begin() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let stop = CancellationToken::new();
    stop.cancel();
    let run = order_until(&pool, json!({"do": "done"}), stop).await;
    assert_eq!(run.verdict, Err(Fault::Interrupted));
}

#[tokio::test]
async fn a_deadline_beyond_every_clock_is_none() {
    let host = Host::new();
    let pool = host.faulty(|w| w.limits.deadline = Duration::MAX).await;
    let run = order(&pool, json!({"do": "done"})).await;
    assert_eq!(run.verdict, Ok(Outcome::Done));
}

#[tokio::test]
async fn a_panic_is_a_trap_with_the_guests_own_words() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let fault = fault(&pool, json!({"do": "panic", "reason": "out of cheese"})).await;
    assert!(
        matches!(&fault, Fault::Trap(text) if text.contains("out of cheese")),
        "{fault:?}"
    );
    assert_eq!(fault.reason(), "trap");
}

#[tokio::test]
async fn an_abort_is_a_trap() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let fault = fault(&pool, json!({"do": "abort"})).await;
    assert!(matches!(fault, Fault::Trap(_)), "{fault:?}");
}

#[tokio::test]
async fn endless_recursion_is_a_trap() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let fault = fault(&pool, json!({"do": "recurse"})).await;
    assert!(matches!(fault, Fault::Trap(_)), "{fault:?}");
}

#[tokio::test]
async fn an_exit_is_a_fault_of_its_own() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    assert_eq!(fault(&pool, json!({"do": "exit"})).await, Fault::Exit);
}

#[tokio::test]
async fn too_much_memory_is_told_apart_from_a_panic() {
    let limit_bytes = 8 << 20;
    let host = Host::new();
    let pool = host.faulty(|w| w.limits.memory_bytes = limit_bytes).await;
    let fault = fault(&pool, json!({"do": "allocate"})).await;
    assert_eq!(fault, Fault::Memory { limit_bytes });
    assert_eq!(fault.reason(), "oom");
}

#[tokio::test]
async fn a_limit_over_what_the_engine_sets_aside_is_still_a_fault_of_memory() {
    let limit_bytes = 512 << 20;
    let host = Host::new();
    let pool = host.faulty(|w| w.limits.memory_bytes = limit_bytes).await;
    let fault = fault(&pool, json!({"do": "allocate"})).await;
    assert_eq!(fault, Fault::Memory { limit_bytes });
}

#[tokio::test]
async fn a_rejection_and_a_wish_for_another_attempt_are_no_faults() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let reason = "no".to_owned();
    let run = order(&pool, json!({"do": "reject", "reason": "no"})).await;
    assert_eq!(
        run.verdict,
        Ok(Outcome::Reject {
            reason: reason.clone()
        })
    );
    let run = order(&pool, json!({"do": "retry", "reason": "no", "ms": 7})).await;
    let after = Some(Duration::from_millis(7));
    assert_eq!(run.verdict, Ok(Outcome::Retry { after, reason }));
}

#[tokio::test]
async fn four_kibibytes_of_a_reason_are_kept() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let run = order(&pool, json!({"do": "reject", "reason": "ü".repeat(5000)})).await;
    let Ok(Outcome::Reject { reason }) = run.verdict else {
        panic!("{:?}", run.verdict)
    };
    assert_eq!(reason.len(), 4096);
}

#[tokio::test]
async fn a_payload_over_the_limit_does_not_go_in() {
    let host = Host::new();
    let pool = host.faulty(|w| w.limits.payload_bytes = 100).await;
    let fault = fault(&pool, json!({"do": "echo", "data": "x".repeat(100)})).await;
    assert!(
        matches!(&fault, Fault::Payload(text) if text.contains("limit is 100")),
        "{fault:?}"
    );
}

#[tokio::test]
async fn a_payload_over_the_limit_does_not_come_out() {
    let host = Host::new();
    let pool = host.faulty(|w| w.limits.payload_bytes = 200).await;
    // The context has more to say than it was asked.
    let fault = fault(&pool, json!({"do": "context"})).await;
    assert!(
        matches!(&fault, Fault::Payload(text) if text.contains("limit is 200")),
        "{fault:?}"
    );
}
