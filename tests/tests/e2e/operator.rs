//! What an operator sees: metrics, the lists of workers and plugins, and the log.

use serde_json::Value;
use warren_tests::{Setup, Site, eventually, host::plugin};

use crate::has;

on_both_buses! {
    the_metrics_of_microservices_js_count_traffic
    the_lists_say_what_serves
    the_log_is_one_json_object_per_line
}

async fn the_metrics_of_microservices_js_count_traffic(site: &Site) {
    let setup = Setup::new(site).with_movies();
    let host = setup.with_plugins(["http_faulty"]).start().await;
    for _ in 0..3 {
        assert_eq!(host.get("/movies/").await.status, 200);
    }
    // A job that fails: nobody can read what is sent to the DB here.
    let failed = host.get("/faulty/?do=call&to=WB:*").await;
    assert_eq!(failed.status, 500);
    // A job is counted once it is settled, which may be after its reply has arrived.
    let text = eventually("three jobs of the DB are counted", async || {
        let response = host.admin("/metrics").await;
        assert_eq!(response.status, 200);
        assert!(response.content_type.starts_with("text/plain"));
        let text = response.text();
        text.contains(r#"warren_jobs_finished_total{outcome="ok",worker="WB"} 3"#)
            .then_some(text)
    })
    .await;
    has(
        &text,
        [
            r#"microservices_messages_received_total{service="worker-WB",type="job_request"} 4"#,
            r#"microservices_messages_sent_total{service="worker-WA",type="job_request"} 3"#,
            r#"microservices_messages_sent_total{service="worker-WB",type="job_request"} 3"#,
            r#"microservices_messages_sent_total{service="worker-WB",type="worker_registration"} 1"#,
            r#"microservices_job_processing_seconds_bucket{job_type="#,
            r#"microservices_workers_total{type="WB"} 1"#,
            r#"microservices_job_errors_total{error_type="job_max_retries_exceeded",service="worker-WB"} 1"#,
            "microservices_connected_workers 4",
            r#"warren_http_requests_total{status="200",worker="WA"} 3"#,
            r#"warren_worker_info{"#,
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_start_time_seconds ",
            "process_open_fds ",
        ],
    );
}

async fn the_lists_say_what_serves(site: &Site) {
    let host = Setup::new(site).with_movies().start().await;
    host.drop_in("broken.wasm", "not a plugin");
    let broken = eventually("the broken file is listed", async || {
        let file = host.file("broken.wasm").await?;
        (file["state"] != "loading").then_some(file)
    })
    .await;
    assert_eq!(
        keys(&broken),
        "digest error file old_version_serves state step"
    );
    assert_eq!(broken["old_version_serves"], false);
    // A file that is wrong while the host runs is no reason to take it out of service.
    assert_eq!(host.admin("/readyz").await.status, 200);

    let pilot = host.file("pilot.wasm").await.unwrap();
    assert_eq!(
        keys(&pilot),
        "cached compile_ms digest file proven size_bytes state type version"
    );
    assert_eq!(pilot["size_bytes"], plugin("pilot").len());
    assert_eq!(
        (&pilot["state"], &pilot["type"]),
        (&"serving".into(), &"WD".into())
    );

    let worker = host.worker("WA").await.unwrap();
    assert_eq!(
        keys(&worker),
        "concurrency digest http_path id idle_instances in_flight pausing plugin summary takes_jobs type \
         version"
    );
    assert_eq!(worker["plugin"], "rest.wasm");
    assert_eq!(worker["http_path"], "/movies/");
    assert_eq!(worker["takes_jobs"], false);
    assert_eq!(worker["in_flight"], 0);
    assert_eq!(worker["concurrency"], 64);
    assert_eq!(worker["digest"].as_str().unwrap().len(), 64);
    // The type and 13 digits, the first from 2 to 9: no Node worker has such an id.
    let id = worker["id"].as_str().unwrap().strip_prefix("WA:").unwrap();
    assert!(
        id.len() == 13 && id.bytes().all(|digit| digit.is_ascii_digit()),
        "{id}"
    );
    assert!(id.as_bytes()[0] >= b'2', "{id}");
    assert_eq!(host.worker("WD").await.unwrap()["takes_jobs"], true);
}

async fn the_log_is_one_json_object_per_line(site: &Site) {
    let setup = Setup::new(site).with_movies();
    let host = setup.with_plugins(["http_faulty"]).start().await;
    assert_eq!(host.get("/movies/").await.status, 200);
    assert_eq!(host.get("/faulty/?do=log").await.status, 200);
    assert_eq!(host.get("/faulty/?do=panic").await.status, 500);
    let end = host.stop().await;
    let mut messages = String::new();
    for line in end.log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("{error} in {line:?}");
        });
        for key in ["timestamp", "level", "message", "target"] {
            assert!(line[key].is_string(), "{key} in {line}");
        }
        messages.push_str(line["message"].as_str().unwrap());
        messages.push('\n');
    }
    has(
        &messages,
        [
            "worker joined",
            "the test asked for a line in the log",
            "the test asked for a line on stdout",
            "the test asked for a line on stderr",
            "the test asked for a panic",
        ],
    );
}

/// The names of an object's members, in order.
fn keys(object: &Value) -> String {
    let mut keys: Vec<_> = object.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    keys.join(" ")
}
