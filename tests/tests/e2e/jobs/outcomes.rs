//! A job that fails: it is run again, given up, or its caller is told.

use serde_json::{Value, json};
use warren_tests::{Broker, Peer, Site, past_ms};

use super::{
    IMPATIENT, ONE_BY_ONE, call, call_at_once, faulty_host, finished, n_failed, n_finished,
    running, send,
};
use crate::{has, problem};

on_both_buses! {
    a_job_that_asks_for_a_retry_is_run_again_until_its_attempts_are_used_up
    a_call_whose_job_asks_for_a_retry_is_answered_by_the_attempt_that_succeeds
    a_job_that_is_rejected_is_dead_lettered_at_once
    a_job_that_traps_is_dead_lettered_after_three_attempts
    a_call_that_traps_fails_at_once_with_the_last_words_and_leaves_no_dead_letter
    a_call_that_has_waited_beyond_its_deadline_is_not_run
    a_result_above_the_limit_is_told_to_the_caller
    a_result_within_the_limit_arrives_however_large_that_is
    a_result_that_grows_in_the_encoding_of_the_bus_arrives_all_the_same
}

async fn a_job_that_asks_for_a_retry_is_run_again_until_its_attempts_are_used_up(site: &Site) {
    let config = format!("{IMPATIENT}attempts = 3\n");
    let host = faulty_host(site, &config).await;
    send(&host, "FX:*", &json!({"do": "retry", "reason": "not yet"})).await;
    finished(&host, "dead", 1).await;
    assert_eq!(n_finished(&host, "retry").await, 2);
    assert_eq!(n_failed(&host, "error").await, 3);
    let attempts = attempts_in(&host.log(), "job failed and will run again");
    assert_eq!(attempts, [1, 2]);
    let line = host.logged("job failed for good", ["not yet"]).await;
    assert_eq!(line["job.attempt"], 3, "{line}");

    if let Some(dead) = site.dead_letter("FX").await {
        assert_eq!(dead.reason, "max_attempts");
        assert_eq!(dead.error, "not yet");
        assert_eq!(dead.attempt, 3);
        let worker = host.worker("FX").await.unwrap();
        let digest = worker["digest"].as_str().unwrap();
        has(&dead.plugin, ["faulty.wasm", "0.1.0", digest]);
    }
}

async fn a_call_whose_job_asks_for_a_retry_is_answered_by_the_attempt_that_succeeds(site: &Site) {
    let host = faulty_host(site, IMPATIENT).await;
    let reply = call(&host, "FX:*", &json!({"do": "retry", "n": 3})).await;
    assert_eq!(reply.json(), json!({"attempt": 3}), "{}", reply.text());
    // The guest says itself how long it wants to wait.
    let soon = json!({"do": "retry", "n": 2, "ms": 1});
    let reply = call_at_once(&host, "FX:*", &soon).await;
    assert_eq!(reply.json(), json!({"attempt": 2}), "{}", reply.text());
}

