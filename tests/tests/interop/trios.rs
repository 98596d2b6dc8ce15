//! Every combination of Node and Wasm for REST, Pilot and DB, in every encoding.

use serde_json::{Value, json};
use warren_protocol::Encoding;
use warren_tests::{Host, NodePeer};

use crate::bench::{Bench, is_gateway, knows};

#[tokio::test]
async fn every_trio_of_node_and_wasm_answers_in_json() {
    every_trio(Encoding::Json).await;
}

#[tokio::test]
async fn every_trio_of_node_and_wasm_answers_in_bson() {
    every_trio(Encoding::Bson).await;
}

#[tokio::test]
async fn every_trio_of_node_and_wasm_answers_in_messagepack() {
    every_trio(Encoding::MessagePack).await;
}

/// A worker of the trio: its plugin, and the role of the Node peer.
const TRIO: [&str; 3] = ["rest", "pilot", "db"];

async fn every_trio(encoding: Encoding) {
    for combination in 0..8u8 {
        let is_wasm = |index: usize| combination & (1 << index) != 0;
        let shown: Vec<_> = (0..3)
            .map(|index| {
                format!(
                    "{} {}",
                    TRIO[index],
                    if is_wasm(index) { "Wasm" } else { "Node" }
                )
            })
            .collect();
        let bench = Bench::new(encoding).await;
        let host = (0..3).filter(|index| is_wasm(*index));
        let host = host.fold(bench.setup(), |setup, index| {
            setup.with_plugins([TRIO[index]])
        });
        let host = host.start().await;
        is_gateway(&host).await;
        let mut peers = Vec::new();
        for index in (0..3).filter(|index| !is_wasm(*index)) {
            let peer = bench.peer(TRIO[index]).await;
            knows(&host, peer.id()).await;
            peers.push(peer);
        }
        let rest = (!is_wasm(0)).then(|| &peers[0]);
        a_movie_is_stored_and_found(&host, rest).await;
        for peer in &mut peers {
            assert!(peer.is_well(), "{shown:?}: {:?}", peer.events());
        }
        host.stop().await;
    }
}

/// POST stores, GET finds; the Node REST worker writes a time before its answer.
async fn a_movie_is_stored_and_found(host: &Host, rest: Option<&NodePeer>) {
    let movie = json!({"title": "Alien", "description": "In space"}).to_string();
    let (posted, got) = match rest {
        Some(rest) => (
            rest.post("/movies/", &movie).await,
            rest.get("/movies/?title=Alien").await,
        ),
        None => (
            host.post("/movies/", movie).await,
            host.get("/movies/?title=Alien").await,
        ),
    };
    assert_eq!((posted.status.as_u16(), got.status.as_u16()), (200, 200));
    let found = got.text();
    let found = found
        .split_once(" [")
        .map_or(found.as_str(), |(_, list)| list);
    let found: Value =
        serde_json::from_str(&format!("[{}", found.trim_start_matches('['))).unwrap();
    assert_eq!(found[0]["title"], "Alien");
    assert_eq!(found[0]["description"], "In space");
}
