//! Requests of a guest to real servers on this machine: where they may go, and what they may cost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};
use warren_protocol::{WorkerId, WorkerType};
use warren_runtime::{Pool, Trust, Worker};

use super::host::{Host, LONG, capture, reply};

/// How a server treats whoever connects.
#[derive(Clone)]
pub(crate) enum Manner {
    /// Sends this, and closes.
    Says(String),
    /// Takes the request and never answers.
    Silent,
    /// Sends a head and half a body, and nothing more.
    Stalls,
    /// Sends a body that never ends.
    Endless,
    /// Answers one request after the other with this, so many on each connection; at the next one it
    /// closes without a word.
    Keeps(String, usize),
}

/// A server that ends with its test.
pub(crate) struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) async fn start(manner: Manner) -> Self {
        Self::start_with(manner, None).await
    }

    async fn start_with(manner: Manner, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let (manner, tls) = (manner.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &manner).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &manner).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, connections }
    }

    pub(crate) async fn says(text: impl Into<String>) -> Self {
        Self::start(Manner::Says(text.into())).await
    }

    pub(crate) async fn ok() -> Self {
        Self::says(OK).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn by_name(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    fn n_connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// Reads requests, and answers.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, manner: &Manner) {
    let Manner::Keeps(text, most) = manner else {
        return serve_one(&mut stream, manner).await;
    };
    for _ in 0..*most {
        let answer = Manner::Says(text.clone());
        if !read_request(&mut stream, &answer).await {
            return;
        }
        let _ = stream.write_all(text.as_bytes()).await;
    }
    let _ = stream.read_u8().await;
}

/// Whether there was one.
async fn read_request(stream: &mut (impl AsyncRead + Unpin), manner: &Manner) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    // Who closes with something unread resets the connection, and its answer is lost.
    let has_body = head.windows(7).any(|bytes| bytes == b"chunked");
    while has_body && matches!(manner, Manner::Says(_)) && !head.ends_with(b"\r\n0\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

async fn serve_one(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), manner: &Manner) {
    if !read_request(stream, manner).await {
        return;
    }
    let _ = match manner {
        Manner::Says(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            stream.shutdown().await
        }
        Manner::Silent | Manner::Keeps(..) => std::future::pending().await,
        Manner::Stalls => {
            let half = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello";
            let _ = stream.write_all(half.as_bytes()).await;
            std::future::pending().await
        }
        Manner::Endless => {
            let head = "HTTP/1.1 200 OK\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            loop {
                if let Err(error) = stream.write_all(&[b'x'; 16 << 10]).await {
                    break Err(error);
                }
            }
        }
    };
}

/// Grants these, and the addresses of this machine to names.
pub(crate) fn grants(origins: &[&str], ranges: &[&str]) -> impl FnOnce(&mut Worker) + use<> {
    let origins = origins.iter().map(|text| text.parse().unwrap()).collect();
    let ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
    move |worker| {
        worker.reach.grants.outgoing_http = Some(origins);
        worker.reach.grants.private_addresses = ranges;
    }
}

/// A body that breaks off tells it in words: wasmtime gives its stream no code.
const READ_TIMEOUT: &str = "connection read timeout";
pub(crate) const HERE: [&str; 2] = ["127.0.0.0/8", "::1"];

#[track_caller]
fn is_error(answer: &Value, word: &str) {
    let text = answer["error"].as_str().unwrap_or_default();
    assert!(text.contains(word), "`{word}` is not in {answer}");
}

#[tokio::test]
async fn a_host_that_is_granted_answers() {
    let host = Host::new();
    let server = Server::ok().await;
    let expected = json!({"status": 200, "location": null, "bytes": 5, "text": "hello"});
    // By its address, which is granted by being written, and by a name for it.
    let by_address = host.reacher(grants(&[&server.url()], &[])).await;
    let answer = reply(&by_address, json!({"do": "get", "url": server.url()})).await;
    assert_eq!(answer, expected);
    let by_name = host.reacher(grants(&[&server.by_name()], &HERE)).await;
    let answer = reply(&by_name, json!({"do": "get", "url": server.by_name()})).await;
    assert_eq!(answer, expected);
    let answer = reply(
        &by_name,
        json!({"do": "put", "bytes": 100, "url": server.by_name()}),
    )
    .await;
    assert_eq!(answer["status"], 200, "{answer}");
    let text = prometheus::TextEncoder::new().encode_to_string(&host.registry.gather());
    let line = r#"warren_outgoing_http_requests_total{result="answered",worker="FR"} 3"#;
    assert!(text.unwrap().contains(line));
}

