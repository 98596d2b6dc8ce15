//! Requests that a guest answers.

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use warren_protocol::Slip;
use warren_runtime::{Fault, HttpError, HttpRequest, HttpResponse, Pool};

use super::host::{Host, SHORT, capture, guest, occasion};

/// A guest that sends takes the body for the job.
const BODY: &str = r#"{"said":"hello"}"#;

async fn pool(host: &Host) -> Pool {
    let mut worker = host.worker("FH");
    worker.limits.deadline = SHORT;
    Pool::new(host.load(guest("http_faulty")).await.unwrap(), worker)
}

fn request(query: &str, body: &'static str) -> HttpRequest {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
    http::Request::post(format!("http://localhost/faulty/?{query}"))
        .header("host", "localhost")
        .header("x-colour", "red")
        .body(body.boxed_unsync())
        .unwrap()
}

async fn serve(pool: &Pool, query: &str) -> Result<HttpResponse, HttpError> {
    let permit = pool.permit().await.unwrap();
    let stop = CancellationToken::new();
    pool.serve(permit, request(query, BODY), occasion(), stop)
        .await
}

async fn body(response: HttpResponse) -> Bytes {
    let body = response.response.into_body().collect().await.unwrap();
    body.to_bytes()
}

fn stops(sends: &[Slip]) -> Vec<&str> {
    sends.iter().map(|slip| slip.stops[0].as_str()).collect()
}

#[tokio::test]
async fn a_guest_sees_the_whole_request() {
    let host = Host::new();
    let pool = pool(&host).await;
    let response = serve(&pool, "do=echo&a=b").await.unwrap();
    assert_eq!(response.response.status(), 200);
    let seen: Value = serde_json::from_slice(&body(response).await).unwrap();
    assert_eq!(seen["method"], "POST");
    assert_eq!(seen["path"], "/faulty/");
    assert_eq!(seen["headers"]["x-colour"], "red");
    assert_eq!(seen["body"], BODY);
}

#[tokio::test]
async fn a_body_of_a_mebibyte_arrives_and_the_permit_goes_back() {
    let host = Host::new();
    let pool = pool(&host).await;
    let response = serve(&pool, "do=stream").await.unwrap();
    assert_eq!(body(response).await.len(), 1 << 20);
    pool.idle().await;
}

#[tokio::test]
async fn a_body_that_nobody_reads_does_not_hold_the_permit_for_ever() {
    let host = Host::new();
    let pool = pool(&host).await;
    let _unread = serve(&pool, "do=stream").await.unwrap();
    pool.idle().await;
}

#[tokio::test]
async fn a_panic_before_the_response_is_a_fault_with_the_guests_own_words() {
    let host = Host::new();
    let pool = pool(&host).await;
    let error = serve(&pool, "do=panic").await.unwrap_err();
    let HttpError::Fault(Fault::Trap(text)) = error else {
        panic!("{error:?}")
    };
    assert!(text.contains("the test asked for a panic"), "{text}");
    pool.idle().await;
}

#[tokio::test]
async fn a_request_that_is_never_answered_ends_at_its_deadline() {
    let host = Host::new();
    let pool = pool(&host).await;
    for query in ["do=loop", "do=sleep"] {
        let error = serve(&pool, query).await.unwrap_err();
        assert_eq!(error, HttpError::Fault(Fault::Deadline(SHORT)), "{query}");
    }
    pool.idle().await;
}

#[tokio::test]
async fn a_request_can_be_interrupted() {
    let host = Host::new();
    let pool = pool(&host).await;
    let stop = CancellationToken::new();
    let permit = pool.permit().await.unwrap();
    let serve = pool.serve(permit, request("do=sleep", ""), occasion(), stop.clone());
    let interrupt = async {
        tokio::task::yield_now().await;
        stop.cancel();
    };
    let (answer, ()) = tokio::join!(serve, interrupt);
    assert_eq!(answer.unwrap_err(), HttpError::Fault(Fault::Interrupted));
}

#[tokio::test]
async fn what_a_request_sends_comes_with_its_response() {
    let host = Host::new();
    let pool = pool(&host).await;
    let response = serve(&pool, "do=send&to=A:*").await.unwrap();
    assert_eq!(response.response.status(), 200);
    assert_eq!(stops(&response.sends), ["A:*"]);
    let HttpResponse { response, rest, .. } = response;
    drop(response);
    assert_eq!(rest.await.unwrap().unwrap_or_default(), []);
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_is_finished_and_its_lost_sends_are_reported() {
    let host = Host::new();
    let pool = pool(&host).await;
    let (captured, _guard) = capture();
    for (query, says) in [
        ("do=echo", ""),
        ("do=send&to=A:*", "lost=1"),
        ("do=panic", "the test asked for a panic"),
    ] {
        // One look begins the request; then its future is dropped.
        assert!(serve(&pool, query).now_or_never().is_none());
        assert_eq!(pool.in_flight(), 1, "the guest goes on with its permit");
        pool.idle().await;
        let text = captured.text();
        let warned = text.lines().find(|line| line.contains("nobody waits"));
        assert_eq!(warned.is_some(), !says.is_empty(), "{query}: {text}");
        assert!(text.contains(says), "{query}: {text}");
    }
}

#[tokio::test]
async fn a_worker_without_http_gives_no_response() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let error = serve(&pool, "do=echo").await.unwrap_err();
    assert!(matches!(error, HttpError::NoResponse(_)), "{error:?}");
}
