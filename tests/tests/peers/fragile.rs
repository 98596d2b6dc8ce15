//! What kills a peer, because it kills a real worker: the tests with a host rely on it.

use serde_json::{Value, json};
use warren_protocol::Encoding;
use warren_tests::{NodePeer, VirtualHost, http::Client};

/// A worker that takes a Pilot's jobs and does nothing, so that the test does.
const SILENT_PILOT: &str = "worker --type WD --on-job drop";

#[tokio::test]
async fn a_malformed_message_closes_the_connection_of_a_worker() {
    let cases: [(&str, &[u8]); 8] = [
        ("worker.next", b"not json"),
        ("worker.next", b"{}"),
        ("worker.next.ack", b"{}"),
        ("worker.new.send", b"not json"),
        ("worker.list", b"[]"),
        ("worker.list", b"{}"),
        ("worker.del", b"not json"),
        ("error", b"not json"),
    ];
    let host = VirtualHost::new().await;
    let mut sender = NodePeer::start(host.url(), Encoding::Json, "observer").await;
    for (key, body) in cases {
        let mut worker = NodePeer::start(host.url(), Encoding::Json, "worker").await;
        sender.publish(key, body).await;
        worker.next("closed").await;
        assert!(worker.is_alive(), "the process goes on, without a bus");
    }
}

#[tokio::test]
async fn a_message_of_another_encoding_closes_the_connection_of_a_worker() {
    let host = VirtualHost::new().await;
    for (encoding, other) in [
        (Encoding::Json, Encoding::Bson),
        (Encoding::Bson, Encoding::MessagePack),
        (Encoding::MessagePack, Encoding::Json),
    ] {
        let mut worker = NodePeer::start(host.url(), encoding, "worker").await;
        let mut stranger = NodePeer::start(host.url(), other, "worker --type TY").await;
        stranger.send(["TX:*"], &json!({})).await;
        worker.next("closed").await;
    }
}

#[tokio::test]
async fn what_a_worker_does_not_read_does_it_no_harm() {
    let host = VirtualHost::new().await;
    let mut sender = NodePeer::start(host.url(), Encoding::Json, "observer").await;
    let mut worker = NodePeer::start(host.url(), Encoding::Json, "worker").await;
    sender.publish("error", b"{}").await;
    let error = json!({"target": worker.id()}).to_string();
    sender.publish("error", error.as_bytes()).await;
    worker.next("error").await;
    sender.publish("worker.getAll", b"not the usual text").await;
    sender
        .wait_for("an answer", |event| event["key"] == "worker.new.resend")
        .await;
    assert!(worker.is_well());
}

#[tokio::test]
async fn a_malformed_message_closes_the_connection_of_a_manager() {
    let host = VirtualHost::new().await;
    let mut sender = NodePeer::start(host.url(), Encoding::Json, "observer").await;
    for (key, body) in [
        ("worker.next", b"{}" as &[u8]),
        ("worker.new.resend", b"not json"),
        ("worker.del", b"not json"),
    ] {
        let mut manager = NodePeer::start(host.url(), Encoding::Json, "manager").await;
        sender.publish(key, body).await;
        manager.next("closed").await;
    }
}

#[tokio::test]
async fn a_rest_worker_without_a_connection_dies_of_the_next_request() {
    let host = VirtualHost::new().await;
    let mut rest = NodePeer::start(host.url(), Encoding::Json, "rest").await;
    rest.publish("worker.next", b"{}").await;
    rest.next("closed").await;
    assert!(rest.client().await.get("/movies/").await.is_err());
    rest.next("died").await;
}