#[tokio::test]
async fn every_other_host_is_refused_and_the_log_has_the_line_to_add() {
    let host = Host::new();
    let (granted, other) = (Server::ok().await, Server::ok().await);
    let origin = granted.url();
    let pool = host.reacher(grants(&[&origin], &HERE)).await;
    let (captured, _guard) = capture();
    let url = format!("{}/hidden-path?token=s3cret", other.by_name());
    for _ in 0..3 {
        let answer = reply(&pool, json!({"do": "get", "url": url})).await;
        is_error(&answer, "HttpRequestDenied");
    }
    for url in [
        other.url(),
        granted.by_name(),
        granted.url().replace("http:", "https:"),
        "http://127.0.0.1".to_owned(),
        format!("http://u:p@127.0.0.1:{}", granted.port),
        format!("http://2130706433:{}", granted.port),
    ] {
        let answer = reply(&pool, json!({"do": "get", "url": url})).await;
        assert!(answer["error"].is_string(), "{url}: {answer}");
    }
    assert_eq!((granted.n_connections(), other.n_connections()), (0, 0));
    let text = captured.text();
    let origin = other.by_name();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(&origin)).collect();
    let [line] = lines.as_slice() else {
        panic!("not one line, but {lines:?}");
    };
    for part in ["FR", "outgoing_http", "[workers.FR]"] {
        assert!(line.contains(part), "`{part}` is not in {line}");
    }
    for hidden in ["hidden-path", "token", "s3cret"] {
        assert!(!text.contains(hidden), "{text}");
    }
}

#[tokio::test]
async fn an_empty_list_refuses_each_request() {
    let host = Host::new();
    let server = Server::ok().await;
    for set in [true, false] {
        let grant = grants(&[], &HERE);
        let pool = host.reacher(|worker| {
            if set {
                grant(worker);
            }
        });
        let answer = reply(&pool.await, json!({"do": "get", "url": server.url()})).await;
        is_error(&answer, "HttpRequestDenied");
    }
    assert_eq!(server.n_connections(), 0);
}

#[tokio::test]
async fn a_name_that_stands_for_a_private_address_is_refused() {
    let host = Host::new();
    let server = Server::ok().await;
    let (captured, _guard) = capture();
    for ranges in [&[] as &[&str], &["10.0.0.0/8", "127.0.0.2/32"]] {
        let pool = host.reacher(grants(&[&server.by_name()], ranges)).await;
        let answer = reply(&pool, json!({"do": "get", "url": server.by_name()})).await;
        is_error(&answer, "DestinationIpProhibited");
    }
    // Any host is not any address: what is not written as one is looked at.
    let any = format!("http://*:{}", server.port);
    let pool = host.reacher(grants(&[&any], &[])).await;
    for name in [
        "127.0.0.1",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f.1",
        "0",
    ] {
        let url = format!("http://{name}:{}", server.port);
        let answer = reply(&pool, json!({"do": "get", "url": url})).await;
        assert!(answer["error"].is_string(), "{name}: {answer}");
    }
    assert_eq!(server.n_connections(), 0);
    assert!(
        captured.text().contains("private_addresses"),
        "{}",
        captured.text()
    );
}

