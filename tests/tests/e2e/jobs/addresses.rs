//! Jobs for one worker by its id, and what a run sends.

use serde_json::json;
use warren_tests::{Peer, Setup, Site};

use super::{IMPATIENT, call_at_once, faulty_host, finished, n_finished, n_received, send};
use crate::{
    has, problem,
    reload::{arrival, departure},
};

on_both_buses! {
    a_job_by_id_is_run_by_that_worker
    a_job_for_an_id_that_is_gone_is_dead_lettered_and_a_call_fails_at_once
    a_run_that_fails_has_sent_nothing_and_one_that_succeeds_has_sent_all
}

async fn a_job_by_id_is_run_by_that_worker(site: &Site) {
    let host = faulty_host(site, "").await;
    // On RabbitMQ there is another one that it could reach.
    let other = Setup::new(site).with_plugins(["faulty"]).start().await;
    let id = host.worker("FX").await.unwrap()["id"].clone();
    for _ in 0..10 {
        let order = json!({"do": "call", "to": id, "data": {"do": "context"}});
        let reply = call_at_once(&host, "FX:*", &order).await.json();
        assert_eq!(reply["reply"]["worker_id"], id, "{reply}");
    }
    drop(other);
}

async fn a_job_for_an_id_that_is_gone_is_dead_lettered_and_a_call_fails_at_once(site: &Site) {
    let host = faulty_host(site, "").await;
    let gone = arrival(&host, "FX").await["id"].clone();
    let address = gone.as_str().unwrap();
    host.take_out("faulty.wasm");
    departure(&host, "FX").await;
    let faulty = warren_tests::host::plugin("faulty");
    host.drop_in("faulty.wasm", faulty);
    assert_ne!(arrival(&host, "FX").await["id"], gone);
    host.ready().await;

    let response = call_at_once(&host, address, &json!({"do": "done"})).await;
    has(&problem(&response, 500), ["no worker is alive", address]);
    send(&host, "FX:*", &json!({"do": "send", "to": gone})).await;
    finished(&host, "ok", 1).await;
    host.logged("a job that was sent is dead-lettered", [address])
        .await;
    if let Some(dead) = site.dead_letter("FX").await {
        assert_eq!(dead.reason, "unrouted");
        has(&dead.error, [address]);
    }
}

async fn a_run_that_fails_has_sent_nothing_and_one_that_succeeds_has_sent_all(site: &Site) {
    let host = faulty_host(site, IMPATIENT).await;
    send(&host, "FX:*", &json!({"do": "send-then-panic", "n": 3})).await;
    finished(&host, "dead", 1).await;
    send(&host, "FX:*", &json!({"do": "send-then-reject", "n": 3})).await;
    finished(&host, "dead", 2).await;
    send(&host, "FX:*", &json!({"do": "send", "n": 3})).await;
    // The run itself and what it sent. What the others had sent would have come before.
    finished(&host, "ok", 1 + 3).await;
    assert_eq!(n_finished(&host, "retry").await, 2);
    assert_eq!(n_received(&host).await, 3 + 1 + 1 + 3);
}

/// Those that need a peer.
mod with_peer {
    use super::*;

    /// Named like the cases on both buses, so that they take turns with those.
    mod rabbitmq {
        use super::*;

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn what_a_job_sends_has_the_same_ids_when_the_job_is_delivered_twice() {
            let site = Site::rabbitmq().await;
            let host = faulty_host(&site, "").await;
            let mut peer = Peer::join(&site).await;
            let order = json!({"do": "send", "to": "FT:*", "n": 3, "data": {"n": 7}});
            let job = peer.job(["FX:*"], &order);
            let mut ids = Vec::new();
            for _ in 0..2 {
                peer.publish(&job).await;
                for index in 0..3 {
                    let sent = peer.next_job().await;
                    assert_eq!(sent.data, json!({"n": 7, "index": index}));
                    ids.push(sent.message.id);
                }
            }
            let (first, second) = ids.split_at(3);
            assert_eq!(first, second);
            assert!(first[0] != first[1] && first[1] != first[2], "{first:?}");
            finished(&host, "ok", 2).await;
            peer.leave().await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_job_goes_along_its_route_with_what_it_carries() {
            let site = Site::rabbitmq().await;
            let _host = faulty_host(&site, "").await;
            let mut peer = Peer::join(&site).await;
            let job = peer.job(["FX:*", "FX:*", "FT:*"], &json!({"do": "echo", "n": 1}));
            peer.publish(&job).await;
            let end = peer.next_job().await;
            assert_eq!(end.data, json!({"do": "echo", "n": 1}));
            assert_eq!(end.message.attempt, 1);
            assert_eq!(end.message.reply_to, None);
            peer.leave().await;
        }
    }
}
