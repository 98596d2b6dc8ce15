//! What real workers said to each other (`host/protocol/fixtures`), said again by the peers.

use std::collections::HashMap;

use serde_json::{Value, json};
use warren_protocol::Encoding;
use warren_tests::{NodePeer, VirtualHost};

#[tokio::test]
async fn the_peers_repeat_the_conversation_of_real_workers_in_json() {
    repeat(Encoding::Json).await;
}

#[tokio::test]
async fn the_peers_repeat_the_conversation_of_real_workers_in_bson() {
    repeat(Encoding::Bson).await;
}

#[tokio::test]
async fn the_peers_repeat_the_conversation_of_real_workers_in_messagepack() {
    repeat(Encoding::MessagePack).await;
}

#[tokio::test]
async fn a_peer_writes_each_recorded_value_with_the_recorded_bytes_and_reads_it_again() {
    let host = VirtualHost::new().await;
    for encoding in Encoding::ALL {
        let mut peer = NodePeer::start(host.url(), encoding, "observer").await;
        for recorded in conversation(encoding) {
            let (value, hex) = (&recorded["decoded"], &recorded["body_hex"]);
            if value.is_null() {
                continue;
            }
            let encode = json!({"do": "encode", "value": value});
            let encoded = peer.command(&encode, "encoded").await;
            assert_eq!(&encoded["hex"], hex, "{encoding}: {value}");
            let decode = json!({"do": "decode", "hex": hex});
            let decoded = peer.command(&decode, "decoded").await;
            assert_eq!(plain(&decoded["value"]), plain(value), "{encoding}");
        }
    }
}

/// Has peers with the recorded ids do what the real workers did, and sees on the bus what was
/// recorded there, byte for byte.
async fn repeat(encoding: Encoding) {
    let host = VirtualHost::new().await;
    let mut observer = NodePeer::start(host.url(), encoding, "observer").await;
    let _manager = NodePeer::start(host.url(), encoding, "manager --keepalive 500").await;
    let mut workers: HashMap<String, NodePeer> = HashMap::new();
    let mut n_seen: HashMap<String, usize> = HashMap::new();

    for recorded in conversation(encoding) {
        let said = &recorded["decoded"];
        let key = recorded["routing_key"].as_str().unwrap();
        let message = format!("{key} {}", recorded["body_hex"]);
        let n_before = n_seen.entry(message.clone()).or_default();
        match (key, text(&recorded["exchange"])) {
            ("worker.new.send", _) => {
                let (id, worker_type) = (text(&said["id"]), text(&said["type"]));
                let role = format!("worker --type {worker_type} --id {id}");
                let worker = NodePeer::start(host.url(), encoding, &role).await;
                workers.insert(id.to_owned(), worker);
            }
            // The same again is sent without being told.
            ("worker.next", _) if *n_before == 0 => {
                let sender = workers.get_mut(text(&said["sender"]["id"])).unwrap();
                let send = json!({
                    "do": "send",
                    "stops": said["workers_list"],
                    "position": said["workers_list_id"],
                    "data": said["data"],
                    "id": said["id"],
                });
                sender.command(&send, "sent").await;
            }
            ("worker.del", _) => workers.remove(text(&said["id"])).unwrap().leave().await,
            ("worker.list", "polling") => {
                observer.poll().await;
            }
            // What the others do by themselves.
            _ => {}
        }
        *n_before += 1;
        let n_now = *n_before;
        let what = format!("the bus has {n_now} times {message}");
        let is_same = |event: &&Value| {
            ["exchange", "key"]
                .iter()
                .zip(["exchange", "routing_key"])
                .all(|(left, right)| event[left] == recorded[right])
                && event["hex"] == recorded["body_hex"]
        };
        warren_tests::eventually(&what, async || {
            let events = observer.events();
            (events.iter().filter(is_same).count() >= n_now).then_some(())
        })
        .await;
    }

    // Nothing but an empty table goes with a message; the observer's own question has more.
    let events = observer.events();
    let messages = events.iter().filter(|event| event["event"] == "message");
    for message in messages.filter(|event| event["exchange"] == "notifications") {
        assert_eq!(message["properties"], json!({"headers": {}}), "{message}");
    }
}

fn conversation(encoding: Encoding) -> Vec<Value> {
    let recorded = match encoding {
        Encoding::Json => include_str!("../../../host/protocol/fixtures/json.json"),
        Encoding::Bson => include_str!("../../../host/protocol/fixtures/bson.json"),
        Encoding::MessagePack => include_str!("../../../host/protocol/fixtures/msgpack.json"),
    };
    serde_json::from_str(recorded).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The fixtures of BSON show its doubles as `1.0`, which is the same number.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(members) => {
            let members = members.iter();
            members
                .map(|(name, value)| (name.clone(), plain(value)))
                .collect()
        }
        other => other.clone(),
    }
}