#[tokio::test]
async fn a_redirect_is_judged_like_any_request() {
    let host = Host::new();
    let hidden = Server::ok().await;
    for target in [hidden.url(), hidden.by_name()] {
        let found = format!("HTTP/1.1 302 Found\r\nlocation: {target}/x\r\n\r\n");
        let server = Server::says(found).await;
        let order = json!({"do": "get", "follow": true, "url": server.url()});
        let pool = host.reacher(grants(&[&server.url()], &HERE)).await;
        let answer = reply(&pool, order.clone()).await;
        assert_eq!(answer[0]["status"], 302, "{answer}");
        is_error(&answer[1], "HttpRequestDenied");
        assert_eq!(hidden.n_connections(), 0);
    }
    let found = format!("HTTP/1.1 302 Found\r\nlocation: {}/x\r\n\r\n", hidden.url());
    let server = Server::says(found).await;
    let both = [server.url(), hidden.url()];
    let pool = host.reacher(grants(&[&both[0], &both[1]], &[])).await;
    let answer = reply(
        &pool,
        json!({"do": "get", "follow": true, "url": server.url()}),
    )
    .await;
    assert_eq!(answer[1]["status"], 200, "{answer}");
}

#[tokio::test]
async fn a_slow_server_costs_no_more_than_the_guest_or_its_run_may_wait() {
    let host = Host::new();
    let (silent, stalling) = (
        Server::start(Manner::Silent).await,
        Server::start(Manner::Stalls).await,
    );
    let both = [silent.url(), stalling.url()];
    let grant = || grants(&[&both[0], &both[1]], &[]);
    let pool = host.reacher(grant()).await;
    let started = Instant::now();
    let order = json!({"do": "get", "url": silent.url(), "first_ms": 200});
    is_error(&reply(&pool, order).await, "HttpResponseTimeout");
    let order = json!({"do": "get", "url": stalling.url(), "between_ms": 200});
    is_error(&reply(&pool, order).await, READ_TIMEOUT);
    assert!(started.elapsed() < LONG / 2, "{:?}", started.elapsed());
    // The guest names no times: it hears of it while it can still say so.
    let brief = Duration::from_secs(3);
    let set = grant();
    let pool = host.reacher(|worker| {
        set(worker);
        worker.limits.deadline = brief;
    });
    let pool = pool.await;
    for (url, error) in [
        (silent.url(), "HttpResponseTimeout"),
        (stalling.url(), READ_TIMEOUT),
    ] {
        is_error(&reply(&pool, json!({"do": "get", "url": url})).await, error);
    }
}

#[tokio::test]
async fn bodies_are_counted_in_both_directions() {
    let host = Host::new();
    let (endless, server) = (Server::start(Manner::Endless).await, Server::ok().await);
    let silent = Server::start(Manner::Silent).await;
    let all = [endless.url(), server.url(), silent.url()];
    let set = grants(&[&all[0], &all[1], &all[2]], &[]);
    let pool = host.reacher(|worker| {
        set(worker);
        worker.limits.http_transfer_bytes = 100 << 10;
    });
    let pool = pool.await;
    let answer = reply(&pool, json!({"do": "get", "url": endless.url()})).await;
    is_error(&answer, "HTTP response body size exceeds limit");
    let put = |url: String, bytes: usize| json!({"do": "put", "url": url, "bytes": bytes});
    let answer = reply(&pool, put(silent.url(), 300 << 10)).await;
    is_error(&answer, "HttpRequestBodySize");
    // The next run begins anew.
    let answer = reply(&pool, put(server.url(), 50 << 10)).await;
    assert_eq!(answer["status"], 200, "{answer}");
}

#[tokio::test]
async fn the_head_of_a_response_has_a_largest_size() {
    let host = Host::new();
    let head = |bytes: usize| {
        let header = "x".repeat(bytes);
        format!("HTTP/1.1 200 OK\r\nx-large: {header}\r\ncontent-length: 0\r\n\r\n")
    };
    for (bytes, is_good) in [(6 << 10, true), (64 << 10, false)] {
        let server = Server::says(head(bytes)).await;
        let origin = server.url();
        let set = grants(&[&origin], &[]);
        let pool = host.reacher(|worker| {
            set(worker);
            worker.limits.http_header_bytes = 8 << 10;
        });
        let answer = reply(&pool.await, json!({"do": "get", "url": server.url()})).await;
        if is_good {
            assert_eq!(answer["status"], 200, "{answer}");
        } else {
            is_error(&answer, "HttpResponseHeaderSectionSize");
        }
    }
    let many: String = (0..500).map(|n| format!("x-{n}: y\r\n")).collect();
    let server = Server::says(format!("HTTP/1.1 200 OK\r\n{many}\r\n")).await;
    let pool = host.reacher(grants(&[&server.url()], &[])).await;
    let answer = reply(&pool, json!({"do": "get", "url": server.url()})).await;
    assert!(answer["error"].is_string(), "{answer}");
}

