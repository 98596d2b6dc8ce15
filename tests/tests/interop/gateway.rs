//! The gateway as the SystemManager: what it says, whom it knows, and who takes over.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use warren_protocol::Encoding;
use warren_tests::{Host, NodePeer, eventually, eventually_within};

use crate::bench::{Bench, ask, figure, is_gateway, knows, requests_run};

/// A message that an observer has seen.
async fn heard(observer: &NodePeer, key: &str, text: &str) -> Value {
    let what = format!("{key} with {text} is heard");
    let is_it = |event: &Value| event["key"] == key && shown(event).contains(text);
    observer.wait_for(&what, is_it).await
}

fn shown(event: &Value) -> String {
    let text = event["text"].as_str().unwrap_or_default();
    format!("{text} {}", event["value"])
}

fn n_heard(observer: &NodePeer, key: &str) -> usize {
    let events = observer.events();
    events.iter().filter(|event| event["key"] == key).count()
}

#[tokio::test]
async fn a_worker_announces_itself_by_resend_and_leaves_by_del_on_sigterm() {
    for encoding in Encoding::ALL {
        let bench = Bench::new(encoding).await;
        let observer = bench.peer("observer").await;
        let host = bench.host(["db"]).await;
        let id = host.worker("WB").await.unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let expected = json!({"id": id, "type": "WB"});
        let hello = heard(&observer, "worker.new.resend", &id).await;
        assert_eq!(hello["value"], expected);
        let call = heard(&observer, "worker.getAll", "").await;
        assert_eq!(call["text"], "Hi workers, tell me who's online");
        assert_eq!(host.stop().await.code, Some(0));
        let bye = heard(&observer, "worker.del", &id).await;
        assert_eq!(bye["value"], expected);
        assert_eq!(n_heard(&observer, "worker.new.send"), 0);
    }
}

