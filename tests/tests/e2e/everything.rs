//! A plugin that uses every capability, through the built binary; and what happens to it when the
//! operator takes one away.

use serde_json::{Value, json};
use warren_tests::{Host, Setup, Site, eventually, http::Response};

use crate::{grants::serve, has, problem};

const SECRET: &str = "s3cret-of-everything";

/// A host with the plugin `everything`, which is told and granted what this table says.
fn setup(table: &str) -> Setup {
    let config = format!(
        "[workers.FE]\n{table}\n\
         [workers.FE.config]\ngreeting = \"hello\"\n\
         [workers.FE.secrets]\napi_key = {{ env = \"KEY_OF_FE\" }}\n"
    );
    Setup::new(&Site::embedded())
        .with_plugins(["everything", "faulty", "http_faulty"])
        .with_config(&config)
        .with_variable("KEY_OF_FE", SECRET)
}

async fn order(host: &Host, url: &str) -> Response {
    let order = json!({"url": url, "call": "FX:*", "send": "FX:*"});
    let path = "/faulty/?do=call&to=FE:*";
    host.post(path, order.to_string()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_uses_all_that_it_can_reach() {
    let (url, n_requests) = serve().await;
    let host = setup(&format!("outgoing_http = [\"{url}\"]")).start().await;
    for n in 1..=2 {
        let answer = order(&host, &url).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        let id = answer["context"]["worker_id"].as_str().unwrap();
        assert!(id.starts_with("FE:"), "{id}");
        assert_eq!(answer["context"]["attempt"], 1);
        assert_eq!(answer["context"]["has_time"], true);
        assert!(answer["clock_s"].as_u64().unwrap() > 1_700_000_000);
        assert_eq!(answer["random"].as_str().unwrap().len(), 36);
        assert_eq!(answer["called"], json!({"do": "echo", "n": 7}));
        assert_eq!(answer["rows"], n);
        let kept = json!({
            "n_jobs": n,
            "n_ids": n,
            "log_bytes": n,
            "many": [[b'2'], null],
            "pair": [1, "two"],
            "has_scratch": false,
            "keys": ["ids", "log", "n_jobs", "pair"],
        });
        assert_eq!(answer["kept"], kept);
        assert_eq!(answer["config"], "hello");
        assert_eq!(answer["secret_bytes"], SECRET.len());
        assert_eq!(answer["http"]["text"], "hello", "{answer}");
        assert_eq!(n_requests.load(std::sync::atomic::Ordering::SeqCst), n);
    }
    eventually("what was sent is run, and counted", async || {
        let metrics = host.admin("/metrics").await.text();
        let lines = [
            r#"warren_guest_everything_total{kind="run",worker="FE"} 2"#,
            r#"warren_guest_everything_seconds_sum{worker="FE"} 1"#,
            r#"warren_guest_everything_level{worker="FE"} 7"#,
            r#"warren_outgoing_http_requests_total{result="answered",worker="FE"} 2"#,
        ];
        lines
            .iter()
            .all(|line| metrics.contains(line))
            .then_some(())
    })
    .await;
    assert!(host.log_contains("uses everything"));
    let end = host.stop().await;
    assert!(!end.log.contains(SECRET), "a secret is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_lacks_a_grant_is_kept_out_with_the_line_to_add() {
    const HTTP: &str = "outgoing_http = [\"https://api.example.com\"]";
    for (table, import, line) in [
        ("", "wasi:http/outgoing-handler@0.2", "outgoing_http = ["),
        (
            &format!("{HTTP}\nsql = false"),
            "warren:worker/sql@0.1.0",
            "sql = true",
        ),
        (
            &format!("{HTTP}\nkeyvalue = false"),
            "wasi:keyvalue/atomics@0.2.0-draft2, wasi:keyvalue/batch@0.2.0-draft2, \
             wasi:keyvalue/store@0.2.0-draft2 (",
            "keyvalue = true",
        ),
    ] {
        let host = setup(table).start_unready().await;
        let rejected = eventually("the plugin is rejected", async || {
            let file = host.file("everything.wasm").await?;
            (file["state"] == "rejected").then_some(file)
        })
        .await;
        assert_eq!(rejected["step"], "grant", "{rejected}");
        let error = rejected["error"].as_str().unwrap();
        has(error, ["everything.wasm", "[workers.FE]", import, line]);
        // Said once, however many interfaces are behind it.
        assert_eq!(error.matches("[workers.FE]").count(), 1, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_lacks_the_bus_or_a_host_is_refused_when_it_asks() {
    let (url, n_requests) = serve().await;
    // The bus is taken away.
    let host = setup(&format!("outgoing_http = [\"{url}\"]\nbus = []"))
        .start()
        .await;
    has(
        &problem(&order(&host, &url).await, 500),
        ["may not send to FX:*", "`bus`"],
    );
    // No host is named.
    let host = setup("outgoing_http = []").start().await;
    let answer: Value = order(&host, &url).await.json();
    has(&answer["http"].to_string(), ["HttpRequestDenied"]);
    host.logged("outgoing HTTP request refused", [&url, "[workers.FE]"])
        .await;
    assert_eq!(n_requests.load(std::sync::atomic::Ordering::SeqCst), 0);
}