#[tokio::test]
async fn a_run_makes_only_so_many_requests() {
    let host = Host::new();
    let server = Server::ok().await;
    let origin = server.url();
    let set = grants(&[&origin], &[]);
    let pool = host.reacher(|worker| {
        set(worker);
        worker.limits.http_requests = 3;
    });
    let pool = pool.await;
    // The next run begins anew.
    for _ in 0..2 {
        let answer = reply(&pool, json!({"do": "many", "n": 5, "url": server.url()})).await;
        let answers = answer.as_array().unwrap();
        assert!(
            answers[..3].iter().all(|one| one["status"] == 200),
            "{answer}"
        );
        is_error(&answers[3], "ConnectionLimitReached");
        is_error(&answers[4], "ConnectionLimitReached");
    }
    assert_eq!(server.n_connections(), 6);
}

#[tokio::test]
async fn a_worker_has_only_so_many_requests_under_way_and_gives_them_back() {
    let host = Host::new();
    // A response whose body is not read keeps its connection.
    let server = Server::start(Manner::Endless).await;
    let origin = server.url();
    let set = grants(&[&origin], &[]);
    let pool = host.reacher(|worker| {
        set(worker);
        worker.limits.http_connections = 2;
    });
    let pool = pool.await;
    let many = json!({"do": "many", "n": 3, "url": server.url(), "connect_ms": 300});
    for _ in 0..3 {
        let answer = reply(&pool, many.clone()).await;
        assert_eq!(
            (&answer[0]["status"], &answer[1]["status"]),
            (&json!(200), &json!(200))
        );
        is_error(&answer[2], "ConnectionLimitReached");
    }
}

