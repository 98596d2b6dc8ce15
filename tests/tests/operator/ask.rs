//! `warren call` and `warren send` as clients of a RabbitMQ: what they leave there, and what is wrong
//! with it. What they do on either bus is in `e2e`.

use std::time::Duration;

use serde_json::json;
use warren_protocol::Encoding;
use warren_tests::{Broker, Command, NodePeer, Setup, Site, VirtualHost, eventually};

const SLEEP: &str = r#"{"do":"sleep"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_not_there_is_unavailable_and_its_password_stays_secret() {
    let url = "amqp://user:hunter2@127.0.0.1:1";
    for command in ["call WB {}", "send WB {}", "send WB {} --lines"] {
        let ran = Command::new(Some(url), command).run().await.ended_with(7);
        for part in [
            "user@127.0.0.1:1",
            "nothing listens there",
            "start RabbitMQ",
        ] {
            assert!(ran.err.contains(part), "{}", ran.err);
        }
        assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    }
    let json = Command::new(Some(url), "call WB {} --json").run().await;
    let said = json.ended_with(7).json();
    assert_eq!(said[0]["outcome"], "unavailable");
    assert!(!said[0].to_string().contains("hunter2"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_no_host_has_used_has_nobody_at_any_address() {
    let place = VirtualHost::new().await;
    for command in ["call WB {}", "send WB {}"] {
        let ran = Command::new(Some(place.url()), command).run().await;
        let ran = ran.ended_with(4);
        assert!(ran.err.contains("no worker of type WB"), "{}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_broker_keeps_nothing_of_a_call_that_is_interrupted() {
    let broker = Broker::start().await;
    let site = Site::of(&broker);
    let host = Setup::new(&site).with_plugins(["faulty"]).start().await;
    let queues = async || -> Vec<String> {
        let queues = broker.ctl(&["list_queues", "name", "--silent"]).await;
        let mut queues: Vec<_> = queues.lines().map(str::to_owned).collect();
        queues.sort();
        queues
    };
    let before = queues().await;
    let call = Command::new(site.url(), "call FX --timeout 1m").with(SLEEP);
    let (mut child, _folder) = call.spawn();
    eventually("the job runs", async || {
        let worker = host.worker("FX").await?;
        (worker["in_flight"] == 1).then_some(())
    })
    .await;
    let during = queues().await;
    let added: Vec<_> = during
        .iter()
        .filter(|name| !before.contains(name))
        .collect();
    assert_eq!(added.len(), 1, "{added:?}");
    assert!(
        added[0].starts_with("warren.v1.in.warren-cli-"),
        "{added:?}"
    );
    let pid = child.id().unwrap().to_string();
    let interrupted = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(interrupted.unwrap().success());
    assert_eq!(child.wait().await.unwrap().code(), None);
    eventually("the queue of the call is gone", async || {
        (queues().await == before).then_some(())
    })
    .await;
    // As does one that ends by itself.
    let call = Command::new(site.url(), "call FX").with(r#"{"do":"context"}"#);
    call.run().await.ended_with(0);
    assert_eq!(queues().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_broker_whose_queue_is_full_says_so() {
    let broker = Broker::start().await;
    let site = Site::of(&broker);
    let host = Setup::new(&site).with_plugins(["faulty"]).start().await;
    host.take_out("faulty.wasm");
    eventually("the worker has left", async || {
        host.worker("FX").await.is_none().then_some(())
    })
    .await;
    let limit = r#"{"max-length": 3}"#;
    broker
        .ctl(&[
            "set_policy",
            "full",
            r"^warren\.v1\.q\.",
            limit,
            "--apply-to",
            "queues",
        ])
        .await;
    let lines = "{\"do\":\"done\"}\n".repeat(50);
    let send = Command::new(site.url(), "send FX - --lines --json").with_input(&lines);
    let ran = send.run().await.ended_with(6);
    assert!(ran.err.contains("the queue of FX is full"), "{}", ran.err);
    let said = ran.json();
    let last = said.last().unwrap();
    assert_eq!(last["outcome"], "queue-full");
    // What was not sent is exactly what comes after.
    let n_sent = said.len() - 1;
    assert_eq!(last["line"], n_sent + 1);
    assert!(
        ran.err.contains(&format!("tail -n +{}", n_sent + 1)),
        "{}",
        ran.err
    );
    assert_eq!(
        site.n_queued("q", "FX").await,
        Some(u32::try_from(n_sent).unwrap())
    );
    let call = Command::new(site.url(), "call FX").with(SLEEP).run().await;
    call.ended_with(6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_of_microservices_js_is_called_like_any_other() {
    let place = VirtualHost::new().await;
    let site = Site::within(&place);
    let manager = Setup::new(&site).with_manager().start_unready().await;
    manager.ready().await;
    let (db, pilot) = tokio::join!(
        NodePeer::start(place.url(), Encoding::Json, "db"),
        NodePeer::start(place.url(), Encoding::Json, "pilot"),
    );
    eventually("the manager has heard both", async || {
        let peers = manager.admin_json("/peers").await;
        let workers = peers["workers"].as_array()?;
        (workers.len() == 2).then_some(())
    })
    .await;
    let question = json!({"method": "GET", "params": {}}).to_string();
    for to in ["WB", "WD"] {
        let call = Command::new(site.url(), "call").with(to).with(&question);
        let ran = call.run().await.ended_with(0);
        assert_eq!(ran.json()[0]["content"], json!([]), "{}", ran.text());
        assert!(ran.took < Duration::from_secs(5), "{:?}", ran.took);
    }
    // And measured like any other.
    let bench = Command::new(
        site.url(),
        "bench WB --rate 20 --duration 1s --warm-up 0s --json",
    );
    let ran = bench.with(&question).run().await.ended_with(0);
    let said = &ran.json()[0];
    assert_eq!(said["measurements"][0]["answered"], 20, "{said}");
    assert_eq!(said["n_strays"], 0, "{said}");
    // Nobody has been told of a worker that is none.
    let peers = manager.admin_json("/peers").await;
    assert_eq!(peers["workers"].as_array().unwrap().len(), 2, "{peers}");
    pilot.leave().await;
    db.leave().await;
}
