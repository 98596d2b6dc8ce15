//! A plugin that is removed, replaced or changed, and a client that goes, while a job runs.

use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinHandle;
use warren_tests::{
    Host, Peer, Setup, Site, eventually,
    host::plugin,
    http::{Client, Response},
};

use super::{ONE_BY_ONE, call, call_at_once, faulty_host, finished, running, send};
use crate::reload::{arrival, departure};

on_both_buses! {
    a_plugin_that_is_removed_finishes_its_job_and_the_caller_has_its_reply
    a_swap_takes_over_although_the_old_version_is_saturated
    a_job_that_waits_for_a_saturated_version_is_run_by_the_next_one
    a_worker_that_comes_back_while_the_old_one_still_runs_serves_at_once
    an_http_build_of_another_type_on_the_same_path_is_a_removal_and_an_arrival
    what_a_guest_sends_after_its_client_has_gone_is_sent
}

async fn a_plugin_that_is_removed_finishes_its_job_and_the_caller_has_its_reply(site: &Site) {
    let host = Arc::new(faulty_host(site, "").await);
    let waits = calling(&host, json!({"do": "wait", "ms": 2000}));
    running(&host, 1).await;
    host.take_out("faulty.wasm");
    departure(&host, "FX").await;
    assert!(!waits.is_finished());
    let reply = waits.await.unwrap();
    assert_eq!(reply.json(), json!({"waited": 2000}), "{}", reply.text());
}

async fn a_swap_takes_over_although_the_old_version_is_saturated(site: &Site) {
    let host = faulty_host(site, ONE_BY_ONE).await;
    send(&host, "FX:*", &json!({"do": "sleep"})).await;
    running(&host, 1).await;
    swap(&host).await;
    let reply = call_at_once(&host, "FX:*", &json!({"do": "echo"})).await;
    assert_eq!(reply.json(), json!({"do": "echo"}), "{}", reply.text());
}

async fn a_job_that_waits_for_a_saturated_version_is_run_by_the_next_one(site: &Site) {
    let host = Arc::new(faulty_host(site, ONE_BY_ONE).await);
    send(&host, "FX:*", &json!({"do": "sleep"})).await;
    running(&host, 1).await;
    let waits = calling(&host, json!({"do": "echo"}));
    eventually("the call is on its way", async || {
        let worker = host.worker("FH").await?;
        (worker["in_flight"] == 1).then_some(())
    })
    .await;
    swap(&host).await;
    let reply = waits.await.unwrap();
    assert_eq!(reply.json(), json!({"do": "echo"}), "{}", reply.text());
}

async fn a_worker_that_comes_back_while_the_old_one_still_runs_serves_at_once(site: &Site) {
    let host = faulty_host(site, ONE_BY_ONE).await;
    send(&host, "FX:*", &json!({"do": "sleep"})).await;
    running(&host, 1).await;
    let before = arrival(&host, "FX").await;
    host.take_out("faulty.wasm");
    departure(&host, "FX").await;
    host.drop_in("faulty.wasm", plugin("faulty"));
    let after = arrival(&host, "FX").await;
    assert_ne!(after["id"], before["id"]);
    host.ready().await;
    let reply = call_at_once(&host, "FX:*", &json!({"do": "echo"})).await;
    assert_eq!(reply.json(), json!({"do": "echo"}), "{}", reply.text());
}

async fn an_http_build_of_another_type_on_the_same_path_is_a_removal_and_an_arrival(site: &Site) {
    let host = Setup::new(site).with_plugins(["http_faulty"]).start().await;
    assert_eq!(host.get("/faulty/?do=status").await.status, 200);
    host.drop_in("http_faulty.wasm", plugin("http_other"));
    arrival(&host, "FI").await;
    departure(&host, "FH").await;
    host.ready().await;
    assert_eq!(host.get("/faulty/").await.text(), "another worker");
    assert_eq!(host.file("http_faulty.wasm").await.unwrap()["type"], "FI");
}

async fn what_a_guest_sends_after_its_client_has_gone_is_sent(site: &Site) {
    let host = faulty_host(site, "").await;
    let mut client: Client = host.client().await;
    let request = tokio::spawn(async move { client.get("/faulty/?do=send&ms=2000").await });
    eventually("the request runs", async || {
        let worker = host.worker("FH").await?;
        (worker["in_flight"] == 1).then_some(())
    })
    .await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    finished(&host, "ok", 1).await;
}

/// Calls FX in a task of its own.
fn calling(host: &Arc<Host>, order: serde_json::Value) -> JoinHandle<Response> {
    let host = host.clone();
    tokio::spawn(async move { call(&host, "FX:*", &order).await })
}

/// Replaces FX by another build of it, and returns when that one serves.
async fn swap(host: &Host) {
    let before = arrival(host, "FX").await["digest"].clone();
    host.drop_in("faulty.wasm", rebuilt(plugin("faulty")));
    eventually("the new version serves", async || {
        let worker = host.worker("FX").await?;
        (worker["digest"] != before).then_some(())
    })
    .await;
}

/// The same component with other bytes: a custom section, which nobody reads, comes on top.
fn rebuilt(mut component: Vec<u8>) -> Vec<u8> {
    let name = b"rebuilt";
    let length = u8::try_from(name.len()).unwrap();
    // Its id, its length, and the length of its name.
    component.extend([0, length + 1, length]);
    component.extend(name);
    component
}

/// Those that need a peer.
mod with_peer {
    use super::*;

    /// Named like the cases on both buses, so that they take turns with those.
    mod rabbitmq {
        use super::*;

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_removed_worker_whose_old_version_waits_in_a_call_has_its_answer() {
            let site = Site::rabbitmq().await;
            let host = faulty_host(&site, "").await;
            let mut peer = Peer::join(&site).await;
            let order = json!({"do": "call", "to": "FT:*", "ms": 20_000});
            let outer = peer.call(["FX:*"], &order);
            peer.publish(&outer).await;
            let inner = peer.next_job().await;
            swap(&host).await;
            host.take_out("faulty.wasm");
            departure(&host, "FX").await;
            host.logged("worker left", [r#""worker.type":"FX""#]).await;
            // A worker that has nothing to run any more is forgotten within that time.
            host.drop_in("faulty.wasm", plugin("faulty"));
            arrival(&host, "FX").await;
            host.ready().await;
            peer.answer(&inner, &json!("late")).await;
            let reply = peer.answer_to(&outer.id).await;
            assert_eq!(reply, Ok(json!({"reply": "late"})));
            peer.leave().await;
        }
    }
}