/// Asks often enough for what was given back to be there again.
async fn n_connections_become(server: &Server, pool: &Pool, expected: usize) {
    let answer = reply(pool, json!({"do": "get", "url": server.url()})).await;
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(server.n_connections(), expected);
    // A connection is ready again a moment after its response was read.
    tokio::time::sleep(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn runs_of_a_worker_share_a_connection_and_other_workers_do_not() {
    let host = Host::new();
    let server = Server::start(Manner::Keeps(OK.to_owned(), usize::MAX)).await;
    let origin = server.url();
    let pool = host.reacher(grants(&[&origin], &[])).await;
    for _ in 0..3 {
        n_connections_become(&server, &pool, 1).await;
    }
    let put = json!({"do": "put", "bytes": 100, "url": server.url()});
    assert_eq!(reply(&pool, put).await["status"], 200);
    assert_eq!(server.n_connections(), 1);
    // The same plugin under another type.
    let set = grants(&[&origin], &[]);
    let other = host.reacher(|worker| {
        set(worker);
        worker.id = WorkerId::draw(&WorkerType::new("FX").unwrap());
    });
    let other = other.await;
    n_connections_become(&server, &other, 2).await;
    n_connections_become(&server, &other, 2).await;
    let text = prometheus::TextEncoder::new().encode_to_string(&host.registry.gather());
    let text = text.unwrap();
    for worker in ["FR", "FX"] {
        let line = format!(r#"warren_outgoing_http_connections_total{{worker="{worker}"}} 1"#);
        assert!(text.contains(&line), "{text}");
    }
}

#[tokio::test]
async fn a_connection_leads_where_it_was_opened_for() {
    let host = Host::new();
    let server = Server::start(Manner::Keeps(OK.to_owned(), usize::MAX)).await;
    let set = grants(&[&server.url(), &server.by_name()], &HERE);
    let pool = host.reacher(set).await;
    n_connections_become(&server, &pool, 1).await;
    let by_name = json!({"do": "get", "url": server.by_name()});
    assert_eq!(reply(&pool, by_name).await["status"], 200);
    assert_eq!(server.n_connections(), 2);
}

#[tokio::test]
async fn what_a_server_has_closed_costs_no_request_that_may_be_repeated() {
    let host = Host::new();
    // After one answer it takes a byte of the next request, and closes.
    let server = Server::start(Manner::Keeps(OK.to_owned(), 1)).await;
    let pool = host.reacher(grants(&[&server.url()], &[])).await;
    for n in 1..4 {
        n_connections_become(&server, &pool, n).await;
    }
    // What may have had an effect is the guest's to decide.
    let put = json!({"do": "put", "bytes": 100, "url": server.url()});
    let answer = reply(&pool, put).await;
    assert!(answer["error"].is_string(), "{answer}");
    assert_eq!(server.n_connections(), 3);
}

#[tokio::test]
async fn a_connection_is_not_kept_for_longer_than_the_server_says() {
    let host = Host::new();
    let head = |more: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n{more}\r\nhello");
    for more in ["connection: close\r\n", "keep-alive: timeout=1\r\n"] {
        let server = Server::start(Manner::Keeps(head(more), usize::MAX)).await;
        let pool = host.reacher(grants(&[&server.url()], &[])).await;
        n_connections_become(&server, &pool, 1).await;
        n_connections_become(&server, &pool, 2).await;
    }
    let server = Server::start(Manner::Keeps(head("keep-alive: timeout=4\r\n"), 9)).await;
    let pool = host.reacher(grants(&[&server.url()], &[])).await;
    n_connections_become(&server, &pool, 1).await;
    n_connections_become(&server, &pool, 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    n_connections_become(&server, &pool, 2).await;
}

#[tokio::test]
async fn a_response_that_is_not_read_to_its_end_takes_its_connection_along() {
    let host = Host::new();
    let long = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{}",
        "x".repeat(100_000)
    );
    let server = Server::start(Manner::Keeps(long, usize::MAX)).await;
    let pool = host.reacher(grants(&[&server.url()], &[])).await;
    let unread = json!({"do": "many", "n": 2, "url": server.url()});
    for n_connections in [2, 4] {
        let answer = reply(&pool, unread.clone()).await;
        assert_eq!(answer[1]["status"], 200, "{answer}");
        assert_eq!(server.n_connections(), n_connections);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_of_its_own() {
    let host = Host::new();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let unknown = "http://nobody.invalid";
    let pool = host.reacher(grants(&[&url, unknown], &[])).await;
    is_error(
        &reply(&pool, json!({"do": "get", "url": url})).await,
        "ConnectionRefused",
    );
    // What it is depends on whether a name server is there to ask.
    is_error(
        &reply(&pool, json!({"do": "get", "url": unknown})).await,
        "Dns",
    );
}

#[tokio::test]
async fn certificates_are_checked_and_an_authority_can_be_added() {
    let host = Host::new();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    let server = Server::start_with(Manner::Says(OK.to_owned()), Some(tls)).await;
    let urls = [
        server.by_name().replace("http:", "https:"),
        server.url().replace("http:", "https:"),
    ];
    let grant = || grants(&[&urls[0], &urls[1]], &HERE);
    let der = BASE64_STANDARD.encode(own.cert.der());
    let pem = format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n");
    let trust = Trust::with_authorities(pem.as_bytes()).unwrap();
    let set = grant();
    let trusting = host.reacher(|worker| {
        set(worker);
        worker.reach.trust = Some(trust);
    });
    let trusting = trusting.await;
    let answer = reply(&trusting, json!({"do": "get", "url": urls[0]})).await;
    assert_eq!(answer["text"], "hello", "{answer}");
    // The certificate is for the name.
    let answer = reply(&trusting, json!({"do": "get", "url": urls[1]})).await;
    is_error(&answer, "TlsCertificateError");
    let pool = host.reacher(grant()).await;
    let answer = reply(&pool, json!({"do": "get", "url": urls[0]})).await;
    is_error(&answer, "TlsCertificateError");
    assert!(Trust::with_authorities(b"nothing").is_err());
}
