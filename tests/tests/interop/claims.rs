//! Jobs of Node senders for workers of hosts: stored, then acknowledged, run once, and answered once.

use std::time::Duration;

use serde_json::{Value, json};
use warren_protocol::Encoding;
use warren_tests::{Host, NodePeer, eventually, eventually_within};

use crate::bench::{Bench, figure, is_gateway, knows};

async fn n_finished(host: &Host, outcome: &str, n: f64) {
    eventually("the jobs are finished", async || {
        let name = format!("warren_jobs_finished_total{{outcome=\"{outcome}\",worker=\"FX\"}}");
        (figure(host, &name).await >= n).then_some(())
    })
    .await;
}

/// A host with the worker FX, and a Node sender that it knows.
async fn host_and_sender(bench: &Bench, config: &str) -> (Host, NodePeer) {
    let setup = bench.setup().with_plugins(["faulty"]).with_config(config);
    let host = setup.start().await;
    is_gateway(&host).await;
    let sender = bench.peer("worker --type TX").await;
    knows(&host, sender.id()).await;
    (host, sender)
}

#[tokio::test]
async fn a_job_by_type_by_bare_type_and_by_id_is_acknowledged_and_run() {
    for encoding in Encoding::ALL {
        let bench = Bench::new(encoding).await;
        let (host, mut sender) = host_and_sender(&bench, "").await;
        let id = host.worker("FX").await.unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned();
        knows(&host, &id).await;
        for (to, is_exact) in [("FX:*", false), ("FX", false), (id.as_str(), true)] {
            let job = sender.send([to, "ZZ:*"], &json!({"do": "done"})).await;
            let acked = sender.wait_for("its acknowledgement", |event| {
                event["event"] == "acked" && event["id"] == job.as_str()
            });
            let acked = acked.await;
            assert_eq!(acked["ignoreUpdate"], is_exact, "{acked}");
            assert_eq!(acked["workers_list_id"], 1);
            assert_eq!(acked["workers_list"], json!([to, "ZZ:*"]));
        }
        n_finished(&host, "ok", 3.0).await;
        assert!(sender.is_well());
        host.stop().await;
    }
}

#[tokio::test]
async fn equal_ids_are_different_jobs_and_an_equal_message_later_is_the_same_one() {
    let bench = Bench::new(Encoding::Json).await;
    let (host, mut sender) = host_and_sender(&bench, "").await;
    let job = |n: u32| {
        json!({
            "workers_list": ["FX:*"], "workers_list_id": 0,
            "data": {"do": "done", "n": n},
            "sender": {"id": sender.id(), "type": "TX"}, "id": "J1795220941865",
        })
        .to_string()
    };
    let (one, two) = (job(1), job(2));
    // The ids of a Node worker are milliseconds: two jobs, one id.
    sender.publish("worker.next", one.as_bytes()).await;
    sender.publish("worker.next", two.as_bytes()).await;
    n_finished(&host, "ok", 2.0).await;
    // Its sender has heard no acknowledgement.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let observer = bench.peer("observer").await;
    sender.publish("worker.next", one.as_bytes()).await;
    observer
        .wait_for("it is acknowledged again", |event| {
            event["key"] == "worker.next.ack"
        })
        .await;
    sender.send(["FX:*"], &json!({"do": "done"})).await;
    n_finished(&host, "ok", 3.0).await;
    let name = "warren_jobs_finished_total{outcome=\"ok\",worker=\"FX\"}";
    assert_eq!(figure(&host, name).await, 3.0);
    host.stop().await;
}