#[tokio::test]
async fn everybody_is_called_every_keepalive_and_by_none_only_once() {
    let bench = Bench::new(Encoding::Json).await;
    let observer = bench.peer("observer").await;
    let setup = bench.setup().with_config("keepalive = \"0s\"");
    let host = setup.start().await;
    is_gateway(&host).await;
    heard(&observer, "worker.getAll", "").await;
    host.stop().await;
    let setup = bench.setup().with_config("keepalive = \"600ms\"");
    let host = setup.start().await;
    eventually("it has been called four times more", async || {
        let n = n_heard(&observer, "worker.getAll");
        (n >= 5).then_some(())
    })
    .await;
    host.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_killed_is_dropped_after_three_keepalives_and_one_that_leaves_at_once() {
    let bench = Bench::new(Encoding::Json).await;
    let host = bench
        .setup()
        .with_config("keepalive = \"600ms\"")
        .start()
        .await;
    is_gateway(&host).await;
    let (killed, left, stays) = (
        bench.peer("worker --type TX").await,
        bench.peer("worker --type TX").await,
        bench.peer("worker --type TX").await,
    );
    let ids = [&killed, &left, &stays].map(|peer| peer.id().to_owned());
    for id in &ids {
        knows(&host, id).await;
    }
    left.leave().await;
    is_gone(&host, &ids[1]).await;
    killed.kill().await;
    is_gone(&host, &ids[0]).await;
    knows(&host, &ids[2]).await;
    host.stop().await;
}

async fn is_gone(host: &Host, id: &str) {
    eventually(&format!("{id} is gone"), async || {
        let peers = host.admin_json("/peers").await;
        (!peers.to_string().contains(id)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_poll_is_answered_in_the_log_and_on_the_queue_that_it_names() {
    for encoding in Encoding::ALL {
        let bench = Bench::new(encoding).await;
        let host = bench.host(["db"]).await;
        let worker = bench.peer("worker --type TX").await;
        knows(&host, worker.id()).await;
        let own = host.worker("WB").await.unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned();
        knows(&host, &own).await;
        let mut observer = bench.peer("observer").await;
        let asked = observer.poll().await;
        let answer = observer.next("answer").await;
        assert_eq!(answer["properties"]["correlationId"], json!(asked));
        let list: Value = serde_json::from_str(answer["text"].as_str().unwrap()).unwrap();
        assert_eq!(
            list,
            json!([
                {"worker": {"id": worker.id(), "type": "TX"}, "isNext": false},
                {"worker": {"id": own, "type": "WB"}, "isNext": false},
            ])
        );
        let logged = host.logged("the list of workers was asked for", []).await;
        assert!(logged["workers"].as_str().unwrap().contains(worker.id()));
        host.stop().await;
    }
}

#[tokio::test]
async fn the_metrics_are_those_of_the_system_manager() {
    let bench = Bench::new(Encoding::Json).await;
    let host = bench.host(["db"]).await;
    let (mut rest, other) = (
        bench.peer("rest").await,
        bench.peer("worker --type TX").await,
    );
    knows(&host, rest.id()).await;
    knows(&host, other.id()).await;
    assert_eq!(rest.get("/movies/").await.status, 500);
    assert!(rest.is_well());
    assert_eq!(figure(&host, "microservices_connected_workers").await, 3.0);
    assert_eq!(
        figure(&host, "microservices_workers_total{type=\"TX\"}").await,
        1.0
    );
    let id = other.id().to_owned();
    other.leave().await;
    is_gone(&host, &id).await;
    let service = "service=\"system-manager\"";
    for (name, at_least) in [
        (
            format!(
                "microservices_messages_received_total{{{service},type=\"worker_registration\"}}"
            ),
            3.0,
        ),
        (
            format!("microservices_messages_received_total{{{service},type=\"job_request\"}}"),
            1.0,
        ),
        (
            format!("microservices_messages_received_total{{{service},type=\"worker_deletion\"}}"),
            1.0,
        ),
        (
            format!("microservices_messages_sent_total{{{service},type=\"keepalive\"}}"),
            1.0,
        ),
        (
            format!(
                "microservices_job_errors_total{{error_type=\"no_worker_available\",{service}}}"
            ),
            1.0,
        ),
        ("warren_peer_gateway".to_owned(), 1.0),
    ] {
        assert!(figure(&host, &name).await >= at_least, "{name}");
    }
    assert_eq!(
        figure(&host, "microservices_workers_total{type=\"TX\"}").await,
        0.0
    );
    host.stop().await;
}

#[tokio::test]
async fn a_manager_alone_looks_after_node_workers() {
    let bench = Bench::new(Encoding::Json).await;
    let manager = bench.setup().with_manager().start().await;
    is_gateway(&manager).await;
    let (pilot, db, rest) = (
        bench.peer("pilot").await,
        bench.peer("db").await,
        bench.peer("rest").await,
    );
    for peer in [&pilot, &db, &rest] {
        knows(&manager, peer.id()).await;
    }
    // To `WD`, which no Node worker takes.
    let posted = rest.post("/movies/", r#"{"title":"Alien"}"#).await;
    assert_eq!(posted.status, 200);
    assert!(rest.get("/movies/").await.text().contains("Alien"));
    assert_eq!(manager.stop().await.code, Some(0));
}

#[tokio::test]
async fn another_host_takes_over_within_a_second_when_the_gateway_is_killed() {
    let bench = Bench::new(Encoding::Json).await;
    let first = bench.host(["pilot", "db"]).await;
    let second = bench.setup().with_plugins(["pilot", "db"]).start().await;
    assert_eq!(second.admin_json("/peers").await["gateway"], false);
    first.kill().await;
    eventually_within(
        Duration::from_secs(1),
        "the other one is the gateway",
        async || (second.admin_json("/peers").await["gateway"] == true).then_some(()),
    )
    .await;
    second.stop().await;
}

#[tokio::test]
async fn a_gateway_that_is_killed_under_load_costs_no_request_its_answer() {
    const N: usize = 600;
    let bench = Bench::new(Encoding::Json).await;
    let first = bench.host(["pilot", "db"]).await;
    let second = bench.setup().with_plugins(["pilot", "db"]).start().await;
    let mut rest = bench.peer("rest --no-delay").await;
    let mut pilot = bench.peer("pilot --no-delay").await;
    for id in [rest.id(), pilot.id()] {
        knows(&first, id).await;
    }
    let port = rest.port();
    let asking = tokio::spawn(async move { ask(port, N, 8).await });
    eventually("the load is under way", async || {
        (requests_run(&pilot).len() > 20).then_some(())
    })
    .await;
    first.kill().await;
    let answers = asking.await.unwrap();
    assert!(answers.all_good(N), "{answers:?}");
    assert!(rest.is_well() && pilot.is_well());
    is_gateway(&second).await;
    second.stop().await;
}

#[tokio::test]
async fn beside_a_node_manager_a_request_without_a_worker_is_answered_once() {
    for encoding in Encoding::ALL {
        let bench = Bench::new(encoding).await;
        let host = bench.host(["db"]).await;
        let mut manager = bench.peer("manager --keepalive 1000").await;
        let mut rest = bench.peer("rest").await;
        knows(&host, rest.id()).await;
        for _ in 0..3 {
            assert_eq!(rest.get("/movies/").await.status, 500);
        }
        eventually("it has answered three times", async || {
            (rest.count("response") >= 3).then_some(())
        })
        .await;
        assert_eq!(rest.count("response"), 3);
        assert!(rest.is_well() && manager.is_well());
        let (mut pilot, worker) = (bench.peer("pilot").await, host.worker("WB").await);
        knows(&host, pilot.id()).await;
        assert_eq!(rest.get("/movies/").await.status, 200);
        assert!(rest.is_well() && manager.is_well() && pilot.is_well() && worker.is_some());
        host.stop().await;
    }
}

#[tokio::test]
async fn a_new_gateway_refuses_no_job_that_a_slow_node_worker_takes() {
    let bench = Bench::new(Encoding::Json).await;
    let mut rest = bench.peer("rest").await;
    let db = bench.peer("db").await;
    let mut pilot = bench.peer("pilot").await;
    pilot.signal("STOP");
    let host = bench.host([]).await;
    for peer in [&rest, &db] {
        knows(&host, peer.id()).await;
    }
    // A job that is not taken within 2 s is sent again, and taken twice: REST would die of that by itself.
    sleep(Duration::from_millis(1000)).await;
    let port = rest.port();
    let asking = tokio::spawn(async move { ask(port, 1, 1).await });
    sleep(Duration::from_millis(1300)).await;
    pilot.signal("CONT");
    let answers = asking.await.unwrap();
    assert!(answers.all_good(1), "{answers:?}");
    // A second answer would have ended its connection.
    assert_eq!(rest.get("/movies/").await.status, 200);
    assert!(rest.is_well() && pilot.is_well());
    host.stop().await;
}
