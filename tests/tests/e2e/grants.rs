//! What a worker may reach, by the configuration and nothing else; and secrets, which only the worker
//! itself ever sees.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use warren_tests::{Host, Setup, Site, eventually, host::plugin, http::Response};

use crate::{has, problem, reload::arrival};

const SECRETS: [&str; 2] = ["s3cret-of-a-file", "s3cret-of-the-environment"];

/// Has the worker `FR` do something, through the one that answers HTTP.
async fn order(host: &Host, order: Value) -> Response {
    let path = "/faulty/?do=call&to=FR:*";
    host.post(path, order.to_string()).await
}

/// Answers every request, and counts them.
pub(crate) async fn serve() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let n_requests = Arc::new(AtomicUsize::new(0));
    let counter = n_requests.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 1024]).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
            let _ = stream.write_all(answer).await;
        }
    });
    (url, n_requests)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_wants_more_than_it_is_granted_is_refused_with_the_line_to_add() {
    let host = Setup::new(&Site::embedded())
        .with_plugins(["reacher", "http_faulty", "db"])
        .with_config("[workers.WB]\nsql = false\n")
        .start_unready()
        .await;
    for (file, type_name, import, line) in [
        (
            "reacher.wasm",
            "FR",
            "wasi:http/outgoing-handler@0.2",
            "outgoing_http = [",
        ),
        ("db.wasm", "WB", "warren:worker/sql@0.1.0", "sql = true"),
    ] {
        let rejected = eventually("the plugin is rejected", async || {
            let file = host.file(file).await?;
            (file["state"] == "rejected").then_some(file)
        })
        .await;
        assert_eq!(rejected["step"], "grant", "{rejected}");
        let error = rejected["error"].as_str().unwrap();
        let table = format!("[workers.{type_name}]");
        has(error, [file, type_name, import, &table, line]);
        host.logged("plugin rejected", [file, import]).await;
    }
    // The others serve.
    arrival(&host, "FH").await;
    assert_eq!(host.get("/faulty/?do=echo").await.status, 200);
    eventually("readiness names what is missing", async || {
        let text = host.admin("/readyz").await.text();
        (text.contains("reacher.wasm was rejected") && text.contains("outgoing_http")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_reaches_what_it_is_granted_and_nothing_else() {
    let ((granted, n_granted), (other, n_other)) = (serve().await, serve().await);
    let config = format!("[workers.FR]\noutgoing_http = [\"{granted}\"]\n");
    let host = Setup::new(&Site::embedded())
        .with_plugins(["reacher", "http_faulty"])
        .with_config(&config)
        // Nobody's proxy: a request that went there would not arrive.
        .with_variable("http_proxy", "http://127.0.0.1:9")
        .with_variable("HTTP_PROXY", "http://127.0.0.1:9")
        .start()
        .await;
    let get = async |url: &str| {
        let response = order(&host, json!({"do": "get", "url": url})).await;
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    };
    assert_eq!(
        get(&format!("{granted}/x?token=t0ken-t0ken")).await["text"],
        "hello"
    );
    let refused = get(&format!("{other}/x?token=t0ken-t0ken")).await;
    has(refused["error"].as_str().unwrap(), ["HttpRequestDenied"]);
    let counts = [&n_granted, &n_other].map(|count| count.load(Ordering::SeqCst));
    assert_eq!(counts, [1, 0]);
    host.logged("outgoing HTTP request refused", [&other, "[workers.FR]"])
        .await;
    let metrics = host.admin("/metrics").await.text();
    for result in ["answered", "refused"] {
        let line =
            format!(r#"warren_outgoing_http_requests_total{{result="{result}",worker="FR"}} 1"#);
        has(&metrics, [line.as_str()]);
    }
    let end = host.stop().await;
    assert!(!end.log.contains("t0ken"), "a query is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_imports_requests_unasked_can_be_let_in_without_any() {
    let (url, n_requests) = serve().await;
    let host = Setup::new(&Site::embedded())
        .with_plugins(["reacher", "http_faulty"])
        .with_config("[workers.FR]\noutgoing_http = []\n")
        .start()
        .await;
    let answer = order(&host, json!({"do": "get", "url": url})).await.json();
    has(answer["error"].as_str().unwrap(), ["HttpRequestDenied"]);
    assert_eq!(n_requests.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_sends_only_where_the_operator_lets_it() {
    let host = Setup::new(&Site::embedded())
        .with_plugins(["http_faulty", "faulty"])
        .with_config("[workers.FH]\nbus = [\"FX\"]\n[workers.FX]\nbus = []\n")
        .start()
        .await;
    assert_eq!(host.get("/faulty/?do=call&to=FX:*").await.status, 200);
    let refused = host.get("/faulty/?do=call&to=WB:*").await;
    has(&problem(&refused, 500), ["may not send to WB:*"]);
    // A route that leads elsewhere is a failure of its own, and answers at once.
    let route = json!({"do": "route", "to": ["FR:*"]}).to_string();
    let refused = host.post("/faulty/?do=call&to=FX:*", route).await;
    has(&problem(&refused, 500), ["FX", "may not send to FR:*"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_shows_nowhere_even_when_its_worker_tells() {
    let host = Setup::new(&Site::embedded())
        .with_plugins(["reacher", "http_faulty"])
        .with_file("secrets/key", format!("{}\n", SECRETS[0]))
        .with_variable("TOKEN_OF_FR", SECRETS[1])
        .with_config(
            "[workers.FR]\noutgoing_http = []\n\
             [workers.FR.secrets]\n\
             key = { file = \"secrets/key\" }\n\
             token = { env = \"TOKEN_OF_FR\" }\n",
        )
        .with_option("--log", "trace")
        .start()
        .await;
    for (key, value) in [("key", SECRETS[0]), ("token", SECRETS[1])] {
        let read = order(&host, json!({"do": "read", "key": key})).await;
        assert_eq!(read.json(), json!({"value": value}));
        for word in ["spill", "tell"] {
            let told = order(&host, json!({"do": word, "key": key})).await;
            let detail = problem(&told, 500);
            has(&detail, ["***"]);
            assert!(!detail.contains("s3cret"), "{detail}");
        }
    }
    // A version is loaded that is refused, and one that takes over.
    host.drop_in("reacher.wasm", "");
    host.logged("plugin rejected", ["reacher.wasm"]).await;
    for path in ["/plugins", "/workers", "/metrics", "/readyz"] {
        let text = host.admin(path).await.text();
        assert!(!text.contains("s3cret"), "{path}: {text}");
    }
    let end = host.stop().await;
    has(&end.log, ["in a panic: ***", "on stdout: ***"]);
    assert!(!end.log.contains("s3cret"), "a secret is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_read_anew_for_each_version() {
    let mut next = plugin("reacher");
    // A custom section with no name and no content: another version of the same code.
    next.extend([0, 1, 0]);
    let host = Setup::new(&Site::embedded())
        .with_plugins(["reacher", "http_faulty"])
        .with_file("secrets/key", "the first one")
        .with_config(
            "[workers.FR]\noutgoing_http = []\n\
             [workers.FR.secrets]\nkey = { file = \"secrets/key\" }\n",
        )
        .start()
        .await;
    let folder = host.plugins.parent().unwrap().join("secrets/key");
    let read = async || {
        order(&host, json!({"do": "read", "key": "key"}))
            .await
            .json()
    };
    std::fs::write(&folder, "the second one").unwrap();
    assert_eq!(read().await, json!({"value": "the first one"}));
    host.drop_in("reacher.wasm", &next);
    host.logged("plugin swapped", ["reacher.wasm"]).await;
    assert_eq!(read().await, json!({"value": "the second one"}));
    // One that has gone keeps the next version out, and the one that serves stays.
    std::fs::remove_file(&folder).unwrap();
    host.drop_in("reacher.wasm", plugin("reacher"));
    host.logged("plugin rejected", ["secrets/key", "cannot be read"])
        .await;
    assert_eq!(read().await, json!({"value": "the second one"}));
}

#[tokio::test]
async fn a_secret_that_is_missing_is_told_at_the_start() {
    let end = Setup::new(&Site::embedded())
        .with_config(
            "[workers.FR.secrets]\n\
             key = { file = \"secrets/key\" }\n\
             token = { env = \"TOKEN_OF_FR\" }\n",
        )
        .run_to_its_end()
        .await;
    assert_eq!(end.code, Some(64), "{}", end.log);
    has(
        &end.log,
        [
            "config/warren.toml:2",
            "secrets/key cannot be read",
            "config/warren.toml:3",
            "no environment variable `TOKEN_OF_FR`",
        ],
    );
}
