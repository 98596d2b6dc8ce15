//! A worker whose instances serve several jobs, because the operator wants it.

use serde_json::{Value, json};
use warren_tests::{Host, Setup, Site, eventually, host::plugin};

use crate::has;

on_both_buses! {
    an_instance_is_kept_for_the_worker_that_the_operator_names_and_for_no_other
    a_new_version_never_meets_an_instance_of_the_old_one
    an_instance_that_nobody_needs_is_given_up_at_its_age
}

/// Calls FX through a request.
async fn call(host: &Host, order: &Value) -> Value {
    let path = "/faulty/?do=call&to=FX:*";
    let response = host.post(path, order.to_string()).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

async fn n_idle(host: &Host, worker_type: &str) -> u64 {
    let worker = host.worker(worker_type).await.unwrap();
    worker["idle_instances"].as_u64().unwrap()
}

async fn host(site: &Site, reuse: &str) -> Host {
    let setup = Setup::new(site).with_plugins(["faulty", "http_faulty"]);
    setup.with_config(reuse).start().await
}

async fn an_instance_is_kept_for_the_worker_that_the_operator_names_and_for_no_other(site: &Site) {
    let host = host(site, "[workers.FX.reuse]\ncalls = 3\n").await;
    for n in [1, 2, 3, 1, 2] {
        assert_eq!(call(&host, &json!({"do": "state"})).await["runs"], n);
    }
    assert_eq!(n_idle(&host, "FX").await, 1);
    assert_eq!(n_idle(&host, "FH").await, 0);
    // After a trap, the next job has a fresh one.
    let path = "/faulty/?do=call&to=FX:*";
    let failed = host.post(path, json!({"do": "panic"}).to_string()).await;
    assert_eq!(failed.status, 500, "{}", failed.text());
    assert_eq!(call(&host, &json!({"do": "state"})).await["runs"], 1);
    let metrics = host.admin("/metrics").await.text();
    has(
        &metrics,
        [
            r#"warren_instances_created_total{worker="FX"} 3"#,
            r#"warren_instances_created_total{worker="FH"} 7"#,
            r#"warren_instances_reused_total{worker="FX"} 4"#,
            r#"warren_instances_reused_total{worker="FH"} 0"#,
            r#"warren_instances_dropped_total{reason="calls",worker="FX"} 1"#,
            r#"warren_instances_dropped_total{reason="fault",worker="FX"} 1"#,
            r#"warren_instances_idle{worker="FX"} 1"#,
        ],
    );
}

async fn a_new_version_never_meets_an_instance_of_the_old_one(site: &Site) {
    let config = "[workers.WD.reuse]\n[workers.WA]\nreuse = true\n";
    let setup = Setup::new(site).with_movies().with_config(config);
    let host = setup.start().await;
    for name in ["pilot_next", "pilot", "pilot_next"] {
        for _ in 0..3 {
            assert_eq!(host.get("/movies/").await.status, 200);
            web_is_idle(&host).await;
        }
        assert_eq!(n_idle(&host, "WD").await, 1);
        host.drop_in("pilot.wasm", plugin(name));
        let version = if name == "pilot" { "1.0.0" } else { "2.0.0" };
        eventually("the new version serves", async || {
            let worker = host.worker("WD").await?;
            (worker["version"] == version).then_some(())
        })
        .await;
        assert_eq!(n_idle(&host, "WD").await, 0);
        let movies = host.get("/movies/").await.text();
        web_is_idle(&host).await;
        let is_new = movies.contains("from pilot 2");
        assert_eq!(is_new, name == "pilot_next", "{movies}");
    }
    let metrics = host.admin("/metrics").await.text();
    let replaced = r#"warren_instances_dropped_total{reason="replaced",worker="WD"} 3"#;
    has(&metrics, [replaced]);
    // The HTTP worker has gone on with one instance.
    has(
        &metrics,
        [r#"warren_instances_created_total{worker="WA"} 1"#],
    );
}

/// A response can be there a moment before its instance is free for the next request.
async fn web_is_idle(host: &Host) {
    eventually("the instance of the HTTP worker is free", async || {
        (n_idle(host, "WA").await == 1).then_some(())
    })
    .await;
}

async fn an_instance_that_nobody_needs_is_given_up_at_its_age(site: &Site) {
    let host = host(site, "[workers.FX.reuse]\nage = \"1s\"\n").await;
    call(&host, &json!({"do": "state"})).await;
    eventually("nothing is idle", async || {
        (n_idle(&host, "FX").await == 0).then_some(())
    })
    .await;
    let metrics = host.admin("/metrics").await.text();
    let aged = r#"warren_instances_dropped_total{reason="age",worker="FX"} 1"#;
    has(&metrics, [aged]);
}