#[tokio::test]
async fn a_job_that_is_given_up_is_kept_and_its_sender_is_told() {
    for encoding in Encoding::ALL {
        let bench = Bench::new(encoding).await;
        let (host, mut sender) = host_and_sender(&bench, "").await;
        let order = json!({"do": "reject", "reason": "not today"});
        let job = sender.send(["FX:*"], &order).await;
        let error = sender.next("error").await;
        assert_eq!(
            (&error["matched"], &error["id"]),
            (&json!(true), &json!(job))
        );
        assert!(
            error["error"].as_str().unwrap().contains("not today"),
            "{error}"
        );
        assert_eq!(error["data"], order);
        let letter = bench.site.dead_letter("FX").await.unwrap();
        assert!(letter.error.contains("not today"));
        assert!(sender.is_well());
        host.stop().await;
    }
}

#[tokio::test]
async fn a_request_that_fails_is_told_at_once_and_is_no_dead_letter() {
    let bench = Bench::new(Encoding::Json).await;
    let (host, mut sender) = host_and_sender(&bench, "").await;
    let order = json!({"do": "panic", "reason": "oh", "resId": "r-1"});
    sender.send(["FX:*"], &order).await;
    let error = sender.next("error").await;
    assert_eq!(
        (&error["matched"], &error["data"]["resId"]),
        (&json!(true), &json!("r-1"))
    );
    assert_eq!(bench.site.n_queued("dlq", "FX").await, Some(0));
    host.stop().await;
}

#[tokio::test]
async fn an_answer_comes_back_with_the_request_that_it_belongs_to() {
    for encoding in Encoding::ALL {
        let bench = Bench::new(encoding).await;
        let (host, mut sender) = host_and_sender(&bench, "").await;
        let own = sender.id().to_owned();
        // The end of the route waits; the worker's output names no request.
        let order = json!({"do": "busy", "ms": 1, "resId": "r-7"});
        sender.send(["FX:*", &own], &order).await;
        let answer = sender.next("taken").await;
        assert_eq!(answer["data"]["resId"], "r-7", "{answer}");
        assert_eq!(answer["stop"], json!(own));
        assert!(sender.is_well());
        host.stop().await;
    }
}

#[tokio::test]
async fn a_job_for_nobody_is_refused_at_once_with_its_data() {
    for encoding in Encoding::ALL {
        let bench = Bench::new(encoding).await;
        let (host, mut sender) = host_and_sender(&bench, "").await;
        for to in [
            "XX:*",
            "XX",
            "XX:1795220940610",
            "XX:9795220940610",
            "not a stop",
            ":*",
        ] {
            let data = json!({"resId": to});
            let job = sender.send([to], &data).await;
            let error = sender.next("error").await;
            assert_eq!(
                (&error["id"], &error["matched"]),
                (&json!(job), &json!(true)),
                "{to}"
            );
            assert_eq!(error["data"], data);
            let text = error["error"].as_str().unwrap();
            assert!(
                text.starts_with("No worker available for this job"),
                "{text}"
            );
        }
        assert!(sender.is_well());
        host.stop().await;
    }
}

#[tokio::test]
async fn peers_reach_only_the_types_that_are_exposed() {
    let bench = Bench::new(Encoding::Json).await;
    let (host, mut sender) = host_and_sender(&bench, "[peers]\nexpose = [\"WB\"]").await;
    let id = host.worker("FX").await.unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    knows(&host, &id).await;
    for to in ["FX:*", "FX", id.as_str()] {
        let job = sender.send([to], &json!({"do": "done"})).await;
        let error = sender.next("error").await;
        assert_eq!(error["id"], json!(job), "{to}");
    }
    assert_eq!(
        figure(&host, "warren_peer_messages_total{what=\"claimed\"}").await,
        0.0
    );
    host.stop().await;
}

