//! A worker whose jobs all fail pauses, and a caller of a worker that is not there does not wait.

use std::time::{Duration, Instant};

use serde_json::json;
use warren_tests::{Broker, Peer, Site, eventually, soon};

use super::{call, faulty_host, figure, finished, n_finished};
use crate::{has, problem, reload::departure};

on_both_buses! {
    a_call_to_a_type_whose_worker_has_left_fails_before_its_timeout
}

async fn a_call_to_a_type_whose_worker_has_left_fails_before_its_timeout(site: &Site) {
    let host = faulty_host(site, "call_timeout = \"60s\"\n").await;
    let first = call(&host, "FX:*", &json!({"do": "echo"})).await;
    assert_eq!(first.status, 200, "{}", first.text());
    host.take_out("faulty.wasm");
    departure(&host, "FX").await;
    let asked = Instant::now();
    let refused = call(&host, "FX:*", &json!({"do": "echo"})).await;
    has(&problem(&refused, 500), ["no worker is alive", "FX:*"]);
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
    // Known by now.
    let asked = Instant::now();
    let refused = call(&host, "FX:*", &json!({"do": "echo"})).await;
    has(&problem(&refused, 500), ["no worker is alive", "FX:*"]);
    assert!(
        asked.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked.elapsed()
    );
}

/// `FX` needs what `FT` says, and `FT` is mute for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_jobs_all_fail_pauses_on_own_broker_and_no_job_loses_its_attempts() {
    const N_JOBS: usize = 30;
    const N_BAD: u64 = 4;
    let broker = Broker::start().await;
    let site = Site::of(&broker);
    let config = "[limits]\nretry_base = \"100ms\"\nretry_cap = \"1s\"\nattempts = 3\nbreaker = 4\n\
                  [workers.FX]\nconcurrency = 2\n";
    let host = faulty_host(&site, config).await;
    let mut peer = Peer::join(&site).await;
    for n in 0..N_JOBS {
        let order = json!({"do": "check-in", "to": "FT:*", "ms": 300, "data": n});
        peer.publish(&peer.job(["FX:*"], &order)).await;
    }
    let open = r#"warren_circuit_open{worker="FX"}"#;
    while figure(&host, open).await == 0 {
        // Taken, and not answered.
        let _unanswered = tokio::time::timeout(Duration::from_millis(100), peer.next_job()).await;
    }
    host.logged(
        "every job fails: the worker pauses, its queue keeps the work",
        [],
    )
    .await;
    eventually("the queue has the work", async || {
        let waiting = site.n_queued("q", "FX").await?;
        let due = u64::from(waiting) + N_BAD + 2;
        (due >= N_JOBS as u64).then_some(())
    })
    .await;
    assert_eq!(host.worker("FX").await.unwrap()["pausing"], true);
    assert_eq!(host.admin("/readyz").await.status, 200);

    let answering = async {
        loop {
            let run = peer.next_job().await;
            peer.answer(&run, &json!("go on")).await;
        }
    };
    tokio::select! {
        () = answering => unreachable!("it answers for ever"),
        () = finished(&host, "ok", N_JOBS as u64) => {}
    }
    soon(
        "it goes on",
        host.logged("jobs succeed again: the worker goes on", []),
    )
    .await;
    eventually("the breaker is closed", async || {
        (figure(&host, open).await == 0).then_some(())
    })
    .await;
    assert_eq!(n_finished(&host, "dead").await, 0);
    assert_eq!(site.n_queued("dlq", "FX").await, Some(0));
    peer.leave().await;
}
