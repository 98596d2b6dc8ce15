//! The versions that a host keeps: compiled once, taken back when they fail, gone back to by hand,
//! and pinned.

use std::{fs, path::Path};

use serde_json::{Value, json};
use warren_tests::{Command, Host, Ran, Setup, Site, digest_of, eventually, host::plugin, variant};

use crate::{
    has,
    reload::{arrival, serving_as},
};

/// A host whose files outlive it.
fn setup(data: &Path, site: &Site) -> Setup {
    let data = data.to_string_lossy();
    Setup::new(site).with_variable("WARREN_DATA_DIR", &data)
}

/// `warren plugins …` for a host.
async fn plugins(host: &Host, data: &Path, arguments: &str) -> Ran {
    let command = Command::new(None, &format!("plugins {arguments}"));
    let admin = format!("--admin={}", host.admin);
    let data = format!("--data-dir={}", data.display());
    command.with(&admin).with(&data).run().await
}

async fn pilot_of(host: &Host) -> Value {
    host.worker("WD").await.unwrap()["version"].clone()
}

on_both_buses! {
    a_build_that_fails_at_everything_is_taken_back_and_stays_so
}

async fn a_build_that_fails_at_everything_is_taken_back_and_stays_so(site: &Site) {
    let data = tempfile::tempdir().unwrap();
    let with = |pilot: &str| {
        let setup = setup(data.path(), site).with_plugins(["rest", "db"]);
        setup.with_file("plugins/pilot.wasm", plugin(pilot))
    };
    let host = with("pilot").start().await;
    let good = host.worker("WD").await.unwrap()["digest"].clone();
    let bad = plugin("pilot_broken");
    host.drop_in("pilot.wasm", &bad);
    serving_as(&host, "WD", "version", "3.0.0").await;
    let mut n_failed = 0;
    eventually("the version before answers again", async || {
        let response = host.get("/movies/").await;
        n_failed += usize::from(response.status != 200);
        (n_failed > 0 && response.status == 200).then_some(())
    })
    .await;
    assert!(n_failed <= 20, "{n_failed} requests failed");
    let worker = host.worker("WD").await.unwrap();
    assert_eq!(worker["digest"], good);
    let file = host.file("pilot.wasm").await.unwrap();
    assert_eq!(file["state"], "rolled-back", "{file}");
    assert_eq!(file["held_digest"], digest_of(&bad));
    has(
        file["error"].as_str().unwrap(),
        ["3.0.0", "this build is broken"],
    );
    let said = "plugin rolled back: this version serves in place of the one in the folder; a new \
                build is tried as ever, `warren plugins retry` tries this one again";
    let line = host.logged(said, ["pilot.wasm"]).await;
    assert_eq!(line["plugin.version"], "1.0.0");
    let metrics = host.admin("/metrics").await.text();
    has(
        &metrics,
        [
            r#"warren_plugin_held{worker="WD"} 1"#,
            r#"warren_reloads_total{result="rolled-back"} 1"#,
        ],
    );
    let history = host.admin_json("/plugins/history").await;
    assert_eq!(history[0]["what"], "rolled-back", "{history}");
    host.stop().await;

    // The decision outlives the host.
    let host = with("pilot_broken").start().await;
    assert_eq!(pilot_of(&host).await, "1.0.0");
    assert_eq!(
        host.file("pilot.wasm").await.unwrap()["state"],
        "rolled-back"
    );
    assert_eq!(host.get("/movies/").await.status, 200);
    // But not the bad build.
    host.drop_in("pilot.wasm", plugin("pilot_next"));
    serving_as(&host, "WD", "version", "2.0.0").await;
    assert_eq!(host.file("pilot.wasm").await.unwrap()["state"], "serving");
    has(
        &host.admin("/metrics").await.text(),
        [r#"warren_plugin_held{worker="WD"} 0"#],
    );
    host.stop().await;
}

#[tokio::test]
async fn an_operator_goes_back_and_forth() {
    let data = tempfile::tempdir().unwrap();
    let site = Site::embedded();
    let host = setup(data.path(), &site).with_movies().start().await;
    host.drop_in("pilot.wasm", plugin("pilot_next"));
    serving_as(&host, "WD", "version", "2.0.0").await;

    let listed = eventually("both versions are kept", async || {
        let ls = plugins(&host, data.path(), "ls WD --json").await;
        assert_eq!(ls.code, Some(0), "{}", ls.err);
        Some(ls.json()).filter(|listed| listed.len() == 2)
    })
    .await;
    let versions: Vec<_> = listed.iter().map(|kept| &kept["version"]).collect();
    assert_eq!(versions, ["2.0.0", "1.0.0"]);
    assert_eq!(listed[0]["serves"], true);

    let back = plugins(&host, data.path(), "rollback WD").await;
    assert_eq!(back.code, Some(0), "{}", back.err);
    has(&back.err, ["WD serves 1.0.0"]);
    assert_eq!(pilot_of(&host).await, "1.0.0");
    // The worker has it a moment before the list of files.
    eventually("the file is said to be held back", async || {
        (host.file("pilot.wasm").await?["state"] == "rolled-back").then_some(())
    })
    .await;
    let table = plugins(&host, data.path(), "ls").await.text();
    has(
        &table,
        ["held back: rolled back by hand", "serves in place of"],
    );
    let again = plugins(&host, data.path(), "rollback WD").await;
    assert_eq!(again.code, Some(1), "{}", again.err);
    has(&again.err, ["no version of WD before"]);

    let forth = plugins(&host, data.path(), "retry WD").await;
    assert_eq!(forth.code, Some(0), "{}", forth.err);
    assert_eq!(pilot_of(&host).await, "2.0.0");
    assert_eq!(host.file("pilot.wasm").await.unwrap()["state"], "serving");

    let digest = digest_of(&plugin("pilot"));
    let to = format!("rollback WD --to {}", &digest[..12]);
    assert_eq!(plugins(&host, data.path(), &to).await.code, Some(0));
    assert_eq!(pilot_of(&host).await, "1.0.0");
    let forth = plugins(&host, data.path(), "rollback WD --to 2.0.0").await;
    assert_eq!(forth.code, Some(0), "{}", forth.err);
    assert_eq!(pilot_of(&host).await, "2.0.0");
    let unknown = plugins(&host, data.path(), "rollback WD --to 9").await;
    assert_eq!(unknown.code, Some(1));
    has(&unknown.err, ["no version 9 is kept", "1.0.0", "2.0.0"]);
}

#[tokio::test]
async fn a_rollback_before_the_start_is_found_by_the_host() {
    let data = tempfile::tempdir().unwrap();
    let site = Site::embedded();
    let host = setup(data.path(), &site).with_movies().start().await;
    host.drop_in("pilot.wasm", plugin("pilot_next"));
    serving_as(&host, "WD", "version", "2.0.0").await;
    // It serves a moment before it is kept.
    eventually("both are kept", async || {
        let ls = plugins(&host, data.path(), "ls WD --json").await;
        (ls.json().len() == 2).then_some(())
    })
    .await;
    let admin = host.admin;
    host.stop().await;
    let command = Command::new(None, "plugins rollback WD");
    let admin = format!("--admin={admin}");
    let folder = format!("--data-dir={}", data.path().display());
    let ran = command.with(&admin).with(&folder).run().await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    has(&ran.err, ["no host answers", "when it starts"]);
    let setup = setup(data.path(), &site).with_plugins(["rest", "db"]);
    let setup = setup.with_file("plugins/pilot.wasm", plugin("pilot_next"));
    let host = setup.start().await;
    assert_eq!(pilot_of(&host).await, "1.0.0");
}

#[tokio::test]
async fn what_was_compiled_once_is_not_compiled_again() {
    let data = tempfile::tempdir().unwrap();
    let site = Site::embedded();
    let start = async || setup(data.path(), &site).with_movies().start().await;
    let cached = async |host: &Host| {
        let files = host.admin_json("/plugins").await;
        let files = files.as_array().unwrap().clone();
        files.iter().filter(|file| file["cached"] == true).count()
    };
    let host = start().await;
    assert_eq!(cached(&host).await, 0);
    let folder = data.path().join("compiled");
    eventually("the compiled plugins are kept", async || {
        (fs::read_dir(&folder).ok()?.count() >= 3).then_some(())
    })
    .await;
    host.stop().await;
    let host = start().await;
    assert_eq!(cached(&host).await, 3);
    assert_eq!(host.get("/movies/").await.json(), json!([]));
    host.stop().await;

    // A file that is not what was written is compiled anew, and told.
    for entry in fs::read_dir(&folder).unwrap() {
        let file = entry.unwrap().path();
        let mut content = fs::read(&file).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 0xff;
        fs::write(&file, content).unwrap();
    }
    let host = start().await;
    assert_eq!(cached(&host).await, 0);
    host.logged(
        "a compiled plugin cannot be used; it is removed, and compiled anew",
        [],
    )
    .await;
    assert_eq!(host.get("/movies/").await.json(), json!([]));
}

#[tokio::test]
async fn a_type_that_is_pinned_takes_no_other_file_and_no_other_build() {
    let data = tempfile::tempdir().unwrap();
    let site = Site::embedded();
    let config = format!(
        "[workers.WD]\nplugin = \"pilot.wasm\"\nsha256 = \"{}\"\n",
        digest_of(&plugin("pilot"))
    );
    let setup = setup(data.path(), &site).with_movies().with_config(&config);
    let host = setup.start().await;
    host.drop_in("another.wasm", plugin("pilot_next"));
    let line = host.logged("plugin rejected", ["another.wasm"]).await;
    assert_eq!(line["stage"], "claim");
    has(
        line["error"].as_str().unwrap(),
        ["another.wasm", "pilot.wasm", "[workers.WD]"],
    );
    let other = variant(&plugin("pilot"), "unknown");
    host.drop_in("pilot.wasm", &other);
    let line = host.logged("plugin rejected", ["\"pilot.wasm\""]).await;
    has(
        line["error"].as_str().unwrap(),
        [
            digest_of(&other).as_str(),
            digest_of(&plugin("pilot")).as_str(),
        ],
    );
    assert_eq!(host.get("/movies/").await.status, 200);
    assert_eq!(arrival(&host, "WD").await["version"], "1.0.0");
}

#[tokio::test]
async fn a_file_is_explained_before_it_is_deployed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: Vec<u8>| {
        let file = folder.path().join(name);
        fs::write(&file, content).unwrap();
        file.to_string_lossy().into_owned()
    };
    let check = async |file: &str, more: &[&str]| {
        let command = Command::new(None, "check").with(file);
        let command = more
            .iter()
            .fold(command, |command, word| command.with(word));
        command.run().await
    };
    let good = file("rest.wasm", plugin("rest"));
    let ran = check(&good, &[]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    has(
        &ran.text(),
        [
            "warren:worker@0.1.0",
            "type      WA",
            "answers HTTP under /movies/",
            &digest_of(&plugin("rest")),
            "compiled in",
            "warren:worker/bus@0.1.0",
            "would load it",
        ],
    );
    // What it wants and does not have, with the line that gives it.
    let wants = file("reacher.wasm", plugin("reacher"));
    let ran = check(&wants, &["--json"]).await;
    assert_eq!(ran.code, Some(1));
    let report = &ran.json()[0];
    assert_eq!(
        (&report["loads"], &report["step"]),
        (&json!(false), &json!("grant"))
    );
    has(
        report["error"].as_str().unwrap(),
        ["outgoing-handler", "outgoing_http"],
    );
    let granted = folder.path().join("warren.toml");
    fs::write(
        &granted,
        "[workers.FR]\noutgoing_http = [\"https://example.com\"]\n",
    )
    .unwrap();
    let config = format!("--config={}", granted.display());
    assert_eq!(check(&wants, &[&config]).await.code, Some(0));

    let text = file("notes.wasm", b"no plugin".to_vec());
    let ran = check(&text, &[]).await;
    assert_eq!(ran.code, Some(1));
    has(&ran.text(), ["`validate`", "it is not WebAssembly"]);
    let ran = check("missing.wasm", &[]).await;
    assert_eq!(ran.code, Some(1));
    has(&ran.text(), ["`read`"]);
}

#[tokio::test]
async fn a_build_that_failed_before_is_tried_and_taken_back_again() {
    let data = tempfile::tempdir().unwrap();
    let host = setup(data.path(), &Site::embedded()).with_movies();
    let host = host.start().await;
    for name in ["pilot", "pilot_next"] {
        host.drop_in("pilot.wasm", plugin(name));
        let digest = digest_of(&plugin(name));
        serving_as(&host, "WD", "digest", &digest).await;
        let bad = plugin("pilot_broken");
        host.drop_in("pilot.wasm", &bad);
        eventually("the bad build is tried and taken back", async || {
            host.get("/movies/").await;
            let file = host.file("pilot.wasm").await?;
            (file["held_digest"] == digest_of(&bad) && file["digest"] == digest).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_host_that_starts_with_a_broken_file_serves_what_came_in_it_before() {
    let data = tempfile::tempdir().unwrap();
    let site = Site::embedded();
    let host = setup(data.path(), &site).with_movies().start().await;
    eventually("the version is kept", async || {
        data.path().join("versions/WD").read_dir().ok()?.next()
    })
    .await
    .unwrap();
    host.stop().await;
    let setup = setup(data.path(), &site).with_plugins(["rest", "db"]);
    let setup = setup.with_file("plugins/pilot.wasm", "no plugin at all");
    let host = setup.start().await;
    assert_eq!(pilot_of(&host).await, "1.0.0");
    let file = host.file("pilot.wasm").await.unwrap();
    assert_eq!(file["state"], "rolled-back", "{file}");
    has(file["error"].as_str().unwrap(), ["it is not WebAssembly"]);
    assert_eq!(host.get("/movies/").await.json(), json!([]));
    // And the next good build takes over.
    host.drop_in("pilot.wasm", plugin("pilot_next"));
    serving_as(&host, "WD", "version", "2.0.0").await;
}
