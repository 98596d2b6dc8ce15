//! The plugins folder is what serves: what is copied there, replaced, renamed and removed.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use tokio::time::sleep;
use warren_tests::{Host, Setup, Site, eventually, host::plugin};

use crate::{has, problem};

on_both_buses! {
    a_plugin_that_is_dropped_into_an_empty_host_serves_without_configuration
    a_removed_plugin_takes_its_worker_along_and_comes_back_with_it
    a_rejected_plugin_leaves_the_old_version_serving
    a_renamed_plugin_keeps_its_worker_id
    of_two_plugins_of_one_type_the_second_waits_for_its_turn
    a_plugin_that_is_written_slowly_serves_when_it_is_whole
}

async fn a_plugin_that_is_dropped_into_an_empty_host_serves_without_configuration(site: &Site) {
    let host = Setup::new(site).start().await;
    problem(&host.get("/movies/").await, 404);
    for name in ["rest", "pilot", "db"] {
        host.drop_in(&format!("{name}.wasm"), plugin(name));
    }
    for worker_type in ["WA", "WD", "WB"] {
        arrival(&host, worker_type).await;
    }
    host.ready().await;
    assert_eq!(host.get("/movies/").await.json(), json!([]));
}

async fn a_removed_plugin_takes_its_worker_along_and_comes_back_with_it(site: &Site) {
    let setup = Setup::new(site).with_movies();
    let config = "call_timeout = \"1s\"\n";
    let host = setup.with_config(config).start().await;
    host.take_out("db.wasm");
    departure(&host, "WB").await;
    assert_eq!(host.file("db.wasm").await, None);
    problem(&host.get("/movies/").await, 500);
    host.take_out("rest.wasm");
    departure(&host, "WA").await;
    problem(&host.get("/movies/").await, 404);
    assert_eq!(host.admin("/readyz").await.status, 200);

    host.drop_in("rest.wasm", plugin("rest"));
    host.drop_in("db.wasm", plugin("db"));
    arrival(&host, "WA").await;
    arrival(&host, "WB").await;
    host.ready().await;
    assert_eq!(host.get("/movies/").await.status, 200);
}

