//! A run sees nothing of the host and nothing of its neighbours, and cannot hold them up.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use warren_protocol::Outcome;
use warren_runtime::{Fault, Stop};

use super::host::{Host, LONG, job, occasion, order, reply};

/// Fails unless everything that was tried was denied.
fn all_denied(seen: &Value) {
    for (what, result) in seen.as_object().unwrap() {
        assert!(result.get("denied").is_some(), "{what}: {result}");
    }
}

/// One thread for all: what does not give way stops the others.
#[tokio::test(flavor = "current_thread")]
async fn neighbours_of_an_endless_loop_go_on() {
    let host = Host::new();
    let pool = host.faulty(|worker| worker.limits.deadline = LONG).await;
    let stop = CancellationToken::new();
    let looping = async {
        let permit = pool.permit().await.unwrap();
        let job = job(&json!({"do": "loop"}));
        pool.run(&permit, &job, occasion(), stop.clone()).await
    };
    let neighbours = async {
        for _ in 0..10 {
            order(&pool, json!({"do": "done"})).await.verdict.unwrap();
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (run, ()) = tokio::join!(looping, neighbours);
    // It was still at it when the others had finished.
    assert_eq!(run.verdict, Err(Fault::Interrupted));
}

/// A guest that computes for long does so elsewhere than one that does not.
#[tokio::test]
async fn a_run_is_asked_for_before_each_of_its_steps() {
    let host = Host::new();
    let pool = host.faulty(|worker| worker.limits.deadline = LONG).await;
    for (order, after) in [("loop", 20), ("loop", 0), ("sleep", 0)] {
        let (stop, n_asked) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
        let is_over = move || n_asked.fetch_add(1, Ordering::Relaxed) >= after;
        let permit = pool.permit().await.unwrap();
        let job = job(&json!({"do": order}));
        let stop_of_run = Stop::when(stop.clone(), Arc::new(is_over));
        let run = pool.run(&permit, &job, occasion(), stop_of_run).await;
        assert_eq!(run.verdict, Err(Fault::Interrupted), "{order} {after}");
        assert!(stop.is_cancelled());
    }
}

#[tokio::test]
async fn nothing_survives_from_one_job_to_the_next() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    for _ in 0..3 {
        let state = reply(&pool, json!({"do": "state"})).await;
        assert_eq!(state, json!({"runs": 1}));
    }
}

#[tokio::test]
async fn a_guest_has_no_environment_and_no_arguments() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let seen = reply(&pool, json!({"do": "env"})).await;
    assert_eq!(seen, json!({"variables": [], "arguments": []}));
}

#[tokio::test]
async fn a_guest_sees_no_files() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    all_denied(&reply(&pool, json!({"do": "fs"})).await);
}

#[tokio::test]
async fn a_guest_has_no_network() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    all_denied(&reply(&pool, json!({"do": "net"})).await);
}

#[tokio::test]
async fn a_pool_runs_as_many_jobs_at_once_as_it_has_permits() {
    let host = Host::new();
    let pool = host.faulty(|worker| worker.limits.concurrency = 2).await;
    let first = pool.permit().await.unwrap();
    let _second = pool.permit().await.unwrap();
    assert_eq!(pool.in_flight(), 2);
    let third = pool.permit();
    tokio::pin!(third);
    assert!(futures_util::poll!(&mut third).is_pending());
    drop(first);
    third.await.unwrap();
}

#[tokio::test]
async fn a_pool_is_idle_when_its_last_run_has_ended() {
    let host = Host::new();
    let pool = host.faulty(|worker| worker.limits.concurrency = 2).await;
    pool.idle().await;
    let permit = pool.permit().await.unwrap();
    let idle = pool.idle();
    tokio::pin!(idle);
    assert!(futures_util::poll!(&mut idle).is_pending());
    drop(permit);
    idle.await;
    assert_eq!(pool.in_flight(), 0);
}

#[tokio::test]
async fn a_run_waits_while_the_host_has_no_room_for_its_instance() {
    let host = Host::new();
    let pool = host.faulty(|worker| worker.limits.concurrency = 60).await;
    let stop = CancellationToken::new();
    let sleeping = (0..50).map(|_| async {
        let permit = pool.permit().await.unwrap();
        let job = job(&json!({"do": "sleep"}));
        pool.run(&permit, &job, occasion(), stop.clone()).await
    });
    let one_more = async {
        while pool.in_flight() < 50 {
            tokio::task::yield_now().await;
        }
        // Each of them takes the host's permit in the same breath, unless tokio makes it pause.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let waiting = pool.permit();
        tokio::pin!(waiting);
        // The others were there first, and hold all that the host has.
        assert!(futures_util::poll!(&mut waiting).is_pending());
        stop.cancel();
        let permit = waiting.await.unwrap();
        let job = job(&json!({"do": "done"}));
        pool.run(&permit, &job, occasion(), CancellationToken::new())
            .await
    };
    let (_, run) = tokio::join!(futures_util::future::join_all(sleeping), one_more);
    assert_eq!(run.verdict, Ok(Outcome::Done));
}