async fn a_job_that_is_rejected_is_dead_lettered_at_once(site: &Site) {
    let host = faulty_host(site, "").await;
    send(&host, "FX:*", &json!({"do": "reject", "reason": "never"})).await;
    let line = host.logged("job failed for good", ["never"]).await;
    assert_eq!(line["job.attempt"], 1, "{line}");
    assert_eq!(line["error.type"], "permanent", "{line}");
    finished(&host, "dead", 1).await;
    assert_eq!(n_finished(&host, "retry").await, 0);
    if let Some(dead) = site.dead_letter("FX").await {
        assert_eq!((dead.reason.as_str(), dead.attempt), ("permanent", 1));
        assert_eq!(dead.error, "never");
        // It is kept as it was, so that it can be run again.
        let envelope: Value = serde_json::from_slice(&dead.body).unwrap();
        has(&envelope.to_string(), [r#""do":"reject""#, "FX:*"]);
    }
}

async fn a_job_that_traps_is_dead_lettered_after_three_attempts(site: &Site) {
    let host = faulty_host(site, IMPATIENT).await;
    send(&host, "FX:*", &json!({"do": "panic", "reason": "ouch"})).await;
    finished(&host, "dead", 1).await;
    // Fewer than the five that other failures have.
    assert_eq!(n_finished(&host, "retry").await, 2);
    assert_eq!(n_failed(&host, "trap").await, 3);
    if let Some(dead) = site.dead_letter("FX").await {
        assert_eq!((dead.reason.as_str(), dead.attempt), ("trap", 3));
        has(&dead.error, ["ouch"]);
    }
}

async fn a_call_that_traps_fails_at_once_with_the_last_words_and_leaves_no_dead_letter(
    site: &Site,
) {
    let host = faulty_host(site, "").await;
    let order = json!({"do": "panic", "reason": "ouch"});
    let response = call_at_once(&host, "FX:*", &order).await;
    has(&problem(&response, 500), ["FX", "trap", "ouch"]);
    finished(&host, "failed", 1).await;
    assert_eq!(n_finished(&host, "dead").await, 0);
    assert_eq!(site.n_queued("dlq", "FX").await.unwrap_or(0), 0);
}

async fn a_call_that_has_waited_beyond_its_deadline_is_not_run(site: &Site) {
    let host = faulty_host(site, ONE_BY_ONE).await;
    send(&host, "FX:*", &json!({"do": "wait", "ms": 2000})).await;
    running(&host, 1).await;
    let order = json!({"do": "send", "data": {"do": "done"}}).to_string();
    let response = host.post("/faulty/?do=call&ms=500", order).await;
    has(&problem(&response, 500), ["FX:*", "500 ms"]);
    finished(&host, "expired", 1).await;
    assert_eq!(n_finished(&host, "ok").await, 1);
    assert_eq!(site.n_queued("dlq", "FX").await.unwrap_or(0), 0);
}

async fn a_result_above_the_limit_is_told_to_the_caller(site: &Site) {
    let host = faulty_host(site, "[workers.FX]\npayload = \"64KiB\"\n").await;
    let response = call_at_once(&host, "FX:*", &json!({"do": "large", "n": 128})).await;
    has(&problem(&response, 500), ["FX", "65536"]);
    // One that was sent is kept for a person.
    send(&host, "FX:*", &json!({"do": "large", "n": 128})).await;
    finished(&host, "dead", 1).await;
    if let Some(dead) = site.dead_letter("FX").await {
        has(&dead.error, ["65536"]);
    }
}

async fn a_result_within_the_limit_arrives_however_large_that_is(site: &Site) {
    let host = faulty_host(site, "[limits]\npayload = \"32MiB\"\nmemory = \"256MiB\"\n").await;
    let reply = call(&host, "FX:*", &json!({"do": "large", "n": 20 * 1024})).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.body.len() > 20 << 20, "{} bytes", reply.body.len());
}

async fn a_result_that_grows_in_the_encoding_of_the_bus_arrives_all_the_same(site: &Site) {
    // 4 MiB of JSON, and in BSON, where each number has a name, more than 16.
    let config = "encoding = \"bson\"\n[limits]\nmemory = \"256MiB\"\n";
    let host = faulty_host(site, config).await;
    let reply = call(&host, "FX:*", &json!({"do": "ones", "n": 2048})).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body.len(), 2 * 2048 * 1024 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_own_broker_does_not_take_is_told_to_the_caller() {
    let broker = Broker::start_with("max_message_size = 1048576").await;
    let host = faulty_host(&Site::of(&broker), "").await;
    let response = call_at_once(&host, "FX:*", &json!({"do": "large", "n": 2048})).await;
    has(&problem(&response, 500), ["FX", "bytes"]);
    let reply = call(&host, "FX:*", &json!({"do": "echo"})).await;
    assert_eq!(reply.json(), json!({"do": "echo"}), "{}", reply.text());
}

/// The attempts in the lines with this message, first line first.
fn attempts_in(log: &str, message: &str) -> Vec<u64> {
    let lines = log.lines().filter(|line| line.contains(message));
    let line = |line| serde_json::from_str::<Value>(line).unwrap();
    lines
        .map(|text| line(text)["job.attempt"].as_u64().unwrap())
        .collect()
}

/// Those that need a peer.
mod with_peer {
    use super::*;

    /// Named like the cases on both buses, so that they take turns with those.
    mod rabbitmq {
        use super::*;

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn what_cannot_be_read_is_dead_lettered_and_the_worker_goes_on() {
            let site = Site::rabbitmq().await;
            let host = faulty_host(&site, "").await;
            let mut peer = Peer::join(&site).await;
            let mut garbage = peer.job(["FX:*"], &json!(null));
            garbage.body = "{\"not\": \"an envelope\"".into();
            peer.publish(&garbage).await;
            let dead = site.dead_letter("FX").await.unwrap();
            assert_eq!((dead.reason.as_str(), dead.id), ("decode", garbage.id));
            assert_eq!(dead.body, garbage.body);
            assert_eq!(n_failed(&host, "decode").await, 1);

            let mut garbled_call = peer.call(["FX:*"], &json!(null));
            garbled_call.body = garbage.body;
            peer.publish(&garbled_call).await;
            let told = peer.answer_to(&garbled_call.id).await.unwrap_err();
            assert!(told.to_string().contains("cannot be read"), "{told}");

            let echo = peer.call(["FX:*"], &json!({"do": "echo", "n": 1}));
            peer.publish(&echo).await;
            let reply = peer.answer_to(&echo.id).await;
            assert_eq!(reply, Ok(json!({"do": "echo", "n": 1})));
            peer.leave().await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_job_that_comes_too_late_is_kept_and_a_call_is_dropped() {
            let site = Site::rabbitmq().await;
            let host = faulty_host(&site, "").await;
            let peer = Peer::join(&site).await;
            let order = json!({"do": "send", "to": "FT:*"});
            let mut late_call = peer.call(["FX:*"], &order);
            let mut late_job = peer.job(["FX:*"], &order);
            for message in [&mut late_call, &mut late_job] {
                message.deadline_ms = Some(past_ms());
                peer.publish(message).await;
            }
            finished(&host, "expired", 2).await;
            let dead = site.dead_letter("FX").await.unwrap();
            assert_eq!((dead.reason.as_str(), dead.id), ("expired", late_job.id));
            assert_eq!(site.n_queued("dlq", "FX").await, Some(0));
            // Neither has run.
            assert_eq!(n_finished(&host, "ok").await, 0);
            peer.leave().await;
        }
    }
}