async fn a_rejected_plugin_leaves_the_old_version_serving(site: &Site) {
    let host = Setup::new(site).with_movies().start().await;
    let before = host.worker("WD").await.unwrap();
    let whole = plugin("pilot_next");
    let broken = [
        (
            "truncated",
            whole[..whole.len() / 2].to_vec(),
            "validate",
            "truncated",
        ),
        ("empty", Vec::new(), "validate", ""),
        (
            "a text",
            b"#!/bin/sh\necho no plugin\n".to_vec(),
            "validate",
            "",
        ),
        (
            "a core module",
            wat::parse_str("(module)").unwrap(),
            "validate",
            "component",
        ),
        (
            "a component of another world",
            wat::parse_str("(component)").unwrap(),
            "link",
            "warren:worker",
        ),
        (
            "one that traps when asked what it is",
            plugin("traps_in_describe"),
            "probe",
            "describe",
        ),
    ];
    for (what, bytes, step, told) in broken {
        host.drop_in("pilot.wasm", &bytes);
        let n_bytes = format!(r#""bytes":{},"#, bytes.len());
        host.logged("loading plugin", [&n_bytes]).await;
        let file = eventually(&format!("{what} is rejected"), async || {
            let file = host.file("pilot.wasm").await?;
            let loaded = host.admin_json("/workers").await;
            assert_eq!(loaded.as_array().unwrap().len(), 3);
            (file["state"] == "rejected").then_some(file)
        })
        .await;
        assert_eq!(file["step"], step, "{what}: {file}");
        assert_eq!(file["old_version_serves"], true, "{what}: {file}");
        has(file["error"].as_str().unwrap(), [told]);
        let digest = file["digest"].as_str().unwrap();
        let line = host.logged("plugin rejected", [&digest[..12]]).await;
        assert_eq!(line["stage"], step, "{what}: {line}");
        assert_eq!(line["error"], file["error"], "{what}: {line}");
        assert_eq!(host.worker("WD").await.unwrap(), before, "{what}");
        assert_eq!(host.get("/movies/").await.json(), json!([]), "{what}");
        // Back to the state before, so that each begins alike.
        host.drop_in("pilot.wasm", plugin("pilot"));
        eventually("the good one is there again", async || {
            let file = host.file("pilot.wasm").await?;
            (file["state"] == "serving").then_some(())
        })
        .await;
    }
    assert_eq!(host.admin("/readyz").await.status, 200);
}

async fn a_renamed_plugin_keeps_its_worker_id(site: &Site) {
    let host = Setup::new(site).with_movies().start().await;
    let id = host.worker("WD").await.unwrap()["id"].clone();
    let place = |name: &str| host.plugins.join(name);
    fs::rename(place("pilot.wasm"), place("renamed.wasm")).unwrap();
    let renamed = serving_as(&host, "WD", "plugin", "renamed.wasm").await;
    assert_eq!(renamed["id"], id);
    // The worker has it a moment before the list of files.
    eventually("the old name is gone", async || {
        host.file("pilot.wasm").await.is_none().then_some(())
    })
    .await;
    assert_eq!(host.get("/movies/").await.status, 200);
}

async fn of_two_plugins_of_one_type_the_second_waits_for_its_turn(site: &Site) {
    let setup = Setup::new(site).with_movies();
    let next = plugin("pilot_next");
    let host = setup.with_file("plugins/zzz.wasm", &next).start_unready();
    let host = host.await;
    let line = host.logged("plugin rejected", ["zzz.wasm"]).await;
    assert_eq!(line["stage"], "claim");
    has(
        line["error"].as_str().unwrap(),
        ["WD", "pilot.wasm", "zzz.wasm"],
    );
    eventually("readiness names the second", async || {
        let text = host.admin("/readyz").await.text();
        text.contains("zzz.wasm was rejected").then_some(())
    })
    .await;
    assert_eq!(arrival(&host, "WD").await["plugin"], "pilot.wasm");
    arrival(&host, "WA").await;
    arrival(&host, "WB").await;
    assert_eq!(host.get("/movies/").await.json(), json!([]));

    host.take_out("pilot.wasm");
    serving_as(&host, "WD", "plugin", "zzz.wasm").await;
    host.ready().await;
    assert_eq!(
        host.get("/movies/").await.json()[0]["title"],
        "from pilot 2"
    );
}

async fn a_plugin_that_is_written_slowly_serves_when_it_is_whole(site: &Site) {
    let host = Setup::new(site).with_movies().start().await;
    let whole = plugin("pilot_next");
    let (begin, _) = whole.split_at(whole.len() / 2);
    host.drop_in("pilot.wasm", begin);
    // A pause of the writer is the subject: longer than the host waits for one to end.
    sleep(Duration::from_millis(300)).await;
    assert_eq!(host.get("/movies/").await.json(), json!([]));
    host.drop_in("pilot.wasm", &whole);
    let next = serving_as(&host, "WD", "version", "2.0.0").await;
    assert_eq!(next["plugin"], "pilot.wasm");
    // The worker has it a moment before the file is said to serve.
    eventually("the file serves", async || {
        (host.file("pilot.wasm").await?["state"] == "serving").then_some(())
    })
    .await;
}

#[tokio::test]
async fn names_of_unfinished_copies_are_no_plugins() {
    let host = Setup::new(&Site::embedded()).start().await;
    for name in [
        ".pilot.wasm",
        ".pilot.wasm.tmp",
        "pilot.wasm.tmp",
        "pilot.wasm.part",
        "pilot.tmp",
        "pilot.wasm~",
        "notes.txt",
    ] {
        host.drop_in(name, plugin("pilot"));
    }
    fs::create_dir(host.plugins.join("folder.wasm")).unwrap();
    // What comes after them is loaded; so they have been seen, and left alone.
    host.drop_in("db.wasm", plugin("db"));
    arrival(&host, "WB").await;
    let place = |name: &str| host.plugins.join(name);
    fs::rename(place("pilot.wasm.part"), place("pilot.wasm")).unwrap();
    arrival(&host, "WD").await;
    let files = host.admin_json("/plugins").await;
    let files: Vec<_> = files.as_array().unwrap().iter().collect();
    let names: Vec<_> = files.iter().map(|file| &file["file"]).collect();
    assert_eq!(names, ["db.wasm", "pilot.wasm"]);
}

#[tokio::test]
async fn a_build_of_another_type_is_a_removal_and_an_arrival() {
    let host = Setup::new(&Site::embedded()).with_movies().start().await;
    host.drop_in("pilot.wasm", plugin("faulty"));
    arrival(&host, "FX").await;
    departure(&host, "WD").await;
    assert_eq!(host.file("pilot.wasm").await.unwrap()["type"], "FX");
}

#[tokio::test]
async fn a_new_version_serves_within_a_second() {
    let host = Setup::new(&Site::embedded()).with_movies().start().await;
    let mut shortest = Duration::MAX;
    // Other tests take the processor: one of several swaps has to be quick.
    for name in ["pilot_next", "pilot"].into_iter().cycle().take(6) {
        let bytes = plugin(name);
        let start = std::time::Instant::now();
        host.drop_in("pilot.wasm", bytes);
        let expected = if name == "pilot" {
            json!([])
        } else {
            json!([{"id": 0, "title": "from pilot 2"}])
        };
        eventually("the new version answers", async || {
            (host.get("/movies/").await.json() == expected).then_some(())
        })
        .await;
        shortest = shortest.min(start.elapsed());
    }
    assert!(shortest < Duration::from_secs(1), "{shortest:?}");
}

/// The entry of a worker as soon as the host has it.
pub(crate) async fn arrival(host: &Host, worker_type: &str) -> Value {
    let what = format!("{worker_type} arrives");
    eventually(&what, async || host.worker(worker_type).await).await
}

/// Returns as soon as the host has no worker of this type.
pub(crate) async fn departure(host: &Host, worker_type: &str) {
    eventually(&format!("{worker_type} leaves"), async || {
        host.worker(worker_type).await.is_none().then_some(())
    })
    .await;
}

/// The entry of a worker whose member `key` has become `value`.
pub(crate) async fn serving_as(host: &Host, worker_type: &str, key: &str, value: &str) -> Value {
    eventually(&format!("{worker_type} has {key} {value}"), async || {
        let worker = host.worker(worker_type).await?;
        (worker[key] == value).then_some(worker)
    })
    .await
}
