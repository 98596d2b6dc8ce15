//! The HTTP client of the SDK, on real servers on this machine.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    host::{Host, reply},
    outgoing::{HERE, Manner, Server, grants},
};

/// What a fetch that fails says: the name of its error, and whether the SDK would have the job run
/// again.
async fn failure(url: &str, granted: &str, more: Value) -> (String, bool) {
    let host = Host::new();
    let pool = host.reacher(grants(&[granted], &HERE)).await;
    let mut order = json!({"do": "fetch", "url": url});
    for (key, value) in more.as_object().into_iter().flatten() {
        order[key] = value.clone();
    }
    let answer = reply(&pool, order).await;
    let name = answer["error"].as_str();
    let name = name.unwrap_or_else(|| panic!("no error, but {answer}"));
    (name.to_owned(), answer["retry"].as_bool().unwrap())
}

fn told(name: &str, is_retried: bool) -> (String, bool) {
    (name.to_owned(), is_retried)
}

/// A server that answers one request with the request.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n0\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let head = "HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&request).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    url
}

#[tokio::test]
async fn a_value_is_posted_as_json_and_the_reply_is_read_to_its_end() {
    let host = Host::new();
    let origin = echo().await;
    let pool = host.reacher(grants(&[&origin], &[])).await;
    let url = format!("{origin}/orders?n=1#here");
    let title = "x".repeat(10_000);
    let order = json!({"do": "fetch", "url": url, "body": {"title": title}});
    let answer = reply(&pool, order).await;
    assert_eq!(answer["status"], 201, "{answer}");
    assert_eq!(answer["type"], "text/plain");
    let request = answer["text"].as_str().unwrap();
    assert!(
        request.starts_with("POST /orders?n=1 HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains("content-type: application/json\r\n"),
        "{request}"
    );
    // In pieces, each with its length.
    assert_eq!(request.matches('x').count(), 10_000);
}

#[tokio::test]
async fn where_a_worker_may_not_go_it_does_not_try_again() {
    let (granted, other) = (Server::ok().await, Server::ok().await);
    let failed = failure(&other.url(), &granted.url(), json!({})).await;
    assert_eq!(failed, told("denied", false));
    let failed = failure("127.0.0.1/x", &granted.url(), json!({})).await;
    assert_eq!(failed, told("invalid", false));
}

#[tokio::test]
async fn a_host_that_is_silent_or_gone_may_be_asked_again() {
    let silent = Server::start(Manner::Silent).await;
    let failed = failure(&silent.url(), &silent.url(), json!({"first_ms": 200})).await;
    assert_eq!(failed, told("timeout", true));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let failed = failure(&gone, &gone, json!({})).await;
    assert_eq!(failed, told("unavailable", true));
}

#[tokio::test]
async fn a_response_without_end_is_cut_off_where_the_worker_says() {
    let endless = Server::start(Manner::Endless).await;
    let failed = failure(&endless.url(), &endless.url(), json!({"bytes": 100_000})).await;
    assert_eq!(failed, told("too-large", false));
}
