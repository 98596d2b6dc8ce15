//! What a guest is told, and what it writes.

use serde_json::json;
use warren_runtime::{Secret, Secrets, Worker};

use super::host::{Host, capture, reply};

#[tokio::test]
async fn a_guest_reads_its_own_configuration() {
    let host = Host::new();
    let config = [("color".to_owned(), "red".to_owned())];
    let pool = host.faulty(|w| w.config = config.into()).await;
    let read = reply(&pool, json!({"do": "config"})).await;
    assert_eq!(read, json!({"color": "red"}));
}

#[tokio::test]
async fn a_configured_key_has_its_value_and_no_other_key_has_any() {
    let host = Host::new();
    let config = [
        ("color", "red"),
        ("", "of the empty key"),
        ("größe", "ä\n\0"),
        ("empty", ""),
    ];
    let own = config.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let secret = Secret::new("of a secret".to_owned());
    let secrets = Secrets::new([("api_key".to_owned(), secret)].into());
    let set = |worker: &mut Worker| {
        worker.config = own.clone().into();
        worker.reach.secrets = secrets.clone();
    };
    let pool = host.reacher(set).await;
    let read = async |key: &str| reply(&pool, json!({"do": "read", "key": key})).await;
    for (key, value) in config {
        assert_eq!(read(key).await, json!({"value": value}), "{key}");
    }
    assert_eq!(read("api_key").await, json!({"value": "of a secret"}));
    for key in ["Color", "color ", "none", "\0"] {
        assert_eq!(read(key).await, json!({"value": null}), "{key}");
    }
    let all = reply(&host.faulty(set).await, json!({"do": "config"})).await;
    let expected = json!({
        "color": "red", "": "of the empty key", "größe": "ä\n\0", "empty": "",
        "api_key": "of a secret",
    });
    assert_eq!(all, expected);
}

#[tokio::test]
async fn a_guest_is_told_what_the_host_knows_of_its_run() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let told = reply(&pool, json!({"do": "context"})).await;
    let left_ms = told["deadline_ms"].as_u64().unwrap();
    assert!((1..=20_000).contains(&left_ms), "{left_ms}");
    let expected = json!({
        "worker_id": pool.worker().id.as_str(),
        "attempt": 2,
        "deadline_ms": left_ms,
        "is_cancelled": false,
        "trace_parent": "00-01-02-01",
        "correlation_id": "C1",
        "job_id": "J1",
        "sender": "FROM:2000000000000",
        "route": ["FX:*", "NEXT:*"],
        "position": 0,
        "content_type": "application/json",
    });
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_guests_figures_are_the_hosts_metrics() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    reply(&pool, json!({"do": "metrics"})).await;
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&host.registry.gather())
        .unwrap();
    for line in [
        r#"warren_guest_deeds_total{kind="metrics",worker="FX"} 2"#,
        r#"warren_guest_deed_seconds_sum{kind="metrics",worker="FX"} 0.25"#,
        r#"warren_guest_mood{worker="FX"} -1.5"#,
        r#"warren_guest_metrics_dropped_total{reason="name",worker="FX"} 1"#,
        r#"warren_guest_metrics_dropped_total{reason="labels",worker="FX"} 1"#,
    ] {
        assert!(text.contains(line), "`{line}` is missing in:\n{text}");
    }
}

#[tokio::test]
async fn a_guests_log_names_its_worker_and_its_job() {
    let host = Host::new();
    let pool = host.faulty(|_| ()).await;
    let (captured, _guard) = capture();
    reply(&pool, json!({"do": "log"})).await;
    reply(&pool, json!({"do": "print"})).await;
    let text = captured.text();
    let worker = pool.worker().id.as_str();
    for said in [
        "an info line, 1 + 2 = 3",
        "a line on stdout",
        "a line on stderr",
    ] {
        let line = text.lines().find(|line| line.contains(said)).unwrap();
        assert!(line.contains(worker) && line.contains("J1"), "{line}");
    }
    assert!(!text.contains("a trace line"));
}

#[tokio::test]
async fn a_guest_that_writes_megabytes_is_cut_off_and_goes_on() {
    let host = Host::new();
    let pool = host.faulty(|w| w.limits.log_bytes = 10_000).await;
    let (captured, _guard) = capture();
    let written = reply(&pool, json!({"do": "write", "n": 1000})).await;
    assert_eq!(written, json!({"written": 1000}));
    let text = captured.text();
    assert!(text.len() < 30_000, "{} bytes", text.len());
    assert_eq!(text.matches("more than `log`").count(), 1);
}