#[tokio::test]
async fn a_message_in_another_encoding_is_understood() {
    for encoding in Encoding::ALL {
        let bench = Bench::new(encoding).await;
        let host = bench.host(["faulty"]).await;
        // Alive until what they have written has arrived.
        let mut writers = Vec::new();
        for other in Encoding::ALL {
            let sender_id = "TX:1795220940610";
            let mut writer =
                warren_tests::NodePeer::start(bench.vhost.url(), other, "observer").await;
            let job = json!({
                "workers_list": ["FX:*"], "workers_list_id": 0, "data": {"do": "done", "e": other.to_string()},
                "sender": {"id": sender_id, "type": "TX"}, "id": "J1795220941865",
            });
            let encoded = writer
                .command(&json!({"do": "encode", "value": job}), "encoded")
                .await;
            let hex = encoded["hex"].as_str().unwrap().to_owned();
            let publish = json!({"do": "publish", "key": "worker.next", "hex": hex});
            writer.command(&publish, "published").await;
            writers.push(writer);
        }
        n_finished(&host, "ok", 3.0).await;
        host.stop().await;
    }
}

/// Bodies that no peer of this encoding writes, for every key.
#[tokio::test]
async fn malformed_messages_on_every_key_cost_themselves_and_nobody_leaves() {
    for encoding in Encoding::ALL {
        let bench = Bench::new(encoding).await;
        let host = bench.host(["faulty"]).await;
        let other = bench.setup().with_plugins(["db"]).start().await;
        let mut writer = bench.peer("observer").await;
        let bodies: [&[u8]; 9] = [
            b"",
            b"not json",
            b"{}",
            b"[]",
            b"null",
            b"[{}]",
            b"\xff\xff\xff\xff",
            &[0x80],
            &[5, 0, 0, 0, 0],
        ];
        for key in [
            "worker.new.send",
            "worker.new.resend",
            "worker.list",
            "worker.del",
            "worker.getAll",
            "worker.next",
            "worker.next.ack",
            "error",
            "worker.something.else",
        ] {
            for body in bodies {
                writer.publish(key, body).await;
            }
        }
        let odd = json!({
            "workers_list": [1, null, {}], "workers_list_id": 4_294_967_295u32, "data": null,
            "sender": {"id": "", "type": ""}, "id": "",
        });
        writer
            .publish("worker.next", odd.to_string().as_bytes())
            .await;
        let sender = bench.peer("worker --type TX").await;
        let mut sender = sender;
        knows(&host, sender.id()).await;
        sender.send(["FX:*"], &json!({"do": "done"})).await;
        n_finished(&host, "ok", 1.0).await;
        is_gateway(&host).await;
        assert!(!host.log_contains("lost the broker") && !other.log_contains("lost the broker"));
        assert!(!host.log_contains("not the gateway any more"));
        let malformed = figure(&host, "warren_peer_messages_total{what=\"malformed\"}").await;
        assert!(malformed > 20.0, "{malformed}");
        assert_eq!(host.admin("/readyz").await.status, 200);
        assert_eq!(other.admin("/readyz").await.status, 200);
        host.stop().await;
        other.stop().await;
    }
}

#[tokio::test]
async fn a_job_waits_while_its_host_is_restarted() {
    let bench = Bench::new(Encoding::Json).await;
    let manager = bench.setup().with_manager().start().await;
    is_gateway(&manager).await;
    let faulty = bench.setup().with_plugins(["faulty"]).start().await;
    let mut sender = bench.peer("worker --type TX").await;
    knows(&manager, sender.id()).await;
    sender.send(["FX:*"], &json!({"do": "done"})).await;
    n_finished(&faulty, "ok", 1.0).await;
    faulty.kill().await;
    // Sent again every 2 s; refused only when nobody has been there for 5 s.
    let job = sender.send(["FX:*"], &json!({"do": "done", "n": 2})).await;
    let faulty = bench.setup().with_plugins(["faulty"]).start().await;
    eventually_within(Duration::from_secs(20), "it is acknowledged", async || {
        let events = sender.events();
        let mut acked = events.iter().filter(|event| event["event"] == "acked");
        acked
            .any(|event: &Value| event["id"] == json!(job))
            .then_some(())
    })
    .await;
    n_finished(&faulty, "ok", 1.0).await;
    assert_eq!(sender.count("error"), 0);
    faulty.stop().await;
    manager.stop().await;
}
