//! Keys and values of a worker, through the built binary: in a file that outlives the host, and on a
//! server that hosts share.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use warren_tests::{
    Host, Redis, Setup, Site,
    certificates::{Authority, Validity},
    eventually,
    redis::free_port,
};

use crate::{has, problem, reload::arrival};

const SECRET: &str = "s3cret-of-a-server";

/// Has the worker `FV` do these steps, through the one that answers HTTP.
async fn steps(host: &Host, steps: Value) -> Value {
    let order = json!({ "steps": steps }).to_string();
    let answer = host.post("/faulty/?do=call&to=FV:*", order).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn setup(site: &Site, config: &str) -> Setup {
    Setup::new(site)
        .with_plugins(["keeper", "http_faulty"])
        .with_config(config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_values_outlive_the_host() {
    let data = tempfile::tempdir().unwrap();
    let start = || {
        setup(&Site::embedded(), "")
            .with_option("--data-dir", data.path())
            .start()
    };
    let host = start().await;
    let add = json!([{"do": "increment", "key": "n", "by": 5}]);
    assert_eq!(steps(&host, add.clone()).await, json!([5]));
    host.stop().await;
    let folder = data.path().join("keyvalue/FV");
    let files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(files, ["store.sqlite"], "a log is left behind");
    // Not even a kill takes away what a job was told to be kept.
    let host = start().await;
    assert_eq!(steps(&host, add.clone()).await, json!([10]));
    host.kill().await;
    let host = start().await;
    assert_eq!(steps(&host, add).await, json!([15]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_of_a_server_can_be_kept_elsewhere_and_shows_nowhere() {
    let redis = Redis::start_with(&format!("requirepass {SECRET}"));
    let url = redis
        .url()
        .replace("redis://", &format!("redis://:{SECRET}@"));
    for config in [
        "keyvalue = { file = \"secrets/redis\" }",
        "keyvalue = { env = \"URL_OF_FV\" }",
        &format!("keyvalue = \"{url}\""),
    ] {
        let host = setup(&Site::embedded(), &format!("[workers.FV]\n{config}\n"))
            .with_file("secrets/redis", format!("{url}\n"))
            .with_variable("URL_OF_FV", &url)
            .with_option("--log", "trace")
            .start()
            .await;
        let set = json!([{"do": "increment", "key": "n", "by": 1}]);
        assert!(steps(&host, set).await[0].is_u64());
        for path in ["/plugins", "/workers", "/metrics", "/readyz"] {
            let text = host.admin(path).await.text();
            assert!(!text.contains("s3cret"), "{path}: {text}");
        }
        let end = host.stop().await;
        assert!(!end.log.contains("s3cret"), "the password is in the log");
    }
    let end = setup(
        &Site::embedded(),
        "[workers.FV]\nkeyvalue = { file = \"secrets/none\" }\n",
    )
    .run_to_its_end()
    .await;
    assert_eq!(end.code, Some(64), "{}", end.log);
    has(
        &end.log,
        ["config/warren.toml:2", "secrets/none cannot be read"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_told_and_used_again() {
    let mut redis = Redis::start();
    let config = format!("[workers.FV]\nkeyvalue = \"{}\"\n", redis.url());
    redis.stop();
    // A host starts without it.
    let host = setup(&Site::embedded(), &config).start().await;
    let get = json!([{"do": "exists", "key": "a"}]);
    let refused = steps(&host, get.clone()).await;
    has(
        &refused.to_string(),
        ["unavailable: the server cannot be reached"],
    );
    let url = redis.url();
    host.logged(
        "the key-value server cannot be reached, so its workers are told to try later",
        [&url],
    )
    .await;
    redis.start_again();
    eventually("it is used again", async || {
        (steps(&host, get.clone()).await == json!([false])).then_some(())
    })
    .await;
    host.logged("the key-value server is reached again", [&url])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_tls_is_trusted_by_its_certificate_alone() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let port = free_port();
    let server = ours.server("localhost", Validity::Good);
    let settings = format!(
        "tls-port {port}\ntls-cert-file DIR/cert.pem\ntls-key-file DIR/key.pem\n\
         tls-ca-cert-file DIR/ca.pem\ntls-auth-clients no\n"
    );
    let files = [
        ("cert.pem", server.certificate.as_str()),
        ("key.pem", &server.key),
        ("ca.pem", &ours.certificate()),
    ];
    let _redis = Redis::with_files(&settings, &files);
    let config = format!("[workers.FV]\nkeyvalue = \"rediss://localhost:{port}\"\n");
    for (authority, is_trusted) in [(&ours, true), (&theirs, false)] {
        let host = setup(&Site::embedded(), &config)
            .with_file("ca.pem", authority.certificate())
            // What the operating system trusts.
            .with_variable("SSL_CERT_FILE", "ca.pem")
            .start()
            .await;
        let answer = steps(&host, json!([{"do": "increment", "key": "n", "by": 1}])).await;
        if is_trusted {
            assert_eq!(answer, json!([1]));
        } else {
            has(
                &answer.to_string(),
                ["unavailable: the server cannot be reached", "certificate"],
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_keys_and_values_is_kept_out() {
    let host = setup(&Site::embedded(), "[workers.FV]\nkeyvalue = false\n")
        .start_unready()
        .await;
    host.logged("plugin rejected", ["keeper.wasm", "keyvalue = true"])
        .await;
    arrival(&host, "FH").await;
    let order = json!({"steps": []}).to_string();
    let refused = host.post("/faulty/?do=call&to=FV:*", order).await;
    problem(&refused, 500);
}

/// Named like the cases on both buses, so that they take turns with those.
mod rabbitmq {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_hosts_share_a_server_and_lose_no_update() {
        const CLIENTS: usize = 8;
        const EACH: usize = 25;
        let redis = Redis::start();
        let config = format!("[workers.FV]\nkeyvalue = \"{}\"\n", redis.url());
        let site = Site::rabbitmq().await;
        let (one, other) =
            tokio::join!(setup(&site, &config).start(), setup(&site, &config).start());
        let went_wrong = AtomicBool::new(false);
        let clients = (0..CLIENTS).map(|n| {
            let (host, went_wrong) = (if n % 2 == 0 { &one } else { &other }, &went_wrong);
            async move {
                for _ in 0..EACH {
                    let order = json!([
                        {"do": "increment", "key": "n", "by": 1},
                        {"do": "swap-many", "key": "swapped", "n": 1},
                    ]);
                    let answer = steps(host, order).await;
                    let is_good = answer[0].is_u64() && answer[1].is_u64();
                    went_wrong.fetch_or(!is_good, Ordering::Relaxed);
                }
            }
        });
        join_all(clients).await;
        assert!(!went_wrong.into_inner());
        let total = (CLIENTS * EACH).to_string();
        let read = json!([{"do": "get", "key": "n"}, {"do": "get", "key": "swapped"}]);
        assert_eq!(steps(&one, read).await, json!([total, total]));
        // Both have worked.
        for host in [&one, &other] {
            let metrics = host.admin("/metrics").await.text();
            let is_done = |line: &str| {
                line.starts_with("warren_jobs_finished_total{")
                    && line.contains(r#"worker="FV""#)
                    && !line.ends_with(" 0")
            };
            assert!(metrics.lines().any(is_done), "{metrics}");
            let folder = host.plugins.parent().unwrap().join("data/keyvalue");
            assert!(!folder.exists(), "a file, too");
        }
    }
}