#[tokio::test]
async fn a_second_answer_to_a_request_closes_the_connection_of_a_rest_worker() {
    let host = VirtualHost::new().await;
    let mut asked = Asked::start(&host).await;
    asked.answer().await;
    let answer = (&mut asked.response).await.unwrap();
    assert_eq!(answer, (200, r#" "yes""#.to_owned()));
    assert!(asked.rest.is_well());
    asked.answer().await;
    let closed = asked.rest.next("closed").await;
    let reason = closed["reason"].as_str().unwrap();
    assert!(reason.contains("headers after they are sent"), "{reason}");
}

#[tokio::test]
async fn an_answer_to_nobody_closes_the_connection_of_a_rest_worker() {
    let host = VirtualHost::new().await;
    let mut rest = NodePeer::start(host.url(), Encoding::Json, "rest").await;
    let mut sender = sender_of(&host).await;
    sender.send([rest.id()], &json!({"content": 1})).await;
    rest.next("closed").await;
}

#[tokio::test]
async fn an_error_for_the_id_of_a_rest_worker_is_answered_at_once() {
    let host = VirtualHost::new().await;
    let mut asked = Asked::start(&host).await;
    let target = asked.rest.id().to_owned();
    asked.complain(&json!({"id": target, "type": "WA"})).await;
    let error = asked.rest.next("error").await;
    assert_eq!(error["matched"], false);
    asked.complain(&json!(target)).await;
    let error = asked.rest.next("error").await;
    assert_eq!(error["matched"], true);
    assert_eq!((&mut asked.response).await.unwrap().0, 500);
    assert!(asked.rest.is_well());
}

#[tokio::test]
async fn an_error_without_the_data_of_the_job_closes_the_connection_of_a_rest_worker() {
    let host = VirtualHost::new().await;
    let mut asked = Asked::start(&host).await;
    asked.job["data"] = json!({});
    let target = json!(asked.rest.id());
    asked.complain(&target).await;
    asked.rest.next("closed").await;
}

/// BSON has no list at the top, and the first of a pool tells the others who is there.
#[tokio::test]
async fn in_bson_a_newcomer_closes_the_connection_of_the_first_worker_of_its_type() {
    let host = VirtualHost::new().await;
    let mut first = NodePeer::start(host.url(), Encoding::Bson, "worker").await;
    let mut second = NodePeer::start(host.url(), Encoding::Bson, "worker").await;
    let closed = first.next("closed").await;
    let reason = closed["reason"].as_str().unwrap();
    assert!(reason.contains("array as the root"), "{reason}");
    assert!(second.is_well());
}

async fn sender_of(host: &VirtualHost) -> NodePeer {
    NodePeer::start(host.url(), Encoding::Json, "worker --type TY").await
}

/// A REST worker that waits for an answer, and whoever can give it.
struct Asked {
    rest: NodePeer,
    pilot: NodePeer,
    job: Value,
    /// The status, and the body without its time.
    response: tokio::task::JoinHandle<(u16, String)>,
}

impl Asked {
    async fn start(host: &VirtualHost) -> Self {
        let rest = NodePeer::start(host.url(), Encoding::Json, "rest").await;
        let mut pilot = NodePeer::start(host.url(), Encoding::Json, SILENT_PILOT).await;
        let mut client: Client = rest.client().await;
        let response = tokio::spawn(async move {
            let answer = client.get("/movies/").await.unwrap();
            let text = answer.text();
            let body =
                text.trim_start_matches(|c: char| c.is_ascii_digit() || "time: ".contains(c));
            (answer.status.as_u16(), format!(" {body}"))
        });
        let job = pilot.next("taken").await;
        Self {
            rest,
            pilot,
            job,
            response,
        }
    }

    async fn answer(&mut self) {
        let data = &self.job["data"];
        let data = json!({"content": "yes", "resId": data["resId"], "time": data["time"]});
        self.pilot.send([self.rest.id()], &data).await;
    }

    async fn complain(&mut self, target: &Value) {
        let (id, data) = (&self.job["id"], &self.job["data"]);
        let error = json!({"target": target, "error": "nobody", "id": id, "data": data});
        let body = error.to_string();
        self.pilot.publish("error", body.as_bytes()).await;
    }
}
