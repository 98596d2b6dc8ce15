//! Jobs of hosts for Node workers: by exact id, repeated until one takes it, and kept until then.

use std::time::Duration;

use serde_json::{Value, json};
use warren_protocol::Encoding;
use warren_tests::{Host, NodePeer, Peer, eventually};

use crate::bench::{Bench, figure, is_gateway, knows};

/// Waits until a peer has run so many jobs, and returns them.
async fn taken(peer: &NodePeer, n: usize) -> Vec<Value> {
    eventually(&format!("the peer has run {n} jobs"), async || {
        let events = peer.events();
        let taken: Vec<_> = events
            .into_iter()
            .filter(|event| event["event"] == "taken")
            .collect();
        (taken.len() >= n).then_some(taken)
    })
    .await
}

async fn handed_over(host: &Host, n: f64) {
    eventually("the jobs have been acknowledged", async || {
        let name = "warren_peer_messages_total{what=\"handed_over\"}";
        (figure(host, name).await >= n).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_job_is_said_by_the_exact_id_and_goes_on_along_its_route() {
    for encoding in Encoding::ALL {
        let bench = Bench::new(encoding).await;
        let host = bench.host([]).await;
        let mut worker = bench.peer("worker --type TX --on-job forward").await;
        knows(&host, worker.id()).await;
        let mut peer = Peer::join(&bench.site).await;
        let job = peer.job(["TX:*", "FT:*"], &json!({"n": 1}));
        peer.publish(&job).await;
        let heard = &taken(&worker, 1).await[0];
        assert_eq!(heard["stop"], json!(worker.id()));
        assert_eq!(heard["ignoreUpdate"], true);
        assert_eq!(heard["data"], json!({"n": 1}));
        let next = peer.next_job().await;
        assert_eq!(next.data, json!({"n": 1}));
        assert!(worker.is_well());
        peer.leave().await;
        host.stop().await;
    }
}

#[tokio::test]
async fn a_last_stop_is_not_forwarded_to_itself() {
    let bench = Bench::new(Encoding::Json).await;
    let host = bench.host([]).await;
    let mut worker = bench.peer("worker --type TX --on-job forward").await;
    knows(&host, worker.id()).await;
    let peer = Peer::join(&bench.site).await;
    for to in ["TX:*", worker.id()] {
        peer.publish(&peer.job([to], &json!({"n": 1}))).await;
    }
    handed_over(&host, 2.0).await;
    eventually("what it forwarded has been taken", async || {
        (worker.count("acked") == 2).then_some(())
    })
    .await;
    assert_eq!(worker.count("taken"), 2);
    assert!(worker.is_well());
    peer.leave().await;
    host.stop().await;
}

#[tokio::test]
async fn jobs_are_spread_evenly_over_the_node_workers_of_a_type() {
    const N: usize = 60;
    let bench = Bench::new(Encoding::Json).await;
    let host = bench.host([]).await;
    let workers = [
        bench.peer("worker --type TX --no-delay").await,
        bench.peer("worker --type TX --no-delay").await,
        bench.peer("worker --type TX --no-delay").await,
    ];
    for worker in &workers {
        knows(&host, worker.id()).await;
    }
    let peer = Peer::join(&bench.site).await;
    for n in 0..N {
        peer.publish(&peer.job(["TX:*"], &json!({"n": n}))).await;
    }
    handed_over(&host, N as f64).await;
    let shares = workers.each_ref().map(|worker| worker.count("taken"));
    assert_eq!(shares.iter().sum::<usize>(), N);
    assert!(
        shares.iter().all(|share| (16..=24).contains(share)),
        "{shares:?}"
    );
    peer.leave().await;
    host.stop().await;
}

#[tokio::test]
async fn a_job_that_is_not_acknowledged_goes_to_another_worker_and_the_deaf_one_is_left_alone() {
    let bench = Bench::new(Encoding::Json).await;
    let host = bench.host([]).await;
    let mut deaf = bench.peer("worker --type TX --no-delay").await;
    let well = bench.peer("worker --type TX --no-delay").await;
    for worker in [&deaf, &well] {
        knows(&host, worker.id()).await;
    }
    deaf.hold().await;
    // It does not answer any call either: its process stands still.
    deaf.signal("STOP");
    let peer = Peer::join(&bench.site).await;
    for n in 0..6 {
        peer.publish(&peer.job(["TX:*"], &json!({"n": n}))).await;
    }
    taken(&well, 6).await;
    eventually("it is doubted", async || {
        let peers = host.admin_json("/peers").await;
        let workers = peers["workers"].as_array().cloned().unwrap_or_default();
        let mut doubted = workers.iter().filter(|worker| worker["doubted"] == true);
        doubted
            .any(|worker| worker["id"] == deaf.id())
            .then_some(())
    })
    .await;
    let repeated = figure(&host, "warren_peer_messages_total{what=\"repeated\"}").await;
    for n in 6..20 {
        peer.publish(&peer.job(["TX:*"], &json!({"n": n}))).await;
    }
    taken(&well, 20).await;
    assert_eq!(
        figure(&host, "warren_peer_messages_total{what=\"repeated\"}").await,
        repeated
    );
    assert_eq!(well.count("taken"), 20);
    deaf.signal("CONT");
    peer.leave().await;
    host.stop().await;
}

#[tokio::test]
async fn a_call_finds_its_answer_from_a_node_worker() {
    for encoding in Encoding::ALL {
        let bench = Bench::new(encoding).await;
        let host = bench.host(["faulty"]).await;
        let worker = bench.peer("worker --type TX --on-job forward").await;
        knows(&host, worker.id()).await;
        let mut peer = Peer::join(&bench.site).await;
        // The worker FX of the host calls the Node worker, and answers with what it was told.
        let call = peer.call(
            ["FX:*"],
            &json!({"do": "call", "to": "TX:*", "data": {"question": 42}}),
        );
        peer.publish(&call).await;
        let answer = peer.answer_to(&call.id).await.unwrap();
        assert!(answer.to_string().contains("42"), "{answer}");
        peer.leave().await;
        host.stop().await;
    }
}

#[tokio::test]
async fn the_field_that_names_a_request_is_configured() {
    let bench = Bench::new(Encoding::Json).await;
    let config = "[peers]\nrequest_field = \"request\"";
    let host = bench
        .setup()
        .with_plugins(["faulty"])
        .with_config(config)
        .start()
        .await;
    is_gateway(&host).await;
    let worker = bench.peer("worker --type TX --on-job forward").await;
    knows(&host, worker.id()).await;
    let mut peer = Peer::join(&bench.site).await;
    let order = json!({"do": "call", "to": "TX:*", "data": {"question": 42}});
    let call = peer.call(["FX:*"], &order);
    peer.publish(&call).await;
    peer.answer_to(&call.id).await.unwrap();
    let heard = &taken(&worker, 1).await[0];
    assert!(heard["data"]["request"].is_string(), "{heard}");
    assert!(heard["data"]["resId"].is_null(), "{heard}");
    peer.leave().await;
    host.stop().await;
}

#[tokio::test]
async fn a_call_whose_answer_could_not_be_known_says_so() {
    let bench = Bench::new(Encoding::Json).await;
    let host = bench.host([]).await;
    let worker = bench.peer("worker --type TX --on-job forward").await;
    knows(&host, worker.id()).await;
    let mut peer = Peer::join(&bench.site).await;
    let call = peer.call(["TX:*"], &json!(42));
    peer.publish(&call).await;
    let error = peer.answer_to(&call.id).await.unwrap_err();
    assert!(error.contains("must be an object"), "{error}");
    assert_eq!(worker.count("taken"), 0);
    peer.leave().await;
    host.stop().await;
}

#[tokio::test]
async fn a_caller_is_told_when_no_node_worker_takes_its_job() {
    let bench = Bench::new(Encoding::Json).await;
    let host = bench.host([]).await;
    let mut worker = bench.peer("worker --type TX").await;
    knows(&host, worker.id()).await;
    worker.hold().await;
    worker.signal("STOP");
    let mut peer = Peer::join(&bench.site).await;
    for to in ["TX:*", worker.id()] {
        let call = peer.call([to], &json!({"n": 1}));
        peer.publish(&call).await;
        let error = peer.answer_to(&call.id).await.unwrap_err();
        assert!(
            error.contains(&format!("no worker is alive at {to}")),
            "{error}"
        );
    }
    worker.signal("CONT");
    peer.leave().await;
    host.stop().await;
}

#[tokio::test]
async fn a_job_outlives_the_gateway_until_a_node_worker_acknowledges_it() {
    let bench = Bench::new(Encoding::Json).await;
    let first = bench.host([]).await;
    let mut worker = bench.peer("worker --type TX").await;
    knows(&first, worker.id()).await;
    let observer = bench.peer("observer").await;
    worker.hold().await;
    let peer = Peer::join(&bench.site).await;
    peer.publish(&peer.job(["TX:*"], &json!({"n": 1}))).await;
    let said = |event: &Value| event["key"] == "worker.next";
    let before = observer.wait_for("the job is said", said).await;
    first.kill().await;
    worker.go().await;
    let second = bench.host([]).await;
    let heard = &taken(&worker, 1).await[0];
    assert_eq!(heard["data"], json!({"n": 1}));
    assert_eq!(
        heard["id"], before["value"]["id"],
        "one id on every gateway"
    );
    handed_over(&second, 1.0).await;
    assert_eq!(worker.count("taken"), 1);
    peer.leave().await;
    second.stop().await;
}

#[tokio::test]
async fn a_job_that_came_when_its_node_workers_were_gone_waits_for_the_next_one() {
    let bench = Bench::new(Encoding::Json).await;
    let host = bench.host([]).await;
    let worker = bench.peer("worker --type TX").await;
    let id = worker.id().to_owned();
    knows(&host, &id).await;
    worker.leave().await;
    eventually("it is gone", async || {
        (!host.admin_json("/peers").await.to_string().contains(&id)).then_some(())
    })
    .await;
    let peer = Peer::join(&bench.site).await;
    peer.publish(&peer.job(["TX:*"], &json!({"n": 1}))).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let next = bench.peer("worker --type TX").await;
    assert_eq!(taken(&next, 1).await.len(), 1);
    peer.leave().await;
    host.stop().await;
}

/// `TX:*` with data that msgpack5 throws at: every Node worker would read it.
#[tokio::test]
async fn data_that_node_workers_would_die_of_is_not_said() {
    let bench = Bench::new(Encoding::MessagePack).await;
    let host = bench.host([]).await;
    let mut worker = bench.peer("worker --type TX").await;
    knows(&host, worker.id()).await;
    let mut peer = Peer::join(&bench.site).await;
    let call = peer.call(["TX:*"], &json!({"__proto__": {"n": 1}}));
    peer.publish(&call).await;
    let error = peer.answer_to(&call.id).await.unwrap_err();
    assert!(error.contains("__proto__"), "{error}");
    peer.publish(&peer.job(["TX:*"], &json!({"n": 1}))).await;
    assert_eq!(taken(&worker, 1).await[0]["data"], json!({"n": 1}));
    assert!(worker.is_well());
    peer.leave().await;
    host.stop().await;
}
