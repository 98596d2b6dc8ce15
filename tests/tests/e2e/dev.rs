//! `warren dev`: builds the guests, runs them, and follows their sources.

use std::{fs, path::Path, process::Command};

use serde_json::json;
use warren_tests::{
    BUILT_GUESTS, Host, Setup, Site, copy_built, eventually,
    host::{plugin, repository},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_source_is_built_and_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    copy_guests(folder.path());
    let guests = folder.path().join("guests");
    let setup = Setup::new(&Site::embedded()).with_dev(&guests);
    let host = setup.start().await;
    assert_eq!(host.get("/movies/").await.json(), json!([]));
    assert!(host.log_contains("Then change a source under"));

    let manifest = guests.join("pilot/Cargo.toml");
    edit(&manifest, |text| text.replace("1.0.0", "1.0.1"));
    has_version(&host, "1.0.1").await;

    // A mistake leaves the version before it serving. Mended, it takes over.
    let source = guests.join("pilot/src/lib.rs");
    edit(&source, |text| text + "mistake");
    eventually("the build fails", async || {
        host.log_contains("the versions before go on serving")
            .then_some(())
    })
    .await;
    assert_eq!(host.get("/movies/").await.json(), json!([]));
    edit(&manifest, |text| text.replace("1.0.1", "1.0.2"));
    edit(&source, |text| text.replace("mistake", ""));
    has_version(&host, "1.0.2").await;
    assert_eq!(host.get("/movies/").await.json(), json!([]));
    assert_eq!(host.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_folder_without_a_workspace_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(&Site::embedded()).with_dev(folder.path());
    let end = setup.run_to_its_end().await;
    assert_eq!(end.code, Some(1), "{}", end.log);
    assert!(end.log.contains("has no Cargo.toml"), "{}", end.log);
}

/// Copies the guests, and what cargo has built of the crates of others: only ours are built anew.
fn copy_guests(to: &Path) {
    // Says what to do when they are not built.
    assert!(!plugin("pilot").is_empty());
    for folder in [
        "wit",
        "tests/guests",
        "guests/.cargo",
        "guests/sdk",
        "guests/rest",
        "guests/pilot",
        "guests/db",
        "guests/front",
        "guests/Cargo.toml",
        "guests/Cargo.lock",
        "tests/languages/rust",
    ] {
        let place = to.join(folder);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        let copied = Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(repository().join(folder))
            .arg(&place)
            .status();
        assert!(copied.unwrap().success(), "copying {folder}");
    }
    for built in BUILT_GUESTS {
        copy_built(built, &to.join("guests/target").join(built));
    }
}

fn edit(file: &Path, change: impl FnOnce(String) -> String) {
    let before = fs::read_to_string(file).unwrap();
    let after = change(before.clone());
    assert_ne!(after, before);
    fs::write(file, after).unwrap();
}

async fn has_version(host: &Host, version: &str) {
    eventually("the new version serves", async || {
        let pilot = host.worker("WD").await?;
        (pilot["version"] == version).then_some(())
    })
    .await;
}
